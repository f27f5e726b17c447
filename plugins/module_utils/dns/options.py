# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module options as zones and record sets; what cannot be understood is refused item by item."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

try:
    import dns.name
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns import values
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.lines import (
    WrittenRecordSet,
    malformed,
    read_lines,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.mail import check_texts
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import (
    OWNER,
    REGISTRY,
    TYPES,
    WILDCARD,
    Desired,
    DesiredRecordSet,
    Malformed,
    ManagedZone,
    Unclear,
    item_name,
    registry_owner,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.names import parse_name, shown_name
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput

# the server's business, or the parent zone's
APEX_PROTECTED = frozenset({"CNAME", "DS", "NS"})
# RFC 2181 section 8
TTL_MAX = 2**31 - 1
MARK = re.compile(r"[!#-\[\]-~]{1,200}\Z")

# the zone that a name is in
FindZone: TypeAlias = Callable[["dns.name.Name"], ManagedZone]


@dataclass(frozen=True)
class Rules:
    """What holds for all items of a call.

    :param ttl: instead of the items' own.
    :param apex_ns: whether NS records of a zone itself are managed.
    """

    ttl: int | None = None
    apex_ns: bool = False


def from_options(options: Sequence[Mapping[str, Any]], rules: Rules) -> tuple[list[ManagedZone], list[Desired]]:
    """The module option ``zones``: the zones that can be read, and every item of them.

    :raises InvalidInput: one zone is listed twice.
    """
    zones: list[ManagedZone] = []
    items: list[Desired] = []
    for option in options:
        try:
            zone = managed_zone(option)
        except InvalidInput as error:
            names = {_raw_name(item, f".{option['name']}") for item in option["record_sets"]} or {option["name"]}
            items.extend(Malformed(name, error) for name in sorted(names))
            continue
        zones.append(zone)
        items.extend(_items(zone, option, rules))
    for name, count in Counter(zone.name for zone in zones).items():
        if count > 1:
            raise InvalidInput(
                "the zone is listed twice", where=f"zone {shown_name(name)}", hint="Join its record_sets in one entry"
            )
    return zones, items


def managed_zone(option: Mapping[str, Any]) -> ManagedZone:
    """The zone of ``name``, ``owner`` and ``purge``.

    :raises InvalidInput: the name or the owner mark is malformed.
    """
    where = f"zone {option['name']}"
    check_mark(option["owner"], f"{where}, owner")
    return ManagedZone(parse_name(option["name"], f"{where}, name"), option["owner"], option["purge"])


def check_mark(mark: str, where: str) -> None:
    """Refuse an owner mark that a TXT record could not hold as it is.

    :raises InvalidInput: the mark is malformed.
    """
    if not MARK.match(mark):
        raise InvalidInput(
            "the owner mark holds white space, quotes or characters beyond ASCII, or is too long",
            where=where,
            hint="Use 1 to 200 printable ASCII characters",
        )


def from_record_sets(options: Sequence[Mapping[str, Any]], find: FindZone, rules: Rules) -> Iterator[Desired]:
    """The module option ``record_sets``, whose zones have to be found."""
    for option in options:
        try:
            zone = find(parse_name(option["record"], f"record {option['record']!r}"))
        except HostingError as error:
            yield malformed(_written(option, dns.name.root, adopt=False), None, error)
            continue
        yield _understood(zone, _written(option, zone.name, adopt=False), rules)


def _items(zone: ManagedZone, option: Mapping[str, Any], rules: Rules) -> Iterator[Desired]:
    for record_set in option["record_sets"]:
        yield _understood(zone, _written(record_set, zone.name, adopt=option["adopt"]), rules)
    for line in read_lines(str(option["records"]), zone.name, f"zone {option['name']}, records"):
        yield line if isinstance(line, Malformed) else _understood(zone, line, rules)


def _understood(zone: ManagedZone, written: WrittenRecordSet, rules: Rules) -> Desired:
    try:
        return _record_set(zone, written, rules)
    except InvalidInput as error:
        meant = _without_final_dot(zone.name, written)
        if meant is not None:
            return Malformed(
                item_name(meant.labels, written.type), error, Unclear(zone.name, meant, not written.listed)
            )
        return malformed(written, zone.name, error)


def _without_final_dot(zone: dns.name.Name, written: WrittenRecordSet) -> dns.name.Name | None:
    """The complete name that was meant by one that is relative and ends with the zone's own name."""
    if written.origin != zone or written.name.endswith(".") or zone == dns.name.root:
        return None
    try:
        name = parse_name(written.name, "")
    except InvalidInput:
        return None
    return name if name.is_subdomain(zone) else None


def _raw_name(option: Mapping[str, Any], zone: str) -> str:
    """How an item is called as long as its name has not been understood."""
    return f"{option['record'] if option['record'] is not None else option['prefix'] + zone} {option['type']}"


def _written(option: Mapping[str, Any], zone: dns.name.Name, *, adopt: bool) -> WrittenRecordSet:
    complete = option["record"] is not None
    return WrittenRecordSet(
        name=str(option["record"] if complete else option["prefix"] or "@"),
        origin=dns.name.root if complete else zone,
        type=option["type"].upper(),
        ttl=option["ttl"],
        value=tuple(map(str, option["value"])),
        state=option["state"],
        adopt=option["adopt"] or adopt,
    )


def _record_set(zone: ManagedZone, written: WrittenRecordSet, rules: Rules) -> DesiredRecordSet:
    rdtype = written.type
    owner = parse_name(written.name, f"zone {shown_name(zone.name)}, name {written.name!r}", written.origin)
    name = item_name(owner.labels, rdtype)
    where = f"zone {shown_name(zone.name)}, {name}"
    # the zone's name once more before the zone; what was written is looked at for few
    if owner.labels[: -len(zone.name.labels)][1 - len(zone.name.labels) :] == zone.name.labels[:-1]:
        _check_complete(zone.name, written, where)
    _check_place(zone.name, owner, rdtype, where, rules)
    ttl = written.ttl if rules.ttl is None else rules.ttl
    if not 0 <= ttl <= TTL_MAX:
        raise InvalidInput(f"the TTL is {ttl}", where=f"{where}, ttl", hint=f"Use 0 to {TTL_MAX} seconds")
    if written.state == "present" and not written.value:
        raise InvalidInput("there is no value", where=f"{where}, value", hint="Set value, or state to absent")
    if written.state == "absent" and owner == zone.name and rdtype == "NS":
        raise InvalidInput(
            "a zone needs its NS records", where=f"{where}, state", hint="List the ones that shall be there"
        )
    wires = frozenset([values.parse_value(rdtype, value, f"{where}, value") for value in written.value])
    if rdtype == "CNAME" and len(wires) > 1:
        raise InvalidInput("a CNAME has one value only", where=f"{where}, value", hint="Keep one (RFC 2181, 10.1)")
    if rdtype == "TXT":
        check_texts(owner.labels, values.meaning(rdtype, wires), f"{where}, value")
    return DesiredRecordSet(name, zone, owner, rdtype, ttl, wires, written.state, written.adopt, written.listed)


def _check_complete(zone: dns.name.Name, written: WrittenRecordSet, where: str) -> None:
    if _without_final_dot(zone, written) is not None:
        raise InvalidInput(
            "the zone's own name stands in it twice",
            where=f"{where}, record",
            hint="Leave the zone out, or write the complete name, in lines with a final dot",
        )


def _check_place(zone: dns.name.Name, owner: dns.name.Name, rdtype: str, where: str, rules: Rules) -> None:
    """Refuse what may not be in this place, or not at all."""
    if rdtype not in TYPES:
        raise InvalidInput(
            f"records of type {rdtype} are not managed here",
            where=f"{where}, type",
            hint=f"Use {', '.join(sorted(TYPES))}",
        )
    depth = len(owner.labels) - len(zone.labels)
    if depth < 0 or owner.labels[depth:] != zone.labels:
        raise InvalidInput(
            "the name is outside the zone",
            where=f"{where}, record",
            hint="Write the full name into record, or the part before the zone into prefix",
        )
    if depth == 0 and rdtype in APEX_PROTECTED and not (rdtype == "NS" and rules.apex_ns):
        hints = {
            "CNAME": "A CNAME cannot be there (RFC 1034, 3.6.2)",
            "DS": "They belong into the parent zone (RFC 4035, 2.4)",
            "NS": "Set allow_apex_ns to manage them",
        }
        raise InvalidInput(
            f"{rdtype} records of the zone itself are not managed here", where=f"{where}, type", hint=hints[rdtype]
        )
    first = owner.labels[0] if depth else b""
    if first in (OWNER, WILDCARD) or (first == REGISTRY and depth == 1):
        raise InvalidInput(
            f"names that start with {first.decode()} are kept for the ownership registry",
            where=f"{where}, record",
            hint="Choose another name",
        )
    # the registry record adds both labels and the bytes of their lengths
    if sum(map(len, owner.labels)) + len(owner.labels) > 255 - 32:
        _check_room(zone, owner, rdtype, where)


def _check_room(zone: dns.name.Name, owner: dns.name.Name, rdtype: str, where: str) -> None:
    try:
        registry_owner(zone, owner, rdtype)
    except dns.name.NameTooLong:
        raise InvalidInput(
            "the name leaves no room for its ownership record",
            where=f"{where}, record",
            hint="Shorten it by 20 characters",
        ) from None
