# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Members of a catalog zone, on real servers that take their zones from it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import dns.name
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import make_server
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.catalog import CatalogZones, identifier
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.model import from_options
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.removal import Removal
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Locked
from support.cutting_proxy import answer_number, cutting_proxy
from zones_servers import CATALOG, KEY, SECRET, ZONE_OPTIONS, Estate, bind_consumer, bind_estate, by_name, start

ALICE = {"name": "alice.test", "operator": "alice", "group": "signed", "nameservers": ["ns1.other.net"]}
BOB = {"name": "bob.test", "operator": "bob", "nameservers": ["ns.bob.test"], "addresses": {"ns.bob.test": "192.0.2.5"}}


def gone(zone: dict[str, Any]) -> dict[str, Any]:
    return {"name": zone["name"], "state": "absent"}


def until(estate: Estate, zone: str, rcode: str) -> None:
    """Consumers follow their catalog in their own time."""
    deadline = time.monotonic() + 60
    while estate.rcode(zone) != rcode:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{zone} is {estate.rcode(zone)}, not {rcode}:\n{estate.process.log}")
        time.sleep(0.1)


def test_a_primary_server_makes_the_members_its_zones(knot: Estate) -> None:
    here = {"directory": str(knot.directory), "keep_directory": str(knot.kept)}
    before = knot.content(CATALOG)
    predicted = start(knot.catalog(ALICE, BOB, **here, _ansible_check_mode=True, _ansible_diff=True))
    assert knot.content(CATALOG) == before
    assert not (knot.directory / "alice.test.zone").exists()
    done = start(knot.catalog(ALICE, BOB, **here))
    assert (done["changed"], done["failed"]) == (True, False)
    assert done["diff"] == predicted["diff"]
    assert [entry["action"] for entry in predicted["results"]] == ["create", "create"]
    alice, bob = (by_name(done)[name] for name in ("alice.test", "bob.test"))
    assert alice["served"]
    assert bob["served"]
    # the group is a template that signs the zone
    assert alice["ds"] == knot.ask("alice.test", "CDS")
    assert alice["ds"]
    assert bob["delegation"] == ["bob.test. NS ns.bob.test.", "ns.bob.test. A 192.0.2.5"]
    label = alice["member"]
    assert knot.content(CATALOG) == before | {
        f"{label}.zones PTR": ["alice.test."],
        f"group.{label}.zones TXT": ['"signed"'],
        f"fediversity.ext.{label}.zones TXT": ['"fediversity.hosting:fediversity operator=alice"'],
        f"{bob['member']}.zones PTR": ["bob.test."],
        f"fediversity.ext.{bob['member']}.zones TXT": ['"fediversity.hosting:fediversity operator=bob"'],
    }
    again = start(knot.catalog(ALICE, BOB, **here))
    assert (again["changed"], again["msg"]) == (False, "dns_zones: 2 unchanged")

    # what was updated dynamically is in no zone file: the copy has it
    knot.update("bob.test", lambda message: message.add("dynamic", 60, "TXT", "kept"))
    file = knot.directory / "bob.test.zone"
    removed = start(knot.catalog(ALICE, gone(BOB), **here))
    until(knot, "bob.test", "REFUSED")
    kept = by_name(removed)["bob.test"]["kept"]
    assert len(kept) == 2
    assert 'dynamic.bob.test. 60 IN TXT "kept"' in Path(kept[0]).read_text(encoding="utf-8")
    assert Path(kept[0]).stat().st_mode & 0o777 == 0o600
    assert (file.exists(), Path(kept[1]).exists()) == (False, True)
    assert knot.rcode("alice.test") == "NOERROR"

    # a signed zone can be copied too, and the catalog is as it was at first
    purged = start(knot.catalog(purge=True, **here))
    assert by_name(purged)["alice.test"]["action"] == "delete"
    assert " IN RRSIG SOA " in Path(by_name(purged)["alice.test"]["kept"][0]).read_text(encoding="utf-8")
    assert knot.content(CATALOG) == before
    assert not start(knot.catalog(gone(ALICE), purge=True, **here))["changed"]


def test_a_group_and_an_operator_change_in_place(knot: Estate) -> None:
    here = {"directory": str(knot.directory)}
    member = by_name(start(knot.catalog(ALICE, **here)))["alice.test"]["member"]
    plain = {key: value for key, value in ALICE.items() if key != "group"}
    moved = start(knot.catalog({**plain, "operator": "dora"}, **here))
    assert by_name(moved)["alice.test"]["action"] == "update"
    assert by_name(moved)["alice.test"]["member"] == member
    content = knot.content(CATALOG)
    assert f"group.{member}.zones TXT" not in content
    assert content[f"fediversity.ext.{member}.zones TXT"] == ['"fediversity.hosting:fediversity operator=dora"']
    start(knot.catalog(gone(ALICE), remove_without_copy=True, **here))


