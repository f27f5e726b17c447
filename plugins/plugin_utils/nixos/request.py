# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wanted of a machine: one deployment, its checks and limits, and the words in which the guard is told."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Report

Action = Literal["switch", "boot", "test"]
UnitPolicy = Literal["new", "watched", "any", "ignore"]
Reboot = Literal["never", "if_needed", "always"]

# Nix store: 32 digits of Nix's base 32 (no e, o, t, u), a dash, a name (nix: src/libstore/path.cc)
STORE_PATH = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-[0-9a-zA-Z+._?=-]{1,207}")
UNIT_NAME = re.compile(r"[0-9A-Za-z:_.@\\][0-9A-Za-z:_.@\\-]{0,254}")
HOST = re.compile(r"[0-9A-Za-z_:.%][0-9A-Za-z_:.%-]{0,252}")

PATIENCE = 30
"""Seconds that one health check may take to become good."""
COMMAND_LIMIT = 32
"""Seconds for one run of a health command."""
CONNECTION_LIMIT = 10
"""Seconds for one try of an address or port."""
ROLLBACK_LIMIT = 60
"""Seconds for switch-to-configuration of the old system."""
CONTACT_LIMIT = 15
"""Seconds after a rollback in which the controller must come back before the machine tests itself."""
RESTART_LIMIT = 300
"""Seconds that a restart may take to begin: systemd waits for units to stop."""


@dataclass(frozen=True)
class HttpCheck:
    """One address that must answer with this status."""

    url: str
    status: int = 200
    validate_certs: bool = True


@dataclass(frozen=True)
class TcpCheck:
    """One port that must accept connections; without a host it is the machine itself."""

    port: int
    host: str = ""


@dataclass(frozen=True)
class ControllerChecks:
    """What the controller must be able to reach."""

    tcp: tuple[TcpCheck, ...] = ()
    http: tuple[HttpCheck, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tcp or self.http)


@dataclass(frozen=True)
class HealthChecks:
    """What must hold before the new system is committed; `unit_stable` is in seconds."""

    units: tuple[str, ...] = ()
    unit_stable: int = 0
    commands: tuple[str, ...] = ()
    tcp: tuple[TcpCheck, ...] = ()
    http: tuple[HttpCheck, ...] = ()
    controller: ControllerChecks = field(default_factory=ControllerChecks)


@dataclass(frozen=True)
class FreeSpace:
    """MiB that must be free before anything is done: in the Nix store, in /boot, in /var/lib."""

    nix: int = 64
    boot: int = 4
    state: int = 4


@dataclass(frozen=True)
class Request:
    """One wanted deployment; all times in seconds.

    `generation` is the number of an existing generation that becomes the profile's again; without it a new one is made.
    Without `commit` the machine holds the checked system for `hold_timeout` and waits for the decision.
    """

    txn: str
    owner: str
    system: str
    action: Action = "switch"
    generation: int | None = None
    rollback: bool = True
    commit: bool = True
    unit_policy: UnitPolicy = "new"
    reboot: Reboot = "never"
    activation_timeout: int = 300
    confirm_timeout: int = 30
    reboot_timeout: int = 300
    hold_timeout: int = 300
    minimum_free: FreeSpace = field(default_factory=FreeSpace)
    health: HealthChecks = field(default_factory=HealthChecks)


def check_request(request: Request) -> None:
    """Refuse what could not end well, before the machine is asked anything.

    :raises InvalidInput: with the option's name in `where`.
    """
    if not STORE_PATH.fullmatch(request.system):
        raise InvalidInput(
            f"{request.system!r} is not a store path of a system",
            where="system",
            hint="Give /nix/store/<hash>-<name>, as nix_build returns it",
        )
    for name, value, least, most in (
        ("activation_timeout", request.activation_timeout, 1, 7200),
        ("confirm_timeout", request.confirm_timeout, 1, 3600),
        ("reboot_timeout", request.reboot_timeout, 10, 7200),
        ("hold_timeout", request.hold_timeout, 1, 7200),
        ("health_checks.unit_stable", request.health.unit_stable, 0, 3600),
    ):
        if not least <= value <= most:
            raise InvalidInput(f"{value} is out of range", where=name, hint=f"Give {least} to {most} seconds")
    for name, value in vars(request.minimum_free).items():
        if value < 0:
            raise InvalidInput(f"{value} is negative", where=f"minimum_free.{name}", hint="Give a number of MiB")
    _check_combination(request)
    _check_health(request.health)


