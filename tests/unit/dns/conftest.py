# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dns.message
import dns.opcode
import dns.query
import dns.rdatatype
import dns.update
import pytest
from dns_calls import change, restore
from support.dns_server import ZONES, DnsServer, bind_server, knot_server, powerdns_server

Edit = Callable[[dns.update.UpdateMessage], None]
Administrator = Callable[[Edit], None]


@pytest.fixture(scope="session", params=[knot_server, bind_server, powerdns_server], ids=["knot", "bind", "powerdns"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServer]:
    with request.param(tmp_path_factory.mktemp("dns")) as server:
        yield server


@pytest.fixture(scope="session")
def pristine(running: DnsServer):
    return {zone: running.content(zone) for zone in ZONES}


@pytest.fixture
def server(running: DnsServer, pristine) -> DnsServer:
    """A running server whose zones are as they were at its start."""
    restore(running, pristine)
    return running


@pytest.fixture
def restored(running: DnsServer, pristine) -> Callable[[], None]:
    """Puts the zones back to what they were at the server's start."""
    return lambda: restore(running, pristine)


@pytest.fixture
def administrator(server: DnsServer) -> Administrator:
    """Edits zone fedi.test as somebody else would."""
    return lambda edit: change(server, "fedi.test", edit)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operation of every message that goes out, and AXFR for a transfer."""
    operations: list[str] = []
    real = dns.query.send_tcp

    def send_tcp(connection: Any, wire: bytes, *arguments: Any) -> Any:
        message = dns.message.from_wire(wire, keyring=False, question_only=True)
        transfer = message.question[0].rdtype == dns.rdatatype.AXFR
        operations.append("AXFR" if transfer else dns.opcode.to_text(message.opcode()))
        return real(connection, wire, *arguments)

    monkeypatch.setattr(dns.query, "send_tcp", send_tcp)
    return operations
