# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Provider of DNS record sets: read by zone transfer, changed by one signed UPDATE per zone, read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

try:
    import dns.name
    import dns.rcode
    import dns.rdatatype
    import dns.rrset
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns import model, update
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import Server, refused
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import (
    ActualRecordSet,
    Desired,
    DesiredRecordSet,
    Malformed,
    ManagedZone,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.update import RecordChange, Unit
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    Denied,
    HostingError,
    InvalidInput,
    Locked,
    NotOwned,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Applied, Change, Plan, Refusal

# RFC 2136 section 2.4: the zone is not as the prerequisites say
CHANGED_MEANWHILE = frozenset({"NXDOMAIN", "YXDOMAIN", "NXRRSET", "YXRRSET"})
# answers that may be about a part of the message only
PARTIAL = CHANGED_MEANWHILE | {"REFUSED", "FORMERR", "NOTZONE"}
# so many messages of a zone are searched for the part at fault; then parts fail as a whole
MAX_HALVED = 64


class DnsRecords:
    """The record sets of some zones on one primary server."""

    kind: ClassVar[str] = "dns_records"

    def __init__(self, server: Server, zones: Sequence[ManagedZone]) -> None:
        self._server = server
        self._zones = {zone.name: zone for zone in zones}

    def read(self, desired: Sequence[Desired]) -> Mapping[str, ActualRecordSet]:
        """What is at the desired names, and everything that is ours.

        A zone that cannot be read is a problem of its items; it is an error when no zone can be read.
        """
        found: dict[str, ActualRecordSet] = {}
        problems: list[HostingError] = []
        items = [item for item in desired if isinstance(item, DesiredRecordSet)]
        for zone in self._zones.values():
            wanted = [item for item in items if item.zone.name == zone.name]
            try:
                found |= self._read_zone(zone, wanted)
            except HostingError as error:
                problems.append(error)
                name = model.shown_name(zone.name)
                found[name] = ActualRecordSet(zone.name, zone.name, "SOA", problem=error)
                found |= {
                    item.name: ActualRecordSet(zone.name, item.owner, item.type, problem=error) for item in wanted
                }
        if problems and len(problems) == len(self._zones):
            raise problems[0]
        return found

    def plan(self, desired: Sequence[Desired], actual: Mapping[str, ActualRecordSet]) -> Plan[Desired, ActualRecordSet]:
        listed = Counter(item.name for item in desired)
        staying = _staying(desired, actual, self._zones)
        changes: list[RecordChange] = []
        refusals: dict[str, Refusal] = {}
        for item in desired:
            try:
                if listed[item.name] > 1:
                    raise InvalidInput("the record set is listed twice", hint="Join the values in one entry")
                changes.append(_change(item, actual.get(item.name), staying))
            except HostingError as error:
                refusals[item.name] = Refusal(item.name, error)
        for name, found in actual.items():
            zone = self._zones[found.zone]
            if name in listed:
                continue
            if found.problem is not None:
                refusals[name] = Refusal(name, found.problem)
            elif zone.purge and found.mine(zone.mark):
                changes.append(Change(name, "delete", model.shown(found.ttl, found.values), {}, None, found))
        return Plan(tuple(changes), tuple(refusals.values()))

    def apply(self, changes: Sequence[RecordChange]) -> Iterator[Applied[Desired, ActualRecordSet]]:
        for zone in self._zones:
            of_zone = [change for change in changes if _zone_of(change) == zone]
            done: set[str] = set()
            try:
                for batch in update.batches(zone, update.units(of_zone)):
                    for applied in self._send(zone, batch):
                        done.add(applied.change.name)
                        yield applied
            except HostingError as error:
                yield from (Applied(change, error) for change in of_zone if change.name not in done)

    def outputs(self, actual: ActualRecordSet) -> Mapping[str, Any]:
        return {
            "zone": model.shown_name(actual.zone),
            "record": model.shown_name(actual.owner),
            "type": actual.type,
            **model.shown(actual.ttl, actual.values),
        }

    def _send(self, zone: dns.name.Name, batch: Sequence[Unit]) -> Iterator[Applied[Desired, ActualRecordSet]]:
        """Send one message; a refused one is halved until only the units at fault are left out."""
        waiting = [batch]
        halved = 0
        while waiting:
            part = waiting.pop()
            try:
                rcode = self._server.update(zone, update.message(zone, part))
            except InvalidInput as error:
                # too big for a message, so it is alone in its batch
                yield from (Applied(change, error) for unit in part for change in unit)
                continue
            if len(part) > 1 and dns.rcode.to_text(rcode) in PARTIAL and halved < MAX_HALVED:
                halved += 1
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
                continue
            for unit in part:
                for change in unit:
                    yield Applied(change, None if rcode == dns.rcode.NOERROR else _rejection(rcode))

    def _read_zone(self, zone: ManagedZone, wanted: Sequence[DesiredRecordSet]) -> dict[str, ActualRecordSet]:
        if not wanted and not zone.purge:
            return {}
        try:
            rrsets = self._server.transfer(zone.name)
        except Denied:
            # without a transfer nobody can know what else is ours
            if zone.purge:
                raise
            rrsets = self._query(zone.name, wanted)
        return _actual(zone, rrsets, {item.owner for item in wanted})

    def _query(self, zone: dns.name.Name, wanted: Sequence[DesiredRecordSet]) -> list[dns.rrset.RRset]:
        """What can be seen of the wanted record sets and their registry without a zone transfer."""
        found: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], dns.rrset.RRset] = {}
        for item in wanted:
            registry = model.registry_owner(zone, item.owner, item.type)
            for owner, rdtype in ((item.owner, item.type), (registry, "TXT")):
                # an answer may be a CNAME of the name and what it leads to
                for rrset in self._server.query(zone, owner, rdtype):
                    if rrset.name == owner:
                        found[rrset.name, rrset.rdtype] = rrset
        return list(found.values())


