# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which machines a rollback by hand takes to which earlier system. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput, NotFound
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import (
    Fleet,
    Instance,
    KnownSystem,
    Machine,
    deployment_id,
)


def plan_rollback(
    fleet: Fleet,
    systems: Mapping[str, Sequence[KnownSystem]],
    operator: str,
    deployment: str | None,
    *,
    machines: Collection[str],
    shared: bool,
) -> dict[str, str]:
    """Machine -> the system that it goes back to, for all machines of the deployment, or of all of the operator's.

    :param systems: what each machine has committed, the newest first.
    :param machines: only these.
    :param shared: also machines that carry instances of other operators.
    :raises NotFound: there is no such operator or deployment.
    :raises InvalidInput: one of the machines cannot or may not go back; then none does.
    """
    wanted = _instances(fleet, operator, deployment)
    concerned = sorted({instance.machine for instance in wanted} & set(machines))
    if not concerned:
        raise InvalidInput(
            "no enabled application instance is on the machines of this run",
            where=_where(operator, deployment),
            hint="Choose another deployment, or other machines (--limit)",
        )
    targets = {name: previous(fleet.machines[name], systems.get(name, ())) for name in concerned}
    lost = [f"{name}: {problem}" for name in concerned if (problem := _nothing(fleet.machines[name], targets[name]))]
    crowded = [
        f"{name} also carries {others}"
        for name in concerned
        if not shared and (others := _others(fleet, name, operator))
    ]
    if lost or crowded:
        ways = ["--limit '!NAME' leaves a machine out"]
        ways += ["fediversity_rollback_shared=true takes the others back too"] if crowded else []
        raise InvalidInput(
            f"cannot be rolled back, nothing was changed: {'; '.join(lost + crowded)}",
            where=_where(operator, deployment),
            hint=", ".join(ways),
        )
    return {name: target for name, target in targets.items() if target is not None}


def previous(machine: Machine, systems: Sequence[KnownSystem]) -> str | None:
    """The system of the newest commit before the present system's; None if there is none.

    Systems that were rolled back by hand do not count. A machine of which nobody knows what it runs (a switch did not
    report back) goes to what it committed last.
    """
    good = [known.system for known in systems if known.committed_at and not known.rejection]
    return next((system for system in good if system != machine.record.system), None)


def _instances(fleet: Fleet, operator: str, deployment: str | None) -> list[Instance]:
    if operator not in fleet.operators:
        raise NotFound(
            f"operator {operator!r} is not in the operator database", hint=f"Known are: {', '.join(fleet.operators)}"
        )
    if deployment is not None and deployment_id(operator, deployment) not in fleet.deployments:
        known = ", ".join(found.name for found in fleet.deployments.values() if found.operator == operator)
        raise NotFound(
            f"the operator has no deployment {deployment!r} here",
            where=_where(operator, None),
            hint=f"Known are: {known}" if known else "There are none",
        )
    return [
        instance
        for instance in fleet.instances.values()
        if instance.operator == operator and deployment in (None, instance.deployment) and instance.state == "enabled"
    ]


def _nothing(machine: Machine, target: str | None) -> str:
    if target is not None:
        return ""
    return "it has committed no system yet" if machine.record.system is None else "it has no earlier system"


def _others(fleet: Fleet, machine: str, operator: str) -> str:
    """Deployments of other operators on the machine, disabled ones too: the earlier system may still have them."""
    found = {f"{one.operator}/{one.deployment}" for one in fleet.instances_on(machine) if one.operator != operator}
    return " and ".join(sorted(found))


def _where(operator: str, deployment: str | None) -> str:
    return f"operator {operator}" if deployment is None else f"operator {operator}, deployment {deployment}"
