# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Zones in an include file, on real servers that read it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.configured import (
    Configuration,
    ConfiguredZones,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.files import Files
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.model import from_options
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.removal import Removal
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Locked
from support.dns.process import program
from zones_servers import KEY, OWN, ZONE_OPTIONS, Estate, by_name, start

MARK = {"knot": "# fediversity.hosting:fediversity\n", "bind": "// fediversity.hosting:fediversity\n"}


def zone(estate: Estate, name: str, **options: Any) -> dict[str, Any]:
    access = {"acl": ["full"]} if estate.software == "knot" else {"transfer_keys": [KEY], "update_keys": [KEY]}
    return {"name": name, "nameservers": ["ns1.other.net", "ns2.other.net"], **access, **options}


def gone(name: str) -> dict[str, Any]:
    return {"name": name, "state": "absent"}


def files(estate: Estate) -> dict[str, bytes]:
    """What is in the server's directory of ours and of its configuration."""
    return {
        path.name: path.read_bytes()
        for path in estate.directory.iterdir()
        if path.is_file() and path.suffix != ".jnl" and not path.name.startswith(("server.log", "managed-keys"))
    }


def test_zones_are_made_served_and_go(estate: Estate) -> None:
    alice = zone(estate, "alice.test", operator="alice", hostmaster="dns.admin@alice.test")
    before = files(estate)
    predicted = start(estate.file(alice, _ansible_check_mode=True))
    assert files(estate) == before
    done = start(estate.file(alice))
    assert not done["failed"], done["msg"]
    assert done["diff"] == predicted["diff"]
    result = by_name(done)["alice.test"]
    assert result["served"]
    assert result["delegation"] == ["alice.test. NS ns1.other.net.", "alice.test. NS ns2.other.net."]
    assert estate.ask("alice.test", "SOA")[0].startswith("ns1.other.net. dns\\.admin.alice.test. ")
    assert start(estate.file(alice))["msg"] == "dns_zones: 1 unchanged"

    # the server owns the content now
    estate.update("alice.test", lambda message: message.add("dynamic", 60, "TXT", "theirs"))
    changed = start(estate.file({**alice, "nameservers": ["ns9.other.net"], "operator": "dora"}))
    assert by_name(changed)["alice.test"]["action"] == "update"
    assert estate.ask("dynamic.alice.test", "TXT") == ['"theirs"']
    assert by_name(changed)["alice.test"]["nameservers"] == ["ns1.other.net", "ns2.other.net"]

    removed = start(estate.file(gone("alice.test")))
    assert not removed["failed"], removed["msg"]
    assert estate.rcode("alice.test") == "REFUSED"
    assert not (estate.directory / "alice.test.zone").exists()
    copy, *aside = by_name(removed)["alice.test"]["kept"]
    assert 'dynamic.alice.test. 60 IN TXT "theirs"' in Path(copy).read_text(encoding="utf-8")
    assert all(Path(file).parent == estate.directory and Path(file).exists() for file in aside)
    assert not [path.name for path in estate.directory.glob("alice.test.zone*") if str(path) not in aside]
    assert start(estate.file(gone("alice.test")))["msg"] == "dns_zones: 1 unchanged"

    # a zone of the same name starts anew
    assert not start(estate.file(alice))["failed"]
    assert estate.ask("dynamic.alice.test", "TXT") == []
    assert estate.rcode("alice.test") == "NOERROR"
    start(estate.file(purge=True))
    assert not [name for name in files(estate) if name.startswith(".")]


def test_a_file_that_exists_is_not_overwritten(estate: Estate) -> None:
    file = estate.directory / "there.test.zone"
    content = "$TTL 60\n@ SOA ns1.there.example. h.there.example. 7 60 60 60 60\n@ NS ns1.there.example.\n"
    file.write_text(content, encoding="utf-8")
    done = start(estate.file(zone(estate, "there.test")))
    assert by_name(done)["there.test"]["nameservers"] == ["ns1.there.example"]
    assert file.read_text(encoding="utf-8") == content
    start(estate.file(gone("there.test")))


def test_items_at_fault_do_not_keep_the_others_from_being_made(estate: Estate) -> None:
    wrong = {"template": "nope"} if estate.software == "knot" else {"dnssec_policy": "nope"}
    items = [
        zone(estate, "fault.test", **wrong),
        zone(estate, "good1.test"),
        zone(estate, "good2.test"),
        {**zone(estate, "bare.test"), "nameservers": []},
        zone(estate, OWN),
        zone(estate, f"sub.{OWN}"),
    ]
    predicted = start(estate.file(*items, _ansible_check_mode=True))
    done = start(estate.file(*items))
    assert [entry["action"] for entry in done["results"]] == [entry["action"] for entry in predicted["results"]]
    results = by_name(done)
    assert {name for name, entry in results.items() if not entry["failed"]} == {"good1.test", "good2.test"}
    assert "nope" in results["fault.test"]["msg"]
    assert "needs its name servers" in results["bare.test"]["msg"]
    assert "carries no mark of ours" in results[OWN]["msg"]
    assert f"below {OWN}" in results[f"sub.{OWN}"]["msg"]
    assert estate.rcode("good2.test") == "NOERROR"
    allowed = start(estate.file(zone(estate, f"sub.{OWN}"), allow_below=[OWN], purge=True, max_delete_percent=100))
    assert {entry["action"] for entry in allowed["results"]} == {"create", "delete"}
    assert estate.rcode("good2.test") == "REFUSED"
    start(estate.file(purge=True))


