# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The decision about a transaction that a machine holds, and the closing of one that a restart interrupted."""

from __future__ import annotations

from typing import Any, Literal

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import guard
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.guard import Step
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Record, Report
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.transaction import Tools, close, decide, look

Decision = Literal["commit", "abort"]


def carry_out(tools: Tools, decision: Decision, txn: str, reason: str, limit: float) -> dict[str, Any]:
    """Commit or abort the held transaction and follow it to its end; the task's result.

    Done again it changes nothing: a transaction is decided once.

    :raises HostingError: the machine does not answer, or its last transaction is another one.
    """
    report = look(tools, "")
    record = _record_of(report, txn)
    was_live = record.live
    if was_live:
        if decision == "commit" and record.phase != "checked":
            raise InvalidInput(
                f"the transaction is not held: it is in phase {record.phase}",
                where="txn",
                hint="Run nixos_rebuild again for this system; it continues the transaction",
            )
        words = ["commit", txn] if decision == "commit" else ["abort", txn, reason]
        step, report = decide(tools, words, report, limit)
        record = _record_of(report, txn)
    else:
        step = guard.next_step(report, txn)
    committed = step is Step.DONE
    values = _values(report, record, changed=was_live)
    if committed != (decision == "commit"):
        error = (
            guard.failure(step, record)
            if decision == "commit"
            else HostingError("it was committed before it could be aborted", hint="Roll back with nixos_generations")
        )
        values.update(failed=True, changed=False, msg=str(error))
    return values


def settle(tools: Tools, limit: float) -> dict[str, Any]:
    """Wait for the machine and close what a restart interrupted; the task's result."""
    before = look(tools, "")
    guard.check_nixos(before)
    live = before.record is not None and before.record.live
    report = close(tools, before, limit) if live else before
    if report.record is None:
        return {"failed": False, "changed": False, "txn": "", "phase": "", "current": report.current}
    return _values(report, report.record, changed=live)


def preview(tools: Tools, decision: str, txn: str) -> dict[str, Any]:
    """Check mode: whether there is anything to decide."""
    report = look(tools, "")
    if decision == "settle":
        live = report.record is not None and report.record.live
        return {"failed": False, "changed": live, "txn": txn, "current": report.current}
    record = _record_of(report, txn)
    return _values(report, record, changed=record.live)


def _record_of(report: Report, txn: str) -> Record:
    if report.record is None or report.record.txn != txn:
        last = "none" if report.record is None else report.record.txn
        raise InvalidInput(
            f"the machine's last transaction is {last}, not {txn}",
            where="txn",
            hint="Another deployment has followed; look into /var/lib/fediversity-guard/journal",
        )
    return report.record


def _values(report: Report, record: Record, *, changed: bool) -> dict[str, Any]:
    return {
        "failed": False,
        "changed": changed,
        "txn": record.txn,
        "old": record.system_old,
        "new": record.system_new,
        "phase": record.phase,
        "reason": record.reason,
        "method": record.method,
        "current": report.current,
        "booted": report.booted,
        "default": report.default,
        "generation": report.generation,
    }
