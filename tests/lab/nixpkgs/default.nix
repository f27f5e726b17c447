# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# The lab's stand-in for nixpkgs: lib, a few builders, and NixOS modules for Debian hosts that play NixOS machines.
{
  system ? builtins.currentSystem,
}:
import ./pkgs {
  inherit system;
  lib = import ./lib;
}
