# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin: the decision about a held deployment. Documentation: modules/nixos_transaction.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import decision, task

ARGUMENTS = {
    "decision": {"type": "str", "choices": ["commit", "abort", "settle"], "required": True},
    "txn": {"type": "str"},
    "reason": {"type": "str", "default": "aborted by the controller"},
    "timeout": {"type": "int", "default": 600},
    **task.CONNECT_ARGUMENTS,
}


class ActionModule(ActionBase):
    """Runs in the controller process, over the connection of the task's host."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        name = str((task_vars or {}).get("inventory_hostname", ""))
        try:
            _validation, arguments = self.validate_argument_spec(ARGUMENTS)
            if arguments["decision"] != "settle" and not arguments["txn"]:
                raise InvalidInput("the transaction's name is missing", where="txn", hint="nixos_rebuild returns it")
            tools = task.tools(self, name, arguments, task.NO_CHECKS, task.nothing_to_copy)
            limit = tools.clock.now() + arguments["timeout"]
            if self._task.check_mode:
                result.update(decision.preview(tools, arguments["decision"], arguments["txn"] or ""))
            elif arguments["decision"] == "settle":
                result.update(decision.settle(tools, limit))
            else:
                result.update(
                    decision.carry_out(tools, arguments["decision"], arguments["txn"], arguments["reason"], limit)
                )
        except HostingError as error:
            result.update(task.failed(name, error))
        return result
