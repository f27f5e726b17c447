# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values of records: text, wire form, and a form that is equal for equal meanings. dnspython does the parsing."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

try:
    import dns.exception
    import dns.name
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype
    import dns.rdtypes.ANY.TXT
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns.names import codec, shown_name
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput

# their wire form holds no names, so that equal values are equal bytes
NAME_FREE = frozenset({"A", "AAAA", "CAA", "DS", "LOC", "OPENPGPKEY", "SMIMEA", "SSHFP", "TLSA", "URI"})
# RFC 1035 section 3.3: one character-string; section 3.2.1: all data of a record
STRING_MAX = 255
RDATA_MAX = 65535


@cache
def rdata(rdtype: str, wire: bytes) -> dns.rdata.Rdata:
    """A value of its wire form, which has no compressed names."""
    return dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.from_text(rdtype), wire, 0, len(wire))


@cache
def comparable(rdtype: str, wire: bytes) -> bytes:
    """The same bytes for the same meaning: TXT in one piece, names in lower case (RFC 4034 section 6.2)."""
    if rdtype in NAME_FREE:
        return wire
    if rdtype == "TXT":
        return txt_bytes(wire)
    return rdata(rdtype, wire).to_digestable(dns.name.root)


def meaning(rdtype: str, wires: Iterable[bytes]) -> frozenset[bytes]:
    """What the values of a record set mean; order and repetition mean nothing."""
    return frozenset(wires) if rdtype in NAME_FREE else frozenset(comparable(rdtype, wire) for wire in wires)


def txt_bytes(wire: bytes) -> bytes:
    """The text of a TXT record; where it is cut into strings has no meaning."""
    value = rdata("TXT", wire)
    return b"".join(value.strings) if isinstance(value, dns.rdtypes.ANY.TXT.TXT) else b""


def txt_wire(text: bytes) -> bytes:
    """*text* as a TXT record."""
    strings = [text[start : start + STRING_MAX] for start in range(0, len(text), STRING_MAX)] or [b""]
    return b"".join(bytes([len(string)]) + string for string in strings)


def shown_value(rdtype: str, wire: bytes) -> str:
    """For people: TXT in one piece without quotes, all else as in a zone file with U-labels."""
    if rdtype == "TXT":
        return txt_bytes(wire).decode(errors="backslashreplace") or '""'
    value = rdata(rdtype, wire)
    text = value.to_text()
    for target in names_in(value) if "xn--" in text else ():
        text = text.replace(target.to_text(), f"{shown_name(target)}.")
    return text


def names_in(value: dns.rdata.Rdata) -> list[dns.name.Name]:
    """The names that a value holds."""
    fields = (getattr(value, field) for field in value.__slots__)
    return [field for field in fields if isinstance(field, dns.name.Name)]


def parse_value(rdtype: str, text: str, where: str) -> bytes:
    """The wire form of a value; names in it are always complete, with or without the final dot.

    :raises InvalidInput: the text is no value of that type.
    """
    if rdtype == "TXT" and not (len(text) > 1 and text.startswith('"') and text.endswith('"')):
        return _checked_size(txt_wire(text.encode(errors="backslashreplace")), where)
    try:
        value = dns.rdata.from_text(
            dns.rdataclass.IN, rdtype, text, origin=dns.name.root, relativize=False, idna_codec=codec()
        )
        wire = value.to_wire() or b""
    except (dns.exception.DNSException, ValueError) as error:
        raise InvalidInput(
            f"{text!r} is no value of type {rdtype}: {error}", where=where, hint="Write it as in a zone file"
        ) from None
    if rdtype not in NAME_FREE and rdtype != "TXT":
        for target in names_in(value):
            if len(target.labels) == 2 and not text.endswith("."):
                raise InvalidInput(
                    f"{shown_name(target)!r} is no complete name",
                    where=where,
                    hint="Names in values are not relative to the zone; write the full name",
                )
    return _checked_size(wire, where)


def _checked_size(wire: bytes, where: str) -> bytes:
    if len(wire) > RDATA_MAX:
        raise InvalidInput(
            f"the value has {len(wire)} bytes", where=where, hint=f"One record holds {RDATA_MAX} (RFC 1035, 3.2.1)"
        )
    return wire
