# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# The machine's own part of the guarded switch (docs/guarded-switch.md): a system that was started on trial is watched from its
# first seconds on, and a transaction that a restart interrupted is closed without the controller.
{
  # A system on trial that does not come as far as the unit below (a file system that cannot be mounted ends in emergency.target)
  # restarts the machine, which then starts the old one.
  systemd.services.fediversity-guard-boot-trial = {
    description = "Guarded switch: give up a start on trial that got stuck";
    wantedBy = [
      "sysinit.target"
      "emergency.target"
      "rescue.target"
    ];
    restartIfChanged = false;
    unitConfig = {
      DefaultDependencies = false;
      IgnoreOnIsolate = true;
      ConditionPathExists = "/nix/var/nix/profiles/system-profiles/candidate";
    };
    # the last look is whether the other unit has gone on with the transaction
    serviceConfig.ExecStart = "/bin/sh -c 'sleep 600; [ /nix/var/nix/profiles/system-profiles/candidate -ef /run/booted-system ] || exit 0; grep -qs -e ^phase=activated -e ^phase=checked -e ^phase=committing /var/lib/fediversity-guard/transaction || systemctl reboot --force'";
  };

  systemd.services.fediversity-guard-boot = {
    description = "Guarded switch: go on after a restart";
    wantedBy = [ "multi-user.target" ];
    # a switch must not start it: it belongs to the machine's start
    restartIfChanged = false;
    unitConfig.ConditionPathExists = "/var/lib/fediversity-guard/transaction";
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "/bin/sh -c 'for guard in /var/lib/fediversity-guard/guard-*; do exec /bin/sh \"$guard\" booted; done'";
    };
  };
}
