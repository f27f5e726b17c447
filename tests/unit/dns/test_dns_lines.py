# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Record sets as lines of text."""

from __future__ import annotations

from typing import Any

import pytest
from dns_calls import actions, content, failed, messages, named, record_set, run, zone
from support.dns_server import DnsServer

LINES = """
; a comment
@ 300 TXT "v=spf1 -all"
www 300 IN A 192.0.2.1
www 300 A 192.0.2.2
WWW aaaa 2001:db8::1
mail.fedi.test. 300 A 192.0.2.5\t
@ IN 300 MX 10 mail.fedi.test.
t\t60\tTXT\t"one \\"two\\"" "three"
bare TXT word
text TXT "a ; b" ; a comment is no text
"""


def test_lines_are_record_sets_that_are_not_listed_while_nothing_is_to_be_done(server: DnsServer) -> None:
    wanted = zone(record_set("dict", "A", "192.0.2.9"), records=LINES.replace(" ; a comment is no text", ""))
    predicted = run(server, wanted, check=True)
    done = run(server, wanted)
    assert not done["failed"], done["msg"]
    assert done["diff"] == predicted["diff"]
    assert len(actions(done)) == 8 + 1
    found = content(server)
    assert found["www.fedi.test.", "A"] == (300, frozenset({"192.0.2.1", "192.0.2.2"}))
    assert found["www.fedi.test.", "AAAA"] == (3600, frozenset({"2001:db8::1"}))
    assert found["t.fedi.test.", "TXT"] == (60, frozenset({'"one \\"two\\"" "three"'}))
    again = run(server, wanted)
    assert not again["changed"]
    assert actions(again) == {"dict.fedi.test A": "unchanged"}
    assert again["msg"] == "dns_records: 9 unchanged"
    purged = run(server, zone(records="www 300 A 192.0.2.1\n", purge=True))
    assert actions(purged)["www.fedi.test A"] == "update"
    assert set(actions(purged).values()) == {"update", "delete"}


@pytest.mark.parametrize(
    ("line", "name", "said"),
    [
        ("x", "line 1", "no type"),
        ("x 300", "line 1", "no type"),
        ("x A", "line 1", "no value"),
        (" A 192.0.2.1", "line 1", "begins without a name"),
        ("$TTL 300", "line 1", "directive"),
        ("x TXT two words", "line 1", "not between quotes"),
        ('x TXT "text" ; comment', "line 1", "not between quotes"),
        ("x A 192.0.2.1 192.0.2.2", "x.fedi.test A", "no value of type A"),
        ("x NONSENSE 1", "x.fedi.test NONSENSE", "not managed"),
        ("x 99999999999 A 192.0.2.1", "x.fedi.test A", "TTL"),
        ("x.example.org. A 192.0.2.1", "x.example.org A", "outside the zone"),
        ("x 60 A 192.0.2.1\nx 61 A 192.0.2.2", "x.fedi.test A", "different TTLs"),
        ("x A 192.0.2.1\nX.fedi.test. A 192.0.2.2", "x.fedi.test A", "listed twice"),
        ("x..y A 192.0.2.1", "x..y A", "no domain name"),
        ("x.fedi.test A 192.0.2.1", "x.fedi.test A", "the zone's own name stands in it twice"),
        ("fedi.test A 192.0.2.1", "fedi.test A", "the zone's own name stands in it twice"),
    ],
)
def test_a_bad_line_is_refused_and_the_others_are_made(server: DnsServer, line: str, name: str, said: str) -> None:
    result = run(server, zone(records=f"{line}\ngood A 192.0.2.1"))
    (bad,) = failed(result)
    assert bad.endswith(name)
    assert said in messages(result)[bad]
    assert actions(result)["good.fedi.test A"] == "create"


WWW = "www 300 A 192.0.2.1\nwww 300 A 192.0.2.2\n"


