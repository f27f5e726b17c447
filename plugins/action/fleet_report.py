# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.utils.display import Display
from ansible_collections.fediversity.hosting.plugins.plugin_utils.action import DATABASE_ARGUMENTS, ControllerAction
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.report import (
    as_dicts,
    failed_machines,
    notes,
    rows,
    table,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import load_fleet


class ActionModule(ControllerAction):
    ARGUMENTS = {
        **DATABASE_ARGUMENTS,
        "environment": {"type": "str"},
        "url_scheme": {"type": "str", "choices": ["https", "http"], "default": "https"},
    }

    def perform(self, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
        fleet = load_fleet(connect(arguments["database_url"]), arguments["environment"])
        shown = rows(fleet, arguments["url_scheme"])
        Display().display("\n".join(["", table(shown), *(f"\n{note}" for note in notes(fleet)), ""]))
        return {"changed": False, "deployments": as_dicts(shown), "failed_machines": failed_machines(fleet)}
