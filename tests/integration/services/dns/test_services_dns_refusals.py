# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused before anything is written, item by item, while the others are made."""

from __future__ import annotations

from typing import Any

import pytest
from dns_place import Place, actions, failed, messages
from support.dns_server import ZONES

DKIM = "v=DKIM1; k=rsa; p="

# what, type, values, further fields; what the reason must name
BAD: list[tuple[str, str, list[str], dict[str, Any], str]] = [
    ("x", "A", ["192.0.2.999"], {}, "192.0.2.999"),
    ("x", "A", ["2001:db8::1"], {}, "2001:db8::1"),
    ("x", "AAAA", ["192.0.2.1"], {}, "192.0.2.1"),
    ("x", "AAAA", ["fe80::1%eth0"], {}, "fe80"),
    ("x", "A", [], {}, "value"),
    ("x", "A", ["192.0.2.1"], {"ttl": -1}, "TTL"),
    ("x", "A", ["192.0.2.1"], {"ttl": 2**31}, "TTL"),
    ("x", "MX", ["10 mail"], {}, "mail"),
    ("x", "MX", ["mail.example.org"], {}, "MX"),
    ("x", "MX", ["70000 mail.example.org"], {}, "MX"),
    ("x", "SRV", ["1 2 70000 a.example.org"], {}, "SRV"),
    ("x", "CNAME", ["a.example.org", "b.example.org"], {}, "one value"),
    ("x" * 64, "A", ["192.0.2.1"], {}, "63"),
    (".".join(["x" * 60] * 5), "A", ["192.0.2.1"], {}, "255"),
    ("a..b", "A", ["192.0.2.1"], {}, "a..b"),
    ("x", "SOA", ["a. b. 1 2 3 4 5"], {}, "SOA"),
    ("x", "RRSIG", ["x"], {}, "RRSIG"),
    ("x", "DNSKEY", ["257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0d"], {}, "DNSKEY"),
    ("x", "NONSENSE", ["x"], {}, "NONSENSE"),
    ("_owner.a.x", "TXT", ["x"], {}, "_owner"),
    ("x", "TXT", ["v=spf1 -all", "v=spf1 a -all"], {}, "SPF"),
    ("s1._domainkey", "TXT", [DKIM + "not base64!"], {}, "DKIM"),
]


@pytest.mark.parametrize("case", BAD, ids=[f"{number}-{row[1]}" for number, row in enumerate(BAD)])
def test_a_bad_record_set_is_refused_and_the_others_are_made(place: Place, case: Any) -> None:
    what, rdtype, values, fields, said = case
    bad, good = place.record_set(what, rdtype, *values, **fields), place.record_set("good", "A", "192.0.2.1")
    for check in (True, False):
        result = place.run(bad, good, check=check)
        (name,) = failed(result)
        assert actions(result) == {name: "refused", place.item("good", "A"): "create"}
        assert said.lower() in messages(result)[name].lower()
    assert set(place.content()) == {("good", "A")}
    again = place.run(bad, good)
    assert (again["changed"], failed(again)) == (False, {name})


def test_names_outside_the_zone_are_refused(place: Place) -> None:
    outside = ["www", "www.example.org", f"{place.name('www')}.example.org", f"x{place.zone}"]
    sets = [{"record": name, "type": "A", "value": ["192.0.2.1"]} for name in outside]
    result = place.run(*sets, place.record_set("good", "A", "192.0.2.1"))
    assert len(failed(result)) == len(outside)
    assert set(place.content()) == {("good", "A")}


@pytest.mark.parametrize(
    ("rdtype", "value"), [("CNAME", "www.example.org"), ("NS", "ns9.example.org"), ("DS", "1 13 2 " + "ab" * 32)]
)
def test_what_the_server_needs_at_the_zone_itself_is_protected(place: Place, rdtype: str, value: str) -> None:
    """Only in check mode, where nothing is sent: a wrong NS would hurt a zone that is in use."""
    at_zone = {"prefix": "@", "type": rdtype, "value": [value]}
    for fields in ({}, {"state": "absent"}):
        result = place.run({**at_zone, **fields}, place.record_set("good", "A", "192.0.2.1"), check=True)
        assert failed(result) == {f"{place.zone} {rdtype}"}


