# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs of bench-services as Ansible tasks, as a user of either side writes them, over items in a variable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

Task = dict[str, Any]
Items = list[dict[str, Any]]
EXTENSIONS = ("pg_trgm", "unaccent")


def apps(prefix: str, number: int) -> Items:
    """Applications, each with a database, a role of its name and a password."""
    return [{"name": f"{prefix}{app}", "password": secret(f"{prefix}{app}")} for app in range(number)]


def secret(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:40]


def databases(items: Items) -> Items:
    return [{**app, "extensions": list(EXTENSIONS)} for app in items]


OUR_DATABASES: list[Task] = [
    {"name": "Databases", "fediversity.hosting.postgresql_databases": {"databases": "{{ databases }}"}}
]

# what our module does: the role, its database, nobody else may connect, two extensions
PEER_DATABASES: list[Task] = [
    {
        "name": "Roles",
        "community.postgresql.postgresql_user": {
            "name": "{{ item.name }}",
            "password": "{{ item.password }}",
            "role_attr_flags": "LOGIN,NOSUPERUSER,NOCREATEDB,NOCREATEROLE",
        },
        "loop": "{{ apps }}",
        "loop_control": {"label": "{{ item.name }}"},
    },
    {
        "name": "Databases",
        "community.postgresql.postgresql_db": {
            "name": "{{ item.name }}",
            "owner": "{{ item.name }}",
            "template": "template0",
            "encoding": "UTF8",
        },
        "loop": "{{ apps }}",
        "loop_control": {"label": "{{ item.name }}"},
    },
    {
        "name": "Grants",
        "community.postgresql.postgresql_privs": {
            "login_db": "{{ item.name }}",
            "type": "database",
            "objs": "{{ item.name }}",
            "privs": "CONNECT,TEMPORARY",
            "roles": "PUBLIC",
            "state": "absent",
        },
        "loop": "{{ apps }}",
        "loop_control": {"label": "{{ item.name }}"},
    },
    {
        "name": "Extensions",
        "community.postgresql.postgresql_ext": {"login_db": "{{ item.0.name }}", "name": "{{ item.1 }}"},
        "loop": f"{{{{ apps | product({list(EXTENSIONS)}) | list }}}}",
        "loop_control": {"label": "{{ item.0.name }} {{ item.1 }}"},
    },
]


def record_sets(number: int, network: int) -> Items:
    """A records in 10.*network*.0.0/16, of the form of our option."""
    return [
        {"prefix": f"host{host}", "type": "A", "ttl": 300, "value": [f"10.{network}.{host // 250}.{host % 250 + 1}"]}
        for host in range(number)
    ]


def record_lines(items: Items) -> str:
    """The same as text, the form of our other option."""
    return "".join(f"{item['prefix']} {item['ttl']} {item['type']} {item['value'][0]}\n" for item in items)


OUR_RECORDS: list[Task] = [
    {
        "name": "Records",
        "fediversity.hosting.dns_records": {
            "zones": "{{ zones }}",
            "port": "{{ server_port }}",
            # all of them change
            "max_update_percent": 100,
        },
    }
]


def peer_records(server: Mapping[str, Any], zone: str) -> list[Task]:
    """*server*: the module's own options for server, port and key."""
    return [
        {
            "name": "Records",
            "community.general.nsupdate": {
                **server,
                "zone": f"{zone}.",
                "record": "{{ item.prefix }}",
                "type": "{{ item.type }}",
                "ttl": "{{ item.ttl }}",
                "value": "{{ item.value }}",
            },
            "loop": "{{ records }}",
            "loop_control": {"label": "{{ item.prefix }}"},
        }
    ]


def storage(number: int) -> dict[str, Items]:
    """Buckets, each with a key of its own that reads and writes it."""
    keys = [
        {
            "name": f"fediversity/app{app}",
            "access_key_id": "GK" + hashlib.sha256(f"app{app}".encode()).hexdigest()[:24],
            "secret_access_key": hashlib.sha256(f"secret{app}".encode()).hexdigest(),
        }
        for app in range(number)
    ]
    buckets = [
        {
            "name": f"app{app}--media",
            "quotas": {"max_size": 10 * 2**30},
            "permissions": [{"key": key["name"], "read": True, "write": True}],
        }
        for app, key in enumerate(keys)
    ]
    return {"keys": keys, "buckets": buckets}


OUR_BUCKETS: list[Task] = [
    {
        "name": "Buckets",
        "fediversity.hosting.garage_buckets": {"keys": "{{ storage['keys'] }}", "buckets": "{{ storage['buckets'] }}"},
    }
]


def users(items: Items) -> Items:
    return [{"name": app["name"], "prefix": app["name"], "passwords": [app["password"]]} for app in items]


OUR_USERS: list[Task] = [{"name": "Users", "fediversity.hosting.valkey_users": {"users": "{{ users }}"}}]

# there is no module for ACL users: the command line tool, with its password in the environment
PEER_USERS: list[Task] = [
    {
        "name": "Users",
        "ansible.builtin.command": {
            "argv": [
                *("redis-cli", "-p", "{{ lookup('env', 'VALKEY_PORT') }}", "--user", "admin", "ACL", "SETUSER"),
                *("{{ item.name }}", "reset", "on", "#{{ item.password | hash('sha256') }}", "~{{ item.name }}:*"),
                *("&{{ item.name }}:*", "+@all", "-@admin", "-@dangerous"),
            ]
        },
        "environment": {"REDISCLI_AUTH": "{{ lookup('env', 'VALKEY_PASSWORD') }}"},
        "loop": "{{ apps }}",
        "loop_control": {"label": "{{ item.name }}"},
    }
]
