# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: operator_db_import
short_description: Import operators.yml into the operator database
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Makes the operator database hold what the file says. The database and its tables are made, or migrated, when needed.
  - The whole file is checked before anything is written, and is written in one transaction. The message of a refused
    file names line and field of everything that is wrong.
  - Machines of the runtime V(proxmox) without an address get the lowest free address of their environment's pool
    and keep it.
  - What the database holds and the file does not mention stays as it is and is returned as RV(unlisted).
  - Runs once in the controller process, whatever the number of hosts.
requirements: [SQLAlchemy, alembic, jsonschema, psycopg (for PostgreSQL)]
options:
  src:
    description:
      - The file, relative to the working directory of the run.
      - Its format is described in C(docs/operator-database.md).
    type: path
    required: true
seealso:
  - plugin: fediversity.hosting.operator_db
    plugin_type: inventory
  - module: fediversity.hosting.fleet_plan
extends_documentation_fragment:
  - fediversity.hosting.operator_db.database
  - fediversity.hosting.attributes.full
"""

EXAMPLES = r"""
- name: Import what the operators want
  fediversity.hosting.operator_db_import:
    src: inventories/production/operators.yml
    database_url: sqlite:////var/lib/fediversity/operator.db
"""

RETURN = r"""
counts:
  description: How many rows were created, updated, unchanged and unlisted.
  returned: success
  type: dict
  sample: {created: 2, updated: 1, unchanged: 14, unlisted: 0}
unlisted:
  description: What the database holds and the file does not mention, by kind.
  returned: success
  type: dict
  sample: {instances: [bob_archive_mastodon]}
"""
