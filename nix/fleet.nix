# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# One evaluation gives the system of every machine, from the fleet file that the plan writes.
#
#   nixpkgs       path of nixpkgs (or of anything that offers nixos/lib/eval-config.nix)
#   fleet         path of fleet.json; its texts are data, never code
#   extraModules  NixOS modules for every machine
#   machines      names of the machines that are wanted; null for all; the others are not evaluated
{
  nixpkgs,
  fleet,
  extraModules ? [ ],
  machines ? null,
}:
let
  data = builtins.fromJSON (builtins.readFile fleet);
  evalConfig = import (nixpkgs + "/nixos/lib/eval-config.nix");

  # names become paths and attribute names only if they look like names
  slug = what: text: if builtins.match "[a-z0-9]+(-[a-z0-9]+)*" text != null then text else throw "${what} ${builtins.toJSON text} is no valid name";

  applicationModule =
    instance:
    let
      file = ./applications + "/${slug "The application" instance.application}/module.nix";
    in
    if builtins.pathExists file then
      file
    else
      throw "The application ${builtins.toJSON instance.application} of ${instance.id} is not in the catalogue (${toString file} does not exist)";

  # The application's module is a function of its instance. It gets the checked option value, not the JSON.
  instanceModules = instance: [
    {
      _file = "fleet file, application instance ${instance.id}";
      config.fediversity.instances.${instance.id} = removeAttrs instance [ "nixosOptions" ];
    }
    {
      _file = "nixos_options of ${instance.id}";
      config = instance.nixosOptions or { };
    }
    (
      { config, ... }:
      {
        imports = [
          {
            _file = applicationModule instance;
            imports = [ (import (applicationModule instance) config.fediversity.instances.${instance.id}) ];
          }
        ];
      }
    )
  ];

  machineSystem =
    machine:
    (evalConfig {
      inherit (machine) system;
      modules = [
        ./modules/machine.nix
        ./modules/fediversity.nix
        ./modules/secrets.nix
        ./modules/web.nix
        {
          _file = "fleet file, machine ${machine.hostName}";
          config.fediversity.machine = removeAttrs machine [
            "instances"
            "system"
          ];
        }
      ]
      ++ builtins.concatMap instanceModules machine.instances
      ++ extraModules;
    }).config.system.build.toplevel;

  wanted =
    if machines == null then
      data.machines
    else
      builtins.listToAttrs (
        map (name: {
          inherit name;
          value = data.machines.${name} or (throw "The fleet file has no machine ${builtins.toJSON name}");
        }) machines
      );

  systems =
    if data.version == 1 then
      builtins.mapAttrs (_: machineSystem) wanted
    else
      throw "The fleet file has version ${toString data.version}; this collection reads version 1";
in
{
  inherit systems;
  # not named outPath: a set with that name is one string in JSON
  paths = builtins.mapAttrs (_: system: {
    inherit (system) drvPath;
    systemPath = system.outPath;
  }) systems;
}
