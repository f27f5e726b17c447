# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reconciliation: the one way in which every kind of resource is read, planned, changed and read back.

A :class:`Provider` knows one kind of resource. :func:`reconcile` runs read, plan, guard, apply, read back and
makes the one result that all batch modules return. Check mode is a reconciliation without apply, diff mode is the plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    InvalidInput,
    ReadBackDiffers,
)

Desired = TypeVar("Desired")
Actual = TypeVar("Actual")

ActionName = Literal["create", "update", "delete", "unchanged"]


@dataclass(frozen=True)
class Change(Generic[Desired, Actual]):
    """What is to be done with one item.

    ``before`` and ``after`` are what diff mode shows: JSON values without secrets, empty when the item does not exist.
    """

    name: str
    action: ActionName
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    desired: Desired | None = None
    actual: Actual | None = None


@dataclass(frozen=True)
class Refusal:
    """An item that is not touched because its desired state cannot be reached from the actual one."""

    name: str
    error: HostingError


@dataclass(frozen=True)
class Plan(Generic[Desired, Actual]):
    """Changes in the order in which they are applied, and the items that are refused.

    :param unlisted: how many more items are as desired; they are counted and have no entry in the results.
    """

    changes: tuple[Change[Desired, Actual], ...] = ()
    refusals: tuple[Refusal, ...] = ()
    unlisted: int = 0

    def pending(self) -> tuple[Change[Desired, Actual], ...]:
        """The changes that do something."""
        return tuple(change for change in self.changes if change.action != "unchanged")


@dataclass(frozen=True)
class Applied(Generic[Desired, Actual]):
    """One change that was tried: done, or failed with ``error``."""

    change: Change[Desired, Actual]
    error: HostingError | None = None


class Provider(Protocol[Desired, Actual]):
    """One kind of resource on one backend."""

    kind: ClassVar[str]

    def read(self, desired: Sequence[Desired]) -> Mapping[str, Actual]:
        """Actual state by item name, in few bulk requests: the desired items and those of ours that nobody desires."""

    def plan(self, desired: Sequence[Desired], actual: Mapping[str, Actual]) -> Plan[Desired, Actual]:
        """Compare, without any effect."""

    def apply(self, changes: Sequence[Change[Desired, Actual]]) -> Iterator[Applied[Desired, Actual]]:
        """Make the changes, each safe to repeat; an error of one item must not keep the others from being tried."""

    def outputs(self, actual: Actual) -> Mapping[str, Any]:
        """What other resources may need of this one (ids, addresses), without secrets."""


@dataclass(frozen=True)
class Limits:
    """Thresholds that refuse a plan which deletes or changes too much.

    :param max_delete_percent: largest share of the existing items that one run may delete.
    :param max_update_percent: largest share of the existing items that one run may change.
    :param min_existing: below this number of existing items the shares are not checked.
    """

    max_delete_percent: int = 30
    max_update_percent: int = 100
    min_existing: int = 10


@dataclass(frozen=True)
class Share:
    """What a plan does to existing items that belong together.

    :param where: what they have in common, for the message; empty for everything.
    :param existing: how many there are.
    """

    where: str
    existing: int
    deleted: Sequence[str]
    updated: Sequence[str]


Shares = Callable[["Plan[Desired, Actual]", Mapping[str, Actual]], Iterable[Share]]


def of_everything(plan: Plan[Desired, Actual], actual: Mapping[str, Actual]) -> Iterator[Share]:
    """The share of all items that were read."""
    deleted = [change.name for change in plan.changes if change.action == "delete"]
    yield Share("", len(actual), deleted, [change.name for change in plan.changes if change.action == "update"])


def guard(shares: Iterable[Share], limits: Limits) -> None:
    """Refuse a plan that deletes or changes too much.

    :raises InvalidInput: more than ``limits`` allow of one share's existing items.
    """
    for share in shares:
        for names, percent, does, option in (
            (share.deleted, limits.max_delete_percent, "deletes", "max_delete_percent"),
            (share.updated, limits.max_update_percent, "changes", "max_update_percent"),
        ):
            if share.existing < limits.min_existing or len(names) * 100 <= share.existing * percent:
                continue
            few = ", ".join(sorted(names)[:5])
            raise InvalidInput(
                f"the plan {does} {len(names)} of {share.existing} items, more than {percent} %",
                where=f"{share.where}: {few}" if share.where else few,
                hint=f"Check the desired state; raise {option} if it is right",
            )


def one_by_one(
    changes: Iterable[Change[Desired, Actual]], apply_one: Callable[[Change[Desired, Actual]], None]
) -> Iterator[Applied[Desired, Actual]]:
    """Apply changes that have nothing to do with each other; an error stays with its item."""
    for change in changes:
        try:
            apply_one(change)
        except HostingError as error:
            yield Applied(change, error)
        else:
            yield Applied(change)


