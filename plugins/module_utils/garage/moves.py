# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that go from one bucket to another: who must give first, and who waits for what is not given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Exists, HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.bucket_plan import Name, goal, names_of
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    Actual,
    ActualBucket,
    BucketRow,
    Desired,
    DesiredBucket,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Change


def ordered(
    changes: Sequence[Change[Desired, Actual]], rows: Sequence[BucketRow]
) -> tuple[list[Change[Desired, Actual]], dict[str, HostingError]]:
    """*changes* with those first that give a name away, and errors of those whose name is not given.

    :param rows: all buckets.
    """
    holders: dict[Name, str] = {("", alias): row.id for row in rows for alias in row.aliases}
    holders |= {name: row.id for row in rows for name in row.local_aliases}
    givers = _givers(changes)
    waits = {change.name: _taken(change, holders) for change in changes}
    done: dict[str, Change[Desired, Actual]] = {}
    left = {change.name: change for change in changes}
    while True:
        ready = [item for item in left if all(givers.get(name) in done for name in waits[item])]
        if not ready:
            return list(done.values()), {item: _error(left[item], waits[item], holders) for item in left}
        for item in ready:
            done[item] = left.pop(item)


def _givers(changes: Sequence[Change[Desired, Actual]]) -> dict[Name, str]:
    """The item whose bucket loses a name, by that name."""
    return {
        name: change.name
        for change in changes
        if isinstance(change.actual, ActualBucket)
        for name in names_of(change.actual) - _names_after(change)
    }


def _taken(change: Change[Desired, Actual], holders: Mapping[Name, str]) -> set[Name]:
    """Names that the item gets and that are another bucket's now."""
    before = change.actual if isinstance(change.actual, ActualBucket) else ActualBucket("")
    return {name for name in _names_after(change) - names_of(before) if holders.get(name, before.id) != before.id}


def _names_after(change: Change[Desired, Actual]) -> set[Name]:
    before = change.actual if isinstance(change.actual, ActualBucket) else ActualBucket("")
    if not isinstance(change.desired, DesiredBucket) or not change.desired.present:
        return set()
    return names_of(goal(change.desired, before))


def _error(change: Change[Desired, Actual], taken: set[Name], holders: Mapping[Name, str]) -> HostingError:
    key_id, alias = min(taken)
    whose = f"{alias} of the key {key_id}" if key_id else alias
    return Exists(
        f"the name {whose} belongs to the bucket {holders[key_id, alias]}",
        where=f"{change.name}, {'local_aliases' if key_id else 'aliases'}",
        hint="Take it away from that bucket",
    )
