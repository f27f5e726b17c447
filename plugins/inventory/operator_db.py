# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: operator_db
short_description: The machines of the operator database as inventory hosts
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Makes a host of every machine of the operator database. The file's name must end in C(operator_db.yml) or
    C(operator_db.yaml).
  - Groups are C(fediversity_machines), C(environment_<name>), C(runtime_<name>) and, by the application instances of a
    machine, C(application_<name>), C(operator_<name>) and C(state_<enabled or disabled>). Hyphens become underscores.
  - Every host has C(ansible_host), C(ansible_port), C(ansible_user) and one dictionary, C(fediversity), with the keys
    C(machine) and C(instances). It holds customers' text, which Ansible never renders as a template, and no secrets.
  - The inventory is a view for choosing hosts; the plan reads the operator database itself.
requirements: [SQLAlchemy, psycopg (for PostgreSQL)]
extends_documentation_fragment:
  - fediversity.hosting.operator_db.plugin_database
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [fediversity.hosting.operator_db]
  environments:
    description: Only machines of these environments; of all environments if empty.
    type: list
    elements: str
    default: []
    env:
      - name: FEDIVERSITY_ENVIRONMENTS
  operators:
    description:
      - Only application instances of these operators; of all operators if empty.
      - Machines without a shown instance are left out when this, O(applications) or O(states) is set.
    type: list
    elements: str
    default: []
    env:
      - name: FEDIVERSITY_OPERATORS
  applications:
    description: Only instances of these applications; of all applications if empty.
    type: list
    elements: str
    default: []
    env:
      - name: FEDIVERSITY_APPLICATIONS
  states:
    description: Only instances whose deployment is in one of these states; in any state if empty.
    type: list
    elements: str
    choices: [enabled, disabled]
    default: []
    env:
      - name: FEDIVERSITY_STATES
seealso:
  - module: fediversity.hosting.operator_db_import
"""

EXAMPLES = r"""
# inventories/production/production.operator_db.yml; the database is that of FEDIVERSITY_DATABASE_URL
plugin: fediversity.hosting.operator_db
environments: [production]
---
# only what runs for two operators, with further groups by Proxmox node
plugin: fediversity.hosting.operator_db
database_url: sqlite:////var/lib/fediversity/operator.db
operators: [alice, bob]
states: [enabled]
keyed_groups:
  - key: fediversity.machine.record.node
    prefix: node
"""

import hashlib
import json
from typing import Any

import ansible.template
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.plugin_utils.libraries import require
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect, describe
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.hosts import Filter, hosts_of
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import load_fleet

FILTERS = ("environments", "operators", "applications", "states")
SUFFIXES = ("operator_db.yml", "operator_db.yaml")
RESERVED = ("all", "ungrouped", "localhost")


def untrusted(value: Any) -> Any:
    """Mark text as never to be rendered; ansible-core 2.19 and later trust no text of plugins unless told to."""
    return value if hasattr(ansible.template, "trust_as_template") else wrap_var(value)


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "fediversity.hosting.operator_db"

    def verify_file(self, path: str) -> bool:
        return super().verify_file(path) and path.endswith(SUFFIXES)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        try:
            hosts = self._hosts(path, cache)
            self._refuse_group_names(hosts)
        except HostingError as error:
            raise AnsibleParserError(str(error)) from None
        self._add(hosts)

    def _hosts(self, path: str, cache: bool) -> dict[str, Any]:
        """The hosts as plain data, from the cache or the database."""
        require("sqlalchemy")
        engine = connect(self.get_option("database_url"))
        chosen = {name: sorted(self.get_option(name)) for name in FILTERS}
        self.load_cache_plugin()
        query = json.dumps([describe(engine), chosen]).encode()
        key = f"{self.get_cache_key(path)}_{hashlib.sha256(query).hexdigest()[:16]}"
        caching = self.get_option("cache")
        if caching and cache:
            try:
                return dict(self._cache[key])
            except KeyError:
                pass  # absent or too old
        hosts = hosts_of(load_fleet(engine), Filter(**{name: frozenset(names) for name, names in chosen.items()}))
        if caching:
            self._cache[key] = hosts
        return hosts

    def _refuse_group_names(self, hosts: dict[str, Any]) -> None:
        """Ansible would set the variables of a host that is called like a group on all hosts of the group."""
        groups = {*self.inventory.groups, *RESERVED, *(group for host in hosts.values() for group in host["groups"])}
        for name in sorted(groups & hosts.keys()):
            raise HostingError(
                f"the machine {name!r} has the name of a group", hint="Rename it in operators.yml and import that"
            )

    def _add(self, hosts: dict[str, Any]) -> None:
        for group in sorted({group for host in hosts.values() for group in host["groups"]}):
            self.inventory.add_group(group)
        compose, groups, keyed_groups, strict = map(self.get_option, ("compose", "groups", "keyed_groups", "strict"))
        for name, host in hosts.items():
            # connection variables come from columns of the hosting provider that the import has validated
            variables = host["variables"] | {"fediversity": untrusted(host["variables"]["fediversity"])}
            self.inventory.add_host(name)
            for group in host["groups"]:
                self.inventory.add_child(group, name)
            for variable, value in variables.items():
                self.inventory.set_variable(name, variable, value)
            # each of these costs about a millisecond per host even if there is nothing to do
            if compose:
                self._set_composite_vars(compose, variables, name, strict=strict)
            if groups:
                self._add_host_to_composed_groups(groups, variables, name, strict=strict)
            if keyed_groups:
                self._add_host_to_keyed_groups(keyed_groups, variables, name, strict=strict)
