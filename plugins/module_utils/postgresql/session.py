# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one connection of a run, and the lock that keeps other runs out from reading to reading back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

try:
    import psycopg
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Locked, Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import (
    LOCK_SECONDS,
    Server,
    translated,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import MARK_PREFIX

if TYPE_CHECKING:
    Connection: TypeAlias = psycopg.Connection[dict[str, Any]]

# how long a server may take to come back
RESTART_SECONDS = 30
PAUSE_SECONDS = 0.5
# any constant that other users of advisory locks will not choose: "fedi" in ASCII
LOCK_KEY = 0x66656469

HOLDERS = """
SELECT a.pid, r.rolname FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_roles r ON r.oid = a.usesysid
WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = 0 AND l.objid = %(key)s AND l.objsubid = 1 AND a.pid <> pg_backend_pid()
"""

# Whoever may connect can take the lock. The roles that we make can make no runs, so it is not theirs to hold.
END_TENANTS = f"""
SELECT rolname, pg_terminate_backend(pid) FROM ({HOLDERS}) holder
WHERE starts_with((SELECT shobj_description(oid, 'pg_authid') FROM pg_roles r WHERE r.rolname = holder.rolname),
                  %(prefix)s) AND pg_has_role(rolname, 'USAGE')
"""


class Session:
    """A connection to the maintenance database that holds the lock; made anew when it was lost.

    :ivar server: its version known.
    :ivar waited: seconds for which another run held the lock.
    :ivar ended: roles of ours that held the lock, as no run does, and whose sessions were ended.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.ended: tuple[str, ...] = ()
        self.waited = 0.0
        self._connection = self._open()

    def connection(self) -> Connection:
        """The connection; a lost one is replaced, for which a server that restarts is waited for.

        :raises Unreachable: it does not come back.
        :raises Locked: another run took the lock meanwhile and keeps it.
        """
        try:
            self._connection.execute("SELECT")
        except psycopg.OperationalError:
            self._connection.close()
            self._connection = self._reopen()
        return self._connection

    def close(self) -> None:
        self._connection.close()

    def _reopen(self) -> Connection:
        deadline = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                return self._open()
            except Unreachable:
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE_SECONDS)

    def _open(self) -> Connection:
        with translated(self.server.where):
            connection = self.server.open()
            try:
                self.server = replace(self.server, version=connection.info.server_version)
                self._lock(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _lock(self, connection: Connection) -> None:
        row = connection.execute("SELECT pg_try_advisory_lock(%s) AS held", [LOCK_KEY]).fetchone()
        if row is not None and row["held"]:
            return
        began = time.monotonic()
        parameters = {"key": LOCK_KEY, "prefix": MARK_PREFIX}
        self.ended += tuple(row["rolname"] for row in connection.execute(END_TENANTS, parameters))
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
        except psycopg.errors.LockNotAvailable:
            holders = [f"{row['rolname']} (process {row['pid']})" for row in connection.execute(HOLDERS, parameters)]
            raise Locked(
                "another run is changing this server",
                where=self.server.where,
                hint=f"Waited {LOCK_SECONDS} s for the lock of {', '.join(holders) or 'somebody'}; run again later",
            ) from None
        if not self.ended:
            self.waited += time.monotonic() - began


@contextmanager
def session(server: Server) -> Iterator[Session]:
    """A session while the block runs: no other run can read, plan or change anything meanwhile."""
    opened = Session(server)
    try:
        yield opened
    finally:
        opened.close()
