# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# The machine's own part of the guarded switch (docs/guarded-switch.md): a system that was started on trial is watched from its
# first seconds on, and a transaction that a restart interrupted is closed without the controller.
{
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