@pytest.mark.parametrize(
    ("broken", "purge"),
    [
        # of the name itself
        *((f"www{rest}\nwww 300 A 192.0.2.2", True) for rest in ("", " 300", " A", " 300 IN A", " NONSENSE 1")),
        *((f"{name} A\nwww 300 A 192.0.2.2", False) for name in ("WWW", "www.fedi.test.", "www")),
        ("www 1h A 192.0.2.1\nwww 300 A 192.0.2.2", True),
        ("www CH A 192.0.2.1\nwww 300 A 192.0.2.2", True),
        ("www.fedi.test A 192.0.2.1\nwww 300 A 192.0.2.2", False),
        ("www.fedi.test A 192.0.2.1", True),
        # of any name
        *((f"{line}\nwww 300 A 192.0.2.2", True) for line in ("$ORIGIN www", " A 192.0.2.1", "w..w A 192.0.2.1")),
        ("www 300 A 192.0.2.2\n\t300 A 192.0.2.1", False),
        ("mail A 192.0.2.5\n\twww 300 A 192.0.2.1", True),
        *((f"{line}", True) for line in ("$INCLUDE www", "w..w A 192.0.2.1", "www.fedi.tst. A 192.0.2.1", "w..w")),
        *((f"{line}", True) for line in ("300 www A 192.0.2.1", "w\\ A 192.0.2.1", "www. A 192.0.2.1", "x A")),
    ],
)
def test_what_a_broken_line_may_mean_is_left_alone(server: DnsServer, broken: str, purge: bool) -> None:
    run(server, zone(records=WWW))
    before = content(server)
    wanted = zone(records=f"{broken}\ngood A 192.0.2.1\n", purge=purge)
    predicted = run(server, wanted, check=True)
    done = run(server, wanted)
    assert predicted["diff"] == done["diff"]
    assert "www.fedi.test A" in failed(done)
    found = content(server)
    assert actions(done)["good.fedi.test A"] == "create"
    new = ("good.fedi.test.", "mail.fedi.test.")
    assert {key: value for key, value in found.items() if not key[0].endswith(new)} == before
    # mended, it goes on
    assert not run(server, zone(records=f"{WWW}good A 192.0.2.1\n", purge=True))["failed"]


def test_an_alias_does_not_take_the_place_of_what_a_broken_line_keeps(server: DnsServer) -> None:
    run(server, zone(records=WWW))
    before = content(server)
    wanted = zone(record_set("www", "CNAME", "a.fedi.test"), records="$ORIGIN www", purge=True)
    result = run(server, wanted)
    assert failed(result) >= {"www.fedi.test CNAME", "www.fedi.test A"}
    absent = record_set("www", "A", state="absent")
    assert failed(run(server, zone(record_set("www", "CNAME", "a.fedi.test"), absent, records="www")))
    assert content(server) == before


@pytest.mark.parametrize(
    "bad",
    [
        record_set("www", "AA", "192.0.2.1"),
        record_set("w..w", "A", "192.0.2.1"),
        record_set(None, "A", "192.0.2.1", record="www"),
    ],
)
def test_what_a_malformed_item_may_mean_is_not_purged(server: DnsServer, bad: dict[str, Any]) -> None:
    run(server, zone(records=WWW))
    before = content(server)
    result = run(server, zone(bad, purge=True))
    assert (len(failed(result)), content(server)) == (2, before)
    # what is listed beside it is complete
    beside = run(server, zone(bad, record_set("www", "A", "192.0.2.9"), purge=True))
    assert len(failed(beside)) == 1
    assert content(server)["www.fedi.test.", "A"] == (300, frozenset({"192.0.2.9"}))


def test_a_name_that_is_none_keeps_every_zone_of_the_call(server: DnsServer) -> None:
    run(server, zone(records=WWW))
    result = run(server, zone(purge=True), record_sets=[named("w..w.fedi.test", "A", "192.0.2.1")])
    assert failed(result) == {"w..w.fedi.test A", "www.fedi.test A"}
    # one that is outside of them has nothing to do with them
    outside = run(server, zone(purge=True), record_sets=[named("www.nowhere.invalid", "A", "192.0.2.1")])
    assert failed(outside) == {"www.nowhere.invalid A"}
    assert ("www.fedi.test.", "A") not in content(server)


def test_names_that_hold_the_name_of_the_zone_twice_are_written_in_full(server: DnsServer) -> None:
    result = run(
        server,
        zone(
            record_set("a.fedi.test", "A", "192.0.2.1"),
            record_set(None, "A", "192.0.2.1", record="b.fedi.test.fedi.test"),
            record_set("test", "A", "192.0.2.1"),
            records="c.fedi.test.fedi.test. A 192.0.2.1",
        ),
    )
    assert failed(result) == {"a.fedi.test A"}
    assert {name for name, _rdtype in content(server)} >= {
        "b.fedi.test.fedi.test.",
        "c.fedi.test.fedi.test.",
        "test.fedi.test.",
    }


def test_the_end_of_a_line_is_nothing_else(server: DnsServer) -> None:
    text: Any = 'x TXT "a\u2028b\x0bc"\r\ny A 192.0.2.1\r\n'
    result = run(server, zone(records=text))
    assert not result["failed"], result["msg"]
    assert set(actions(result)) == {"x.fedi.test TXT", "y.fedi.test A"}
    assert not run(server, zone(records=text))["changed"]
