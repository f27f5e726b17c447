# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NSD follows each of the servers; the run waits until it has, and names who lags."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dns_place import PRIVATE, Place, chosen
from support.dns.process import free_port
from support.dns_server import ZONES, DnsServer, nsd_secondary

pytestmark = pytest.mark.skipif(chosen(), reason="whether the server of the environment has secondaries is unknown")


@pytest.fixture(scope="module", params=[*PRIVATE])
def followed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[DnsServer]]:
    """A primary server and two secondaries."""
    ports = [free_port(), free_port()]
    with (
        PRIVATE[request.param](tmp_path_factory.mktemp("primary"), notify=ports) as primary,
        nsd_secondary(tmp_path_factory.mktemp("first"), primary, ports[0]) as first,
        nsd_secondary(tmp_path_factory.mktemp("second"), primary, ports[1]) as second,
    ):
        yield [primary, first, second]


@pytest.fixture
def place(followed: list[DnsServer]) -> Iterator[Place]:
    made = Place(followed[0], ZONES[0])
    try:
        yield made
    finally:
        made.clear()


def addresses(servers: list[DnsServer]) -> list[str]:
    return [f"{server.address}:{server.port}" for server in servers]


def test_the_run_ends_when_the_secondaries_have_it(place: Place, followed: list[DnsServer]) -> None:
    secondaries = followed[1:]
    for value in ("192.0.2.1", "192.0.2.2"):
        options = {"wait_for_secondaries": 60, "secondaries": addresses(secondaries)}
        result = place.run(place.record_set("www", "A", value), options=options)
        assert (result["failed"], result["changed"]) == (False, True), result["msg"]
        assert [server.serial(place.zone) for server in secondaries] == [place.serial()] * 2
    # nothing was changed, and still everybody has it
    again = place.run(place.record_set("www", "A", value), options=options)
    assert (again["failed"], again["changed"]) == (False, False), again["msg"]


def test_a_secondary_that_lags_or_is_gone_is_named(place: Place, followed: list[DnsServer]) -> None:
    _primary, good, stale = followed
    assert stale.process is not None
    before = stale.serial(place.zone)
    stale.process.freeze()
    try:
        options = {"wait_for_secondaries": 4, "secondaries": [*addresses([good, stale]), f"127.0.0.1:{free_port()}"]}
        result = place.run(place.record_set("late", "A", "192.0.2.1"), options=options)
    finally:
        stale.process.thaw()
    # the change is made, the run fails all the same
    assert (result["failed"], result["changed"]) == (True, True)
    assert [item["failed"] for item in result["results"]] == [False]
    assert set(place.content()) == {("late", "A")}
    for named in options["secondaries"][1:]:
        assert named in result["msg"]
    assert options["secondaries"][0] not in result["msg"]
    assert str(before) in result["msg"]
    later = place.run(
        place.record_set("late", "A", "192.0.2.1"),
        options={"wait_for_secondaries": 60, "secondaries": addresses([good, stale])},
    )
    assert (later["failed"], later["changed"]) == (False, False), later["msg"]


def test_check_mode_does_not_wait(place: Place, followed: list[DnsServer]) -> None:
    options = {"wait_for_secondaries": 60, "secondaries": [f"127.0.0.1:{free_port()}"]}
    result = place.run(place.record_set("www", "A", "192.0.2.1"), options=options, check=True)
    assert (result["failed"], result["changed"]) == (False, True), result["msg"]


@pytest.mark.parametrize("text", ["127.0.0.1:0", "127.0.0.1:x", "[::1", ""])
def test_a_malformed_address_is_refused_before_anything_is_written(place: Place, text: str) -> None:
    options = {"wait_for_secondaries": 5, "secondaries": [text]}
    result = place.run(place.record_set("www", "A", "192.0.2.1"), options=options)
    assert result["failed"]
    assert "secondaries" in result["msg"]
    assert place.content() == {}
