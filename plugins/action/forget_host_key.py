# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.known_hosts import forget, known_in
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.copy import ssh_target

SSH_OPTIONS = ("host", "port", "remote_user", "ssh_executable", "ssh_args", "ssh_common_args", "ssh_extra_args")


class ActionModule(ActionBase):
    """Runs in the controller process; the machine is not asked."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.validate_argument_spec({})
        try:
            result.update(self._perform())
        except HostingError as error:
            result.update(failed=True, changed=False, msg=str(error))
        return result

    def _perform(self) -> dict[str, Any]:
        connection = self._connection
        option = {name: connection.get_option(name) for name in SSH_OPTIONS if connection.has_option(name)}
        if "ssh_args" not in option:  # another kind of connection has no host key
            return {"changed": False, "files": []}
        option["host"] = option.get("host") or self._play_context.remote_addr
        known = known_in(ssh_target(option, "", compress=False))
        if not self._task.check_mode:
            for file, entry in known:
                forget(file, entry)
        return {"changed": bool(known), "files": [str(file) for file, _entry in known]}
