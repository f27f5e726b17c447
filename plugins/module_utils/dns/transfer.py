# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Zone transfers (RFC 5936), signed (RFC 8945): the messages of a server become the record sets of a zone.

dnspython parses names, records and signatures. Records without compressed names are kept as the bytes they came in,
because most of them are only compared.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, TypeAlias

try:
    import dns.exception
    import dns.flags
    import dns.message
    import dns.name
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype
    import dns.tsig
    import dns.wire
    import dns.xfr
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

Labels: TypeAlias = "tuple[bytes, ...]"
# TTL and values in wire form without compression, by the labels of the name in lower case and the number of the type
Content: TypeAlias = "dict[tuple[Labels, int], tuple[int, list[bytes]]]"

HEADER_BYTES = 12
# RFC 3597 section 4: servers may compress names in these, and in no newer types
COMPRESSED = frozenset({2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 15, 17, 18, 21, 24, 26, 30, 33, 35, 36, 39})


def read_transfer(zone: dns.name.Name, query: dns.message.Message, wires: Iterable[bytes]) -> Content:
    """The record sets of *zone*, from the messages that answer *query*; no more messages are taken than needed.

    :raises dns.xfr.TransferError: the server refuses the transfer.
    :raises dns.exception.DNSException: messages are malformed or not rightly signed.
    """
    content: Content = {}
    signing: Any = None
    ends = 0
    for number, wire in enumerate(wires):
        parser = dns.wire.Parser(wire)
        ident, flags, questions, answers, authorities, additional = parser.get_struct("!HHHHHH")
        if ident != query.id or not flags & dns.flags.QR:
            raise _malformed("the message is no answer to the question")
        for _count in range(questions):
            parser.get_name(None, True)
            parser.get_struct("!HH")
        for _count in range(answers):
            ends += _read_record(zone, parser, content)
        for _count in range(authorities):
            _skip_record(parser)
        signature, start = _read_signature(parser, additional)
        if signature is not None and query.keyring is not None:
            signing = _validated(wire, query, signature, start, signing)
        if flags & 15:
            raise dns.xfr.TransferError(flags & 15)  # type: ignore[no-untyped-call]
        if query.keyring is not None and signature is None:
            if number == 0 or ends > 1:
                raise _malformed("a message of the transfer is not signed")
            # the signature of a later message covers this one
            signing.update(wire)
        if ends > 1:
            return content
        if number == 0 and ends == 0:
            raise _malformed("the transfer does not begin with the SOA of the zone")
    raise _malformed("the transfer has no end")


def _read_record(zone: dns.name.Name, parser: dns.wire.Parser, content: Content) -> int:
    """Add the next record to *content*; 1 if it is the zone's SOA, with which a transfer begins and ends."""
    labels = tuple([label.lower() for label in dns.name.from_wire_parser(parser).labels])
    rdtype, _rdclass, ttl, size = parser.get_struct("!HHIH")
    if rdtype in COMPRESSED:
        with parser.restrict_to(size):
            value = dns.rdata.from_wire_parser(dns.rdataclass.IN, rdtype, parser).to_wire() or b""
    else:
        value = parser.get_bytes(size)
    if labels[-len(zone.labels) :] != zone.labels:
        return 0
    found = content.get((labels, rdtype))
    if found is None:
        content[labels, rdtype] = (ttl, [value])
    elif rdtype != dns.rdatatype.SOA:
        found[1].append(value)
    return int(rdtype == dns.rdatatype.SOA and labels == zone.labels)


def _skip_record(parser: dns.wire.Parser) -> None:
    parser.get_name(None, True)
    parser.get_bytes(parser.get_struct("!HHIH")[3])


def _read_signature(parser: dns.wire.Parser, additional: int) -> tuple[tuple[dns.name.Name, Any] | None, int]:
    """Key name and data of the TSIG record, the last of a message (RFC 8945 section 5.1), and where it starts."""
    for _count in range(additional - 1):
        _skip_record(parser)
    if additional == 0:
        return None, 0
    start = parser.current
    owner = parser.get_name(None, True)
    rdtype, _rdclass, _ttl, size = parser.get_struct("!HHIH")
    with parser.restrict_to(size):
        if rdtype == dns.rdatatype.TSIG:
            return (owner, dns.rdata.from_wire_parser(dns.rdataclass.ANY, rdtype, parser)), start
        parser.get_bytes(size)
    return None, start


def _validated(
    wire: bytes, query: dns.message.Message, signature: tuple[dns.name.Name, Any], start: int, signing: Any
) -> Any:
    """What the signature of the next message continues."""
    owner, data = signature
    return dns.tsig.validate(  # type: ignore[no-untyped-call]
        wire, query.keyring, owner, data, int(time.time()), query.mac, start, signing, multi=True
    )


def _malformed(what: str) -> Exception:
    return dns.exception.FormError(what)  # type: ignore[no-untyped-call]
