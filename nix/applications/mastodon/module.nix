# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# An application instance as options of services.mastodon.
instance:
{ config, lib, pkgs, ... }:
let
  inherit (instance) database objectStorage settings;
  cfg = config.services.mastodon;
  secret = name: "/run/fediversity/${instance.id}/${name}";

  # Mastodon keeps these in its database; they travel as JSON and are never part of a command or of Ruby code.
  storeSettings = pkgs.writeText "mastodon-settings.rb" ''
    require "json"

    settings = JSON.parse(File.read(ARGV.fetch(0))).fetch("settings")
    modes = { "open" => "open", "approval" => "approved", "closed" => "none" }
    Setting.site_title = settings["title"] if settings.key?("title")
    Setting.site_short_description = settings["description"] if settings.key?("description")
    Setting.registrations_mode = modes.fetch(settings["registrations"]) if settings.key?("registrations")
  '';
in
{
  services.mastodon = {
    enable = true;
    localDomain = instance.domain;
    configureNginx = true;
    streamingProcesses = lib.mkDefault 1;
    smtp.fromAddress = lib.mkDefault "notifications@${instance.domain}";

    database = {
      createLocally = false;
      inherit (database) host port name user;
      passwordFile = secret "database-password";
    };

    secretKeyBaseFile = secret "secret-key-base";
    vapidPrivateKeyFile = secret "vapid-private-key";
    vapidPublicKeyFile = secret "vapid-public-key";
    activeRecordEncryptionPrimaryKeyFile = secret "active-record-encryption-primary-key";
    activeRecordEncryptionDeterministicKeyFile = secret "active-record-encryption-deterministic-key";
    activeRecordEncryptionKeyDerivationSaltFile = secret "active-record-encryption-key-derivation-salt";

    # the secret access key; everything else about the bucket is public
    extraEnvFiles = [ (secret "environment") ];
    extraConfig = {
      S3_ENABLED = "true";
      S3_BUCKET = objectStorage.buckets.media;
      S3_REGION = objectStorage.region;
      S3_ENDPOINT = objectStorage.endpoint;
      S3_PROTOCOL = builtins.head (lib.splitString ":" objectStorage.endpoint);
      AWS_ACCESS_KEY_ID = objectStorage.accessKeyId;
      # Garage has no access control lists
      S3_PERMISSION = "";
    }
    // lib.optionalAttrs (settings ? language) { DEFAULT_LOCALE = settings.language; };

    mediaAutoRemove.olderThanDays = lib.mkIf (settings ? media_retention_days) settings.media_retention_days;
  };

  fediversity.secrets.${instance.id} = {
    owner = cfg.user;
    revision = instance.secretsRevision;
    units = [
      "mastodon-init-dirs"
      "mastodon-web"
      "mastodon-settings"
    ]
    ++ lib.optional cfg.automaticMigrations "mastodon-init-db"
    ++ lib.optional cfg.mediaAutoRemove.enable "mastodon-media-auto-remove"
    ++ map (name: "mastodon-sidekiq-${name}") (lib.attrNames cfg.sidekiqProcesses)
    ++ map (n: "mastodon-streaming-${toString n}") (lib.range 1 cfg.streamingProcesses);
    files = instance.secretFiles // {
      database-password = database.passwordFile;
    };
    environment.AWS_SECRET_ACCESS_KEY = objectStorage.secretAccessKeyFile;
  };

  systemd.services.mastodon-settings = {
    description = "Settings of the Mastodon instance";
    wantedBy = [ "mastodon.target" ];
    requires = [ "mastodon-web.service" ];
    after = [ "mastodon-web.service" ];
    inherit (config.systemd.services.mastodon-web) environment;
    restartTriggers = [ (builtins.toJSON settings) ];
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      User = cfg.user;
      Group = cfg.group;
      WorkingDirectory = "${cfg.package}";
      inherit (config.systemd.services.mastodon-web.serviceConfig) EnvironmentFile;
      ExecStart = "${cfg.package}/bin/rails runner ${storeSettings} /etc/fediversity/instances/${instance.id}.json";
    };
  };
}
