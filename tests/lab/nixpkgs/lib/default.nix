# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# The part of nixpkgs' `lib` that the modules of this collection use, with the same names and results.
let
  lib =
    import ./basics.nix
    // import ./modules.nix { inherit lib; }
    // {
      types = import ./types.nix { inherit lib; };
    };
in
lib
