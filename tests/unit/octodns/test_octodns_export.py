# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The export as octoDNS reads it: validated, dumped and synchronized by octoDNS itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.rdata
import pytest
import yaml
from ansible_collections.fediversity.hosting.plugins.module_utils.dns import values
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import DesiredRecordSet
from ansible_collections.fediversity.hosting.plugins.module_utils.octodns.export import read_zones
from ansible_collections.fediversity.hosting.plugins.module_utils.octodns.records import zone_document
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from octodns.provider.yaml import YamlProvider
from octodns.zone import Zone
from support.dns_server import FULL_KEY, SECRET, DnsServer, knot_server

MODULES = Path(__file__).parents[3] / "plugins" / "modules"
PROGRAMS = Path(sys.executable).parent
ZONE = "fedi.test"
RECORD_SETS: list[dict[str, Any]] = [
    {"prefix": "", "type": "A", "value": ["192.0.2.1", "192.0.2.2"], "ttl": 300},
    {"prefix": "", "type": "AAAA", "value": ["2001:DB8::1"]},
    {"prefix": "", "type": "CAA", "value": ['0 issue "letsencrypt.org; validationmethods=dns-01"']},
    {"prefix": "", "type": "MX", "value": ["10 mail.fedi.test", "20 mail2.other.test."]},
    {"prefix": "", "type": "TXT", "value": ["v=spf1 -all", "a; b;c", 'say "hello"']},
    {"prefix": "*", "type": "AAAA", "value": ["2001:db8::2"]},
    {"prefix": "*.shop", "type": "CNAME", "value": ["www.fedi.test"]},
    {"prefix": "WWW", "type": "A", "value": ["192.0.2.3"]},
    {"prefix": "www", "type": "TXT", "value": ["x;" * 400]},
    {"prefix": "1", "type": "A", "value": ["192.0.2.4"]},
    {"prefix": "true", "type": "A", "value": ["192.0.2.4"]},
    {"prefix": "null", "type": "TXT", "value": ["~"]},
    {"prefix": "bücher", "type": "CNAME", "value": ["straße.fedi.test"]},
    {"prefix": "_sip._tcp", "type": "SRV", "value": ["1 2 5060 sip.fedi.test"]},
    {"prefix": "_443._tcp.www", "type": "TLSA", "value": ["3 1 1 " + "CD" * 32]},
    {"prefix": "https", "type": "HTTPS", "value": ["1 . alpn=h2,h3 port=8443 ipv4hint=192.0.2.1"]},
    {"prefix": "svcb", "type": "SVCB", "value": ["1 www.fedi.test alpn=h2"]},
    {"prefix": "loc", "type": "LOC", "value": ["52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m"]},
    {"prefix": "naptr", "type": "NAPTR", "value": ['100 10 "U" "E2U+sip" "!^.*$!sip:a@example.org!" .']},
    {"prefix": "ssh", "type": "SSHFP", "value": ["4 2 " + "ab" * 32]},
    {"prefix": "4.3", "type": "PTR", "value": ["a.fedi.test", "b.fedi.test"]},
    {"prefix": "child", "type": "NS", "value": ["ns1.other.test"]},
    {"prefix": "child", "type": "DS", "value": ["60485 13 2 " + "ef" * 32]},
]
# one item as the module gets it from Ansible
RECORD_SET: dict[str, Any] = {
    "record": None,
    "prefix": "text",
    "type": "TXT",
    "ttl": 60,
    "adopt": False,
    "state": "present",
}
# octoDNS knows these types, its provider for BIND does not
NOT_BY_UPDATE: list[dict[str, Any]] = [
    {"prefix": "_smtp._tcp", "type": "URI", "value": ['10 1 "https://fedi.test/"']},
    {"prefix": "key", "type": "OPENPGPKEY", "value": ["aGVsbG8="]},
]


