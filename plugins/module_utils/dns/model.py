# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Record sets: what is wanted, what a zone has, and which of it is ours.

An owned record set has a TXT record beside it that names this collection and an owner mark, at the name that octoDNS'
ownership processor uses: ``_owner.<type>.<name>``, with ``_wildcard`` for ``*``. A TXT record ``_registry`` of the zone
changes with everything that this collection writes to the zone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

try:
    import dns.name
    import dns.rdatatype
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns import values
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.names import shown_labels
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.transfer import Content, Labels
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Change

# by RFC and by IANA's registry of resource record types
NUMBERS = {
    **{"A": 1, "NS": 2, "CNAME": 5, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "LOC": 29, "SRV": 33, "NAPTR": 35},
    **{"DS": 43, "SSHFP": 44, "TLSA": 52, "SMIMEA": 53, "OPENPGPKEY": 61, "SVCB": 64, "HTTPS": 65, "URI": 256},
    "CAA": 257,
}
TYPES = frozenset(NUMBERS)
NAMES = {number: name for name, number in NUMBERS.items()}
TXT = NUMBERS["TXT"]
# SOA, RRSIG, NSEC, DNSKEY, NSEC3, NSEC3PARAM, CDS, CDNSKEY and what BIND keeps for signing: made by the server
SERVER_TYPES = frozenset({6, 46, 47, 48, 50, 51, 59, 60, 65534})
# record sets of anybody that can contradict ours: aliases, and what must not lead to one
NEIGHBOURS = frozenset({NUMBERS["CNAME"], NUMBERS["MX"], NUMBERS["NS"], NUMBERS["SRV"]})

OWNER = b"_owner"
WILDCARD = b"_wildcard"
REGISTRY = b"_registry"
REGISTRY_PREFIX = "fediversity.hosting:"
MARKED = REGISTRY_PREFIX.encode("ascii")


@dataclass(frozen=True)
class ManagedZone:
    """A zone in which record sets of one owner mark are managed; *purge*: those that nobody desires are deleted."""

    name: dns.name.Name
    mark: str
    purge: bool


@dataclass(frozen=True)
class DesiredRecordSet:
    """All records of one name and type; *name* identifies the item: ``www.example.org A``.

    :param values: in wire form, as they are sent.
    :param adopt: whether a record set without any mark becomes ours.
    :param listed: whether it has an entry in the results while nothing is to be done.
    """

    name: str
    zone: ManagedZone
    owner: dns.name.Name
    type: str
    ttl: int
    values: frozenset[bytes]
    state: Literal["present", "absent"] = "present"
    adopt: bool = False
    listed: bool = True


@dataclass(frozen=True)
class Unclear:
    """What an item that was not understood may be about: nothing of that may be taken away.

    :param zone: ``None`` if it may be any.
    :param owner: ``None`` if it may be any name of the zone.
    :param part: whether it may belong to a record set of which other lines have the rest.
    """

    zone: dns.name.Name | None = None
    owner: dns.name.Name | None = None
    part: bool = False


@dataclass(frozen=True)
class Malformed:
    """An item of the module options that is no record set.

    :param unclear: set if *name* is not the name of the record set that was meant.
    """

    name: str
    error: HostingError
    unclear: Unclear | None = None


Desired: TypeAlias = "DesiredRecordSet | Malformed"


@dataclass(frozen=True)
class ActualRecordSet:
    """What a zone has of one name and type.

    :param labels: of the name, in lower case.
    :param values: in wire form, as the server has them; empty where only the registry record is left.
    :param registry: text of the registry record beside it, ``None`` without one.
    :param problem: why the zone could not be read.
    """

    zone: dns.name.Name
    labels: Labels
    type: str
    ttl: int = 0
    values: frozenset[bytes] = frozenset()
    registry: str | None = None
    problem: HostingError | None = None

    @cached_property
    def owner(self) -> dns.name.Name:
        return dns.name.Name(self.labels)

    @cached_property
    def meaning(self) -> frozenset[bytes]:
        return values.meaning(self.type, self.values)

    def mine(self, mark: str) -> bool:
        return self.registry == registry_text(mark)

    def same(self, other: ActualRecordSet) -> bool:
        """Whether nobody has changed it between two readings."""
        return (self.ttl, self.meaning, self.registry) == (other.ttl, other.meaning, other.registry)


