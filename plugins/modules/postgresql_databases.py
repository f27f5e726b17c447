#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_databases
short_description: Manage PostgreSQL databases, the roles that own them and further login roles
version_added: "0.1.0"
description:
  - Makes databases, each with the role that owns it, and further login roles on one PostgreSQL server, all in one call.
  - Every database is isolated, so that only its owner, those who are named and superusers can connect.
  - Passwords are turned into SCRAM-SHA-256 verifiers before they are sent, so the clear password reaches neither the
    server nor its logs. A password is compared with the stored verifier, so an unchanged one is no change.
  - Roles and databases carry an owner mark in their comment. A role that exists without the mark of its item is refused
    and never touched, and so is a database that belongs to another role than the item says.
  - An item that is refused or fails does not keep the others from being made; the module fails at the end.
  - Encoding, locale and owner of an existing database are not changed. An item that wants others is refused.
  - Runs exclude each other by a lock from reading to reading back.
options:
  databases:
    description:
      - The databases, each listed once.
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
          - Password of the owner. Without it and O(databases[].password_verifier) the password is left as it is.
        type: str
      password_verifier:
        description:
          - Instead of the password its SCRAM-SHA-256 verifier, as C(pg_authid.rolpassword) holds it.
          - A malformed one is refused, because the server would take it for a clear password.
          - Needs a O(login_user) that may read C(pg_authid).
        type: str
      mark:
        description:
          - Whose the database and the owner are, one word, for example the application instance.
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
          - Locale of the database in the words of its provider, for example V(C) or V(de-DE).
          - Without it the server chooses, and any is accepted.
        type: str
      locale_provider:
        description:
          - Provider of O(databases[].locale). V(icu) came with PostgreSQL 15, V(builtin) with 17.
        type: str
        choices: [libc, icu, builtin]
        default: libc
      conn_limit:
        description: Largest number of connections at once, V(-1) for any number.
        type: int
        default: -1
      grants:
        description:
          - Exactly the privileges on the database that roles besides its owner have.
          - Without it they are left alone, but nobody has any by being somebody (C(PUBLIC)).
        type: list
        elements: dict
        suboptions:
          role:
            description: Name of the role; it must exist or be listed in this call.
            type: str
            required: true
          privileges:
            description: What it may do with the database.
            type: list
            elements: str
            choices: [CONNECT, TEMPORARY, CREATE]
            required: true
      readers:
        description:
          - Exactly the roles that may connect and read all tables and sequences of the owner, those that are there and
            those that will be. Without it they are left alone.
        type: list
        elements: str
      state:
        description:
          - With V(retired), nobody can connect but superusers, and the owner cannot log in any more; sessions are ended.
            All data stays. V(present) brings the database back.
          - With V(absent), the database is retired, dumped into O(dump_dir) and dropped with its owner.
          - The owner stays, and can log in, while it owns another database.
        type: str
        choices: [present, retired, absent]
        default: present
  roles:
    description:
      - Further login roles, each listed once and none of them the owner of a listed database.
      - Make a second role with O(roles[].acts_as) the owner to change an application's password without downtime.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the role, 1 to 63 bytes.
        type: str
        required: true
      password:
        description: Password. Without it and O(roles[].password_verifier) the password is left as it is.
        type: str
      password_verifier:
        description: As O(databases[].password_verifier).
        type: str
      mark:
        description: Whose the role is, one word. The default is O(roles[].name).
        type: str
      member_of:
        description: Exactly the roles whose privileges it has. Without it memberships are left alone.
        type: list
        elements: str
      acts_as:
        description:
          - The role that its sessions become (C(ALTER ROLE ... SET role)), so that what they make belongs to that one.
          - It is made a member of that role.
        type: str
      conn_limit:
        description: Largest number of connections at once, V(-1) for any number.
        type: int
        default: -1
      valid_until:
        description:
          - When the password ends, in ISO 8601 with a time zone, or V(infinity). Without it this is left alone.
        type: str
      state:
        description:
          - With V(retired), the role cannot log in any more and its sessions are ended.
          - With V(absent), its privileges are taken away everywhere and it is dropped. One that owns something is refused.
        type: str
        choices: [present, retired, absent]
        default: present
  unlisted:
    description:
      - What becomes of databases that are not listed and whose owner carries our mark, and, if O(roles) is given, of
        roles.
    type: str
    choices: [keep, retired]
    default: keep
  mark_prefix:
    description: O(unlisted) applies only to what has a mark that begins with this.
    type: str
    default: ""
  dump_dir:
    description:
      - Directory, on the machine where the module runs, for the final dump of each database that is dropped.
      - The dump is verified before anything is dropped. It needs C(pg_dump) and C(pg_restore) of the server's version
        or newer.
    type: path
  dump_jobs:
    description: Processes of C(pg_dump) at once.
    type: int
    default: 2
  drop_without_dump:
    description: Whether databases may be dropped without O(dump_dir).
    type: bool
    default: false
  check_extensions:
    description:
      - With V(recorded), a database is looked into only when the comment on it and the server's shared catalogue do not
        prove that its extensions and readers are as wanted.
      - With V(always), every database with O(databases[].extensions) or O(databases[].readers) is looked into.
    type: str
    choices: [recorded, always]
    default: recorded
  password_check:
    description:
      - How passwords are compared. V(catalogue) reads the stored verifiers, which superusers can. V(login) logs in as
        each role, from where the module runs.
      - V(auto) means V(catalogue) where that is permitted.
    type: str
    choices: [auto, catalogue, login]
    default: auto
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.postgresql
seealso:
  - module: community.postgresql.postgresql_db
  - module: community.postgresql.postgresql_user
  - module: community.postgresql.postgresql_privs
  - module: community.postgresql.postgresql_ext
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
        readers: [alice_reports]
    roles:
      - name: alice_reports
        password: "{{ vault_reports_password }}"
        valid_until: "2027-01-31T00:00:00+01:00"

