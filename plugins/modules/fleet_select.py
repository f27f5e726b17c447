# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_select
short_description: Say which machines are switched and which are held back
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Takes the plan and the results of the batches and sorts the machines. A machine is changed if its wanted system is not
    the one it committed last or its virtual machine was made anew, blocked if something it needs has failed, held if
    somebody rolled the wanted system back by hand, and unchanged otherwise.
  - Records blocked, held and unchanged machines and which virtual machines there are in the operator database, and that the
    systems of the changed machines are unknown until M(fediversity.hosting.fleet_record) says how their switch ended.
  - Runs once in the controller process, whatever the number of hosts.
requirements: [SQLAlchemy, alembic]
options:
  plan:
    description: The result of M(fediversity.hosting.fleet_plan).
    type: dict
    required: true
  results:
    description: The results of the batch modules by kind of resource.
    type: dict
    required: true
  build:
    description: The result of M(fediversity.hosting.nix_build).
    type: dict
    required: true
  visit:
    description:
      - V(changed) selects the machines whose wanted system is not the one that they committed last, as far as the operator
        database knows.
      - V(all) asks every machine. Use it after somebody changed machines by hand, or after the operator database was
        restored from an older copy.
    type: str
    choices: [changed, all]
    default: changed
  release:
    description:
      - Machines that get their wanted system although somebody rolled that one back by hand; V(all) for every machine.
    type: list
    elements: str
    default: []
seealso:
  - module: fediversity.hosting.fleet_plan
  - module: fediversity.hosting.fleet_record
extends_documentation_fragment:
  - fediversity.hosting.operator_db.database
  - fediversity.hosting.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes no machine.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: See which machines change
  fediversity.hosting.fleet_select:
    plan: "{{ fleet }}"
    results:
      vms: "{{ fleet_vms }}"
      databases: "{{ fleet_databases }}"
    build: "{{ fleet_build }}"
  register: fleet_selection
"""

RETURN = r"""
switch:
  description: Machine to the system that it is to be switched to.
  returned: success
  type: dict
blocked:
  description: Machine to the reason why it is left as it is.
  returned: success
  type: dict
held:
  description: Machine to the reason why it is left alone; somebody rolled its wanted system back by hand.
  returned: success
  type: dict
machines:
  description: All machines that were planned, or could not be.
  returned: success
  type: list
  elements: str
committed:
  description: Machine to be switched to the system that it committed last; null where nobody knows.
  returned: success
  type: dict
unknown:
  description: Machines to be switched that have never committed anything, so that they run what somebody else made.
  returned: success
  type: list
  elements: str
silent:
  description: Machines to be switched that have not been heard of since their last switch began.
  returned: success
  type: list
  elements: str
vmids:
  description: Machine to be switched to VMID, for those that are virtual machines.
  returned: success
  type: dict
made_anew:
  description: Machines to be switched whose virtual machine is a new one, so that it has another SSH host key.
  returned: success
  type: list
  elements: str
unchanged:
  description: Machines that already run what is wanted.
  returned: success
  type: list
  elements: str
"""
