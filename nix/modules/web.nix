# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Every application instance is a virtual host of nginx with a certificate of its own; a name that belongs to none of them
# is answered by none of them.
{ config, lib, ... }:
let
  inherit (lib) mkDefault mkIf nameValuePair;
  eachDomain =
    f: lib.mapAttrs' (_: instance: nameValuePair instance.domain (f instance)) config.fediversity.instances;
in
{
  services.nginx = mkIf (config.fediversity.instances != { }) {
    enable = true;
    recommendedProxySettings = mkDefault true;
    virtualHosts = {
      "_" = {
        default = true;
        rejectSSL = true;
        locations."/".return = "404";
      };
    }
    // eachDomain (_: {
      forceSSL = mkDefault true;
      enableACME = mkDefault true;
    });
  };

  security.acme = {
    acceptTerms = mkDefault true;
    certs = eachDomain (
      instance:
      mkIf config.services.nginx.virtualHosts.${instance.domain}.enableACME {
        email = mkDefault instance.contact;
      }
    );
  };
}
