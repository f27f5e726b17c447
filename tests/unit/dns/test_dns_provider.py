# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The provider against real Knot and BIND servers."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import dns.message
import dns.update
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import make_server
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    InvalidInput,
    Unreachable,
)
from dns_calls import actions, content, messages, record_set, request, run, zone
from support.dns_server import DENIED, SECRET, UPDATE_KEY, DnsServer

EVERY_KIND = zone(
    record_set("www", "A", "192.0.2.1", "192.0.2.2"),
    record_set("www", "AAAA", "2001:DB8::0:1"),
    record_set("www", "HTTPS", "1 . alpn=h2"),
    record_set("", "TXT", "v=spf1 -all", "k=" + "x" * 600, 'say "hi" \\'),
    record_set("mail", "A", "192.0.2.5"),
    record_set("@", "MX", "10 mail.fedi.test", "20 MAIL.example.org."),
    record_set("", "CAA", '0 issue "ca.example.net"'),
    record_set("_sip._tcp", "SRV", "1 2 5060 www.fedi.test"),
    record_set("*.wild", "A", "192.0.2.3"),
    record_set("bücher", "CNAME", "WWW.Fedi.Test"),
    record_set("sub", "NS", "ns1.fedi.test", "ns.example.org"),
    record_set("sub", "DS", "12345 13 2 " + "ab" * 32),
    record_set(None, "A", "192.0.2.4", record="UPPER.Fedi.Test."),
)


def test_check_mode_predicts_then_one_message_makes_all_then_nothing_is_left(
    server: DnsServer, sent: list[str]
) -> None:
    before, serial = content(server), server.serial("fedi.test")
    sent.clear()
    predicted = run(server, EVERY_KIND, check=True)
    assert predicted["changed"]
    assert sent == ["AXFR"]
    assert (content(server), server.serial("fedi.test")) == (before, serial)

    sent.clear()
    done = run(server, EVERY_KIND)
    assert not done["failed"], done["msg"]
    assert sent == ["AXFR", "UPDATE", "AXFR"]
    assert done["diff"] == predicted["diff"]
    assert set(actions(done).values()) == {"create"}
    found = content(server)
    assert found["www.fedi.test.", "A"] == (300, frozenset({"192.0.2.1", "192.0.2.2"}))
    assert found["xn--bcher-kva.fedi.test.", "CNAME"] == (300, frozenset({"www.fedi.test."}))
    assert found["_owner.a._wildcard.wild.fedi.test.", "TXT"][1] == {'"fediversity.hosting:fediversity"'}
    assert {key: found[key] for key in before} == before

    sent.clear()
    serial = server.serial("fedi.test")
    again = run(server, EVERY_KIND)
    assert not again["changed"]
    assert sent == ["QUERY", "AXFR"]  # the serial above
    assert server.serial("fedi.test") == serial
    upper = next(item for item in again["results"] if item["name"] == "upper.fedi.test A")
    assert (upper["value"], upper["ttl"], upper["zone"]) == (["192.0.2.4"], 300, "fedi.test")


def test_values_ttl_and_order(server: DnsServer) -> None:
    run(server, zone(record_set("www", "A", "192.0.2.1", "192.0.2.2")))
    assert not run(server, zone(record_set("www", "a", "192.0.2.2", "192.0.2.1")))["changed"]
    for wanted in (
        record_set("www", "A", "192.0.2.2"),
        record_set("www", "A", "192.0.2.2", ttl=60),
        record_set("www", "A", "192.0.2.2", "192.0.2.5", ttl=60),
    ):
        result = run(server, zone(wanted))
        assert actions(result) == {"www.fedi.test A": "update"}
        assert not result["failed"], result["msg"]
        found = (wanted["ttl"], frozenset(wanted["value"]))
        assert content(server)["www.fedi.test.", "A"] == found


