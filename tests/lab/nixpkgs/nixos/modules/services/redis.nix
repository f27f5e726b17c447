# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  enabled = lib.filterAttrs (_: server: server.enable) config.services.redis.servers;
in
{
  options.services.redis.servers = mkOption {
    default = { };
    description = "Redis servers; unit, user and socket are redis-<name>.";
    type = types.attrsOf (
      types.submodule (
        { name, ... }:
        {
          options = {
            enable = lib.mkEnableOption "this Redis server";
            user = mkOption {
              type = types.str;
              default = "redis-${name}";
              description = "User.";
            };
            bind = mkOption {
              type = types.nullOr types.str;
              default = "127.0.0.1";
              description = "Address.";
            };
            port = mkOption {
              type = types.port;
              default = 0;
              description = "TCP port, 0 for none.";
            };
            unixSocket = mkOption {
              type = types.nullOr types.path;
              default = "/run/redis-${name}/redis.sock";
              description = "Socket.";
            };
            unixSocketPerm = mkOption {
              type = types.int;
              default = 660;
              description = "Mode of the socket.";
            };
          };
        }
      )
    );
  };

  config = {
    users.users = lib.mapAttrs' (
      _: server: lib.nameValuePair server.user { isSystemUser = true; }
    ) enabled;
    systemd.services = lib.mapAttrs' (
      name: server:
      lib.nameValuePair "redis-${name}" {
        description = "Redis server ${name}";
        after = [ "network.target" ];
        wantedBy = [ "multi-user.target" ];
        serviceConfig = {
          Type = "notify";
          User = server.user;
          RuntimeDirectory = "redis-${name}";
          StateDirectory = "redis-${name}";
          Restart = "always";
          ExecStart = lib.concatStringsSep " " [
            "${pkgs.redis}/bin/redis-server"
            "--supervised systemd --save '' --appendonly no"
            "--dir /var/lib/redis-${name}"
            "--bind ${server.bind} --port ${toString server.port}"
            "--unixsocket ${server.unixSocket} --unixsocketperm ${toString server.unixSocketPerm}"
          ];
        };
      }
    ) enabled;
  };
}
