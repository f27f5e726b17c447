# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Others write to the same zone between the run's reading and its writing: a proxy holds the UPDATE meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import dns.opcode
import pytest
from dns_place import Content, Place, call, failed, finish, messages, opcodes, start
from support.cutting_proxy import Direction, Proxy, Request, cutting_proxy

Act = Callable[[int], object]


@contextmanager
def before_each_update(place: Place, act: Act) -> Iterator[tuple[Place, Proxy]]:
    """The place through a proxy that does something before it passes an UPDATE on, told which one it is."""
    count = [0]

    def cut(direction: Direction, request: Request) -> bool:
        if direction == "request" and opcodes([request.data]) == [dns.opcode.UPDATE]:
            count[0] += 1
            act(count[0])
        return False

    with cutting_proxy((place.server.address, place.server.port), cut) as proxy:
        yield place.through(proxy), proxy


def only_first(act: Callable[[], object]) -> Act:
    return lambda number: act() if number == 1 else None


def values(place: Place) -> dict[str, frozenset[str]]:
    return {name: found[1] for (name, _type), found in place.content().items()}


def test_what_a_human_edits_elsewhere_is_kept(place: Place) -> None:
    place.foreign("theirs", "A", "192.0.2.99")
    place.run(place.record_set("ours", "A", "192.0.2.1"))

    def edit() -> None:
        place.foreign("theirs", "A", "192.0.2.98", ttl=55)
        place.foreign("new", "TXT", '"human"')

    with before_each_update(place, only_first(edit)) as (slow, _proxy):
        result = slow.run(place.record_set("ours", "A", "192.0.2.2"), purge=True)
    assert not result["failed"], result["msg"]
    assert place.content() == {
        ("theirs", "A"): (55, frozenset({"192.0.2.98"})),
        ("new", "TXT"): (777, frozenset({'"human"'})),
        ("ours", "A"): (300, frozenset({"192.0.2.2"})),
    }


@pytest.mark.parametrize(
    ("wanted", "taken", "by"),
    [("A", "A", "192.0.2.99"), ("A", "CNAME", "human.example.org."), ("CNAME", "TXT", '"human"')],
)
def test_a_name_that_a_human_takes_meanwhile_stays_theirs(place: Place, wanted: str, taken: str, by: str) -> None:
    value = {"A": "192.0.2.1", "CNAME": "www.example.org"}[wanted]
    with before_each_update(place, only_first(lambda: place.foreign("name", taken, by))) as (slow, _proxy):
        result = slow.run(place.record_set("name", wanted, value), place.record_set("other", "A", "192.0.2.1"))
    assert failed(result) == {place.item("name", wanted)}
    assert messages(result)[place.item("name", wanted)]
    assert place.content() == {
        ("name", taken): (777, frozenset({by})),
        ("other", "A"): (300, frozenset({"192.0.2.1"})),
    }


def test_what_a_human_makes_of_our_record_set_is_not_overwritten_and_named(place: Place) -> None:
    wanted = [place.record_set(f"n{number}", "A", "192.0.2.2") for number in range(4)]
    place.run(*({**item, "value": ["192.0.2.1"]} for item in wanted))
    with before_each_update(place, only_first(lambda: place.foreign("n2", "A", "192.0.2.99"))) as (slow, _proxy):
        result = slow.run(*wanted)
    item = place.item("n2", "A")
    assert failed(result) == {item}
    assert "192.0.2.99" in messages(result)[item]
    assert values(place).pop("n2") == {"192.0.2.99"}
    assert {name for name, found in values(place).items() if found == {"192.0.2.2"}} == {"n0", "n1", "n3"}
    # now it is a known difference
    place.change(*wanted)


def test_what_a_human_makes_as_we_want_it_is_no_conflict(place: Place) -> None:
    wanted = [place.record_set(f"n{number}", "A", "192.0.2.2") for number in range(4)]
    place.run(*({**item, "value": ["192.0.2.1"]} for item in wanted))
    edit = only_first(lambda: place.foreign("n2", "A", "192.0.2.2", ttl=300))
    with before_each_update(place, edit) as (slow, _proxy):
        result = slow.run(*wanted)
    assert not result["failed"], result["msg"]
    place.unchanged(*wanted)


