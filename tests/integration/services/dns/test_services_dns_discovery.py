# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record sets by their full names alone: zone, server and key are found at the given servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from dns_place import TOLD, Place, Result, actions, call, chosen, failed, messages, told
from support.cutting_proxy import cutting_proxy
from support.dns_server import bind_server, knot_server, powerdns_server


@pytest.fixture(scope="module")
def _both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    if chosen():
        pytest.skip("needs two servers of its own, and the environment names one")
    zones = ("fedi.test", "deep.er.fedi.test")
    with (
        knot_server(tmp_path_factory.mktemp("knot"), zones, full_key="first.") as first,
        powerdns_server(
            tmp_path_factory.mktemp("powerdns"), ("other.test", "sub.fedi.test"), full_key="second."
        ) as second,
    ):
        yield first, second


@dataclass(frozen=True)
class Estate:
    """Places in four zones on two servers with different keys."""

    top: Place
    deep: Place
    other: Place
    sub: Place

    def places(self) -> list[Place]:
        return [self.top, self.deep, self.other, self.sub]

    def servers(self, **zones: list[str]) -> list[dict[str, Any]]:
        return [
            {**self.top.reach(), "zones": zones.get("first", [])},
            {**self.other.reach(), "zones": zones.get("second", [])},
        ]

    def run(self, *record_sets: dict[str, Any], check: bool = False, **options: Any) -> Result:
        arguments = {"servers": self.servers(), "owner": self.top.mark, "record_sets": list(record_sets), **options}
        return call({**arguments, "_ansible_check_mode": check})


@pytest.fixture
def estate(_both: tuple[Any, Any]) -> Iterator[Estate]:
    first, second = _both
    top = Place(first, "fedi.test")
    made = Estate(
        top,
        Place(first, "deep.er.fedi.test", top.mark),
        Place(second, "other.test", top.mark),
        Place(second, "sub.fedi.test", top.mark),
    )
    try:
        yield made
    finally:
        for place in made.places():
            place.clear()


def full(place: Place, what: str, rdtype: str = "A", value: str = "192.0.2.1", **fields: Any) -> dict[str, Any]:
    return {"record": place.name(what), "type": rdtype, "ttl": 300, "value": [value], **fields}


def there(estate: Estate) -> list[set[tuple[str, str]]]:
    return [set(place.content()) for place in estate.places()]


def test_every_name_finds_its_zone_its_server_and_its_key(estate: Estate) -> None:
    wanted = [
        full(estate.top, "a"),
        full(estate.top, "very.far.down"),
        full(estate.deep, "a"),
        full(estate.other, "a"),
        full(estate.sub, "a"),
        full(estate.sub, "*", "TXT", "wild"),
        full(estate.other, "bücher", "CNAME", "www.example.org"),
    ]
    predicted, done = estate.run(*wanted, check=True), estate.run(*wanted)
    assert not done["failed"], done["msg"]
    assert told(done) == told(predicted)
    assert there(estate) == [
        {("a", "A"), ("very.far.down", "A")},
        {("a", "A")},
        {("a", "A"), ("xn--bcher-kva", "CNAME")},
        {("a", "A"), ("*", "TXT")},
    ]
    again = estate.run(*wanted)
    assert (again["changed"], again["failed"]) == (False, False)
    # the same in the other direction, and with an alias in the way of the question for the zone
    gone = [{**item, "state": "absent"} for item in wanted]
    removed = estate.run(*gone)
    assert not removed["failed"], removed["msg"]
    assert there(estate) == [set(), set(), set(), set()]


def test_configured_zones_need_no_question_and_the_longest_fits(estate: Estate) -> None:
    servers = estate.servers(first=["fedi.test", "deep.er.fedi.test"], second=["other.test", "sub.fedi.test"])
    wanted = [full(place, "a") for place in estate.places()]
    done = estate.run(*wanted, servers=servers)
    assert not done["failed"], done["msg"]
    assert there(estate) == [{("a", "A")}] * 4


def test_zones_and_full_names_in_one_call(estate: Estate) -> None:
    """A listed zone takes its names without a question; the others are found."""
    zones = estate.other.arguments(estate.other.record_set("a", "A", "192.0.2.1"), purge=True)["zones"]
    names = [full(place, "b") for place in (estate.top, estate.other, estate.sub)]
    for changed in (True, False):
        done = estate.run(*names, zones=zones)
        assert (done["failed"], done["changed"]) == (False, changed), done["msg"]
        assert there(estate) == [{("b", "A")}, set(), {("a", "A"), ("b", "A")}, {("b", "A")}]


def test_a_name_that_nobody_serves_and_a_server_that_is_gone(estate: Estate) -> None:
    good = full(estate.top, "good")
    nobody = {"record": "www.nobody.invalid", "type": "A", "value": ["192.0.2.1"]}
    result = estate.run(good, nobody)
    assert failed(result) == {"www.nobody.invalid A"}
    assert messages(result)["www.nobody.invalid A"]
    assert set(estate.top.content()) == {("good", "A")}

    servers = estate.servers(first=["fedi.test"], second=["other.test"])
    other = estate.other
    with cutting_proxy((other.server.address, other.server.port)) as proxy:
        servers[1] = {**servers[1], "server": proxy.host, "port": proxy.port}
        with proxy.refusing():
            result = estate.run(full(estate.top, "better"), full(other, "lost"), servers=servers)
        assert failed(result) >= {other.item("lost", "A")}
        assert actions(result)[estate.top.item("better", "A")] == "create"
        assert set(estate.top.content()) == {("good", "A"), ("better", "A")}
        assert not estate.run(full(other, "lost"), servers=servers)["failed"]


def test_a_key_that_one_server_does_not_know_keeps_only_its_zones_back(estate: Estate) -> None:
    servers = estate.servers(first=["fedi.test"], second=["other.test"])
    servers[0]["tsig_name"] = "nobody."
    result = estate.run(full(estate.top, "a"), full(estate.other, "a"), servers=servers)
    assert failed(result) >= {estate.top.item("a", "A")}
    assert [
        one[key] for one in result["results"] if one["name"] == estate.other.item("a", "A") for key in TOLD[1:]
    ] == [
        "create",
        True,
        False,
    ]
    assert there(estate) == [set(), set(), {("a", "A")}, set()]


def test_several_keys_for_one_server(tmp_path: Any) -> None:
    if chosen():
        pytest.skip("needs a server with two keys")
    with bind_server(tmp_path) as server:
        place, other = Place(server, "fedi.test"), Place(server, "other.test")
        servers = [
            {**place.reach(), "zones": ["fedi.test"]},
            {**place.reach(), "zones": ["other.test"], "tsig_name": "nobody."},
        ]
        wanted = [full(place, "a"), full(other, "a")]
        result = call({"servers": servers, "record_sets": wanted})
        assert failed(result) >= {other.item("a", "A")}
        assert actions(result)[place.item("a", "A")] == "create"
        servers[1]["tsig_name"] = server.key
        assert not call({"servers": servers, "record_sets": wanted})["failed"]
