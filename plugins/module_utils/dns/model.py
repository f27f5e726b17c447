# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Record sets: what is wanted, what a zone has, and which of it is ours.

An owned record set has a TXT record beside it that names this collection and an owner mark, at the name that octoDNS'
ownership processor uses: ``_owner.<type>.<name>``, with ``_wildcard`` for ``*``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

try:
    import dns.exception
    import dns.name
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype
    import dns.rdtypes.ANY.TXT
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput

TYPES = frozenset(
    {
        *("A", "AAAA", "CAA", "CNAME", "DS", "HTTPS", "LOC", "MX", "NAPTR", "NS", "OPENPGPKEY", "PTR"),
        *("SMIMEA", "SRV", "SSHFP", "SVCB", "TLSA", "TXT", "URI"),
    }
)
# made by the server
SERVER_TYPES = frozenset({"CDNSKEY", "CDS", "DNSKEY", "NSEC", "NSEC3", "NSEC3PARAM", "RRSIG", "SOA", "TYPE65534"})
# the server's business, or the parent zone's
APEX_PROTECTED = frozenset({"CNAME", "DS", "NS"})
# RFC 2181 section 8
TTL_MAX = 2**31 - 1
# RFC 1035 section 3.3: one character-string
STRING_MAX = 255

REGISTRY = b"_owner"
WILDCARD = b"_wildcard"
REGISTRY_PREFIX = "fediversity.hosting:"
MARK = re.compile(r"[!#-\[\]-~]{1,200}\Z")


@dataclass(frozen=True)
class ManagedZone:
    """A zone in which record sets of one owner mark are managed; *purge*: those that nobody desires are deleted."""

    name: dns.name.Name
    mark: str
    purge: bool


@dataclass(frozen=True)
class DesiredRecordSet:
    """All records of one name and type; *name* identifies the item: ``www.example.org A``."""

    name: str
    zone: ManagedZone
    owner: dns.name.Name
    type: str
    ttl: int
    values: frozenset[dns.rdata.Rdata]
    state: Literal["present", "absent"] = "present"


@dataclass(frozen=True)
class Malformed:
    """An item of the module option that is no record set."""

    name: str
    error: HostingError


Desired: TypeAlias = "DesiredRecordSet | Malformed"


@dataclass(frozen=True)
class ActualRecordSet:
    """What a zone has of one name and type.

    :param values: empty where only the registry record is left.
    :param registry: text of the registry record beside it, ``None`` without one.
    :param problem: why the zone could not be read.
    """

    zone: dns.name.Name
    owner: dns.name.Name
    type: str
    ttl: int = 0
    values: frozenset[dns.rdata.Rdata] = frozenset()
    registry: str | None = None
    problem: HostingError | None = None

    def mine(self, mark: str) -> bool:
        return self.registry == registry_text(mark)


def from_options(options: Sequence[Mapping[str, Any]]) -> tuple[list[ManagedZone], list[Desired]]:
    """The module option ``zones``: the zones that can be read, and every item of them.

    :raises InvalidInput: one zone is listed twice.
    """
    zones: list[ManagedZone] = []
    items: list[Desired] = []
    for option in options:
        record_sets = option["record_sets"]
        try:
            zone = _zone(option)
        except InvalidInput as error:
            names = {_raw_name(option, item) for item in record_sets} or {option["name"]}
            items.extend(Malformed(name, error) for name in sorted(names))
            continue
        zones.append(zone)
        items.extend(_item(zone, option, record_set) for record_set in record_sets)
    for name, count in Counter(zone.name for zone in zones).items():
        if count > 1:
            raise InvalidInput(
                "the zone is listed twice", where=f"zone {shown_name(name)}", hint="Join its record_sets in one entry"
            )
    return zones, items


def shown_name(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)


def item_name(owner: dns.name.Name, rdtype: str) -> str:
    return f"{shown_name(owner)} {rdtype}"


