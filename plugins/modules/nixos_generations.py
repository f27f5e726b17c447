# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nixos_generations
short_description: List the generations of a NixOS machine, return to one under the guard, delete old ones
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Lists the generations of the machine's system profile. Without O(generation), O(system), O(keep), O(keep_days) and
    O(collect_garbage) that is all, and nothing is changed.
  - With O(generation) or O(system) returns the machine to a system that it has already, in the same course as
    M(fediversity.hosting.nixos_rebuild). It is activated without being the default, checked over a new connection, and committed only
    then. Whatever happens before ends on the system that runs now. The profile goes back to the old generation, no new one is made.
  - With O(keep) or O(keep_days) deletes old generations. Those of the running, the booted and the profile's current system, and of the boot
    default, always stay, and nothing is deleted while a deployment is under way. The machine looks at all of that again itself,
    under the lock of the guard.
  - The module is an action plugin. It needs no Python on the machine, and no privileges but root's, directly or by C(become).
  - More is in the page C(docs/generations.md) of the collection.
requirements:
  - "on the controller: ssh on PATH"
  - "on the machine: NixOS (systemd, Nix, util-linux, coreutils), curl for HTTP health checks"
options:
  generation:
    description:
      - Return to this generation.
      - The number of a generation, or V(previous) for the newest one before the profile's that has another system.
      - A machine that runs that system, and has it as its profile, is left as it is.
      - V(previous) goes one step further back each time it is run; give a number where a task may be run twice.
    type: str
  system:
    description:
      - Return to this system, the store path of one that is on the machine already.
      - If a generation has it, that one becomes the profile's again; otherwise a new one is made.
    type: str
  keep:
    description:
      - Keep the newest generations, so many of them, and delete others; V(1) to V(100000).
      - With O(keep_days) a generation is deleted only if both allow it.
    type: int
  keep_days:
    description: Keep the generations that are younger than so many days and delete others, V(1) to V(100000).
    type: int
  collect_garbage:
    description:
      - Delete what nothing needs any more from the machine's Nix store, after the generations.
      - This can take minutes. Deployments are possible meanwhile.
    type: bool
    default: false
notes:
  - Deleted generations leave the boot menu too. The system that is the boot default writes it, so the default stays. If that fails the task
    fails, nothing else is lost, and the next run makes up for it.
  - O(keep) and O(keep_days) without O(collect_garbage) free no space. They only let go of it; C(nix.gc) of the machine collects it sooner
    or later.
seealso:
  - module: fediversity.hosting.nixos_rebuild
extends_documentation_fragment:
  - fediversity.hosting.attributes
  - fediversity.hosting.guard
attributes:
  check_mode:
    support: full
    details: Runs the machine's dry activation. Garbage is counted as it is now, without that of the generations that would go.
  diff_mode:
    support: full
    details: Difference of the closures, from the machine, by packages if Nix sees one there, else by store paths; generations that go.
  idempotent:
    support: partial
    details: O(generation=previous) is another generation each time. All else is idempotent.
"""

EXAMPLES = r"""
- name: What is there
  fediversity.hosting.nixos_generations:
  register: machine

- name: Say which generation starts at the next boot
  ansible.builtin.debug:
    msg: "{{ machine.generations | selectattr('default') | map(attribute='number') }}"

- name: Return to the system before this one, if its web server works
  fediversity.hosting.nixos_generations:
    generation: previous
    health_checks:
      units: [nginx.service]
      http:
        - url: http://localhost/

- name: Return to generation 41
  fediversity.hosting.nixos_generations:
    generation: "41"

- name: Keep two weeks, but at least five generations, and free the space
  fediversity.hosting.nixos_generations:
    keep: 5
    keep_days: 14
    collect_garbage: true
"""

RETURN = r"""
changed:
  description: Whether the machine has another system than before, or generations or store paths were deleted.
  returned: always
  type: bool
msg:
  description: What went wrong and what to do; begins with C(rolled back) when a return was rolled back.
  returned: failure
  type: str
generations:
  description: The generations, oldest first, as they are at the end. Those of the same system are marked alike, but for C(profile).
  returned: when the machine answered
  type: list
  elements: dict
  contains:
    number:
      description: Number.
      type: int
    date:
      description: When it was made, ISO 8601 in UTC.
      type: str
      sample: "2026-11-21T02:45:10Z"
    path:
      description: Store path of its system.
      type: str
    version:
      description: NixOS version of its system; null when it does not say.
      type: str
    current:
      description: Whether its system runs.
      type: bool
    booted:
      description: Whether the machine was started with its system.
      type: bool
    default:
      description: Whether its system is the boot default. False for all when the boot loader is neither systemd-boot nor GRUB.
      type: bool
    profile:
      description: Whether it is the profile's current one.
      type: bool
  sample:
    - number: 41
      date: "2026-11-21T02:45:10Z"
      path: /nix/store/x3sm3xhkxbkdsi9zqxsxnzzhhbhqbfd5-nixos-system-vm-mastodon-25.11
      version: "25.11"
      current: true
      booted: false
      default: true
      profile: true
deleted:
  description: Numbers of the generations that were deleted; in check mode, that would be.
  returned: when O(keep), O(keep_days) or O(collect_garbage) is given
  type: list
  elements: int
freed_paths:
  description: Number of store paths that were deleted; in check mode, that nothing needs now.
  returned: when O(collect_garbage) is true
  type: int
freed_bytes:
  description: Disk space that this has freed, to the precision in which Nix says it; null in check mode.
  returned: when O(collect_garbage) is true
  type: int
txn:
  description: Name of the transaction in the machine's journal; empty when there was nothing to do.
  returned: when O(generation) or O(system) is given
  type: str
  sample: 20261120t234655z-2451053c
old:
  description: Store path of the system that ran before.
  returned: when O(generation) or O(system) is given
  type: str
new:
  description: Store path of the wanted system.
  returned: when O(generation) or O(system) is given
  type: str
phase:
  description: How it ended, as in M(fediversity.hosting.nixos_rebuild).
  returned: when O(generation) or O(system) is given
  type: str
rc:
  description: Exit code of switch-to-configuration on the machine; null when it was not run.
  returned: when O(generation) or O(system) is given
  type: int
generation:
  description: Number of the profile's current generation; null when the machine has no such profile yet.
  returned: when O(generation) or O(system) is given
  type: int
booted:
  description: Store path of the system that the machine was started with.
  returned: when O(generation) or O(system) is given and it was not a preview
  type: str
default:
  description: Store path of the boot default; empty when the boot loader is neither systemd-boot nor GRUB.
  returned: when O(generation) or O(system) is given and it was not a preview
  type: str
failed_units:
  description: Failed units C(before) and C(after).
  returned: when O(generation) or O(system) is given and it was not a preview
  type: dict
silent:
  description: Whether nothing was heard of the machine past every deadline of its own.
  returned: failure without an answer
  type: bool
needs_reboot:
  description: Whether kernel, initial RAM disk, modules or kernel parameters of the system are not the booted ones.
  returned: when O(generation) or O(system) is given
  type: bool
rollback:
  description: Why and how the machine stayed on the system that ran before, as in M(fediversity.hosting.nixos_rebuild); else null.
  returned: when O(generation) or O(system) is given and it was not a preview
  type: dict
log:
  description: The last lines of what switch-to-configuration, the health checks, or the deletion wrote.
  returned: when something was done
  type: list
  elements: str
timings:
  description: Seconds per step.
  returned: when O(generation) or O(system) is given and it was not a preview
  type: dict
"""
