# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From any state of a zone one run reaches any other, on real servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dns_calls import actions, change, content, failed, record_set, run, zone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.dns_server import DnsServer

PROPERTY = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

VALUES = {
    "A": ["192.0.2.1", "192.0.2.2"],
    "TXT": ["one", "x" * 300, ""],
    "MX": ["10 a.example.org", "20 B.example.org", "30 ns1.fedi.test"],
    "CNAME": ["www.fedi.test", "a.fedi.test"],
    "CAA": ['0 issue "ca.example.net"'],
}
NAMES = ["a", "b.a", "*", "*.b", "C", "bücher"]
ASCII = {"bücher": "xn--bcher-kva"}


@st.composite
def one_record_set(draw: Callable[[Any], Any], **fields: Any) -> dict[str, Any]:
    rdtype = draw(st.sampled_from(sorted(VALUES)))
    most = 1 if rdtype == "CNAME" else 2
    values = draw(st.lists(st.sampled_from(VALUES[rdtype]), min_size=1, max_size=most, unique=True))
    drawn = {name: draw(strategy) for name, strategy in fields.items()}
    return record_set(draw(st.sampled_from(NAMES)), rdtype, *values, ttl=draw(st.sampled_from([60, 300])), **drawn)


def place(item: dict[str, Any]) -> tuple[str, str]:
    return f"{ASCII.get(item['prefix'], item['prefix'].lower())}.fedi.test.", item["type"]


def legal(record_sets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is left when an alias and other records of a name exclude each other, and no name and type is twice."""
    aliases = {item["prefix"] for item in record_sets if item["type"] == "CNAME"}
    kept = {place(item): item for item in record_sets if item["type"] == "CNAME" or item["prefix"] not in aliases}
    return list(kept.values())


def once(record_sets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({place(item): item for item in record_sets}.values())


def one_run_reaches(server: DnsServer, wanted: dict[str, Any]) -> dict[str, Any]:
    """Check mode predicts the run, and a second one has nothing to do."""
    predicted = run(server, wanted, check=True)
    done = run(server, wanted)
    assert done["diff"] == predicted["diff"]
    assert actions(done) == actions(predicted)
    assert failed(done) == failed(predicted)
    again = run(server, wanted)
    assert not again["changed"], again["msg"]
    assert failed(again) == failed(done)
    return done


@PROPERTY
@given(
    before=st.lists(one_record_set(), max_size=6).map(legal), after=st.lists(one_record_set(), max_size=6).map(legal)
)
def test_a_zone_of_ours_becomes_as_desired(
    server: DnsServer, pristine: Any, restored: Callable[[], None], before: list[Any], after: list[Any]
) -> None:
    restored()
    run(server, zone(*before))
    done = one_run_reaches(server, zone(*after, purge=True))
    assert not done["failed"], done["msg"]
    found = content(server)
    foreign = pristine["fedi.test"]
    assert {key: found[key] for key in foreign} == foreign
    ours = {key for key in found if key not in foreign and not key[0].startswith("_owner.")}
    assert ours == {place(item) for item in after}
    for item in after:
        assert found[place(item)][0] == item["ttl"]


@PROPERTY
@given(
    others=st.tuples(
        st.lists(one_record_set(), max_size=4).map(legal), st.lists(one_record_set(), max_size=4).map(legal)
    ),
    after=st.lists(one_record_set(adopt=st.booleans(), state=st.sampled_from(["present", "absent"])), max_size=5).map(
        once
    ),
    purge=st.booleans(),
)
def test_what_is_not_ours_stays_byte_for_byte(
    server: DnsServer, restored: Callable[[], None], others: Any, after: list[Any], purge: bool
) -> None:
    theirs, before = others
    restored()
    change(server, "fedi.test", lambda message: [message.add(*by_hand(item)) for item in theirs])
    foreign = content(server)
    # refuses what is in their way
    run(server, zone(*before))
    start = content(server)
    done = one_run_reaches(server, zone(*after, purge=purge))
    found = content(server)
    adopted = {place(item) for item in after if item["adopt"]}
    kept = {key: value for key, value in foreign.items() if key not in adopted}
    assert {key: found.get(key) for key in kept} == kept
    listed = {place(item): item for item in after}
    for key, item in listed.items():
        if item_name(key) in failed(done):
            assert found.get(key) == start.get(key)
        elif item["state"] == "absent":
            assert key not in found
        else:
            assert (found[key][0], len(found[key][1])) == (item["ttl"], len(item["value"]))
    for key in start:
        if key not in listed and key not in foreign and not key[0].startswith("_owner."):
            # what makes room for something that is refused stays
            purged = purge and item_name(key) not in failed(done)
            assert found.get(key) == (None if purged else start[key])


def by_hand(item: dict[str, Any]) -> tuple[Any, ...]:
    """What an administrator adds."""
    name, rdtype = place(item)
    texts = [f'"{value[:200]}"' if rdtype == "TXT" else value for value in item["value"]]
    return (name, item["ttl"], rdtype, *(f"{text}." if rdtype in ("CNAME", "MX") else text for text in texts))


def item_name(key: tuple[str, str]) -> str:
    return f"{key[0].rstrip('.').replace('xn--bcher-kva', 'bücher')} {key[1]}"
