# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# An application instance as options of services.peertube.
instance:
{ config, lib, ... }:
let
  inherit (instance) database objectStorage settings;
  secret = name: "/run/fediversity/${instance.id}/${name}";
  bucket = name: { bucket_name = objectStorage.buckets.${name}; };
  given = name: lib.mkIf (settings ? ${name}) settings.${name};
in
{
  services.peertube = {
    enable = true;
    localDomain = instance.domain;
    configureNginx = true;
    enableWebHttps = lib.mkDefault true;
    listenWeb = lib.mkDefault 443;
    redis.createLocally = true;

    database = {
      createLocally = false;
      inherit (database) host port name user;
      passwordFile = secret "database-password";
    };
    secrets.secretsFile = secret "secret";
    serviceEnvironmentFile = secret "environment";

    # becomes a JSON file: customer text stays a string
    settings = {
      instance.name = given "title";
      instance.short_description = given "description";
      instance.default_language = given "language";
      signup = lib.mkIf (settings ? registrations) {
        enabled = settings.registrations != "closed";
        requires_approval = settings.registrations == "approval";
      };
      transcoding.enabled = given "transcoding";
      user.video_quota = lib.mkIf (settings ? video_quota_gigabytes) "${toString settings.video_quota_gigabytes}GB";
      object_storage = {
        enabled = true;
        inherit (objectStorage) endpoint region;
        credentials.access_key_id = objectStorage.accessKeyId;
        # Garage has no access control lists
        upload_acl.public = null;
        upload_acl.private = null;
        streaming_playlists = bucket "streaming-playlists";
        web_videos = bucket "videos";
      };
    };
  };

  fediversity.secrets.${instance.id} = {
    owner = config.services.peertube.user;
    revision = instance.secretsRevision;
    units = [ "peertube" ];
    files = {
      inherit (instance.secretFiles) secret;
      database-password = database.passwordFile;
    };
    environment = {
      PT_INITIAL_ROOT_PASSWORD = instance.secretFiles.initial-root-password;
      PEERTUBE_OBJECT_STORAGE_CREDENTIALS_SECRET_ACCESS_KEY = objectStorage.secretAccessKeyFile;
    };
  };
}
