# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Builders over the build machine's own /bin/sh and coreutils; "packages" are the lab host's Debian under /usr.
{ lib, system }:
let
  # `files`: texts that the script finds as files in $<name>Path, whatever characters they hold.
  build =
    name: script: files:
    derivation (
      files
      // {
        inherit name system;
        builder = "/bin/sh";
        args = [ "-euc" script ];
        passAsFile = lib.attrNames files;
        PATH = "/usr/bin:/bin";
        preferLocalBuild = true;
        allowSubstitutes = false;
      }
    );

  json = {
    type =
      let
        value = lib.types.nullOr (
          lib.types.oneOf [
            lib.types.bool
            lib.types.int
            lib.types.float
            lib.types.str
            lib.types.path
            (lib.types.attrsOf value)
            (lib.types.listOf value)
          ]
        ) // { description = "JSON value"; };
      in
      value;
    generate = name: value: pkgs.writeText name (builtins.toJSON value);
  };

  pkgs = {
    inherit lib system;
    stdenv.hostPlatform.system = system;

    writeText = name: text: build name ''cp "$textPath" "$out"'' { inherit text; };
    writeShellScript =
      name: text:
      build name ''cp "$textPath" "$out"; chmod 0555 "$out"'' { text = "#!/bin/sh\n${text}"; };
    formats.json = { }: json;

    # A directory from entries { target, and one of: text, link (what a symbolic link says), source (a store path) }.
    tree =
      name: entries:
      let
        numbered = lib.imap1 (n: entry: entry // { variable = "f${toString n}"; }) entries;
        kind = entry: if entry ? text then "text" else if entry ? link then "link" else "source";
        line = entry: "${entry.variable} ${kind entry} ${entry.target}";
      in
      build name (builtins.readFile ./tree.sh) (
        lib.listToAttrs (
          map (entry: lib.nameValuePair entry.variable (entry.text or entry.link or "${entry.source}")) numbered
        )
        // {
          index = lib.concatMapStrings (entry: line entry + "\n") numbered;
        }
      );
  }
  // {
    mastodon = pkgs.tree "mastodon-stand-in" [
      {
        target = "bin/rails";
        source = pkgs.writeShellScript "rails" ''
          echo "stand-in of the lab, nothing is run: rails $*"
        '';
      }
    ];
  }
  // lib.genAttrs [ "bash" "coreutils" "iproute2" "nginx" "nix" "peertube" "pixelfed" "redis" "systemd" "util-linux" ] (
    _: "/usr"
  );
in
pkgs
