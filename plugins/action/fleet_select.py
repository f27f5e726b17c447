# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.action import DATABASE_ARGUMENTS, ControllerAction
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.outcome import (
    facts,
    made_anew,
    record_selection,
    record_vms,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.plan import KINDS, Need
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.select import (
    EVERY_MACHINE,
    rejected_systems,
    released_systems,
    select,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.history import (
    load_systems,
    release_systems,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import Fleet
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import load_fleet


class ActionModule(ControllerAction):
    ARGUMENTS = {
        **DATABASE_ARGUMENTS,
        "plan": {"type": "dict", "required": True},
        "results": {"type": "dict", "required": True},
        "build": {"type": "dict", "required": True},
        "visit": {"type": "str", "choices": ["changed", "all"], "default": "changed"},
        "release": {"type": "list", "elements": "str", "default": []},
    }

    def perform(self, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
        plan, results, build = arguments["plan"], arguments["results"], arguments["build"]
        engine, vms = connect(arguments["database_url"]), results.get("vms", {})
        fleet = load_fleet(engine)
        check_names(arguments["release"], fleet)
        anew = made_anew(fleet, vms)
        committed = without(plan["committed"], anew)
        rejected = rejected_systems(load_systems(engine))
        released = released_systems(rejected, arguments["release"], build.get("systems", {}))
        selection = select(
            needs={name: [Need(**need) for need in needs] for name, needs in plan["needs"].items()},
            results={kind: results[kind] for kind in KINDS if kind in results},
            build=build,
            committed={} if arguments["visit"] == "all" else committed,
            problems={problem["machine"]: problem["msg"] for problem in plan["problems"]},
            rejected=rejected,
            released=released,
        )
        if self.check_mode:
            # a machine that would be made by this run cannot be asked what its switch would do
            made = {item["name"] for item in vms.get("results", []) if item["action"] == "create"}
            selection = replace(selection, switch=without(selection.switch, made))
        else:
            record_vms(engine, vms, anew)
            release_systems(engine, released)
            fleet = load_fleet(engine)
            record_selection(engine, selection)
        return {
            "changed": False,
            **asdict(selection),
            **facts(fleet, selection.switch, committed),
            "machines": sorted({*plan["needs"], *selection.blocked}),
            "made_anew": sorted(anew & selection.switch.keys()),
        }


def check_names(names: Collection[str], fleet: Fleet) -> None:
    """:raises InvalidInput: the operator database has no such machine."""
    unknown = sorted(set(names) - {EVERY_MACHINE} - fleet.machines.keys())
    if unknown:
        raise InvalidInput(
            f"unknown machine {unknown[0]!r}", where="release", hint=f"Known are: {', '.join(fleet.machines)}"
        )


def without(systems: Mapping[str, str], machines: Collection[str]) -> dict[str, str]:
    return {name: system for name, system in systems.items() if name not in machines}
