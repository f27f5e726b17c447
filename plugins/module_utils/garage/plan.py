# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decisions about all items of a run: their order, and those that stand in each other's way. No effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.bucket_plan import plan_bucket
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.key_plan import plan_key
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    Actual,
    ActualBucket,
    ActualKey,
    BucketRow,
    Desired,
    DesiredBucket,
    DesiredKey,
    key_item,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.moves import ordered
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Change, Plan, Refusal, Share


@dataclass(frozen=True)
class Surroundings:
    """What beside the items decides: all buckets (None: Garage does not tell us), and items that cannot be read."""

    rows: tuple[BucketRow, ...] | None = None
    problems: Mapping[str, HostingError] = field(default_factory=dict)

    def unnamed(self) -> list[dict[str, str]]:
        """Buckets that nobody can reach by a name: the remains of a crash, or of a deleted key."""
        rows = self.rows or ()
        return [{"id": row.id, "created": row.created} for row in rows if not row.aliases and not row.local_aliases]


def make_plan(
    desired: Sequence[Desired], actual: Mapping[str, Actual], surroundings: Surroundings
) -> Plan[Desired, Actual]:
    """Keys first, then buckets, then the keys that go; what cannot be done is refused by itself."""
    items = {wanted.item: wanted for wanted in desired}
    errors: dict[str, HostingError] = {**surroundings.problems, **_conflicts(desired, actual)}
    changes: list[Change[Desired, Actual]] = []
    key_ids = _known_key_ids(actual)
    # the sort is stable, and False comes before True
    for wanted in sorted(items.values(), key=lambda wanted: isinstance(wanted, DesiredBucket)):
        change = None
        if wanted.item not in errors:
            try:
                change = _plan_item(wanted, actual, key_ids, surroundings)
                changes.append(change)
            except HostingError as error:
                errors[wanted.item] = error
        if isinstance(wanted, DesiredKey):
            key_ids.pop(wanted.name, None)
            if change is not None and wanted.present:
                key_ids |= _id_after(wanted, change)
    changes, waiting = ordered(changes, surroundings.rows or ())
    errors |= waiting
    refusals = tuple(Refusal(item, errors[item]) for item in items if item in errors)
    return Plan(tuple(sorted(changes, key=_is_key_deletion)), refusals)


def shares(plan: Plan[Desired, Actual], actual: Mapping[str, Actual]) -> Iterator[Share]:
    """What the plan does to keys and to buckets: many keys do not make it safe to delete all buckets."""
    for where, of_actual, of_desired in (("keys", ActualKey, DesiredKey), ("buckets", ActualBucket, DesiredBucket)):
        changes = [change for change in plan.changes if isinstance(change.desired, of_desired)]
        yield Share(
            where,
            sum(isinstance(found, of_actual) for found in actual.values()),
            [change.name for change in changes if change.action == "delete"],
            [change.name for change in changes if change.action == "update"],
        )


def _plan_item(
    wanted: Desired, actual: Mapping[str, Actual], key_ids: Mapping[str, str], surroundings: Surroundings
) -> Change[Desired, Actual]:
    found = actual.get(wanted.item)
    if isinstance(wanted, DesiredKey):
        key = found if isinstance(found, ActualKey) else None
        return plan_key(wanted, key, () if wanted.present else _only_names(wanted, actual, surroundings))
    if surroundings.rows is None and wanted.local_aliases is not None:
        raise InvalidInput(
            "whether keys without permissions have names for the bucket is not known",
            where=f"{wanted.item}, local_aliases",
            hint="Give the admin token the scope ListBuckets",
        )
    return plan_bucket(wanted, found if isinstance(found, ActualBucket) else None, key_ids)


def _id_after(wanted: DesiredKey, change: Change[Desired, Actual]) -> dict[str, str]:
    """The id that the key has after the run, by its name; nothing if Garage has yet to make it."""
    if wanted.access_key_id is not None:
        return {wanted.name: wanted.access_key_id}
    rows = change.actual.matches if isinstance(change.actual, ActualKey) else ()
    return {wanted.name: rows[0].id} if rows else {}


def _is_key_deletion(change: Change[Desired, Actual]) -> bool:
    return change.action == "delete" and isinstance(change.desired, DesiredKey)


def _known_key_ids(actual: Mapping[str, Actual]) -> dict[str, str]:
    """Ids by name of the keys whose name is theirs alone."""
    return {
        found.matches[0].name: found.matches[0].id
        for item, found in actual.items()
        if isinstance(found, ActualKey) and len(found.matches) == 1 and item == key_item(found.matches[0].name)
    }


def _only_names(wanted: DesiredKey, actual: Mapping[str, Actual], surroundings: Surroundings) -> list[str]:
    """Names in this key's own namespace without which their buckets could not be found any more.

    :raises InvalidInput: Garage does not tell us.
    """
    found = actual.get(wanted.item)
    ids = {row.id for row in found.matches} if isinstance(found, ActualKey) else set()
    if ids and surroundings.rows is None:
        raise InvalidInput(
            "whether buckets would lose their only name with this key is not known",
            where=wanted.item,
            hint="Give the admin token the scope ListBuckets",
        )
    settled = {found.id for found in actual.values() if isinstance(found, ActualBucket)}
    return [
        row.local_aliases[0][1]
        for row in surroundings.rows or ()
        if row.id not in settled
        and not row.aliases
        and row.local_aliases
        and {key for key, _alias in row.local_aliases} <= ids
    ]


def _conflicts(desired: Sequence[Desired], actual: Mapping[str, Actual]) -> dict[str, HostingError]:
    """Items that cannot all be had: given twice, one bucket under two names, one name or file for two."""
    errors: dict[str, HostingError] = {}
    for item, number in Counter(wanted.item for wanted in desired).items():
        if number > 1:
            errors[item] = InvalidInput(f"is given {number} times", where=item, hint="Give it once")
    buckets = [wanted for wanted in desired if isinstance(wanted, DesiredBucket)]
    keys = [wanted for wanted in desired if isinstance(wanted, DesiredKey)]
    same = [(wanted.item, found.id) for wanted in buckets if isinstance(found := actual.get(wanted.item), ActualBucket)]
    aliases = [
        (wanted.item, name) for wanted in buckets if wanted.present for name in {wanted.name, *(wanted.aliases or ())}
    ]
    local = [
        (wanted.item, f"{alias} of the key {key}")
        for wanted in buckets
        if wanted.present
        for key, alias in set(wanted.local_aliases or ())
    ]
    files = [(wanted.item, wanted.secret_file) for wanted in keys if wanted.present and wanted.secret_file is not None]
    ids = [
        (wanted.item, wanted.access_key_id) for wanted in keys if wanted.present and wanted.access_key_id is not None
    ]
    for claims, what in (
        (same, "is also the bucket"),
        (aliases, "is also the name"),
        (local, "is also the name"),
        (files, "is also the file"),
        (ids, "is also the access key id"),
    ):
        for item, (value, others) in _claimed_twice(claims).items():
            errors.setdefault(
                item, InvalidInput(f"{value} {what} of {', '.join(others)}", where=item, hint="Give it to one of them")
            )
    return errors


def _claimed_twice(claims: Iterable[tuple[str, str]]) -> dict[str, tuple[str, list[str]]]:
    """Items that claim a value that others claim, too, with that value and these others."""
    by_value: dict[str, list[str]] = {}
    for item, value in claims:
        by_value.setdefault(value, []).append(item)
    return {
        item: (value, sorted({other for other in items if other != item}))
        for value, items in by_value.items()
        for item in items
        if set(items) != {item}
    }