def run_module(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(MODULES / f"{name}.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def octodns(program: str, config: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(PROGRAMS / f"octodns-{program}"), "--config-file", str(config), *arguments],
        env={**os.environ, "OCTODNS_TEST_KEY": SECRET},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def export(dest: Path, zones: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    provider = {"class": "octodns.provider.yaml.YamlProvider", "settings": {"directory": str(dest / "target")}}
    return run_module("octodns_export", {"dest": str(dest), "zones": zones, "provider": provider, **options})


def actions(result: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["action"] for entry in result["results"]}


@pytest.fixture(scope="module")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServer]:
    with knot_server(tmp_path_factory.mktemp("octodns"), [ZONE]) as running:
        yield running


def test_octodns_validates_and_plans_it(tmp_path: Path) -> None:
    zones = [{"name": ZONE, "record_sets": RECORD_SETS + NOT_BY_UPDATE}, {"name": "bücher.test", "record_sets": []}]
    predicted = export(tmp_path, zones, _ansible_check_mode=True)
    assert list(tmp_path.iterdir()) == []
    done = export(tmp_path, zones)
    assert not done.get("failed"), done["msg"]
    assert done["diff"] == predicted["diff"]
    assert actions(done) == {
        "config.yaml": "create",
        f"zones/{ZONE}.yaml": "create",
        "zones/xn--bcher-kva.test.yaml": "create",
    }
    assert export(tmp_path, zones)["msg"] == "octodns_export: 3 unchanged"
    config = tmp_path / "config.yaml"
    octodns("validate", config)
    octodns("sync", config, "--doit")
    # octoDNS' own file has what ours has, and the ownership records
    target = yaml.safe_load((tmp_path / "target" / f"{ZONE}.yaml").read_text(encoding="utf-8"))
    ours = yaml.safe_load((tmp_path / "zones" / f"{ZONE}.yaml").read_text(encoding="utf-8"))
    marks = {name: data for name, data in target.items() if name.startswith("_owner.")}
    count = sum(len(data) if isinstance(data, list) else 1 for data in ours.values())
    assert len(marks) == count == len(RECORD_SETS) + len(NOT_BY_UPDATE)
    assert {data["value"] for data in marks.values()} == {"fediversity.hosting:fediversity"}
    assert "_owner.aaaa._wildcard" in marks
    assert "No changes were planned" in octodns("sync", config)
    octodns("dump", config, "--output-dir", str(tmp_path / "dump"), f"{ZONE}.", "records")
    assert (tmp_path / "dump" / f"{ZONE}.yaml").exists()


def test_octodns_makes_the_records_that_dns_records_would_make(tmp_path: Path, knot: DnsServer) -> None:
    zones = [{"name": ZONE, "record_sets": RECORD_SETS, "purge": True}]
    # what dns_records writes beside the records of others: octoDNS leaves it alone
    others = run_module(
        "dns_records",
        {
            "server": knot.address,
            "port": knot.port,
            "tsig_name": knot.key,
            "tsig_secret": knot.secret,
            "zones": [
                {"name": ZONE, "owner": "others", "record_sets": [{"prefix": "o", "type": "TXT", "value": ["x"]}]}
            ],
        },
    )
    assert not others.get("failed"), others["msg"]
    before = knot.content(ZONE)
    assert {(f"_registry.{ZONE}.", "TXT"), (f"_owner.txt.o.{ZONE}.", "TXT")} <= set(before)
    settings = {
        "host": knot.address,
        "port": knot.port,
        "key_name": FULL_KEY,
        "key_secret": "env/OCTODNS_TEST_KEY",
        "key_algorithm": "hmac-sha256",
    }
    done = export(tmp_path, zones, provider={"class": "octodns_bind.Rfc2136Provider", "settings": settings})
    assert not done.get("failed"), done["msg"]
    octodns("sync", tmp_path / "config.yaml", "--doit")
    content = knot.content(ZONE)
    assert len(content) == len(before) + 2 * len(RECORD_SETS)
    # nothing foreign has changed
    assert {place: content[place] for place in before} == before
    # what octoDNS made is ours in the eyes of dns_records, and as it would make it
    checked = run_module(
        "dns_records",
        {
            "server": knot.address,
            "port": knot.port,
            "tsig_name": knot.key,
            "tsig_secret": knot.secret,
            "zones": zones,
            "_ansible_check_mode": True,
        },
    )
    assert not checked.get("failed"), checked["msg"]
    assert {entry["action"] for entry in checked["results"]} == {"unchanged"}
    assert len(checked["results"]) == len(RECORD_SETS)
    # what is not listed any more goes, with its mark
    few = [{"name": ZONE, "record_sets": RECORD_SETS[1:]}]
    export(tmp_path, few, provider={"class": "octodns_bind.Rfc2136Provider", "settings": settings})
    octodns("sync", tmp_path / "config.yaml", "--doit")
    assert set(content) - set(knot.content(ZONE)) == {(f"{ZONE}.", "A"), (f"_owner.a.{ZONE}.", "TXT")}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"prefix": "k", "type": "SMIMEA", "value": ["3 0 0 aabb"]}, "SMIMEA"),
        ({"prefix": "bad", "type": "SRV", "value": ["1 2 3 a.fedi.test"]}, "invalid name for SRV"),
        ({"prefix": "k", "type": "TXT", "value": ["grün"]}, "non ASCII"),
        ({"prefix": "k", "type": "TXT", "value": ["a\\; b"]}, "escaped"),
        ({"prefix": "k", "type": "TXT", "value": ['a" "b']}, "no way to write"),
        ({"prefix": "x.sub", "type": "A", "value": ["192.0.2.1"]}, "managed subzone"),
        ({"prefix": "k", "type": "A", "value": ["192.0.2.300"]}, "no value of type A"),
        ({"prefix": "k", "type": "CNAME", "value": ["a.fedi.test", "b.fedi.test"]}, "one value"),
        ({"prefix": "", "type": "CNAME", "value": ["a.other.test"]}, "CNAME"),
        ({"prefix": "good", "type": "CNAME", "value": ["a.other.test"]}, "cannot stand beside"),
    ],
)
def test_what_octodns_cannot_have_is_refused_alone(tmp_path: Path, item: dict[str, Any], reason: str) -> None:
    good = [{"prefix": "other", "type": "A", "value": ["192.0.2.1"]}]
    beside = [{"prefix": "good", "type": "TXT", "value": ["x"]}] if item["prefix"] == "good" else []
    zones = [{"name": ZONE, "record_sets": [*good, *beside, item]}, {"name": f"sub.{ZONE}", "record_sets": []}]
    done = export(tmp_path, zones)
    failed = [entry for entry in done["results"] if entry["failed"]]
    assert done["failed"]
    assert reason in " ".join(entry["msg"] for entry in failed)
    assert len(failed) == 1 + len(beside)
    octodns("validate", tmp_path / "config.yaml")
    written = yaml.safe_load((tmp_path / "zones" / f"{ZONE}.yaml").read_text(encoding="utf-8"))
    assert written == {"other": {"ttl": 3600, "type": "A", "value": "192.0.2.1"}}


