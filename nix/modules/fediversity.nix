# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# The application instances of a machine, as the fleet file describes them, and their public descriptions under
# /etc/fediversity/instances. Texts of customers are strings of options and of JSON, nothing else.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  text = description: mkOption {
    type = types.str;
    inherit description;
  };

  database = types.submodule {
    options = {
      host = text "Host of the PostgreSQL server.";
      port = mkOption {
        type = types.port;
        description = "Port of the PostgreSQL server.";
      };
      name = text "Database.";
      user = text "Role.";
      passwordFile = text "File with the role's password on the machine.";
    };
  };

  objectStorage = types.submodule {
    options = {
      endpoint = text "URL of the S3 API.";
      region = text "S3 region.";
      accessKeyId = text "Access key id; no secret.";
      secretAccessKeyFile = text "File with the secret access key on the machine.";
      buckets = mkOption {
        type = types.attrsOf types.str;
        description = "Buckets by the name that the application's catalogue entry gives them.";
      };
    };
  };

  instance = types.submodule {
    options = {
      id = text "Identity: operator, deployment and application, joined by underscores.";
      operator = text "Operator.";
      operatorDisplayName = text "Name of the operator for people; customer text.";
      deployment = text "Deployment.";
      environment = text "Environment.";
      application = text "Application.";
      moduleVersion = text "Version of the modules that the deployment is pinned to.";
      domain = text "Public domain.";
      contact = text "Mail address of the operator.";
      settings = mkOption {
        type = types.attrsOf types.anything;
        default = { };
        description = "What the operator set, checked against the application's schema; holds customer text.";
      };
      database = mkOption {
        type = types.nullOr database;
        default = null;
        description = "The instance's database; null when the application needs none.";
      };
      objectStorage = mkOption {
        type = types.nullOr objectStorage;
        default = null;
        description = "The instance's buckets; null when the application needs none.";
      };
      secretFiles = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = "Files on the machine with the secrets of the catalogue entry, by secret name.";
      };
      secretsRevision = mkOption {
        type = types.ints.positive;
        default = 1;
        description = "Goes up when secrets are rotated; a new value restarts the units that use them.";
      };
    };
  };

  public =
    instance:
    {
      inherit (instance)
        id
        operator
        operatorDisplayName
        deployment
        environment
        application
        moduleVersion
        domain
        settings
        secretsRevision
        ;
    }
    // lib.optionalAttrs (instance.database != null) {
      database = { inherit (instance.database) host port name user; };
    }
    // lib.optionalAttrs (instance.objectStorage != null) {
      objectStorage = { inherit (instance.objectStorage) endpoint region accessKeyId buckets; };
    };
in
{
  options.fediversity.instances = mkOption {
    type = types.attrsOf instance;
    default = { };
    description = "Application instances of this machine by identity.";
  };

  config.environment.etc = lib.mapAttrs' (
    id: instance:
    lib.nameValuePair "fediversity/instances/${id}.json" { text = builtins.toJSON (public instance); }
  ) config.fediversity.instances;
}
