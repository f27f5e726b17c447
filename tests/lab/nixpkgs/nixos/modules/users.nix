# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  text = default: description: mkOption {
    type = types.str;
    inherit default description;
  };
  lists = description: mkOption {
    type = types.listOf types.str;
    default = [ ];
    inherit description;
  };
  system = lib.filterAttrs (_: user: user.isSystemUser) config.users.users;
in
{
  options.users = {
    users = mkOption {
      default = { };
      description = "Accounts; system users are made by `activate`, for all of them it installs the keys.";
      type = types.attrsOf (
        types.submodule (
          { name, ... }:
          {
            options = {
              isSystemUser = mkOption {
                type = types.bool;
                default = false;
                description = "Whether this is an account of a service.";
              };
              group = text name "Primary group.";
              extraGroups = lists "Further groups.";
              home = mkOption {
                type = types.path;
                default = "/var/empty";
                description = "Home directory.";
              };
              openssh.authorizedKeys.keys = mkOption {
                type = types.listOf types.singleLineStr;
                default = [ ];
                description = "Public keys that may log in.";
              };
            };
          }
        )
      );
    };
    groups = mkOption {
      default = { };
      description = "Groups.";
      type = types.attrsOf (types.submodule { options.members = lists "Users in the group."; });
    };
  };

  config = {
    environment.etc = lib.mapAttrs' (
      name: user:
      lib.nameValuePair "ssh/authorized_keys.d/${name}" {
        # sshd does not trust a file below the group-writable /nix/store
        mode = "0444";
        text = lib.concatLines user.openssh.authorizedKeys.keys;
      }
    ) (lib.filterAttrs (_: user: user.openssh.authorizedKeys.keys != [ ]) config.users.users);

    system.build.extraFiles.users = lib.concatLines (
      map (name: "group ${name}") (
        lib.unique (lib.attrNames config.users.groups ++ lib.mapAttrsToList (_: user: user.group) system)
      )
      ++ lib.mapAttrsToList (name: user: "user ${name} ${user.group}") system
      ++ lib.concatLists (
        lib.mapAttrsToList (name: user: map (group: "member ${name} ${group}") user.extraGroups) config.users.users
      )
      ++ lib.concatLists (
        lib.mapAttrsToList (name: group: map (member: "member ${member} ${name}") group.members) config.users.groups
      )
    );
  };
}
