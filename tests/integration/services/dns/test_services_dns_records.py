# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be written: every type, one and a thousand record sets, names of every kind."""

from __future__ import annotations

import dns.message
import dns.name
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import TYPES
from dns_place import Place, actions, opcodes
from support.cutting_proxy import Direction, Request, cutting_proxy

UPDATE = 5
LONG = "v=DKIM1; k=rsa; p=" + "x" * 600
VALUES = {
    "A": ["192.0.2.1", "192.0.2.2"],
    "AAAA": ["2001:DB8::0:1", "2001:db8::2"],
    "CAA": ['0 issue "ca.example.net"', '128 iodef "mailto:a@example.org"'],
    "CNAME": ["Target.Example.ORG"],
    "DS": ["12345 13 2 " + "ab" * 32],
    "HTTPS": ["1 . alpn=h2,h3 port=8443"],
    "LOC": ["52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000.00m 10.00m"],
    "MX": ["10 mail.example.org", "20 MAIL2.example.org."],
    "NAPTR": ['100 10 "u" "E2U+sip" "!^.*$!sip:info@example.org!" .'],
    "NS": ["ns1.example.org", "ns2.example.org"],
    "OPENPGPKEY": ["mQINBFit2iMBEAC6"],
    "PTR": ["host.example.org"],
    "SMIMEA": ["3 1 1 " + "cd" * 32],
    "SRV": ["1 2 5060 sip.example.org", "2 0 5061 sip2.example.org"],
    "SSHFP": ["4 2 " + "12" * 32],
    "SVCB": ["1 svc.example.org alpn=dot"],
    "TLSA": ["3 1 1 " + "ef" * 32],
    "TXT": ["short", LONG, 'say "hi" \\ ; (not) a comment', "ünïcode", " spaces  inside "],
    "URI": ['10 1 "https://www.example.org/path?query=1"'],
}


def test_every_managed_type_has_a_value_here() -> None:
    assert set(VALUES) == TYPES


def every_type(place: Place) -> list[dict[str, object]]:
    """One record set of each type; a DS stands beside the NS of its delegation, others stand alone."""
    names = {rdtype: "delegated" if rdtype in ("DS", "NS") else f"t-{rdtype.lower()}" for rdtype in VALUES}
    return [place.record_set(names[rdtype], rdtype, *values) for rdtype, values in VALUES.items()]


def test_every_type_is_made_changed_and_deleted(place: Place) -> None:
    wanted = every_type(place)
    made = place.change(*wanted, purge=True)
    assert set(actions(made).values()) == {"create"}
    assert len(place.content()) == len(VALUES)

    for item in wanted:
        item["ttl"] = 600
        item["value"] = item["value"][:1]  # type: ignore[index]
    changed = place.change(*wanted, purge=True, options={"max_update_percent": 100})
    assert set(actions(changed).values()) == {"update"}
    assert {(ttl, len(values)) for ttl, values in place.content().values()} == {(600, 1)}

    deleted = place.change(purge=True, options={"max_delete_percent": 100})
    assert set(actions(deleted).values()) == {"delete"}
    assert place.content() == {}


def test_names_of_every_kind(place: Place) -> None:
    label = "l" * 63
    wanted = [
        place.record_set("", "A", "192.0.2.1"),
        place.record_set("*", "A", "192.0.2.2"),
        place.record_set("*.deep.er", "TXT", "wild"),
        place.record_set("_sip._tcp", "SRV", "1 2 5060 www.example.org"),
        place.record_set("bücher", "A", "192.0.2.3"),
        place.record_set("straße", "CNAME", "Bücher.example"),
        place.record_set("UPPER", "A", "192.0.2.4"),
        place.record_set("under_score", "TXT", "no host"),
        place.record_set("3-digits-first", "A", "192.0.2.6"),
        place.record_set(label, "A", "192.0.2.7"),
        {"record": f"{place.name('full')}.", "type": "a", "ttl": 300, "value": ["192.0.2.8"]},
    ]
    place.change(*wanted)
    assert {name for name, _type in place.content()} == {
        *("*", "*.deep.er", "_sip._tcp", "xn--bcher-kva", "xn--strae-oqa", "upper", "under_score"),
        *("3-digits-first", label, "full"),
    }
    place.unchanged(*wanted, purge=True)
    place.change(purge=True, options={"max_delete_percent": 100})
    assert place.content() == {}


def test_text_is_cut_and_joined(place: Place) -> None:
    wanted = place.record_set("text", "TXT", "y" * 255, "z" * 256, "w" * 2000)
    place.change(wanted)
    _ttl, values = place.content()["text", "TXT"]
    assert {value.replace('" "', "").strip('"') for value in values} == {"y" * 255, "z" * 256, "w" * 2000}
    place.foreign("text", "TXT", *('"' + '" "'.join([char] * length) + '"' for char, length in (("y", 255),)))
    again = place.run(wanted)
    assert actions(again) == {place.item("text", "TXT"): "update"}


