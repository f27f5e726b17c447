# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Static IPv4 networking; `activate` makes the host equal to the file `network` of the system.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.networking;
  address = types.submodule {
    options = {
      address = mkOption {
        type = types.str;
        description = "IPv4 address.";
      };
      prefixLength = mkOption {
        type = types.ints.between 0 32;
        description = "Length of the network prefix in bits.";
      };
    };
  };
  gateway = types.submodule {
    options.address = mkOption {
      type = types.str;
      description = "IPv4 address of the default gateway.";
    };
    options.interface = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Interface of the default gateway.";
    };
  };
  addressLines = lib.concatLists (
    lib.mapAttrsToList (
      name: interface:
      map (entry: "address ${name} ${entry.address}/${toString entry.prefixLength}") interface.ipv4.addresses
    ) cfg.interfaces
  );
in
{
  options.networking = {
    hostName = mkOption {
      type = types.strMatching "[[:alnum:]]([[:alnum:]_-]{0,61}[[:alnum:]])?";
      default = "nixos";
      description = "Name of the machine.";
    };
    domain = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Domain of the machine.";
    };
    useDHCP = mkOption {
      type = types.bool;
      default = true;
      description = "Accepted and not used: the lab has no DHCP.";
    };
    interfaces = mkOption {
      default = { };
      description = "Network interfaces.";
      type = types.attrsOf (
        types.submodule {
          options.ipv4.addresses = mkOption {
            type = types.listOf address;
            default = [ ];
            description = "Static addresses.";
          };
        }
      );
    };
    defaultGateway = mkOption {
      type = types.nullOr (types.coercedTo types.str (text: { address = text; }) gateway);
      default = null;
      description = "Default gateway.";
    };
    nameservers = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Resolvers.";
    };
    firewall = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = "Accepted and not used: the lab network has no way in from outside.";
      };
      allowedTCPPorts = mkOption {
        type = types.listOf types.port;
        default = [ ];
        apply = ports: lib.sort (a: b: a < b) (lib.unique ports);
        description = "Open TCP ports.";
      };
      allowedUDPPorts = mkOption {
        type = types.listOf types.port;
        default = [ ];
        description = "Open UDP ports.";
      };
      allowPing = mkOption {
        type = types.bool;
        default = true;
        description = "Answer IPv4 echo requests.";
      };
    };
  };

  config.system.build.extraFiles = lib.mkMerge [
    { hostname = "${cfg.hostName}\n"; }
    (lib.mkIf (addressLines != [ ]) {
      network = lib.concatLines (
        addressLines
        ++ lib.optional (cfg.defaultGateway != null) "gateway ${cfg.defaultGateway.address}"
        ++ map (server: "nameserver ${server}") cfg.nameservers
      );
    })
  ];
}