- name: Give an application a second login while its password changes
  fediversity.hosting.postgresql_databases:
    login_host: db.example.org
    login_user: postgres
    login_password: "{{ vault_postgres_password }}"
    databases: []
    roles:
      - name: alice_social_mastodon_b
        acts_as: alice_social_mastodon
        password: "{{ vault_mastodon_new_password }}"

- name: Shut one application out and keep its data, drop another one after a final dump
  fediversity.hosting.postgresql_databases:
    login_host: db.example.org
    login_user: postgres
    login_password: "{{ vault_postgres_password }}"
    dump_dir: /srv/dumps
    databases:
      - name: bob_social_mastodon
        state: retired
      - name: bob_videos_peertube
        state: absent
"""

RETURN = r"""
results:
  description: One entry per database and per further role, sorted by name.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the database, or C(role) and the name of the role.
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
    kind:
      description: V(database) or V(role).
      type: str
      returned: when it exists
    owner:
      description: The role that owns the database.
      type: str
      returned: when the database exists
    size_bytes:
      description: Disk space that the database takes, in bytes; null if O(login_user) may not know it.
      type: int
      returned: when the database exists
    collation_outdated:
      description:
        - Whether the operating system sorts in another way than when the database was made, so that its indexes must be
          rebuilt (C(REINDEX), then C(ALTER DATABASE ... REFRESH COLLATION VERSION)). Known from PostgreSQL 15 on.
      type: bool
      returned: when the database exists
    retired_since:
      description: Since when it is retired, in UTC; null if it is not.
      type: str
      returned: when it exists
    dump:
      description: The final dump of a database that was dropped.
      type: dict
      returned: when one was made
      contains:
        path:
          description: The directory that C(pg_restore) takes.
          type: str
        manifest:
          description: File that lists the tables with their numbers of rows and the files with their digests.
          type: str
        bytes:
          description: Size of the dump.
          type: int
        digest:
          description: SHA-256 of the manifest.
          type: str
        tables:
          description: The tables and how many rows of each the dump holds.
          type: list
          elements: dict
  sample:
    - name: alice_social_mastodon
      action: create
      changed: true
      failed: false
      msg: ""
      kind: database
      owner: alice_social_mastodon
      size_bytes: 7713583
      collation_outdated: false
      retired_since: null
