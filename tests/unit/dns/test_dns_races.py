# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Somebody else writes to the zone while a run is under way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dns.rcode
import dns.update
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import Server
from dns_calls import actions, content, failed, messages, record_set, run, zone
from support.cutting_proxy import cutting_proxy, first_answer_to
from support.dns_server import DnsServer

Meanwhile = Callable[..., list[str]]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Does something before the first UPDATE messages that are sent, one thing before each."""
    real = Server.update

    def before_updates(*deeds: Callable[[], Any]) -> list[str]:
        waiting, sent = list(deeds), []

        def update(self: Server, *arguments: Any) -> Any:
            sent.append("UPDATE")
            if waiting and len(sent) <= len(deeds):
                waiting.pop(0)()
            return real(self, *arguments)

        monkeypatch.setattr(Server, "update", update)
        return sent

    return before_updates


def addresses(number: int, *names: str) -> list[dict[str, Any]]:
    return [record_set(name, "A", f"192.0.2.{number}") for name in names]


def test_an_edit_by_hand_is_seen_told_and_kept(server: DnsServer, administrator: Any, meanwhile: Meanwhile) -> None:
    names = [f"n{number}" for number in range(12)]
    run(server, zone(*addresses(1, *names)))
    wanted = zone(*addresses(2, *names, "fresh"), record_set("alias", "CNAME", "www.fedi.test"))

    def edit(update: dns.update.UpdateMessage) -> None:
        update.replace("n5", 300, "A", "192.0.2.55")
        update.add("fresh", 300, "A", "192.0.2.56")
        update.add("alias", 300, "A", "192.0.2.57")

    sent = meanwhile(lambda: administrator(edit))
    result = run(server, wanted)
    assert failed(result) == {"n5.fedi.test A", "fresh.fedi.test A", "alias.fedi.test CNAME"}
    assert len(sent) == 2
    said = messages(result)
    assert "from 192.0.2.1 (TTL 300)" in said["n5.fedi.test A"]
    assert "to 192.0.2.55 (TTL 300)" in said["n5.fedi.test A"]
    assert "from nothing to 192.0.2.56" in said["fresh.fedi.test A"]
    assert "by adding A records" in said["alias.fedi.test CNAME"]
    found = content(server)
    assert found["n5.fedi.test.", "A"][1] == {"192.0.2.55"}
    assert found["n6.fedi.test.", "A"][1] == {"192.0.2.2"}
    again = run(server, wanted)
    assert actions(again)["n5.fedi.test A"] == "update"
    assert failed(again) == {"fresh.fedi.test A", "alias.fedi.test CNAME"}


@pytest.mark.parametrize("made", [False, True])
def test_a_server_that_is_busy_is_asked_once_more(
    server: DnsServer, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    real = Server.update
    answers: list[dns.rcode.Rcode] = []

    def update(self: Server, *arguments: Any) -> dns.rcode.Rcode:
        busy = not answers
        answers.append(dns.rcode.SERVFAIL if busy and not made else real(self, *arguments))
        return dns.rcode.SERVFAIL if busy else answers[-1]

    monkeypatch.setattr(Server, "update", update)
    wanted = zone(*addresses(1, "a", "b"))
    result = run(server, wanted)
    assert (result["failed"], set(actions(result).values())) == (False, {"create"}), result["msg"]
    assert content(server)["a.fedi.test.", "A"] == (300, frozenset({"192.0.2.1"}))
    assert not run(server, wanted)["changed"]
    assert len(answers) == 2


def test_a_record_set_with_which_the_server_fails_does_not_keep_the_others_back(server: DnsServer) -> None:
    if server.software != "bind":
        pytest.skip("only BIND has a limit of the records of one name and type")
    many = record_set("many", "A", *(f"192.0.2.{number}" for number in range(1, 151)))
    result = run(server, zone(*addresses(1, "a"), many, *addresses(1, "z", "y")))
    assert failed(result) == {"many.fedi.test A"}
    assert {f"{name}.fedi.test." for name in "ayz"} <= {name for name, _rdtype in content(server)}


def test_a_new_ttl_by_hand_is_kept_too_when_the_zone_is_read_again(
    server: DnsServer, administrator: Any, meanwhile: Meanwhile
) -> None:
    run(server, zone(*addresses(1, "a", "b")))

    def edit(update: dns.update.UpdateMessage) -> None:
        update.replace("a", 60, "A", "192.0.2.1")
        update.replace("b", 300, "A", "192.0.2.9")

    meanwhile(lambda: administrator(edit))
    result = run(server, zone(*addresses(2, "a", "b")))
    assert failed(result) == {"a.fedi.test A", "b.fedi.test A"}


def test_of_two_runs_the_loser_says_so(server: DnsServer, meanwhile: Meanwhile) -> None:
    run(server, zone(*addresses(1, "a", "b", "c")))
    ours, theirs = addresses(2, "a", "b"), addresses(3, "b", "c")
    sent = meanwhile(lambda: run(server, zone(*theirs)))
    result = run(server, zone(*ours))
    # theirs, ours in vain, ours
    assert len(sent) == 3
    assert failed(result) == {"b.fedi.test A"}
    assert "to 192.0.2.3 (TTL 300)" in result["msg"]
    values = {name: content(server)[f"{name}.fedi.test.", "A"][1] for name in "abc"}
    assert values == {"a": {"192.0.2.2"}, "b": {"192.0.2.3"}, "c": {"192.0.2.3"}}


def test_a_purge_spares_what_another_run_has_just_made(server: DnsServer, meanwhile: Meanwhile) -> None:
    run(server, zone(*addresses(1, "old")))
    meanwhile(lambda: run(server, zone(*addresses(1, "new"))))
    result = run(server, zone(*addresses(1, "a"), purge=True))
    assert not result["failed"], result["msg"]
    assert {("a.fedi.test.", "A"), ("new.fedi.test.", "A")} <= set(content(server))
    assert ("old.fedi.test.", "A") not in content(server)


def test_the_same_wish_of_two_runs_is_no_conflict(server: DnsServer, meanwhile: Meanwhile) -> None:
    wanted = zone(*addresses(1, "a", "b"))
    sent = meanwhile(lambda: run(server, wanted))
    result = run(server, wanted)
    assert not result["failed"], result["msg"]
    assert len(sent) == 2
    assert not run(server, wanted)["changed"]


def test_after_a_second_conflict_nothing_more_is_tried(
    server: DnsServer, administrator: Any, meanwhile: Meanwhile
) -> None:
    def other(number: int) -> Callable[[], Any]:
        return lambda: run(server, zone(record_set("other", "A", f"192.0.2.{number}")))

    run(server, zone(record_set("other", "A", "192.0.2.1")))
    # every run of ours sends one message, and so does every other one
    before = content(server)
    sent = meanwhile(other(2), lambda: None, other(3), lambda: None)
    result = run(server, zone(*addresses(1, "a", "b")))
    assert failed(result) == {"a.fedi.test A", "b.fedi.test A"}
    assert "keeps writing to the zone" in result["msg"]
    assert len(sent) == 4
    assert set(content(server)) == set(before)


def test_a_connection_that_is_cut_after_the_commit_costs_nothing(server: DnsServer) -> None:
    wanted = zone(*addresses(1, "a", "b"))
    with cutting_proxy((server.address, server.port), first_answer_to(b"_registry")) as proxy:
        through = replace(server, address=proxy.host, port=proxy.port)
        result = run(through, wanted)
        assert len(proxy.cuts) == 1
    assert not result["failed"], result["msg"]
    assert set(actions(result).values()) == {"create"}
    assert not run(server, wanted)["changed"]


def test_the_version_changes_with_every_update_and_only_then(server: DnsServer) -> None:
    versions = []
    for number in (1, 1, 2):
        run(server, zone(*addresses(number, "a")))
        ((ttl, values),) = [server.content("fedi.test")["_registry.fedi.test.", "TXT"]]
        assert ttl == 3600
        versions.append(values)
    assert versions[0] == versions[1] != versions[2]


def test_a_version_that_was_edited_or_deleted_by_hand_stops_nobody(server: DnsServer, administrator: Any) -> None:
    run(server, zone(*addresses(1, "a")))
    administrator(lambda update: update.replace("_registry", 300, "TXT", '"some" "thing"'))
    assert not run(server, zone(*addresses(2, "a")))["failed"]
    administrator(lambda update: update.delete("_registry"))
    assert not run(server, zone(*addresses(3, "a")))["failed"]
    assert content(server)["a.fedi.test.", "A"][1] == {"192.0.2.3"}
