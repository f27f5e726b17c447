# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.action import DATABASE_ARGUMENTS, ControllerAction
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.outcome import outcome_of, record_outcomes
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect


class ActionModule(ControllerAction):
    BYPASS_HOST_LOOP = False

    ARGUMENTS = {
        **DATABASE_ARGUMENTS,
        "machine": {"type": "str"},
        "result": {"type": "dict", "required": True},
    }

    def perform(self, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
        machine = arguments["machine"] or task_vars["inventory_hostname"]
        outcome = outcome_of(arguments["result"])
        if not self.check_mode:
            record_outcomes(connect(arguments["database_url"]), {machine: outcome})
        return {"changed": False, "machine": machine, "state": outcome.state, "message": outcome.message}
