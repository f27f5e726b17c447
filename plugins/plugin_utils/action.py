# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The outermost frame of the action plugins that run in the controller process."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.module_utils.basic import env_fallback
from ansible.plugins.action import ActionBase
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.plugin_utils.libraries import require

# matches doc_fragments/operator_db.py
DATABASE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "database_url": {
        "type": "str",
        "no_log": True,
        "fallback": (env_fallback, ["FEDIVERSITY_DATABASE_URL"]),
    },
}
SECRET_KEY_ARGUMENTS: dict[str, dict[str, Any]] = {
    "secret_key": {"type": "str", "no_log": True, "fallback": (env_fallback, ["FEDIVERSITY_SECRET_KEY"])},
    "secret_key_file": {"type": "path", "no_log": False, "fallback": (env_fallback, ["FEDIVERSITY_SECRET_KEY_FILE"])},
}


class ControllerAction(ActionBase):
    """An action that validates its arguments like a module, needs no connection and runs once for all hosts."""

    BYPASS_HOST_LOOP = True
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    ARGUMENTS: ClassVar[Mapping[str, Mapping[str, Any]]]

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            require("sqlalchemy", "cryptography", "jsonschema", "tabulate")
            _validation, arguments = self.validate_argument_spec(dict(self.ARGUMENTS))
            result.update(self.perform(arguments, task_vars or {}))
        except HostingError as error:
            result.update(failed=True, msg=str(error))
        return result

    @abstractmethod
    def perform(self, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do the work and return the result.

        :raises HostingError: becomes the task's failure message.
        """

    @property
    def check_mode(self) -> bool:
        """True when the task must not change anything."""
        return bool(self._task.check_mode)