def test_address_and_alias_are_swapped_in_one_message(place: Place) -> None:
    address, alias = place.record_set("swap", "A", "192.0.2.1"), place.record_set("swap", "CNAME", "www.example.org")
    text = place.record_set("swap", "TXT", "beside")
    place.change(address, text)
    for old, new in (((address, text), (alias,)), ((alias,), (address, text))):
        place.change(*new, *({**item, "state": "absent"} for item in old))
        assert {rdtype for _name, rdtype in place.content()} == {item["type"] for item in new}
    place.change(alias, purge=True)
    assert set(place.content()) == {("swap", "CNAME")}


@pytest.mark.parametrize("count", [1, 1000])
def test_one_message_writes_one_and_a_thousand(place: Place, count: int) -> None:
    seen: list[bytes] = []

    def note(direction: Direction, request: Request) -> bool:
        if direction == "request":
            seen.append(request.data)
        return False

    wanted = [place.record_set(f"n{number}", "A", "192.0.2.1") for number in range(count)]
    with cutting_proxy((place.server.address, place.server.port), note) as proxy:
        watched = place.through(proxy)
        predicted = watched.run(*wanted, check=True)
        assert UPDATE not in opcodes(seen)
        result = watched.run(*wanted)
        assert not result["failed"], result["msg"]
        assert predicted["diff"] == result["diff"]
        assert opcodes(seen).count(UPDATE) <= 1 + count // 300
        seen.clear()
        watched.unchanged(*wanted)
        assert UPDATE not in opcodes(seen)
    assert len(place.content()) == count


def test_more_than_a_message_holds(place: Place) -> None:
    seen: list[bytes] = []

    def note(direction: Direction, request: Request) -> bool:
        if direction == "answer":
            seen.append(request.data)
        return False

    wanted = [place.record_set(f"n{number}", "TXT", f"{number} " + "x" * 400) for number in range(400)]
    with cutting_proxy((place.server.address, place.server.port), note) as proxy:
        result = place.through(proxy).run(*wanted)
    assert not result["failed"], result["msg"]
    updates = [data for data in seen if opcodes([data]) == [UPDATE]]
    assert len(updates) > 2
    assert max(map(len, updates)) <= 65537
    place.unchanged(*wanted, purge=True)
    for item in wanted:
        item["ttl"] = 60
    changed = place.run(*wanted, options={"max_update_percent": 100})
    assert not changed["failed"], changed["msg"]
    assert {ttl for ttl, _values in place.content().values()} == {60}


def test_a_record_set_that_no_message_holds_is_refused(place: Place) -> None:
    big = place.record_set("big", "TXT", *(f"{number}" + "x" * 1000 for number in range(80)))
    result = place.run(place.record_set("a", "A", "192.0.2.1"), big, place.record_set("z", "A", "192.0.2.1"))
    assert [item["name"] for item in result["results"] if item["failed"]] == [place.item("big", "TXT")]
    assert set(place.content()) == {("a", "A"), ("z", "A")}


def test_messages_are_signed_guarded_and_in_an_order_that_leaves_no_gap(place: Place) -> None:
    old = [place.record_set(f"old{number}", "TXT", f"{number} " + "x" * 400) for number in range(200)]
    new = [place.record_set(f"new{number}", "TXT", f"{number} " + "x" * 400) for number in range(200)]
    place.run(*old)
    seen: list[bytes] = []

    def note(direction: Direction, request: Request) -> bool:
        if direction == "answer" and opcodes([request.data]) == [UPDATE]:
            seen.append(request.data[2:])
        return False

    with cutting_proxy((place.server.address, place.server.port), note) as proxy:
        result = place.through(proxy).run(*new, purge=True, options={"max_delete_percent": 100})
    assert not result["failed"], result["msg"]
    # the signature is verified here
    updates = [dns.message.from_wire(wire, keyring=place.server.tsig()) for wire in seen]
    assert len(updates) > 2
    assert all(update.had_tsig for update in updates)
    registry = dns.name.from_text(f"_registry.{place.zone}")
    assert registry in {rrset.name for rrset in updates[0].sections[1]}
    assert registry in {rrset.name for rrset in updates[0].sections[2]}
    deleted, added = [], []
    for number, update in enumerate(updates):
        for rrset in update.sections[2]:
            if rrset.name != registry:
                (added if rrset.deleting is None else deleted).append(number)
    assert len(added) == len(deleted) == 400
    assert max(added) <= min(deleted)
    assert {name for name, _type in place.content()} == {f"new{number}" for number in range(200)}
