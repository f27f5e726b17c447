# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guarded switch: what the machine reports and what the controller decides. Pure functions, no effects.

Protocol and journal: docs/guarded-switch.md. The machine's side is guard.sh.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    InvalidInput,
    Locked,
)

Action = Literal["switch", "boot", "test"]

# Nix store: 32 digits of Nix's base 32 (no e, o, t, u), a dash, a name (nix: src/libstore/path.cc)
STORE_PATH = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-[0-9a-zA-Z+._?=-]{1,207}")
UNIT_NAME = re.compile(r"[0-9A-Za-z:_.@\\-]{1,255}")
TERMINAL = frozenset({"committed", "tested", "rolled-back", "needs-reboot", "failed"})
UNDOING = frozenset({"rolling-back", "reboot-rollback"})

PATIENCE = 30
"""Seconds that one health check may take to become good."""
ROLLBACK_LIMIT = 60
"""Seconds for switch-to-configuration of the old system."""
CONTACT_LIMIT = 15
"""Seconds after a rollback in which the controller must come back before the machine tests itself."""

# machine as `uname -m` names it → Nix systems it runs
SYSTEMS = {
    "x86_64": frozenset({"x86_64-linux", "i686-linux"}),
    "aarch64": frozenset({"aarch64-linux"}),
    "i686": frozenset({"i686-linux"}),
    "armv7l": frozenset({"armv7l-linux"}),
    "riscv64": frozenset({"riscv64-linux"}),
}


@dataclass(frozen=True)
class HttpCheck:
    """One address that the machine itself must be able to fetch."""

    url: str
    status: int = 200


@dataclass(frozen=True)
class HealthChecks:
    """What must hold before the new system is committed; `unit_stable` is in seconds."""

    units: tuple[str, ...] = ()
    unit_stable: int = 0
    commands: tuple[str, ...] = ()
    http: tuple[HttpCheck, ...] = ()


@dataclass(frozen=True)
class Request:
    """One wanted deployment; all times in seconds."""

    txn: str
    owner: str
    system: str
    action: Action = "switch"
    rollback: bool = True
    activation_timeout: int = 300
    confirm_timeout: int = 30
    health: HealthChecks = field(default_factory=HealthChecks)


@dataclass(frozen=True)
class Record:
    """The machine's durable record of the last transaction."""

    txn: str
    owner: str
    action: str
    phase: str
    stage: str
    system_old: str
    system_new: str
    generation_new: str
    reason: str
    method: str
    rc: int | None
    same_boot: bool
    restored: bool
    remaining: int | None
    failed_before: tuple[str, ...]
    failed_after: tuple[str, ...]

    @property
    def live(self) -> bool:
        """True while the transaction has not ended."""
        return self.phase not in TERMINAL


@dataclass(frozen=True)
class Report:
    """What one call of guard.sh said; empty strings where it had nothing to say."""

    result: str = ""
    error: str = ""
    current: str = ""
    profile: str = ""
    booted: str = ""
    generation: int | None = None
    nixos: bool = False
    arch: str = ""
    running: str = ""
    valid: bool = False
    wanted_needs_reboot: bool = False
    watchdog: bool = False
    needs_reboot: bool = False
    rc: int | None = None
    record: Record | None = None
    log: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


def parse_report(text: str) -> Report:
    """Read the lines "@key=value"; everything else (login banners) is ignored.

    :raises BackendError: there is no such line.
    """
    values: dict[str, str] = {}
    lists: dict[str, list[str]] = {"log": [], "path": []}
    for line in text.split("\n"):  # not splitlines: it also splits at signs that a log may hold
        if not line.startswith("@") or "=" not in line:
            continue
        key, value = line[1:].split("=", 1)
        if key in lists:
            lists[key].append(value)
        else:
            values[key] = value
    if not values:
        raise BackendError("the machine's answer was not understood", hint=f"It said: {text.strip()[-300:]!r}")
    return Report(
        result=values.get("result", ""),
        error=values.get("error", ""),
        current=values.get("current", ""),
        profile=values.get("profile", ""),
        booted=values.get("booted", ""),
        generation=int(values["generation"]) if values.get("generation", "").isdigit() else None,
        nixos=values.get("nixos") == "yes",
        arch=values.get("arch", ""),
        running=values.get("running", ""),
        valid=values.get("valid") == "yes",
        wanted_needs_reboot=values.get("wanted_needs_reboot") == "yes",
        watchdog=values.get("watchdog") == "yes",
        needs_reboot=values.get("needs_reboot") == "yes",
        rc=_number(values.get("rc", "")),
        record=_record(values),
        log=tuple(lists["log"]),
        paths=tuple(lists["path"]),
    )


