# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nixos_rebuild
short_description: Switch a NixOS machine to a system, with a rollback that needs nobody
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Copies the closure of a NixOS system to the machine, activates it without making it the default, checks it over a new
    connection, and only then makes it the profile's current generation and the boot default.
  - Whatever happens before that commit ends on the old system. A failed activation or health check rolls back at once. Silence
    (the network, the SSH server or the key of the controller is gone, or the controller itself) rolls back at a deadline that the
    machine keeps by itself, and restarts the machine when that does not bring the contact back. A restart or power cut boots the
    old system.
  - Running the task again after an interruption of any kind, of the controller too, continues or starts over.
  - A system with another kernel or init interface can be I(started on trial) (O(reboot)). The boot loader starts it once, its boot
    default stays the old system, and a machine that is not reached then, or loses power, starts the old system again.
  - The module is an action plugin. It needs no Python on the machine, and no privileges but root's, directly or by C(become).
  - How it works, the journal on the machine, and what to do by hand are in the page C(docs/guarded-switch.md) of the collection.
requirements:
  - "on the host that builds: Nix (2.4 or newer for flakes) and tar; if that is a third host, xargs there and on the machine"
  - "on the controller: ssh on PATH; nix-copy-closure and nix-store, unless the system is built elsewhere"
  - "on the machine: NixOS (systemd, Nix, util-linux, coreutils), curl for HTTP health checks"
