# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# One system for each host; another `version` makes it another one. `hosts` is a JSON object of names and addresses.
{ nixpkgs, hosts, key, version }:
builtins.mapAttrs (
  hostName: address:
  (import (nixpkgs + "/nixos/lib/eval-config.nix") {
    modules = [
      ../../nix/modules/machine.nix
      {
        fediversity.machine = {
          inherit hostName address;
          prefixLength = 16;
          gateway = "10.99.0.1";
          nameservers = [ "10.99.0.11" ];
          authorizedKeys = [ key ];
        };
        environment.etc."bench-version".text = version;
        systemd.services.bench = {
          wantedBy = [ "multi-user.target" ];
          description = "Restarted by version ${version}";
          serviceConfig.ExecStart = "/bin/sleep infinity";
        };
      }
    ];
  }).config.system.build.toplevel
) (builtins.fromJSON hosts)
