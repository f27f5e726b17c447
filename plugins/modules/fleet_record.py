# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_record
short_description: Record how a machine came out of its switch
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Writes state, message, committed system and generation of one machine to the operator database, and the state of the
    deployments on it.
  - Keeps the systems that the machine has committed, for M(fediversity.hosting.fleet_rollback).
  - Runs in the controller process, for each host of the play. Rows that already say so are not written.
requirements: [SQLAlchemy, alembic]
options:
  machine:
    description: The machine; the inventory host name by default.
    type: str
  result:
    description:
      - The result of M(fediversity.hosting.nixos_rebuild) or M(fediversity.hosting.nixos_transaction), or of the task that failed
        before it.
    type: dict
    required: true
  rejects:
    description:
      - Whether somebody rolled the machine back by hand. If that succeeded, the system that ran before is held. It is not deployed to
        this machine again until it is released by O(fediversity.hosting.fleet_select#module:release).
    type: bool
    default: false
  by:
    description: Who rolled it back; the user and host of the controller by default.
    type: str
  why:
    description: Why it was rolled back.
    type: str
    default: ""
seealso:
  - module: fediversity.hosting.fleet_select
  - module: fediversity.hosting.fleet_report
extends_documentation_fragment:
  - fediversity.hosting.operator_db.database
  - fediversity.hosting.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It keeps a record and changes no machine.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Switch, and record how it went
  block:
    - name: Switch to the wanted system
      fediversity.hosting.nixos_rebuild:
        system: "{{ fleet_selection.switch[inventory_hostname] }}"
      register: switched
  rescue:
    - name: Record the failure
      fediversity.hosting.fleet_record:
        result: "{{ ansible_failed_result }}"
"""

RETURN = r"""
machine:
  description: The machine.
  returned: success
  type: str
state:
  description: What was recorded, one of V(running), V(held), V(blocked), V(rolled-back), V(failed), V(silent).
  returned: success
  type: str
message:
  description: Why the machine is not running what is wanted; empty if it does.
  returned: success
  type: str
"""
