# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Only what is ours is touched, and not too much of it at once."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from dns_place import VERSION, Place, actions, failed, messages

ALL = {"max_delete_percent": 100, "max_update_percent": 100}


def test_what_others_made_is_refused_and_stays_as_it_is(place: Place) -> None:
    place.foreign("theirs", "A", "192.0.2.99")
    place.foreign("theirs", "TXT", '"Keep Me"')
    place.foreign("alias", "CNAME", "Mixed.Example.ORG.")
    before = place.content()
    theirs = [
        place.record_set("theirs", "A", "192.0.2.1"),
        place.record_set("theirs", "TXT", "Keep Me", ttl=777),
        place.gone("alias", "CNAME"),
        place.record_set("theirs", "CNAME", "www.example.org"),
        place.record_set("alias", "A", "192.0.2.1"),
    ]
    ours = place.record_set("ours", "A", "192.0.2.1")
    for fields in ({}, {"purge": True}):
        result = place.run(*theirs, ours, **fields)
        assert len(failed(result)) == len(theirs)
        assert all(messages(result).values())
    after = place.content()
    assert after["ours", "A"] == (300, frozenset({"192.0.2.1"}))
    assert {key: after[key] for key in before} == before
    place.change(purge=True, options=ALL)
    assert place.content() == before


@pytest.mark.parametrize("level", ["zone", "record set"])
def test_what_nobody_marked_can_be_adopted(place: Place, level: str) -> None:
    place.foreign("equal", "A", "192.0.2.1", ttl=300)
    place.foreign("other", "A", "192.0.2.99")
    place.foreign("alias", "CNAME", "old.example.org.")
    place.foreign("beside", "TXT", '"not listed"')
    item_fields = {"adopt": True} if level == "record set" else {}
    wanted = [
        place.record_set("equal", "A", "192.0.2.1", **item_fields),
        place.record_set("other", "A", "192.0.2.1", **item_fields),
        place.record_set("alias", "CNAME", "new.example.org", **item_fields),
        place.record_set("fresh", "A", "192.0.2.1", **item_fields),
    ]
    zone_fields = {"adopt": True} if level == "zone" else {}
    result = place.change(*wanted, **zone_fields)
    assert actions(result)[place.item("fresh", "A")] == "create"
    # from now on they are ours without being asked for again
    plain = [{key: value for key, value in item.items() if key != "adopt"} for item in wanted]
    place.unchanged(*plain, purge=True)
    place.change(purge=True, options=ALL)
    assert place.content() == {("beside", "TXT"): (777, frozenset({'"not listed"'}))}


def test_what_another_estate_marked_is_theirs(place: Place) -> None:
    place.run(place.record_set("theirs", "A", "192.0.2.1"), owner=f"{place.mark}-b")
    result = place.run(place.record_set("theirs", "A", "192.0.2.2"), place.record_set("ours", "A", "192.0.2.2"))
    assert failed(result) == {place.item("theirs", "A")}
    assert f"{place.mark}-b" in messages(result)[place.item("theirs", "A")]
    purged = place.run(purge=True)
    assert actions(purged) == {place.item("ours", "A"): "delete"}
    assert set(place.content()) == {("theirs", "A")}


def test_purge_deletes_only_what_is_ours_and_not_listed(place: Place) -> None:
    place.foreign("theirs", "A", "192.0.2.99")
    kept, old = place.record_set("kept", "A", "192.0.2.1"), place.record_set("old", "A", "192.0.2.1")
    place.change(kept, old, place.record_set("*.old", "TXT", "x"))
    place.unchanged(kept)
    result = place.change(kept, purge=True)
    assert {name for name, action in actions(result).items() if action == "delete"} == {
        place.item("old", "A"),
        place.item("*.old", "TXT"),
    }
    assert set(place.content()) == {("kept", "A"), ("theirs", "A")}


