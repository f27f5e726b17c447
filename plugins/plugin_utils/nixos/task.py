# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the action plugins of the guard share: options, the request and tools made of them, differences, results."""

from __future__ import annotations

import getpass
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.utils.display import Display
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, MissingCommand
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import checks, copy, guard
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.remote import AnsibleMachine, Clock
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Report
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import (
    ControllerChecks,
    FreeSpace,
    HealthChecks,
    HttpCheck,
    Request,
    TcpCheck,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.transaction import Silent, Tools

STATUS = {"url": {"type": "str", "required": True}, "status": {"type": "int", "default": 200}}
PORT = {"host": {"type": "str"}, "port": {"type": "int", "required": True}}
CERTIFICATES = {"validate_certs": {"type": "bool", "default": True}}


def _items(options: dict[str, Any]) -> dict[str, Any]:
    return {"type": "list", "elements": "dict", "default": [], "options": options}


HEALTH_CHECKS = {
    "units": {"type": "list", "elements": "str", "default": []},
    "unit_stable": {"type": "int", "default": 0},
    "commands": {"type": "list", "elements": "str", "default": []},
    "tcp": _items(PORT),
    "http": _items(STATUS),
    "controller": {
        "type": "dict",
        "options": {"tcp": _items(PORT), "http": _items({**STATUS, **CERTIFICATES})},
    },
}
CONNECT_ARGUMENTS = {"connect_timeout": {"type": "int", "default": 120}}
GUARD_ARGUMENTS = {
    **CONNECT_ARGUMENTS,
    "rollback": {"type": "bool", "default": True},
    "confirm_timeout": {"type": "int", "default": 30},
    "activation_timeout": {"type": "int", "default": 300},
    "reboot": {"type": "str", "choices": ["never", "if_needed", "always"], "default": "never"},
    "reboot_timeout": {"type": "int", "default": 300},
    "unit_policy": {"type": "str", "choices": ["new", "watched", "any", "ignore"], "default": "new"},
    "health_checks": {"type": "dict", "options": HEALTH_CHECKS},
    "minimum_free": {
        "type": "dict",
        "options": {name: {"type": "int", "default": value} for name, value in vars(FreeSpace()).items()},
    },
}

NO_CHECKS = ControllerChecks()

display = Display()


def request(arguments: dict[str, Any], system: str, **fields: Any) -> Request:
    """The wanted deployment, from validated GUARD_ARGUMENTS; `fields` are further fields of the request."""
    health = arguments["health_checks"] or {}
    controller = health.get("controller") or {}
    return Request(
        txn=f"{time.strftime('%Y%m%dt%H%M%Sz', time.gmtime())}-{secrets.token_hex(4)}",
        owner=f"{getpass.getuser()}@{socket.gethostname()}",
        system=system,
        rollback=arguments["rollback"],
        unit_policy=arguments["unit_policy"],
        reboot=arguments["reboot"],
        activation_timeout=arguments["activation_timeout"],
        confirm_timeout=arguments["confirm_timeout"],
        reboot_timeout=arguments["reboot_timeout"],
        minimum_free=FreeSpace(**(arguments["minimum_free"] or {})),
        health=HealthChecks(
            units=tuple(health.get("units", ())),
            unit_stable=health.get("unit_stable", 0),
            commands=tuple(health.get("commands", ())),
            tcp=_ports(health),
            http=tuple(HttpCheck(item["url"], item["status"]) for item in health.get("http", ())),
            controller=ControllerChecks(
                _ports(controller), tuple(HttpCheck(**item) for item in controller.get("http", ()))
            ),
        ),
        **fields,
    )


def _ports(checks_of: dict[str, Any]) -> tuple[TcpCheck, ...]:
    return tuple(TcpCheck(item["port"], item["host"] or "") for item in checks_of.get("tcp", ()))


def tools(
    action: Any, name: str, arguments: dict[str, Any], wanted: ControllerChecks, copy_it: Callable[[], None]
) -> Tools:
    """The effects of a task of `action` on the machine `name`."""
    clock = Clock()
    option = action._connection.get_option
    address = option("host") if action._connection.has_option("host") else ""
    return Tools(
        machine=AnsibleMachine(action),
        copy=copy_it,
        progress=lambda text: display.display(f"{name}: {text}"),
        connect_timeout=arguments["connect_timeout"],
        controller_problem=lambda: checks.first_problem(
            wanted, str(address or action._play_context.remote_addr), clock
        ),
        clock=clock,
    )


def nothing_to_copy() -> None:
    """The system is on the machine already."""


def check_machine(report: Report, wanted: Request, *, replace_unknown: bool) -> None:
    """Everything that may be refused after the first look.

    :raises InvalidInput: another architecture, a system that is not ours, no space.
    """
    marker = Path(wanted.system, "system")
    guard.check_architecture(report, marker.read_text(encoding="utf-8").strip() if marker.is_file() else "", wanted)
    if not replace_unknown:
        guard.check_known(report, in_store=held_here(report.current))
    guard.check_space(report, wanted)


def held_here(path: str) -> bool:
    """True when the controller has a Nix store with the path; one without Nix has none."""
    try:
        return bool(path) and copy.valid_here(path)
    except MissingCommand:
        return False


def difference(old: str, new: str, old_paths: tuple[str, ...]) -> str:
    """By packages when the controller holds both, else by paths; `old_paths` is the machine's own list."""
    if not held_here(new):
        return ""
    if held_here(old):
        return copy.diff_closures(old, new) or guard.comparison(copy.requisites(old), copy.requisites(new))
    return guard.comparison(old_paths, copy.requisites(new)) if old_paths else ""


def diff(old: str, new: str, old_paths: tuple[str, ...] = ()) -> dict[str, str]:
    """The task's `diff`."""
    return {"prepared": f"--- {old}\n+++ {new}\n{difference(old, new, old_paths)}"}


def failed(name: str, error: HostingError) -> dict[str, Any]:
    """The result of a task that did not come to a report; `silent` tells a lost machine from a refusal."""
    return {"failed": True, "changed": False, "silent": isinstance(error, Silent), "msg": f"{name}: {error}"}