def reconcile(
    provider: Provider[Desired, Actual],
    desired: Sequence[Desired],
    *,
    check: bool = False,
    limits: Limits | None = None,
    shares: Shares[Desired, Actual] = of_everything,
) -> dict[str, Any]:
    """Make the backend equal to *desired* and return the result of the module.

    :param shares: of what the *limits* are percentages.
    :returns: ``changed``, ``failed``, ``msg``, ``diff`` ({before, after}: {item: shown state}) and
        ``results`` (one of ``{name, action, changed, failed, msg, **outputs}`` per item, sorted by name).
    :raises HostingError: the backend cannot be read, or the plan as a whole is refused; then nothing was written.
    """
    actual = provider.read(desired)
    plan = provider.plan(desired, actual)
    guard(shares(plan, actual), limits or Limits())
    pending = plan.pending()
    applied = {} if check else _apply(provider, pending)
    if applied:
        applied, actual = _read_back(provider, desired, applied, actual)

    results = [_refused(refusal) for refusal in plan.refusals]
    for change in plan.changes:
        done = applied.get(change.name)
        error = done.error if done else None
        now = actual.get(change.name)
        results.append(
            {
                **(provider.outputs(now) if now is not None else {}),
                "name": change.name,
                "action": change.action,
                "changed": change.action != "unchanged" and error is None,
                "failed": error is not None,
                "msg": str(error) if error else "",
            }
        )
    results.sort(key=lambda result: str(result["name"]))
    failed = [result for result in results if result["failed"]]
    return {
        "changed": any(result["changed"] for result in results),
        "failed": bool(failed),
        "msg": _summary(provider.kind, results, failed, plan.unlisted, check),
        "diff": {
            "before": {change.name: dict(change.before) for change in pending},
            "after": {change.name: dict(change.after) for change in pending},
        },
        "results": results,
    }


def _apply(
    provider: Provider[Desired, Actual], pending: Sequence[Change[Desired, Actual]]
) -> dict[str, Applied[Desired, Actual]]:
    """Apply all changes; an error that ends the provider's work belongs to every change that it did not reach."""
    applied: dict[str, Applied[Desired, Actual]] = {}
    if not pending:
        return applied
    reason: HostingError = BackendError("the change was not tried", hint="Run again")
    try:
        for done in provider.apply(pending):
            applied[done.change.name] = done
    except HostingError as error:
        reason = error
    return {change.name: applied.get(change.name, Applied(change, reason)) for change in pending}


def _read_back(
    provider: Provider[Desired, Actual],
    desired: Sequence[Desired],
    applied: Mapping[str, Applied[Desired, Actual]],
    before: Mapping[str, Actual],
) -> tuple[dict[str, Applied[Desired, Actual]], Mapping[str, Actual]]:
    """The applied changes, failed where the backend does not show what it accepted, and the actual state now."""
    try:
        actual = provider.read(desired)
        plan = provider.plan(desired, actual)
    except HostingError as gone:
        # what was done must not be lost from the result only because it cannot be verified
        return {name: done if done.error else Applied(done.change, gone) for name, done in applied.items()}, before
    wrong = {change.name: _still_differs(change) for change in plan.pending()}
    wrong.update({refusal.name: str(refusal.error) for refusal in plan.refusals})
    return {name: _verified(done, wrong.get(name)) for name, done in applied.items()}, actual


def _verified(done: Applied[Desired, Actual], wrong: str | None) -> Applied[Desired, Actual]:
    if done.error is not None or wrong is None:
        return done
    name = done.change.name
    return Applied(done.change, ReadBackDiffers(wrong, where=name, hint="Run again; look at the backend's log"))


def _still_differs(change: Change[Desired, Actual]) -> str:
    return f"the backend accepted the change, but {_difference(change)} still differs"


def _difference(change: Change[Desired, Actual]) -> str:
    keys = sorted(key for key in {*change.before, *change.after} if change.before.get(key) != change.after.get(key))
    return ", ".join(keys) or change.action


def _refused(refusal: Refusal) -> dict[str, Any]:
    return {"name": refusal.name, "action": "refused", "changed": False, "failed": True, "msg": str(refusal.error)}


def _summary(
    kind: str, results: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]], unlisted: int, check: bool
) -> str:
    """One line for a person: counts by action, then the first failures."""
    counts: dict[str, int] = {"unchanged": unlisted} if unlisted else {}
    for result in results:
        counts[str(result["action"])] = counts.get(str(result["action"]), 0) + 1
    text = ", ".join(f"{count} {action}" for action, count in sorted(counts.items())) or "nothing"
    line = f"{kind}: {text}{' (check mode)' if check else ''}"
    if failed:
        line += f"; {len(failed)} failed: " + "; ".join(_named(item["name"], item["msg"]) for item in failed[:5])
    return line


def _named(name: str, message: str) -> str:
    """The message, with the name of its item unless that is where it begins."""
    where = message.partition(": ")[0]
    return message if re.search(rf"(?<!\S){re.escape(name)}(?![^\s,])", where) else f"{name}: {message}"
