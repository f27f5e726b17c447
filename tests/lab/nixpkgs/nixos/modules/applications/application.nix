# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# What the three application stand-ins share: the web service and idle workers, under the real unit names.
{ lib, pkgs }:
let
  program = ./web.py;
  storeText = name: value: "${pkgs.writeText name (builtins.toJSON value)}";
  common = description: user: {
    inherit description;
    after = [ "network.target" ];
    serviceConfig = {
      User = user;
      Group = user;
      Restart = "always";
      RestartSec = 5;
    };
  };
in
{
  # facts: see web.py
  web =
    { description, user, facts, serviceConfig ? { } }:
    let
      base = common description user;
    in
    base
    // {
      serviceConfig = base.serviceConfig // {
        Type = "notify";
        ExecStart = "/usr/bin/python3 -I ${program} ${storeText "lab-${facts.application}.json" facts}";
      } // serviceConfig;
    };

  worker =
    description: user: serviceConfig:
    let
      base = common description user;
    in
    base // { serviceConfig = base.serviceConfig // { ExecStart = "/usr/bin/sleep infinity"; } // serviceConfig; };

  # a unit of the real module that has nothing to do here
  idle = description: user: {
    description = "${description} (stand-in of the lab)";
    serviceConfig = {
      Type = "oneshot";
      User = user;
      ExecStart = "/bin/true";
    };
  };

  text = default: description: lib.mkOption {
    type = lib.types.str;
    inherit default description;
  };
  required = type: description: lib.mkOption { inherit type description; };
  flag = default: description: lib.mkOption {
    type = lib.types.bool;
    inherit default description;
  };
  file = description: lib.mkOption {
    type = lib.types.nullOr lib.types.path;
    default = null;
    inherit description;
  };
  package = name: lib.mkOption {
    type = lib.types.package;
    default = pkgs.${name};
    description = "Accepted and not used: the stand-in is a Python script.";
  };
}