def test_against_a_human_who_does_not_stop_the_run_loses_and_says_so(place: Place) -> None:
    wanted = [place.record_set(f"n{number}", "A", "192.0.2.2") for number in range(4)]
    place.run(*({**item, "value": ["192.0.2.1"]} for item in wanted))
    last = [""]

    def edit(number: int) -> None:
        last[0] = f"198.51.100.{number}"
        place.foreign("n2", "A", last[0])

    with before_each_update(place, edit) as (slow, _proxy):
        result = slow.run(*wanted)
    item = place.item("n2", "A")
    assert item in failed(result)
    assert "n2" in result["msg"]
    assert values(place)["n2"] == {last[0]}
    # whoever is said to be done is done, whoever is said to have failed is as it was
    for one in result["results"]:
        name = one["name"].partition(".")[0]
        assert one["failed"] == (values(place)[name] != {"192.0.2.2"}), one
    place.change(*wanted)


def two_states(place: Place) -> tuple[list[dict[str, object]], list[dict[str, object]], Content, Content]:
    """Two desired states that overlap, and what each looks like."""
    first = [place.record_set(f"n{number}", "A", "192.0.2.1") for number in range(0, 6)]
    second = [place.record_set(f"n{number}", "A", "192.0.2.2") for number in range(3, 9)]
    looks = [
        {(f"n{number}", "A"): (300, frozenset({value})) for number in numbers}
        for numbers, value in ((range(0, 6), "192.0.2.1"), (range(3, 9), "192.0.2.2"))
    ]
    return first, second, looks[0], looks[1]


def test_a_whole_run_between_reading_and_writing_of_another(place: Place) -> None:
    first, second, look_first, look_second = two_states(place)
    inner = []

    def run_second() -> None:
        inner.append(finish(start(place.arguments(*second, purge=True))))
        assert place.content() == look_second

    with before_each_update(place, only_first(run_second)) as (slow, _proxy):
        outer = slow.run(*first, purge=True)
    assert not inner[0]["failed"], inner[0]["msg"]
    # nothing of the inner run is lost, and the outer one names what it could not do
    found = place.content()
    assert {key: found[key] for key in look_second} == look_second
    assert failed(outer) == {place.item(f"n{number}", "A") for number in (3, 4, 5)}
    assert all("192.0.2.2" in message for message in messages(outer).values())
    done = {key: look for key, look in look_first.items() if key not in look_second}
    assert found == {**look_second, **done}
    assert not place.run(*first, purge=True)["failed"]
    assert place.content() == look_first


def test_runs_at_the_same_time_claim_only_what_they_did(place: Place) -> None:
    first, second, look_first, look_second = two_states(place)
    for _round in range(3):
        processes = [start(place.arguments(*wanted, purge=True)) for wanted in (first, second)]
        results = [finish(process) for process in processes]
        found = place.content()
        for key in {*look_first, *look_second}:
            claims = [
                look.get(key)
                for result, look in zip(results, (look_first, look_second), strict=True)
                if place.item(*key) not in failed(result)
            ]
            assert found.get(key) in claims, (key, [result["msg"] for result in results])
        assert not place.run(*second, purge=True, options={"max_delete_percent": 100})["failed"]
        assert place.content() == look_second
        place.run(*first[:1], purge=True, options={"max_delete_percent": 100})


def test_estates_that_write_at_the_same_time_do_not_disturb_each_other(place: Place) -> None:
    def wanted(estate: str, value: str) -> dict[str, object]:
        sets = [place.record_set(f"{estate}{number}", "A", value) for number in range(20)]
        return place.arguments(*sets, purge=True, owner=f"{place.mark}-{estate}")

    for value in ("192.0.2.1", "192.0.2.2"):
        processes = [start({**wanted(estate, value), "max_update_percent": 100}) for estate in "ab"]
        for process in processes:
            result = finish(process)
            assert not result["failed"], result["msg"]
        assert set(values(place).values()) == {frozenset({value})}
        assert len(values(place)) == 40


def test_one_zone_that_changes_meanwhile_does_not_keep_another_back(private: Place) -> None:
    other = replace(private, zone="other.test")
    zones = [
        *private.arguments(private.record_set("name", "A", "192.0.2.1"))["zones"],
        *other.arguments(other.record_set("name", "A", "192.0.2.1"))["zones"],
    ]
    act = only_first(lambda: private.foreign("name", "A", "192.0.2.99"))
    try:
        with before_each_update(private, act) as (slow, _proxy):
            result = call({**slow.arguments(), "zones": zones})
        assert failed(result) == {private.item("name", "A")}
        assert set(other.content()) == {("name", "A")}
    finally:
        other.clear()
