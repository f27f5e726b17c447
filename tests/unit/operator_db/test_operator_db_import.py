# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import NotFound
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import Application
from ansible_collections.fediversity.hosting.plugins.plugin_utils.documents import load_yaml
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.addresses import Pool, parse_pool
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.importer import (
    import_operators,
    preview_import,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import Resource
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import (
    load_fleet,
    record_deployment,
    record_machine,
    record_resources,
    record_vm,
)
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

Write = Callable[[str], Path]
Catalogue = dict[str, Application]
COUNTS = {"created": 0, "updated": 0, "unchanged": 0, "unlisted": 0}


def document(lab: Path) -> Any:
    return yaml.safe_load(lab.read_text(encoding="utf-8"))


def test_the_lab_is_imported_once(empty: Engine, lab: Path, catalogue: Catalogue) -> None:
    first = import_operators(empty, lab, catalogue)
    assert (first.changed, first.counts) == (True, COUNTS | {"created": 19})
    fleet = load_fleet(empty)
    again = import_operators(empty, lab, catalogue)
    assert (again.changed, again.counts) == (False, COUNTS | {"unchanged": 19})
    assert again.before == again.after == {kind: {} for kind in first.after}
    assert load_fleet(empty) == fleet


def test_hostile_text_is_stored_as_it_is(empty: Engine, lab: Path, catalogue: Catalogue) -> None:
    import_operators(empty, lab, catalogue)
    carol = document(lab)["operators"][2]
    fleet = load_fleet(empty)
    for part in ("{{ lookup('pipe','id') }}", "'' ${x} ''", '"', "\n", "🦣"):
        assert part in fleet.operators["carol"].display_name
    assert fleet.operators["carol"].display_name == carol["display_name"]
    assert fleet.instances["carol_photos_pixelfed"].settings == (carol["deployments"][0]["applications"][0]["settings"])


def test_a_preview_says_what_the_import_does_and_writes_nothing(
    empty: Engine, lab: Path, catalogue: Catalogue, operators: Write
) -> None:
    assert preview_import(empty, lab, catalogue) == import_operators(empty, lab, catalogue)
    changed = document(lab)
    changed["operators"][0]["display_name"] = "Alice & sons"
    changed["machines"].append(changed["machines"][0] | {"name": "vm-new"})
    path = operators(json.dumps(changed))
    before = load_fleet(empty)
    preview = preview_import(empty, path, catalogue)
    assert load_fleet(empty) == before
    assert preview.counts == COUNTS | {"created": 1, "updated": 1, "unchanged": 18}
    assert preview.before["operators"] == {"alice": {"display_name": "Alice's bakery", "contact": "alice@example.org"}}
    assert preview.after["operators"] == {"alice": {"display_name": "Alice & sons", "contact": "alice@example.org"}}
    assert preview.before["machines"] == {}
    assert preview.after["machines"]["vm-new"]["address"] == "10.99.1.13"
    assert preview == import_operators(empty, path, catalogue)


def test_what_the_file_does_not_mention_stays(empty: Engine, lab: Path, catalogue: Catalogue, operators: Write) -> None:
    import_operators(empty, lab, catalogue)
    before = load_fleet(empty)
    shorter = document(lab)
    del shorter["operators"][1]["deployments"][1], shorter["operators"][3], shorter["machines"][2]
    imported = import_operators(empty, operators(json.dumps(shorter)), catalogue)
    assert not imported.changed
    assert imported.unlisted == {
        "machines": ("vm-archive",),
        "operators": ("dora",),
        "deployments": ("bob_archive", "dora_gallery"),
        "instances": ("bob_archive_mastodon", "dora_gallery_pixelfed"),
    }
    assert load_fleet(empty) == before


def test_rows_may_exchange_domains_machines_and_addresses(
    empty: Engine, lab: Path, catalogue: Catalogue, operators: Write
) -> None:
    start = document(lab)
    del start["operators"][3]["deployments"][0]["applications"][0]["settings"]["max_album_length"]
    import_operators(empty, operators(json.dumps(start)), catalogue)
    carol, dora = (start["operators"][number]["deployments"][0]["applications"][0] for number in (2, 3))
    for field in ("machine", "domain"):
        carol[field], dora[field] = dora[field], carol[field]
    start["machines"][0]["address"], start["machines"][1]["address"] = "10.99.1.11", "10.99.1.10"
    assert import_operators(empty, operators(json.dumps(start)), catalogue).counts["updated"] == 4
    fleet = load_fleet(empty)
    assert fleet.instances["carol_photos_pixelfed"].machine == "existing1"
    assert fleet.instances["dora_gallery_pixelfed"].domain == "photos.carol.fedi.test"
    assert fleet.machines["vm-mastodon"].address == "10.99.1.11"
    assert fleet.machines["vm-shared"].address == "10.99.1.10"


def test_an_allocated_address_stays(empty: Engine, lab: Path, catalogue: Catalogue, operators: Write) -> None:
    import_operators(empty, lab, catalogue)
    before = {name: machine.address for name, machine in load_fleet(empty).machines.items()}
    changed = document(lab)
    changed["machines"].reverse()
    changed["machines"].insert(0, changed["machines"][1] | {"name": "vm-first"})
    changed["environments"][0]["network"]["pool"] = "10.99.1.5-10.99.1.250"
    import_operators(empty, operators(json.dumps(changed)), catalogue)
    after = {name: machine.address for name, machine in load_fleet(empty).machines.items()}
    assert after == before | {"vm-first": "10.99.1.5"}


def test_one_and_true_are_different_options(empty: Engine, lab: Path, catalogue: Catalogue, operators: Write) -> None:
    options: dict[str, Any] = {"nixos_options": {"services": {"x": 1}}}
    wanted = document(lab)
    wanted["operators"][0]["deployments"][0]["applications"][0].update(options)
    import_operators(empty, operators(json.dumps(wanted)), catalogue)
    options["nixos_options"]["services"]["x"] = True
    assert import_operators(empty, operators(json.dumps(wanted)), catalogue).counts["updated"] == 1


def test_parallel_imports_agree(empty: Engine, lab: Path, catalogue: Catalogue) -> None:
    engines = [connect(empty.url.render_as_string(hide_password=False)) for _unused in range(3)]
    with ThreadPoolExecutor(3) as pool:
        imports = list(pool.map(lambda engine: import_operators(engine, lab, catalogue), engines))
    assert sorted(imported.counts["created"] for imported in imports) == [0, 0, 19]
    for engine in engines:
        engine.dispose()


def test_what_runs_record_survives_an_import(empty: Engine, lab: Path, catalogue: Catalogue) -> None:
    import_operators(empty, lab, catalogue)
    record_vm(empty, "vm-shared", vmid=101, node="pve1", incarnation="6499ede6")
    record_machine(empty, "vm-shared", state="running", system="/nix/store/a", generation=1)
    record_machine(empty, "vm-shared", state="rolled-back", message="the network was gone")
    record_deployment(empty, "carol", "photos", state="running")
    bucket = Resource("lab", "bucket", "carol--photos--pixelfed--media", {"id": "1"}, instance="carol_photos_pixelfed")
    record_resources(empty, [bucket, Resource("lab", "vm", "vm-shared", {"vmid": 101}, machine="vm-shared")])
    record_resources(empty, [Resource("lab", "vm", "vm-shared", {"vmid": 102}, machine="vm-shared")])
    import_operators(empty, lab, catalogue)
    fleet = load_fleet(empty)
    record = fleet.machines["vm-shared"].record
    assert (record.state, record.message, record.system, record.generation, record.vmid, record.node) == (
        ("rolled-back", "the network was gone", "/nix/store/a", 1, 101, "pve1")
    )
    assert str(record.updated_at).endswith("Z")
    assert fleet.deployments["carol_photos"].record.state == "running"
    assert fleet.resources == (bucket, Resource("lab", "vm", "vm-shared", {"vmid": 102}, machine="vm-shared"))


def test_unknown_rows_cannot_be_recorded(empty: Engine, lab: Path, catalogue: Catalogue) -> None:
    import_operators(empty, lab, catalogue)
    with pytest.raises(NotFound, match="machine 'vm-9' is not in the operator database"):
        record_machine(empty, "vm-9", state="running")
    with pytest.raises(NotFound, match="deployment alice_videos is not in the operator database"):
        record_deployment(empty, "alice", "videos", state="running")
    with pytest.raises(NotFound, match="instance 'x' is not in the operator database"):
        record_resources(empty, [Resource("lab", "bucket", "b", {}, instance="x")])


def test_one_environment_can_be_read_alone(empty: Engine, lab: Path, catalogue: Catalogue, operators: Write) -> None:
    two = document(lab)
    two["environments"].append(two["environments"][0] | {"name": "other", "zones": ["other.test"]})
    two["machines"].append({"name": "other1", "environment": "other", "runtime": "existing", "address": "10.99.0.20"})
    import_operators(empty, operators(json.dumps(two)), catalogue)
    assert list(load_fleet(empty, "other").machines) == ["other1"]
    assert load_fleet(empty, "other").instances == {}
    assert len(load_fleet(empty, "lab").instances) == 5
    with pytest.raises(NotFound) as caught:
        load_fleet(empty, "moon")
    assert str(caught.value) == "environment 'moon' is not in the operator database. Known are: lab, other"


ADDRESSES = st.integers(min_value=int(ip_address("10.0.0.0")), max_value=int(ip_address("10.0.0.40"))).map(ip_address)


@given(st.tuples(ADDRESSES, ADDRESSES).map(sorted), st.sets(ADDRESSES))
def test_the_lowest_free_address_is_chosen(ends: list[Any], taken: set[Any]) -> None:
    pool = parse_pool(f"{ends[0]}-{ends[1]}")
    assert pool == Pool(*ends)
    free = [ip_address(number) for number in range(int(ends[0]), int(ends[1]) + 1) if ip_address(number) not in taken]
    assert pool.lowest_free(taken) == (free[0] if free else None)


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.2-10.0.0.1", "10.0.0.1-::1", "a-b", ""])
def test_other_pools_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_pool(text)


# no control characters, halves of pairs and noncharacters
STORABLE = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"], include_characters="\t\n\r"))
# a YAML key on one line with its value has at most 1024 characters (YAML 1.2, 7.4.2); JSON escapes count too
KEYS = STORABLE.filter(lambda key: len(json.dumps(key)) <= 1024)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | STORABLE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inside for place in places(item, (*path, key)))]


@given(JSON)
def test_every_value_is_read_back_with_its_line(value: Any) -> None:
    read = load_yaml(json.dumps({"value": value}))
    assert read.data == {"value": value}
    assert set(read.lines) == set(places({"value": value}))


@given(st.lists(st.integers(), min_size=1, max_size=20))
def test_lines_are_those_of_the_text(numbers: list[int]) -> None:
    text = "".join(f"- name: {number}\n\n" for number in numbers)
    read = load_yaml(text)
    assert [read.line((index, "name")) for index in range(len(numbers))] == [2 * i + 1 for i in range(len(numbers))]
    assert read.line((0, "absent", 3)) == 1
