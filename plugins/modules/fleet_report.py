# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: Show every deployment with its URL, machine, generation and state
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Reads the operator database, prints one row per application instance as a table, and returns the rows.
  - Runs once in the controller process, whatever the number of hosts.
requirements: [SQLAlchemy, alembic, tabulate]
options:
  environment:
    description: Show only this environment.
    type: str
  url_scheme:
    description: Scheme of the URLs.
    type: str
    choices: [https, http]
    default: https
seealso:
  - module: fediversity.hosting.fleet_record
extends_documentation_fragment:
  - fediversity.hosting.operator_db.database
  - fediversity.hosting.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Show the state of the fleet
  fediversity.hosting.fleet_report:
"""

RETURN = r"""
deployments:
  description: One entry per application instance, sorted.
  returned: success
  type: list
  elements: dict
failed_machines:
  description: Machine to the reason why it does not run what is wanted.
  returned: success
  type: dict
"""