def test_an_alias_beside_other_records_is_refused(place: Place) -> None:
    result = place.run(
        place.record_set("both", "CNAME", "www.example.org"),
        place.record_set("both", "A", "192.0.2.1"),
        place.record_set("twice", "A", "192.0.2.1"),
        place.record_set("TWICE", "a", "192.0.2.2"),
        place.record_set("good", "A", "192.0.2.1"),
    )
    refused = {place.item("both", "CNAME"), place.item("both", "A"), place.item("twice", "A")}
    assert failed(result) == refused
    assert set(place.content()) == {("good", "A")}

    place.run(place.record_set("alias", "CNAME", "www.example.org"))
    before = place.content()
    for item in (place.record_set("alias", "TXT", "x"), place.record_set("good", "CNAME", "www.example.org")):
        assert place.run(item)["failed"]
    assert place.content() == before


def test_a_target_that_is_an_alias_is_refused(place: Place) -> None:
    """RFC 2181 section 10.3 (NS, MX) and RFC 2782 (SRV): the target has addresses, it is no alias."""
    alias = place.name("alias")
    wanted = [
        place.record_set("mail", "MX", f"10 {alias}"),
        place.record_set("_sip._tcp", "SRV", f"1 2 5060 {alias}"),
        place.record_set("child", "NS", alias),
    ]
    refused = {place.item("mail", "MX"), place.item("_sip._tcp", "SRV"), place.item("child", "NS")}
    # wished for together they contradict each other
    together = place.run(place.record_set("alias", "CNAME", "www.example.org"), *wanted)
    assert failed(together) == {*refused, place.item("alias", "CNAME")}
    assert place.content() == {}
    place.run(place.record_set("alias", "CNAME", "www.example.org"))
    assert failed(place.run(*wanted)) == refused
    place.clear()
    place.foreign("alias", "CNAME", "www.example.org.")
    assert failed(place.run(*wanted)) == refused
    assert set(place.content()) == {("alias", "CNAME")}
    # what leaves is no obstacle
    place.clear()
    place.run(place.record_set("alias", "CNAME", "www.example.org"))
    place.change(*wanted, place.gone("alias", "CNAME"), place.record_set("alias", "A", "192.0.2.1"))


def test_zones_that_cannot_be_are_refused_and_the_others_are_made(place: Place) -> None:
    zones = [
        {"name": "bad..name", "record_sets": [{"prefix": "www", "type": "A", "value": ["192.0.2.1"]}]},
        {"name": "unknown.invalid", "record_sets": [{"prefix": "www", "type": "A", "value": ["192.0.2.1"]}]},
    ]
    good = place.arguments(place.record_set("good", "A", "192.0.2.1"))["zones"]
    result = place.run(options={"zones": [*zones, *good]})
    assert actions(result)[place.item("good", "A")] == "create"
    assert failed(result) >= {"www.bad..name A", "www.unknown.invalid A"}
    assert set(place.content()) == {("good", "A")}


def test_records_of_the_zone_itself(private: Place) -> None:
    """In a zone that nobody else has, addresses, mail and text stand at its top."""
    wanted = [
        {"prefix": "@", "type": "A", "value": ["192.0.2.1"]},
        {"prefix": "", "type": "MX", "value": ["10 mail.example.org"]},
        {"prefix": "", "type": "TXT", "value": ["v=spf1 -all", "x" * 600]},
        {"prefix": "", "type": "CAA", "value": ['0 issue "ca.example.net"']},
    ]
    assert private.zone == ZONES[0]
    private.change(*wanted)
    private.change(*({**item, "state": "absent"} for item in wanted))


def test_name_servers_of_the_zone_change_only_when_asked_for(private: Place) -> None:
    own = [f"ns1.{private.zone}"]
    wanted = {"prefix": "@", "type": "NS", "ttl": 3600, "value": [*own, "ns2.example.org"]}
    assert private.run(wanted)["failed"]
    assert private.others()[f"{private.zone}.", "NS"][1] == {f"ns1.{private.zone}."}
    private.change(wanted, adopt=True, options={"allow_apex_ns": True})
    assert private.others()[f"{private.zone}.", "NS"][1] == {f"ns1.{private.zone}.", "ns2.example.org."}
    # back to what it was, without the mark
    private.change({**wanted, "value": own}, options={"allow_apex_ns": True})
    private.edit(lambda message: message.delete("_owner.ns", "TXT"))
