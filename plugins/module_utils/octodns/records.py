# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Record sets as octoDNS' zone files. octoDNS itself makes the records: what it would refuse is refused here."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

try:
    import dns.exception
    import dns.name
    import dns.rdata
    import dns.rdataclass
    import octodns.record
    import octodns.record.exception
    import octodns.record.rr
    import octodns.yaml
    import octodns.zone
    import octodns.zone.exception
    import yaml
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns import values
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import (
    TYPES,
    Desired,
    DesiredRecordSet,
    ManagedZone,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.names import parse_name
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput

# name relative to the zone, and type
Place: TypeAlias = "tuple[str, str]"
# what YamlProvider reads of one record
Data: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True)
class ZoneDocument:
    """The content of one zone file.

    :param errors: by name, the record sets that are left out, or left as they were before.
    """

    text: str
    errors: Mapping[str, HostingError]


def zone_document(
    zone: ManagedZone, items: Sequence[Desired], zones: Collection[dns.name.Name], before: str
) -> ZoneDocument:
    """The zone file of *items*.

    :param zones: all zones of the call; records of one that is inside *zone* belong there.
    :param before: the zone file as it is. A record set that is refused stays in it as it is, because octoDNS deletes
        what is not there.
    :raises InvalidInput: nobody can say which record sets would have to stay.
    """
    target = octodns.zone.Zone(zone.name.to_text(), _inside(zone.name, zones))
    listed = Counter(item.name for item in items)
    types: dict[dns.name.Name, set[str]] = {}
    for item in items:
        if isinstance(item, DesiredRecordSet) and item.state == "present":
            types.setdefault(item.owner, set()).add(item.type)
    records: dict[Place, Data] = {}
    errors: dict[str, HostingError] = {}
    staying: dict[Place, Data] = {}
    for item in sorted(items, key=lambda item: item.name):
        try:
            if not isinstance(item, DesiredRecordSet):
                raise item.error
            if listed[item.name] > 1:
                raise InvalidInput("the record set is listed twice", hint="Join the values in one entry")
            if item.state == "present":
                _check_alias(item, types[item.owner])
                records[_relative(item.owner, zone.name), item.type] = _data(target, item)
        except HostingError as error:
            errors[item.name] = error
            staying |= _staying(zone.name, item, error, before)
    records |= staying
    text = _dump(records)
    _check(zone.name, text)
    return ZoneDocument(text, errors)


def _check_alias(item: DesiredRecordSet, types: Collection[str]) -> None:
    """Refuse what octoDNS would refuse together with the whole zone.

    :raises InvalidInput: a CNAME stands beside something else.
    """
    if "CNAME" in types and len(types) > 1:
        others = ", ".join(sorted({*types} - {item.type}))
        raise InvalidInput(f"a CNAME cannot stand beside other records (RFC 1034, 3.6.2): {others}", hint="Keep one")


def _data(zone: Any, item: DesiredRecordSet) -> Data:
    """What octoDNS has to read for this record set.

    :raises InvalidInput: octoDNS cannot have it.
    """
    rdatas = sorted(values.rdata(item.type, wire).to_text() for wire in item.values)
    rrset = octodns.record.rr.Rrset(item.owner.to_text(), item.type, item.ttl, rdatas)
    try:
        data = octodns.record.Record.from_rrset(zone, rrset).data
        record = octodns.record.Record.new(
            zone, zone.hostname_from_fqdn(item.owner.to_text()), {**data, "type": item.type}
        )
        zone.add_record(record)
    except octodns.record.exception.ValidationError as error:
        reasons = "; ".join(str(reason) for reason in error.reasons)
        raise InvalidInput(f"octoDNS refuses it: {reasons}", hint="Change it, or keep it out of the export") from None
    except Exception as error:  # noqa: BLE001 octoDNS has no common class
        raise InvalidInput(f"octoDNS refuses it: {error}", hint="Change it, or keep it out of the export") from None
    if _meaning(item.type, record.to_rrset().rdatas) != values.meaning(item.type, item.values):
        zone.remove_record(record)
        raise InvalidInput("octoDNS has no way to write this value", hint="Change it, or keep it out of the export")
    return {**data, "type": item.type}


