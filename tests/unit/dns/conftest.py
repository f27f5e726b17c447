# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Iterator

import dns.query
import dns.rcode
import dns.update
import pytest
from support.dns_server import ZONES, DnsServer, bind_server, knot_server

Edit = Callable[[dns.update.UpdateMessage], None]
Administrator = Callable[[Edit], None]


@pytest.fixture(scope="session", params=[knot_server, bind_server], ids=["knot", "bind"])
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


def change(server: DnsServer, zone: str, edit: Edit) -> None:
    message = dns.update.UpdateMessage(f"{zone}.", keyring=server.tsig())
    edit(message)
    response = dns.query.tcp(message, server.address, timeout=30, port=server.port)
    if response.rcode() != dns.rcode.NOERROR:
        raise RuntimeError(dns.rcode.to_text(response.rcode()))


def restore(server: DnsServer, pristine) -> None:
    for zone, wanted in pristine.items():
        found = server.content(zone)

        def edit(message: dns.update.UpdateMessage, found=found, wanted=wanted) -> None:
            for (name, rdtype), (ttl, values) in {**found, **wanted}.items():
                if found.get((name, rdtype)) != wanted.get((name, rdtype)):
                    message.delete(name, rdtype)
                    if (name, rdtype) in wanted:
                        message.add(name, ttl, rdtype, *values)

        if found != wanted:
            change(server, zone, edit)
