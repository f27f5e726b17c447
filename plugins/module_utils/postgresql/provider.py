# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Provider of PostgreSQL databases and the roles that own them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput, Locked
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import client, model, scram, statements
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    Actual,
    ActualDatabase,
    ActualRole,
    DesiredDatabase,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Applied, Change, Plan, Refusal

if TYPE_CHECKING:
    import psycopg

    Connection: TypeAlias = psycopg.Connection[dict[str, Any]]

DatabaseChange: TypeAlias = Change[DesiredDatabase, Actual]
# one step of an item: the wish, what was there before the run, and the connection
Step: TypeAlias = "Callable[[Connection, DesiredDatabase, Actual], None]"

NOTHING = Actual(role=None, database=None)


class PostgresqlDatabases:
    """Databases, their roles, isolation and extensions on one server.

    One connection reads the catalogues; a database is connected to only where extensions are wanted.
    """

    kind: ClassVar[str] = "postgresql_databases"

    def __init__(self, server: client.Server) -> None:
        self._server = server

    def read(self, desired: Sequence[DesiredDatabase]) -> Mapping[str, Actual]:
        valid = [item for item in desired if _passes(model.check, item)]
        with self._server.connect() as connection:
            found = _catalogue(connection, valid)
        for item in valid:
            actual = found.get(item.name, NOTHING)
            if item.extensions and item.state == "present" and _passes(model.check_ownership, item, actual):
                found[item.name] = self._with_extensions(item, actual)
        return {name: actual for name, actual in found.items() if actual != NOTHING}

    def plan(self, desired: Sequence[DesiredDatabase], actual: Mapping[str, Actual]) -> Plan[DesiredDatabase, Actual]:
        changes: list[DatabaseChange] = []
        refusals = {name: Refusal(name, error) for name, error in model.conflicts(desired).items()}
        for item in desired:
            if item.name in refusals:
                continue
            try:
                model.check(item)
                changes.append(_change(item, actual.get(item.name, NOTHING)))
            except HostingError as error:
                refusals[item.name] = Refusal(item.name, error)
        return Plan(tuple(changes), tuple(refusals.values()))

    def apply(self, changes: Sequence[DatabaseChange]) -> Iterator[Applied[DesiredDatabase, Actual]]:
        drops = [change for change in changes if change.action == "delete"]
        saves = [change for change in changes if change.action != "delete"]
        with self._server.connect() as connection:
            client.lock(connection)
            run = _Run(connection, changes)
            run.each(drops, _drop_database)
            with connection.transaction():
                run.each(_one_per_role(drops), _drop_role)
                run.each(_one_per_role(saves), _save_role)
            run.each(saves, _create_database)
            with connection.transaction():
                run.each(saves, _save_database)
            run.each(saves, self._create_extensions)
        for change in changes:
            yield Applied(change, run.errors.get(change.name))

    def outputs(self, actual: Actual) -> Mapping[str, Any]:
        if actual.database is None:
            return {}
        return {"owner": actual.database.owner, "size_bytes": actual.database.size_bytes}

    def _with_extensions(self, item: DesiredDatabase, actual: Actual) -> Actual:
        # a database that refuses connections was never finished, so it has none yet
        if actual.database is None or not actual.database.allows_connections:
            return actual
        try:
            with self._server.connect(item.name) as connection:
                return replace(actual, extensions=client.extensions(connection, item.extensions))
        except HostingError as error:
            return replace(actual, problem=error)

    def _create_extensions(self, _maintenance: Connection, item: DesiredDatabase, actual: Actual) -> None:
        if not actual.extensions.issuperset(item.extensions):
            with self._server.connect(item.name) as connection:
                for statement in statements.create_extensions(item):
                    connection.execute(statement)


class _Run:
    """One apply under the lock: every step is taken for all items that have not failed before."""

    def __init__(self, connection: Connection, changes: Sequence[DatabaseChange]) -> None:
        self._connection = connection
        self.errors: dict[str, HostingError] = {}
        now = _catalogue(connection, [_wish(change) for change in changes])
        for change in changes:
            planned, found = change.actual or NOTHING, now.get(change.name, NOTHING)
            if (planned.role, planned.database) != (found.role, found.database):
                self.errors[change.name] = Locked(
                    "another run changed it after this one had planned",
                    where=f"database {change.name!r}",
                    hint="Run again",
                )

    def each(self, changes: Iterable[DatabaseChange], step: Step) -> None:
        """Take one step; an error stays with its item, unless the connection is gone."""
        for change in changes:
            if change.name in self.errors:
                continue
            try:
                with client.translated(f"database {change.name!r}"):
                    step(self._connection, _wish(change), change.actual or NOTHING)
            except HostingError as error:
                if self._connection.broken:
                    raise
                self.errors[change.name] = error


