# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox VE tasks: long work that the API starts and names by a UPID."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    Locked,
    NotFound,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import (
    Client,
    LostAnswer,
    Outdated,
    Transient,
    Value,
    error_of_text,
)

# seconds between two looks at a task
FIRST_POLL = 0.2
LAST_POLL = 2.0
POLL_GROWTH = 1.5
LOG_LINES = 5
# seconds before a task is started again that failed because of a lock
LOCK_DELAY = 2.0

# PVE/UPID.pm: UPID:node:pid:pstart:starttime:type:id:user[!token]:
UPID = re.compile(r"UPID:([A-Za-z0-9-]+):[0-9A-F]{8}:[0-9A-F]{8,9}:([0-9A-F]{8}):([^:\s]+):([^:\s]*):([^:\s]+):\Z")


def parse(upid: Any) -> tuple[str, int]:
    """The node that runs the task and its start in seconds of the epoch, by that node's clock.

    :raises BackendError: this is no UPID.
    """
    match = UPID.match(upid) if isinstance(upid, str) else None
    if match is None:
        raise BackendError(f"the server answered {upid!r} where the id of a task was expected")
    return match[1], int(match[2], 16)


def outcome(client: Client, upid: Any, *, budget: float) -> str:
    """Wait until the task has ended and return its exit status.

    :param budget: seconds.
    :raises Locked: it still runs after the budget.
    :raises LostAnswer: its node forgot it, after a restart for example; what it did must be looked for.
    """
    path = _path(upid)
    end = client.clock() + budget
    pause = FIRST_POLL
    while True:
        try:
            status = client.get(f"{path}/status")
        except NotFound as error:
            raise LostAnswer(
                f"the task {upid.split(':')[5]} vanished from its node ({error.what})",
                where=client.host,
                hint="Run again",
            ) from error
        if status.get("status") == "stopped":
            return str(status.get("exitstatus") or "unexpected status")
        if client.clock() >= end:
            raise Locked(
                f"the task {upid} still runs after {budget:g} s",
                where=client.host,
                hint="Look at it in the task list of Proxmox VE; raise task_timeout if it only needs longer",
            )
        client.sleep(pause)
        pause = min(pause * POLL_GROWTH, LAST_POLL)


def wait(client: Client, upid: Any, *, budget: float) -> None:
    """Wait until the task has ended well; ``WARNINGS: n`` is success too.

    :param budget: seconds.
    :raises HostingError: it failed; the message holds exit status and last log lines, the class comes from the text
        (Transient and Locked: it did nothing; LostAnswer: its worker died, so look what it did).
    :raises Locked: it still runs after the budget.
    """
    status = outcome(client, upid, budget=budget)
    if status == "OK" or status.startswith("WARNINGS"):
        return
    error = error_of_text(status)
    log = _last_lines(client, upid)
    raise type(error)(f"the task {upid.split(':')[5]} failed: {error.what}{log}", where=client.host, hint=error.hint)


def run(client: Client, method: str, path: str, params: Mapping[str, Value], *, budget: float) -> None:
    """Send a request that starts a task, and wait for its good end.

    A task that failed because of a lock did nothing; it is started again within the client's ``lock_timeout``.

    :param budget: seconds that the task may take.
    :raises HostingError: as the request itself and ``wait``.
    """
    end = client.clock() + client.lock_timeout
    while True:
        upid = client.request(method, path, params)
        try:
            return wait(client, upid, budget=budget)
        except (LostAnswer, Outdated):
            raise
        except (Transient, Locked) as error:
            if client.clock() + LOCK_DELAY > end or "still runs" in error.what:
                raise
        client.sleep(LOCK_DELAY)


def _last_lines(client: Client, upid: str) -> str:
    """The last lines before the error itself, or nothing if there are none or the log cannot be read."""
    try:
        # limit 0 is the whole log; the default are its first 50 lines
        log = client.get(f"{_path(upid)}/log", limit=0)
    except HostingError:
        return ""
    lines = [str(line.get("t", "")) for line in log]
    told = [line for line in lines if not line.startswith("TASK ERROR:")][-LOG_LINES:]
    return f" (log: {' | '.join(told)})" if told else ""


def _path(upid: Any) -> str:
    node, _start = parse(upid)
    return f"/nodes/{node}/tasks/{quote(upid, safe='')}"
