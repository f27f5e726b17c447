# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# The table of real NixOS options as option declarations, and the collection's modules evaluated against them.
#
#   table   path of nixos-options.json
#   fleet   path of a fleet file whose first machine runs all applications
#   extra   attribute set that a further module sets
# Gives the checked values of the options in the table that the modules define.
{
  nixpkgs,
  table,
  fleet,
  extra ? { },
}:
let
  lib = import (nixpkgs + "/lib");
  inherit (lib) mkOption types;
  all = (builtins.fromJSON (builtins.readFile table)).options;
  covered = [
    "services.mastodon."
    "services.peertube."
    "services.pixelfed."
    "services.nginx."
    "services.redis."
    "services.openssh."
    "security.acme."
    "networking.firewall."
    "users.users."
  ];
  entries = lib.filterAttrs (name: _: lib.any (prefix: lib.hasPrefix prefix name) covered) all;

  # { <part> = { entry or null, children }; } from the dotted names
  insert =
    tree: path: entry:
    let
      part = builtins.head path;
      old = tree.${part} or {
        entry = null;
        children = { };
      };
    in
    tree
    // {
      ${part} =
        if builtins.length path == 1 then
          old // { inherit entry; }
        else
          old // { children = insert old.children (builtins.tail path) entry; };
    };
  tree = lib.foldl' (done: name: insert done (lib.splitString "." name) entries.${name}) { } (lib.attrNames entries);
  vhost = tree.services.children.nginx.children.virtualHosts.children."<name>".children;

  simple = {
    inherit (types) bool int float port str lines commas path package raw attrs anything;
    line = types.singleLineStr;
    positive = types.ints.positive;
    unsigned = types.ints.unsigned;
    json = types.attrsOf types.anything;
    keyvalue = types.attrsOf (types.oneOf [ types.bool types.int types.str ]);
  };

  typeOf =
    children: type:
    let
      kind = if lib.isList type then builtins.head type else type;
      argument = builtins.elemAt type 1;
      submodule = freeform: types.submodule ({ options = declare children; } // freeform);
    in
    if kind == "submodule" then
      submodule (if lib.isList type then { freeformType = typeOf { } argument; } else { })
    else if kind == "vhost" then
      types.submodule { options = declare vhost; }
    else if kind == "location" then
      types.submodule { options = declare vhost.locations.children."<name>".children; }
    else if kind == "nullOr" then
      types.nullOr (typeOf children argument)
    else if kind == "listOf" then
      types.listOf (typeOf (children."*".children or { }) argument)
    else if kind == "attrsOf" then
      types.attrsOf (typeOf (children."<name>".children or { }) argument)
    else if kind == "oneOf" then
      types.oneOf (map (typeOf children) (builtins.tail type))
    else if kind == "enum" then
      types.enum (builtins.tail type)
    else if kind == "intBetween" then
      types.ints.between argument (builtins.elemAt type 2)
    else
      simple.${kind};

  declare = lib.mapAttrs (
    _: node:
    if node.entry == null then
      if node.children ? "<name>" then
        mkOption {
          type = types.attrsOf (types.submodule { options = declare node.children."<name>".children; });
          default = { };
        }
      else
        declare node.children
    else
      let
        type = typeOf node.children node.entry.type;
      in
      if node.entry.required or false then
        mkOption { inherit type; }
      else if node.entry ? default then
        mkOption { inherit type; inherit (node.entry) default; }
      else
        # computed by the real module
        mkOption { type = types.nullOr type; default = null; }
  );

  # the rest of NixOS that the modules touch, without types
  loose = mkOption { type = types.attrsOf types.anything; default = { }; };
  stubs.options = {
    networking = {
      hostName = mkOption { };
      useDHCP = mkOption { };
      interfaces = loose;
      defaultGateway = mkOption { };
      nameservers = mkOption { };
    };
    environment.etc = loose;
    systemd.services = loose;
    system.stateVersion = mkOption { };
    system.build.toplevel = mkOption { };
  };

  evaluated = lib.evalModules {
    modules = [
      { options = declare tree; }
      stubs
      {
        _file = "extra";
        config = extra;
      }
      { system.build.toplevel = { }; }
    ]
    ++ modules;
    specialArgs.pkgs = import nixpkgs { system = "x86_64-linux"; };
  };
  # the module list that fleet.nix would hand to NixOS
  modules =
    (import ../../../nix/fleet.nix {
      nixpkgs = ./capture;
      inherit fleet;
    }).systems.all;
in
{
  inherit (evaluated.config) services security users;
  firewall = evaluated.config.networking.firewall;
}