def test_zones_of_others_are_not_touched(knot: Estate) -> None:
    knot.update(CATALOG, lambda message: message.add("theirs.zones", 0, "PTR", "theirs.test."))
    estate = {"name": "b.test", "operator": "bob"}
    start(knot.catalog(estate, owner="second"))
    before = knot.content(CATALOG)
    done = start(
        knot.catalog(
            {"name": "theirs.test"},
            {"name": "shop.theirs.test"},
            {"name": "www.b.test"},
            {"name": "mine.test"},
            {**gone(estate)},
            purge=True,
            remove_without_copy=True,
        )
    )
    results = by_name(done)
    assert (done["failed"], results["mine.test"]["changed"]) == (True, True)
    assert "carries no mark of ours" in results["theirs.test"]["msg"]
    assert "below theirs.test" in results["shop.theirs.test"]["msg"]
    assert "below b.test" in results["www.b.test"]["msg"]
    assert "'fediversity.hosting:second operator=bob'" in results["b.test"]["msg"]
    ours = results["mine.test"]["member"]
    assert {key: value for key, value in knot.content(CATALOG).items() if ours not in key} == before
    agreed = start(knot.catalog({"name": "www.b.test"}, allow_below=["b.test"], _ansible_check_mode=True))
    assert by_name(agreed)["www.b.test"]["action"] == "create"
    start(knot.catalog(purge=True, owner="second", remove_without_copy=True))
    start(knot.catalog(purge=True, remove_without_copy=True))
    knot.update(CATALOG, lambda message: message.delete("theirs.zones"))


@pytest.mark.parametrize(
    ("item", "staying"),
    [
        ({"name": "Bücher.test.", "operator": "Not a slug"}, {"xn--bcher-kva.test"}),
        ({"name": "xn--bcher-kva.test", "hostmaster": "a b@c"}, {"xn--bcher-kva.test"}),
        # nobody knows which zone was meant
        ({"name": "bü..cher.test"}, {"xn--bcher-kva.test", "second.test"}),
        ({"name": "bücher.test/"}, {"xn--bcher-kva.test", "second.test"}),
    ],
)
def test_a_malformed_item_takes_no_zone_away(knot: Estate, item: dict[str, Any], staying: set[str]) -> None:
    here = {"remove_without_copy": True, "max_delete_percent": 100, "wait": 0}
    start(knot.catalog({"name": "bücher.test"}, {"name": "second.test"}, **here))
    done = start(knot.catalog(item, purge=True, **here))
    assert done["failed"]
    left = {value for values in knot.content(CATALOG).values() for value in values if value.endswith(".test.")}
    assert left == {f"{name}." for name in staying}
    start(knot.catalog(purge=True, **here))


def test_bytes_that_are_no_text_stay_as_they_are(knot: Estate) -> None:
    knot.update(CATALOG, lambda message: message.add("m\\255.zones", 0, "PTR", "label.test."))
    knot.update(CATALOG, lambda message: message.add("m.zones", 0, "PTR", "group.test."))
    knot.update(CATALOG, lambda message: message.add("group.m.zones", 0, "TXT", '"\\255"'))
    before = knot.content(CATALOG)
    done = start(knot.catalog({"name": "label.test"}, {"name": "group.test"}, wait=0))
    assert all("bytes that are no text" in entry["msg"] for entry in done["results"])
    assert knot.content(CATALOG) == before
    for name in ("m\\255.zones", "m.zones", "group.m.zones"):
        knot.update(CATALOG, lambda message, name=name: message.delete(name))  # type: ignore[misc]


def test_a_zone_that_cannot_be_copied_stays(knot: Estate) -> None:
    start(knot.catalog({"name": "empty.test"}, wait=0))
    assert knot.rcode("empty.test") == "SERVFAIL"
    nowhere = start(knot.catalog({"name": "empty.test", "state": "absent"}))
    assert by_name(nowhere)["empty.test"]["action"] == "refused"
    failed = start(knot.catalog({"name": "empty.test", "state": "absent"}, keep_directory=str(knot.kept)))
    assert by_name(failed)["empty.test"]["failed"]
    assert "stays until it can be copied" in failed["msg"]
    assert identifier(dns.name.from_text("empty.test")) in "".join(knot.content(CATALOG))
    waived = start(knot.catalog({"name": "empty.test", "state": "absent"}, remove_without_copy=True))
    assert (waived["changed"], waived["failed"]) == (True, False)


def test_a_new_zone_that_is_not_served_gets_a_warning(knot: Estate) -> None:
    done = start(knot.catalog({"name": "empty.test"}, wait=0))
    assert "does not serve the zone empty.test" in str(done["warnings"])
    assert by_name(done)["empty.test"]["served"] is False
    start(knot.catalog(purge=True, remove_without_copy=True))


