# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin: the guarded switch of a NixOS machine. Documentation: modules/nixos_rebuild.py."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import copy, guard, switch, task
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import Request, check_request
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.transaction import Tools, look

ARGUMENTS = {
    "system": {"type": "str", "required": True},
    "action": {"type": "str", "choices": ["switch", "boot", "test", "dry_activate"], "default": "switch"},
    "commit": {"type": "bool", "default": True},
    "hold_timeout": {"type": "int", "default": 300},
    "replace_unknown": {"type": "bool", "default": False},
    "substitute_on_destination": {"type": "bool", "default": False},
    "compress": {"type": "bool", "default": False},
    **task.GUARD_ARGUMENTS,
}
SSH_OPTIONS = (
    "host",
    "port",
    "remote_user",
    "timeout",
    "private_key_file",
    "ssh_executable",
    "ssh_args",
    "ssh_common_args",
    "ssh_extra_args",
    "host_key_checking",
)


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
            result.update(self._perform(name, arguments))
        except HostingError as error:
            result.update(task.failed(name, error))
        return result

    def _perform(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        dry = arguments["action"] == "dry_activate"
        request = task.request(
            arguments,
            arguments["system"],
            action="switch" if dry else arguments["action"],
            commit=arguments["commit"],
            hold_timeout=arguments["hold_timeout"],
        )
        check_request(request)
        _check_system(request.system)
        tools = task.tools(self, name, arguments, request.health.controller, lambda: self._copy(arguments))
        if dry or self._task.check_mode:
            return self._preview(tools, request, arguments)
        replace = arguments["replace_unknown"]
        outcome = switch.deploy(
            tools, request, lambda report: task.check_machine(report, request, replace_unknown=replace)
        )
        values = switch.result(outcome)
        if self._task.diff and outcome.phase != "unchanged":
            values["diff"] = task.diff(outcome.old, outcome.new)
        return values

    def _preview(self, tools: Tools, request: Request, arguments: dict[str, Any]) -> dict[str, Any]:
        """Check mode and dry_activate: a closure difference and, where the system is on the machine, its dry run."""
        report = look(tools, request.system)
        wanted = guard.preflight(report, request) is guard.Preflight.DEPLOY
        values: dict[str, Any] = {
            "failed": False,
            "changed": wanted and bool(self._task.check_mode),
            "old": report.current,
            "new": request.system,
            "phase": "planned" if wanted else "unchanged",
            "booted": report.booted,
            "default": report.default,
            "generation": report.generation,
            "needs_reboot": report.wanted_needs_reboot,
            "log": [],
        }
        if not wanted:
            return values
        task.check_machine(report, request, replace_unknown=arguments["replace_unknown"])
        valid = report.valid
        if not valid and not self._task.check_mode:
            tools.copy()
            valid = True
        paths: tuple[str, ...] = ()
        if valid:
            dry = switch.dry_activate(tools, request.system)
            values.update(rc=dry.rc, log=list(dry.log))
            paths = dry.paths
        if self._task.diff:
            values["diff"] = task.diff(report.current, request.system, paths)
        return values

    def _copy(self, arguments: dict[str, Any]) -> None:
        option = {name: self._connection.get_option(name) for name in SSH_OPTIONS if self._connection.has_option(name)}
        option["host"] = option.get("host") or self._play_context.remote_addr
        target = copy.ssh_target(option, task.control_path(self._connection), arguments["compress"])
        options = copy.copy_options(substitute=arguments["substitute_on_destination"], compress=arguments["compress"])
        copy.copy_closure(arguments["system"], target, options)


def _check_system(system: str) -> None:
    """Refuse early what is visibly no NixOS system; in a chroot store the machine finds it out."""
    if os.path.isdir(system) and not os.path.exists(os.path.join(system, "bin", "switch-to-configuration")):
        raise InvalidInput(f"{system} is not a NixOS system: it has no bin/switch-to-configuration", where="system")
