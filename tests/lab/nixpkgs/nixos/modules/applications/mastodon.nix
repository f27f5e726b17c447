# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Stand-in for Mastodon: real option names and units, a web service that says what it was given.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.mastodon;
  application = import ./application.nix { inherit lib pkgs; };
  inherit (application) flag file text required;

  secretFile = name: text "/var/lib/mastodon/secrets/${name}" "File with the secret ${name}.";
  socket = "/run/mastodon-web/web.socket";
  environmentFiles = [ "/var/lib/mastodon/.secrets_env" ] ++ cfg.extraEnvFiles;

  # the real module hands these secrets to its processes in the same way
  secretVariables = {
    SECRET_KEY_BASE = cfg.secretKeyBaseFile;
    VAPID_PRIVATE_KEY = cfg.vapidPrivateKeyFile;
    VAPID_PUBLIC_KEY = cfg.vapidPublicKeyFile;
    ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY = cfg.activeRecordEncryptionPrimaryKeyFile;
    ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY = cfg.activeRecordEncryptionDeterministicKeyFile;
    ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT = cfg.activeRecordEncryptionKeyDerivationSaltFile;
    DB_PASS = cfg.database.passwordFile;
  };

  needed = [
    "mastodon-init-dirs.service"
  ]
  ++ lib.optional cfg.automaticMigrations "mastodon-init-db.service"
  ++ lib.optional cfg.redis.createLocally "redis-mastodon.service";
  unit =
    base:
    base
    // {
      wantedBy = [ "mastodon.target" ];
      after = base.after ++ needed;
      requires = needed;
      environment = lib.mapAttrs (_: toString) cfg.extraConfig;
    };
in
{
  options.services.mastodon = {
    enable = lib.mkEnableOption "Mastodon";
    package = application.package "mastodon";
    configureNginx = flag false "Make nginx its reverse proxy.";
    user = text "mastodon" "User.";
    group = text "mastodon" "Group.";
    localDomain = required types.str "Domain.";
    streamingProcesses = required types.ints.positive "Number of streaming processes.";
    webProcesses = mkOption {
      type = types.int;
      default = 2;
      description = "Web processes.";
    };
    sidekiqProcesses = mkOption {
      type = types.attrsOf types.attrs;
      default = {
        all = {
          jobClasses = [ ];
          threads = null;
        };
      };
      description = "Sidekiq processes by name.";
    };
    secretKeyBaseFile = secretFile "secret-key-base";
    vapidPublicKeyFile = secretFile "vapid-public-key";
    vapidPrivateKeyFile = secretFile "vapid-private-key";
    activeRecordEncryptionPrimaryKeyFile = secretFile "active-record-encryption-primary-key";
    activeRecordEncryptionDeterministicKeyFile = secretFile "active-record-encryption-deterministic-key";
    activeRecordEncryptionKeyDerivationSaltFile = secretFile "active-record-encryption-key-derivation-salt";
    redis.createLocally = flag true "Run a Redis server for it.";
    database = {
      createLocally = flag true "Use a PostgreSQL server on the machine.";
      host = text "/run/postgresql" "Host.";
      port = mkOption {
        type = types.nullOr types.port;
        default = if cfg.database.createLocally then null else 5432;
        description = "Port.";
      };
      name = text "mastodon" "Database.";
      user = text "mastodon" "Role.";
      passwordFile = file "Password of the role.";
    };
    smtp = {
      createLocally = flag true "Accepted and not used: the lab has no mail.";
      fromAddress = required types.str "Sender of mail.";
    };
    extraConfig = mkOption {
      type = types.attrs;
      default = { };
      description = "Environment variables.";
    };
    extraEnvFiles = mkOption {
      type = types.listOf types.path;
      default = [ ];
      description = "Environment files.";
    };
    automaticMigrations = flag true "Accepted and not used.";
    mediaAutoRemove = {
      enable = flag true "Accepted and not used.";
      olderThanDays = mkOption {
        type = types.int;
        default = 30;
        description = "Accepted and not used.";
      };
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = !cfg.database.createLocally && cfg.database.host != "/run/postgresql";
        message = "The lab's machines have no PostgreSQL: set services.mastodon.database.createLocally = false and its host.";
      }
    ];
    users.users.${cfg.user} = {
      isSystemUser = true;
      inherit (cfg) group;
      extraGroups = lib.optional cfg.redis.createLocally "redis-mastodon";
    };
    users.groups.${cfg.group}.members = lib.optional cfg.configureNginx config.services.nginx.user;
    services.redis.servers.mastodon.enable = lib.mkIf cfg.redis.createLocally true;

    systemd.targets.mastodon = {
      description = "All services of Mastodon";
      wantedBy = [ "multi-user.target" ];
    };
    systemd.services = {
      mastodon-init-dirs = {
        description = "Mastodon secrets (stand-in of the lab)";
        after = [ "network.target" ];
        serviceConfig = {
          Type = "oneshot";
          User = cfg.user;
          StateDirectory = "mastodon";
          UMask = "077";
        };
        script = ''
          {
          ${lib.concatLines (
            lib.mapAttrsToList (name: file: "printf '%s=\"%s\"\\n' ${name} \"$(cat ${lib.escapeShellArg file})\"") secretVariables
          )}
          } > /var/lib/mastodon/.secrets_env
        '';
      };
      mastodon-init-db = lib.mkIf cfg.automaticMigrations (application.idle "Mastodon migrations" cfg.user);
      mastodon-media-auto-remove = lib.mkIf cfg.mediaAutoRemove.enable (
        application.idle "Mastodon media removal" cfg.user
      );
      mastodon-web = unit (
        application.web {
          description = "Mastodon web (stand-in of the lab)";
          inherit (cfg) user;
          facts = {
            application = "mastodon";
            listen = socket;
            database = { inherit (cfg.database) host port name user; };
            password.variable = "DB_PASS";
            storage = {
              endpoint = cfg.extraConfig.S3_ENDPOINT or null;
              buckets = { media = cfg.extraConfig.S3_BUCKET or null; };
              accessKeyId = cfg.extraConfig.AWS_ACCESS_KEY_ID or null;
            };
            secrets = lib.genAttrs (lib.attrNames secretVariables ++ [ "AWS_SECRET_ACCESS_KEY" ]) (variable: {
              inherit variable;
            });
          };
          serviceConfig = {
            RuntimeDirectory = "mastodon-web";
            RuntimeDirectoryMode = "0750";
            EnvironmentFile = environmentFiles;
          };
        }
      );
    }
    // lib.mapAttrs' (
      name: _:
      lib.nameValuePair "mastodon-sidekiq-${name}" (
        unit (
          application.worker "Mastodon sidekiq (stand-in of the lab)" cfg.user { EnvironmentFile = environmentFiles; }
        )
      )
    ) cfg.sidekiqProcesses
    // lib.listToAttrs (
      map (
        n:
        lib.nameValuePair "mastodon-streaming-${toString n}" (
          unit (
            application.worker "Mastodon streaming ${toString n} (stand-in of the lab)" cfg.user {
              EnvironmentFile = environmentFiles;
            }
          )
        )
      ) (lib.range 1 cfg.streamingProcesses)
    );

    services.nginx = lib.mkIf cfg.configureNginx {
      enable = true;
      virtualHosts.${cfg.localDomain} = {
        forceSSL = lib.mkDefault true;
        enableACME = lib.mkDefault true;
        locations."/".proxyPass = "http://unix:${socket}:";
      };
    };
  };
}