@pytest.mark.parametrize("spelling", ["plain", "upper", "type", "dot", "idna", "ttl", "wildcard"])
def test_purge_keeps_what_is_listed_but_malformed(place: Place, spelling: str) -> None:
    """A mistyped value must not delete what is in use."""
    what = {"idna": "bücher", "wildcard": "*"}.get(spelling, "www")
    good = place.record_set(what, "A", "192.0.2.1")
    place.run(good)
    before = place.content()
    bad = {
        "plain": {**good, "value": ["192.0.2.256"]},
        "upper": {**good, "prefix": good["prefix"].upper(), "value": ["192.0.2.256"]},
        "type": {**good, "type": "a", "value": ["192.0.2.256"]},
        "dot": {"record": f"{place.name(what)}.", "type": "A", "value": ["192.0.2.256"]},
        "idna": {**good, "prefix": place.prefix("xn--bcher-kva"), "value": ["192.0.2.256"]},
        "ttl": {**good, "ttl": -1},
        "wildcard": {**good, "value": []},
    }[spelling]
    result = place.run(bad, purge=True)
    assert set(actions(result).values()) == {"refused"}
    assert place.content() == before


def test_purge_keeps_the_malformed_records_of_the_zone_itself(private: Place) -> None:
    good = {"prefix": "", "type": "A", "value": ["192.0.2.1"]}
    private.run(good)
    for prefix in ("", "@"):
        result = private.run({**good, "prefix": prefix, "value": ["192.0.2.256"]}, purge=True)
        assert failed(result) == {f"{private.zone} A"}
    assert (f"{private.zone}.", "A") in private.others()
    private.change(purge=True)


def lines_of(place: Place, www: str = "300 IN A 192.0.2.1") -> str:
    return f"""
; what an export writes
www.{place.mark} {www}
www.{place.mark} 300 IN A 192.0.2.2
text.{place.mark} TXT "v=spf1 -all"
{place.name("full")}. 60 IN CNAME www.example.org.
"""


def test_record_sets_as_lines(place: Place) -> None:
    result = place.change(purge=True, records=lines_of(place))
    assert len(actions(result)) == 3
    assert place.content() == {
        ("www", "A"): (300, frozenset({"192.0.2.1", "192.0.2.2"})),
        ("text", "TXT"): (3600, frozenset({'"v=spf1 -all"'})),
        ("full", "CNAME"): (60, frozenset({"www.example.org."})),
    }
    place.change(purge=True, options=ALL)


@pytest.mark.parametrize(
    "www", ["A", "", "192.0.2.1", "A 192.0.2.256", "60 A 192.0.2.1", "A 192.0.2.1 (", "NONSENSE x"]
)
def test_a_broken_line_takes_nothing_away(place: Place, www: str) -> None:
    place.run(purge=True, records=lines_of(place))
    before = place.content()
    result = place.run(purge=True, records=lines_of(place, www))
    assert (result["failed"], place.content()) == (True, before)


def test_absent_deletes_once_and_leaves_no_mark(place: Place) -> None:
    place.change(place.record_set("gone", "A", "192.0.2.1"))
    place.change(place.gone("gone", "A"))
    place.unchanged(place.gone("never", "A"))
    left = [name for name, _type in place.server.content(place.zone) if place.mark in name]
    assert left == []


def test_too_many_deletions_are_refused_as_a_whole(place: Place) -> None:
    wanted = [place.record_set(f"n{number}", "A", "192.0.2.1") for number in range(12)]
    place.change(*wanted)
    before, serial = place.content(), place.serial()
    for check in (True, False):
        result = place.run(*wanted[:6], place.record_set("new", "A", "192.0.2.1"), purge=True, check=check)
        assert (result["failed"], result["changed"]) == (True, False)
        assert "max_delete_percent" in result["msg"]
    assert (place.content(), place.serial()) == (before, serial)
    place.change(*wanted[:9], purge=True)
    place.change(purge=True)  # nine are too few for the threshold
    assert place.content() == {}


def test_too_many_updates_are_refused_as_a_whole(place: Place) -> None:
    wanted = [place.record_set(f"n{number}", "A", "192.0.2.1") for number in range(12)]
    place.change(*wanted)
    before, serial = place.content(), place.serial()
    other = [{**item, "value": ["192.0.2.2"]} for item in wanted]
    for check in (True, False):
        result = place.run(*other[:6], *wanted[6:], check=check)
        assert (result["failed"], result["changed"]) == (True, False)
        assert "max_update_percent" in result["msg"]
    assert (place.content(), place.serial()) == (before, serial)
    place.change(*other[:3], *wanted[3:])
    place.change(*other, options=ALL)


