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
  - Runs in the controller process, for each host of the play. Rows that already say so are not written.
requirements: [SQLAlchemy, alembic]
options:
  machine:
    description: The machine; the inventory host name by default.
    type: str
  result:
    description: The result of M(fediversity.hosting.nixos_rebuild), or of the task that failed before it.
    type: dict
    required: true
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
  description: What was recorded, one of V(running), V(rolled-back), V(failed).
  returned: success
  type: str
message:
  description: Why the machine is not running what is wanted; empty if it does.
  returned: success
  type: str
"""
