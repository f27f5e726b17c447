# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fleet as an Ansible inventory: plain data, no secret, no wrapping. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import Fleet, Instance, Machine

MACHINES_GROUP = "fediversity_machines"


@dataclass(frozen=True)
class Filter:
    """Which machines and instances are shown; an empty selection means all."""

    environments: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()
    applications: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()

    def shows(self, instance: Instance) -> bool:
        return (
            _in(instance.operator, self.operators)
            and _in(instance.application, self.applications)
            and _in(instance.state, self.states)
        )

    @property
    def wants_instances(self) -> bool:
        """Whether machines without a shown instance are left out."""
        return bool(self.operators or self.applications or self.states)


def hosts_of(fleet: Fleet, chosen: Filter) -> dict[str, dict[str, Any]]:
    """Return host name -> ``groups`` (sorted names) and ``variables``; JSON types only.

    Groups: fediversity_machines, environment_<name>, runtime_<name> and, by the shown instances, application_<name>,
    operator_<name>, state_<name>; hyphens become underscores.
    """
    hosts = {}
    for name, machine in fleet.machines.items():
        instances = [instance for instance in fleet.instances_on(name) if chosen.shows(instance)]
        if _in(machine.environment, chosen.environments) and (instances or not chosen.wants_instances):
            hosts[name] = {"groups": _groups(machine, instances), "variables": _variables(fleet, machine, instances)}
    return hosts


def _in(value: str, chosen: Collection[str]) -> bool:
    return not chosen or value in chosen


def _groups(machine: Machine, instances: list[Instance]) -> list[str]:
    named = {("environment", machine.environment), ("runtime", machine.runtime)}
    for instance in instances:
        named |= {
            ("application", instance.application),
            ("operator", instance.operator),
            ("state", instance.state),
        }
    return sorted({MACHINES_GROUP, *(f"{kind}_{name.replace('-', '_')}" for kind, name in named)})


def _variables(fleet: Fleet, machine: Machine, instances: list[Instance]) -> dict[str, Any]:
    return {
        "ansible_host": machine.address,
        "ansible_port": machine.ssh_port,
        "ansible_user": "root",
        "fediversity": {
            "machine": asdict(machine),
            "instances": [_described(fleet, instance) for instance in instances],
        },
    }


def _described(fleet: Fleet, instance: Instance) -> dict[str, Any]:
    operator = fleet.operators[instance.operator]
    return asdict(instance) | {"operator_display_name": operator.display_name, "operator_contact": operator.contact}
