# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/N/tasks: lists, status and logs of tasks (PVE/API2/Tasks.pm)."""

from __future__ import annotations

from typing import Any

from .errors import invalid
from .formats import split_list
from .routes import Call, Page, endpoint
from .tasks import UPID, Task, active_row, archived_row


def _parsed(call: Call) -> str:
    if not UPID.fullmatch(call.params["upid"]):
        raise invalid({"upid": "unable to parse worker upid"})
    return str(call.params["upid"])


def _find(call: Call) -> Task | None:
    """The task, if it ran on the node of the path; 403 for one of somebody else without Sys.Audit."""
    task = call.tasks.all.get(_parsed(call))
    if task is None or task.node != call.node:
        return None
    if task.owner != call.who.full:
        call.require(f"/nodes/{call.node}", "Sys.Audit")
    return task


@endpoint("GET", "/nodes/{node}/tasks")
async def index(call: Call) -> object:
    """Newest first; ended ones unless `source` asks for active or all."""
    params = call.params
    source = params.get("source", "archive")
    wanted_status = set(split_list(params.get("statusfilter", "")))
    auditor = call.may(f"/nodes/{call.node}", "Sys.Audit")
    rows: list[dict[str, Any]] = []
    for task in call.tasks.of_node(call.node):
        active = not task.exitstatus
        if (source == "archive" and active) or (source == "active" and not active):
            continue
        if not auditor and task.owner != call.who.full:
            continue
        if "vmid" in params and task.id != str(params["vmid"]):
            continue
        if params.get("typefilter", task.type) != task.type or params.get("userfilter", "") not in task.owner:
            continue
        if not params.get("since", 0) <= task.starttime <= params.get("until", task.starttime):
            continue
        if params.get("errors") and _kind(task) not in ("error", "unknown"):
            continue
        if wanted_status and _kind(task) not in wanted_status:
            continue
        rows.append(active_row(task) if active else archived_row(task))
    first, limit = params.get("start", 0), params.get("limit", 50)
    return Page(rows[first : first + limit] if limit else rows[first:], len(rows))


def _kind(task: Task) -> str:
    """ok, warning, error or unknown, as `statusfilter` says it."""
    if task.exitstatus == "OK":
        return "ok"
    if task.exitstatus.startswith("WARNINGS: "):
        return "warning"
    return "unknown" if task.exitstatus in ("", "unexpected status") else "error"


@endpoint("GET", "/nodes/{node}/tasks/{upid}/status")
async def status(call: Call) -> object:
    task = _find(call)
    if task is None:
        raise invalid({"upid": "no such task"})
    names = ("upid", "node", "pid", "pstart", "starttime", "type", "id", "user")
    row: dict[str, Any] = {name: getattr(task, name) for name in names}
    row |= {"tokenid": task.tokenid} if task.tokenid else {}
    return row | ({"status": "stopped", "exitstatus": task.exitstatus} if task.exitstatus else {"status": "running"})


@endpoint("GET", "/nodes/{node}/tasks/{upid}/log")
async def log(call: Call) -> object:
    """Lines numbered from 1; `limit=0` means all."""
    task = _find(call)
    lines = ["unable to open file - No such file or directory"] if task is None else task.log or ["no content"]
    first, limit = call.params.get("start", 0), call.params.get("limit", 50)
    rows: list[dict[str, Any]] = [{"n": number, "t": line} for number, line in enumerate(lines, 1)]
    return Page(rows[first : first + limit] if limit else rows[first:], len(rows))


@endpoint("DELETE", "/nodes/{node}/tasks/{upid}")
async def abort(call: Call) -> object:
    """Interrupts a task; one that has ended is left alone."""
    upid = _parsed(call)
    task = call.tasks.all.get(upid)
    if task and task.owner != call.who.full:
        call.require(f"/nodes/{call.node}", "Sys.Modify")
    await call.tasks.abort(upid)
    return None
