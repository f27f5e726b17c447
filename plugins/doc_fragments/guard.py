# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options of every module that changes a machine's system under the guard."""

    DOCUMENTATION = r"""
options:
  rollback:
    description: Return to the old system when the activation or a check fails, or when there is no contact any more.
    type: bool
    default: true
  unit_policy:
    description:
      - Which failed units roll back.
      - V(new), those that had not failed before, and those of O(health_checks.units).
      - V(watched), only those of O(health_checks.units).
      - V(any), every failed unit.
      - V(ignore), none. Units that the health checks ask for must be active whatever this is.
    type: str
    choices: [new, watched, any, ignore]
    default: new
  reboot:
    description:
      - Whether the machine may be restarted to bring the system up.
      - V(never) activates it in the running machine. The result C(needs_reboot) tells when the kernel that runs is not
        the system's.
      - V(if_needed) starts it on trial when its kernel, initial RAM disk, kernel modules, kernel parameters or init
        interface are not the running ones, and for C(action=boot).
      - V(always) starts it on trial unless it is what the machine has started with.
      - A start on trial needs systemd-boot, or GRUB with C(/boot) on ext, XFS or FAT, and the unit of
        C(nix/modules/guard.nix) in the system.
    type: str
    choices: [never, if_needed, always]
    default: never
  reboot_timeout:
    description: Seconds after the start on trial within which the controller must have come back, V(10) to V(7200).
    type: int
    default: 300
  confirm_timeout:
    description:
      - Seconds after the activation within which the controller must come back over a new connection, V(1) to V(3600).
    type: int
    default: 30
  activation_timeout:
    description: Seconds that the activation may take, V(1) to V(7200).
    type: int
    default: 300
  connect_timeout:
    description: Seconds to wait for a machine that does not answer yet because it is still booting. V(0) tries once.
    type: int
    default: 120
  health_checks:
    description:
      - What must hold before the system is committed. Units, commands, ports and addresses are tried for 30 seconds.
      - In addition no unit may be failed that O(unit_policy) does not accept.
    type: dict
    suboptions:
      units:
        description: Units that must be active.
        type: list
        elements: str
        default: []
      unit_stable:
        description: Seconds during which the units must stay active and not restart, V(0) to V(3600).
        type: int
        default: 0
      commands:
        description:
          - Shell commands, one line each, run as root on the machine, that must succeed. Their output goes to the log.
        type: list
        elements: str
        default: []
      tcp:
        description: Ports to which the machine itself must be able to connect. Needs bash on the machine.
        type: list
        elements: dict
        default: []
        suboptions:
          host:
            description: Host name or address; the machine itself (C(127.0.0.1)) if it is not set.
            type: str
          port:
            description: TCP port.
            type: int
            required: true
      http:
        description: Addresses that the machine itself fetches. Certificates are not checked.
        type: list
        elements: dict
        default: []
        suboptions:
          url:
            description: HTTP or HTTPS address.
            type: str
            required: true
          status:
            description: Status that the answer must have.
            type: int
            default: 200
      controller:
        description: What the controller must be able to reach, after the machine's own checks.
        type: dict
        suboptions:
          tcp:
            description: Ports to which the controller must be able to connect.
            type: list
            elements: dict
            default: []
            suboptions:
              host:
                description: Host name or address; the address of the SSH connection if it is not set.
                type: str
              port:
                description: TCP port.
                type: int
                required: true
          http:
            description: Addresses that the controller fetches. Redirections are not followed.
            type: list
            elements: dict
            default: []
            suboptions:
              url:
                description: HTTP or HTTPS address.
                type: str
                required: true
              status:
                description: Status that the answer must have.
                type: int
                default: 200
              validate_certs:
                description: Whether the certificate must be right.
                type: bool
                default: true
"""
