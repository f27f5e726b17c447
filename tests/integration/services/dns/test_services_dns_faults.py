# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers and connections that fail, keys that do not fit: what could be done is done, the rest is named."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import dns.message
import dns.opcode
import pytest
from dns_place import Place, actions, failed, finish, messages, opcodes, start
from support.cutting_proxy import Cut, Direction, Request, cutting_proxy
from support.dns_server import DENIED, UPDATE_KEY

WAIT_SECONDS = 60


def at_update(number: int, direction: Direction) -> Cut:
    """Cuts at the UPDATE of that number: before it reaches the server, or after it has been answered."""
    count = [0]

    def cut(now: Direction, request: Request) -> bool:
        if now != direction or opcodes([request.data]) != [dns.opcode.UPDATE]:
            return False
        count[0] += 1
        return count[0] == number

    return cut


def many(place: Place, count: int = 10, ttl: int = 300) -> list[dict[str, Any]]:
    return [place.record_set(f"n{number}", "A", "192.0.2.1", ttl=ttl) for number in range(count)]


@pytest.mark.parametrize("direction", ["request", "answer"])
def test_a_connection_that_is_cut_at_the_update(place: Place, direction: Direction) -> None:
    wanted = many(place)
    with cutting_proxy((place.server.address, place.server.port), at_update(1, direction)) as proxy:
        result = place.through(proxy).run(*wanted)
        assert len(proxy.cuts) == 1
    written = len(place.content()) == 10
    assert written or (not place.content() and result["failed"])
    # what is claimed to be done is done
    assert result["failed"] or written
    assert result["changed"] or not written or result["failed"]
    again = place.run(*wanted)
    assert not again["failed"], again["msg"]
    assert len(place.content()) == 10
    place.unchanged(*wanted)


def test_a_connection_that_is_cut_between_two_messages(place: Place) -> None:
    wanted = [place.record_set(f"n{number}", "TXT", f"{number} " + "x" * 400) for number in range(400)]
    with cutting_proxy((place.server.address, place.server.port), at_update(2, "request")) as proxy:
        result = place.through(proxy).run(*wanted)
        assert len(proxy.cuts) == 1
    there = {place.item(name, rdtype) for name, rdtype in place.content()}
    done = {item["name"] for item in result["results"] if item["changed"]}
    assert done <= there
    if result["failed"]:
        assert there == done
        assert failed(result) == set(actions(result)) - there
    again = place.run(*wanted)
    assert not again["failed"], again["msg"]
    place.unchanged(*wanted)


def test_a_server_that_is_gone_for_a_while(place: Place) -> None:
    wanted = many(place)
    with cutting_proxy((place.server.address, place.server.port)) as proxy:
        slow = place.through(proxy)
        with proxy.refusing():
            gone = slow.run(*wanted)
        assert (gone["failed"], gone["changed"]) == (True, False)
        assert f"{proxy.host}:{proxy.port}" in gone["msg"]
        slow.change(*wanted)


def test_a_server_that_restarts_in_the_middle_of_the_run(private: Place) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold(direction: Direction, request: Request) -> bool:
        if direction == "request" and opcodes([request.data]) == [dns.opcode.UPDATE]:
            reached.set()
            go_on.wait(WAIT_SECONDS)
        return False

    wanted = many(private)
    server = private.server
    assert server.process is not None
    with cutting_proxy((server.address, server.port), hold) as proxy:
        process = start(private.through(proxy).arguments(*wanted))
        assert reached.wait(WAIT_SECONDS)
        server.process.restart()
        go_on.set()
        result = finish(process)
    assert result["failed"] == (len(private.content()) != 10), result["msg"]
    again = private.run(*wanted)
    assert not again["failed"], again["msg"]
    private.unchanged(*wanted)