def test_text_is_the_same_however_it_is_cut(server: DnsServer) -> None:
    run(server, zone(record_set("t", "TXT", '"' + "a" * 200 + '" "' + "b" * 200 + '"')))
    assert not run(server, zone(record_set("t", "TXT", "a" * 200 + "b" * 200)))["changed"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (record_set("x", "A", "192.0.2.999"), "192.0.2.999"),
        (record_set("x", "A", "2001:db8::1"), "no value of type A"),
        (record_set("x", "AAAA", "192.0.2.1"), "no value of type AAAA"),
        (record_set("x", "A"), "no value"),
        (record_set("x", "A", "192.0.2.1", ttl=-1), "TTL"),
        (record_set("x", "A", "192.0.2.1", ttl=2**31), "TTL"),
        (record_set("x", "MX", "10 mail"), "no complete name"),
        (record_set("x", "CNAME", "a.example.org", "b.example.org"), "one value only"),
        (record_set("x" * 64, "A", "192.0.2.1"), "1 to 63 bytes"),
        (record_set(".".join(["x" * 60] * 5), "A", "192.0.2.1"), "at most 255"),
        (record_set(".".join(["x" * 59] * 4), "A", "192.0.2.1"), "no room"),
        (record_set("a..b", "A", "192.0.2.1"), "no domain name"),
        (record_set("", "CNAME", "www.fedi.test"), "of the zone itself"),
        (record_set("", "NS", "ns9.fedi.test"), "of the zone itself"),
        (record_set("", "SOA", "a. b. 1 2 3 4 5"), "not managed"),
        (record_set("x", "RRSIG", "x"), "not managed"),
        (record_set("x", "NONSENSE", "x"), "not managed"),
        (record_set("_owner.a.www", "TXT", "x"), "registry"),
        (record_set("_wildcard.www", "TXT", "x"), "registry"),
        (record_set(None, "A", "192.0.2.1", record="www"), "outside the zone"),
        (record_set(None, "A", "192.0.2.1", record="www.fedi.test.example.org"), "outside the zone"),
        (record_set("foreign", "CNAME", "www.fedi.test"), "cannot stand beside"),
        (record_set("foreign", "A", "192.0.2.1"), "no mark of ours"),
        (record_set("foreign", "A", state="absent"), "no mark of ours"),
        (record_set("foreign", "A", "192.0.2.99", ttl=3600), "no mark of ours"),
    ],
)
def test_a_bad_record_set_is_refused_and_the_others_are_made(server: DnsServer, bad: Any, said: str) -> None:
    before = content(server)
    result = run(server, zone(bad, record_set("good", "A", "192.0.2.1")))
    (name,) = set(actions(result)) - {"good.fedi.test A"}
    assert actions(result) == {name: "refused", "good.fedi.test A": "create"}
    assert said in messages(result)[name]
    assert messages(result)["good.fedi.test A"] == ""
    after = content(server)
    assert {key: after[key] for key in before} == before


def test_contradictions_are_refused_together(server: DnsServer) -> None:
    result = run(
        server,
        zone(
            record_set("both", "CNAME", "www.fedi.test"),
            record_set("both", "A", "192.0.2.1"),
            record_set("twice", "A", "192.0.2.1"),
            record_set("TWICE", "a", "192.0.2.2"),
            record_set("good", "A", "192.0.2.1"),
        ),
    )
    assert actions(result) == {
        "both.fedi.test CNAME": "refused",
        "both.fedi.test A": "refused",
        "twice.fedi.test A": "refused",
        "good.fedi.test A": "create",
    }


def test_address_and_alias_can_be_swapped(server: DnsServer) -> None:
    address, alias = record_set("swap", "A", "192.0.2.1"), record_set("swap", "CNAME", "www.fedi.test")
    run(server, zone(address))
    refused = run(server, zone(alias))
    assert "cannot stand beside" in refused["msg"]
    for old, new in ((address, alias), (alias, address)):
        result = run(server, zone({**old, "state": "absent"}, new))
        assert not result["failed"], result["msg"]
        assert run(server, zone(old), check=True)["failed"]
    purged = run(server, zone(alias, purge=True))
    assert actions(purged) == {"swap.fedi.test A": "delete", "swap.fedi.test CNAME": "create"}
    assert not purged["failed"], purged["msg"]


def test_purge_deletes_only_what_is_ours(server: DnsServer, pristine: Any) -> None:
    run(server, zone(record_set("old", "A", "192.0.2.1"), record_set("*.old", "TXT", "x")))
    run(server, zone(record_set("theirs", "A", "192.0.2.1"), owner="another"))
    refused = run(server, zone(record_set("theirs", "A", "192.0.2.2")))
    assert "fediversity.hosting:another" in refused["msg"]
    assert actions(run(server, zone(record_set("new", "A", "192.0.2.1")))) == {"new.fedi.test A": "create"}
    result = run(server, zone(purge=True))
    assert actions(result) == {
        "old.fedi.test A": "delete",
        "*.old.fedi.test TXT": "delete",
        "new.fedi.test A": "delete",
    }
    assert not result["failed"], result["msg"]
    left = content(server)
    assert set(left) - set(pristine["fedi.test"]) == {
        ("theirs.fedi.test.", "A"),
        ("_owner.a.theirs.fedi.test.", "TXT"),
    }
    assert not run(server, zone(purge=True))["changed"]


