# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decisions about record sets: what has to be done, how much of a zone that is, and what a lost race means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.fediversity.hosting.plugins.module_utils.dns import model, update, values
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.doubts import doubts_of
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import (
    ActualRecordSet,
    Desired,
    DesiredRecordSet,
    Malformed,
    RecordChange,
    Zones,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.names import shown_name
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.preflight import (
    Outcome,
    check_contradictions,
    leaving,
    outcome,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.transfer import Labels
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    HostingError,
    InvalidInput,
    Locked,
    NotOwned,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Change, Plan, Refusal, Share


def make_plan(
    desired: Sequence[Desired], actual: Mapping[str, ActualRecordSet], zones: Zones
) -> Plan[Desired, ActualRecordSet]:
    """Compare, item by item."""
    listed = Counter([item.name for item in desired])
    doubts = doubts_of(desired)
    after = outcome(desired, actual, zones, doubts)
    changes: list[RecordChange] = []
    refusals: dict[str, Refusal] = {}
    unlisted = 0
    for item in desired:
        try:
            if listed[item.name] > 1:
                raise InvalidInput("the record set is listed twice", hint="Join the values in one entry, with one TTL")
            change = _change(item, actual.get(item.name), after)
            if change is not None and change.action != "unchanged":
                doubts.check(change)
        except HostingError as error:
            refusals[item.name] = Refusal(item.name, error)
            continue
        if change is None:
            unlisted += 1
        else:
            changes.append(change)
    for name, found in actual.items():
        if name in listed:
            continue
        if found.problem is not None:
            refusals[name] = Refusal(name, found.problem)
        elif leaving(found, zones[found.zone]):
            change = Change(name, "delete", model.shown(found.type, found.ttl, found.values), {}, None, found)
            try:
                doubts.check(change)
            except InvalidInput as error:
                refusals[name] = Refusal(name, error)
            else:
                changes.append(change)
    halves = _halves(changes, [item for item in model.wishes(desired).values() if item.name in refusals])
    refusals.update({change.name: Refusal(change.name, error) for change, error in halves})
    staying = [change for change in changes if change.name not in refusals] if halves else changes
    return Plan(tuple(staying), tuple(refusals.values()), unlisted)


def _halves(
    changes: Sequence[RecordChange], refused: Sequence[DesiredRecordSet]
) -> list[tuple[RecordChange, HostingError]]:
    """Deletions that were to make room for what is refused, an alias or what stands in the place of one."""
    replaced = {(item.owner.labels, item.type == "CNAME"): item.name for item in refused if item.state == "present"}
    if not replaced:
        return []
    found: list[tuple[RecordChange, HostingError]] = []
    for change in changes:
        owner, rdtype = model.place(change)
        name = replaced.get((owner.labels, rdtype != "CNAME"))
        if change.action == "delete" and name is not None:
            hint = "Without that one it is deleted all the same"
            found.append(
                (change, InvalidInput(f"{name}, for which it makes room, is refused", where=change.name, hint=hint))
            )
    return found


def _change(item: Desired, found: ActualRecordSet | None, after: Outcome) -> RecordChange | None:
    """The change that one item needs, ``None`` if it needs none and is not listed.

    :raises HostingError: the item is refused.
    """
    if isinstance(item, Malformed):
        raise item.error
    if found is not None:
        if found.problem is not None:
            raise found.problem
        _check_ownership(item, found)
    if item.state == "present":
        check_contradictions(item, after)
        if found is not None and satisfied(item, found):
            if not item.listed:
                return None
            state = model.shown(found.type, found.ttl, found.values)
            return Change(item.name, "unchanged", state, state, item, found)
    change = _pending(item, found)
    if update.size(item.zone.name, change) > update.MESSAGE_BYTES:
        raise InvalidInput(
            "the record set is too big for one DNS message", where=f"{item.name}, value", hint="Use fewer values"
        )
    return change


def _pending(item: DesiredRecordSet, found: ActualRecordSet | None) -> RecordChange:
    before = model.shown(found.type, found.ttl, found.values) if found is not None and found.values else {}
    if item.state == "absent":
        return Change(item.name, "unchanged" if found is None else "delete", before, {}, item, found)
    after = model.shown(item.type, item.ttl, item.values)
    if found is None or not found.values:
        return Change(item.name, "create", before, after, item, found)
    if not found.mine(item.zone.mark):
        before, after = {**before, "owner": None}, {**after, "owner": item.zone.mark}
    return Change(item.name, "update", before, after, item, found)


def satisfied(item: DesiredRecordSet, found: ActualRecordSet) -> bool:
    """Whether a zone has a record set as it is desired, and ours."""
    same = item.ttl == found.ttl and found.mine(item.zone.mark)
    return same and found.meaning == values.meaning(item.type, item.values)


def _check_ownership(item: DesiredRecordSet, found: ActualRecordSet) -> None:
    """Refuse what is not ours.

    :raises NotOwned: the record set has no mark of ours.
    """
    if model.may_change(item, found):
        return
    registry = shown_name(model.registry_owner(found.zone, found.owner, found.type))
    if found.registry is None:
        raise NotOwned(
            "the record set carries no mark of ours",
            where=item.name,
            hint="Take it over with adopt: true, or choose another name",
        )
    raise NotOwned(
        f"the record set belongs to {found.registry!r}",
        where=item.name,
        hint=f"Choose another name, or delete the TXT record {registry} and set adopt: true",
    )


def shares(
    plan: Plan[Desired, ActualRecordSet], actual: Mapping[str, ActualRecordSet], zones: Zones
) -> Iterator[Share]:
    """What the plan does to our record sets and those that it takes over, zone by zone.

    A new TTL or a new mark alone is no change of them.
    """
    affected = Counter(found.zone for found in actual.values() if found.values and found.mine(zones[found.zone].mark))
    # what is taken over is changed like our own
    affected.update(
        change.actual.zone
        for change in plan.pending()
        if change.actual is not None and change.actual.values and not change.actual.mine(zones[change.actual.zone].mark)
    )
    for zone, existing in affected.items():
        of_zone = [change for change in plan.changes if model.zone_of(change) == zone]
        yield Share(
            where=f"zone {shown_name(zone)}",
            existing=existing,
            deleted=[change.name for change in of_zone if change.action == "delete"],
            updated=[change.name for change in of_zone if change.action == "update" and _new_values(change)],
        )


def _new_values(change: RecordChange) -> bool:
    return change.before.get("value") != change.after.get("value")


@dataclass(frozen=True)
class Settled:
    """What is left of changes after somebody else has written to the zone.

    :param again: the others have not touched these.
    :param done: these are as desired now.
    :param lost: the others have made something else of these; the error says what.
    """

    again: list[RecordChange] = field(default_factory=list)
    done: list[RecordChange] = field(default_factory=list)
    lost: list[tuple[RecordChange, HostingError]] = field(default_factory=list)


def settle(
    changes: Sequence[RecordChange], before: Mapping[str, ActualRecordSet], now: Mapping[str, ActualRecordSet]
) -> Settled:
    """Compare what the plan was made from with what the zone has *now*.

    What somebody else has changed in between is never overwritten, in whatever way.
    """
    settled = Settled()
    planned = {change.name for change in changes}
    types = [_types_beside(state, planned) for state in (before, now)]
    for change in changes:
        owner, rdtype = model.place(change)
        missing = ActualRecordSet(owner, owner.labels, rdtype)
        seen, found = before.get(change.name, missing), now.get(change.name, missing)
        appeared = types[1].get(owner.labels, set()) - types[0].get(owner.labels, set())
        if _reached(change, found):
            settled.done.append(change)
        elif not seen.same(found):
            settled.lost.append((change, _overtaken(change.name, f"from {_words(seen)} to {_words(found)}")))
        elif change.action == "create" and appeared and "CNAME" in {rdtype, *appeared}:
            others = ", ".join(sorted(appeared))
            settled.lost.append((change, _overtaken(change.name, f"by adding {others} records to the name")))
        else:
            settled.again.append(change)
    return settled


def _types_beside(state: Mapping[str, ActualRecordSet], planned: set[str]) -> dict[Labels, set[str]]:
    types: dict[Labels, set[str]] = {}
    for name, found in state.items():
        if found.values and name not in planned:
            types.setdefault(found.labels, set()).add(found.type)
    return types


def _reached(change: RecordChange, found: ActualRecordSet) -> bool:
    item = change.desired
    if isinstance(item, DesiredRecordSet) and item.state == "present":
        return satisfied(item, found)
    return not found.values and found.registry is None


def _overtaken(name: str, what: str) -> Locked:
    return Locked(
        f"somebody else has changed it {what}, after this run had read it",
        where=name,
        hint="Nothing of it was written; run again to overwrite that",
    )


def _words(found: ActualRecordSet) -> str:
    if not found.values:
        return "nothing"
    state = model.shown(found.type, found.ttl, found.values)
    owner = f" of {found.registry!r}" if found.registry else " without owner"
    return f"{', '.join(state['value'])} (TTL {state['ttl']}){owner}"
