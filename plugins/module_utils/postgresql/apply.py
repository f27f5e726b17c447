# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The run: all changes of a plan, step by step, many databases at a time; what is lost with a connection is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

try:
    import psycopg
    from psycopg import sql
    from psycopg.pq import TransactionStatus
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    HostingError,
    InvalidInput,
    Locked,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import inside, plan, shown, statements
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.catalogue import Facts
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.checks import title
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server, translated
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.dump import Dump, final_dump
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    ALL_PRIVILEGES,
    PUBLIC,
    Actual,
    Desired,
    DesiredDatabase,
    DesiredRole,
    Inside,
    Record,
    record_of,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.plan import ItemChange, Policy

if TYPE_CHECKING:
    Connection: TypeAlias = psycopg.Connection[dict[str, Any]]

# CREATE DATABASE and CREATE EXTENSION keep a processor of the server busy; each takes up to two connections
DATABASES_AT_ONCE = 4

END_SESSIONS = """
SELECT pg_terminate_backend(pid), rolsuper FROM pg_stat_activity JOIN pg_roles ON pg_roles.oid = usesysid
WHERE (datname = %(database)s OR usename = %(role)s) AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
# how long sessions may take to end, and how often that is looked at
END_SECONDS = 10.0
# sessions that come back before they are shut out may take a lock again
RETIRE_ATTEMPTS = 6
RETIRE_LOCK = "SET LOCAL lock_timeout = '10s'"
PAUSE_SECONDS = 0.05

# one step of an item: its connection, the wish, and what was there before the run
Step: TypeAlias = Callable[["Connection", Any, Actual], None]


class Run:
    """One pass over the changes.

    :ivar errors: by item; the others are done unless they are lost.
    :ivar lost: items whose connection broke, so that what was sent last may have been done or not.
    :ivar dumps: by item.
    """

    def __init__(self, server: Server, connection: Connection, facts: Facts, policy: Policy) -> None:
        self.errors: dict[str, HostingError] = {}
        self.lost: dict[str, HostingError] = {}
        self.dumps: dict[str, Dump] = {}
        self._server, self._connection, self._facts, self._policy = server, connection, facts, policy

    def make(self, changes: Sequence[ItemChange]) -> None:
        """Make all changes; an error stays with its item, unless the connection of the run is gone."""
        drops = [one for one in changes if one.action == "delete"]
        retirements = [one for one in changes if one.action != "delete" and _wish(one).state == "retired"]
        saves = [one for one in changes if one.action != "delete" and _wish(one).state == "present"]
        databases = [one for one in saves if isinstance(one.desired, DesiredDatabase)]
        self._each([*drops, *retirements], self._retire)
        self._each([one for one in drops if isinstance(one.desired, DesiredDatabase)], self._drop_database)
        with translated(self._server.where), self._connection.transaction():
            self._each(_one_per_role(saves), self._save_role)
            self._each([one for one in saves if isinstance(one.desired, DesiredRole)], self._save_memberships)
        if any(self._needs_worker(one) for one in databases):
            self._at_once(databases)
        else:
            with translated(self._server.where), self._connection.transaction():
                self._each(databases, self._save_database)
        # last: what still names a role is gone by now
        self._each(_one_per_role(drops), self._drop_role)

    def _each(self, changes: Iterable[ItemChange], step: Step) -> None:
        for change in changes:
            self._take(self._connection, change, step)
            if self._connection.broken:
                raise self.lost.get(change.name) or Unreachable("the connection is gone", where=self._server.where)

    def _take(self, connection: Connection, change: ItemChange, *steps: Step) -> None:
        """Take steps of one item, unless it has failed before."""
        wish = _wish(change)
        if change.name in self.errors or change.name in self.lost:
            return
        try:
            with translated(title(wish)):
                for step in steps:
                    step(connection, wish, change.actual or plan.missing(wish))
        except Unreachable as error:
            self.lost[change.name] = error
        except HostingError as error:
            self.errors[change.name] = error

    def _at_once(self, changes: Sequence[ItemChange]) -> None:
        """Each database by one of several workers, with a connection to the maintenance database each."""
        free: SimpleQueue[Connection] = SimpleQueue()

        def work(change: ItemChange) -> None:
            connection = free.get()
            try:
                self._take(connection, change, self._create_database, self._save_database_at_once, self._mend_inside)
            finally:
                free.put(connection)

        with ExitStack() as stack:
            workers = min(DATABASES_AT_ONCE, len(changes))
            for _number in range(workers):
                free.put(stack.enter_context(self._server.connect()))
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(work, changes))

    def _needs_worker(self, change: ItemChange) -> bool:
        wish = _database(change)
        actual = change.actual or plan.missing(wish)
        return actual.database is None or plan.needs_inside(wish, actual, self._facts)

    def _save_role(self, connection: Connection, item: Desired, actual: Actual) -> None:
        role = item.role() if isinstance(item, DesiredDatabase) else item
        _execute(connection, statements.save_role(role, actual, self._facts))

    def _save_memberships(self, connection: Connection, item: DesiredRole, actual: Actual) -> None:
        _execute(connection, statements.save_memberships(item, actual.role, self._facts))

    def _create_database(self, connection: Connection, item: DesiredDatabase, actual: Actual) -> None:
        if actual.database is None:
            connection.execute(statements.create_database(item, self._facts))

    def _save_database_at_once(self, connection: Connection, item: DesiredDatabase, actual: Actual) -> None:
        with connection.transaction():
            self._save_database(connection, item, actual)

    def _save_database(self, connection: Connection, item: DesiredDatabase, actual: Actual) -> None:
        """Isolate, limit, mark and open the database."""
        database = actual.database
        # what CREATE DATABASE has just made
        access = {PUBLIC: frozenset({"CONNECT", "TEMPORARY"}), item.owner: ALL_PRIVILEGES}
        if database is not None:
            access = dict(database.access)
        todo = statements.change_access(item.name, access, shown.access_wanted(item, actual))
        if database is not None and database.conn_limit != item.conn_limit:
            todo.append(statements.limit_connections(item.name, item.conn_limit))
        record = record_of(database.comment) if database is not None else None
        if record is None or record.retired is not None:
            extensions = record.extensions if record is not None else {}
            todo.append(statements.comment("DATABASE", item.name, Record(item.mark, extensions=extensions)))
        if database is None or not database.allows_connections:
            todo.append(statements.open_database(item.name))
        _execute(connection, todo)

    def _mend_inside(self, _maintenance: Connection, item: DesiredDatabase, actual: Actual) -> None:
        if plan.needs_inside(item, actual, self._facts):
            before = actual.inside or Inside(public_open=inside.closes_public(self._facts))
            with self._server.connect(item.name) as connection:
                if actual.database is not None and actual.inside is None:
                    before = inside.look(connection, item, self._facts)
                inside.mend(connection, item, before, self._facts)

    def _retire(self, connection: Connection, item: Desired, actual: Actual) -> None:
        """Let nobody in any more, and whoever is in out; all data stays."""
        for left in reversed(range(RETIRE_ATTEMPTS)):
            # first: a transaction that one of them holds open could keep us waiting
            _end(connection, item, actual)
            try:
                self._shut(connection, item, actual)
                break
            except psycopg.errors.LockNotAvailable:
                if not left:
                    raise
        _end_sessions(connection, item, actual)

    def _shut(self, connection: Connection, item: Desired, actual: Actual) -> None:
        since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        role, database = actual.role, actual.database
        with connection.transaction():
            connection.execute(RETIRE_LOCK)
            if role is not None and not actual.serves_others:
                wish = item.role() if isinstance(item, DesiredDatabase) else item
                _execute(connection, statements.retire_role(wish, role, _since(role.comment) or since))
            if database is not None:
                record = record_of(database.comment) or Record(item.mark)
                retired = Record(item.mark, _retired_since(actual) or since, record.extensions)
                _execute(
                    connection,
                    [
                        *statements.change_access(item.name, database.access, shown.access_retired(database)),
                        statements.comment("DATABASE", item.name, retired),
                    ],
                )

    def _drop_database(self, connection: Connection, item: DesiredDatabase, actual: Actual) -> None:
        """Drop it after its final dump; meanwhile it is ours, so that nobody can open it again."""
        if actual.database is None:
            return
        login = self._facts.login
        connection.execute(statements.give_database(item.name, login))
        try:
            _end_sessions(connection, item, actual)
            if self._policy.dump_dir is not None:
                self._dump(connection, item, self._policy.dump_dir)
            connection.execute(statements.allow_drop(item.name))
            connection.execute(statements.drop_database(item.name))
        except (HostingError, psycopg.Error):
            if not connection.broken and actual.role is not None:
                todo = statements.change_access(item.name, {login: frozenset({"CONNECT"})}, {})
                _execute(connection, [*todo, statements.give_database(item.name, item.owner)])
            raise

    def _dump(self, connection: Connection, item: DesiredDatabase, directory: Path) -> None:
        # retiring has shut out everybody but superusers, and its owner may have shut out these too
        todo = [statements.open_database(item.name)]
        if not self._facts.superuser:
            access = {self._facts.login: frozenset({"CONNECT"})}
            todo += [
                *statements.change_access(item.name, {}, access),
                statements.limit_connections(item.name, -1),
            ]
        _execute(connection, todo)
        self.dumps[item.key] = final_dump(self._server, item.name, item.owner, directory, self._policy.dump_jobs)

    def _drop_role(self, connection: Connection, item: Desired, actual: Actual) -> None:
        role = actual.role
        if role is None or actual.owns_others:
            return
        for database in role.privileges_in:
            with self._server.connect(database) as elsewhere:
                elsewhere.execute(statements.drop_owned(role.name))
        _execute(connection, statements.drop_role(role.name))


def _execute(connection: Connection, todo: Sequence[sql.Composed]) -> None:
    """All statements in one round trip, and all of them or none."""
    if not todo:
        return
    if connection.info.transaction_status == TransactionStatus.IDLE:
        connection.execute(sql.SQL("; ").join(todo), prepare=False)
        return
    try:
        enclosed = [sql.SQL("SAVEPOINT fediversity"), *todo, sql.SQL("RELEASE fediversity")]
        connection.execute(sql.SQL("; ").join(enclosed), prepare=False)
    except psycopg.Error:
        if not connection.broken:
            connection.execute("ROLLBACK TO fediversity", prepare=False)
        raise


def _end_sessions(connection: Connection, item: Desired, actual: Actual) -> None:
    """End all sessions in a database, and those of a role that nothing else needs, and see them gone.

    :raises Locked: one of them does not end.
    """
    deadline = time.monotonic() + END_SECONDS
    while _end(connection, item, actual):
        if time.monotonic() > deadline:
            raise Locked("a session does not end", where=title(item), hint="Run again later")
        time.sleep(PAUSE_SECONDS)


def _end(connection: Connection, item: Desired, actual: Actual) -> bool:
    """Tell these sessions to end; whether there was one that is not of a superuser, who may come back at once."""
    role = actual.role.name if actual.role is not None and not actual.serves_others else None
    database = item.name if isinstance(item, DesiredDatabase) else None
    rows = connection.execute(END_SESSIONS, {"database": database, "role": role}).fetchall()
    return not all(row["rolsuper"] for row in rows)


def _retired_since(actual: Actual) -> str | None:
    """Since when a database has been retired; its comment alone proves nothing while it was open, and says anything."""
    role, database = actual.role, actual.database
    if role is not None and not actual.serves_others:
        return _since(role.comment)
    closed = database is not None and not any("CONNECT" in what for what in database.access.values())
    return _since(database.comment) if database is not None and closed else None


def _since(comment: str | None) -> str | None:
    record = record_of(comment)
    return None if record is None else record.retired


def _one_per_role(changes: Sequence[ItemChange]) -> list[ItemChange]:
    """One change for every role: several databases may have the same owner, wanted in the same way."""
    return list({_role_name(_wish(change)): change for change in reversed(changes)}.values())[::-1]


def _role_name(item: Desired) -> str:
    return item.owner if isinstance(item, DesiredDatabase) else item.name


def _wish(change: ItemChange) -> Desired:
    if change.desired is None:
        raise InvalidInput("a change without a desired state", where=change.name)
    return change.desired


def _database(change: ItemChange) -> DesiredDatabase:
    wish = _wish(change)
    if isinstance(wish, DesiredRole):
        raise InvalidInput("a role in place of a database", where=change.name)
    return wish
