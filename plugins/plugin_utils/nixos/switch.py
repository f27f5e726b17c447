# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The course of a guarded switch: looks at the machine, asks guard.py what that means, acts, looks again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    Locked,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import guard
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.guard import (
    Begun,
    Preflight,
    Report,
    Request,
    Step,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.payload import guard_script
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.remote import (
    Clock,
    Machine,
    Waiting,
    first_contact,
)

LONG_POLL = 60
"""Seconds that one connection waits on the machine for the activation's end."""


@dataclass(frozen=True)
class Tools:
    """The effects of a switch; `connect_timeout` is in seconds, `copy` brings the closure to the machine."""

    machine: Machine
    copy: Callable[[], None]
    progress: Callable[[str], None]
    connect_timeout: int
    clock: Clock = field(default_factory=Clock)


@dataclass
class Timings:
    """Seconds per step, in the order in which they were taken."""

    clock: Clock
    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = 0.0

    def __post_init__(self) -> None:
        self._last = self.clock.now()

    def took(self, step: str) -> None:
        """Close a step that began when the one before was closed."""
        now = self.clock.now()
        self.seconds[step] = round(self.seconds.get(step, 0.0) + now - self._last, 3)
        self._last = now


@dataclass(frozen=True)
class Outcome:
    """How a switch ended; `error` is None when the machine is as it was asked to be."""

    changed: bool
    txn: str
    phase: str
    old: str
    new: str
    report: Report
    timings: dict[str, float]
    error: HostingError | None = None
    needs_reboot: bool = False
    warnings: tuple[str, ...] = ()


def look(tools: Tools, system: str) -> Report:
    """The machine's state, as soon as it answers, over a connection that is not an old one.

    :raises Unreachable: it did not answer within the connect timeout.
    """
    tools.machine.forget_connection()
    script = guard_script(["status", system])
    said = first_contact(tools.machine, script, Waiting(tools.connect_timeout, tools.progress, tools.clock))
    return guard.parse_report(said)


def deploy(tools: Tools, request: Request, check: Callable[[Report], None]) -> Outcome:
    """Bring the system to the machine and make it the running and the default one, or leave the old one.

    :param check: may refuse the machine (HostingError) after the first look, before anything is copied.
    :raises HostingError: nothing was armed, or the machine is silent and its own deadlines decide.
    """
    timings = Timings(tools.clock)
    report = look(tools, request.system)
    warnings = _left_behind(report)
    if guard.preflight(report, request) is Preflight.SETTLE:
        report = guard.parse_report(tools.machine.run(guard_script(["settle"])))
    elif guard.preflight(report, request) is Preflight.DEPLOY:
        check(report)
        timings.took("preflight")
        if not report.valid:
            tools.copy()
            timings.took("copy")
        return _switch(tools, request, timings, warnings)
    timings.took("preflight")
    needs_reboot = report.wanted_needs_reboot or report.needs_reboot
    return Outcome(
        False, "", "unchanged", report.current, request.system, report, timings.seconds, None, needs_reboot, warnings
    )


def _left_behind(report: Report) -> tuple[str, ...]:
    """What an interrupted earlier run left: the machine closes it by itself, the reader should know."""
    record = report.record
    if record is None or not record.live or record.same_boot:
        return ()
    return (
        f"the earlier deployment {record.txn} of {record.owner} ({record.system_new}) ended in phase {record.phase}"
        " by a restart of the machine; it is closed now",
    )


def _switch(tools: Tools, request: Request, timings: Timings, warnings: tuple[str, ...]) -> Outcome:
    limit = tools.clock.now() + guard.longest(request, tools.connect_timeout)
    while True:
        report = _begin(tools, request, limit)
        begun = guard.after_begin(report, request)
        timings.took("begin")
        tools.machine.forget_connection()
        if begun is Begun.AGAIN:
            if tools.clock.now() > limit:
                raise Locked(
                    "the machine did not finish an earlier deployment", hint="Run again, or look at its journal"
                )
            tools.progress("waiting for the end of an earlier deployment")
            _help_to_end(tools, report)
            continue
        txn = request.txn if report.record is None else report.record.txn
        step, report = _observe(tools, request, txn, report, limit)
        timings.took("activate and confirm")
        if begun is Begun.RESUME and step is Step.UNDONE and tools.clock.now() < limit:
            warnings += (f"the earlier deployment {txn} of the same system was rolled back; tried again",)
            continue
        return _outcome(request, step, report, timings, warnings)


def _begin(tools: Tools, request: Request, limit: float) -> Report:
    """Ask until there is an answer: the switch may have begun and cut the connection before the answer was out.

    The machine knows its transactions by name, so asking again begins nothing twice.
    """
    script = guard_script(guard.begin_words(request))
    patience = round(limit - tools.clock.now())
    hint = "It may have begun the switch; it returns to the old system by itself. Then run again"
    waiting = Waiting(patience, tools.progress, tools.clock, hint)
    return guard.parse_report(first_contact(tools.machine, script, waiting))


def _help_to_end(tools: Tools, report: Report) -> None:
    """Show the machine that it can be reached: a rollback waits for that."""
    if report.record is not None and report.record.live:
        words = guard.confirm_words(report.record.txn, LONG_POLL, guard.seen(report), guard.HealthChecks())
        try:
            tools.machine.run_over_new_connection(guard_script(words))
        except (Unreachable, BackendError) as error:
            tools.progress(str(error))
    tools.clock.sleep(0.5)


def _observe(tools: Tools, request: Request, txn: str, report: Report, limit: float) -> tuple[Step, Report]:
    """Follow the transaction over connections that are new each time, until it has ended.

    Silence is not an error here: the machine acts by itself, and only its record says how.
    """
    told = tools.clock.now()
    while True:
        script = guard_script(guard.confirm_words(txn, LONG_POLL, guard.seen(report), request.health))
        try:
            report = guard.parse_report(tools.machine.run_over_new_connection(script))
        except (Unreachable, BackendError) as error:
            now = tools.clock.now()
            if now > limit:
                raise Unreachable(
                    f"no contact since the switch to {request.system} began: {error.what}",
                    hint="The machine returns to the old system by itself, and until the commit a reset does so too;"
                    " look at its console",
                ) from error
            if now - told > 10:
                tools.progress(f"no contact yet, the machine rolls back by itself: {error.what}")
                told = now
            tools.clock.sleep(0.5)
            continue
        step = guard.next_step(report, txn)
        if step is not Step.LOOK_AGAIN:
            return step, report
        if tools.clock.now() > limit:
            raise Locked(
                f"the transaction {txn} did not end in time", hint="Look at /var/lib/fediversity-guard/journal"
            )


def _outcome(request: Request, step: Step, report: Report, timings: Timings, warnings: tuple[str, ...]) -> Outcome:
    record = report.record
    if record is None:  # next_step has refused this already
        raise BackendError("the machine lost its record")
    done = step is Step.DONE
    if done and record.rc == 4:
        failed = ", ".join(record.failed_after) or "a user's unit"
        warnings += (f"switch-to-configuration reported failures that were there before: {failed}",)
    return Outcome(
        changed=done,
        txn=record.txn,
        phase=record.phase,
        old=record.system_old,
        new=request.system,
        report=report,
        timings=timings.seconds,
        error=None if done else guard.failure(step, record),
        needs_reboot=report.needs_reboot or step is Step.NEEDS_REBOOT,
        warnings=warnings,
    )


def dry_activate(tools: Tools, system: str) -> Report:
    """What the activation would do, by the machine's own dry run; the system must be on the machine."""
    return guard.parse_report(tools.machine.run(guard_script(["dry", system])))


def result(outcome: Outcome) -> dict[str, Any]:
    """The task's result; documented in modules/nixos_rebuild.py."""
    record = outcome.report.record
    undone = record is not None and record.phase == "rolled-back" and outcome.error is not None
    values: dict[str, Any] = {
        "failed": outcome.error is not None,  # Ansible would take any rc but 0 for a failure
        "changed": outcome.changed,
        "txn": outcome.txn,
        "old": outcome.old,
        "new": outcome.new,
        "phase": outcome.phase,
        "rc": record.rc if record is not None and outcome.txn else None,
        "generation": outcome.report.generation,
        "needs_reboot": outcome.needs_reboot,
        "failed_units": {
            "before": list(record.failed_before) if record is not None and outcome.txn else [],
            "after": list(record.failed_after) if record is not None and outcome.txn else [],
        },
        "rollback": None,
        "log": list(outcome.report.log),
        "timings": outcome.timings,
    }
    if undone and record is not None:
        values["rollback"] = {
            "reason": record.reason,
            "method": record.method,
            "seconds": outcome.timings.get("activate and confirm", 0.0),
        }
    if outcome.warnings:
        values["warnings"] = list(outcome.warnings)
    if outcome.error is not None:
        values["msg"] = str(outcome.error)
    return values
