# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of a VM: the desired ones, those before a risky change, and the way back."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, InvalidInput, NotFound
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.check import Check
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Place
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.snapshots import (
    NAME,
    SNAPSHOTS,
    Snapshot,
    SnapshotDesired,
    parse,
    prune,
    roll_back,
    safety_name,
    surplus,
    take,
)
from hypothesis import given
from hypothesis import strategies as st
from proxmox_script import Exchange, Script, done, task_path, upid

PLACE = Place("web", 100, "pve1", running=True)
PATH = "/nodes/pve1/qemu/100/snapshot"
CURRENT = {"name": "current", "description": "You are here!", "running": 1, "digest": "0" * 40, "parent": "bb"}
ROWS = [
    CURRENT,
    {"name": "bb", "description": "second\n", "snaptime": 20, "parent": "aa"},
    {"name": "aa", "description": "", "snaptime": 10, "vmstate": 1},
    {"name": "fediversity-20260101000000", "description": "", "snaptime": 5},
]


def desired(*items: dict[str, Any]) -> tuple[SnapshotDesired, ...]:
    return SNAPSHOTS.desired(Check("VM web", {"snapshots": list(items)}), list(items))


def act(kind: str, method: str, path: str, params: dict[str, str], exit_status: str = "OK") -> list[Exchange]:
    exchanges = [Exchange(method, PATH + path, upid(kind), params), done(kind, exit_status=exit_status)]
    if exit_status != "OK":
        exchanges.append(Exchange("GET", f"{task_path(kind)}/log", [], None))
    return exchanges


def bring(wanted: tuple[SnapshotDesired, ...], *exchanges: Exchange) -> tuple[Any, Any]:
    script = Script([Exchange("GET", PATH, ROWS, {}), *exchanges])
    client = script.client()
    actual = SNAPSHOTS.read(client, PLACE, wanted)
    before, after = SNAPSHOTS.compare(wanted, actual)
    if before != after:
        SNAPSHOTS.apply(client, PLACE, wanted, actual, 60)
    script.finished()
    return before, after


def test_the_present_state_is_no_snapshot_and_the_oldest_comes_first() -> None:
    assert parse(ROWS) == (
        Snapshot("fediversity-20260101000000", "", 5),
        Snapshot("aa", "", 10),
        Snapshot("bb", "second", 20),
    )


def test_missing_ones_are_taken_and_named_ones_deleted_and_others_left() -> None:
    before, after = bring(
        desired(
            {"name": "new", "description": "x", "vmstate": True}, {"name": "aa", "state": "absent"}, {"name": "bb"}
        ),
        *act("qmdelsnapshot", "DELETE", "/aa", {}),
        *act("qmsnapshot", "POST", "", {"snapname": "new", "description": "x", "vmstate": "1"}),
    )
    assert before == {"aa": "", "bb": "second"}
    assert after == {"new": "x", "bb": "second"}


def test_a_description_is_changed_in_place() -> None:
    bring(
        desired({"name": "bb", "description": "third"}),
        Exchange("PUT", f"{PATH}/bb/config", None, {"description": "third"}),
    )


@pytest.mark.parametrize(
    "item",
    [
        {"name": "bb"},
        {"name": "bb", "description": "second"},
        {"name": "bb", "description": "second\n", "vmstate": True},
        {"name": "gone", "state": "absent"},
    ],
)
def test_nothing_is_sent_for_what_is_there(item: dict[str, Any]) -> None:
    before, after = bring(desired(item))
    assert before == after


def test_a_new_machine_has_none() -> None:
    assert SNAPSHOTS.compare(desired({"name": "new"}, {"name": "old", "state": "absent"}), None) == ({}, {"new": ""})


