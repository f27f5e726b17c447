# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Zone transfers: the same as dnspython's own, and nothing that is not signed."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.xfr
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.dns import values
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import make_server
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.transfer import read_transfer
from dns_calls import record_set, run, zone
from support.dns_server import SECRET, DnsServer

KEY = dns.tsig.Key("key.", SECRET, "hmac-sha256")
ZONE = dns.name.from_text("fedi.test.")
SOA = "fedi.test. 3600 IN SOA ns1.fedi.test. hostmaster.fedi.test. 1 3600 600 86400 300"


def question() -> dns.message.Message:
    query = dns.message.make_query(ZONE, "AXFR", flags=0)
    query.use_tsig(KEY)
    query.to_wire()
    return query


def answer(query: dns.message.Message, parts: Sequence[str], signed: Sequence[bool] | None = None) -> list[bytes]:
    """Messages with the records of *parts*, signed as a server signs them."""
    wires, context = [], None
    for number, part in enumerate(parts):
        message = dns.message.Message(id=query.id)
        message.flags = dns.flags.QR | dns.flags.AA
        if number == 0:
            message.question = query.question
        for line in part.splitlines():
            name, ttl, rdclass, rdtype, text = line.split(None, 4)
            message.answer.append(dns.rrset.from_text(name, int(ttl), rdclass, rdtype, text))
        if signed is None or signed[number]:
            message.use_tsig(KEY)
            message.request_mac = query.mac
            wires.append(message.to_wire(multi=True, tsig_ctx=context))
            context = message.tsig_ctx
        else:
            wires.append(message.to_wire())
            if context is not None:
                context.update(wires[-1])
    return wires


PARTS = [
    f"{SOA}\nfedi.test. 300 IN NS NS2.Fedi.Test.\nA.fedi.test. 60 IN A 192.0.2.1",
    "a.fedi.test. 60 IN A 192.0.2.2\na.outside.test. 60 IN A 192.0.2.3\nb.fedi.test. 60 IN TYPE65280 \\# 2 0102",
    SOA,
]


def test_messages_become_record_sets() -> None:
    for signed in (None, [True, False, True]):
        query = question()
        content = read_transfer(ZONE, query, answer(query, PARTS, signed))
        found = {(b".".join(labels).decode(), rdtype): value for (labels, rdtype), value in content.items()}
        assert found["a.fedi.test.", 1] == (60, [bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])])
        assert found["fedi.test.", 2] == (300, [b"\3NS2\4fedi\4test\0"])
        assert found["b.fedi.test.", 65280] == (60, [b"\1\2"])
        assert len(found["fedi.test.", 6][1]) == 1
        assert len(found) == 4


def test_what_is_not_rightly_signed_is_not_believed() -> None:
    query = question()
    for signed in ([False, True, True], [True, True, False], [False, False, False]):
        with pytest.raises(dns.exception.FormError, match="not signed"):
            read_transfer(ZONE, query, answer(query, PARTS, signed))
    wires = answer(query, PARTS, [True, False, True])
    for number in range(3):
        forged = [wire.replace(bytes([192, 0, 2]), bytes([192, 0, 3])) for wire in wires]
        forged = [*wires[:number], forged[number], *wires[number + 1 :]]
        if forged != wires:
            with pytest.raises(dns.tsig.BadSignature):
                read_transfer(ZONE, query, forged)
    with pytest.raises(dns.tsig.BadSignature):
        read_transfer(ZONE, query, [wires[0], wires[2]])
    other = question()
    with pytest.raises(dns.exception.FormError, match="no answer"):
        read_transfer(ZONE, other, wires) if other.id != query.id else pytest.fail("the same id")


def test_a_transfer_has_a_beginning_and_an_end() -> None:
    query = question()
    with pytest.raises(dns.exception.FormError, match="has no end"):
        read_transfer(ZONE, query, answer(query, PARTS[:2]))
    with pytest.raises(dns.exception.FormError, match="does not begin"):
        read_transfer(ZONE, query, answer(query, PARTS[1:]))
    refused = dns.message.make_response(query)
    refused.set_rcode(dns.rcode.REFUSED)
    refused.tsig = None
    with pytest.raises(dns.xfr.TransferError, match="REFUSED"):
        read_transfer(ZONE, query, [refused.to_wire()])
    for wire in (b"", b"\0" * 11, answer(query, PARTS)[0][:60]):
        with pytest.raises(dns.exception.DNSException):
            read_transfer(ZONE, query, [wire])


def test_it_reads_what_dnspython_reads(server: DnsServer) -> None:
    kinds = [
        record_set("k", "CAA", '0 issue "ca.example.net"'),
        record_set("", "MX", "10 ns1.fedi.test", "20 MX.example.org"),
        record_set("_s._tcp", "SRV", "1 2 3 ns1.fedi.test"),
        record_set("k", "HTTPS", "1 ns1.fedi.test alpn=h2 ipv4hint=192.0.2.1"),
        record_set("k", "NAPTR", '1 2 "s" "x" "" ns1.fedi.test.'),
        record_set("k", "LOC", "52 22 23.000 N 4 53 32.000 E -2.00m 1m 10000m 10m"),
        record_set("k", "SSHFP", "4 2 " + "ab" * 32),
        record_set("k", "TLSA", "3 1 1 " + "ab" * 32),
        record_set("k", "URI", '10 1 "https://example.org/"'),
        record_set("k", "TXT", "x" * 700, ""),
        record_set("p", "PTR", "www.fedi.test"),
        record_set("d", "NS", "ns1.fedi.test"),
    ]
    result = run(server, zone(*kinds))
    assert not result["failed"], result["msg"]
    assert not run(server, zone(*kinds))["changed"]
    backend = make_server("localhost", server.port, server.key, server.secret, server.algorithm)
    ours = {
        (dns.name.Name(labels).to_text(), dns.rdatatype.to_text(rdtype)): (
            ttl,
            frozenset(values.rdata(dns.rdatatype.to_text(rdtype), wire).to_text() for wire in wires),
        )
        for (labels, rdtype), (ttl, wires) in backend.content(ZONE).items()
        if rdtype != dns.rdatatype.SOA
    }
    assert ours == server.content("fedi.test")


def test_many_transfers_leave_no_thread_behind(server: DnsServer) -> None:
    before = threading.active_count()
    backend = make_server("localhost", server.port, server.key, server.secret, server.algorithm)
    for _number in range(5):
        backend.content(ZONE)
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
