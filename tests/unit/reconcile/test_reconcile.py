# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, InvalidInput, Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import (
    Applied,
    Change,
    Limits,
    Plan,
    Refusal,
    Share,
    one_by_one,
    reconcile,
)
from hypothesis import given
from hypothesis import strategies as st


@dataclass(frozen=True)
class Item:
    name: str
    value: int | None  # None: the item shall not exist


@dataclass
class Shelf:
    """A backend in memory that owns everything on it and can misbehave."""

    items: dict[str, int] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    forgetful: frozenset[str] = frozenset()
    dies_after: int | None = None
    writes: int = 0
    kind = "item"

    def read(self, desired: Sequence[Item]) -> Mapping[str, int]:
        return dict(self.items)

    def plan(self, desired: Sequence[Item], actual: Mapping[str, int]) -> Plan[Item, int]:
        changes, refusals = [], []
        for item in desired:
            now = actual.get(item.name)
            if item.value is not None and item.value < 0:
                refusals.append(Refusal(item.name, InvalidInput("negative", where=item.name)))
                continue
            action = "unchanged" if now == item.value else "delete" if item.value is None else "update"
            if action == "update" and now is None:
                action = "create"
            before = {} if now is None else {"value": now}
            after = {} if item.value is None else {"value": item.value}
            changes.append(Change(item.name, action, before, after, item, now))
        return Plan(tuple(changes), tuple(refusals))

    def apply(self, changes: Sequence[Change[Item, int]]) -> Iterator[Applied[Item, int]]:
        return one_by_one(changes, self._apply_one)

    def _apply_one(self, change: Change[Item, int]) -> None:
        if self.dies_after is not None and self.writes >= self.dies_after:
            raise Unreachable("gone")
        self.writes += 1
        if change.name in self.broken:
            raise BackendError("broken", where=change.name)
        if change.name in self.forgetful:
            return
        if change.desired is None or change.desired.value is None:
            del self.items[change.name]
        else:
            self.items[change.name] = change.desired.value

    def outputs(self, actual: int) -> Mapping[str, Any]:
        return {"value": actual}


NAMES = st.text("abcdef", min_size=1, max_size=2)
DESIRED = st.dictionaries(NAMES, st.none() | st.integers(0, 3), max_size=8)
NO_LIMITS = Limits(max_delete_percent=100)


def desired_of(wanted: Mapping[str, int | None]) -> list[Item]:
    return [Item(name, value) for name, value in wanted.items()]


@given(DESIRED, st.dictionaries(NAMES, st.integers(0, 3), max_size=8))
def test_one_run_converges_and_check_mode_predicts_it(wanted: dict[str, int | None], existing: dict[str, int]) -> None:
    shelf = Shelf(dict(existing))
    prediction = reconcile(shelf, desired_of(wanted), check=True, limits=NO_LIMITS)
    assert shelf.items == existing
    assert shelf.writes == 0

    done = reconcile(shelf, desired_of(wanted), limits=NO_LIMITS)
    expected = {**existing, **{name: value for name, value in wanted.items() if value is not None}}
    assert shelf.items == {name: value for name, value in expected.items() if wanted.get(name, 0) is not None}
    assert prediction["changed"] == done["changed"]
    assert prediction["diff"] == done["diff"]
    assert [(r["name"], r["action"]) for r in prediction["results"]] == [
        (r["name"], r["action"]) for r in done["results"]
    ]

    writes = shelf.writes
    again = reconcile(shelf, desired_of(wanted), limits=NO_LIMITS)
    assert not again["changed"]
    assert again["diff"] == {"before": {}, "after": {}}
    assert shelf.writes == writes


def test_a_broken_item_leaves_the_others_done_and_is_named() -> None:
    shelf = Shelf({"b": 1}, broken=frozenset({"b"}))
    result = reconcile(shelf, [Item("a", 1), Item("b", 2), Item("c", 3)])
    assert shelf.items == {"a": 1, "b": 1, "c": 3}
    assert result["failed"]
    assert result["changed"]
    assert {r["name"]: (r["changed"], r["failed"], r["msg"]) for r in result["results"]} == {
        "a": (True, False, ""),
        "b": (False, True, "b: broken"),
        "c": (True, False, ""),
    }
    assert result["msg"] == "item: 2 create, 1 update; 1 failed: b: broken"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("bucket a", "bucket a: no"),
        ("bucket a, quotas", "bucket a, quotas: no"),
        ("server s, bucket a, quotas", "server s, bucket a, quotas: no"),
        ("bucket ab", "bucket a: bucket ab: no"),
        ("", "bucket a: no"),
    ],
)
def test_the_name_of_an_item_is_said_once(where: str, said: str) -> None:
    class Refusing(Shelf):
        def plan(self, desired: Sequence[Item], actual: Mapping[str, int]) -> Plan[Item, int]:
            return Plan((), (Refusal("bucket a", InvalidInput("no", where=where)),))

    assert reconcile(Refusing(), [])["msg"] == f"item: 1 refused; 1 failed: {said}"