def registry_text(mark: str) -> str:
    return f"{REGISTRY_PREFIX}{mark}"


def registry_rdata(text: str) -> dns.rdata.Rdata:
    return _txt(text.encode("ascii"))


def registry_owner(zone: dns.name.Name, owner: dns.name.Name, rdtype: str) -> dns.name.Name:
    """Where the registry record of a record set is.

    :raises dns.name.NameTooLong: there is no room for it.
    """
    labels = owner.relativize(zone).labels
    if labels[:1] == (b"*",):
        labels = (WILDCARD, *labels[1:])
    return dns.name.Name((REGISTRY, rdtype.lower().encode("ascii"), *labels)).derelativize(zone)


def registered(zone: dns.name.Name, owner: dns.name.Name) -> tuple[dns.name.Name, str] | None:
    """Name and type of the record set whose registry record *owner* is, ``None`` if it is none."""
    labels = owner.relativize(zone).labels
    if len(labels) < 2 or labels[0].lower() != REGISTRY:
        return None
    rdtype = labels[1].decode("ascii", "replace").upper()
    rest = labels[2:]
    if rest[:1] == (WILDCARD,):
        rest = (b"*", *rest[1:])
    return (dns.name.Name(rest).derelativize(zone), rdtype) if rdtype in TYPES else None


def wire_size(value: dns.rdata.Rdata) -> int:
    """Bytes of a value without compression."""
    return len(value.to_wire() or b"")


def txt_bytes(value: dns.rdata.Rdata) -> bytes:
    """The text of a TXT record; where it is cut into strings has no meaning."""
    return b"".join(value.strings) if isinstance(value, dns.rdtypes.ANY.TXT.TXT) else b""


def comparable(rdtype: str, values: Iterable[dns.rdata.Rdata]) -> frozenset[Any]:
    """The values in a form that is equal for equal meanings; dnspython compares in canonical form (RFC 4034)."""
    return frozenset(txt_bytes(value) for value in values) if rdtype == "TXT" else frozenset(values)


def shown(ttl: int, values: Iterable[dns.rdata.Rdata]) -> dict[str, Any]:
    """What diff mode shows of a record set; TXT in one piece."""
    return {
        "ttl": ttl,
        "value": sorted(
            txt_bytes(value).decode(errors="backslashreplace") if txt_bytes(value) else value.to_text()
            for value in values
        ),
    }


def _zone(option: Mapping[str, Any]) -> ManagedZone:
    where = f"zone {option['name']}"
    if not MARK.match(option["owner"]):
        raise InvalidInput(
            "the owner mark holds white space, quotes or characters beyond ASCII, or is too long",
            where=f"{where}, owner",
            hint="Use 1 to 200 printable ASCII characters",
        )
    return ManagedZone(_name(option["name"], f"{where}, name"), option["owner"], option["purge"])


