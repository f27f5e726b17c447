# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# One NixOS system from a list of modules: { config, options, pkgs }.
{
  system ? builtins.currentSystem,
  modules,
  specialArgs ? { },
}:
let
  pkgs = import ../.. { inherit system; };
  evaluated = pkgs.lib.evalModules {
    modules = modules ++ import ../modules/module-list.nix;
    specialArgs = { inherit pkgs; } // specialArgs;
  };
in
evaluated // { inherit pkgs; }
