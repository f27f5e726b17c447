# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.environment = {
    etc = mkOption {
      default = { };
      description = "Files under /etc; the attribute name is the path below /etc.";
      type = types.attrsOf (
        types.submodule (
          { name, ... }:
          {
            options = {
              enable = mkOption {
                type = types.bool;
                default = true;
                description = "Whether the file exists.";
              };
              target = mkOption {
                type = types.strMatching "[^ \n/.][^ \n]*";
                default = name;
                description = "Path below /etc.";
              };
              mode = mkOption {
                type = types.strMatching "symlink|[0-7]{4}";
                default = "symlink";
                description = "Mode of a copy; `symlink` for a link into the store.";
              };
              text = mkOption {
                type = types.nullOr types.lines;
                default = null;
                description = "Content.";
              };
              source = mkOption {
                type = types.nullOr types.path;
                default = null;
                description = "File or directory to take, when there is no text.";
              };
            };
          }
        )
      );
    };
    systemPackages = mkOption {
      type = types.listOf types.package;
      default = [ ];
      description = "Accepted and not used: the lab host's programs are Debian's.";
    };
  };

  config.system.build.extraFiles.etc-modes = lib.concatLines (
    lib.mapAttrsToList (_: file: "${file.mode} ${file.target}") (
      lib.filterAttrs (_: file: file.enable && file.mode != "symlink") config.environment.etc
    )
  );
}