def test_a_new_zone_without_name_servers_is_refused_in_check_mode_too(estate: Estate) -> None:
    items = [zone(estate, "good.test"), zone(estate, "bare.test", nameservers=[])]
    for check in (True, False):
        done = start(estate.file(*items, _ansible_check_mode=check))
        assert {entry["name"]: entry["action"] for entry in done["results"]} == {
            "good.test": "create",
            "bare.test": "refused",
        }
    start(estate.file(purge=True))


def test_a_reload_that_fails_leaves_the_file_as_it_was(estate: Estate) -> None:
    before = files(estate)
    item = zone(estate, "late.test")
    failed = start(estate.file(item, reload_command=["false"]))
    assert by_name(failed)["late.test"]["failed"]
    assert "false fails (1)" in failed["msg"]
    after = files(estate)
    # the new zone's file may stay: nothing names it
    after.pop("late.test.zone")
    assert after == before
    again = start(estate.file(item))
    assert (again["changed"], by_name(again)["late.test"]["served"]) == (True, True)
    start(estate.file(purge=True))


def test_a_run_that_was_cut_before_the_reload_is_made_up_for(estate: Estate) -> None:
    item = zone(estate, "cut.test")
    empty = estate.include.read_text(encoding="utf-8")
    start(estate.file(item))
    # as if that run had ended between the two files and the reload
    pending = estate.directory / ".fediversity.conf.reload-pending"
    pending.write_text(empty, encoding="utf-8")
    assert start(estate.file(item, _ansible_check_mode=True))["changed"]
    log = estate.process.log
    assert start(estate.file(item))["changed"]
    assert not pending.exists()
    assert len(estate.process.log) > len(log)
    assert start(estate.file(item))["msg"] == "dns_zones: 1 unchanged"
    start(estate.file(purge=True))


def test_what_somebody_edited_is_written_again(estate: Estate) -> None:
    item = zone(estate, "edited.test")
    start(estate.file(item))
    good = estate.include.read_text(encoding="utf-8")
    estate.include.write_text(good.replace("edited.test.zone", "other.zone"), encoding="utf-8")
    assert start(estate.file(item))["changed"]
    assert estate.include.read_text(encoding="utf-8") == good
    estate.include.write_text("something else\n", encoding="utf-8")
    refused = start(estate.file(item))
    assert "does not start with our mark" in refused["msg"]
    assert estate.include.read_text(encoding="utf-8") == "something else\n"
    estate.include.write_text(good, encoding="utf-8")
    start(estate.file(purge=True))


def test_of_two_runs_at_a_time_the_later_one_says_so(knot: Estate) -> None:
    configuration = Configuration("knot", knot.config, knot.include, knot.reload)
    zone_files = Files(knot.directory)
    removal = Removal(None, None, True, zone_files)
    late = ConfiguredZones(configuration, zone_files, "fediversity", removal, purge=True, allowed=[])
    wanted = from_options([{**ZONE_OPTIONS, **zone(knot, "late.test")}], "fediversity")
    plan = late.plan(wanted, late.read(wanted))
    start(knot.file(zone(knot, "early.test")))
    before = files(knot)
    with pytest.raises(Locked, match="somebody else changed"):
        list(late.apply(plan.changes))
    assert files(knot) == before
    assert knot.rcode("early.test") == "NOERROR"
    start(knot.file(purge=True))


def test_a_file_that_nobody_includes_is_refused(estate: Estate, tmp_path: Path) -> None:
    other = tmp_path / "other.conf"
    other.touch()
    done = start(estate.file(zone(estate, "a.test"), include_file=str(other)))
    assert "does not include our file" in done["msg"]
    assert str(other) in done["msg"]
    assert other.read_bytes() == b""


def test_another_estate_on_the_same_server_is_refused(estate: Estate) -> None:
    start(estate.file(zone(estate, "first.test")))
    before = files(estate)
    done = start(estate.file(zone(estate, "second.test"), owner="second"))
    assert "does not start with our mark" in done["msg"]
    assert files(estate) == before
    start(estate.file(purge=True))