def test_a_refused_item_is_not_written_and_fails() -> None:
    shelf = Shelf()
    result = reconcile(shelf, [Item("a", -1), Item("b", 1)])
    assert shelf.items == {"b": 1}
    assert [(r["name"], r["action"], r["failed"]) for r in result["results"]] == [
        ("a", "refused", True),
        ("b", "create", False),
    ]


def test_what_the_backend_accepts_but_does_not_show_is_a_failure() -> None:
    result = reconcile(Shelf(forgetful=frozenset({"a"})), [Item("a", 1)])
    assert result["failed"]
    assert not result["changed"]
    assert "the backend accepted the change, but value still differs" in result["results"][0]["msg"]


def test_changes_that_were_not_reached_fail_with_the_reason() -> None:
    class Dying(Shelf):
        def apply(self, changes: Sequence[Change[Item, int]]) -> Iterator[Applied[Item, int]]:
            for change in changes:
                self._apply_one(change)
                yield Applied(change)

    result = reconcile(Dying(dies_after=1), [Item("a", 1), Item("b", 2), Item("c", 3)])
    assert {r["name"]: r["msg"] for r in result["results"]} == {"a": "", "b": "gone", "c": "gone"}


def test_a_backend_that_is_gone_at_the_read_back_does_not_lose_the_result() -> None:
    class Vanishing(Shelf):
        def read(self, desired: Sequence[Item]) -> Mapping[str, int]:
            if self.writes:
                raise Unreachable("gone")
            return super().read(desired)

    result = reconcile(Vanishing(), [Item("a", 1), Item("b", 2)])
    assert result["failed"]
    assert [(r["name"], r["failed"], r["msg"]) for r in result["results"]] == [("a", True, "gone"), ("b", True, "gone")]


def test_a_plan_that_deletes_too_much_is_refused_before_any_write() -> None:
    shelf = Shelf({f"i{n}": n for n in range(10)})
    with pytest.raises(InvalidInput, match="deletes 4 of 10 items, more than 30 %"):
        reconcile(shelf, [Item(f"i{n}", None) for n in range(4)])
    assert shelf.writes == 0
    assert reconcile(shelf, [Item(f"i{n}", None) for n in range(3)])["changed"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"a": None, "b": None}, "the plan deletes 2 of 10 items, more than 10 %. Check .* raise max_delete_percent"),
        (
            {"a": 1, "b": 1, "c": 1},
            "^a, b, c: the plan changes 3 of 10 items, more than 20 %.* raise max_update_percent",
        ),
    ],
)
def test_a_plan_that_touches_too_much_is_refused_before_anything_is_written(wanted: Any, said: str) -> None:
    limits = Limits(max_delete_percent=10, max_update_percent=20)
    shelf = Shelf(dict.fromkeys("abcdefghij", 0))
    for check in (False, True):
        with pytest.raises(InvalidInput, match=said):
            reconcile(shelf, desired_of(wanted), limits=limits, check=check)
    assert shelf.writes == 0
    # the limit itself is allowed, and nine items are few
    assert reconcile(shelf, desired_of({"a": None, "b": 1, "c": 1}), limits=limits)["changed"]
    assert reconcile(shelf, desired_of(dict.fromkeys("bcdefghij", 5)), limits=limits)["changed"]


def test_a_provider_says_of_what_the_limits_are_shares() -> None:
    shelf = Shelf(dict.fromkeys("abcdefghijklmnopqrst", 0))

    def halves(plan: Plan[Item, int], actual: Mapping[str, int]) -> Iterator[Share]:
        for where, names in (("low", "abcdefghij"), ("high", "klmnopqrst")):
            yield Share(where, len(names), [c.name for c in plan.pending() if c.name in names], [])

    wanted = desired_of(dict.fromkeys("abcd"))
    assert reconcile(shelf, wanted, check=True)["changed"]
    with pytest.raises(InvalidInput, match=r"^low: a, b, c, d: the plan deletes 4 of 10 items"):
        reconcile(shelf, wanted, shares=halves)


def test_items_without_an_entry_are_counted() -> None:
    class Quiet(Shelf):
        def plan(self, desired: Sequence[Item], actual: Mapping[str, int]) -> Plan[Item, int]:
            plan = super().plan(desired, actual)
            return Plan(plan.pending(), plan.refusals, len(plan.changes) - len(plan.pending()))

    result = reconcile(Quiet({"a": 1, "b": 2}), [Item("a", 1), Item("b", 2), Item("c", 3)])
    assert [entry["name"] for entry in result["results"]] == ["c"]
    assert result["msg"] == "item: 1 create, 2 unchanged"