def _drop_database(connection: Connection, item: DesiredDatabase, actual: Actual) -> None:
    if actual.database is not None:
        for statement in statements.drop_database(item):
            connection.execute(statement)


def _drop_role(connection: Connection, item: DesiredDatabase, actual: Actual) -> None:
    if actual.role is not None and not actual.role_needed:
        with connection.transaction():
            for statement in statements.drop_role(item):
                connection.execute(statement)


def _save_role(connection: Connection, item: DesiredDatabase, actual: Actual) -> None:
    with connection.transaction():
        for statement in statements.save_role(item, actual.role):
            connection.execute(statement)


def _create_database(connection: Connection, item: DesiredDatabase, actual: Actual) -> None:
    if actual.database is None:
        connection.execute(statements.create_database(item, connection.info.server_version))


def _save_database(connection: Connection, item: DesiredDatabase, actual: Actual) -> None:
    with connection.transaction():
        for statement in statements.save_database(item, actual.database):
            connection.execute(statement)


def _catalogue(connection: Connection, desired: Sequence[DesiredDatabase]) -> dict[str, Actual]:
    """The desired items, and databases with our mark that nobody desires."""
    wanted_owners = [item.owner for item in desired]
    roles = client.roles(connection, wanted_owners)
    databases = client.databases(connection, [item.name for item in desired], wanted_owners)
    leaving = {item.name for item in desired if item.state == "absent"}
    owners = {item.owner for item in desired if item.state == "present"}
    owners |= {database.owner for database in databases.values() if database.name not in leaving}
    ours = {name: Actual(None, found) for name, found in databases.items() if model.mark_of(found.comment) is not None}
    return ours | {
        item.name: Actual(roles.get(item.owner), databases.get(item.name), role_needed=item.owner in owners)
        for item in desired
    }


def _change(item: DesiredDatabase, actual: Actual) -> DatabaseChange:
    """The change that one item needs.

    :raises HostingError: the item is refused.
    """
    model.check_ownership(item, actual)
    before = _shown(item, actual)
    if item.state == "absent":
        gone = actual.database is None and (actual.role is None or actual.role_needed)
        return Change(item.name, "unchanged" if gone else "delete", {} if gone else before, {}, item, actual)
    if actual.problem is not None:
        raise actual.problem
    if actual.database is not None:
        model.check_reachable(item, actual.database)
    after = _shown_wish(item, actual)
    if actual.database is None:
        return Change(item.name, "create", before, after, item, actual)
    return Change(item.name, "unchanged" if before == after else "update", before, after, item, actual)


def _shown(item: DesiredDatabase, actual: Actual) -> dict[str, Any]:
    """What diff mode shows of the server, without passwords and verifiers."""
    shown: dict[str, Any] = {}
    if actual.role is not None:
        shown |= {
            "owner": actual.role.name,
            "role_attributes": sorted(name for name, held in actual.role.attributes.items() if held),
            "password": _shown_password(item, actual.role),
        }
    if actual.database is not None:
        shown |= {
            "owner": actual.database.owner,
            "encoding": actual.database.encoding,
            "locale": actual.database.collate,
            "conn_limit": actual.database.conn_limit,
            "access": _access(actual.database),
            "mark": model.mark_of(actual.database.comment),
            "extensions": sorted(actual.extensions),
        }
    return shown


def _shown_wish(item: DesiredDatabase, actual: Actual) -> dict[str, Any]:
    return {
        "owner": item.owner,
        "role_attributes": sorted(name for name, held in model.ROLE_ATTRIBUTES.items() if held),
        "password": "not managed" if item.password is None else "as wanted",
        "encoding": actual.database.encoding if actual.database else item.encoding,
        "locale": actual.database.collate if actual.database else item.locale or "as template0",
        "conn_limit": item.conn_limit,
        "access": "owner",
        "mark": item.mark,
        "extensions": list(item.extensions),
    }


def _shown_password(item: DesiredDatabase, role: ActualRole) -> str:
    if item.password is None:
        return "not managed"
    return "as wanted" if scram.matches(item.password, role.verifier) else "differs"


def _access(database: ActualDatabase) -> str:
    """Who may connect, besides superusers."""
    if not database.allows_connections or not database.owner_access:
        return "nobody"
    return "everybody" if database.public_access else "owner"


def _one_per_role(changes: Sequence[DatabaseChange]) -> list[DatabaseChange]:
    """One change for every role: several databases may have the same owner, wanted in the same way."""
    return list({_wish(change).owner: change for change in reversed(changes)}.values())[::-1]


def _wish(change: DatabaseChange) -> DesiredDatabase:
    if change.desired is None:
        raise InvalidInput("a change without a desired state", where=change.name)
    return change.desired


def _passes(check: Callable[..., None], *arguments: object) -> bool:
    try:
        check(*arguments)
    except HostingError:
        return False
    return True