def _check_combination(request: Request) -> None:
    if request.reboot != "never" and not request.rollback:
        raise InvalidInput("a start on trial needs the rollback", where="reboot", hint="Leave rollback: true")
    if request.commit:
        return
    if not request.rollback:
        raise InvalidInput("a held deployment needs the rollback", where="commit", hint="Leave rollback: true")
    if request.action == "boot" and request.reboot == "never":
        raise InvalidInput("action: boot has nothing to hold", where="commit", hint="Use action: switch")


def _check_health(health: HealthChecks) -> None:
    for unit in health.units:
        if not UNIT_NAME.fullmatch(unit):
            raise InvalidInput(f"{unit!r} is not a unit name", where="health_checks.units")
    for command in health.commands:
        if "\n" in command or "\0" in command:
            raise InvalidInput("a command must be one line", where="health_checks.commands")
    for where, checks in (("http", health.http), ("controller.http", health.controller.http)):
        for check in checks:
            if not re.fullmatch(r"https?://[^\s'\"\\]+", check.url):
                raise InvalidInput(f"{check.url!r} is not an HTTP address", where=f"health_checks.{where}")
    for where, ports in (("tcp", health.tcp), ("controller.tcp", health.controller.tcp)):
        for port in ports:
            if not 1 <= port.port <= 65535 or (port.host and not HOST.fullmatch(port.host)):
                raise InvalidInput(
                    f"{port.host or '-'} {port.port} is no address and port", where=f"health_checks.{where}"
                )


def check_limit(health: HealthChecks) -> int:
    """Seconds from the first contact to the end of the checks: they become good, the last command ends, a reserve."""
    tries = COMMAND_LIMIT * len(health.commands) + CONNECTION_LIMIT * (len(health.http) + len(health.tcp))
    return health.unit_stable + 2 * PATIENCE + tries


def hold_limit(request: Request) -> int:
    """Seconds from the machine's checks to the decision: the controller makes its own, or what the user allows."""
    return 3 * PATIENCE if request.commit else request.hold_timeout


def longest(request: Request, connect_timeout: int) -> int:
    """Seconds after which a machine that said nothing is given up; every deadline of its own has passed by then."""
    restarts = 2 * (RESTART_LIMIT + request.reboot_timeout) if request.reboot != "never" else 0
    return (
        request.activation_timeout
        + request.confirm_timeout
        + check_limit(request.health)
        + (hold_limit(request) if ends_held(request) else 0)
        + ROLLBACK_LIMIT
        + CONTACT_LIMIT
        + restarts
        + connect_timeout
    )


def ends_held(request: Request) -> bool:
    """True when the machine's own checks are not the last word."""
    return not request.commit or bool(request.health.controller)


def begin_words(request: Request) -> list[str]:
    """The words of `begin`: fields of the record."""
    fields = {
        "txn": request.txn,
        "owner": re.sub(r"[^ -~]", "?", request.owner),
        "action": request.action,
        "rollback": "yes" if request.rollback else "no",
        "policy": request.unit_policy,
        "reboot": request.reboot,
        "number": "" if request.generation is None else request.generation,
        "system_new": request.system,
        "activation_limit": request.activation_timeout,
        "confirm_limit": request.confirm_timeout,
        "check_limit": check_limit(request.health),
        "hold_limit": hold_limit(request),
        "reboot_limit": request.reboot_timeout,
        "contact_limit": CONTACT_LIMIT,
        "rollback_limit": ROLLBACK_LIMIT,
        "free_nix": request.minimum_free.nix,
        "free_boot": request.minimum_free.boot,
        "free_state": request.minimum_free.state,
        "watch": " ".join(request.health.units),
    }
    return ["begin", *(f"{key}={value}" for key, value in fields.items())]


def seen(report: Report) -> str:
    """The event after which a connection must be begun to prove that the machine can be reached, if it has been seen.

    A login that merely finds the event done proves nothing: the old SSH server may have accepted it before.
    """
    if report.record is None or not report.record.live:
        return "-"
    if report.record.phase == "activated":
        return "activated"
    return "restored" if report.record.restored else "-"


def confirm_words(txn: str, wait: int, known: str, health: HealthChecks, *, hold: bool) -> list[str]:
    """The words of `confirm`: seconds to wait for an event, what `seen` said before, the end, the checks."""
    return [
        "confirm",
        txn,
        str(wait),
        known,
        "hold" if hold else "commit",
        f"stable={health.unit_stable}",
        f"patience={PATIENCE}",
        *(f"unit={unit}" for unit in health.units),
        *(f"command={command}" for command in health.commands),
        *(f"tcp={check.host or '127.0.0.1'} {check.port}" for check in health.tcp),
        *(f"http={check.status} {check.url}" for check in health.http),
    ]
