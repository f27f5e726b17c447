# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
{ lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options = {
    assertions = mkOption {
      type = types.listOf types.unspecified;
      default = [ ];
      description = "Conditions that must hold for a system to be built: { assertion, message }.";
    };
    warnings = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Texts shown while the system is evaluated.";
    };
  };
}
