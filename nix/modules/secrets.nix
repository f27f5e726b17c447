# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Secrets lie root-only under /var/lib/fediversity/secrets. Many NixOS modules read their secret files as the service's
# user, others want an environment file, which systemd reads as root. One unit per instance makes both under /run, before
# the units that use them; no secret enters the Nix store, and a new revision restarts everything that holds an old one.
# The directory belongs to root: with a link in place of an entry its owner could make root read another instance's file.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;

  secrets = types.submodule {
    options = {
      owner = mkOption {
        type = types.str;
        description = "User who may read the files.";
      };
      units = mkOption {
        type = types.listOf types.str;
        description = "Services that use the secrets, without suffix.";
      };
      files = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = "Secret files by name; each appears as /run/fediversity/<id>/<name>.";
      };
      environment = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = "Secret files by environment variable, together in /run/fediversity/<id>/environment, which only root reads.";
      };
      prefixes = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = "What stands before the secret in a variable's value.";
      };
      revision = mkOption {
        type = types.int;
        description = "Revision of the secrets.";
      };
    };
  };

  unitName = id: "fediversity-secrets-${id}";
  quote = lib.escapeShellArg;

  script =
    id: entry:
    let
      directory = "/run/fediversity/${id}";
      asOwner = "-m 0400 -o ${quote entry.owner}";
      copy = name: file: "install ${asOwner} ${quote file} ${quote "${directory}/${name}"}\n";
      variable =
        name: file:
        # on its own line: a file that is missing ends the script
        ''
          value=$(cat ${quote file})
          printf '%s="%s%s"\n' ${quote name} ${quote (entry.prefixes.${name} or "")} "$value"
        '';
    in
    ''
      umask 077
      install -d -m 0711 /run/fediversity
      rm -rf ${quote directory}
      install -d -m 0711 ${quote directory}
      ${lib.concatStrings (lib.mapAttrsToList copy entry.files)}
      {
      :
      ${lib.concatStrings (lib.mapAttrsToList variable entry.environment)}
      } > ${quote "${directory}/environment"}
    '';

  services = id: entry: {
    ${unitName id} = {
      description = "Secrets of ${id}";
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
      };
      restartTriggers = [ (toString entry.revision) ];
      script = script id entry;
    };
  }
  // lib.genAttrs entry.units (_: {
    requires = [ "${unitName id}.service" ];
    after = [ "${unitName id}.service" ];
    restartTriggers = [ (toString entry.revision) ];
  });
in
{
  options.fediversity.secrets = mkOption {
    type = types.attrsOf secrets;
    default = { };
    description = "Secrets that services of an instance use, by the instance's identity.";
  };

  config.systemd.services = lib.mkMerge (lib.mapAttrsToList services config.fediversity.secrets);
}
