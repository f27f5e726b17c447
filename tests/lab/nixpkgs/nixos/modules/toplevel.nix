# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# The system as one store path: unit and etc files, scripts of ../../system, and what they need to know.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  inherit (config) system;

  snippet = types.coercedTo types.str (text: { inherit text; }) (
    types.submodule {
      options.text = mkOption {
        type = types.lines;
        description = "Shell commands.";
      };
      options.deps = mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "Snippets that run earlier.";
      };
    }
  );

  # names in an order in which each comes after those it depends on
  visit =
    done: name:
    if lib.elem name done then
      done
    else
      lib.foldl' visit done (lib.filter (dep: system.activationScripts ? ${dep}) system.activationScripts.${name}.deps)
      ++ [ name ];
  activationOrder = lib.foldl' visit [ ] (lib.attrNames system.activationScripts);

  script = target: text: { inherit target; text = "#!/bin/sh\n${text}\n"; };
  pad = n: lib.substring (lib.stringLength (toString n)) 3 "000" + toString n;

  etcEntries = lib.mapAttrsToList (
    _: file:
    { target = "etc/${file.target}"; }
    // (if file.text != null then { inherit (file) text; } else { inherit (file) source; })
  ) (lib.filterAttrs (_: file: file.enable) config.environment.etc);

  toplevel = pkgs.tree "nixos-system-${config.networking.hostName}-lab" (
    [
      { target = "bin/switch-to-configuration"; source = ../../system/switch-to-configuration; }
      { target = "activate"; source = ../../system/activate; }
      { target = "init"; source = ../../system/init; }
      { target = "functions.sh"; source = ../../system/functions.sh; }
      { target = "sw/bin"; link = "/usr/bin"; }
      { target = "nixos-version"; text = "lab"; }
      { target = "system"; text = pkgs.system; }
      { target = "init-interface-version"; text = system.build.initInterfaceVersion; }
    ]
    ++ system.build.kernelEntries
    ++ etcEntries
    ++ system.build.extraEntries
    ++ lib.mapAttrsToList (target: text: { inherit target text; }) system.build.extraFiles
    ++ lib.imap1 (
      n: name: script "activation/${pad n}-${name}" system.activationScripts.${name}.text
    ) activationOrder
    ++ lib.mapAttrsToList (name: script "pre-switch-checks/${name}") system.preSwitchChecks
  );

  failed = map (entry: entry.message) (lib.filter (entry: !entry.assertion) config.assertions);
  checked =
    if failed != [ ] then
      throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (message: "- ${message}") failed}"
    else
      lib.foldl' (result: warning: lib.warn warning result) toplevel config.warnings;
in
{
  options = {
    system = {
      stateVersion = mkOption {
        type = types.str;
        description = "Release whose defaults for stateful data apply.";
      };
      activationScripts = mkOption {
        type = types.attrsOf snippet;
        default = { };
        description = "Shell snippets that run at every activation and boot.";
      };
      preSwitchChecks = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = "Shell fragments that run before a switch with <toplevel> <action>; a failing one refuses it.";
      };
      build = {
        toplevel = mkOption {
          type = types.package;
          description = "The system.";
        };
        extraFiles = mkOption {
          type = types.attrsOf types.str;
          default = { };
          description = "Further files of the system by path.";
        };
        extraEntries = mkOption {
          type = types.listOf types.unspecified;
          default = [ ];
          description = "Further entries for pkgs.tree.";
        };
        kernelEntries = mkOption {
          type = types.listOf types.unspecified;
          default = [
            {
              target = "kernel";
              link = "/proc/version";
            }
          ];
          description = "Entries for pkgs.tree of kernel, initial RAM disk and kernel parameters; the machine's own kernel.";
        };
        initInterfaceVersion = mkOption {
          type = types.str;
          default = "lab-init-1";
          description = "A system with another value than the running one can only be booted.";
        };
      };
    };
    boot.loader = mkOption {
      type = types.attrsOf types.anything;
      default = { };
      description = "Accepted and not used: the lab's boot loader is a directory of files.";
    };
  };

  config.system.build.toplevel = checked;
}
