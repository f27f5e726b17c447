# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin: root-only files with secret contents. Documentation: modules/secret_files.py."""

from __future__ import annotations

import secrets
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import files
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.remote import (
    AnsibleMachine,
    Waiting,
    first_contact,
)

ARGUMENTS = {
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "str", "required": True},
            "content": {"type": "str", "required": True, "no_log": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0400"},
        },
    },
    "directory": {"type": "str"},
    "purge": {"type": "bool", "default": False},
    "connect_timeout": {"type": "int", "default": 120},
}

display = Display()


class ActionModule(ActionBase):
    """Runs in the controller process, over the connection of the task's host."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        name = str((task_vars or {}).get("inventory_hostname", ""))
        try:
            result.update(self._perform(self._arguments(), name))
        except HostingError as error:
            result.update(failed=True, changed=False, msg=f"{name}: {error}")
        return result

    def _arguments(self) -> dict[str, Any]:
        """Validated arguments; a failure must not quote the task, which may hold contents."""
        try:
            _validation, arguments = self.validate_argument_spec(ARGUMENTS)
        except AnsibleError as error:
            raise InvalidInput(_without_contents(str(error.message), self._task.args), where="secret_files") from None
        return dict(arguments)

    def _perform(self, arguments: dict[str, Any], name: str) -> dict[str, Any]:
        wanted = [files.SecretFile(**item) for item in arguments["files"]]
        directory = (arguments["directory"] or "").rstrip("/")
        files.check_files(wanted, directory)
        swept = files.swept_directory(directory, arguments["purge"])
        machine = AnsibleMachine(self)
        machine.forget_connection()
        nonce = secrets.token_hex(16)
        answer = first_contact(
            machine,
            files.look_script(wanted, swept, nonce),
            Waiting(arguments["connect_timeout"], lambda text: display.display(f"{name}: {text}")),
        )
        files.check_answer(answer)
        compared, surplus = files.differences(wanted, answer, nonce)
        stale = {item.path for item in compared if item.action in {"created", "updated"}}
        if (stale or surplus) and not self._task.check_mode:
            missing = [file for file in wanted if file.path in stale]
            files.check_answer(machine.run(files.write_script(missing, surplus, swept)))
        result: dict[str, Any] = {
            "changed": bool(stale or surplus),
            "results": [
                {
                    "name": item.path,
                    "action": item.action,
                    "changed": item.action != "unchanged",
                    "differs": list(item.differs),
                }
                for item in compared
            ],
        }
        if self._task.diff and result["changed"]:
            result["diff"] = {"prepared": files.describe(compared)}
        return result


def _without_contents(message: str, arguments: Any) -> str:
    items = arguments.get("files") if isinstance(arguments, dict) else None
    for item in items if isinstance(items, list) else []:
        content = item.get("content") if isinstance(item, dict) else item
        for form in {str(content), repr(content)} - {"", "None"}:
            message = message.replace(form, "<content>")
    return message
