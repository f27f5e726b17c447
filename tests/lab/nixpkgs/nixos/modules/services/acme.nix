# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Accepted and not used: the lab has no certificate authority and serves plain HTTP.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  email = mkOption {
    type = types.nullOr types.str;
    default = null;
    description = "Address of the account.";
  };
in
{
  options.security.acme = {
    acceptTerms = mkOption {
      type = types.bool;
      default = false;
      description = "Accept the terms of the certificate authority.";
    };
    defaults.email = email;
    certs = mkOption {
      type = types.attrsOf (types.submodule { options = { inherit email; }; });
      default = { };
      description = "Certificates.";
    };
  };
}
