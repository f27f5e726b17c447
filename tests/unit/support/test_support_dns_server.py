# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of DNS rely on: private servers with the same rights, and a secondary that follows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import dns.exception
import dns.query
import dns.rcode
import dns.update
import pytest
from support.dns.process import free_port
from support.dns_server import UPDATE_KEY, ZONES, DnsServer, bind_server, knot_server, nsd_secondary, powerdns_server

WAIT_SECONDS = 30
SERVERS = [knot_server, bind_server, powerdns_server]


@pytest.fixture(params=SERVERS, ids=["knot", "bind", "powerdns"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[DnsServer]]:
    port = free_port()
    with (
        request.param(tmp_path_factory.mktemp("primary"), notify=[port]) as primary,
        nsd_secondary(tmp_path_factory.mktemp("secondary"), primary, port) as secondary,
    ):
        yield [primary, secondary]


def add(server: DnsServer, name: str) -> dns.rcode.Rcode:
    message = dns.update.UpdateMessage(f"{ZONES[0]}.", keyring=server.tsig())
    message.add(name, 300, "A", "192.0.2.1")
    return dns.query.tcp(message, server.address, timeout=WAIT_SECONDS, port=server.port).rcode()


def test_updates_arrive_at_the_secondary_and_outlive_a_restart(pair: list[DnsServer]) -> None:
    primary, secondary = pair
    before = primary.content(ZONES[0])
    assert before["foreign.fedi.test.", "TXT"] == (3600, frozenset({'"theirs"'}))
    assert add(primary, "www") == dns.rcode.NOERROR
    assert set(primary.content(ZONES[0])) - set(before) == {("www.fedi.test.", "A")}
    deadline = time.monotonic() + WAIT_SECONDS
    while secondary.serial(ZONES[0]) != primary.serial(ZONES[0]):
        assert time.monotonic() < deadline, "the secondary does not follow"
        time.sleep(0.05)
    assert primary.process is not None
    primary.process.restart()
    assert ("www.fedi.test.", "A") in primary.content(ZONES[0])


def test_the_second_key_may_update_but_not_transfer(pair: list[DnsServer]) -> None:
    limited = replace(pair[0], key=UPDATE_KEY)
    assert add(limited, "www") == dns.rcode.NOERROR
    with pytest.raises(dns.exception.DNSException):
        limited.content(ZONES[0])