def test_a_record_set_that_becomes_wrong_is_not_deleted_by_octodns(tmp_path: Path) -> None:
    keep = {"prefix": "keep", "type": "A", "value": ["192.0.2.1"]}
    export(tmp_path, [{"name": ZONE, "record_sets": [keep, {"prefix": "go", "type": "A", "value": ["192.0.2.1"]}]}])
    done = export(tmp_path, [{"name": ZONE, "record_sets": [{**keep, "value": ["192.0.2.300"]}]}])
    assert actions(done) == {
        "config.yaml": "unchanged",
        f"keep.{ZONE} A": "refused",
        f"zones/{ZONE}.yaml": "update",
    }
    file = tmp_path / "zones" / f"{ZONE}.yaml"
    assert list(yaml.safe_load(file.read_text(encoding="utf-8"))) == ["keep"]
    # where not even the name is understood, nobody knows what would go
    before = file.read_bytes()
    done = export(tmp_path, [{"name": ZONE, "record_sets": [{**keep, "prefix": "a" * 64}]}])
    assert actions(done)[f"zones/{ZONE}.yaml"] == "refused"
    assert file.read_bytes() == before
    # a zone with a mistake beside its name keeps its file, but octoDNS is not told of it
    done = export(tmp_path, [{"name": ZONE, "owner": "two words", "record_sets": [keep]}])
    assert file.read_bytes() == before
    assert ZONE not in (tmp_path / "config.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("item", "file"),
    [
        # whatever its type was
        ({"prefix": "keep", "type": "AA", "value": ["192.0.2.1"]}, "update"),
        # the zone's name was left out
        ({"record": "keep", "type": "A", "value": ["192.0.2.1"]}, "refused"),
        ({"prefix": f"keep.{ZONE}", "type": "A", "value": ["192.0.2.1"]}, "update"),
    ],
)
def test_what_a_malformed_item_may_mean_is_not_deleted_by_octodns(tmp_path: Path, item: Any, file: str) -> None:
    keep = {"prefix": "keep", "type": "A", "value": ["192.0.2.1"]}
    export(tmp_path, [{"name": ZONE, "record_sets": [keep, {"prefix": "go", "type": "A", "value": ["192.0.2.1"]}]}])
    done = export(tmp_path, [{"name": ZONE, "record_sets": [item]}])
    assert actions(done)[f"zones/{ZONE}.yaml"] == file
    left = yaml.safe_load((tmp_path / "zones" / f"{ZONE}.yaml").read_text(encoding="utf-8"))
    assert "keep" in left