def test_absent_deletes_with_the_registry_record_and_once(server: DnsServer, pristine: Any) -> None:
    run(server, zone(record_set("gone", "A", "192.0.2.1")))
    result = run(server, zone(record_set("gone", "A", state="absent")))
    assert actions(result) == {"gone.fedi.test A": "delete"}
    assert content(server) == pristine["fedi.test"]
    assert not run(server, zone(record_set("gone", "A", state="absent")))["changed"]


def test_a_deleted_record_set_is_made_again_and_a_lost_one_forgotten(server: DnsServer, administrator: Any) -> None:
    wanted = [record_set("lost", "A", "192.0.2.1"), record_set("alias", "CNAME", "www.fedi.test")]
    run(server, zone(*wanted))

    def lose(update: dns.update.UpdateMessage) -> None:
        update.delete("lost", "A")
        update.delete("alias", "CNAME")

    administrator(lose)
    result = run(server, zone(*wanted))
    assert actions(result) == {"lost.fedi.test A": "create", "alias.fedi.test CNAME": "create"}
    assert not result["failed"], result["msg"]

    def lose_and_reuse(update: dns.update.UpdateMessage) -> None:
        lose(update)
        update.add("lost", 300, "CNAME", "www.fedi.test.")
        update.add("alias", 300, "A", "192.0.2.9")

    administrator(lose_and_reuse)
    before = content(server)
    purged = run(server, zone(purge=True))
    assert not purged["failed"], purged["msg"]
    after = content(server)
    assert set(before) - set(after) == {
        ("_owner.a.lost.fedi.test.", "TXT"),
        ("_owner.cname.alias.fedi.test.", "TXT"),
    }


def test_what_somebody_else_changes_meanwhile_is_not_overwritten(
    server: DnsServer, administrator: Any, sent: list[str]
) -> None:
    run(server, zone(*(record_set(f"n{number}", "A", "192.0.2.1") for number in range(8))))
    wanted = zone(
        *(record_set(f"n{number}", "A", "192.0.2.2") for number in range(8)),
        record_set("fresh", "A", "192.0.2.3"),
        record_set("alias", "CNAME", "www.fedi.test"),
        record_set("under", "A", "192.0.2.3"),
    )
    asked = request(server, wanted)
    dns_records = asked.provider()
    changes = dns_records.plan(asked.items, dns_records.read(asked.items)).pending()

    def edit(update: dns.update.UpdateMessage) -> None:
        update.replace("n5", 300, "A", "192.0.2.55")
        update.add("fresh", 300, "A", "192.0.2.56")
        update.add("alias", 300, "A", "192.0.2.57")
        update.add("under", 300, "CNAME", "www.fedi.test.")

    administrator(edit)
    before = content(server)
    errors = {done.change.name: done.error for done in dns_records.apply(changes)}
    losers = {"n5.fedi.test A", "fresh.fedi.test A", "alias.fedi.test CNAME", "under.fedi.test A"}
    assert {name for name, error in errors.items() if error} == losers
    assert all("somebody else has changed" in str(errors[name]) for name in losers)
    after = content(server)
    assert after["n4.fedi.test.", "A"] == (300, frozenset({"192.0.2.2"}))
    for name, rdtype in (("n5", "A"), ("fresh", "A"), ("alias", "A"), ("under", "CNAME")):
        key = (f"{name}.fedi.test.", rdtype)
        assert after[key] == before[key]
    assert ("_owner.a.fresh.fedi.test.", "TXT") not in after


def test_a_refused_name_does_not_keep_the_others_back(server: DnsServer) -> None:
    names = [f"n{number}" for number in range(5)]
    result = run(server, zone(*(record_set(name, "A", "192.0.2.1") for name in (*names[:2], "denied", *names[2:]))))
    failed = {item["name"] for item in result["results"] if item["failed"]}
    # only BIND's update policy keeps a name back
    assert failed == ({f"{DENIED} A"} if server.software == "bind" else set())
    if failed:
        assert "update policy" in messages(result)[f"{DENIED} A"]
    assert {(f"{name}.fedi.test.", "A") for name in names} <= set(content(server))


def test_more_than_a_message_holds(server: DnsServer, sent: list[str]) -> None:
    wanted = zone(*(record_set(f"many-{number}", "TXT", "x" * 400) for number in range(300)))
    result = run(server, wanted)
    assert not result["failed"], result["msg"]
    assert sent.count("UPDATE") > 1
    assert not run(server, wanted)["changed"]
    big = record_set("big", "TXT", *(f"{number}" + "x" * 1000 for number in range(80)))
    result = run(server, zone(record_set("a", "A", "192.0.2.1"), big, record_set("z", "A", "192.0.2.1")))
    assert "too big" in messages(result)["big.fedi.test TXT"]
    assert [item["name"] for item in result["results"] if item["failed"]] == ["big.fedi.test TXT"]


