# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run did to machines and deployments, written back to the operator database."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.select import Selection, held
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.history import (
    forget_commits,
    record_commit,
    record_rejection,
)
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
STATES = ("running", "new", "held", "blocked", "switching", "rolled-back", "failed", "silent")
# what a report counts as a failure: somebody who holds a machine has decided so
FAILURES = ("blocked", "rolled-back", "failed", "silent")
# in these the outcome's system is one that the machine has just committed
COMMITTED = ("running", "held")
# of a result: the machine was left alone because too many others had failed
HELD_BACK = "held-back"


@dataclass(frozen=True)
class Outcome:
    """How one machine came out of a run; ``system`` and ``generation`` None: as recorded before."""

    state: str
    message: str = ""
    system: str | None = None
    generation: int | None = None


def outcome_of(result: Mapping[str, Any]) -> Outcome:
    """The outcome that the result of the machine's switch tells."""
    phase, message = result.get("phase"), str(result.get("msg", "failed"))
    if phase == "rolled-back":
        return Outcome("rolled-back", message, result.get("old"))
    if phase == HELD_BACK:
        return Outcome("blocked", message, result.get("old"))
    if not result.get("failed") and not result.get("unreachable"):
        return Outcome("running", "", result["new"], result.get("generation"))
    # silent: past every deadline of the machine; lost: while it waited for a decision
    return Outcome("silent" if result.get("silent") or result.get("lost") else "failed", message)


def record_rollback(engine: Engine, machine: str, result: Mapping[str, Any], by: str, why: str) -> Outcome:
    """Record that somebody took the machine back to an earlier system: what it ran before is held from now on."""
    outcome = outcome_of(result)
    if outcome.state == "running" and result["old"] != result["new"]:
        rejection = record_rejection(engine, machine, result["old"], by, why)
        outcome = replace(outcome, state="held", message=held(machine, result["old"], rejection))
    record_outcomes(engine, {machine: outcome})
    return outcome


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
    forget_commits(engine, anew)
    fleet = load_fleet(engine)
    for item in vms.get("results", []):
        record = fleet.machines[item["name"]].record if item["name"] in fleet.machines else None
        if record is None or not item.get("vmid"):
            continue
        found = (item["vmid"], item.get("node"), _incarnation(item))
        if (record.vmid, record.node, record.incarnation) != found:
            record_vm(engine, item["name"], vmid=found[0], node=found[1], incarnation=found[2])


def facts(fleet: Fleet, machines: Collection[str], committed: Mapping[str, str | None]) -> dict[str, Any]:
    """What the switch of the machines needs to know of them.

    :param fleet: as it was before it was recorded that their switch has begun.
    :param committed: machine -> the system that it committed last, as far as anybody knows.
    :returns: ``committed`` for these machines; ``unknown``: those that have never committed anything, so that they run
        what somebody else made; ``silent``: those that were never heard of again after a switch began; ``vmids``.
    """
    records = {name: fleet.machines[name].record for name in sorted(machines)}
    return {
        "committed": {name: committed.get(name) for name in records},
        "unknown": [name for name, record in records.items() if record.generation is None],
        "silent": [name for name, record in records.items() if record.state == "silent"],
        "vmids": {name: record.vmid for name, record in records.items() if record.vmid is not None},
    }


def record_selection(engine: Engine, selection: Selection) -> None:
    """Record the machines that this run does not switch, and that nobody knows what the others will run."""
    record_switching(engine, selection.switch)
    outcomes = {name: Outcome("blocked", reason) for name, reason in selection.blocked.items()}
    outcomes.update({name: Outcome("held", reason) for name, reason in selection.held.items()})
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
            if outcome.state in COMMITTED and outcome.system is not None:
                record_commit(engine, name, outcome.system, outcome.generation)
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
