# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Debian's sshd, configured through a drop-in that `activate` makes it read again.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.openssh;
  show = value: if value == true then "yes" else if value == false then "no" else toString value;
in
{
  options.services.openssh = {
    enable = lib.mkEnableOption "the OpenSSH server";
    openFirewall = mkOption {
      type = types.bool;
      default = true;
      description = "Open its port.";
    };
    settings = mkOption {
      default = { };
      description = "Keywords of sshd_config.";
      type = types.submodule {
        freeformType = types.attrsOf (types.oneOf [ types.bool types.int types.str ]);
        options = {
          PermitRootLogin = mkOption {
            type = types.nullOr (
              types.enum [ "yes" "without-password" "prohibit-password" "forced-commands-only" "no" ]
            );
            default = "prohibit-password";
            description = "Whether root may log in.";
          };
          PasswordAuthentication = mkOption {
            type = types.nullOr types.bool;
            default = true;
            description = "Whether passwords are accepted.";
          };
          KbdInteractiveAuthentication = mkOption {
            type = types.nullOr types.bool;
            default = true;
            description = "Whether keyboard-interactive logins are accepted.";
          };
        };
      };
    };
  };

  config = lib.mkIf cfg.enable {
    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ 22 ];
    environment.etc."ssh/sshd_config.d/00-nixos.conf".text = ''
      AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/authorized_keys.d/%u
      ${lib.concatLines (
        lib.mapAttrsToList (name: value: "${name} ${show value}") (
          lib.filterAttrs (_: value: value != null) cfg.settings
        )
      )}'';
  };
}
