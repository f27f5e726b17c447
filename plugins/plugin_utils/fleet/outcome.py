# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run did to machines and deployments, written back to the operator database."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.select import Selection
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import (
    Deployment,
    Fleet,
    MachineRecord,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import (
    forget_systems,
    load_fleet,
    record_deployment,
    record_machine,
    record_switching,
    record_vm,
)

try:
    from sqlalchemy import Engine
except ImportError:
    pass  # libraries.require() reports it before any use

# worst last: a deployment is as well as its worst machine
STATES = ("running", "new", "blocked", "switching", "rolled-back", "failed")


@dataclass(frozen=True)
class Outcome:
    """How one machine came out of a run; ``system`` and ``generation`` None: as recorded before."""

    state: str
    message: str = ""
    system: str | None = None
    generation: int | None = None


def outcome_of(result: Mapping[str, Any]) -> Outcome:
    """The outcome that the result of the machine's switch tells."""
    if not result.get("failed") and not result.get("unreachable"):
        return Outcome("running", "", result["new"], result.get("generation"))
    message = str(result.get("msg", "failed"))
    if result.get("phase") == "rolled-back":
        return Outcome("rolled-back", message, result.get("old"))
    return Outcome("failed", message)


def deployment_state(deployment: Deployment, fleet: Fleet) -> tuple[str, str]:
    """State and message of a deployment from the machines that run its application instances."""
    records = [
        fleet.machines[instance.machine].record
        for instance in fleet.instances.values()
        if (instance.operator, instance.deployment) == (deployment.operator, deployment.name)
    ]
    worst = max(records, key=lambda record: STATES.index(record.state), default=None)
    return ("new", "") if worst is None else (worst.state, worst.message)


def made_anew(fleet: Fleet, vms: Mapping[str, Any]) -> frozenset[str]:
    """The machines whose virtual machine has never committed a system, as far as this database knows.

    A run that made or found the new one may have ended before its switch, so ``vms`` alone does not tell.

    :param vms: the result of ``proxmox_vms``.
    """
    return frozenset(
        item["name"]
        for item in vms.get("results", [])
        if item["name"] in fleet.machines and not item["failed"] and _is_new(fleet.machines[item["name"]].record, item)
    )


def _is_new(record: MachineRecord, item: Mapping[str, Any]) -> bool:
    if item["action"] == "create" or record.generation is None:
        return True
    return record.incarnation is not None and record.incarnation != _incarnation(item)


def _incarnation(item: Mapping[str, Any]) -> str | None:
    return item.get("incarnation") or None


def record_vms(engine: Engine, vms: Mapping[str, Any], anew: Collection[str]) -> None:
    """Record which virtual machines there are; what the former ones of those made anew committed is forgotten first."""
    forget_systems(engine, anew)
    fleet = load_fleet(engine)
    for item in vms.get("results", []):
        record = fleet.machines[item["name"]].record if item["name"] in fleet.machines else None
        if record is None or not item.get("vmid"):
            continue
        found = (item["vmid"], item.get("node"), _incarnation(item))
        if (record.vmid, record.node, record.incarnation) != found:
            record_vm(engine, item["name"], vmid=found[0], node=found[1], incarnation=found[2])


def record_selection(engine: Engine, selection: Selection) -> None:
    """Record the machines that this run does not switch, and that nobody knows what the others will run."""
    record_switching(engine, selection.switch)
    outcomes = {name: Outcome("blocked", reason) for name, reason in selection.blocked.items()}
    outcomes.update({name: Outcome("running") for name in selection.unchanged})
    record_outcomes(engine, outcomes)


def record_outcomes(engine: Engine, outcomes: Mapping[str, Outcome]) -> None:
    """Record machines and then the enabled deployments on them; rows that already say so are not written."""
    before = load_fleet(engine)
    for name, outcome in outcomes.items():
        record = before.machines[name].record
        if (record.state, record.message) != (outcome.state, outcome.message) or (
            outcome.system is not None and (record.system, record.generation) != (outcome.system, outcome.generation)
        ):
            record_machine(
                engine,
                name,
                state=outcome.state,
                message=outcome.message,
                system=outcome.system,
                generation=outcome.generation,
            )
    after = load_fleet(engine)
    for deployment in after.deployments.values():
        if deployment.state != "enabled":
            continue
        state, message = deployment_state(deployment, after)
        if (deployment.record.state, deployment.record.message) != (state, message):
            record_deployment(engine, deployment.operator, deployment.name, state=state, message=message)