def test_a_zone_whose_name_is_too_long_for_a_file_is_refused_alone(tmp_path: Path) -> None:
    long = ".".join(["x" * 62] * 4)
    item = {"prefix": "a", "type": "A", "value": ["192.0.2.1"]}
    done = export(tmp_path, [{"name": name, "record_sets": [item]} for name in (long, ZONE)])
    found = actions(done)
    assert found[f"zones/{long}.yaml"] == "refused"
    assert (found["config.yaml"], found[f"zones/{ZONE}.yaml"]) == ("create", "create")


def test_files_of_others_stay_and_ours_go(tmp_path: Path) -> None:
    item = {"prefix": "a", "type": "A", "value": ["192.0.2.1"]}
    export(tmp_path, [{"name": name, "record_sets": [item]} for name in (ZONE, "old.test")])
    theirs = tmp_path / "zones" / "theirs.test.yaml"
    theirs.write_text("---\n{}\n", encoding="utf-8")
    done = export(tmp_path, [{"name": ZONE, "record_sets": [item]}, {"name": "theirs.test", "record_sets": [item]}])
    assert actions(done) == {
        "config.yaml": "update",
        f"zones/{ZONE}.yaml": "unchanged",
        "zones/old.test.yaml": "delete",
        "zones/theirs.test.yaml": "refused",
    }
    assert theirs.read_text(encoding="utf-8") == "---\n{}\n"
    assert not (tmp_path / "zones" / "old.test.yaml").exists()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.name.startswith(".")) == []


def test_marks_differ_by_zone(tmp_path: Path) -> None:
    item = {"prefix": "a", "type": "A", "value": ["192.0.2.1"]}
    export(
        tmp_path,
        [
            {"name": ZONE, "owner": "one", "record_sets": [item]},
            {"name": "b.test", "owner": "two", "record_sets": [item]},
        ],
        sync_max_delete_percent=5,
    )
    octodns("sync", tmp_path / "config.yaml", "--doit")
    for zone, owner in ((ZONE, "one"), ("b.test", "two")):
        made = yaml.safe_load((tmp_path / "target" / f"{zone}.yaml").read_text(encoding="utf-8"))
        assert made["_owner.a.a"]["value"] == f"fediversity.hosting:{owner}"
    config = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert config["zones"][f"{ZONE}."]["delete_pcent_threshold"] == 0.05


