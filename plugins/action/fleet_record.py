# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.action import DATABASE_ARGUMENTS, ControllerAction
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.outcome import (
    outcome_of,
    record_outcomes,
    record_rollback,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect


class ActionModule(ControllerAction):
    BYPASS_HOST_LOOP = False

    ARGUMENTS = {
        **DATABASE_ARGUMENTS,
        "machine": {"type": "str"},
        "result": {"type": "dict", "required": True},
        "rejects": {"type": "bool", "default": False},
        "by": {"type": "str"},
        "why": {"type": "str", "default": ""},
    }

    def perform(self, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
        machine = arguments["machine"] or task_vars["inventory_hostname"]
        result = arguments["result"]
        if self.check_mode:
            outcome = outcome_of(result)
        elif arguments["rejects"]:
            by = arguments["by"] or f"{getpass.getuser()}@{socket.gethostname()}"
            engine = connect(arguments["database_url"])
            outcome = record_rollback(engine, machine, result, one_line(by), one_line(arguments["why"]))
        else:
            outcome = outcome_of(result)
            record_outcomes(connect(arguments["database_url"]), {machine: outcome})
        return {"changed": False, "machine": machine, "state": outcome.state, "message": outcome.message}


def one_line(text: str) -> str:
    """What may stand in a table on a terminal."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
