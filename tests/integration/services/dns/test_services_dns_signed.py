# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Zones that the server signs: what it makes is not ours, and its serial is not the one that we see."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from dns_place import Place, chosen
from support.dns_server import ZONES, bind_server, knot_server

SIGNED = {
    "knot": (knot_server, "    dnssec-signing: on"),
    "bind": (bind_server, "dnssec-policy default; inline-signing yes;"),
    "bind-dynamic": (bind_server, "dnssec-policy default; inline-signing no;"),
}
WAIT_SECONDS = 30

pytestmark = pytest.mark.skipif(chosen(), reason="whether the zone of the environment is signed is its owner's choice")


@pytest.fixture(params=[*SIGNED])
def signed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    make, settings = SIGNED[request.param]
    with make(tmp_path_factory.mktemp("signed"), settings=settings) as server:
        deadline = time.monotonic() + WAIT_SECONDS
        while (f"{ZONES[0]}.", "RRSIG") not in server.content(ZONES[0]):
            assert time.monotonic() < deadline, "the server does not sign the zone"
            time.sleep(0.1)
        yield Place(server, ZONES[0])


def settled(place: Place) -> None:
    """Waits until the server has no more to sign, so that its serial stays."""
    serial, since = place.serial(), time.monotonic()
    while time.monotonic() - since < 1:
        time.sleep(0.1)
        if place.serial() != serial:
            serial, since = place.serial(), time.monotonic()


def test_a_signed_zone(signed: Place) -> None:
    before = signed.others()
    wanted = [
        signed.record_set("www", "A", "192.0.2.1"),
        signed.record_set("*", "TXT", "x" * 600),
        signed.record_set("child", "NS", "ns.example.org"),
        signed.record_set("child", "DS", "12345 13 2 " + "ab" * 32),
    ]
    for record_sets in (wanted, [{**item, "ttl": 60} for item in wanted], []):
        settled(signed)
        result = signed.run(*record_sets, purge=True)
        assert (result["failed"], result["changed"]) == (False, True), result["msg"]
        settled(signed)
        signed.unchanged(*record_sets, purge=True)
        assert len(signed.content()) == len(record_sets)
        assert signed.others() == before
