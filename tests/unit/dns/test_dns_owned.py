# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ownership that changes hands, thresholds, times to live and names beyond ASCII."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dns.update
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Limits
from dns_calls import actions, content, failed, messages, record_set, run, zone
from support.dns_server import UPDATE_KEY, DnsServer


@pytest.mark.parametrize("fields", [{"adopt": True}, {}])
def test_a_foreign_record_set_is_adopted_when_asked(server: DnsServer, fields: Any, sent: list[str]) -> None:
    wanted = zone(record_set("foreign", "A", "192.0.2.99", ttl=3600, **fields), adopt=not fields)
    predicted = run(server, wanted, check=True)
    assert actions(predicted) == {"foreign.fedi.test A": "update"}
    done = run(server, wanted)
    assert not done["failed"], done["msg"]
    assert done["diff"] == predicted["diff"]
    assert done["diff"]["before"]["foreign.fedi.test A"]["owner"] is None
    assert done["diff"]["after"]["foreign.fedi.test A"]["owner"] == "fediversity"
    assert not run(server, zone(record_set("foreign", "A", "192.0.2.99", ttl=3600)))["changed"]
    assert run(server, zone(purge=True))["changed"]
    assert ("foreign.fedi.test.", "A") not in content(server)
    assert ("foreign.fedi.test.", "TXT") in content(server)


def test_what_another_owns_is_not_adopted(server: DnsServer, administrator: Any) -> None:
    run(server, zone(record_set("theirs", "A", "192.0.2.1"), owner="another"))
    administrator(lambda update: update.add("_owner.a.foreign", 300, "TXT", "*octodns*"))
    wanted = zone(record_set("theirs", "A", "192.0.2.1"), record_set("foreign", "A", "192.0.2.1"), adopt=True)
    result = run(server, wanted)
    assert failed(result) == {"theirs.fedi.test A", "foreign.fedi.test A"}
    assert "belongs to 'fediversity.hosting:another'" in messages(result)["theirs.fedi.test A"]
    assert "belongs to '*octodns*'" in messages(result)["foreign.fedi.test A"]
    administrator(lambda update: update.delete("_owner.a.foreign", "TXT"))
    assert failed(run(server, wanted)) == {"theirs.fedi.test A"}


def test_too_many_changes_are_refused_as_a_whole(server: DnsServer, sent: list[str]) -> None:
    def numbered(address: str, count: int, ttl: int = 300) -> list[dict[str, Any]]:
        return [record_set(f"n{number}", "A", address, ttl=ttl) for number in range(count)]

    run(server, zone(*numbered("192.0.2.1", 10)))
    other = zone(record_set("foreign", "A", "192.0.2.99", adopt=True), name="other.test", adopt=True)
    sent.clear()
    half = zone(*numbered("192.0.2.2", 4), *numbered("192.0.2.1", 10)[4:])
    with pytest.raises(InvalidInput, match=r"zone fedi\.test: n0.* the plan changes 4 of 10 items.*max_update_percent"):
        run(server, half, other, limits=Limits(30, 30))
    with pytest.raises(InvalidInput, match=r"the plan deletes 4 of 10 items.*max_delete_percent"):
        run(server, zone(*numbered("192.0.2.1", 6), purge=True), limits=Limits(30, 30))
    assert "UPDATE" not in sent
    assert run(server, half, limits=Limits(30, 40), check=True)["changed"]
    # nine are few, and a new TTL alone is no change
    assert run(server, zone(*numbered("192.0.2.1", 10)), ttl_override=60, limits=Limits(0, 0))["changed"]
    run(server, zone(*numbered("192.0.2.1", 9), purge=True))
    assert not run(server, zone(*numbered("192.0.2.2", 9)), limits=Limits(0, 0))["failed"]