def _raw_name(zone: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    """How an item is called as long as its name has not been understood."""
    record = item["record"] if item["record"] is not None else ".".join(filter(None, [item["prefix"], zone["name"]]))
    return f"{record} {item['type']}"


def _item(zone: ManagedZone, option: Mapping[str, Any], item: Mapping[str, Any]) -> Desired:
    try:
        return _record_set(zone, item)
    except InvalidInput as error:
        return Malformed(_raw_name(option, item), error)


def _record_set(zone: ManagedZone, item: Mapping[str, Any]) -> DesiredRecordSet:
    zone_name = shown_name(zone.name)
    if item["record"] is not None:
        owner = _name(item["record"], f"zone {zone_name}, record {item['record']!r}")
    else:
        owner = _name(item["prefix"] or "@", f"zone {zone_name}, prefix {item['prefix']!r}", zone.name)
    rdtype = item["type"].upper()
    name = item_name(owner, rdtype)
    where = f"zone {zone_name}, {name}"
    _check_place(zone.name, owner, rdtype, where)
    if not 0 <= item["ttl"] <= TTL_MAX:
        raise InvalidInput(f"the TTL is {item['ttl']}", where=f"{where}, ttl", hint=f"Use 0 to {TTL_MAX} seconds")
    if item["state"] == "present" and not item["value"]:
        raise InvalidInput("there is no value", where=f"{where}, value", hint="Set value, or state to absent")
    values = frozenset(_value(rdtype, value, f"{where}, value") for value in item["value"])
    if rdtype == "CNAME" and len(values) > 1:
        raise InvalidInput("a CNAME has one value only", where=f"{where}, value", hint="Keep one (RFC 2181, 10.1)")
    return DesiredRecordSet(name, zone, owner, rdtype, item["ttl"], values, item["state"])


def _check_place(zone: dns.name.Name, owner: dns.name.Name, rdtype: str, where: str) -> None:
    """Refuse what may not be in this place, or not at all."""
    if rdtype not in TYPES:
        raise InvalidInput(
            f"records of type {rdtype} are not managed here",
            where=f"{where}, type",
            hint=f"Use {', '.join(sorted(TYPES))}",
        )
    if not owner.is_subdomain(zone):
        raise InvalidInput(
            "the name is outside the zone",
            where=f"{where}, record",
            hint="Write the full name into record, or the part before the zone into prefix",
        )
    if owner == zone and rdtype in APEX_PROTECTED:
        raise InvalidInput(
            f"{rdtype} records of the zone itself are not managed here",
            where=f"{where}, type",
            hint="A CNAME cannot be there (RFC 1034, 3.6.2)" if rdtype == "CNAME" else "Change them on the server",
        )
    labels = owner.relativize(zone).labels
    if labels[:1] in ((REGISTRY,), (WILDCARD,)):
        raise InvalidInput(
            f"names that start with {labels[0].decode()} are kept for the ownership registry",
            where=f"{where}, record",
            hint="Choose another name",
        )
    try:
        registry_owner(zone, owner, rdtype)
    except dns.name.NameTooLong:
        raise InvalidInput(
            "the name leaves no room for its ownership record",
            where=f"{where}, record",
            hint="Shorten it by 20 characters",
        ) from None


def _name(text: str, where: str, origin: dns.name.Name | None = None) -> dns.name.Name:
    """A name in lower case, letters beyond ASCII as A-labels (IDNA 2008)."""
    try:
        return dns.name.from_text(text, origin or dns.name.root).canonicalize()
    except dns.exception.DNSException as error:
        raise InvalidInput(
            f"{text!r} is no domain name: {error}",
            where=where,
            hint="Labels have 1 to 63 bytes, the whole name at most 255 (RFC 1035, 2.3.4)",
        ) from None


def _value(rdtype: str, text: str, where: str) -> dns.rdata.Rdata:
    """One value; names in it are always complete, with or without the final dot."""
    if rdtype == "TXT" and not (len(text) > 1 and text.startswith('"') and text.endswith('"')):
        return _txt(text.encode(errors="backslashreplace"))
    try:
        value = dns.rdata.from_text(dns.rdataclass.IN, rdtype, text, origin=dns.name.root, relativize=False)
    except (dns.exception.DNSException, ValueError) as error:
        raise InvalidInput(
            f"{text!r} is no value of type {rdtype}: {error}", where=where, hint="Write it as in a zone file"
        ) from None
    for field in value.__slots__:
        target = getattr(value, field)
        if isinstance(target, dns.name.Name) and len(target.labels) == 2 and not text.endswith("."):
            raise InvalidInput(
                f"{shown_name(target)!r} is no complete name",
                where=where,
                hint="Names in values are not relative to the zone; write the full name",
            )
    return value


def _txt(text: bytes) -> dns.rdata.Rdata:
    strings = [text[start : start + STRING_MAX] for start in range(0, len(text), STRING_MAX)] or [b""]
    return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)
