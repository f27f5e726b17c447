# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A transaction that is under way on a machine: following it, deciding about it, closing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Locked,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import guard
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.guard import Step
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.remote import (
    Clock,
    Machine,
    Waiting,
    first_contact,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Report, parse_report
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import (
    HealthChecks,
    confirm_words,
    seen,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.scripts import guard_script

LONG_POLL = 60
"""Seconds that one connection waits on the machine for the transaction's next event."""


class Silent(Unreachable):
    """The machine has said nothing past every deadline of its own; until the commit a reset is a rollback."""


@dataclass(frozen=True)
class Tools:
    """The effects of a switch; `connect_timeout` is in seconds, `copy` brings the closure to the machine.

    `controller_problem` makes the controller's own health checks and returns the first problem.
    """

    machine: Machine
    copy: Callable[[], None]
    progress: Callable[[str], None]
    connect_timeout: int
    clock: Clock = field(default_factory=Clock)
    controller_problem: Callable[[], str] = str


@dataclass(frozen=True)
class Course:
    """How to go on with a transaction: the machine's checks, and whether it is held after them."""

    health: HealthChecks = field(default_factory=HealthChecks)
    hold: bool = False


def look(tools: Tools, system: str) -> Report:
    """The machine's state, as soon as it answers, over a connection that is not an old one.

    :param system: store path about which is asked, or empty.
    :raises Unreachable: it did not answer within the connect timeout.
    """
    tools.machine.forget_connection()
    script = guard_script(["status", *([system] if system else [])])
    said = first_contact(tools.machine, script, Waiting(tools.connect_timeout, tools.progress, tools.clock))
    return parse_report(said)


def ask(tools: Tools, words: Sequence[str]) -> Report:
    """One call of the guard over a connection that is made now."""
    return parse_report(tools.machine.run_over_new_connection(guard_script(words)))


def observe(tools: Tools, txn: str, report: Report, course: Course, limit: float) -> tuple[Step, Report]:
    """Follow the transaction over connections that are new each time, until it has ended or waits for a decision.

    Silence is not an error here: the machine acts by itself, and only its record says how.

    :raises Silent: no contact until `limit`.
    :raises Locked: it did not end until `limit`.
    """
    told = tools.clock.now()
    while True:
        words = confirm_words(txn, LONG_POLL, seen(report), course.health, hold=course.hold)
        try:
            report = ask(tools, words)
        except (Unreachable, BackendError) as error:
            now = tools.clock.now()
            if now > limit:
                if isinstance(error, BackendError):  # it answers, but not what is asked
                    raise
                raise Silent(
                    f"no contact since the switch began: {error.what}",
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


def decide(tools: Tools, words: Sequence[str], report: Report, limit: float) -> tuple[Step, Report]:
    """Tell the machine a decision (words `commit TXN` or `abort TXN REASON`) and follow the transaction to its end.

    Asking again is harmless: the machine decides a transaction once. When the connection is lost its deadline decides.
    """
    txn = words[1]
    while True:
        try:
            report = ask(tools, words)
        except (Unreachable, BackendError) as error:
            tools.progress(f"the decision may not have arrived, looking again: {error.what}")
        step, report = observe(tools, txn, report, Course(hold=True), limit)
        if step is not Step.DECIDE:
            return step, report
        tools.clock.sleep(0.2)


def help_to_end(tools: Tools, report: Report) -> None:
    """Show the machine that it can be reached: a rollback waits for that."""
    if report.record is not None and report.record.live:
        words = confirm_words(report.record.txn, LONG_POLL, seen(report), HealthChecks(), hold=True)
        try:
            ask(tools, words)
        except (Unreachable, BackendError) as error:
            tools.progress(str(error))
    tools.clock.sleep(0.5)


def close(tools: Tools, report: Report, limit: float) -> Report:
    """Wait for the end of whatever is under way on the machine; nothing is confirmed.

    :raises Unreachable: it did not answer within the connect timeout.
    :raises Locked: the transaction did not end until `limit`.
    """
    while (record := report.record) is not None and record.live:
        if tools.clock.now() > limit:
            raise Locked(
                f"the transaction {record.txn} did not end in time (phase {record.phase})",
                hint="Look at /var/lib/fediversity-guard/journal",
            )
        if not record.same_boot:
            report = ask(tools, ["settle"])
        else:
            if record.restored:
                help_to_end(tools, report)
            report = look(tools, "")
        tools.clock.sleep(0.5)
    return report