@pytest.mark.parametrize("name", ["current", "pending", "Pending", "1a", "a", "a b", "a.b", "a" * 41, "-a"])
def test_names_that_the_server_refuses(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        desired({"name": name})
    assert caught.value.where == "VM web, snapshots[0], name"


def test_a_name_stands_for_one_snapshot() -> None:
    with pytest.raises(InvalidInput, match="every name once"):
        desired({"name": "ab"}, {"name": "ab", "state": "absent"})


@given(st.integers(0, 4_000_000_000), st.integers(1, 1000))
def test_safety_names_sort_by_time_and_are_allowed(now: int, later: int) -> None:
    assert NAME.match(safety_name(now))
    assert safety_name(now) < safety_name(now + later)


def test_safety_name_is_in_universal_time() -> None:
    assert safety_name(1_795_214_143) == "fediversity-20261120223543"


@given(
    st.lists(st.integers(0, 2_000_000_000).map(safety_name), unique=True, max_size=6),
    st.lists(
        st.sampled_from(["before-upgrade", "fediversity", "fediversity-1", "xfediversity-20260101000000"]), unique=True
    ),
    st.integers(0, 6),
)
def test_only_the_oldest_of_ours_are_surplus(ours: list[str], foreign: list[str], kept: int) -> None:
    gone = surplus([Snapshot(name) for name in [*foreign, *ours]], kept)
    assert not set(gone) & set(foreign)
    assert sorted(ours)[len(gone) :] == sorted(set(ours) - set(gone))
    assert len(ours) - len(gone) == min(kept, len(ours))


def test_pruning_deletes_the_surplus() -> None:
    rows = [CURRENT, *({"name": f"fediversity-2026010100000{n}", "snaptime": n} for n in range(3)), {"name": "mine"}]
    script = Script(
        [
            Exchange("GET", PATH, rows, {}),
            *act("qmdelsnapshot", "DELETE", "/fediversity-20260101000000", {}),
            *act("qmdelsnapshot", "DELETE", "/fediversity-20260101000001", {}, "snapshot 'x' does not exist"),
        ]
    )
    prune(script.client(), PLACE, 1, 60)
    script.finished()


@pytest.mark.parametrize(("start", "params"), [(True, {"start": "1"}), (False, {})])
def test_the_way_back(start: bool, params: dict[str, str]) -> None:
    script = Script(act("qmrollback", "POST", "/b/rollback", params))
    roll_back(script.client(), PLACE, "b", 60, start=start)
    script.finished()


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        ("snapshot feature is not available", "use qcow2"),
        ("you can't take a snapshot if it's a template", "A template takes no snapshots"),
    ],
)
def test_what_the_server_cannot_do_is_explained(status: str, hint: str) -> None:
    script = Script(act("qmsnapshot", "POST", "", {"snapname": "new"}, status))
    with pytest.raises(BackendError, match=re.escape(status)) as caught:
        take(script.client(), PLACE, "new", 60)
    assert caught.value.where == "VM web, snapshots"
    assert hint in caught.value.hint


def test_a_rollback_to_nothing_is_told() -> None:
    script = Script(act("qmrollback", "POST", "/nope/rollback", {}, "snapshot 'nope' does not exist"))
    with pytest.raises(NotFound, match="nope"):
        roll_back(script.client(), PLACE, "nope", 60)
    old = Script(act("qmrollback", "POST", "/a/rollback", {}, "can't rollback, 'a' is not most recent snapshot on 'x'"))
    with pytest.raises(BackendError) as caught:
        roll_back(old.client(), PLACE, "a", 60)
    assert "newest" in caught.value.hint


def test_on_the_simulator(simulator: Any) -> None:
    client = simulator.client()
    tasks.wait(client, client.post("/nodes/pve1/qemu", vmid=100, name="web", scsi0="local:1,format=qcow2"), budget=30)
    wanted = desired({"name": "first", "description": "one"}, {"name": "second"})
    SNAPSHOTS.apply(client, PLACE, wanted, SNAPSHOTS.read(client, PLACE, wanted), 30)
    wanted = desired({"name": "first", "description": "changed"}, {"name": "second", "state": "absent"})
    SNAPSHOTS.apply(client, PLACE, wanted, SNAPSHOTS.read(client, PLACE, wanted), 30)
    before, after = SNAPSHOTS.compare(wanted, SNAPSHOTS.read(client, PLACE, wanted))
    assert before == after == {"first": "changed"}
    for second in range(3):
        take(client, PLACE, safety_name(second), 30)
    prune(client, PLACE, 1, 30)
    client.put("/nodes/pve1/qemu/100/config", cores=4)
    roll_back(client, PLACE, "first", 30, start=True)
    assert {one.name for one in SNAPSHOTS.read(client, PLACE, wanted)} == {"first", "fediversity-19700101000002"}
    assert "cores" not in client.get("/nodes/pve1/qemu/100/config")
    assert client.get("/nodes/pve1/qemu/100/status/current")["status"] == "running"


def test_a_disk_without_snapshots_is_explained_on_the_simulator(simulator: Any) -> None:
    client = simulator.client()
    tasks.wait(client, client.post("/nodes/pve1/qemu", vmid=100, scsi0="local:1,format=raw"), budget=30)
    with pytest.raises(BackendError, match="snapshot feature is not available") as caught:
        take(client, PLACE, "new", 30)
    assert "qcow2" in caught.value.hint
