# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# systemd units as files of the system, with the dependency links that `wantedBy` and `requiredBy` stand for.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;

  scalar = types.oneOf [ types.bool types.int types.float types.str types.path types.package ];
  section = description: mkOption {
    type = types.attrsOf (types.oneOf [ scalar (types.listOf scalar) ]);
    default = { };
    inherit description;
  };
  units = description: mkOption {
    type = types.listOf types.str;
    default = [ ];
    inherit description;
  };
  flag = default: description: mkOption {
    type = types.bool;
    inherit default description;
  };
  script = description: mkOption {
    type = types.lines;
    default = "";
    inherit description;
  };

  common = {
    enable = flag true "Whether the unit exists.";
    description = mkOption {
      type = types.singleLineStr;
      default = "";
      description = "What the unit is.";
    };
    after = units "Units that are started before this one.";
    before = units "Units that are started after this one.";
    requires = units "Units without which this one cannot run.";
    wants = units "Units that are started with this one.";
    partOf = units "Units whose stop and restart reach this one.";
    wantedBy = units "Units that want this one.";
    requiredBy = units "Units that require this one.";
    unitConfig = section "Settings of the section [Unit].";
    restartTriggers = mkOption {
      type = types.listOf types.unspecified;
      default = [ ];
      description = "Values whose change restarts the unit.";
    };
  };

  service = types.submodule {
    options = common // {
      environment = mkOption {
        type = types.attrsOf (types.nullOr (types.oneOf [ types.str types.path types.package ]));
        default = { };
        description = "Environment variables.";
      };
      path = mkOption {
        type = types.listOf (types.oneOf [ types.package types.str ]);
        default = [ ];
        description = "Accepted and not used: the unit finds Debian's programs.";
      };
      serviceConfig = section "Settings of the section [Service].";
      script = script "Shell script to run.";
      preStart = script "Shell script that runs before it.";
      restartIfChanged = flag true "Whether a change of the unit restarts it.";
      stopIfChanged = flag true "Whether it is stopped before the activation and started after it.";
    };
  };

  renderSection =
    name: settings:
    lib.optionalString (settings != { }) (
      "[${name}]\n"
      + lib.concatStrings (
        lib.mapAttrsToList (
          key: value:
          lib.concatMapStrings (
            item: "${key}=${if lib.isBool item then lib.boolToString item else toString item}\n"
          ) (lib.toList value)
        ) settings
      )
    );

  unitSettings =
    unit:
    lib.filterAttrs (_: value: value != [ ] && value != "") {
      Description = unit.description;
      After = unit.after;
      Before = unit.before;
      Requires = unit.requires;
      Wants = unit.wants;
      PartOf = unit.partOf;
    }
    // lib.optionalAttrs (unit.restartTriggers != [ ]) {
      X-Restart-Triggers = builtins.hashString "sha256" (toString unit.restartTriggers);
    }
    // unit.unitConfig;

  renderService =
    name: unit:
    let
      environment = lib.filterAttrs (_: value: value != null) unit.environment;
      run = part: text: "${pkgs.writeShellScript "unit-script-${name}-${part}" "set -e\n${text}"}";
    in
    renderSection "Unit" (
      unitSettings unit
      // lib.optionalAttrs (!unit.restartIfChanged) { X-RestartIfChanged = false; }
      // lib.optionalAttrs (!unit.stopIfChanged) { X-StopIfChanged = false; }
    )
    + renderSection "Service" (
      lib.optionalAttrs (environment != { }) {
        Environment = lib.mapAttrsToList (key: value: builtins.toJSON "${key}=${toString value}") environment;
      }
      // lib.optionalAttrs (unit.preStart != "") { ExecStartPre = run "pre-start" unit.preStart; }
      // lib.optionalAttrs (unit.script != "") { ExecStart = run "start" unit.script; }
      // unit.serviceConfig
    );

  all =
    lib.mapAttrs' (
      name: unit: lib.nameValuePair "${name}.service" { inherit unit; text = renderService name unit; }
    ) config.systemd.services
    // lib.mapAttrs' (
      name: unit: lib.nameValuePair "${name}.target" { inherit unit; text = renderSection "Unit" (unitSettings unit); }
    ) config.systemd.targets;
  enabled = lib.filterAttrs (_: entry: entry.unit.enable) all;

  links =
    name: suffix:
    map (by: {
      target = "etc/systemd/system/${by}.${suffix}/${name}";
      link = "../${name}";
    });
in
{
  options.systemd = {
    services = mkOption {
      type = types.attrsOf service;
      default = { };
      description = "Services by name without suffix.";
    };
    targets = mkOption {
      type = types.attrsOf (types.submodule { options = common; });
      default = { };
      description = "Targets by name without suffix.";
    };
    tmpfiles.rules = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Lines for systemd-tmpfiles.";
    };
  };

  config = {
    environment.etc."tmpfiles.d/00-nixos.conf".text = lib.concatLines config.systemd.tmpfiles.rules;
    system.build.extraEntries = lib.concatLists (
      lib.mapAttrsToList (
        name: entry:
        [ { target = "etc/systemd/system/${name}"; inherit (entry) text; } ]
        ++ links name "wants" entry.unit.wantedBy
        ++ links name "requires" entry.unit.requiredBy
      ) enabled
    );
  };
}
