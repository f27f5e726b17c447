# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# What every machine has: its name, one static address, SSH for the controller, and a firewall.
{ config, lib, ... }:
let
  inherit (lib) mkDefault mkOption types;
  machine = config.fediversity.machine;
  text = description: mkOption {
    type = types.str;
    inherit description;
  };
  texts = description: mkOption {
    type = types.listOf types.str;
    default = [ ];
    inherit description;
  };
in
{
  imports = [ ./guard.nix ];

  options.fediversity.machine = {
    hostName = text "Name of the machine.";
    address = text "IPv4 address.";
    prefixLength = mkOption {
      type = types.ints.between 1 32;
      description = "Length of the network prefix in bits.";
    };
    gateway = text "IPv4 address of the default gateway.";
    nameservers = texts "IPv4 addresses of the resolvers.";
    authorizedKeys = texts "SSH public keys of the controllers.";
    interface = mkOption {
      type = types.str;
      default = "eth0";
      description = "Network interface that has the address.";
    };
  };

  config = {
    networking = {
      hostName = mkDefault machine.hostName;
      useDHCP = mkDefault false;
      interfaces.${machine.interface}.ipv4.addresses = mkDefault [
        { inherit (machine) address prefixLength; }
      ];
      defaultGateway = mkDefault {
        address = machine.gateway;
        inherit (machine) interface;
      };
      nameservers = mkDefault machine.nameservers;
      firewall.enable = mkDefault true;
      firewall.allowedTCPPorts = [
        22
        80
        443
      ];
    };

    services.openssh = {
      enable = true;
      settings = {
        PermitRootLogin = mkDefault "prohibit-password";
        PasswordAuthentication = mkDefault false;
        KbdInteractiveAuthentication = mkDefault false;
      };
    };
    users.users.root.openssh.authorizedKeys.keys = machine.authorizedKeys;

    system.stateVersion = mkDefault "25.11";
  };
}
