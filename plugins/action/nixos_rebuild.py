# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin: the guarded switch of a NixOS machine. Documentation: modules/nixos_rebuild.py."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import copy, guard, switch
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.remote import AnsibleMachine

HTTP_CHECK = {"url": {"type": "str", "required": True}, "status": {"type": "int", "default": 200}}
HEALTH_CHECKS = {
    "units": {"type": "list", "elements": "str", "default": []},
    "unit_stable": {"type": "int", "default": 0},
    "commands": {"type": "list", "elements": "str", "default": []},
    "http": {"type": "list", "elements": "dict", "default": [], "options": HTTP_CHECK},
}
ARGUMENTS = {
    "system": {"type": "str", "required": True},
    "action": {"type": "str", "choices": ["switch", "boot", "test", "dry_activate"], "default": "switch"},
    "rollback": {"type": "bool", "default": True},
    "confirm_timeout": {"type": "int", "default": 30},
    "activation_timeout": {"type": "int", "default": 300},
    "connect_timeout": {"type": "int", "default": 120},
    "health_checks": {"type": "dict", "options": HEALTH_CHECKS},
    "substitute_on_destination": {"type": "bool", "default": False},
    "compress": {"type": "bool", "default": False},
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

display = Display()


class ActionModule(ActionBase):
    """Runs in the controller process, over the connection of the task's host."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            _validation, arguments = self.validate_argument_spec(ARGUMENTS)
            self._machine_name = str((task_vars or {}).get("inventory_hostname", ""))
            result.update(self._perform(arguments))
        except HostingError as error:
            result.update(failed=True, changed=False, msg=f"{self._machine_name}: {error}")
        return result

    def _perform(self, arguments: dict[str, Any]) -> dict[str, Any]:
        dry = arguments["action"] == "dry_activate"
        request = _request(arguments)
        guard.check_request(request)
        _check_system(request.system)
        tools = switch.Tools(
            machine=AnsibleMachine(self),
            copy=lambda: self._copy(arguments),
            progress=lambda text: display.display(f"{self._machine_name}: {text}"),
            connect_timeout=arguments["connect_timeout"],
        )
        if dry or self._task.check_mode:
            return self._preview(tools, request, arguments)
        outcome = switch.deploy(tools, request, lambda report: _check_machine(report, request))
        values = switch.result(outcome)
        if self._task.diff and outcome.phase != "unchanged":
            values["diff"] = _diff(outcome.old, outcome.new, _difference(outcome.old, outcome.new, ()))
        return values

    def _preview(self, tools: switch.Tools, request: guard.Request, arguments: dict[str, Any]) -> dict[str, Any]:
        """Check mode and dry_activate: a closure difference and, where the system is on the machine, its dry run."""
        report = switch.look(tools, request.system)
        wanted = guard.preflight(report, request) is guard.Preflight.DEPLOY
        values: dict[str, Any] = {
            "failed": False,
            "changed": wanted and bool(self._task.check_mode),
            "old": report.current,
            "new": request.system,
            "phase": "planned" if wanted else "unchanged",
            "generation": report.generation,
            "needs_reboot": report.wanted_needs_reboot,
            "log": [],
        }
        if not wanted:
            return values
        _check_machine(report, request)
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
            values["diff"] = _diff(report.current, request.system, _difference(report.current, request.system, paths))
        return values

    def _copy(self, arguments: dict[str, Any]) -> None:
        option = {name: self._connection.get_option(name) for name in SSH_OPTIONS if self._connection.has_option(name)}
        option["host"] = option.get("host") or self._play_context.remote_addr
        target = copy.ssh_target(option, _control_path(self._connection), arguments["compress"])
        options = copy.copy_options(substitute=arguments["substitute_on_destination"], compress=arguments["compress"])
        copy.copy_closure(arguments["system"], target, options)


def _control_path(connection: Any) -> str:
    """Socket of the shared connection that the first look has opened, as ansible.builtin.ssh named it."""
    path = getattr(connection, "control_path", None)
    directory = getattr(connection, "control_path_dir", None)
    if not path or not directory:
        return ""
    return str(path) % {"directory": os.path.abspath(os.path.expanduser(os.path.expandvars(directory)))}


def _request(arguments: dict[str, Any]) -> guard.Request:
    health = arguments["health_checks"] or {}
    return guard.Request(
        txn=f"{time.strftime('%Y%m%dt%H%M%Sz', time.gmtime())}-{secrets.token_hex(4)}",
        owner=f"{getpass.getuser()}@{socket.gethostname()}",
        system=arguments["system"],
        action="switch" if arguments["action"] == "dry_activate" else arguments["action"],
        rollback=arguments["rollback"],
        activation_timeout=arguments["activation_timeout"],
        confirm_timeout=arguments["confirm_timeout"],
        health=guard.HealthChecks(
            units=tuple(health.get("units", ())),
            unit_stable=health.get("unit_stable", 0),
            commands=tuple(health.get("commands", ())),
            http=tuple(guard.HttpCheck(item["url"], item["status"]) for item in health.get("http", ())),
        ),
    )


def _check_system(system: str) -> None:
    """Refuse early what is visibly no NixOS system; in a chroot store the machine finds it out."""
    if os.path.isdir(system) and not os.path.exists(os.path.join(system, "bin", "switch-to-configuration")):
        raise InvalidInput(f"{system} is not a NixOS system: it has no bin/switch-to-configuration", where="system")


def _check_machine(report: guard.Report, request: guard.Request) -> None:
    marker = Path(request.system, "system")
    guard.check_architecture(report, marker.read_text(encoding="utf-8").strip() if marker.is_file() else "", request)


def _difference(old: str, new: str, old_paths: tuple[str, ...]) -> str:
    """By packages when the controller holds both, else by paths; `old_paths` is the machine's own list."""
    if not copy.valid_here(new):
        return ""
    if old and copy.valid_here(old):
        return copy.diff_closures(old, new) or guard.comparison(copy.requisites(old), copy.requisites(new))
    return guard.comparison(old_paths, copy.requisites(new)) if old_paths else ""


def _diff(old: str, new: str, difference: str) -> dict[str, str]:
    return {"prepared": f"--- {old}\n+++ {new}\n{difference}"}
