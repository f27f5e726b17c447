# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run did to machines and deployments, written back to the operator database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.select import Selection
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import Deployment, Fleet
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import (
    load_fleet,
    record_deployment,
    record_machine,
    record_vm,
)

try:
    from sqlalchemy import Engine
except ImportError:
    pass  # libraries.require() reports it before any use

# worst last: a deployment is as well as its worst machine
STATES = ("running", "new", "blocked", "rolled-back", "failed")


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
    state = "rolled-back" if result.get("phase") == "rolled-back" else "failed"
    return Outcome(state, str(result.get("msg", "failed")))


def deployment_state(deployment: Deployment, fleet: Fleet) -> tuple[str, str]:
    """State and message of a deployment from the machines that run its application instances."""
    records = [
        fleet.machines[instance.machine].record
        for instance in fleet.instances.values()
        if (instance.operator, instance.deployment) == (deployment.operator, deployment.name)
    ]
    worst = max(records, key=lambda record: STATES.index(record.state), default=None)
    return ("new", "") if worst is None else (worst.state, worst.message)


def record_selection(engine: Engine, selection: Selection, vms: Mapping[str, Any]) -> None:
    """Record where virtual machines are, and the machines that this run does not switch."""
    fleet = load_fleet(engine)
    for item in vms.get("results", []):
        record = fleet.machines[item["name"]].record if item["name"] in fleet.machines else None
        if record is not None and item.get("vmid") and (record.vmid, record.node) != (item["vmid"], item.get("node")):
            record_vm(engine, item["name"], vmid=item["vmid"], node=item.get("node"))
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
