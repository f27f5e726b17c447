#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_databases
short_description: Manage PostgreSQL databases and the roles that own them
version_added: "0.1.0"
description:
  - Makes databases, each with the role that owns it, on one PostgreSQL server, all in one call.
  - Every database is isolated, so that only its owner and superusers can connect.
  - Passwords are turned into SCRAM-SHA-256 verifiers before they are sent, so the clear password reaches neither the
    server nor its logs. A password is compared with the stored verifier, so an unchanged one is no change.
  - Roles and databases carry an owner mark in their comment. One that exists without the mark of its item is refused
    and never touched.
  - An item that is refused or fails does not keep the others from being made; the module fails at the end.
  - Encoding, locale and owner of an existing database are not changed. An item that wants others is refused.
options:
  databases:
    description:
      - The databases, each listed once.
      - Databases that are not listed are not touched.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the database, 1 to 63 bytes.
        type: str
        required: true
      owner:
        description:
          - Name of the role that owns the database. It is made when it is missing.
          - The default is O(databases[].name).
          - Databases of the same owner must have the same O(databases[].password) and O(databases[].mark).
        type: str
      password:
        description:
          - Password of the role. Without it the password of the role is left as it is.
        type: str
      mark:
        description:
          - Whose the database and the role are, one word, for example the application instance.
          - The default is O(databases[].name).
        type: str
      extensions:
        description:
          - Extensions that the database must have. Only those that PostgreSQL trusts database owners with can be made.
          - Other extensions of the database are left alone.
        type: list
        elements: str
        default: []
      encoding:
        description: Character set encoding of the database.
        type: str
        default: UTF8
      locale:
        description:
          - Collation and character classification of the database, for example V(C).
          - Without it the server chooses, and any is accepted.
        type: str
      conn_limit:
        description: Largest number of connections at once, V(-1) for any number.
        type: int
        default: -1
      state:
        description:
          - With V(absent), the database and its role are dropped with everything in them, and clients disconnected.
          - The role stays while it owns another database.
        type: str
        choices: [present, absent]
        default: present
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.postgresql
seealso:
  - module: community.postgresql.postgresql_db
  - module: community.postgresql.postgresql_user
author:
  - Fediversity hosting contributors (@fediversity)
"""

EXAMPLES = r"""
- name: Make the databases of two applications
  fediversity.hosting.postgresql_databases:
    login_host: db.example.org
    login_user: postgres
    login_password: "{{ vault_postgres_password }}"
    databases:
      - name: alice_social_mastodon
        password: "{{ vault_mastodon_password }}"
        conn_limit: 60
      - name: alice_chat_synapse
        password: "{{ vault_synapse_password }}"
        locale: C
        extensions: [pg_trgm]

- name: Drop the database and the role of an application
  fediversity.hosting.postgresql_databases:
    login_host: db.example.org
    login_user: postgres
    login_password: "{{ vault_postgres_password }}"
    databases:
      - name: bob_videos_peertube
        state: absent
"""

RETURN = r"""
results:
  description: One entry per database, sorted by name.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the database.
      type: str
      returned: always
    action:
      description: What was done, or would be done in check mode.
      type: str
      returned: always
      sample: create
    changed:
      description: Whether the item was changed, or would be in check mode.
      type: bool
      returned: always
    failed:
      description: Whether the item was refused or could not be changed.
      type: bool
      returned: always
    msg:
      description: Why the item failed and what to do about it.
      type: str
      returned: always
    owner:
      description: The role that owns the database.
      type: str
      returned: when the database exists
    size_bytes:
      description: Disk space that the database takes, in bytes.
      type: int
      returned: when the database exists
  sample:
    - name: alice_social_mastodon
      action: create
      changed: true
      failed: false
      msg: ""
      owner: alice_social_mastodon
      size_bytes: 7713583
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.fediversity.hosting.plugins.module_utils.module import (
    LIMIT_ARGUMENTS,
    require_libraries,
    run_batch,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import from_options
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.provider import PostgresqlDatabases

DATABASE_ARGUMENTS = {
    "name": {"type": "str", "required": True},
    "owner": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "mark": {"type": "str"},
    "extensions": {"type": "list", "elements": "str", "default": []},
    "encoding": {"type": "str", "default": "UTF8"},
    "locale": {"type": "str"},
    "conn_limit": {"type": "int", "default": -1},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}

ARGUMENTS = {
    "login_host": {"type": "str", "default": "localhost", "fallback": (env_fallback, ["PGHOST"])},
    "login_port": {"type": "int", "default": 5432, "fallback": (env_fallback, ["PGPORT"])},
    "login_user": {"type": "str", "fallback": (env_fallback, ["PGUSER"])},
    "login_password": {"type": "str", "no_log": True, "fallback": (env_fallback, ["PGPASSWORD"])},
    "login_db": {"type": "str", "default": "postgres"},
    "ssl_mode": {
        "type": "str",
        "default": "prefer",
        "choices": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
    },
    "databases": {"type": "list", "elements": "dict", "required": True, "options": DATABASE_ARGUMENTS},
    **LIMIT_ARGUMENTS,
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    require_libraries(module, "psycopg")
    params = module.params
    server = Server(
        host=params["login_host"],
        port=params["login_port"],
        user=params["login_user"],
        password=params["login_password"],
        database=params["login_db"],
        ssl_mode=params["ssl_mode"],
    )
    run_batch(module, lambda: (PostgresqlDatabases(server), from_options(params["databases"])))


if __name__ == "__main__":
    main()
