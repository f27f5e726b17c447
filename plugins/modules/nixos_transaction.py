#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nixos_transaction
short_description: Decide about a deployment that a machine holds, or close an interrupted one
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Commits or aborts a deployment that M(fediversity.hosting.nixos_rebuild) has activated and checked with C(commit=false).
    The machine rolls back by itself when no decision comes in time.
  - Or waits for a machine and closes whatever a restart has interrupted there, without deploying anything.
  - The module is an action plugin. It needs no Python on the machine, and no privileges but root's, directly or by C(become).
options:
  decision:
    description:
      - V(commit) makes the new system the profile's and the boot default.
      - V(abort) rolls back to the old one, and ends when it runs.
      - V(settle) waits until nothing is under way on the machine any more. It confirms nothing.
    type: str
    choices: [commit, abort, settle]
    required: true
  txn:
    description: Name of the transaction, as M(fediversity.hosting.nixos_rebuild) returns it. Required unless O(decision=settle).
    type: str
  reason:
    description: Why it is aborted; it goes to the machine's journal.
    type: str
    default: aborted by the controller
  timeout:
    description: Seconds within which the transaction must have ended.
    type: int
    default: 600
  connect_timeout:
    description: Seconds to wait for a machine that does not answer yet because it is still booting. V(0) tries once.
    type: int
    default: 120
seealso:
  - module: fediversity.hosting.nixos_rebuild
  - module: fediversity.hosting.nixos_generations
extends_documentation_fragment:
  - fediversity.hosting.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: The difference was shown when the system was deployed.
  idempotent:
    support: full
    details: A transaction is decided once. Asking again for the same decision changes nothing, asking for the other one fails.
"""

EXAMPLES = r"""
- name: Activate and check on every machine, commit nowhere yet
  fediversity.hosting.nixos_rebuild:
    system: "{{ fleet_build.systems[inventory_hostname] }}"
    commit: false
  register: held

- name: All machines are well, commit
  fediversity.hosting.nixos_transaction:
    txn: "{{ held.txn }}"
    decision: commit
  when: held.phase == 'checked'

- name: Wait for a machine that was reset by hand, and close what it was doing
  fediversity.hosting.nixos_transaction:
    decision: settle
    connect_timeout: 300
"""

RETURN = r"""
changed:
  description: Whether a transaction was live and has been ended.
  returned: always
  type: bool
msg:
  description: What went wrong and what to do.
  returned: failure
  type: str
txn:
  description: Name of the machine's last transaction; empty when it never had one.
  returned: when the machine answered
  type: str
phase:
  description: Its phase, as in M(fediversity.hosting.nixos_rebuild).
  returned: when the machine answered
  type: str
old:
  description: Store path of the system that ran before.
  returned: when the machine has had a transaction
  type: str
new:
  description: Store path of the system that was deployed.
  returned: when the machine has had a transaction
  type: str
reason:
  description: Why it was rolled back; empty when it was not.
  returned: when the machine has had a transaction
  type: str
method:
  description: How it was rolled back, as in M(fediversity.hosting.nixos_rebuild); empty when it was not.
  returned: when the machine has had a transaction
  type: str
current:
  description: Store path of the running system.
  returned: when the machine answered
  type: str
booted:
  description: Store path of the system that the machine has started with.
  returned: when the machine has had a transaction
  type: str
default:
  description: Store path of the boot default; empty when the boot loader is not known.
  returned: when the machine has had a transaction
  type: str
generation:
  description: Number of the profile's current generation.
  returned: when the machine has had a transaction
  type: int
silent:
  description: Whether the machine has said nothing past every deadline of its own.
  returned: failure without an answer of the machine
  type: bool
"""
