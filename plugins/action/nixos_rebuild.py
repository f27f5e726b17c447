# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin: the guarded switch of a NixOS machine. Documentation: modules/nixos_rebuild.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import (
    build,
    copy,
    places,
    source,
    switch,
    task,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.relay import copier
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import Request, check_request
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.transaction import Tools, look

ARGUMENTS = {
    "system": {"type": "str"},
    "flake": {"type": "str"},
    "file": {"type": "str"},
    "attr": {"type": "str"},
    "build_on": {"type": "str", "default": "controller"},
    "action": {"type": "str", "choices": ["switch", "boot", "test", "dry_activate"], "default": "switch"},
    "commit": {"type": "bool", "default": True},
    "hold_timeout": {"type": "int", "default": 300},
    "replace_unknown": {"type": "bool", "default": False},
    "substitute_on_destination": {"type": "bool", "default": False},
    "compress": {"type": "bool", "default": False},
    **task.GUARD_ARGUMENTS,
}
SOURCES = ["system", "flake", "file"]


class ActionModule(ActionBase):
    """Runs in the controller process, over the connection of the task's host."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        name = str((task_vars or {}).get("inventory_hostname", ""))
        try:
            _validation, arguments = self.validate_argument_spec(
                ARGUMENTS, mutually_exclusive=[SOURCES], required_one_of=[SOURCES]
            )
            result.update(self._perform(name, arguments, task_vars or {}))
        except HostingError as error:
            result.update(task.failed(name, error))
        return result

    def _perform(self, name: str, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        # before anything is built: the rest of the request may be wrong
        given = arguments["system"]
        check_request(_request(arguments, "/nix/store/" + "0" * 32 + "-system" if given is None else given))
        system, bring = self._source(name, arguments, task_vars)
        request = _request(arguments, system)
        tools = task.tools(self, name, arguments, request.health.controller, bring)
        if arguments["action"] == "dry_activate" or self._task.check_mode:
            return self._preview(tools, request, arguments)
        replace = arguments["replace_unknown"]
        outcome = switch.deploy(
            tools, request, lambda report: task.check_machine(report, request, replace_unknown=replace)
        )
        values = switch.result(outcome)
        if self._task.diff and outcome.phase != "unchanged":
            values["diff"] = task.diff(outcome.old, outcome.new)
        return values

    def _source(
        self, name: str, arguments: dict[str, Any], task_vars: dict[str, Any]
    ) -> tuple[str, Callable[[], None]]:
        """The system's store path, built where that is wanted, and how it comes to the machine."""

        def bring(system: str) -> None:
            target = places.connection_target(
                self._connection, str(self._play_context.remote_addr), arguments["compress"]
            )
            options = copy.copy_options(
                substitute=arguments["substitute_on_destination"], compress=arguments["compress"]
            )
            copy.copy_closure(system, target, options)

        wanted = source.wanted(arguments, name, self._loader.path_dwim)
        if wanted is None:
            _check_system(arguments["system"])
            return arguments["system"], lambda: bring(arguments["system"])
        machine = places.machine_place(self, name, arguments["compress"])
        place = places.build_host(self, arguments["build_on"], machine, task_vars)
        tools = task.tools(self, name, arguments, task.NO_CHECKS, task.nothing_to_copy)
        if place == machine:
            look(tools, "")  # it may still be booting
        make = build.foresee if self._task.check_mode else build.realise
        system = make(wanted, place, tools.progress)
        return system, copier(system, place, machine, lambda: bring(system), tools.progress)

    def _preview(self, tools: Tools, request: Request, arguments: dict[str, Any]) -> dict[str, Any]:
        """Check mode and dry_activate: a closure difference and, where the system is on the machine, its dry run."""
        report = look(tools, request.system)
        values = switch.preview(report, request, check_mode=bool(self._task.check_mode))
        if values["phase"] == "unchanged":
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


def _request(arguments: dict[str, Any], system: str) -> Request:
    dry = arguments["action"] == "dry_activate"
    return task.request(
        arguments,
        system,
        action="switch" if dry else arguments["action"],
        commit=arguments["commit"],
        hold_timeout=arguments["hold_timeout"],
    )


def _check_system(system: str) -> None:
    """Refuse early what is visibly no NixOS system; in a chroot store the machine finds it out."""
    if os.path.isdir(system) and not os.path.exists(os.path.join(system, "bin", "switch-to-configuration")):
        raise InvalidInput(f"{system} is not a NixOS system: it has no bin/switch-to-configuration", where="system")
