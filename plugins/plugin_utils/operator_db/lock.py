# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run at a time over an operator database.

Ansible's main process runs no code of ours and its workers end with their task, so a keeper process holds the lock
until the main process ends, however it ends: ``kill -9`` leaves nothing behind. The lock is one of the kernel (flock(2)
on ``<database file>.lock``) or one of a session of the PostgreSQL server (pg_advisory_lock).
"""

from __future__ import annotations

import fcntl
import getpass
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, HostingError, Locked
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import (
    ADVISORY_LOCK,
    describe,
    typed_errors,
)

try:
    from sqlalchemy import Engine, text
except ImportError:
    pass  # libraries.require() reports it before any use

Attempt = Callable[[], tuple[bool, str]]
"""Tries to take the lock; whether that was done, and who has it now."""

RETRY_MILLISECONDS = 500
TELL_SECONDS = 10
# an idle connection may be taken for dead by a firewall
TOUCH_MILLISECONDS = 30_000
NAME_BYTES = 63  # of PostgreSQL's application_name

TAKE = "SELECT pg_try_advisory_lock(:number, 1)"
HOLDER = (
    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND classid = :number AND objid = 1 AND objsubid = 2"
    " AND datname = current_database()"
)


def hold(engine: Engine, process: int, timeout: float, progress: Callable[[str], None]) -> None:
    """Take the lock for *process* (the id of Ansible's main process), which has it until it ends.

    Taking it again for the same process does nothing.

    :param timeout: seconds to wait for another run.
    :param progress: is told every ten seconds who is waited for.
    :raises Locked: another run still has it.
    :raises BackendError: the lock cannot be reached.
    """
    heard, said = os.pipe()
    if os.fork() == 0:
        _keep(engine, process, timeout, said)
    os.close(said)
    with os.fdopen(heard, encoding="utf-8") as stream:
        for line in stream:
            word, _blank, rest = line.rstrip("\n").partition(" ")
            if word == "held":
                return
            if word == "refused":
                raise Locked(
                    f"another run works with this operator database: {rest}",
                    where=describe(engine),
                    hint="Run again when it has ended",
                )
            if word == "failed":
                raise BackendError(f"the lock against other runs cannot be taken: {rest}")
            progress(f"waiting for another run to end: {rest}")
    raise BackendError("the lock against other runs cannot be taken: its keeper died", where=describe(engine))


def _keep(engine: Engine, process: int, timeout: float, said: int) -> NoReturn:
    """The keeper process: says how the attempt went, line by line, and stays for as long as it has the lock."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        main = os.pidfd_open(process)
        engine.dispose(close=False)  # its connections belong to the process that forked this one
        _let_go_of_everything_but(said, main)
        with typed_errors(engine):
            _wait_and_hold(engine, process, timeout, said, main)
        code = 0
    except (OSError, HostingError) as error:
        with suppress(OSError):
            os.write(said, f"failed {' '.join(str(error).split())}\n".encode())
    finally:
        os._exit(code)


def _wait_and_hold(engine: Engine, process: int, timeout: float, said: int, main: int) -> None:
    mine = _name(process)
    ended = select.poll()
    ended.register(main, select.POLLIN)
    end, told = time.monotonic() + timeout, float("-inf")
    with (_file_lock if engine.dialect.name == "sqlite" else _server_lock)(engine, mine) as attempt:
        while True:
            taken, holder = attempt()
            if holder == mine:
                break
            now = time.monotonic()
            if now >= end:
                os.write(said, f"refused {holder}\n".encode())
                return
            if now - told >= TELL_SECONDS:
                os.write(said, f"waiting {holder}\n".encode())
                told = now
            if ended.poll(RETRY_MILLISECONDS):
                return
        os.write(said, b"held\n")
        os.close(said)
        while taken and not ended.poll(TOUCH_MILLISECONDS):
            attempt()


@contextmanager
def _file_lock(engine: Engine, mine: str) -> Iterator[Attempt]:
    descriptor = os.open(f"{engine.url.database}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def attempt() -> tuple[bool, str]:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False, os.pread(descriptor, 1000, 0).decode(errors="replace") or "a run that has just begun"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, mine.encode(), 0)
        return True, mine

    try:
        yield attempt
    finally:
        os.close(descriptor)


@contextmanager
def _server_lock(engine: Engine, mine: str) -> Iterator[Attempt]:
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("SELECT set_config('application_name', :name, false)"), {"name": mine})

        def attempt() -> tuple[bool, str]:
            number = {"number": ADVISORY_LOCK}
            if connection.execute(text(TAKE), number).scalar_one():
                return True, mine
            return False, connection.execute(text(HOLDER), number).scalar() or "a run that has just ended"

        yield attempt


def _name(process: int) -> str:
    """Who runs, in words that are the same for every task of one run and for no other run."""
    # field 22 of proc_pid_stat(5), counted behind the name of the program, which may hold anything
    ticks = int(Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    since_boot = ticks / os.sysconf("SC_CLK_TCK")
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
    clock = time.strftime("%H:%M", time.localtime(started))
    name = f"process {process}.{ticks} since {clock} of {getpass.getuser()}@{socket.gethostname()}"
    return name.encode("ascii", "replace")[:NAME_BYTES].decode()


def _let_go_of_everything_but(*descriptors: int) -> None:
    """Whoever waits for the end of the run's output must not have to wait for the keeper."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    for found in map(int, os.listdir("/proc/self/fd")):
        if found > 2 and found not in descriptors:
            with suppress(OSError):
                os.close(found)