@pytest.mark.parametrize("fields", [{"state": "absent"}, {}])
def test_what_is_taken_over_counts_among_the_changes(server: DnsServer, administrator: Any, fields: Any) -> None:
    names = [f"n{number}" for number in range(10)]
    administrator(lambda update: [update.add(name, 300, "A", "192.0.2.99") for name in names])
    before = content(server)
    wanted = [record_set(name, "A", *([] if fields else ["192.0.2.1"]), adopt=True, **fields) for name in names]
    does = "deletes" if fields else "changes"
    with pytest.raises(InvalidInput, match=f"the plan {does} 10 of 10 items, more than 30 %"):
        run(server, zone(*wanted), limits=Limits(30, 30))
    assert content(server) == before
    # the mark alone is no change
    same = [record_set(name, "A", "192.0.2.99", adopt=True) for name in names]
    assert not run(server, zone(*same), limits=Limits(0, 0))["failed"]


def test_the_time_to_live_of_everything_for_a_move(server: DnsServer) -> None:
    wanted = zone(
        record_set("a", "A", "192.0.2.1", ttl=3600), record_set("b", "TXT", "x"), records="c 7200 A 192.0.2.3"
    )
    run(server, wanted)
    moving = run(server, wanted, ttl_override=60)
    assert set(actions(moving).values()) == {"update"}
    found = content(server)
    assert {found[f"{name}.fedi.test.", rdtype][0] for name, rdtype in (("a", "A"), ("b", "TXT"), ("c", "A"))} == {60}
    assert not run(server, wanted, ttl_override=60)["changed"]
    run(server, wanted)
    assert content(server)["c.fedi.test.", "A"][0] == 7200
    assert "TTL is -1" in run(server, wanted, ttl_override=-1)["msg"]


def test_names_beyond_ascii_follow_idna_2008_and_are_shown_as_written(server: DnsServer) -> None:
    wanted = zone(
        record_set("Straße", "A", "192.0.2.1"),
        record_set("bücher", "CNAME", "straße.fedi.test"),
        record_set("_sip._tcp.bücher2", "SRV", "1 2 5060 straße.fedi.test"),
        records="mañana A 192.0.2.3",
    )
    done = run(server, wanted)
    assert not done["failed"], done["msg"]
    assert set(actions(done)) == {
        "straße.fedi.test A",
        "bücher.fedi.test CNAME",
        "_sip._tcp.bücher2.fedi.test SRV",
        "mañana.fedi.test A",
    }
    assert done["diff"]["after"]["bücher.fedi.test CNAME"]["value"] == ["straße.fedi.test."]
    entry = next(item for item in done["results"] if item["name"] == "straße.fedi.test A")
    # strasse in IDNA 2003
    assert entry["record"] == "xn--strae-oqa.fedi.test"
    assert ("xn--maana-pta.fedi.test.", "A") in content(server)
    assert not run(server, wanted)["changed"]
    bad = run(server, zone(record_set("a\u2028b", "A", "192.0.2.1"), record_set("xn--0", "A", "192.0.2.1")))
    assert failed(bad) == {"a\u2028b A"}
    # it says that it is an A-label and is none
    assert actions(bad)["xn--0.fedi.test A"] == "create"


def test_types_that_nobody_knows_are_left_alone(server: DnsServer, administrator: Any) -> None:
    if server.software == "powerdns":
        pytest.skip("PowerDNS takes no updates of unknown types")

    def add(update: dns.update.UpdateMessage) -> None:
        update.add("future", 300, "TYPE65280", r"\# 4 0a000001")

    administrator(add)
    before = content(server)
    wanted = zone(record_set("future", "A", "192.0.2.1"), purge=True)
    assert not run(server, wanted)["failed"]
    assert "TYPE65280" in run(server, zone(record_set("future", "CNAME", "www.fedi.test")))["msg"]
    assert not run(server, zone(purge=True))["failed"]
    assert content(server) == before


def test_without_a_transfer_what_contradicts_is_still_seen(server: DnsServer) -> None:
    limited = replace(server, key=UPDATE_KEY)
    run(server, zone(record_set("alias", "CNAME", "www.fedi.test")))
    result = run(
        limited, zone(record_set("", "MX", "10 alias.fedi.test"), record_set("foreign", "CNAME", "www.fedi.test"))
    )
    assert "is an alias" in messages(result)["fedi.test MX"]
    assert "cannot stand beside" in messages(result)["foreign.fedi.test CNAME"]
    run(limited, zone(record_set("a", "A", "192.0.2.1")))
    assert not run(server, zone(record_set("a", "A", "192.0.2.1")))["changed"]