def _actual(
    zone: ManagedZone, rrsets: Iterable[dns.rrset.RRset], wanted: Collection[dns.name.Name]
) -> dict[str, ActualRecordSet]:
    """The record sets at the *wanted* names and all that are ours, by item name."""
    registry: dict[tuple[dns.name.Name, str], str] = {}
    others: list[tuple[dns.name.Name, str, dns.rrset.RRset]] = []
    for rrset in rrsets:
        rdtype = dns.rdatatype.to_text(rrset.rdtype)
        place = model.registered(zone.name, rrset.name) if rdtype == "TXT" else None
        if place is not None:
            registry[place] = " ".join(sorted(model.txt_bytes(value).decode("ascii", "replace") for value in rrset))
        elif rdtype not in model.SERVER_TYPES:
            others.append((rrset.name.canonicalize(), rdtype, rrset))

    ours = model.registry_text(zone.mark)
    found = {
        model.item_name(owner, rdtype): ActualRecordSet(
            zone.name, owner, rdtype, rrset.ttl, frozenset(rrset), registry.get((owner, rdtype))
        )
        for owner, rdtype, rrset in others
        if owner in wanted or registry.get((owner, rdtype)) == ours
    }
    for (owner, rdtype), text in registry.items():
        if owner in wanted or text == ours:
            found.setdefault(model.item_name(owner, rdtype), ActualRecordSet(zone.name, owner, rdtype, registry=text))
    return found


def _staying(
    desired: Sequence[Desired], actual: Mapping[str, ActualRecordSet], zones: Mapping[dns.name.Name, ManagedZone]
) -> dict[dns.name.Name, set[str]]:
    """The types that each name would have after the run."""
    wishes = {item.name: item for item in desired if isinstance(item, DesiredRecordSet)}
    types: dict[dns.name.Name, set[str]] = {}
    for name, found in actual.items():
        wish = wishes.get(name)
        zone = zones[found.zone]
        leaving = found.mine(zone.mark) and (wish.state == "absent" if wish else zone.purge)
        if found.values and not leaving:
            types.setdefault(found.owner, set()).add(found.type)
    for wish in wishes.values():
        if wish.state == "present":
            types.setdefault(wish.owner, set()).add(wish.type)
    return types


def _change(item: Desired, found: ActualRecordSet | None, staying: Mapping[dns.name.Name, set[str]]) -> RecordChange:
    """The change that one item needs.

    :raises HostingError: the item is refused.
    """
    if isinstance(item, Malformed):
        raise item.error
    if found is not None and found.problem is not None:
        raise found.problem
    if found is not None and not found.mine(item.zone.mark):
        raise _not_owned(item, found)
    before = model.shown(found.ttl, found.values) if found is not None and found.values else {}
    if item.state == "absent":
        return Change(item.name, "unchanged" if found is None else "delete", before, {}, item, found)
    others = staying[item.owner] - {item.type}
    if others and (item.type == "CNAME" or "CNAME" in others):
        raise InvalidInput(
            f"a CNAME cannot stand beside other records (RFC 1034, 3.6.2): {', '.join(sorted(others))}",
            hint="List what has to go with state absent, or purge the zone",
        )
    after = model.shown(item.ttl, item.values)
    if found is None or not found.values:
        return Change(item.name, "create", before, after, item, found)
    same = item.ttl == found.ttl and model.comparable(item.type, item.values) == model.comparable(
        found.type, found.values
    )
    return Change(item.name, "unchanged" if same else "update", before, after, item, found)


def _not_owned(item: DesiredRecordSet, found: ActualRecordSet) -> NotOwned:
    registry = model.shown_name(model.registry_owner(found.zone, found.owner, found.type))
    wish = model.registry_text(item.zone.mark)
    return NotOwned(
        f"the record set belongs to {found.registry!r}" if found.registry else "the record set carries no mark of ours",
        hint=f"Delete it, or give it to us with a TXT record {registry} that says {wish}",
    )


def _rejection(rcode: dns.rcode.Rcode) -> HostingError:
    if dns.rcode.to_text(rcode) in CHANGED_MEANWHILE:
        return Locked("somebody else changed the record set after this run had read it", hint="Run again")
    return refused(rcode)


def _zone_of(change: RecordChange) -> dns.name.Name | None:
    if isinstance(change.desired, DesiredRecordSet):
        return change.desired.zone.name
    return change.actual.zone if change.actual is not None else None
