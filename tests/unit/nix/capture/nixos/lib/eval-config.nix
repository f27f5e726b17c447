# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# In the place of nixpkgs: hands back the modules that fleet.nix passes.
{ system, modules }:
{
  config.system.build.toplevel = builtins.seq system modules;
}
