# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asynchronous tasks: a worker behind a UPID, its log and how it ended (PVE/RESTEnvironment.pm `fork_worker`)."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import ApiError
from .faults import Faults, Killed, Vanished, broken_worker
from .store import Cluster, read_json, write_json

LOGGER = logging.getLogger(__name__)
UPID = re.compile(
    r"UPID:([a-zA-Z0-9-]+):([0-9A-Fa-f]{8}):([0-9A-Fa-f]{8,9}):([0-9A-Fa-f]{8}):([^:\s]+):([^:\s]*):([^:\s]+):"
)


@dataclass
class Task:
    """One task; times are Unix seconds, `exitstatus` is empty while it runs."""

    upid: str
    node: str
    pid: int
    pstart: int
    starttime: int
    type: str
    id: str
    user: str
    tokenid: str
    log: list[str] = field(default_factory=list)
    warnings: int = 0
    exitstatus: str = ""
    endtime: int = 0

    @property
    def owner(self) -> str:
        """user, or user!token"""
        return f"{self.user}!{self.tokenid}" if self.tokenid else self.user

    def warn(self, text: str) -> None:
        """A line that makes the task end in WARNINGS instead of OK."""
        self.log.append(f"WARN: {text}")
        self.warnings += 1


Worker = Callable[[Task], Awaitable[None]]


class Tasks:
    """The tasks of all nodes."""

    def __init__(self, state: Path, faults: Faults) -> None:
        self._state, self._faults = state, faults
        self._pids = itertools.count(os.getpid() + 1)
        self._running: dict[str, asyncio.Task[None]] = {}
        self.all: dict[str, Task] = {}
        for file in (state / "nodes").glob("*/tasks/*.json"):
            task = Task(**read_json(file))
            task.exitstatus = task.exitstatus or "unexpected status"  # its process is gone
            self.all[task.upid] = task

    def start(self, node: str, kind: str, identifier: str, user: str, worker: Worker) -> str:
        """Runs `worker` in the background; its UPID. `user` may be user!token."""
        pid, pstart, now = next(self._pids) & 0xFFFFFFFF, int(time.monotonic() * 100), int(time.time())
        upid = f"UPID:{node}:{pid:08X}:{pstart:08X}:{now:08X}:{kind}:{identifier}:{user}:"
        name, _unused, token = user.partition("!")
        task = Task(upid, node, pid, pstart, now, kind, identifier, name, token)
        self.all[upid] = task
        self._save(task)
        self._running[upid] = asyncio.get_running_loop().create_task(
            self._run(task, broken_worker(self._faults, kind, identifier, worker))
        )
        return upid

    async def _run(self, task: Task, worker: Worker) -> None:
        try:
            await worker(task)
        except asyncio.CancelledError:
            self._end(task, "received interrupt")
        except ApiError as error:
            self._end(task, error.message)
        except Vanished:
            self._forget(task)
        except Killed as killed:
            self._close(task, str(killed))
        except Exception as error:  # a worker dies alone, as a forked process does
            LOGGER.exception("task %s", task.upid)
            self._end(task, str(error) or type(error).__name__)
        else:
            self._end(task, f"WARNINGS: {task.warnings}" if task.warnings else "OK")
        finally:
            self._running.pop(task.upid, None)

    def _end(self, task: Task, status: str) -> None:
        good = status == "OK" or status.startswith("WARNINGS: ")
        task.log.append(f"TASK {status}" if good else f"TASK ERROR: {status}")
        self._close(task, status)

    def _close(self, task: Task, status: str) -> None:
        task.exitstatus, task.endtime = status, int(time.time())
        self._save(task)

    def _forget(self, task: Task) -> None:
        self.all.pop(task.upid)
        self._file(task).unlink(missing_ok=True)

    def _save(self, task: Task) -> None:
        write_json(self._file(task), asdict(task))

    def _file(self, task: Task) -> Path:
        return self._state / "nodes" / task.node / "tasks" / f"{task.upid}.json"

    async def abort(self, upid: str) -> None:
        """Interrupts a running task; one that has ended stays as it is."""
        if running := self._running.get(upid):
            running.cancel()
            await asyncio.wait([running])

    async def close(self) -> None:
        """Interrupts everything that still runs."""
        for upid in list(self._running):
            await self.abort(upid)

    def of_node(self, node: str) -> list[Task]:
        """Newest first."""
        return sorted(
            (task for task in self.all.values() if task.node == node),
            key=lambda task: (task.starttime, task.pstart, task.pid),
            reverse=True,
        )


def active_row(task: Task) -> dict[str, Any]:
    """A running task in a list of active ones."""
    row = _row(task) | {"user": task.owner, "saved": "0", "pid": task.pid, "pstart": task.pstart, "status": "RUNNING"}
    row.pop("tokenid", None)
    return row


def archived_row(task: Task) -> dict[str, Any]:
    """An ended task in the list of its node."""
    return _row(task) | {"pid": task.pid, "pstart": task.pstart, "endtime": task.endtime, "status": task.exitstatus}


def cluster_row(task: Task, newest: bool) -> dict[str, Any]:
    """A task in the list of the cluster; the one that ended last was not read back from a file yet."""
    ended = {"endtime": task.endtime, "status": task.exitstatus} if task.exitstatus else {}
    return _row(task) | ended | {"saved": (1 if newest else "1") if task.exitstatus else "0"}


def _row(task: Task) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(task, name) for name in ("upid", "node", "type", "id", "user", "starttime")}
    return row | ({"tokenid": task.tokenid} if task.tokenid else {})


@asynccontextmanager
async def vm_lock(cluster: Cluster, vmid: int, task: Task | None = None, patience: float = 1.0) -> AsyncIterator[None]:
    """The configuration file lock of one virtual machine; ApiError after that part of the server's lock timeout."""
    lock = cluster.locks[vmid]
    await _acquire(cluster, vmid, task if lock.locked() else None, patience, lock.acquire)
    try:
        yield
    finally:
        lock.release()


@asynccontextmanager
async def shared_vm_lock(
    cluster: Cluster, vmid: int, task: Task | None = None, patience: float = 1.0
) -> AsyncIterator[None]:
    """The same lock for one who only reads the disks."""
    lock = cluster.locks[vmid]
    await _acquire(cluster, vmid, task if lock.locked_exclusively() else None, patience, lock.acquire_shared)
    try:
        yield
    finally:
        lock.release_shared()


async def _acquire(
    cluster: Cluster, vmid: int, told: Task | None, patience: float, acquire: Callable[[], Awaitable[None]]
) -> None:
    if told:
        told.log.append("trying to acquire lock...")
    try:
        async with asyncio.timeout(cluster.timing.lock * patience):
            await acquire()
    except TimeoutError:
        raise ApiError(f"can't lock file '/var/lock/qemu-server/lock-{vmid}.conf' - got timeout") from None
