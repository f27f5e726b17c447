# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Provider of the members of a catalog zone (RFC 9432): read by zone transfer, changed by signed UPDATEs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

try:
    import dns.name
    import dns.rcode
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype
    import dns.rdtypes.ANY.PTR
    import dns.rdtypes.ANY.TXT
    import dns.update
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import Server, refused
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.content import Record, records
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.files import make_zone_file, refused_files
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.model import (
    MARK_LABELS,
    MEMBERS,
    ActualZone,
    Holder,
    Wanted,
    WantedZone,
    ZoneChange,
    holder_from,
    name_text,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.planning import plan_zones, without
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.removal import Removal
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    InvalidInput,
    Locked,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Applied, Plan

# RFC 9432 sections 4.2.1 and 4.3.2: the schema, and the group of a member
VERSION = "version"
SCHEMA = "2"
GROUP = "group"
# a catalog is not resolved, so the TTL has no meaning (RFC 9432 section 4)
TTL = 0
# so many members fit into one message even if all names are as long as they can be
CHUNK = 40
# RFC 2136 section 2.4: the catalog is not as the prerequisites say
CHANGED_MEANWHILE = frozenset({"NXDOMAIN", "YXDOMAIN", "NXRRSET", "YXRRSET"})


class CatalogZones:
    """The member zones of one catalog zone."""

    kind: ClassVar[str] = "dns_zones"

    def __init__(
        self,
        server: Server,
        catalog: dns.name.Name,
        owner: str,
        removal: Removal,
        *,
        purge: bool,
        allowed: Collection[dns.name.Name],
    ) -> None:
        self._server = server
        self._catalog = catalog
        self._owner = owner
        self._removal = removal
        self._purge = purge
        self._allowed = allowed
        # as read last
        self._members: Mapping[str, ActualZone] = {}

    def read(self, desired: Sequence[Wanted]) -> Mapping[str, ActualZone]:
        """Our members and the wanted ones; the others are kept in mind, because no zone may be made below them."""
        self._members = members(self._catalog, records(self._server, self._catalog))
        wanted = {item.name for item in desired}
        return {
            name: found for name, found in self._members.items() if name in wanted or found.holder.owner == self._owner
        }

    def plan(self, desired: Sequence[Wanted], actual: Mapping[str, ActualZone]) -> Plan[Wanted, ActualZone]:
        plan = plan_zones(
            desired, self._members, self._owner, self._removal, purge=self._purge, allowed=self._allowed, same=_same
        )
        zone_files = self._removal.zone_files
        new = [change for change in plan.pending() if change.action == "create"]
        refused = refused_files(zone_files, new) if zone_files is not None else {}
        return without(plan, refused)

    def apply(self, changes: Sequence[ZoneChange]) -> Iterator[Applied[Wanted, ActualZone]]:
        ready = []
        for change in changes:
            try:
                self._prepare(change)
            except HostingError as error:
                yield Applied(change, error)
            else:
                ready.append(change)
        # what is new comes first
        ready.sort(key=lambda change: change.action == "delete")
        for start in range(0, len(ready), CHUNK):
            yield from self._send(ready[start : start + CHUNK])

    def outputs(self, actual: ActualZone) -> Mapping[str, Any]:
        return {"member": actual.identifier, **actual.shown()}

    def _prepare(self, change: ZoneChange) -> None:
        """The zone file of a new zone has to be there, and the copy of one that goes made, before servers know."""
        if (
            change.action == "create"
            and isinstance(change.desired, WantedZone)
            and self._removal.zone_files is not None
        ):
            make_zone_file(self._removal.zone_files, change.desired, lambda path: None)
        if change.action == "delete" and change.actual is not None:
            self._removal.copy(change.actual)

    def _send(self, changes: Sequence[ZoneChange]) -> Iterator[Applied[Wanted, ActualZone]]:
        """Send one message; a refused one is halved until only the members at fault are left out."""
        waiting = [changes]
        while waiting:
            part = waiting.pop()
            try:
                rcode = self._server.update(self._catalog, message(self._catalog, part))
            except HostingError as error:
                yield from (Applied(change, error) for change in part)
                continue
            if rcode != dns.rcode.NOERROR and len(part) > 1:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
                continue
            for change in part:
                if rcode == dns.rcode.NOERROR:
                    yield Applied(change, self._removed(change))
                else:
                    yield Applied(change, _rejection(rcode))

    def _removed(self, change: ZoneChange) -> HostingError | None:
        if change.action != "delete":
            return None
        try:
            self._removal.set_aside(change.name)
        except HostingError as error:
            return error
        return None


def identifier(zone: dns.name.Name) -> str:
    """The label of a new member: the same for the same zone, so that two runs cannot add it twice."""
    return hashlib.sha256(zone.to_wire() or b"").hexdigest()[:32]


def members(catalog: dns.name.Name, content: Iterable[Record]) -> dict[str, ActualZone]:
    """The members of a catalog by zone name.

    :raises InvalidInput: it is no catalog zone of version 2.
    """
    pointers: dict[str, list[dns.name.Name]] = {}
    texts: dict[tuple[str, ...], list[str]] = {}
    for owner, _ttl, value in content:
        labels = tuple(label.decode("latin-1").lower() for label in owner.relativize(catalog).labels)
        if isinstance(value, dns.rdtypes.ANY.PTR.PTR) and labels[1:] == (MEMBERS,):
            pointers.setdefault(labels[0], []).append(value.target.canonicalize())
        elif isinstance(value, dns.rdtypes.ANY.TXT.TXT):
            texts.setdefault(labels, []).append(b"".join(value.strings).decode("utf-8", "replace"))
    if texts.get((VERSION,)) != [SCHEMA]:
        raise InvalidInput(
            "the zone is no catalog zone of version 2",
            where=f"catalog {name_text(catalog)}",
            hint=f'Add the record {VERSION}.{name_text(catalog)} TXT "{SCHEMA}" (RFC 9432, 4.2.1)',
        )
    found: dict[str, ActualZone] = {}
    for label, zones in sorted(pointers.items()):
        for zone in zones:
            member = _member(label, zone, len(zones), texts)
            if member.name in found:
                problem = BackendError(
                    "the catalog lists the zone under two labels",
                    where=f"{found[member.name].identifier} and {label}",
                    hint="Delete one of them by hand; consumers ignore such a catalog",
                )
                member = ActualZone(member.name, member.zone, Holder(None), identifier=label, problem=problem)
            found[member.name] = member
    return found


def message(catalog: dns.name.Name, changes: Sequence[ZoneChange]) -> dns.update.UpdateMessage:
    """The UPDATE that makes *changes*, on condition that the members still are as they were read."""
    update = dns.update.UpdateMessage(catalog)
    for change in changes:
        found = change.actual
        zone = _zone_of(change)
        node = dns.name.Name(((found.identifier if found else identifier(zone)).encode(), MEMBERS.encode()))
        group, mark = _below(node, GROUP), _below(node, *MARK_LABELS)
        if found is None:
            update.absent(node.derelativize(catalog), dns.rdatatype.PTR)
            update.absent(mark.derelativize(catalog), dns.rdatatype.TXT)
        else:
            update.present(node.derelativize(catalog), _ptr(found.zone))
            update.present(mark.derelativize(catalog), _txt(found.holder.text()))
            if found.group is not None:
                update.present(group.derelativize(catalog), _txt(found.group))
        for name, rdtype in ((node, "PTR"), (group, "TXT"), (mark, "TXT")):
            # the member's own record stays in an update: servers take its absence for the end of the zone
            if change.action == "delete" or (change.action == "update" and rdtype == "TXT"):
                update.delete(name.derelativize(catalog), rdtype)
        if change.action != "delete" and isinstance(change.desired, WantedZone):
            if change.action == "create":
                update.add(node.derelativize(catalog), TTL, _ptr(zone))
            update.add(mark.derelativize(catalog), TTL, _txt(change.desired.holder.text()))
            if change.desired.group is not None:
                update.add(group.derelativize(catalog), TTL, _txt(change.desired.group))
    return update


def _member(label: str, zone: dns.name.Name, count: int, texts: Mapping[tuple[str, ...], list[str]]) -> ActualZone:
    group = texts.get((GROUP, label, MEMBERS), [])
    marks = texts.get((*MARK_LABELS, label, MEMBERS), [])
    holder = holder_from(marks[0]) if len(marks) == 1 else Holder(None)
    problem = None
    strange = not label.isascii() or any("\N{REPLACEMENT CHARACTER}" in text for text in group)
    if count > 1 or len(group) > 1 or strange:
        problem = BackendError(
            "the member of the catalog is broken: it has several zones or groups, or bytes that are no text",
            where=label,
            hint="Mend it by hand (RFC 9432, 4.1 and 4.3.2)",
        )
    return ActualZone(name_text(zone), zone, holder, group[0] if group else None, identifier=label, problem=problem)


def _zone_of(change: ZoneChange) -> dns.name.Name:
    if change.actual is not None:
        return change.actual.zone
    if isinstance(change.desired, WantedZone):
        return change.desired.zone
    raise ValueError(f"a change of nothing: {change.name}")


def _same(item: WantedZone, found: ActualZone) -> bool:
    return (item.holder, item.group) == (found.holder, found.group)


def _below(node: dns.name.Name, *labels: str) -> dns.name.Name:
    return dns.name.Name((*(label.encode() for label in labels), *node.labels))


def _ptr(zone: dns.name.Name) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.PTR, zone.to_text())


def _txt(text: str) -> dns.rdtypes.ANY.TXT.TXT:
    raw = text.encode()
    return dns.rdtypes.ANY.TXT.TXT(
        dns.rdataclass.IN, dns.rdatatype.TXT, [raw[start : start + 255] for start in range(0, len(raw), 255)]
    )


def _rejection(rcode: dns.rcode.Rcode) -> HostingError:
    if dns.rcode.to_text(rcode) in CHANGED_MEANWHILE:
        return Locked("somebody else changed the member after this run had read it", hint="Run again")
    return refused(rcode)