"""

from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.module import (
    LIMIT_ARGUMENTS,
    leave,
    require_libraries,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    PRIVILEGES,
    database_from,
    role_from,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.plan import Policy, shares
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.provider import Look, PostgresqlDatabases
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.session import session
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Limits, reconcile

STATE = {"type": "str", "choices": ["present", "retired", "absent"], "default": "present"}

GRANT_ARGUMENTS = {
    "role": {"type": "str", "required": True},
    "privileges": {"type": "list", "elements": "str", "choices": list(PRIVILEGES), "required": True},
}

DATABASE_ARGUMENTS = {
    "name": {"type": "str", "required": True},
    "owner": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "password_verifier": {"type": "str", "no_log": True},
    "mark": {"type": "str"},
    "extensions": {"type": "list", "elements": "str", "default": []},
    "encoding": {"type": "str", "default": "UTF8"},
    "locale": {"type": "str"},
    "locale_provider": {"type": "str", "choices": ["libc", "icu", "builtin"], "default": "libc"},
    "conn_limit": {"type": "int", "default": -1},
    "grants": {"type": "list", "elements": "dict", "options": GRANT_ARGUMENTS},
    "readers": {"type": "list", "elements": "str"},
    "state": STATE,
}

ROLE_ARGUMENTS = {
    "name": {"type": "str", "required": True},
    "password": {"type": "str", "no_log": True},
    "password_verifier": {"type": "str", "no_log": True},
    "mark": {"type": "str"},
    "member_of": {"type": "list", "elements": "str"},
    "acts_as": {"type": "str"},
    "conn_limit": {"type": "int", "default": -1},
    "valid_until": {"type": "str"},
    "state": STATE,
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
    "roles": {"type": "list", "elements": "dict", "options": ROLE_ARGUMENTS},
    "unlisted": {"type": "str", "choices": ["keep", "retired"], "default": "keep"},
    "mark_prefix": {"type": "str", "default": ""},
    "dump_dir": {"type": "path"},
    "dump_jobs": {"type": "int", "default": 2},
    "drop_without_dump": {"type": "bool", "default": False},
    "check_extensions": {"type": "str", "choices": ["recorded", "always"], "default": "recorded"},
    # a choice and no secret
    "password_check": {
        "type": "str",
        "choices": ["auto", "catalogue", "login"],
        "default": "auto",
        "no_log": False,
    },
    **LIMIT_ARGUMENTS,
}


def reconciled(module: AnsibleModule) -> dict[str, Any]:
    """Make the databases and roles while no other run does, and return the result of the module."""
    params = module.params
    desired = [
        *(database_from(item) for item in params["databases"]),
        *(role_from(item) for item in params["roles"] or []),
    ]
    policy = Policy(
        unlisted=params["unlisted"],
        mark_prefix=params["mark_prefix"],
        roles_listed=params["roles"] is not None,
        dump_dir=Path(params["dump_dir"]) if params["dump_dir"] else None,
        dump_jobs=params["dump_jobs"],
        drop_without_dump=params["drop_without_dump"],
    )
    with session(server_of(params)) as opened:
        provider = PostgresqlDatabases(opened, policy, Look(params["check_extensions"], params["password_check"]))
        limits = Limits(max_delete_percent=params["max_delete_percent"])
        result = reconcile(provider, desired, check=module.check_mode, limits=limits, shares=partial(shares, policy))
    dumps = provider.dump_outputs()
    for item in result["results"]:
        if item["name"] in dumps:
            item["dump"] = dumps[item["name"]]
    if open_to_all := provider.open_to_all():
        module.warn(
            f"every role may connect to {' and '.join(open_to_all)}, make temporary tables there and hold the lock of "
            f"this module; close them once: REVOKE CONNECT, TEMPORARY ON DATABASE {', '.join(open_to_all)} FROM PUBLIC"
        )
    if opened.ended:
        module.warn(f"sessions that held the lock of this module were ended: {', '.join(opened.ended)}")
    if opened.waited:
        module.warn(f"another run was changing this server; this one waited {opened.waited:.0f} s and planned after it")
    if provider.lost:
        module.warn("the connection was lost; the server was read again and what was left was planned again")
    return result


def server_of(params: dict[str, Any]) -> Server:
    return Server(
        host=params["login_host"],
        port=params["login_port"],
        user=params["login_user"],
        password=params["login_password"],
        database=params["login_db"],
        ssl_mode=params["ssl_mode"],
    )


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    require_libraries(module, "psycopg")
    try:
        result = reconciled(module)
    except HostingError as error:
        result = {"failed": True, "changed": False, "msg": str(error), "results": []}
    leave(module, result)


if __name__ == "__main__":
    main()
