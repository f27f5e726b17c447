# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""UPDATE messages (RFC 2136): what they hold, in which order, and how they are cut."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

try:
    import dns.name
    import dns.rdata
    import dns.rdatatype
    import dns.update
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns import values
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import (
    OWNER,
    REGISTRY_PREFIX,
    ActualRecordSet,
    DesiredRecordSet,
    RecordChange,
    place,
    registry_owner,
    registry_text,
    version_owner,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import ActionName

# changes that only make sense together
Unit: TypeAlias = "tuple[RecordChange, ...]"

# of the 65,535 of a message over TCP; what is left holds version, header and signature
MESSAGE_BYTES = 60000
# type, class, TTL, length, and a pointer to the zone's name (RFC 1035 section 4.1)
RECORD_BYTES = 12
REGISTRY_TTL = 3600
# A message is one transaction, several are not: what is new comes first, what goes comes last.
ORDER: dict[ActionName, int] = {"create": 0, "update": 1, "delete": 2, "unchanged": 3}


@dataclass(frozen=True)
class Version:
    """Compare and swap of the zone's version record: what it must hold, and what it holds after the message.

    :param expected: values in wire form; empty while there is no such record.
    """

    expected: frozenset[bytes]
    next: bytes


def next_version(expected: frozenset[bytes]) -> Version:
    """A version that no other run makes."""
    return Version(expected, values.txt_wire(f"{REGISTRY_PREFIX}version={secrets.token_hex(8)}".encode("ascii")))


def units(changes: Iterable[RecordChange]) -> list[Unit]:
    """Changes in the order in which they are sent; those of a name that gets or loses a CNAME stay together."""
    changes = list(changes)
    with_cname = {place(change)[0].labels for change in changes if place(change)[1] == "CNAME"}
    found: dict[tuple[tuple[bytes, ...], str], list[RecordChange]] = {}
    for change in changes:
        owner, rdtype = place(change)
        found.setdefault((owner.labels, "" if owner.labels in with_cname else rdtype), []).append(change)
    return sorted(map(tuple, found.values()), key=lambda unit: min(ORDER[change.action] for change in unit))


def batches(zone: dns.name.Name, all_units: Iterable[Unit]) -> Iterator[list[Unit]]:
    """Units that fit into one message each."""
    batch: list[Unit] = []
    bytes_used = 0
    for unit in all_units:
        unit_bytes = sum(size(zone, change) for change in unit)
        if batch and bytes_used + unit_bytes > MESSAGE_BYTES:
            yield batch
            batch, bytes_used = [], 0
        batch.append(unit)
        bytes_used += unit_bytes
    if batch:
        yield batch


def message(zone: dns.name.Name, batch: Sequence[Unit], version: Version) -> dns.update.UpdateMessage:
    """The UPDATE that makes *batch*, on condition that the zone still has what the plan was made from."""
    update = dns.update.UpdateMessage(zone)
    _swap_version(update, zone, version)
    for unit in batch:
        types = {place(change)[1] for change in unit}
        for change in unit:
            _require(update, zone, change, swaps_cname="CNAME" in types and len(unit) > 1)
        for change in unit:
            owner, rdtype = place(change)
            if change.action != "create" and not _of_the_zone(zone, owner, rdtype):
                update.delete(owner, rdtype)
            if change.action == "delete":
                update.delete(registry_owner(zone, owner, rdtype), dns.rdatatype.TXT)
        for change in unit:
            if change.action != "delete" and isinstance(change.desired, DesiredRecordSet):
                _add(update, zone, change.desired, change.actual)
    return update


def _swap_version(update: dns.update.UpdateMessage, zone: dns.name.Name, version: Version) -> None:
    owner = version_owner(zone)
    if version.expected:
        update.present(owner, *(values.rdata("TXT", wire) for wire in version.expected))
        update.delete(owner, dns.rdatatype.TXT)
    else:
        update.absent(owner, dns.rdatatype.TXT)
    update.add(owner, REGISTRY_TTL, values.rdata("TXT", version.next))


def _require(update: dns.update.UpdateMessage, zone: dns.name.Name, change: RecordChange, *, swaps_cname: bool) -> None:
    owner, rdtype = place(change)
    registry = registry_owner(zone, owner, rdtype)
    actual = change.actual
    if actual is not None and actual.values:
        update.present(owner, *(values.rdata(rdtype, wire) for wire in actual.values))
    else:
        update.absent(owner, rdtype)
    if change.action == "create" and not swaps_cname:
        # servers drop what would stand beside a CNAME, and say nothing
        update.absent(owner, dns.rdatatype.ANY if rdtype == "CNAME" else dns.rdatatype.CNAME)
    if actual is not None and actual.registry is not None:
        update.present(registry, _text(actual.registry))
    else:
        update.absent(registry, dns.rdatatype.TXT)


def _add(
    update: dns.update.UpdateMessage, zone: dns.name.Name, item: DesiredRecordSet, actual: ActualRecordSet | None
) -> None:
    update.add(item.owner, item.ttl, *(values.rdata(item.type, wire) for wire in item.values))
    if actual is not None and _of_the_zone(zone, item.owner, item.type):
        wanted = values.meaning("NS", item.values)
        for wire in actual.values:
            if values.comparable("NS", wire) not in wanted:
                update.delete(item.owner, values.rdata("NS", wire))
    if actual is None or actual.registry is None:
        update.add(registry_owner(zone, item.owner, item.type), REGISTRY_TTL, _text(registry_text(item.zone.mark)))


def _of_the_zone(zone: dns.name.Name, owner: dns.name.Name, rdtype: str) -> bool:
    """NS records of the zone itself: servers keep them when all are deleted at once (RFC 2136 section 3.4.2.3)."""
    return rdtype == "NS" and owner == zone


def _text(text: str) -> dns.rdata.Rdata:
    return values.rdata("TXT", values.txt_wire(text.encode("ascii")))


def size(zone: dns.name.Name, change: RecordChange) -> int:
    """Upper bound of the bytes that a change adds to a message; the zone's name is always compressed."""
    owner, rdtype = place(change)
    wires = [*(change.actual.values if change.actual else ())]
    text = (change.actual and change.actual.registry) or ""
    if isinstance(change.desired, DesiredRecordSet):
        wires += change.desired.values
        text = registry_text(change.desired.zone.mark)
    name = sum(len(label) + 1 for label in owner.labels[: -len(zone.labels)])
    record = name + RECORD_BYTES
    registry = record + len(OWNER) + len(rdtype) + 4
    # two conditions and a deletion; a condition and a deletion or addition beside; every value in its own record
    return 3 * record + 2 * registry + len(text) + 1 + sum(record + len(wire) for wire in wires)