def test_a_server_that_keeps_its_zones_over_a_restart(private: Place) -> None:
    wanted = many(private)
    private.change(*wanted)
    assert private.server.process is not None
    private.server.process.restart()
    private.unchanged(*wanted, purge=True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"key": "nobody."}, "key"),
        ({"secret": "d3Jvbmc="}, "secret"),
        ({"algorithm": "hmac-sha512"}, "key"),
    ],
)
def test_a_key_that_does_not_fit_is_explained(place: Place, fields: dict[str, str], said: str) -> None:
    wrong = replace(place, server=replace(place.server, **fields))
    result = wrong.run(*many(place))
    assert (result["failed"], result["changed"], place.content()) == (True, False, {})
    assert "tsig" in result["msg"].lower()
    assert said in result["msg"]


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_is_wrong_is_explained(place: Place, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    monkeypatch.setattr(dns.message, "time", SimpleNamespace(time=lambda: time.time() + seconds))
    result = place.run(*many(place))
    assert (result["failed"], result["changed"]) == (True, False)
    assert "clock" in result["msg"]
    monkeypatch.undo()
    assert place.content() == {}


def test_without_the_right_to_transfer_everything_but_purge_works(private: Place) -> None:
    limited = replace(private, server=replace(private.server, key=UPDATE_KEY))
    private.foreign("theirs", "A", "192.0.2.99")
    wanted = [
        *many(private),
        private.record_set("alias", "CNAME", "www.example.org"),
        private.record_set("*.wild", "TXT", "x" * 600),
    ]
    first = limited.run(*wanted)
    assert not first["failed"], first["msg"]
    again = limited.run(*wanted)
    assert (again["changed"], again["failed"]) == (False, False), again["diff"]
    bad = [
        private.record_set("theirs", "A", "192.0.2.1"),
        private.record_set("theirs", "CNAME", "www.example.org"),
        private.record_set("alias", "A", "192.0.2.1"),
    ]
    assert len(failed(limited.run(*bad, private.record_set("good", "A", "192.0.2.1")))) == len(bad)
    assert ("good", "A") in private.content()
    purged = limited.run(purge=True)
    assert (purged["failed"], purged["changed"]) == (True, False)
    gone = limited.run(private.gone("alias", "CNAME"), private.gone("*.wild", "TXT"))
    assert not gone["failed"], gone["msg"]
    assert {name for name, _type in private.content()} == {"theirs", "good", *(f"n{number}" for number in range(10))}


def test_without_the_right_to_transfer_what_a_wildcard_answers_for_is_left_alone(private: Place) -> None:
    """It answers for names that do not exist as if they did; who may transfer the zone knows better."""
    limited = replace(private, server=replace(private.server, key=UPDATE_KEY))
    private.foreign("*", "A", "192.0.2.99")
    wanted = [private.record_set("www", "A", "192.0.2.1"), private.record_set("*", "TXT", "ours")]
    assert failed(limited.run(*wanted)) == {private.item("www", "A")}
    private.change(*wanted, purge=True)
    assert set(private.content()) == {("*", "A"), ("*", "TXT"), ("www", "A")}


def test_a_name_that_the_server_refuses_does_not_keep_the_others_back(private: Place) -> None:
    if private.server.software != "bind":
        pytest.skip("only BIND's update policy keeps a single name back")
    denied = {"record": DENIED, "type": "A", "value": ["192.0.2.1"]}
    wanted = many(private, 300)
    for _attempt in range(2):
        result = private.run(*wanted[:150], denied, *wanted[150:])
        assert failed(result) == {f"{DENIED} A"}
        assert "REFUSED" in messages(result)[f"{DENIED} A"]
        assert len(private.content()) == 300
    private.unchanged(*wanted)
    changed = private.run(*many(private, 300, ttl=60), denied, options={"max_update_percent": 100})
    assert failed(changed) == {f"{DENIED} A"}
    assert {ttl for ttl, _values in private.content().values()} == {60}
    deleted = private.run(denied, purge=True, options={"max_delete_percent": 100})
    assert failed(deleted) == {f"{DENIED} A"}
    assert private.content() == {}


def test_a_name_below_a_delegation(place: Place) -> None:
    """Glue is part of the zone; without a transfer nobody could see it."""
    wanted = [
        place.record_set("child", "NS", place.name("ns.child")),
        place.record_set("ns.child", "A", "192.0.2.53"),
    ]
    place.change(*wanted)
    place.unchanged(*wanted, purge=True)
    place.change(*({**item, "state": "absent"} for item in wanted))
