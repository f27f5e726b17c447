# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Provider of PostgreSQL databases and roles."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    HostingError,
    MissingCommand,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import (
    catalogue,
    checks,
    inside,
    model,
    passwords,
    plan,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.apply import DATABASES_AT_ONCE, Run
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.catalogue import Facts, Snapshot
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import translated
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.dump import Dump, choose, installed
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    Actual,
    Desired,
    DesiredDatabase,
    DesiredRole,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.plan import ItemChange, Policy, Setting
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.session import Session
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Applied, Plan

# how often a run goes on after its connection was lost
RETRIES = 1


@dataclass(frozen=True)
class Look:
    """How closely a run looks.

    :param extensions: ``always`` looks into every database, ``recorded`` only where the shared catalogue proves too
        little.
    """

    extensions: Literal["recorded", "always"] = "recorded"
    passwords: passwords.Check = "auto"


class PostgresqlDatabases:
    """Databases, their owners, further roles, isolation, grants, readers and extensions on one server.

    One connection reads the shared catalogues; a database is connected to only where these prove too little.

    :ivar dumps: final dumps of this run, by item.
    :ivar lost: how often the connection was lost while changes were made.
    """

    kind: ClassVar[str] = "postgresql_databases"

    def __init__(self, session: Session, policy: Policy | None = None, look: Look | None = None) -> None:
        self.dumps: dict[str, Dump] = {}
        self.lost = 0
        self._session = session
        self._policy = policy or Policy()
        self._look = look or Look()
        self._setting: Setting | None = None
        self._desired: Sequence[Desired] = ()

    def read(self, desired: Sequence[Desired]) -> Mapping[str, Actual]:
        try:
            return self._read(desired)
        except Unreachable:
            # reading has no effect: once more, with another connection
            return self._read(desired)

    def _read(self, desired: Sequence[Desired]) -> Mapping[str, Actual]:
        connection = self._session.connection()
        valid = [item for item in desired if _passes(checks.check, item)]
        with translated(self._session.server.where):
            facts = catalogue.facts(connection)
            snapshot = catalogue.snapshot(connection, facts, valid)
            secrets = self._passwords(facts, snapshot, valid)
        found = _by_item(snapshot, valid, secrets)
        unlisted = {item.key for item in plan.unlisted(desired, found, self._policy)}
        found = _by_item(snapshot, valid, secrets, unlisted)
        found |= self._insides(facts, valid, found)
        missing = plan.missing_extensions(valid, found)
        with translated(self._session.server.where):
            untrusted = catalogue.untrusted(connection, missing) if missing else {}
        compares = passwords.by_catalogue(facts, self._look.passwords)
        self._setting = Setting(facts, compares, snapshot.known, untrusted, _no_dump(self._policy, facts, valid))
        return {key: actual for key, actual in found.items() if actual.role is not None or actual.database is not None}

    def plan(self, desired: Sequence[Desired], actual: Mapping[str, Actual]) -> Plan[Desired, Actual]:
        self._desired = desired
        return plan.plan(desired, actual, self._read_setting(), self._policy)

    def apply(self, changes: Sequence[ItemChange]) -> Iterator[Applied[Desired, Actual]]:
        errors: dict[str, HostingError] = {}
        left = list(changes)
        for attempt in range(RETRIES + 1):
            gone = self._pass(left, errors)
            if gone is None:
                break
            self.lost += 1
            try:
                left = self._planned_again(left, errors)
            except HostingError as error:
                errors |= {change.name: error for change in left if change.name not in errors}
                break
            if attempt == RETRIES:
                errors |= dict.fromkeys((change.name for change in left), gone)
        for change in changes:
            yield Applied(change, errors.get(change.name))

    def outputs(self, actual: Actual) -> Mapping[str, Any]:
        database = actual.database
        if database is None:
            return {"kind": "role", "retired_since": _since(actual.role.comment if actual.role else None)}
        return {
            "kind": "database",
            "owner": database.owner,
            "size_bytes": database.size_bytes,
            "collation_outdated": database.collation_outdated,
            "retired_since": _since(database.comment),
        }

    def open_to_all(self) -> tuple[str, ...]:
        """The maintenance databases that every role of the server may connect to."""
        return self._read_setting().facts.open_to_all

    def dump_outputs(self) -> dict[str, dict[str, Any]]:
        """The final dumps as the module returns them."""
        return {
            key: {**asdict(dump), "path": str(dump.path), "manifest": str(dump.manifest)}
            for key, dump in self.dumps.items()
        }

    def _read_setting(self) -> Setting:
        if self._setting is None:
            raise ValueError("read comes before plan and apply")
        return self._setting

    def _pass(self, changes: Sequence[ItemChange], errors: dict[str, HostingError]) -> HostingError | None:
        """Make *changes*; returns why the connection was lost in between, if so."""
        run: Run | None = None
        try:
            run = Run(self._session.server, self._session.connection(), self._read_setting().facts, self._policy)
            run.make(changes)
            return next(iter(run.lost.values()), None)
        except HostingError as error:
            return error
        finally:
            if run is not None:
                errors |= run.errors
                self.dumps |= run.dumps

    def _planned_again(self, changes: Sequence[ItemChange], errors: dict[str, HostingError]) -> list[ItemChange]:
        """What is left of *changes* according to what the server has now."""
        again = self.plan(self._desired, self.read(self._desired))
        names = {change.name for change in changes} - errors.keys()
        errors |= {refusal.name: refusal.error for refusal in again.refusals if refusal.name in names}
        return [change for change in again.pending() if change.name in names]

    def _passwords(self, facts: Facts, snapshot: Snapshot, desired: Sequence[Desired]) -> dict[str, passwords.Password]:
        wishes = {
            role.name: role
            for role in (item.role() if isinstance(item, DesiredDatabase) else item for item in desired)
            if role.state == "present"
        }
        if passwords.by_catalogue(facts, self._look.passwords):
            return passwords.compared(list(wishes.values()), snapshot.roles)
        connection = self._session.connection()
        return passwords.tried(self._session.server, connection, list(wishes.values()), snapshot.roles)

    def _insides(self, facts: Facts, desired: Sequence[Desired], found: Mapping[str, Actual]) -> dict[str, Actual]:
        """The items with what their databases have inside."""
        known: dict[str, Actual] = {}
        to_look: list[tuple[DesiredDatabase, Actual]] = []
        for item in desired:
            actual = found[item.key]
            if isinstance(item, DesiredRole) or actual.database is None or item.state != "present":
                continue
            # a database that refuses connections was never finished, so it has nothing yet
            if not actual.database.allows_connections:
                continue
            proved = inside.deduced(item, actual.database, facts)
            closely = self._look.extensions == "always" and (item.extensions or item.readers is not None)
            if proved is not None and not closely:
                known[item.key] = replace(actual, inside=proved)
            elif _passes(checks.check_ownership, item, actual, facts.login):
                to_look.append((item, actual))

        def look(pair: tuple[DesiredDatabase, Actual]) -> Actual:
            item, actual = pair
            try:
                with self._session.server.connect(item.name) as connection:
                    return replace(actual, inside=inside.look(connection, item, facts))
            except HostingError as error:
                # the owner may have shut us out; the run lets us in again and looks then
                return actual if _shut_out(item, actual, facts) else replace(actual, problem=error)

        with ThreadPoolExecutor(DATABASES_AT_ONCE) as pool:
            looked = pool.map(look, to_look)
            return known | {item.key: actual for (item, _before), actual in zip(to_look, looked, strict=True)}


def _by_item(
    snapshot: Snapshot,
    desired: Sequence[Desired],
    secrets: Mapping[str, passwords.Password],
    unlisted: Collection[str] = (),
) -> dict[str, Actual]:
    """What the server has of each desired item, and of ours that nobody desires.

    :param unlisted: items that are to be retired because nobody desires them.
    """
    owned, serving = _needed(snapshot, [item for item in desired if isinstance(item, DesiredDatabase)], unlisted)

    def of(role: str, database: str | None) -> Actual:
        known = secrets.get(role, "not managed")
        return Actual(
            role=snapshot.roles.get(role),
            database=snapshot.databases.get(database) if database is not None else None,
            owns_others=bool(owned.get(role, set()) - {database}),
            serves_others=bool(serving.get(role, set()) - {database}),
            password="differs" if isinstance(known, HostingError) else known,
            problem=known if isinstance(known, HostingError) else None,
        )

    marked = {name for name, role in snapshot.roles.items() if model.mark_of(role.comment) is not None}
    ours = {name: of(database.owner, name) for name, database in snapshot.databases.items() if database.owner in marked}
    ours |= {model.role_key(name): of(name, None) for name in marked - owned.keys()}
    return ours | {
        item.key: of(item.owner, item.name) if isinstance(item, DesiredDatabase) else of(item.name, None)
        for item in desired
    }


def _needed(
    snapshot: Snapshot, desired: Sequence[DesiredDatabase], unlisted: Collection[str]
) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """By owner: the databases that it owns or is about to own after the run, and those of them that are in service."""
    states = {item.name: item.state for item in desired}
    owners = {name: database.owner for name, database in snapshot.databases.items()}
    owners |= {item.name: item.owner for item in desired if item.state == "present" and item.name not in owners}
    owned: dict[str, set[str]] = {}
    serving: dict[str, set[str]] = {}
    for name, owner in owners.items():
        there = snapshot.databases.get(name)
        record = model.record_of(there.comment) if there is not None else None
        is_retired = name in unlisted or (record is not None and record.retired is not None)
        state = states.get(name, "retired" if is_retired else "present")
        if state != "absent":
            owned.setdefault(owner, set()).add(name)
        if state == "present":
            serving.setdefault(owner, set()).add(name)
    return owned, serving


def _no_dump(policy: Policy, facts: Facts, desired: Sequence[Desired]) -> HostingError | None:
    """Why no final dump can be made, if one is wanted."""
    if policy.dump_dir is None or all(item.state != "absent" for item in desired):
        return None
    try:
        choose(installed(), facts.version // 10000)
    except MissingCommand as error:
        return error
    return None


def _shut_out(item: DesiredDatabase, actual: Actual, facts: Facts) -> bool:
    """Whether the database, as its owner has set it, may refuse us, and the run changes that."""
    database = actual.database
    if facts.superuser or database is None:
        return False
    return database.conn_limit != item.conn_limit or database.access.get(item.owner) != model.ALL_PRIVILEGES


def _since(comment: str | None) -> str | None:
    record = model.record_of(comment)
    return None if record is None else record.retired


def _passes(check: Callable[..., None], *arguments: object) -> bool:
    try:
        check(*arguments)
    except HostingError:
        return False
    return True
