# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Systems for one lab host, each wrong in its own way; `base` and `next` are fine.
{ nixpkgs, address, key }:
let
  system =
    name: module:
    (import (nixpkgs + "/nixos/lib/eval-config.nix") {
      modules = [
        ../../../nix/modules/machine.nix
        module
        {
          fediversity.machine = {
            inherit address;
            hostName = "existing1";
            prefixLength = 16;
            gateway = "10.99.0.1";
            nameservers = [ "10.99.0.11" ];
            authorizedKeys = [ key ];
          };
          environment.etc."guard-test".text = "${name}\n";
        }
      ];
    }).config.system.build.toplevel;
  # only during a switch: what a snippet broke must not be broken again at boot
  broken = name: command: system name { system.activationScripts.broken = "[ -z \"\${NIXOS_ACTION-}\" ] || ${command}"; };
  fault = name: system name { lab.fault = name; };
in
{
  base = system "base" { };
  next = system "next" {
    systemd.services.web = {
      wantedBy = [ "multi-user.target" ];
      serviceConfig.ExecStart = "/usr/bin/python3 -m http.server --bind 127.0.0.1 8099";
    };
  };
  other = system "other" { };
  slow = broken "slow" "sleep 6";
  link-down = system "link-down" {
    systemd.services.link-down = {
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "/usr/sbin/ip link set eth0 down";
      };
    };
  };
  wrong-address = system "wrong-address" { networking.interfaces.eth0.ipv4.addresses = [ { address = "10.98.0.9"; prefixLength = 24; } ]; };
  key-removed = broken "key-removed" "{ mkdir -p /run/keys; mv /root/.ssh/authorized_keys /run/keys/; rm -f /etc/ssh/authorized_keys.d/root; }";
  unit-dies = system "unit-dies" {
    systemd.services.dies = {
      wantedBy = [ "multi-user.target" ];
      serviceConfig.ExecStart = "/bin/sleep 2";
    };
  };
}
// builtins.listToAttrs (
  map
    (name: {
      inherit name;
      value = fault name;
    })
    [
      "pre-switch-fails"
      "bootloader-fails"
      "needs-reboot"
      "activation-fails"
      "activation-hangs"
      "crash"
      "unit-fails"
      "sshd-stops"
    ]
)
