# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Record sets as lines of text, the form in which thousands of them reach a module quickly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

try:
    import dns.name
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import TYPES, Malformed, Unclear, item_name
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.names import parse_name
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput

DEFAULT_TTL = 3600
FORMAT = "Write NAME [TTL] [IN] TYPE VALUE in one line, without directives and parentheses"


@dataclass(frozen=True)
class WrittenRecordSet:
    """A record set as the user has written it; *name* is relative to *origin*, unless it ends with a dot."""

    name: str
    origin: dns.name.Name
    type: str
    ttl: int
    value: tuple[str, ...]
    state: Literal["present", "absent"] = "present"
    adopt: bool = False
    listed: bool = True


def read_lines(text: str, zone: dns.name.Name, where: str) -> Iterator[WrittenRecordSet | Malformed]:
    """The record sets of *text*, with one record in each line; empty lines and those that begin with ``;`` are skipped.

    They are not listed in the results while nothing is to be done.
    """
    found: dict[tuple[str, str], tuple[int, list[str]]] = {}
    spread: set[tuple[str, str]] = set()
    # no other character ends a line here, as in a zone file
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line[0] == ";":
            continue
        try:
            name, ttl, rdtype, value = _fields(line)
        except ValueError as reason:
            place = f"{where} line {number}"
            owner = None if line[0] in " \t$" else _owner(line.split(None, 1)[0], zone, zone)
            error = InvalidInput(str(reason), where=place, hint=FORMAT)
            yield Malformed(place, error, Unclear(zone, owner, part=True))
            continue
        known = found.get((name, rdtype))
        if known is None:
            found[name, rdtype] = (ttl, [value])
            continue
        known[1].append(value)
        if known[0] != ttl:
            spread.add((name, rdtype))
    for (name, rdtype), (ttl, written) in found.items():
        if (name, rdtype) in spread:
            spread_error = InvalidInput(
                "its records have different TTLs", where=f"{where} {name} {rdtype}, ttl", hint="Use one (RFC 2181, 5.2)"
            )
            yield malformed(WrittenRecordSet(name, zone, rdtype, ttl, (), listed=False), zone, spread_error)
        else:
            yield WrittenRecordSet(name, zone, rdtype, ttl, tuple(written), listed=False)


def malformed(written: WrittenRecordSet, zone: dns.name.Name | None, error: HostingError) -> Malformed:
    """The item *written*, refused for *error*.

    :param zone: that it is listed in, ``None`` if it has to be found.
    """
    owner = _owner(written.name, written.origin, zone)
    try:
        name = item_name(parse_name(written.name, "", written.origin).labels, written.type)
    except InvalidInput:
        name = f"{written.name} {written.type}"
    if owner is not None and written.type in TYPES:
        return Malformed(name, error)
    return Malformed(name, error, Unclear(zone, owner, part=not written.listed))


def _owner(name: str, origin: dns.name.Name, zone: dns.name.Name | None) -> dns.name.Name | None:
    """The complete name, ``None`` if it is none in *zone*."""
    try:
        owner = parse_name(name, "", origin)
    except InvalidInput:
        return None
    return owner if zone is None or owner.is_subdomain(zone) else None


def _fields(line: str) -> tuple[str, int, str, str]:
    """Name, TTL, type and value of a line.

    :raises ValueError: the line is no record.
    """
    if line[0] in " \t":
        raise ValueError("the line begins without a name")
    if line[0] == "$":
        raise ValueError("the line is a directive")
    name, *more = line.split(None, 1)
    ttl = DEFAULT_TTL
    while more:
        word, *rest = more[0].split(None, 1)
        if word.isdecimal():
            ttl = int(word)
        elif word.upper() != "IN":
            return name, ttl, word.upper(), _value(word.upper(), rest[0].rstrip() if rest else "")
        more = rest
    raise ValueError("the line has no type")


def _value(rdtype: str, value: str) -> str:
    """*value*, refused where a zone file means something else by it than ``value`` of a record set does."""
    if not value:
        raise ValueError("the line has no value")
    if rdtype == "TXT" and not (value[0] == value[-1] == '"' and len(value) > 1) and (set(value) & set('"; \t()')):
        raise ValueError("the text is not between quotes")
    return value
