# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""operators.yml as items with their places, and as rows that can be compared with what the database holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.names import instance_id
from ansible_collections.fediversity.hosting.plugins.plugin_utils.documents import Path, Problem
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import (
    Environment,
    Fleet,
    Network,
    deployment_id,
)

# kind -> key -> fields; references are names, never database ids
Rows = dict[str, dict[str, dict[str, Any]]]
KINDS = ("environments", "machines", "operators", "deployments", "instances")
_CHILDREN = {"operators": "deployments", "deployments": "applications"}


@dataclass(frozen=True)
class Item:
    """One object of the file; ``owners`` are the names of the operator and the deployment around it."""

    kind: str
    path: Path
    fields: Mapping[str, Any]
    owners: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its own name, an instance's application."""
        return str(self.fields["application" if self.kind == "instances" else "name"])

    @property
    def key(self) -> str:
        """Its identity among all items of its kind."""
        if self.kind == "instances":
            operator, deployment = self.owners
            return instance_id(operator, deployment, self.name)
        if self.kind == "deployments":
            return deployment_id(self.owners[0], self.name)
        return self.name

    @property
    def deployment_key(self) -> str:
        """An instance's deployment."""
        operator, deployment = self.owners
        return deployment_id(operator, deployment)

    def at(self, *field: str | int) -> Path:
        return (*self.path, *field)


def items_of(document: Any) -> list[Item]:
    """All objects that have a name, in the order of the file; what is not where it belongs is left out."""
    root = document if isinstance(document, Mapping) else {}
    return [item for kind in ("environments", "machines", "operators") for item in _items(root, kind, kind, (), ())]


def _items(around: Mapping[str, Any], field: str, kind: str, at: Path, owners: tuple[str, ...]) -> Iterator[Item]:
    found = around.get(field)
    for number, fields in enumerate(found if isinstance(found, list) else ()):
        name = fields.get("application" if kind == "instances" else "name") if isinstance(fields, Mapping) else None
        if not isinstance(name, str):
            continue
        path = (*at, field, number)
        yield Item(kind, path, fields, owners)
        if kind == "operators":
            yield from _items(fields, "deployments", "deployments", path, (name,))
        elif kind == "deployments":
            yield from _items(fields, "applications", "instances", path, (*owners, name))


def sound(items: Iterable[Item], problems: Iterable[Problem]) -> list[Item]:
    """The items without a problem of their own (problems of the items inside them do not count)."""
    paths = {problem.path for problem in problems}
    return [item for item in items if not any(_is_own(item, path) for path in paths)]


def _is_own(item: Item, path: Path) -> bool:
    length = len(item.path)
    inside = path[:length] == item.path
    child = length + 1 < len(path) and path[length] == _CHILDREN.get(item.kind)
    return inside and not child


def rows_of_items(items: Iterable[Item]) -> Rows:
    """The rows that the items ask for; machines without an address have None."""
    rows: Rows = {kind: {} for kind in KINDS}
    for item in items:
        rows[item.kind][item.key] = _FIELDS[item.kind](item)
    return rows


def rows_of_fleet(fleet: Fleet) -> Rows:
    """The rows that the database holds, without what runs recorded."""
    return {
        "environments": {
            found.name: _environment(
                {
                    "stage": found.stage,
                    "zones": list(found.zones),
                    "network": {
                        "subnet": found.network.subnet,
                        "gateway": found.network.gateway,
                        "nameservers": list(found.network.nameservers),
                        "pool": found.network.pool,
                    },
                    "proxmox": found.proxmox,
                    "postgresql": found.postgresql,
                    "garage": found.garage,
                }
            )
            for found in fleet.environments.values()
        },
        "machines": {
            found.name: {
                "environment": found.environment,
                "runtime": found.runtime,
                "address": found.address,
                "ssh_port": found.ssh_port,
                "cores": found.cores,
                "memory": found.memory,
                "disk": found.disk,
            }
            for found in fleet.machines.values()
        },
        "operators": {
            found.name: {"display_name": found.display_name, "contact": found.contact}
            for found in fleet.operators.values()
        },
        "deployments": {
            found.id: {
                "operator": found.operator,
                "name": found.name,
                "environment": found.environment,
                "state": found.state,
                "module_version": found.module_version,
            }
            for found in fleet.deployments.values()
        },
        "instances": {
            found.id: {
                "deployment": deployment_id(found.operator, found.deployment),
                "application": found.application,
                "machine": found.machine,
                "domain": found.domain,
                "settings": dict(found.settings),
                "nixos_options": dict(found.nixos_options),
            }
            for found in fleet.instances.values()
        },
    }


def environment_of(name: str, row: Mapping[str, Any]) -> Environment:
    """The environment that a row describes."""
    network = row["network"]
    return Environment(
        name,
        row["stage"],
        tuple(row["zones"]),
        Network(network["subnet"], network["gateway"], tuple(network["nameservers"]), network["pool"]),
        row["proxmox"],
        row["postgresql"],
        row["garage"],
    )


def _environment(fields: Mapping[str, Any]) -> dict[str, Any]:
    network = fields["network"]
    return {
        "stage": fields["stage"],
        "zones": fields["zones"],
        "network": {key: network.get(key) for key in ("subnet", "gateway", "nameservers", "pool")},
        **{backend: fields.get(backend) for backend in ("proxmox", "postgresql", "garage")},
    }


def _machine(item: Item) -> dict[str, Any]:
    optional = ("address", "cores", "memory", "disk")
    return {
        "environment": item.fields["environment"],
        "runtime": item.fields["runtime"],
        "ssh_port": item.fields.get("ssh_port", 22),
        **{field: item.fields.get(field) for field in optional},
    }


def _operator(item: Item) -> dict[str, Any]:
    return {"display_name": item.fields["display_name"], "contact": item.fields["contact"]}


def _deployment(item: Item) -> dict[str, Any]:
    return {
        "operator": item.owners[0],
        "name": item.name,
        "environment": item.fields["environment"],
        "state": item.fields.get("state", "enabled"),
        "module_version": item.fields.get("module_version", "1"),
    }


def _instance(item: Item) -> dict[str, Any]:
    return {
        "deployment": item.deployment_key,
        "application": item.name,
        "machine": item.fields["machine"],
        "domain": item.fields["domain"],
        "settings": item.fields.get("settings", {}),
        "nixos_options": item.fields.get("nixos_options", {}),
    }


_FIELDS = {
    "environments": lambda item: _environment(item.fields),
    "machines": _machine,
    "operators": _operator,
    "deployments": _deployment,
    "instances": _instance,
}