def test_without_the_right_to_transfer_the_wanted_names_are_asked_for(server: DnsServer) -> None:
    limited = replace(server, key=UPDATE_KEY)
    wanted = zone(record_set("www", "A", "192.0.2.1"), record_set("alias", "CNAME", "www.fedi.test"))
    predicted = run(limited, wanted, check=True)
    result = run(limited, wanted)
    assert not result["failed"], result["msg"]
    assert result["diff"] == predicted["diff"]
    assert not run(limited, wanted)["changed"]
    assert "no mark of ours" in run(limited, zone(record_set("foreign", "A", "192.0.2.1")))["msg"]
    assert "cannot stand beside" in run(limited, zone(record_set("alias", "A", "192.0.2.1")))["msg"]
    with pytest.raises(Denied, match=r"refuses to transfer|does not allow it this"):
        run(limited, zone(purge=True))


def test_a_zone_that_cannot_be_read_does_not_keep_the_others_back(server: DnsServer) -> None:
    unknown = zone(record_set("www", "A", "192.0.2.1"), name="unknown.test")
    result = run(server, unknown, zone(record_set("www", "A", "192.0.2.1")), zone(name="other.test", purge=True))
    assert actions(result)["www.fedi.test A"] == "create"
    assert actions(result)["www.unknown.test A"] == "refused"
    reasons = {"knot": "NOTAUTH", "bind": "no authoritative answer", "powerdns": "NOTAUTH"}
    assert reasons[server.software] in messages(result)["www.unknown.test A"]
    with pytest.raises(BackendError, match=r"unknown\.test on 127"):
        run(server, unknown)


def test_bad_zones(server: DnsServer) -> None:
    result = run(server, zone(record_set("www", "A", "192.0.2.1"), name="bad..name"), zone(owner="two words"), zone())
    assert actions(result) == {"www.bad..name A": "refused", "fedi.test": "refused"}
    with pytest.raises(InvalidInput, match="listed twice"):
        run(server, zone(), zone(name="FEDI.test."))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"key": "nobody."}, "BADKEY"),
        ({"secret": "d3Jvbmc="}, "BADSIG"),
        ({"algorithm": "hmac-sha512"}, "BADKEY"),
    ],
)
def test_a_wrong_key_is_explained(server: DnsServer, fields: Any, said: str) -> None:
    # PowerDNS does not tell more, nor does Knot from 3.4 on
    unsigned = r"not signed \(NOTAUTH\)\. .* wrong key, secret or clock.* tsig_name, tsig_secret, tsig_algorithm"
    reason = {"bind": said, "powerdns": unsigned}.get(server.software, f"{said}|{unsigned}")
    with pytest.raises((Denied, BackendError), match=reason) as caught:
        run(replace(server, **fields), zone(record_set("www", "A", "192.0.2.1")))
    assert SECRET not in str(caught.value)


def test_a_wrong_clock_is_explained(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns.message, "time", SimpleNamespace(time=lambda: time.time() - 3600))
    with pytest.raises((Denied, BackendError), match=r"clocks|wrong key, secret or clock"):
        run(server, zone(record_set("www", "A", "192.0.2.1")))


def test_malformed_keys_and_unreachable_servers_are_explained() -> None:
    with pytest.raises(InvalidInput, match="base64"):
        make_server("127.0.0.1", 53, "key.", "not base64!", "hmac-sha256")
    with pytest.raises(InvalidInput, match="base64"):
        make_server("127.0.0.1", 53, "key.", f"{SECRET}\u00e9", "hmac-sha256")
    with pytest.raises(InvalidInput, match="key name"):
        make_server("127.0.0.1", 53, "a..b", SECRET, "hmac-sha256")
    with pytest.raises(Unreachable, match="no answer"):
        run(DnsServer("none", "127.0.0.1", 1), zone(record_set("www", "A", "192.0.2.1")))
    for host in ("no-such-host.invalid", "a..b", "a" * 64, "\udc80"):
        with pytest.raises(Unreachable, match="no address"):
            make_server(host, 53, None, None, "hmac-sha256")
    for port in (0, -1, 65536, 2**40):
        with pytest.raises(InvalidInput, match=f"the port is {port}"):
            make_server("127.0.0.1", port, None, None, "hmac-sha256")


def test_no_secret_is_shown(server: DnsServer) -> None:
    backend = make_server("localhost", server.port, server.key, server.secret, server.algorithm)
    assert SECRET not in repr(backend)
    assert SECRET not in json.dumps(run(server, EVERY_KIND))
