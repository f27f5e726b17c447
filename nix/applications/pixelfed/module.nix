# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# An application instance as options of services.pixelfed.
instance:
{ config, lib, ... }:
let
  inherit (instance) database objectStorage settings;
  environmentFile = "/run/fediversity/${instance.id}/environment";

  # A value of .env that is read back as exactly this text: in double quotes phpdotenv replaces variables, so `$`, the
  # quote and the backslash are escaped, and no line ends inside a value.
  quoted = text: "\"${builtins.replaceStrings [ "\\" "\"" "$" "\n" "\r" ] [ "\\\\" "\\\"" "\\$" "\\n" "\\r" ] text}\"";
in
{
  services.pixelfed = {
    enable = true;
    inherit (instance) domain;
    secretFile = environmentFile;
    nginx = {
      forceSSL = lib.mkDefault true;
      enableACME = lib.mkDefault true;
    };
    database = {
      createLocally = false;
      type = "pgsql";
      inherit (database) name;
    };
    maxUploadSize = lib.mkIf (settings ? max_photo_megabytes) "${toString settings.max_photo_megabytes}M";

    settings = {
      DB_CONNECTION = "pgsql";
      DB_HOST = database.host;
      DB_PORT = database.port;
      DB_DATABASE = database.name;
      DB_USERNAME = database.user;
      PF_ENABLE_CLOUD = true;
      FILESYSTEM_CLOUD = "s3";
      AWS_ENDPOINT = objectStorage.endpoint;
      AWS_DEFAULT_REGION = objectStorage.region;
      AWS_BUCKET = objectStorage.buckets.media;
      AWS_ACCESS_KEY_ID = objectStorage.accessKeyId;
      AWS_USE_PATH_STYLE_ENDPOINT = true;
      APP_NAME = lib.mkIf (settings ? title) (quoted settings.title);
      INSTANCE_DESCRIPTION = lib.mkIf (settings ? description) (quoted settings.description);
      OPEN_REGISTRATION = lib.mkIf (settings ? registrations) (settings.registrations == "open");
      APP_LOCALE = lib.mkIf (settings ? language) settings.language;
      # kilobytes
      MAX_PHOTO_SIZE = lib.mkIf (settings ? max_photo_megabytes) (settings.max_photo_megabytes * 1000);
      MAX_ALBUM_LENGTH = lib.mkIf (settings ? max_album_length) settings.max_album_length;
    };
  };

  fediversity.secrets.${instance.id} = {
    owner = config.services.pixelfed.user;
    revision = instance.secretsRevision;
    units = [
      "pixelfed-data-setup"
      "phpfpm-pixelfed"
      "pixelfed-horizon"
      "pixelfed-cron"
    ];
    environment = {
      APP_KEY = instance.secretFiles.app-key;
      DB_PASSWORD = database.passwordFile;
      AWS_SECRET_ACCESS_KEY = objectStorage.secretAccessKeyFile;
    };
    prefixes.APP_KEY = "base64:";
  };
}