def _number(text: str) -> int | None:
    return int(text) if text.lstrip("-").isdigit() else None


def _record(values: dict[str, str]) -> Record | None:
    def get(name: str) -> str:
        return values.get(f"record_{name}", "")

    if not get("txn"):
        return None
    return Record(
        txn=get("txn"),
        owner=get("owner"),
        action=get("action"),
        phase=get("phase"),
        stage=get("stage"),
        system_old=get("system_old"),
        system_new=get("system_new"),
        generation_new=get("generation_new"),
        reason=get("reason"),
        method=get("method"),
        rc=_number(get("rc")),
        same_boot=values.get("same_boot") == "yes",
        restored=get("restored") == "yes",
        remaining=_number(values.get("remaining", "")),
        failed_before=tuple(get("failed_before").split()),
        failed_after=tuple(get("failed_after").split()),
    )


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
        ("health_checks.unit_stable", request.health.unit_stable, 0, 3600),
    ):
        if not least <= value <= most:
            raise InvalidInput(f"{value} is out of range", where=name, hint=f"Give {least} to {most} seconds")
    for unit in request.health.units:
        if not UNIT_NAME.fullmatch(unit):
            raise InvalidInput(f"{unit!r} is not a unit name", where="health_checks.units")
    for command in request.health.commands:
        if "\n" in command or "\0" in command:
            raise InvalidInput("a command must be one line", where="health_checks.commands")
    for check in request.health.http:
        if not re.fullmatch(r"https?://[^\s'\"\\]+", check.url):
            raise InvalidInput(f"{check.url!r} is not an HTTP address", where="health_checks.http")


class Preflight(Enum):
    """What the first look at the machine asks for."""

    UNCHANGED = "unchanged"
    SETTLE = "settle"
    DEPLOY = "deploy"


def preflight(report: Report, request: Request) -> Preflight:
    """Decide from the machine's state alone.

    :raises InvalidInput: the machine is not a NixOS system.
    """
    if not report.nixos:
        raise InvalidInput(
            "the machine does not run NixOS: it has neither /etc/NIXOS nor a system profile",
            hint="Install NixOS first; the guarded switch needs a running system that it can return to",
        )
    live = report.record is not None and report.record.live
    if not _is_wanted(report, request):
        return Preflight.DEPLOY
    if not live:
        return Preflight.UNCHANGED
    return Preflight.DEPLOY if report.record is not None and report.record.same_boot else Preflight.SETTLE


def _is_wanted(report: Report, request: Request) -> bool:
    held = {
        "switch": {report.current, report.profile},
        "boot": {report.profile},
        "test": {report.current},
    }[request.action]
    return held == {request.system}


def check_architecture(report: Report, nix_system: str, request: Request) -> None:
    """:raises InvalidInput: the system was built for another architecture than the machine's; unknown ones pass."""
    runs = SYSTEMS.get(report.arch)
    if runs is not None and nix_system and nix_system not in runs:
        raise InvalidInput(
            f"{request.system} is built for {nix_system}, the machine is {report.arch}",
            where="system",
            hint="Build the system for the machine's architecture",
        )


class Begun(Enum):
    """What the answer to `begin` asks for."""

    OBSERVE = "observe"
    RESUME = "resume"
    AGAIN = "again"


