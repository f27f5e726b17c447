# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which machines are switched after the batches ran, which are held back and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.plan import Need


@dataclass(frozen=True)
class Selection:
    """``switch``: machine -> wanted system; ``blocked``: machine -> reason; ``unchanged``: the others."""

    switch: Mapping[str, str]
    blocked: Mapping[str, str]
    unchanged: tuple[str, ...]


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
) -> Selection:
    """Sort the planned machines.

    :param needs: machine -> items of the batches that it cannot do without.
    :param results: kind -> result of its batch module.
    :param build: result of ``nix_build``.
    :param committed: machine -> system that it committed last.
    :param problems: machine -> why it could not even be planned.
    """
    failed = failures({**results, "systems": build})
    systems = build.get("systems", {})
    blocked = dict(problems)
    switch: dict[str, str] = {}
    unchanged: list[str] = []
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
        else:
            switch[machine] = systems[machine]
    return Selection(switch, blocked, tuple(unchanged))
