# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""UPDATE messages (RFC 2136): what they hold, in which order, and how they are cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

try:
    import dns.name
    import dns.rdatatype
    import dns.update
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import (
    REGISTRY,
    ActualRecordSet,
    Desired,
    DesiredRecordSet,
    registry_owner,
    registry_rdata,
    registry_text,
    wire_size,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import ActionName, Change

RecordChange: TypeAlias = Change[Desired, ActualRecordSet]
# changes that only make sense together
Unit: TypeAlias = tuple[RecordChange, ...]

# of the 65,535 of a message over TCP
MESSAGE_BYTES = 65000
# type, class, TTL, length, and a pointer to the zone's name (RFC 1035 section 4.1)
RECORD_BYTES = 12
REGISTRY_TTL = 3600
# A message is one transaction, several are not: what is new comes first, what goes comes last.
ORDER: dict[ActionName, int] = {"create": 0, "update": 1, "delete": 2, "unchanged": 3}


def units(changes: Iterable[RecordChange]) -> list[Unit]:
    """Changes in the order in which they are sent; those of a name that gets or loses a CNAME stay together."""
    changes = list(changes)
    with_cname = {place(change)[0] for change in changes if place(change)[1] == "CNAME"}
    found: dict[tuple[dns.name.Name, str], list[RecordChange]] = {}
    for change in changes:
        owner, rdtype = place(change)
        found.setdefault((owner, "" if owner in with_cname else rdtype), []).append(change)
    return sorted(map(tuple, found.values()), key=lambda unit: min(ORDER[change.action] for change in unit))


def batches(zone: dns.name.Name, all_units: Iterable[Unit]) -> Iterator[list[Unit]]:
    """Units that fit into one message each."""
    batch: list[Unit] = []
    size = 0
    for unit in all_units:
        unit_size = sum(_size(zone, change) for change in unit)
        if batch and size + unit_size > MESSAGE_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(unit)
        size += unit_size
    if batch:
        yield batch


def message(zone: dns.name.Name, batch: Sequence[Unit]) -> dns.update.UpdateMessage:
    """The UPDATE that makes *batch*, on condition that the zone still has what the plan was made from."""
    update = dns.update.UpdateMessage(zone)
    for unit in batch:
        types = {place(change)[1] for change in unit}
        for change in unit:
            _require(update, zone, change, swaps_cname="CNAME" in types and len(unit) > 1)
        for change in unit:
            owner, rdtype = place(change)
            if change.action != "create":
                update.delete(owner, rdtype)
            if change.action == "delete":
                update.delete(registry_owner(zone, owner, rdtype), dns.rdatatype.TXT)
        for change in unit:
            if change.action != "delete" and isinstance(change.desired, DesiredRecordSet):
                _add(update, zone, change.desired, change.actual)
    return update


def place(change: RecordChange) -> tuple[dns.name.Name, str]:
    """Name and type of the record set that a change is about."""
    if isinstance(change.desired, DesiredRecordSet):
        return change.desired.owner, change.desired.type
    if change.actual is not None:
        return change.actual.owner, change.actual.type
    raise ValueError(f"a change of nothing: {change.name}")


def _require(update: dns.update.UpdateMessage, zone: dns.name.Name, change: RecordChange, *, swaps_cname: bool) -> None:
    owner, rdtype = place(change)
    registry = registry_owner(zone, owner, rdtype)
    actual = change.actual
    if actual is not None and actual.values:
        update.present(owner, *actual.values)
    else:
        update.absent(owner, rdtype)
    if change.action == "create" and not swaps_cname:
        # servers drop what would stand beside a CNAME, and say nothing
        update.absent(owner, dns.rdatatype.ANY if rdtype == "CNAME" else dns.rdatatype.CNAME)
    if actual is not None and actual.registry is not None:
        update.present(registry, registry_rdata(actual.registry))
    else:
        update.absent(registry, dns.rdatatype.TXT)


def _add(
    update: dns.update.UpdateMessage, zone: dns.name.Name, item: DesiredRecordSet, actual: ActualRecordSet | None
) -> None:
    update.add(item.owner, item.ttl, *item.values)
    if actual is None or actual.registry is None:
        mark = registry_rdata(registry_text(item.zone.mark))
        update.add(registry_owner(zone, item.owner, item.type), REGISTRY_TTL, mark)


def _size(zone: dns.name.Name, change: RecordChange) -> int:
    """Upper bound of the bytes that a change adds to a message; the zone's name is always compressed."""
    owner, rdtype = place(change)
    values = [*(change.actual.values if change.actual else ())]
    text = (change.actual and change.actual.registry) or ""
    if isinstance(change.desired, DesiredRecordSet):
        values += change.desired.values
        text = registry_text(change.desired.zone.mark)
    name = sum(len(label) + 1 for label in owner.relativize(zone).labels)
    record = name + RECORD_BYTES
    registry = record + len(REGISTRY) + len(rdtype) + 4
    # two conditions and a deletion; a condition and a deletion or addition beside; every value in its own record
    return 3 * record + 2 * registry + len(text) + 1 + sum(record + wire_size(value) for value in values)