options:
  system:
    description:
      - Store path of the system, as M(fediversity.hosting.nix_build) returns it. It must be in the controller's store,
        or already on the machine.
      - Exactly one of O(system), O(flake) and O(file) is required.
    type: str
  flake:
    description:
      - Flake with the system, as a path on the controller or as a URL. What is built is
        C(nixosConfigurations."<attr>".config.system.build.toplevel).
      - A path (it begins with V(/), V(.) or V(~)) is one of the controller. If another host builds, it is sent there, of a git
        work tree only what git tracks. Everything else is a flake reference that the host that builds fetches itself.
        V(#) is not allowed.
    type: str
  file:
    description:
      - Nix file, or directory with a C(default.nix), on the controller. What is built is its attribute
        C(<attr>.config.system.build.toplevel), or C(config.system.build.toplevel) without O(attr).
      - If another host builds, the whole directory is sent, without C(.git) and the C(result) links of builds, at most 1 GiB, so
        it must hold everything that is needed.
    type: str
  attr:
    description:
      - With O(flake), the name in C(nixosConfigurations), by default the inventory's name of the machine.
      - With O(file), an attribute path.
    type: str
  build_on:
    description:
      - Where O(flake) or O(file) is evaluated and built. V(controller), V(target) (the machine itself), or a host of the inventory
        that is reached over SSH; as the user of that connection, without C(become).
      - A controller without Nix works with the latter two. From a third host the closure goes as one stream through the
        controller, which needs no credentials of one host for the other.
      - The host that builds keeps the system from its garbage collector, by a link below C(~/.local/state/fediversity/systems).
    type: str
    default: controller
  action:
    description:
      - V(switch) activates the system and makes it the boot default.
      - V(boot) only makes it the boot default; it runs after the next restart.
      - V(test) only activates it; the boot default stays.
      - V(dry_activate) copies it and returns what the activation would do.
    type: str
    choices: [switch, boot, test, dry_activate]
    default: switch
  commit:
    description:
      - Whether the checked system becomes the profile's and the boot default at once.
      - With V(false) the machine keeps it running, armed, for O(hold_timeout) seconds and the task ends in phase V(checked).
        M(fediversity.hosting.nixos_transaction) then commits or aborts it. Machines that depend on each other are
        deployed in this way, all or none.
    type: bool
    default: true
  hold_timeout:
    description: Seconds that a machine waits for the decision when O(commit=false), V(1) to V(7200). Then it rolls back.
    type: int
    default: 300
  replace_unknown:
    description:
      - Whether a running system may be replaced that is neither of the guard's last transaction on the machine nor in the
        controller's store. It protects a machine that somebody else manages, or that answers at a wrong address.
    type: bool
    default: false
  minimum_free:
    description: MiB that must be free on the machine before anything is copied or armed.
    type: dict
    suboptions:
      nix:
        description: On the file system of C(/nix/store).
        type: int
        default: 64
      boot:
        description: On the file system of C(/boot).
        type: int
        default: 4
      state:
        description: On the file system of C(/var/lib).
        type: int
        default: 4
  substitute_on_destination:
    description: Let the machine fetch what it can from its own substituters.
    type: bool
    default: false
  compress:
    description: Compress the copy. It makes copies several times slower unless the network is slow.
    type: bool
    default: false
notes:
  - The closure is copied as the user of the SSH connection. With C(become) that user must be trusted by the machine's Nix.
  - A system with another init interface than the running one (switch-to-configuration ends with code 100) can only be booted. With
    O(reboot=never) the task then fails with RV(needs_reboot) and has changed nothing.
seealso:
  - module: fediversity.hosting.nix_build
  - module: fediversity.hosting.nixos_transaction
  - module: fediversity.hosting.nixos_generations
  - module: fediversity.hosting.secret_files
extends_documentation_fragment:
  - fediversity.hosting.attributes
  - fediversity.hosting.guard
attributes:
  check_mode:
    support: full
    details: Runs the machine's dry activation if the system has been copied already. O(flake) and O(file) are evaluated.
      Nothing is built or copied.
  diff_mode:
    support: full
    details: Difference of the closures, by packages if the controller holds both, else by store paths.
  idempotent:
    support: full
    details: A machine that runs the system, and has it as its profile, costs one SSH handshake.
"""

EXAMPLES = r"""
- name: Switch the machine, check its web server, commit
  fediversity.hosting.nixos_rebuild:
    system: "{{ fleet_build.systems[inventory_hostname] }}"
    health_checks:
      units: [nginx.service]
      unit_stable: 5
      http:
        - url: http://localhost/

- name: Build the machine's own configuration on a build host, with a controller that has no Nix
  fediversity.hosting.nixos_rebuild:
    flake: "{{ playbook_dir }}/fleet"
    build_on: builder1

- name: See what a switch would do
  fediversity.hosting.nixos_rebuild:
    system: "{{ fleet_build.systems[inventory_hostname] }}"
    action: dry_activate
  register: preview

- name: Take over a machine that was installed by hand, and restart it if the kernel changes
  fediversity.hosting.nixos_rebuild:
    system: "{{ fleet_build.systems[inventory_hostname] }}"
    replace_unknown: true
    reboot: if_needed
    health_checks:
      controller:
        http:
          - url: https://social.example.org/health

- name: Make it the boot default for the next maintenance window
  fediversity.hosting.nixos_rebuild:
    system: "{{ fleet_build.systems[inventory_hostname] }}"
    action: boot
"""

RETURN = r"""
changed:
  description: Whether the machine has another system than before. False after a rollback.
  returned: always
  type: bool
msg:
  description: What went wrong and what to do; begins with C(rolled back) after a rollback.
  returned: failure
  type: str
txn:
  description: Name of the transaction in the machine's journal; empty when there was nothing to do.
  returned: when the machine answered
  type: str
  sample: 20261120t234655z-2451053c
old:
  description: Store path of the system that ran before.
  returned: when the machine answered
  type: str
new:
  description: Store path of the wanted system.
  returned: when the machine answered
  type: str
phase:
  description:
    - How it ended. V(unchanged), V(committed), V(tested), V(checked) (O(commit=false)), V(rolled-back), V(needs-reboot), V(failed)
      (only without O(rollback)), or V(planned) in check mode and for O(action=dry_activate).
  returned: when the machine answered
  type: str
rc:
  description: Exit code of switch-to-configuration on the machine; null when it was not run.
  returned: when the machine answered
  type: int
booted:
  description: Store path of the system that the machine has started with.
  returned: when the machine answered
  type: str
default:
  description: Store path of the boot default; empty when the boot loader is not known (systemd-boot and GRUB are).
  returned: when the machine answered
  type: str
silent:
  description: Whether the machine has said nothing past every deadline of its own. Until the commit a reset is a rollback.
  returned: failure without an answer of the machine
  type: bool
generation:
  description: Number of the profile's current generation; null when the machine has no such profile yet.
  returned: when the machine answered
  type: int
needs_reboot:
  description: Whether kernel, initial RAM disk, modules or kernel parameters of the system are not the booted ones.
  returned: when the machine answered
  type: bool
failed_units:
  description: Failed units before and after.
  returned: when the machine answered and it was not a preview
  type: dict
  contains:
    before:
      description: Units that had failed before the switch.
      type: list
      elements: str
    after:
      description: Units that were failed at the end.
      type: list
      elements: str
rollback:
  description: Why and how the machine returned to the old system; null when it did not.
  returned: when the machine answered and it was not a preview
  type: dict
  contains:
    reason:
      description: What had gone wrong.
      type: str
    method:
      description: V(reactivate), V(reboot), V(loader) (only the boot loader was touched) or V(disarm) (nothing had been activated).
      type: str
    seconds:
      description: From the start of the activation until the old system was in place and reachable.
      type: float
log:
  description: The last 100 lines that switch-to-configuration and the health checks wrote.
  returned: when the machine answered
  type: list
  elements: str
timings:
  description: Seconds per step.
  returned: when the machine answered and it was not a preview
  type: dict
"""