def may_change(item: DesiredRecordSet, found: ActualRecordSet) -> bool:
    """Whether a record set is ours, or may become so because it is nobody's."""
    return found.mine(item.zone.mark) or (item.adopt and found.registry is None)


RecordChange: TypeAlias = Change[Desired, ActualRecordSet]
Zones: TypeAlias = "Mapping[dns.name.Name, ManagedZone]"


def item_name(labels: Labels, rdtype: str) -> str:
    return f"{shown_labels(labels)} {rdtype}"


def registry_text(mark: str) -> str:
    return f"{REGISTRY_PREFIX}{mark}"


def registry_owner(zone: dns.name.Name, owner: dns.name.Name, rdtype: str) -> dns.name.Name:
    """Where the registry record of a record set is.

    :raises dns.name.NameTooLong: there is no room for it.
    """
    labels = owner.labels[: -len(zone.labels)]
    if labels[:1] == (b"*",):
        labels = (WILDCARD, *labels[1:])
    return dns.name.Name((OWNER, rdtype.lower().encode("ascii"), *labels, *zone.labels))


def version_owner(zone: dns.name.Name) -> dns.name.Name:
    """Where the record is that changes with everything that this collection writes."""
    return dns.name.Name((REGISTRY, *zone.labels))


def version_name(zone: dns.name.Name) -> str:
    return item_name((REGISTRY, *zone.labels), "TXT")


def actual_record_sets(zone: ManagedZone, content: Content, wanted: Collection[Labels]) -> dict[str, ActualRecordSet]:
    """By item name: the record sets at the *wanted* names, all that are ours, their neighbours, and the version."""
    registry: dict[tuple[Labels, int], str] = {}
    others = []
    apex = len(zone.name.labels)
    for place, (ttl, wires) in content.items():
        labels, number = place
        if number == TXT and labels[0] == OWNER and (about := _registered(labels, apex)) is not None:
            registry[about] = " ".join(sorted(values.txt_bytes(wire).decode("ascii", "replace") for wire in wires))
        elif number not in SERVER_TYPES:
            others.append((place, ttl, wires))

    ours = registry_text(zone.mark)
    version = (REGISTRY, *zone.name.labels)
    found: dict[str, ActualRecordSet] = {}
    for place, ttl, wires in others:
        labels, number = place
        text = registry.pop(place, None)
        if text == ours or labels in wanted or number in NEIGHBOURS or labels == version:
            rdtype = NAMES.get(number) or dns.rdatatype.to_text(dns.rdatatype.RdataType.make(number))
            found[item_name(labels, rdtype)] = ActualRecordSet(zone.name, labels, rdtype, ttl, frozenset(wires), text)
    # only their registry record is left
    for (labels, number), text in registry.items():
        if text == ours or labels in wanted:
            rdtype = NAMES[number]
            found[item_name(labels, rdtype)] = ActualRecordSet(zone.name, labels, rdtype, registry=text)
    return found


def _registered(labels: Labels, apex: int) -> tuple[Labels, int] | None:
    """Name and type of the record set that a registry record is about, ``None`` if it is none."""
    if len(labels) < apex + 2:
        return None
    number = NUMBERS.get(labels[1].decode("ascii", "replace").upper())
    rest = labels[2:]
    if rest[0] == WILDCARD and len(rest) > apex:
        rest = (b"*", *rest[1:])
    return (rest, number) if number is not None else None


def shown(rdtype: str, ttl: int, wires: Collection[bytes]) -> dict[str, Any]:
    """What diff mode shows of a record set."""
    return {"ttl": ttl, "value": sorted(values.shown_value(rdtype, wire) for wire in wires)}


def place(change: RecordChange) -> tuple[dns.name.Name, str]:
    """Name and type of the record set that a change is about."""
    if isinstance(change.desired, DesiredRecordSet):
        return change.desired.owner, change.desired.type
    if change.actual is not None:
        return change.actual.owner, change.actual.type
    raise ValueError(f"a change of nothing: {change.name}")


def zone_of(change: RecordChange) -> dns.name.Name | None:
    if isinstance(change.desired, DesiredRecordSet):
        return change.desired.zone.name
    return change.actual.zone if change.actual is not None else None


def wishes(desired: Collection[Desired]) -> Mapping[str, DesiredRecordSet]:
    """The understood items by name."""
    return {item.name: item for item in desired if isinstance(item, DesiredRecordSet)}
