# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Debian's nginx with virtual hosts from the configuration. All of them answer plain HTTP on port 80, whatever their TLS
# options say: the lab has no certificate authority.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.nginx;

  flag = description: mkOption {
    type = types.bool;
    default = false;
    inherit description;
  };
  text = description: mkOption {
    type = types.nullOr types.str;
    default = null;
    inherit description;
  };
  lines = mkOption {
    type = types.lines;
    default = "";
    description = "Further directives.";
  };

  location = types.submodule {
    options = {
      proxyPass = text "Where requests go.";
      proxyWebsockets = flag "Pass on upgrades.";
      recommendedProxySettings = flag "Accepted and not used: the usual headers are always set.";
      root = text "Directory.";
      return = mkOption {
        type = types.nullOr (types.oneOf [ types.str types.int ]);
        default = null;
        description = "Directive `return`.";
      };
      priority = mkOption {
        type = types.int;
        default = 1000;
        description = "Order among the locations.";
      };
      extraConfig = lines;
    };
  };

  renderLocation = path: entry: ''
    location ${path} {
      ${lib.optionalString (entry.proxyPass != null) ''
        proxy_pass ${entry.proxyPass};
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
      ''}
      ${lib.optionalString (entry.root != null) "root ${entry.root};"}
      ${lib.optionalString (entry.return != null) "return ${toString entry.return};"}
      ${entry.extraConfig}
    }
  '';
  renderHost = host: ''
    server {
      listen 80${lib.optionalString host.default " default_server"};
      server_name ${lib.concatStringsSep " " ([ host.serverName ] ++ host.serverAliases)};
      ${host.extraConfig}
      ${lib.concatStrings (lib.mapAttrsToList renderLocation host.locations)}
    }
  '';
  configuration = pkgs.writeText "nginx.conf" ''
    user ${cfg.user} ${cfg.group};
    worker_processes 1;
    pid /run/nginx/nginx.pid;
    error_log stderr;
    events { worker_connections 256; }
    http {
      access_log off;
      client_max_body_size ${cfg.clientMaxBodySize};
      server_names_hash_bucket_size 128;
      client_body_temp_path /run/nginx/body;
      proxy_temp_path /run/nginx/proxy;
      fastcgi_temp_path /run/nginx/fastcgi;
      uwsgi_temp_path /run/nginx/uwsgi;
      scgi_temp_path /run/nginx/scgi;
      ${lib.concatStrings (map renderHost (lib.attrValues cfg.virtualHosts))}
    }
  '';
in
{
  options.services.nginx = {
    enable = lib.mkEnableOption "nginx";
    user = mkOption {
      type = types.str;
      default = "nginx";
      description = "User.";
    };
    group = mkOption {
      type = types.str;
      default = "nginx";
      description = "Group.";
    };
    clientMaxBodySize = mkOption {
      type = types.str;
      default = "10m";
      description = "Largest request.";
    };
    recommendedGzipSettings = flag "Accepted and not used.";
    recommendedOptimisation = flag "Accepted and not used.";
    recommendedProxySettings = flag "Accepted and not used.";
    recommendedTlsSettings = flag "Accepted and not used.";
    virtualHosts = mkOption {
      default = { };
      description = "Virtual hosts.";
      type = types.attrsOf (
        types.submodule (
          { name, ... }:
          {
            options = {
              serverName = mkOption {
                type = types.str;
                default = name;
                description = "Name.";
              };
              serverAliases = mkOption {
                type = types.listOf types.str;
                default = [ ];
                description = "Further names.";
              };
              default = flag "Whether this one answers for unknown names.";
              enableACME = flag "Accepted and not used.";
              forceSSL = flag "Accepted and not used.";
              rejectSSL = flag "Accepted and not used.";
              addSSL = flag "Accepted and not used.";
              locations = mkOption {
                type = types.attrsOf location;
                default = { };
                description = "Locations.";
              };
              extraConfig = lines;
            };
          }
        )
      );
    };
  };

  config = lib.mkIf cfg.enable {
    users.users.${cfg.user} = {
      isSystemUser = true;
      inherit (cfg) group;
    };
    systemd.services.nginx = {
      description = "Nginx web server";
      after = [ "network.target" ];
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        Type = "exec";
        RuntimeDirectory = "nginx";
        Restart = "always";
        ExecStartPre = "${pkgs.nginx}/sbin/nginx -t -q -c ${configuration}";
        ExecStart = "${pkgs.nginx}/sbin/nginx -c ${configuration} -g 'daemon off;'";
      };
    };
  };
}
