# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_rollback
short_description: Say to which earlier system the machines of an operator go back
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Finds, for every machine with an enabled application instance of a deployment (or of all of an operator's), the system that
    the machine committed before the present one, as the operator database recorded it. Systems that were rolled back by
    hand do not count. A machine of which nobody knows what it runs goes to what it committed last.
  - Refuses everything, before anything is changed, when one of the machines has no earlier system, or carries instances of
    other operators too.
  - Records that the systems of these machines are unknown until M(fediversity.hosting.fleet_record) says how it ended.
  - Runs once in the controller process, whatever the number of hosts.
requirements: [SQLAlchemy, alembic]
options:
  operator:
    description: The operator.
    type: str
    required: true
  deployment:
    description: Only this deployment; all of the operator's by default.
    type: str
  environment:
    description: Only what is in this environment.
    type: str
  machines:
    description: Only these machines.
    type: list
    elements: str
  shared:
    description: Also roll back machines that carry instances of other operators, which go back too.
    type: bool
    default: false
seealso:
  - module: fediversity.hosting.fleet_record
  - module: fediversity.hosting.fleet_select
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
- name: Find the system that each machine committed before
  fediversity.hosting.fleet_rollback:
    operator: alice
    deployment: social
  register: fleet_selection
"""

RETURN = r"""
switch:
  description: Machine to the system that it goes back to.
  returned: success
  type: dict
machines:
  description: The machines that go back.
  returned: success
  type: list
  elements: str
committed:
  description: Machine to the system that it committed last; null where nobody knows.
  returned: success
  type: dict
unknown:
  description: Those that have never committed anything; always empty here.
  returned: success
  type: list
  elements: str
made_anew:
  description: Those whose virtual machine is a new one; always empty here.
  returned: success
  type: list
  elements: str
silent:
  description: Those that have not been heard of since their last switch began.
  returned: success
  type: list
  elements: str
vmids:
  description: Machine to VMID, for those that are virtual machines.
  returned: success
  type: dict
"""
