# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Provider of the ACL users of one Valkey or Redis server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput, Locked
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Applied, Change, Plan, Refusal
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey import client, model
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.model import ActualUser, DesiredUser
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.persistence import Persistence, persistence
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.rules import Access, Commands, access
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.shown import shown, shown_wish

UserChange: TypeAlias = Change[DesiredUser, ActualUser]
# what a wish means on this server, or why the server refuses it
Meaning: TypeAlias = Access | HostingError

if TYPE_CHECKING:
    import redis

    # reads all users of the server and finds the meaning of some wishes, by name
    Look: TypeAlias = Callable[
        [redis.Redis, str, Commands, Sequence[DesiredUser]], tuple[dict[str, ActualUser], dict[str, Meaning]]
    ]


def by_probe(
    connection: redis.Redis, where: str, table: Commands, wishes: Sequence[DesiredUser]
) -> tuple[dict[str, ActualUser], dict[str, Meaning]]:
    """Let the server itself say what the wishes mean: it makes users of them that nobody sees."""
    rules = [model.access_rules(item, table) for item in wishes]
    users, probes = client.users_and_probes(connection, where, rules)
    return users, {
        item.name: probe if isinstance(probe, HostingError) else access(probe.rules, table)
        for item, probe in zip(wishes, probes, strict=True)
    }


def by_computation(
    connection: redis.Redis, where: str, table: Commands, wishes: Sequence[DesiredUser]
) -> tuple[dict[str, ActualUser], dict[str, Meaning]]:
    """Compute what the wishes mean, without writing anything: for check mode."""
    return client.users(connection, where), {item.name: model.wanted_access(item, table) for item in wishes}


class ValkeyUsers:
    """ACL users of one server, over one connection."""

    kind: ClassVar[str] = "valkey_users"

    def __init__(self, server: client.Server, look: Look) -> None:
        self._where = str(server)
        self._connection = server.connect()
        self._look = look
        self._meanings: Mapping[str, Meaning] = {}

    @cached_property
    def facts(self) -> client.Facts:
        """What does not change during the run."""
        return client.facts(self._connection, self._where)

    def read(self, desired: Sequence[DesiredUser]) -> Mapping[str, ActualUser]:
        table = self.facts.table
        wishes = [item for item in desired if item.state == "present" and self._problem(item) is None]
        users, self._meanings = self._look(self._connection, self._where, table, wishes)
        wanted = {item.name for item in desired}
        return {name: user for name, user in users.items() if name in wanted or model.mark_of(user, table) is not None}

    def plan(self, desired: Sequence[DesiredUser], actual: Mapping[str, ActualUser]) -> Plan[DesiredUser, ActualUser]:
        changes: list[UserChange] = []
        refusals = {name: Refusal(name, error) for name, error in model.conflicts(desired).items()}
        for item in desired:
            if item.name in refusals:
                continue
            try:
                changes.append(self._change(item, actual.get(item.name)))
            except HostingError as error:
                refusals[item.name] = Refusal(item.name, error)
        return Plan(tuple(changes), tuple(refusals.values()))

    def apply(self, changes: Sequence[UserChange]) -> Iterator[Applied[DesiredUser, ActualUser]]:
        now, states = client.users_and_states(self._connection, self._where, [change.name for change in changes])
        mine = [
            (change, state)
            for change, state in zip(changes, states, strict=True)
            if change.actual == now.get(change.name)
        ]
        commands = [(change.name, self._command(change)) for change, _state in mine]
        done = client.swap(self._connection, self._where, commands)
        errors: dict[str, HostingError | None] = {change.name: _not_tried(change.name) for change in changes}
        for (change, state), (before, reply) in zip(mine, done, strict=True):
            errors[change.name] = _error(change.name, state, before, reply)
        errors |= self._disconnect([change for change, _state in mine if errors[change.name] is None])
        for change in changes:
            yield Applied(change, errors[change.name])

    def outputs(self, actual: ActualUser) -> Mapping[str, Any]:
        return {"enabled": actual.enabled}

    def persistence(self) -> Persistence:
        """How the server would keep its users over a restart."""
        return persistence(self.facts)

    def save(self) -> Persistence:
        """Have the server write its users to its file.

        Also after a run without changes: nothing tells whether an earlier run came that far.
        """
        way = self.persistence()
        if way.command is None:
            return way
        try:
            client.needed(client.ask(self._connection, self._where, [way.command])[0])
        except HostingError as error:
            return way.failed(error)
        return way.done()

    def _change(self, item: DesiredUser, actual: ActualUser | None) -> UserChange:
        """The change that one item needs.

        :raises HostingError: the item is refused.
        """
        facts = self.facts
        problem = self._problem(item)
        if problem is not None:
            raise problem
        model.check_ownership(item, actual, facts.login_user, facts.table)
        if item.state == "absent":
            before = {} if actual is None else shown(item, actual, facts.table)
            return Change(item.name, "unchanged" if actual is None else "delete", before, {}, item, actual)
        meaning = self._meanings[item.name]
        if isinstance(meaning, HostingError):
            raise InvalidInput(meaning.what, where=f"user {item.name!r}", hint="Correct its rules")
        after = shown_wish(item, facts.table)
        if actual is None:
            return Change(item.name, "create", {}, after, item, None)
        same = _fits(item, actual) and access(actual.rules, facts.table) == meaning
        before = after if same else shown(item, actual, facts.table)
        return Change(item.name, "unchanged" if same else "update", before, after, item, actual)

    def _command(self, change: UserChange) -> client.Command:
        item = change.desired
        if item is None or change.action == "delete":
            return ("ACL", "DELUSER", change.name)
        return ("ACL", "SETUSER", item.name, *model.save_rules(item, change.actual, self.facts.table))

    def _disconnect(self, changes: Sequence[UserChange]) -> dict[str, HostingError]:
        """End the sessions of those who were disabled, whom the server lets go on; the errors by name."""
        names = [
            change.name
            for change in changes
            if change.actual is not None and change.actual.enabled and change.action == "update" and _disables(change)
        ]
        replies = client.ask(self._connection, self._where, [("CLIENT", "KILL", "USER", name) for name in names])
        return {name: reply for name, reply in zip(names, replies, strict=True) if isinstance(reply, HostingError)}

    def _problem(self, item: DesiredUser) -> HostingError | None:
        """Why the item is refused, whatever the server has of it."""
        try:
            model.check(item)
            if item.state == "present":
                model.check_table(item, self.facts.table)
        except HostingError as error:
            return error
        return None


def _fits(item: DesiredUser, actual: ActualUser) -> bool:
    """Whether state and passwords are as wanted."""
    passwords = item.hashes is None or actual.hashes == frozenset(item.hashes)
    return actual.enabled == item.enabled and not actual.no_password and passwords


def _disables(change: UserChange) -> bool:
    return change.desired is not None and not change.desired.enabled


def _not_tried(name: str) -> HostingError:
    what = "another run changed it after this one had planned"
    return Locked(what, where=f"user {name!r}", hint="Run again")


def _error(name: str, expected: client.Reply, before: client.Reply, reply: client.Reply) -> HostingError | None:
    """What went wrong with a change; *before* is the state that it has replaced."""
    if isinstance(reply, HostingError):
        return reply
    if before == expected:
        return None
    what = "another run changed it in the same moment, and this one has overwritten that"
    return Locked(what, where=f"user {name!r}", hint="Run the other one again if its change was wanted")