def test_a_cut_over_lowers_every_ttl_and_restores_it(place: Place) -> None:
    place.foreign("theirs", "A", "192.0.2.99")
    wanted = [place.record_set(f"n{number}", "A", "192.0.2.1", ttl=300 + number) for number in range(12)]
    place.change(*wanted)
    lowered = {**ALL, "ttl_override": 60}
    place.change(*wanted, options=lowered)
    found = place.content()
    assert found.pop(("theirs", "A"))[0] == 777
    assert {ttl for ttl, _values in found.values()} == {60}
    place.change(*wanted, options=ALL)
    assert place.content()["n7", "A"][0] == 307


def test_what_somebody_deletes_is_made_again_and_what_somebody_changes_is_put_right(place: Place) -> None:
    wanted = [place.record_set("lost", "A", "192.0.2.1"), place.record_set("bent", "A", "192.0.2.1")]
    place.change(*wanted)
    place.edit(lambda message: message.delete(place.prefix("lost"), "A"))
    place.foreign("bent", "A", "192.0.2.99", ttl=5)
    result = place.change(*wanted)
    assert actions(result) == {place.item("lost", "A"): "create", place.item("bent", "A"): "update"}
    assert set(place.content().values()) == {(300, frozenset({"192.0.2.1"}))}


def test_whatever_others_keep_in_the_zone_is_no_obstacle(place: Place) -> None:
    place.foreign("dotted\\.label", "TXT", "x")
    place.foreign("b\\000n\\255ry", "TXT", '"\\000\\255"')
    place.foreign("Mixed", "MX", "10 Mail.Example.ORG.")
    with contextlib.suppress(AssertionError):  # PowerDNS takes no types that it does not know
        place.foreign("unknown", "TYPE65280", "\\# 4 deadbeef")
    place.foreign("host", "HINFO", '"RISC-V" "Linux"')
    place.foreign("many", "A", *(f"198.51.100.{number}" for number in range(90)))
    place.foreign("_owner.a.text", "TXT", '"not a mark of anybody we know"')
    place.foreign("_owner.nonsense.text", "TXT", '"x"')
    place.foreign("_owner", "TXT", '"x"')
    before = place.server.content(place.zone)
    wanted = [
        place.record_set("label", "A", "192.0.2.1"),
        place.record_set("unknown", "A", "192.0.2.1"),
        place.record_set("host", "TXT", "beside"),
        place.record_set("MANY", "AAAA", "2001:db8::1"),
    ]
    place.change(*wanted, purge=True)
    refused = place.run(*wanted, place.record_set("text", "A", "192.0.2.1"), purge=True)
    assert failed(refused) == {place.item("text", "A")}
    place.change(purge=True)
    after = place.server.content(place.zone)
    version = f"{VERSION}.{place.zone}."
    assert {key: look for key, look in after.items() if key[0] != version} == {
        key: look for key, look in before.items() if key[0] != version
    }


def test_one_name_in_two_spellings_is_listed_twice(place: Place) -> None:
    result = place.run(
        place.record_set("bücher", "A", "192.0.2.1"),
        place.record_set("xn--bcher-kva", "A", "192.0.2.2"),
        place.record_set("BÜCHER", "A", "192.0.2.3"),
        place.record_set("good", "A", "192.0.2.1"),
    )
    assert result["failed"]
    assert set(place.content()) == {("good", "A")}


def test_two_zones_in_one_call(private: Place) -> None:
    other = replace(private, zone="other.test")
    zones = [
        *private.arguments(private.record_set("a", "A", "192.0.2.1"), purge=True)["zones"],
        *other.arguments(other.record_set("b", "A", "192.0.2.2"), purge=True)["zones"],
    ]
    private.change(options={"zones": zones})
    assert (set(private.content()), set(other.content())) == ({("a", "A")}, {("b", "A")})
    for zone in zones:
        zone["record_sets"] = []
    private.change(options={"zones": zones})
    assert (private.content(), other.content()) == ({}, {})
