# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which machines are switched after the batches ran, which are held back and why. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.plan import Need
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import KnownSystem, Rejection


@dataclass(frozen=True)
class Selection:
    """What becomes of each machine.

    :param switch: machine -> wanted system.
    :param blocked: machine -> why it cannot be switched.
    :param unchanged: machines that have the wanted system.
    :param held: machine -> why it is left alone: somebody rolled the wanted system back by hand.
    """

    switch: Mapping[str, str]
    blocked: Mapping[str, str]
    unchanged: tuple[str, ...]
    held: Mapping[str, str] = field(default_factory=dict)


EVERY_MACHINE = "all"
Rejected = Mapping[str, Mapping[str, Rejection]]
"""Machine -> system -> who rolled it back by hand."""


def rejected_systems(systems: Mapping[str, Sequence[KnownSystem]]) -> Rejected:
    return {
        machine: {known.system: known.rejection for known in found if known.rejection}
        for machine, found in systems.items()
    }


def released_systems(rejected: Rejected, names: Collection[str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Machine -> its wanted system, where that one is rejected and the machine is named (or EVERY_MACHINE is)."""
    return {
        machine: system
        for machine, system in wanted.items()
        if system in rejected.get(machine, {}) and (machine in names or EVERY_MACHINE in names)
    }


def held(machine: str, system: str, rejection: Rejection) -> str:
    """Why the machine does not get the system, and what to do to give it that one after all."""
    why = f": {rejection.why}" if rejection.why else ""
    return (
        f"held: {rejection.by} rolled {system} back at {rejection.at}{why}."
        f" It is not deployed again until the wishes change, or fediversity_release={machine} is given"
    )


def failures(results: Mapping[str, Mapping[str, Any]]) -> dict[Need, str]:
    """What failed, by kind and item; an item name of ``*`` stands for a batch that failed as a whole."""
    failed: dict[Need, str] = {}
    for kind, result in results.items():
        items = result.get("results", [])
        failed.update({Need(kind, item["name"]): item["msg"] for item in items if item.get("failed")})
        if result.get("failed") and not any(item.get("failed") for item in items):
            failed[Need(kind, "*")] = str(result.get("msg", "failed"))
    return failed


def select(
    needs: Mapping[str, Sequence[Need]],
    results: Mapping[str, Mapping[str, Any]],
    build: Mapping[str, Any],
    committed: Mapping[str, str | None],
    problems: Mapping[str, str],
    *,
    rejected: Rejected,
    released: Mapping[str, str],
) -> Selection:
    """Sort the planned machines.

    :param needs: machine -> items of the batches that it cannot do without.
    :param results: kind -> result of its batch module.
    :param build: result of ``nix_build``.
    :param committed: machine -> system that it committed last.
    :param problems: machine -> why it could not even be planned.
    :param rejected: the systems that somebody rolled back by hand.
    :param released: machine -> the one of them that it gets after all.
    """
    failed = failures({**results, "systems": build})
    systems = build.get("systems", {})
    blocked = dict(problems)
    switch: dict[str, str] = {}
    unchanged: list[str] = []
    left: dict[str, str] = {}
    for machine, machine_needs in needs.items():
        wanted = (*machine_needs, Need("systems", machine))
        reasons = [
            reason for need in wanted if (reason := failed.get(need) or failed.get(Need(need.kind, "*"))) is not None
        ]
        if reasons:
            blocked[machine] = "; ".join(dict.fromkeys(reasons))
        elif machine not in systems:
            blocked[machine] = f"machine {machine}: its system was not built"
        elif systems[machine] == committed.get(machine):
            unchanged.append(machine)
        elif systems[machine] != released.get(machine) and (
            rejection := rejected.get(machine, {}).get(systems[machine])
        ):
            left[machine] = held(machine, systems[machine], rejection)
        else:
            switch[machine] = systems[machine]
    return Selection(switch, blocked, tuple(unchanged), left)