def after_begin(report: Report, request: Request) -> Begun:
    """Decide between following our transaction, an interrupted run's, or trying again.

    :raises BackendError: the machine refused; nothing was armed.
    :raises Locked: somebody else deploys another system.
    """
    if report.result in {"started", "known"}:
        return Begun.OBSERVE
    if report.result == "refused":
        raise BackendError(report.error, hint="Nothing was changed")
    record = report.record
    if record is None or not record.live:
        return Begun.AGAIN
    if record.system_new != request.system or record.action != request.action:
        until = f"for {record.remaining} s at most" if record.remaining is not None else "until it has ended"
        raise Locked(
            f"the machine is locked by {record.owner} ({record.txn}, {record.phase}, {record.system_new}) {until}",
            hint="Run again afterwards",
        )
    return Begun.AGAIN if record.phase in UNDOING else Begun.RESUME


class Step(Enum):
    """What to do after a look at the running transaction."""

    LOOK_AGAIN = "look again"
    DONE = "done"
    UNDONE = "undone"
    NEEDS_REBOOT = "needs reboot"


def next_step(report: Report, txn: str) -> Step:
    """Decide from the record; the machine alone knows in which phase it is.

    :raises BackendError: the record is not of this transaction any more.
    """
    record = report.record
    if record is None or record.txn != txn:
        raise BackendError(
            f"the machine's record is not of this transaction ({txn}) any more",
            hint="Another deployment has followed; look into /var/lib/fediversity-guard/journal",
        )
    if record.phase in {"committed", "tested"}:
        return Step.DONE
    if record.phase == "needs-reboot":
        return Step.NEEDS_REBOOT
    return Step.UNDONE if record.phase in {"rolled-back", "failed"} else Step.LOOK_AGAIN


def check_limit(health: HealthChecks) -> int:
    """Seconds from the first contact to the commit: the checks become good, the last command ends, and some more."""
    return health.unit_stable + 3 * PATIENCE


def longest(request: Request, reboot_limit: int) -> int:
    """Seconds after which a machine that said nothing is given up; every deadline of its own has passed by then."""
    return (
        request.activation_timeout
        + request.confirm_timeout
        + check_limit(request.health)
        + ROLLBACK_LIMIT
        + CONTACT_LIMIT
        + reboot_limit
    )


def begin_words(request: Request) -> list[str]:
    """The words of `begin`: fields of the record."""
    fields = {
        "txn": request.txn,
        "owner": re.sub(r"[^ -~]", "?", request.owner),
        "action": request.action,
        "rollback": "yes" if request.rollback else "no",
        "system_new": request.system,
        "activation_limit": request.activation_timeout,
        "confirm_limit": request.confirm_timeout,
        "check_limit": check_limit(request.health),
        "contact_limit": CONTACT_LIMIT,
        "rollback_limit": ROLLBACK_LIMIT,
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


def confirm_words(txn: str, wait: int, known: str, health: HealthChecks) -> list[str]:
    """The words of `confirm`: seconds to wait for the activation, what `seen` said of the report before, the checks."""
    return [
        "confirm",
        txn,
        str(wait),
        known,
        f"stable={health.unit_stable}",
        f"patience={PATIENCE}",
        *(f"unit={unit}" for unit in health.units),
        *(f"command={command}" for command in health.commands),
        *(f"http={check.status} {check.url}" for check in health.http),
    ]


def failure(step: Step, record: Record) -> HostingError:
    """What to tell about a transaction that did not reach its goal."""
    if step is Step.NEEDS_REBOOT:
        return HostingError(
            "needs a reboot: the new system has another init interface, nothing was activated",
            hint="Deploy it with action: boot and restart the machine",
        )
    if record.phase == "failed":
        return HostingError(
            f"failed: {record.reason}",
            hint="rollback is off: the machine was left as it is, its profile and boot default are unchanged",
        )
    return HostingError(
        f"rolled back: {record.reason}",
        hint=f"The machine runs {record.system_old} again; the log of the activation is in the result",
    )


def comparison(old: Sequence[str], new: Sequence[str]) -> str:
    """Closure difference by store paths: one line per path that goes (-) or comes (+)."""
    before, after = set(old), set(new)
    lines = [f"- {path}" for path in sorted(before - after)] + [f"+ {path}" for path in sorted(after - before)]
    return "".join(f"{line}\n" for line in lines)
