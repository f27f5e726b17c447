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
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import guard
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.guard import Begun, Preflight, Step
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.remote import Clock, Waiting, first_contact
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Report, parse_report
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import (
    Request,
    begin_words,
    ends_held,
    longest,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.scripts import guard_script
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.transaction import (
    Course,
    Silent,
    Tools,
    decide,
    help_to_end,
    look,
    observe,
)


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


def deploy(tools: Tools, request: Request, check: Callable[[Report], None]) -> Outcome:
    """Bring the system to the machine and make it the running and the default one, or leave the old one.

    :param check: may refuse the machine (HostingError) after the first look, before anything is copied.
    :raises HostingError: nothing was armed, or (Silent) the machine's own deadlines decide.
    """
    timings = Timings(tools.clock)
    report = look(tools, request.system)
    warnings = _left_behind(report)
    wanted = guard.preflight(report, request)
    if wanted is Preflight.SETTLE:
        report = parse_report(tools.machine.run(guard_script(["settle", request.system])))
        wanted = guard.preflight(report, request)
    timings.took("preflight")
    if wanted is not Preflight.UNCHANGED:
        check(report)
        if not report.valid:
            guard.check_space(report, request)
            tools.copy()
            timings.took("copy")
        return _switch(tools, request, timings, warnings)
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
        f"the earlier deployment {record.txn} of {record.owner} ({record.system_new}) was in phase {record.phase}"
        " when the machine restarted; it is closed now",
    )


def _switch(tools: Tools, request: Request, timings: Timings, warnings: tuple[str, ...]) -> Outcome:
    limit = tools.clock.now() + longest(request, tools.connect_timeout)
    copied_again = False
    while True:
        report = _begin(tools, request, limit)
        begun = guard.after_begin(report, request)
        timings.took("begin")
        if begun is Begun.COPY:
            if copied_again:
                raise BackendError(report.error, hint="Nothing was changed")
            tools.progress("the system is not on the machine any more, copying it again")
            tools.copy()
            copied_again = True
            timings.took("copy")
            continue
        tools.machine.forget_connection()
        if begun is Begun.AGAIN:
            if tools.clock.now() > limit:
                raise Locked(
                    "the machine did not finish an earlier deployment", hint="Run again, or look at its journal"
                )
            tools.progress("waiting for the end of an earlier deployment")
            help_to_end(tools, report)
            continue
        txn = request.txn if report.record is None else report.record.txn
        step, report = _follow(tools, request, txn, report, limit)
        timings.took("activate and confirm")
        if begun is Begun.RESUME and step is Step.UNDONE and tools.clock.now() < limit:
            warnings += (f"the earlier deployment {txn} of the same system was rolled back; tried again",)
            continue
        return outcome(request, step, report, timings.seconds, warnings)


def _begin(tools: Tools, request: Request, limit: float) -> Report:
    """Ask until there is an answer: the switch may have begun and cut the connection before the answer was out.

    The machine knows its transactions by name, so asking again begins nothing twice.

    :raises Silent: no answer until `limit`.
    """
    script = guard_script(begin_words(request))
    patience = round(limit - tools.clock.now())
    hint = "It may have begun the switch; it returns to the old system by itself. Then run again"
    waiting = Waiting(patience, tools.progress, tools.clock, hint, error=Silent)
    return parse_report(first_contact(tools.machine, script, waiting))


def _follow(tools: Tools, request: Request, txn: str, report: Report, limit: float) -> tuple[Step, Report]:
    """To the transaction's end, or until it is held for the caller's decision."""
    course = Course(request.health, hold=ends_held(request))
    step, report = observe(tools, txn, report, course, limit)
    if step is not Step.DECIDE:
        return step, report
    problem = tools.controller_problem()
    if problem:
        return decide(tools, ["abort", txn, problem], report, limit)
    if request.commit:
        return decide(tools, ["commit", txn], report, limit)
    return step, report


def outcome(
    request: Request, step: Step, report: Report, timings: dict[str, float], warnings: tuple[str, ...]
) -> Outcome:
    """The end of a transaction, or its hold, told."""
    record = report.record
    if record is None:  # next_step has refused this already
        raise BackendError("the machine lost its record")
    good = step in {Step.DONE, Step.DECIDE}
    if good and record.rc == 4:
        failed = ", ".join(record.failed_after) or "a user's unit"
        warnings += (f"switch-to-configuration reported failed units, which the unit policy accepts: {failed}",)
    return Outcome(
        changed=good,
        txn=record.txn,
        phase=record.phase,
        old=record.system_old,
        new=request.system,
        report=report,
        timings=timings,
        error=None if good else guard.failure(step, record),
        needs_reboot=report.needs_reboot or step is Step.NEEDS_REBOOT,
        warnings=warnings,
    )


def preview(report: Report, request: Request, *, check_mode: bool) -> dict[str, Any]:
    """The result of a task that only looks: what a deployment would begin with.

    :raises InvalidInput: the machine cannot be deployed to.
    """
    wanted = guard.preflight(report, request) is Preflight.DEPLOY
    return {
        "failed": False,
        "changed": wanted and check_mode,
        "old": report.current,
        "new": request.system,
        "phase": "planned" if wanted else "unchanged",
        "booted": report.booted,
        "default": report.default,
        "generation": report.generation,
        "needs_reboot": report.wanted_needs_reboot,
        "log": [],
    }


def dry_activate(tools: Tools, system: str) -> Report:
    """What the activation would do, by the machine's own dry run; the system must be on the machine."""
    return parse_report(tools.machine.run(guard_script(["dry", system])))


def result(outcome: Outcome) -> dict[str, Any]:
    """The task's result; documented in modules/nixos_rebuild.py."""
    record = outcome.report.record if outcome.txn else None
    values: dict[str, Any] = {
        "failed": outcome.error is not None,  # Ansible would take any rc but 0 for a failure
        "changed": outcome.changed,
        "txn": outcome.txn,
        "old": outcome.old,
        "new": outcome.new,
        "phase": outcome.phase,
        "rc": record.rc if record is not None else None,
        "booted": outcome.report.booted,
        "default": outcome.report.default,
        "generation": outcome.report.generation,
        "needs_reboot": outcome.needs_reboot,
        "failed_units": {
            "before": list(record.failed_before) if record is not None else [],
            "after": list(record.failed_after) if record is not None else [],
        },
        "rollback": None,
        "log": list(outcome.report.log),
        "timings": outcome.timings,
    }
    if record is not None and record.phase == "rolled-back" and outcome.error is not None:
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