@pytest.mark.parametrize(
    "settings",
    [
        {"key_secret": "c2VudGluZWw="},
        {"token": "env/NAME/sentinel"},
        {"api_key": 12345},
        {"nested": {"password": "sentinel"}},
        {"list": [{"consumer_key": "sentinel"}]},
        {"host": "env/A B"},
    ],
)
def test_secrets_are_references(tmp_path: Path, settings: dict[str, Any]) -> None:
    provider = {"class": "octodns_bind.Rfc2136Provider", "settings": settings}
    done = export(tmp_path, [], provider=provider)
    shown = json.dumps({key: value for key, value in done.items() if key != "invocation"})
    assert done["failed"]
    assert "environment" in done["msg"]
    assert "sentinel" not in shown
    assert "c2VudGluZWw" not in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "provider",
    [
        {"class": "os.system; x"},
        {"class": "a.b", "name": "records"},
        {"class": "a.b", "name": "x y"},
        {"class": "a.b", "settings": {"class": "c.d"}},
    ],
)
def test_malformed_providers_are_refused(tmp_path: Path, provider: dict[str, Any]) -> None:
    assert export(tmp_path, [], provider=provider)["failed"]
    assert list(tmp_path.iterdir()) == []


def test_record_sets_find_their_zones(tmp_path: Path) -> None:
    def records(**values: str) -> list[dict[str, Any]]:
        return [{"record": f"{name}.{ZONE}", "type": "A", "value": [value]} for name, value in values.items()]

    zones = [{"name": ZONE, "records": "lines 60 A 192.0.2.9"}, {"name": f"sub.{ZONE}"}]
    done = export(tmp_path, zones, record_sets=records(a="192.0.2.1", **{"b.sub": "192.0.2.2"}))
    assert not done.get("failed"), done["msg"]
    files = {
        zone: yaml.safe_load((tmp_path / "zones" / f"{zone}.yaml").read_text("utf-8")) for zone in (ZONE, f"sub.{ZONE}")
    }
    assert {zone: list(content) for zone, content in files.items()} == {ZONE: ["a", "lines"], f"sub.{ZONE}": ["b"]}
    # one that becomes wrong stays, one that is in no zone is refused
    wrong = [*records(a="192.0.2.300"), {"record": "a.elsewhere.test", "type": "A", "value": ["192.0.2.1"]}]
    done = export(tmp_path, zones, record_sets=wrong)
    assert {name: action for name, action in actions(done).items() if action == "refused"} == {
        f"a.{ZONE} A": "refused",
        "a.elsewhere.test A": "refused",
    }
    content = yaml.safe_load((tmp_path / "zones" / f"{ZONE}.yaml").read_text(encoding="utf-8"))
    assert content["a"]["value"] == "192.0.2.1"


def test_a_directory_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "zones").write_text("a file", encoding="utf-8")
    done = export(tmp_path, [{"name": ZONE, "record_sets": []}])
    assert (done["failed"], done["changed"]) == (True, False)
    assert str(tmp_path / "zones") in done["msg"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text('ab;\\" ü\n', max_size=12) | st.text('a;" ', min_size=250, max_size=600), min_size=1, max_size=3
    )
)
def test_octodns_reads_every_text_as_it_was_written_or_it_is_refused(tmp_path: Path, texts: list[str]) -> None:
    option = {"name": ZONE, "record_sets": [{**RECORD_SET, "value": texts}]}
    ((export_of_zone,), _refused) = read_zones([{"owner": "fediversity", **option}], [])
    (item,) = export_of_zone.items
    if export_of_zone.zone is None or not isinstance(item, DesiredRecordSet):
        return
    document = zone_document(export_of_zone.zone, [item], [], "")
    (tmp_path / f"{ZONE}.yaml").write_text(document.text, encoding="utf-8")
    zone = Zone(f"{ZONE}.", [])
    YamlProvider("records", str(tmp_path), escaped_semicolons=True).populate(zone)
    read = {
        b"".join(dns.rdata.from_text("IN", "TXT", text).strings)  # type: ignore[attr-defined]
        for record in zone.records
        for text in record.to_rrset().rdatas
    }
    assert read == (set() if document.errors else set(values.meaning("TXT", item.values)))
