# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Systems for one lab host, each wrong in its own way; `base` and `next` are fine.
{ nixpkgs, name, address, key }:
let
  hostName = name;
  system =
    name: module:
    (import (nixpkgs + "/nixos/lib/eval-config.nix") {
      modules = [
        ../../../nix/modules/machine.nix
        module
        {
          fediversity.machine = {
            inherit address;
            inherit hostName;
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
  during = command: { system.activationScripts.broken = "[ -z \"\${NIXOS_ACTION-}\" ] || ${command}"; };
  broken = name: command: system name (during command);
  fault = name: system name { lab.fault = name; };
  sshd = settings: { services.openssh = { inherit settings; }; };
  # what the lab's activation would put right at once must be done by a unit, which comes after it
  oneshot = start: stop: {
    systemd.services.breaks = {
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = start;
        ExecStop = stop;
      };
    };
  };
  ip = map (words: "/usr/sbin/ip ${words}");
  # the table of local addresses must not be looked up before the rule
  firewall =
    oneshot
      (ip [
        "rule add priority 10 iif eth0 ipproto tcp dport 22 blackhole"
        "rule add priority 20 lookup local"
        "rule del priority 0"
      ])
      (ip [
        "rule add priority 0 lookup local"
        "rule del priority 20"
        "rule del priority 10"
      ]);
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
  link-down = system "link-down" (oneshot (ip [ "link set eth0 down" ]) [ ]);
  addresses-flushed = system "addresses-flushed" (oneshot (ip [ "address flush dev eth0" ]) [ ]);
  no-way-back = system "no-way-back" (oneshot (ip [ "route add blackhole 10.99.0.1" ]) [ ]);
  firewall = system "firewall" firewall;
  wrong-gateway = system "wrong-gateway" { networking.defaultGateway = { address = "10.99.0.77"; interface = "eth0"; }; };
  wrong-address = system "wrong-address" { networking.interfaces.eth0.ipv4.addresses = [ { address = "10.98.0.9"; prefixLength = 24; } ]; };
  key-removed = broken "key-removed" "rm -f /root/.ssh/authorized_keys /etc/ssh/authorized_keys.d/root";
  sshd-masked = broken "sshd-masked" "systemctl mask --quiet --runtime --now ssh.service";
  sshd-refuses = system "sshd-refuses" (sshd { DenyUsers = "root"; });
  sshd-broken = system "sshd-broken" {
    imports = [
      (sshd { NoSuchKeyword = "yes"; })
      (during "systemctl restart ssh.service || true")
    ];
  };
  host-key-changed = system "host-key-changed" (sshd { HostKey = "/run/lab-other-key"; });
  unit-fails-still = system "unit-fails-still" { lab.fault = "unit-fails"; };
  # as long as the test holds this file
  fragile = broken "fragile" "[ ! -e /run/lab-refuse ] || exit 3";
  restarts = broken "restarts" "{ systemctl reboot --no-block; sleep 8; }";
  # between the profile and the boot loader
  slow-loader = system "slow-loader" { system.preSwitchChecks.slow = "[ \"$2\" != boot ] || sleep 5"; };
  kernel = system "kernel" { lab.kernel = "6.6"; };
  kernel-without-network = system "kernel-without-network" {
    imports = [
      { lab.kernel = "6.7"; }
      (oneshot (ip [ "link set eth0 down" ]) [ ])
    ];
  };
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
