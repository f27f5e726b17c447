# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.action import DATABASE_ARGUMENTS, ControllerAction
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.outcome import (
    made_anew,
    record_selection,
    record_vms,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.plan import KINDS, Need
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.select import select
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import load_fleet


class ActionModule(ControllerAction):
    ARGUMENTS = {
        **DATABASE_ARGUMENTS,
        "plan": {"type": "dict", "required": True},
        "results": {"type": "dict", "required": True},
        "build": {"type": "dict", "required": True},
        "visit": {"type": "str", "choices": ["changed", "all"], "default": "changed"},
    }

    def perform(self, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
        plan, results = arguments["plan"], arguments["results"]
        engine, vms = connect(arguments["database_url"]), results.get("vms", {})
        anew = made_anew(load_fleet(engine), vms)
        known = {} if arguments["visit"] == "all" else without(plan["committed"], anew)
        selection = select(
            needs={name: [Need(**need) for need in needs] for name, needs in plan["needs"].items()},
            results={kind: results[kind] for kind in KINDS if kind in results},
            build=arguments["build"],
            committed=known,
            problems={problem["machine"]: problem["msg"] for problem in plan["problems"]},
        )
        if self.check_mode:
            # a machine that would be made by this run cannot be asked what its switch would do
            made = {item["name"] for item in vms.get("results", []) if item["action"] == "create"}
            selection = replace(selection, switch=without(selection.switch, made))
        else:
            record_vms(engine, vms, anew)
            record_selection(engine, selection)
        return {"changed": False, **asdict(selection), "made_anew": sorted(anew & selection.switch.keys())}


def without(systems: Mapping[str, str], machines: Collection[str]) -> dict[str, str]:
    return {name: system for name, system in systems.items() if name not in machines}