def test_knot_generates_a_catalog_of_them(knot: Estate) -> None:
    item = zone(knot, "member.test", catalog_zone="generated.test", group="signed")
    assert not start(knot.file(item))["failed"]
    assert "\n    catalog-group: signed\n" in knot.include.read_text(encoding="utf-8")
    control = [program("knotc", "knot"), "-c", str(knot.config), "zone-read", "generated.test"]
    listed = subprocess.run(control, check=True, capture_output=True, text=True).stdout
    assert "PTR member.test." in listed
    assert 'TXT "signed"' in listed
    start(knot.file(purge=True))


def test_files_get_their_owner_and_nothing_is_left_behind(knot: Estate) -> None:
    failed = start(knot.file(zone(knot, "whose.test"), file_owner="nobody-of-that-name"))
    assert failed["failed"]
    assert "nobody-of-that-name" in failed["msg"]
    assert not [name for name in files(knot) if name.startswith(".") or "whose" in name]
    if os.geteuid() == 0:
        start(knot.file(zone(knot, "whose.test"), file_owner="nobody"))
        assert (knot.directory / "whose.test.zone").owner() == "nobody"
        assert knot.include.owner() == "nobody"
        start(knot.file(purge=True))


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"name": "bad_-.test/x"}, "cannot be the name of a zone"),
    ({"name": "."}, "cannot be the name of a zone"),
    ({"name": '"; }; include "/etc/passwd"; //.test'}, "cannot be the name of a zone"),
    ({"name": "*.test"}, "cannot be the name of a zone"),
    ({"name": f"{'a' * 64}.test"}, "no domain name"),
    ({"name": "NAME", "operator": "Not A Slug"}, "no valid name"),
    ({"name": "NAME", "acl": ["x]\n    file: /etc/shadow"]}, "acl"),
    ({"name": "NAME", "dnssec_policy": 'p"; x'}, "dnssec_policy"),
    ({"name": "NAME", "nameservers": ["ns.NAME"]}, "has no address"),
    ({"name": "NAME", "nameservers": ["ns.NAME"], "addresses": {"ns.NAME": ["300.1.1.1"]}}, "300.1.1.1"),
    ({"name": "NAME", "addresses": {"ns.b.test": ["192.0.2.1"]}}, "no name server inside"),
    ({"name": "NAME", "hostmaster": "x y@a.test"}, "hostmaster"),
    ({"name": "NAME", "ttl": -1}, "ttl"),
    ({"name": "NAME", "group": "g"}, "a group needs a catalog"),
    ({"name": "NAME", "transfer_keys": ["k"]}, "no such setting"),
]


def test_malformed_items_are_refused_with_their_field(knot: Estate) -> None:
    before = files(knot)
    texts = [
        (json.dumps({"nameservers": ["ns1.other.net"], **options}).replace("NAME", f"n{number}.test"), reason)
        for number, (options, reason) in enumerate(MALFORMED)
    ]
    wanted = [json.loads(text) for text, _reason in texts]
    done = start(knot.file(*wanted))
    assert [entry["action"] for entry in done["results"]] == ["refused"] * len(wanted)
    for item, (_text, reason) in zip(wanted, texts, strict=True):
        (message,) = [entry["msg"] for entry in done["results"] if entry["name"] == item["name"].lower()]
        assert reason in message
    assert files(knot) == before


def test_a_name_that_is_too_long_for_a_file_is_refused_alone(knot: Estate) -> None:
    long = ".".join(["x" * 62] * 4)[:249] + ".test"
    fits = ".".join(["y" * 62] * 4)[:195] + ".test"
    absent = {"state": "absent", "nameservers": []}
    done = start(knot.file(zone(knot, long[-253:]), zone(knot, fits), {"name": long[-201:].lstrip("."), **absent}))
    actions = {entry["name"]: entry["action"] for entry in done["results"]}
    assert actions == {long[-253:]: "refused", fits: "create", long[-201:].lstrip("."): "refused"}
    assert "characters" in by_name(done)[long[-253:]]["msg"]
    gone_again = start(knot.file(gone(fits), max_delete_percent=100))
    assert (gone_again["changed"], gone_again["failed"]) == (True, False), gone_again["msg"]


def test_a_zone_is_listed_once_and_below_its_own_operator_only(knot: Estate) -> None:
    done = start(
        knot.file(
            zone(knot, "Twice.test"),
            zone(knot, "twice.test."),
            zone(knot, "alice.test", operator="alice"),
            zone(knot, "shop.alice.test", operator="alice"),
            zone(knot, "evil.alice.test", operator="bob"),
            zone(knot, "nobody.alice.test"),
            zone(knot, "provider.test"),
            zone(knot, "bob.provider.test", operator="bob"),
            _ansible_check_mode=True,
        )
    )
    actions = {entry["name"]: entry["action"] for entry in done["results"]}
    assert actions == {
        "twice.test": "refused",
        "alice.test": "create",
        "shop.alice.test": "create",
        "evil.alice.test": "refused",
        "nobody.alice.test": "refused",
        "provider.test": "create",
        "bob.provider.test": "create",
    }
    assert "operator 'alice'" in by_name(done)["evil.alice.test"]["msg"]
