# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_lock
short_description: Wait until no other run works with the operator database
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Waits for the end of other runs over the same operator database, then keeps them waiting until this C(ansible-playbook)
    ends, however it ends. There is nothing to unlock.
  - Two runs at a time would plan on what the other one is about to change. A run in check mode waits too.
  - With SQLite the lock is on the file C(<database file>.lock), with PostgreSQL it is an advisory lock of one session.
  - Runs once in the controller process, whatever the number of hosts.
requirements: [SQLAlchemy]
options:
  timeout:
    description: Seconds to wait for another run before this one fails.
    type: int
    default: 600
seealso:
  - module: fediversity.hosting.fleet_plan
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
- name: Wait for other runs, at most a minute
  fediversity.hosting.fleet_lock:
    timeout: 60
"""

RETURN = r""" # """
