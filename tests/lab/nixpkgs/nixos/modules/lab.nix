# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Faults and kernels for the tests of the guarded switch; only the lab's stand-in for nixpkgs has these options.
{ config, lib, ... }:
let
  inherit (lib) mkOption mkIf types;
  fault = name: mkIf (config.lab.fault == name);
  # at boot there is no action: a fault that was committed must not keep the host from booting
  duringSwitch = command: ''
    [ -z "''${NIXOS_ACTION-}" ] || ${command}
  '';
in
{
  options.lab.fault = mkOption {
    type = types.nullOr (
      types.enum [
        "pre-switch-fails"
        "bootloader-fails"
        "needs-reboot"
        "activation-fails"
        "activation-hangs"
        "crash"
        "unit-fails"
        "sshd-stops"
      ]
    );
    default = null;
    description = "What goes wrong when this system is activated.";
  };

  options.lab.kernel = mkOption {
    type = types.nullOr types.str;
    default = null;
    example = "6.6";
    description = "Version of another kernel than the machine's own: this system can only be booted.";
  };

  config = lib.mkMerge [
    (mkIf (config.lab.kernel != null) {
      system.build.kernelEntries =
        lib.mapAttrsToList (target: text: { inherit target text; }) {
          kernel = "Linux version ${config.lab.kernel}\n";
          initrd = "initial RAM disk of Linux ${config.lab.kernel}\n";
          kernel-params = "loglevel=4 lab.kernel=${config.lab.kernel}";
        };
    })
    (fault "pre-switch-fails" { system.preSwitchChecks.lab = "echo 'refused by lab.fault' >&2; exit 1"; })
    (fault "bootloader-fails" { system.build.extraFiles."bootloader-fails" = ""; })
    (fault "needs-reboot" { system.build.initInterfaceVersion = "lab-init-2"; })
    (fault "activation-fails" { system.activationScripts.lab = duringSwitch "exit 3"; })
    (fault "activation-hangs" { system.activationScripts.lab = duringSwitch "sleep infinity"; })
    (fault "crash" { system.activationScripts.lab = duringSwitch "/usr/sbin/reboot -ff"; })
    (fault "sshd-stops" { system.activationScripts.lab = duringSwitch "systemctl stop ssh.service"; })
    (fault "unit-fails" {
      systemd.services.lab-fault = {
        description = "A unit that fails";
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "/bin/false";
      };
    })
  ];
}
