# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a machine says about itself: the lines that the guard (folder payload) prints."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError

TERMINAL = frozenset({"committed", "tested", "rolled-back", "needs-reboot", "failed"})


@dataclass(frozen=True)
class Record:
    """The machine's durable record of the last transaction."""

    txn: str
    owner: str
    action: str
    rollback: bool
    phase: str
    stage: str
    once: bool
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
    """What one call of the guard said; empty strings and None where it had nothing to say. Free space is in MiB."""

    result: str = ""
    error: str = ""
    current: str = ""
    profile: str = ""
    booted: str = ""
    default: str = ""
    generation: int | None = None
    nixos: bool = False
    arch: str = ""
    uid: int | None = None
    running: str = ""
    free_nix: int | None = None
    free_boot: int | None = None
    free_state: int | None = None
    valid: bool = False
    wanted_needs_reboot: bool = False
    watchdog: bool = False
    needs_reboot: bool = False
    rc: int | None = None
    record: Record | None = None
    log: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


def parse_values(text: str) -> list[tuple[str, str]]:
    """The lines "@key=value" in their order; everything else (login banners) is ignored.

    :raises BackendError: there is no such line.
    """
    pairs = [
        (key, value)
        for line in text.split("\n")  # not splitlines: it also splits at signs that a log may hold
        if line.startswith("@")
        for key, found, value in [line[1:].partition("=")]
        if found
    ]
    if not pairs:
        raise BackendError("the machine's answer was not understood", hint=f"It said: {text.strip()[-300:]!r}")
    return pairs


def parse_report(text: str) -> Report:
    """Read a report.

    :raises BackendError: it is none.
    """
    pairs = parse_values(text)
    values = dict(pairs)
    return Report(
        result=values.get("result", ""),
        error=values.get("error", ""),
        current=values.get("current", ""),
        profile=values.get("profile", ""),
        booted=values.get("booted", ""),
        default=values.get("default", ""),
        generation=_number(values, "generation"),
        nixos=values.get("nixos") == "yes",
        arch=values.get("arch", ""),
        uid=_number(values, "uid"),
        running=values.get("running", ""),
        free_nix=_number(values, "free_nix"),
        free_boot=_number(values, "free_boot"),
        free_state=_number(values, "free_state"),
        valid=values.get("valid") == "yes",
        wanted_needs_reboot=values.get("wanted_needs_reboot") == "yes",
        watchdog=values.get("watchdog") == "yes",
        needs_reboot=values.get("needs_reboot") == "yes",
        rc=_number(values, "rc"),
        record=_record(values),
        log=tuple(value for key, value in pairs if key == "log"),
        paths=tuple(value for key, value in pairs if key == "path"),
    )


def _number(values: dict[str, str], key: str) -> int | None:
    text = values.get(key, "")
    return int(text) if text.removeprefix("-").isdecimal() else None


def _record(values: dict[str, str]) -> Record | None:
    def get(name: str) -> str:
        return values.get(f"record_{name}", "")

    if not get("txn"):
        return None
    return Record(
        txn=get("txn"),
        owner=get("owner"),
        action=get("action"),
        rollback=get("rollback") != "no",
        phase=get("phase"),
        stage=get("stage"),
        once=get("once") == "yes",
        system_old=get("system_old"),
        system_new=get("system_new"),
        generation_new=get("generation_new"),
        reason=get("reason"),
        method=get("method"),
        rc=_number(values, "record_rc"),
        same_boot=values.get("same_boot") == "yes",
        restored=get("restored") == "yes",
        remaining=_number(values, "remaining"),
        failed_before=tuple(get("failed_before").split()),
        failed_after=tuple(get("failed_after").split()),
    )
