# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The summary table: one row per deployment. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.outcome import FAILURES
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import (
    Deployment,
    Fleet,
    Instance,
    MachineRecord,
)

try:
    from tabulate import tabulate
except ImportError:
    pass  # libraries.require() reports it before any use

HEADERS = ("operator", "deployment", "application", "URL", "machine", "address", "generation", "state")


@dataclass(frozen=True)
class Row:
    """One application instance as the hosting provider sees it."""

    operator: str
    deployment: str
    application: str
    url: str
    machine: str
    address: str
    generation: int | None
    state: str
    message: str


def rows(fleet: Fleet, scheme: str) -> list[Row]:
    """One row per application instance, sorted by operator and deployment.

    :param scheme: URL scheme that the machines serve (``https``, ``http`` in a lab).
    """
    return [_row(fleet, instance, scheme) for _id, instance in sorted(fleet.instances.items())]


def _row(fleet: Fleet, instance: Instance, scheme: str) -> Row:
    machine = fleet.machines[instance.machine]
    deployment = fleet.deployments[f"{instance.operator}_{instance.deployment}"]
    disabled = deployment.state == "disabled"
    return Row(
        operator=instance.operator,
        deployment=instance.deployment,
        application=instance.application,
        url=f"{scheme}://{instance.domain}/",
        machine=machine.name,
        address=machine.address,
        generation=None if disabled else machine.record.generation,
        state=state_of(deployment),
        message="" if disabled else deployment.record.message,
    )


def state_of(deployment: Deployment) -> str:
    """What the row of the operator database wants and what is known of it, in one word."""
    return "disabled" if deployment.state == "disabled" else deployment.record.state


def table(shown: Sequence[Row]) -> str:
    """The rows as text; fields come from validated names, never from customer text."""
    body = [[getattr(row, field) for field in FIELDS] for row in shown]
    return str(tabulate(body, headers=HEADERS, tablefmt="simple", missingval="-"))


def failed_machines(fleet: Fleet) -> dict[str, str]:
    """Machine -> why it does not run what is wanted."""
    return {name: record.message for name, record in _records(fleet) if record.state in FAILURES}


def notes(fleet: Fleet) -> list[str]:
    """One line per machine that somebody holds: nothing else tells why it is left alone."""
    return [f"{name}: {record.message}" for name, record in _records(fleet) if record.state == "held"]


def _records(fleet: Fleet) -> Iterator[tuple[str, MachineRecord]]:
    """The machines with an enabled application instance."""
    for name, machine in fleet.machines.items():
        if any(instance.state == "enabled" for instance in fleet.instances_on(name)):
            yield name, machine.record


def as_dicts(shown: Sequence[Row]) -> list[dict[str, object]]:
    return [asdict(row) for row in shown]


FIELDS = ("operator", "deployment", "application", "url", "machine", "address", "generation", "state")