def test_many_members_and_too_many_removals(knot: Estate) -> None:
    many = [{"name": f"n{number}.test"} for number in range(100)]
    assert start(knot.catalog(*many, wait=0))["changed"]
    refused = start(knot.catalog(*many[:50], purge=True, remove_without_copy=True))
    assert "more than 30 %" in refused["msg"]
    assert len(knot.content(CATALOG)) == 2 + 200
    start(knot.catalog(purge=True, remove_without_copy=True, max_delete_percent=100))
    assert len(knot.content(CATALOG)) == 2


def test_a_zone_without_version_is_no_catalog(knot: Estate) -> None:
    done = start({**knot.catalog({"name": "a.test"}), "catalog": "own.test"})
    assert 'version.own.test TXT "2"' in done["msg"]


def test_broken_members_are_told(knot: Estate) -> None:
    knot.update(CATALOG, lambda message: message.add("one.zones", 0, "PTR", "twice.test."))
    knot.update(CATALOG, lambda message: message.add("two.zones", 0, "PTR", "twice.test."))
    done = start(knot.catalog({"name": "twice.test"}))
    assert "under two labels" in by_name(done)["twice.test"]["msg"]
    for label in ("one.zones", "two.zones"):
        knot.update(CATALOG, lambda message, label=label: message.delete(label))  # type: ignore[misc]


@pytest.mark.parametrize("action", ["create", "update", "delete"])
def test_what_another_changes_meanwhile_is_not_overwritten(knot: Estate, action: str) -> None:
    server = make_server("127.0.0.1", knot.port, KEY, SECRET, "hmac-sha256")
    item = {**ZONE_OPTIONS, "name": "race.test", "group": "signed"}
    catalog = dns.name.from_text(CATALOG)
    label = identifier(dns.name.from_text("race.test"))
    if action != "create":
        start(knot.catalog({"name": "race.test"}, wait=0))
    if action == "delete":
        item["state"] = "absent"
    provider = CatalogZones(server, catalog, "fediversity", Removal(server, None, True, None), purge=False, allowed=[])
    wanted = from_options([item], "fediversity")
    plan = provider.plan(wanted, provider.read(wanted))
    assert [change.action for change in plan.changes] == [action]

    def meddle(message: Any) -> None:
        if action == "create":
            message.add(f"{label}.zones", 0, "PTR", "race.test.")
        else:
            message.replace(f"fediversity.ext.{label}.zones", 0, "TXT", "fediversity.hosting:other")

    knot.update(CATALOG, meddle)
    before = knot.content(CATALOG)
    (applied,) = provider.apply(plan.changes)
    assert isinstance(applied.error, Locked)
    assert knot.content(CATALOG) == before
    for node in (f"{label}.zones", f"fediversity.ext.{label}.zones", f"group.{label}.zones"):
        knot.update(CATALOG, lambda message, node=node: message.delete(node))  # type: ignore[misc]


def test_secondary_servers_of_bind_follow(tmp_path: Path) -> None:
    with bind_estate(tmp_path / "primary") as primary, bind_consumer(tmp_path / "secondary", primary) as secondary:
        zones = [{**ALICE, "group": None, "transfer_keys": [KEY]}, {**BOB, "transfer_keys": [KEY]}]
        assert not start(primary.file(*zones))["failed"]
        done = start(primary.catalog(ALICE, {key: BOB[key] for key in ("name", "operator")}))
        assert not done["failed"], done["msg"]
        secondary_catalog(secondary)
        until(secondary, "alice.test", "NOERROR")
        until(secondary, "bob.test", "NOERROR")
        assert secondary.ask("ns.bob.test", "A") == ["192.0.2.5"]
        start(primary.catalog(gone(BOB), keep_directory=str(primary.kept)))
        secondary_catalog(secondary)
        until(secondary, "bob.test", "REFUSED")
        assert secondary.rcode("alice.test") == "NOERROR"


def secondary_catalog(secondary: Estate) -> None:
    """Have the secondary fetch the catalog, as a NOTIFY would."""
    secondary.refresh(CATALOG)


def test_a_connection_that_is_cut_after_the_change_fails_and_the_next_run_converges(knot: Estate) -> None:
    # the first request is the transfer of the catalog, the second the update
    with cutting_proxy(("127.0.0.1", knot.port), answer_number(2)) as proxy:
        cut = start({**knot.catalog({"name": "cut.test"}, wait=0), "port": proxy.port})
        assert [request.number for request in proxy.cuts] == [2]
    assert by_name(cut)["cut.test"]["failed"]
    assert "no answer" in cut["msg"]
    assert ["cut.test."] in knot.content(CATALOG).values()
    again = start(knot.catalog({"name": "cut.test"}, wait=0))
    assert (again["changed"], again["failed"]) == (False, False)
    start(knot.catalog(purge=True, remove_without_copy=True))
