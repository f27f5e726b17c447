# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Generations of a machine's system profile: what there is, what to return to, what to delete.

The machine's side is payload/generations.sh.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    InvalidInput,
    Locked,
    NotFound,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import guard
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.remote import Waiting, first_contact
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Report, parse_report, parse_values
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.scripts import guard_script
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.transaction import Tools

PREVIOUS = "previous"
DAY = 86400
UNITS = {unit: 1024**power for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB"))}


@dataclass(frozen=True)
class Entry:
    """One generation; `made` is in seconds since 1970, `version` what its file nixos-version says."""

    number: int
    made: int
    path: str
    version: str = ""


@dataclass(frozen=True)
class Listing:
    """The machine's state, its generations by number, its clock (seconds since 1970).

    `menu_stale` is true while the boot menu may name generations that were deleted.
    """

    report: Report
    entries: tuple[Entry, ...]
    clock: int
    menu_stale: bool = False


def _all(text: str, key: str) -> list[str]:
    return [value for name, value in parse_values(text) if name == key]


def parse_listing(text: str) -> Listing:
    """Read the answer to the verb `generations`.

    :raises BackendError: it is none.
    """
    clock = "".join(_all(text, "clock"))
    if not clock.isdigit():
        raise BackendError("the machine's list of generations was not understood", hint=f"It said: {text[-300:]!r}")
    return Listing(
        report=parse_report(text),
        entries=tuple(sorted(map(_entry, _all(text, "entry")), key=lambda entry: entry.number)),
        clock=int(clock),
        menu_stale="yes" in _all(text, "menu_stale"),
    )


def _entry(line: str) -> Entry:
    number, made, path, version = line.split(" ", 3)
    return Entry(int(number), int(made), path, version.strip())


def describe(listing: Listing) -> list[dict[str, Any]]:
    """The task's result `generations`; documented in modules/nixos_generations.py."""
    report = listing.report
    return [
        {
            "number": entry.number,
            "date": datetime.fromtimestamp(entry.made, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "path": entry.path,
            "version": entry.version or None,
            "current": entry.path == report.current,
            "booted": entry.path == report.booted,
            "default": entry.path == report.default,
            "profile": entry.number == report.generation,
        }
        for entry in listing.entries
    ]


# --- roll back -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A system to return to; `number` is None when no generation of the profile has it."""

    system: str
    number: int | None


def check_generation(generation: str) -> None:
    """:raises InvalidInput: it is neither a number nor `previous`."""
    if not re.fullmatch(rf"{PREVIOUS}|[1-9][0-9]{{0,8}}", generation):
        raise InvalidInput(
            f"{generation!r} is no generation", where="generation", hint=f"Give a number, or {PREVIOUS!r}"
        )


def by_generation(listing: Listing, generation: str) -> Target:
    """The generation of that number, or the newest one before the profile's whose system is another.

    :raises NotFound: there is none.
    """
    numbers = ", ".join(str(entry.number) for entry in listing.entries) or "none"
    report = listing.report
    if generation == PREVIOUS:
        found = [
            entry
            for entry in listing.entries
            if report.generation is not None and entry.number < report.generation and entry.path != report.profile
        ]
        problem = f"no generation before the profile's ({report.generation or 'none'}) has another system"
    else:
        found = [entry for entry in listing.entries if entry.number == int(generation)]
        problem = f"there is no generation {generation}"
    if not found:
        raise NotFound(problem, where="generation", hint=f"The machine has: {numbers}")
    return Target(found[-1].path, found[-1].number)


def by_system(listing: Listing, system: str) -> Target:
    """The generation that has the system: the profile's, else the newest; none when only the store has it."""
    if listing.report.profile == system:
        return Target(system, listing.report.generation)
    numbers = [entry.number for entry in listing.entries if entry.path == system]
    return Target(system, max(numbers, default=None))


# --- collect ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Retention:
    """What is kept: the newest `keep` generations and those younger than `keep_days` days; None does not keep any."""

    keep: int | None = None
    keep_days: int | None = None


def check_retention(retention: Retention) -> None:
    """:raises InvalidInput: nothing would be kept, or the number is absurd."""
    for name, value in (("keep", retention.keep), ("keep_days", retention.keep_days)):
        if value is not None and not 1 <= value <= 100_000:
            raise InvalidInput(f"{value} is out of range", where=name, hint="Give 1 to 100000")


def in_use(report: Report) -> frozenset[str]:
    """Systems that must stay: running, booted, boot default, the profile's, and both of a live transaction."""
    paths = {report.current, report.booted, report.default, report.profile}
    if report.record is not None and report.record.live:
        paths |= {report.record.system_old, report.record.system_new}
    return frozenset(paths - {""})


def doomed(entries: Sequence[Entry], used: Iterable[str], clock: int, retention: Retention) -> tuple[int, ...]:
    """Numbers that go: all given criteria allow it and its system is not in use. Without criteria nothing goes.

    :param clock: the machine's time in seconds since 1970, by which the generations were dated.
    """
    if retention == Retention():
        return ()
    kept_by_number = {entry.number for entry in sorted(entries, key=lambda entry: -entry.number)[: retention.keep or 0]}
    youngest = clock if retention.keep_days is None else clock - retention.keep_days * DAY
    stay = frozenset(used)
    return tuple(
        sorted(
            entry.number
            for entry in entries
            if entry.number not in kept_by_number
            and (retention.keep_days is None or entry.made <= youngest)
            and entry.path not in stay
        )
    )


def freed(line: str) -> tuple[int, int]:
    """Store paths and bytes, from the last line of nix-collect-garbage, to the precision in which it says them."""
    found = re.search(r"(\d+) store paths deleted, ([0-9.]+) ([KMGT]?i?B)", line)
    if found is None:
        return (0, 0)
    return (int(found[1]), round(float(found[2]) * UNITS.get(found[3], 1)))


@dataclass(frozen=True)
class Collected:
    """What a collection did; `error` is None when all of it went well."""

    deleted: tuple[int, ...]
    kept: tuple[int, ...]
    freed_paths: int
    freed_bytes: int
    log: tuple[str, ...]
    error: HostingError | None


def parse_collected(text: str) -> Collected:
    """Read the answer to the verb `collect`.

    :raises Locked: a deployment is under way, nothing was deleted.
    :raises BackendError: it is no such answer.
    """
    result = "".join(_all(text, "result"))
    if result == "locked":
        raise locked(parse_report(text))
    if result != "collected":
        raise BackendError("the machine's answer was not understood", hint=f"It said: {text.strip()[-300:]!r}")
    errors = "; ".join(_all(text, "error"))
    log = tuple(_all(text, "collect_log"))
    paths, size = freed("".join(_all(text, "freed")))
    return Collected(
        deleted=tuple(map(int, _all(text, "deleted"))),
        kept=tuple(map(int, _all(text, "kept"))),
        freed_paths=paths,
        freed_bytes=size,
        log=log,
        error=BackendError(errors, hint="Nothing else was done. See the log in the result, then run again")
        if errors
        else None,
    )


def result(done: Collected, *, garbage: bool) -> dict[str, Any]:
    """The task's result of a collection; documented in modules/nixos_generations.py."""
    values: dict[str, Any] = {
        "failed": done.error is not None,
        "changed": bool(done.deleted) or done.freed_paths > 0,
        "deleted": list(done.deleted),
        "log": list(done.log),
    }
    if garbage:
        values.update(freed_paths=done.freed_paths, freed_bytes=done.freed_bytes)
    if done.kept:
        values["warnings"] = [f"in use by now, and kept: {', '.join(map(str, done.kept))}"]
    if done.error is not None:
        values["msg"] = str(done.error)
    return values


def locked(report: Report) -> Locked:
    """What to tell when nothing can be deleted now."""
    record = report.record
    if record is None or not record.live:
        return Locked("another run holds the machine's lock", hint="Nothing was deleted. Run again afterwards")
    until = f"for {record.remaining} s at most" if record.remaining is not None else "until it has ended"
    return Locked(
        f"a deployment of {record.owner} is under way ({record.txn}, {record.phase}, {record.system_new}) {until}",
        hint="Nothing was deleted. Run again afterwards",
    )


# --- effects ---------------------------------------------------------------------------------------------------------


def look(tools: Tools) -> Listing:
    """The machine's generations, as soon as it answers, over a connection that is not an old one.

    :raises Unreachable: it did not answer within the connect timeout.
    """
    tools.machine.forget_connection()
    waiting = Waiting(tools.connect_timeout, tools.progress, tools.clock)
    return parse_listing(first_contact(tools.machine, guard_script(["generations"]), waiting))


def look_again(tools: Tools) -> Listing:
    """The same over the connection that is there."""
    return parse_listing(tools.machine.run(guard_script(["generations"])))


def dead(tools: Tools) -> int:
    """Number of store paths on the machine that nothing needs."""
    said = "".join(_all(tools.machine.run(guard_script(["generations", "dead"])), "dead"))
    return int(said) if said.isdigit() else 0


def difference(tools: Tools, old: str, new: str) -> str:
    """How two closures on the machine differ, by packages where Nix sees a difference there, else by store paths."""
    return parse_difference(tools.machine.run(guard_script(["generations", "difference", old, new])))


def parse_difference(text: str) -> str:
    """Read the answer to `generations difference`."""
    by_packages = "".join(f"{line}\n" for line in _all(text, "difference"))
    if by_packages:
        return re.sub(r"\x1b\[[0-9;]*m", "", by_packages)
    return guard.comparison(_all(text, "old_path"), _all(text, "new_path"))


def collect(tools: Tools, listing: Listing, numbers: Sequence[int], owner: str, *, garbage: bool) -> Collected:
    """Delete generations and, on request, what nothing needs then.

    :raises Locked: a deployment is under way, nothing was deleted.
    """
    record = listing.report.record
    if record is not None and record.live:
        if record.same_boot:
            raise locked(listing.report)
        tools.machine.run(guard_script(["settle"]))  # what a restart of the machine interrupted
    words = ["collect", re.sub(r"[^ -~]", "?", owner), "yes" if garbage else "no", *map(str, numbers)]
    return parse_collected(tools.machine.run(guard_script(words)))
