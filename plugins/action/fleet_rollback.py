# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.action import DATABASE_ARGUMENTS, ControllerAction
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.outcome import facts
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.rollback import plan_rollback
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.history import load_systems
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import (
    load_fleet,
    record_switching,
)


class ActionModule(ControllerAction):
    ARGUMENTS = {
        **DATABASE_ARGUMENTS,
        "operator": {"type": "str", "required": True},
        "deployment": {"type": "str"},
        "environment": {"type": "str"},
        "machines": {"type": "list", "elements": "str"},
        "shared": {"type": "bool", "default": False},
    }

    def perform(self, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
        engine = connect(arguments["database_url"])
        fleet = load_fleet(engine, arguments["environment"])
        switch = plan_rollback(
            fleet,
            load_systems(engine),
            arguments["operator"],
            arguments["deployment"],
            machines=fleet.machines.keys() if arguments["machines"] is None else arguments["machines"],
            shared=arguments["shared"],
        )
        if not self.check_mode:
            record_switching(engine, switch)
        known = {name: fleet.machines[name].record.system for name in switch}
        return {
            "changed": False,
            "switch": switch,
            **facts(fleet, switch, known),
            "machines": sorted(switch),
            "made_anew": [],
        }