def _meaning(rdtype: str, rdatas: Sequence[str]) -> frozenset[bytes]:
    """What the values that octoDNS would send mean."""
    try:
        parsed = [
            dns.rdata.from_text(dns.rdataclass.IN, rdtype, text, origin=dns.name.root, relativize=False)
            for text in rdatas
        ]
    except dns.exception.DNSException:
        return frozenset()
    return values.meaning(rdtype, [value.to_wire() or b"" for value in parsed])


def _inside(zone: dns.name.Name, zones: Collection[dns.name.Name]) -> set[str]:
    """The other zones inside *zone*, relative to it, as octoDNS names them."""
    return {other.relativize(zone).to_text() for other in zones if other != zone and other.is_subdomain(zone)}


def in_zone(zone: dns.name.Name, name: str) -> bool:
    """Whether a record set of that name may be in the zone; it may if the name was not understood."""
    owner = _owner(name)
    return owner is None or owner.is_subdomain(zone)


def _staying(zone: dns.name.Name, item: Desired, error: HostingError, before: str) -> dict[Place, Data]:
    """What a refused item may mean of the file as it is.

    :raises InvalidInput: its name was not understood, so that nobody knows what would be lost without it.
    """
    owner = item.owner if isinstance(item, DesiredRecordSet) else _owner(item.name)
    if owner is None or not owner.is_subdomain(zone):
        raise InvalidInput(f"the file stays as it is, because of {item.name!r}: {error}")
    name, rdtype = _relative(owner, zone), item.name.rpartition(" ")[2].upper()
    found = _places(before)
    return {place: found[place] for place in found if place[0] == name and (place[1] == rdtype or rdtype not in TYPES)}


def _owner(name: str) -> dns.name.Name | None:
    """The name in the name of an item, ``None`` if it was not understood."""
    try:
        # as an item of the zone itself is called
        return parse_name(name.rpartition(" ")[0].removeprefix("@").removeprefix("."), name)
    except InvalidInput:
        return None


def _relative(owner: dns.name.Name, zone: dns.name.Name) -> str:
    relative = owner.relativize(zone)
    return relative.to_text() if relative.labels else ""


def _places(text: str) -> dict[Place, Data]:
    """The records of a zone file by place.

    :raises InvalidInput: it is no such file any more.
    """
    try:
        names = octodns.yaml.safe_load(io.StringIO(text), enforce_order=False) or {}
        records = [(name, data if isinstance(data, list) else [data]) for name, data in names.items()]
        return {(name, record["type"]): record for name, entries in records for record in entries}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise InvalidInput(f"the file that is there cannot be read: {error}", hint="Remove it") from None


def _check(zone: dns.name.Name, text: str) -> None:
    """Have octoDNS check the zone as a whole.

    :raises InvalidInput: it refuses it.
    """
    whole = octodns.zone.Zone(zone.to_text(), set())
    for (name, _rdtype), data in _places(text).items():
        whole.add_record(octodns.record.Record.new(whole, name, data, lenient=True), lenient=True)
    try:
        whole.validate()
    except octodns.zone.exception.ValidationError as error:
        reasons = "; ".join(str(reason) for reason in error.reasons)
        raise InvalidInput(f"octoDNS refuses the zone, so its file stays as it is: {reasons}") from None


def _dump(records: Mapping[Place, Data]) -> str:
    """The records in octoDNS' own order; several types of one name are a list."""
    names: dict[str, list[Data]] = {}
    for (name, _rdtype), data in sorted(records.items()):
        names.setdefault(name, []).append(data)
    stream = io.StringIO()
    content = {name: data[0] if len(data) == 1 else data for name, data in names.items()}
    octodns.yaml.safe_dump(content, stream)
    return stream.getvalue()
