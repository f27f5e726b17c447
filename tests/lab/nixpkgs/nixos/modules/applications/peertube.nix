# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Stand-in for PeerTube: real option names and units, a web service that says what it was given.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.peertube;
  application = import ./application.nix { inherit lib pkgs; };
  inherit (application) flag file text required;
  port = default: description: mkOption {
    type = types.port;
    inherit default description;
  };
  storage = cfg.settings.object_storage or { };
in
{
  options.services.peertube = {
    enable = lib.mkEnableOption "PeerTube";
    package = application.package "peertube";
    configureNginx = flag false "Make nginx its reverse proxy.";
    user = text "peertube" "User.";
    group = text "peertube" "Group.";
    localDomain = required types.str "Domain.";
    enableWebHttps = flag false "Whether the public address is https.";
    listenHttp = port 9000 "Port of the service.";
    listenWeb = port 9000 "Public port.";
    database = {
      createLocally = flag false "Use a PostgreSQL server on the machine.";
      host = required types.str "Host.";
      port = port 5432 "Port.";
      name = text "peertube" "Database.";
      user = text "peertube" "Role.";
      passwordFile = file "Password of the role.";
    };
    redis.createLocally = flag false "Run a Redis server for it.";
    secrets.secretsFile = file "Secret of the instance.";
    serviceEnvironmentFile = file "Environment file.";
    settings = mkOption {
      type = types.submodule { freeformType = (pkgs.formats.json { }).type; };
      default = { };
      description = "Content of production.json.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.secrets.secretsFile != null;
        message = "services.peertube.secrets.secretsFile needs to be set.";
      }
    ];
    users.users.${cfg.user} = {
      isSystemUser = true;
      inherit (cfg) group;
      extraGroups = lib.optional cfg.redis.createLocally "redis-peertube";
    };
    users.groups.${cfg.group} = { };
    services.redis.servers.peertube.enable = lib.mkIf cfg.redis.createLocally true;

    systemd.services.peertube =
      application.web {
        description = "PeerTube (stand-in of the lab)";
        inherit (cfg) user;
        facts = {
          application = "peertube";
          listen = cfg.listenHttp;
          database = { inherit (cfg.database) host port name user; };
          password.file = cfg.database.passwordFile;
          storage = {
            endpoint = storage.endpoint or null;
            buckets = {
              videos = storage.web_videos.bucket_name or null;
              streaming-playlists = storage.streaming_playlists.bucket_name or null;
            };
            accessKeyId = storage.credentials.access_key_id or null;
          };
          secrets = {
            secret.file = cfg.secrets.secretsFile;
            s3-secret-key.variable = "PEERTUBE_OBJECT_STORAGE_CREDENTIALS_SECRET_ACCESS_KEY";
            initial-root-password.variable = "PT_INITIAL_ROOT_PASSWORD";
          };
        };
        serviceConfig = {
          StateDirectory = "peertube";
          EnvironmentFile = lib.optional (cfg.serviceEnvironmentFile != null) cfg.serviceEnvironmentFile;
        };
      }
      // {
        wantedBy = [ "multi-user.target" ];
        requires = lib.optional cfg.redis.createLocally "redis-peertube.service";
        after = [ "network.target" ] ++ lib.optional cfg.redis.createLocally "redis-peertube.service";
        # as the real unit, which links this file as its production.json
        restartTriggers = [ (builtins.toJSON cfg.settings) ];
      };

    services.nginx = lib.mkIf cfg.configureNginx {
      enable = true;
      virtualHosts.${cfg.localDomain}.locations."/".proxyPass = "http://127.0.0.1:${toString cfg.listenHttp}";
    };
  };
}
