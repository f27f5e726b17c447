# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Stand-in for Pixelfed: real option names and units, a web service that says what it was given.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.pixelfed;
  application = import ./application.nix { inherit lib pkgs; };
  inherit (application) flag text required;
  socket = "/run/phpfpm-pixelfed/pixelfed.sock";
  environmentFile = "${pkgs.writeText "pixelfed-env" (lib.generators.toKeyValue { } cfg.settings)}";
  after = [ "network.target" ] ++ lib.optional cfg.redis.createLocally "redis-pixelfed.service";
in
{
  options.services.pixelfed = {
    enable = lib.mkEnableOption "Pixelfed";
    package = application.package "pixelfed";
    user = text "pixelfed" "User.";
    group = text "pixelfed" "Group.";
    domain = required types.str "Domain.";
    secretFile = required types.path "Part of .env with the secrets.";
    settings = mkOption {
      type = types.attrsOf (types.oneOf [ types.bool types.int types.str ]);
      default = { };
      description = "Keys of .env.";
    };
    nginx = mkOption {
      type = types.nullOr (types.attrsOf types.anything);
      default = null;
      description = "Options of the virtual host; null for none.";
    };
    redis.createLocally = flag true "Run a Redis server for it.";
    database = {
      createLocally = flag true "Use a database server on the machine.";
      automaticMigrations = flag true "Accepted and not used.";
      type = mkOption {
        type = types.enum [ "mysql" "pgsql" ];
        default = "mysql";
        description = "Kind of database server.";
      };
      name = text "pixelfed" "Database.";
    };
    maxUploadSize = text "8M" "Largest upload.";
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = !cfg.database.createLocally && cfg.settings.DB_CONNECTION or null == "pgsql";
        message = "The lab's machines have no database server: set services.pixelfed.database.createLocally = false and DB_CONNECTION = \"pgsql\".";
      }
    ];
    users.users.${cfg.user} = {
      isSystemUser = true;
      inherit (cfg) group;
      extraGroups = lib.optional cfg.redis.createLocally "redis-pixelfed";
    };
    users.groups.${cfg.group}.members = lib.optional (cfg.nginx != null) config.services.nginx.user;
    services.redis.servers.pixelfed.enable = lib.mkIf cfg.redis.createLocally true;

    systemd.services = {
      pixelfed-data-setup = {
        description = "Pixelfed setup (stand-in of the lab)";
        wantedBy = [ "multi-user.target" ];
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          StateDirectory = "pixelfed";
          UMask = "077";
        };
        # The real unit runs as the user and takes the secrets as a credential; in the user namespace of a lab host
        # systemd cannot give credentials to other users than root.
        script = ''
          cat ${environmentFile} ${lib.escapeShellArg cfg.secretFile} > /var/lib/pixelfed/.env
          chown ${cfg.user} /var/lib/pixelfed /var/lib/pixelfed/.env
        '';
      };
      phpfpm-pixelfed =
        application.web {
          description = "Pixelfed web (stand-in of the lab)";
          inherit (cfg) user;
          facts = {
            application = "pixelfed";
            listen = socket;
            database = {
              host = cfg.settings.DB_HOST or null;
              port = cfg.settings.DB_PORT or 5432;
              name = cfg.settings.DB_DATABASE or null;
              user = cfg.settings.DB_USERNAME or null;
            };
            password.variable = "DB_PASSWORD";
            storage = {
              endpoint = cfg.settings.AWS_ENDPOINT or null;
              buckets.media = cfg.settings.AWS_BUCKET or null;
              accessKeyId = cfg.settings.AWS_ACCESS_KEY_ID or null;
            };
            secrets = {
              app-key.variable = "APP_KEY";
              s3-secret-key.variable = "AWS_SECRET_ACCESS_KEY";
            };
          };
          serviceConfig = {
            RuntimeDirectory = "phpfpm-pixelfed";
            RuntimeDirectoryMode = "0750";
            EnvironmentFile = "/var/lib/pixelfed/.env";
          };
        }
        // {
          wantedBy = [ "multi-user.target" ];
          after = after ++ [ "pixelfed-data-setup.service" ];
          requires = [ "pixelfed-data-setup.service" ];
        };
      pixelfed-cron = application.idle "Pixelfed periodic tasks" cfg.user;
      pixelfed-horizon = application.worker "Pixelfed Horizon (stand-in of the lab)" cfg.user { } // {
        wantedBy = [ "multi-user.target" ];
        after = after ++ [ "pixelfed-data-setup.service" ];
        requires = [ "pixelfed-data-setup.service" ];
      };
    };

    services.nginx = lib.mkIf (cfg.nginx != null) {
      enable = true;
      virtualHosts.${cfg.domain} = lib.mkMerge [
        cfg.nginx
        { locations."/".proxyPass = "http://unix:${socket}:"; }
      ];
    };
  };
}
