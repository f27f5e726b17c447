# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots: taken, listed, rolled back and deleted, on stopped and running virtual machines."""

from __future__ import annotations

from typing import Any

import pytest
from proxmox_harness import Simulator

VM = "/nodes/pve1/qemu/100"


@pytest.fixture
def vm(simulator: Simulator) -> Simulator:
    """VM 100, stopped, with a disk that can be snapshotted."""
    assert simulator.run("POST", "/nodes/pve1/qemu", vmid=100, memory=64, scsi0="local:1,format=qcow2") == "OK"
    return simulator


def _config(simulator: Simulator) -> dict[str, Any]:
    return dict(simulator.data("GET", f"{VM}/config"))


def _names(simulator: Simulator) -> dict[str, Any]:
    return {row["name"]: row for row in simulator.data("GET", f"{VM}/snapshot")}


def test_a_snapshot_is_listed_before_the_present(vm: Simulator) -> None:
    assert vm.run("POST", f"{VM}/snapshot", snapname="before", description="as it was") == "OK"
    rows = _names(vm)
    assert set(rows) == {"before", "current"}
    assert (rows["before"]["description"], rows["before"]["vmstate"]) == ("as it was", 0)
    assert rows["before"]["snaptime"] > 0
    assert (rows["current"]["parent"], rows["current"]["running"]) == ("before", 0)
    assert rows["current"]["description"] == "You are here!"
    assert _config(vm)["parent"] == "before"
    assert vm.data("GET", f"{VM}/config", snapshot="before")["scsi0"] == "local:100/vm-100-disk-0.qcow2,size=1G"
    assert vm.data("GET", f"{VM}/snapshot/before/config")["memory"] == "64"


def test_a_rollback_brings_options_and_sizes_back_and_keeps_the_description(vm: Simulator) -> None:
    assert vm.run("POST", f"{VM}/snapshot", snapname="before") == "OK"
    vm.data("PUT", f"{VM}/config", memory=128, description="later", scsi1="local:1,format=qcow2")
    assert vm.run("PUT", f"{VM}/resize", disk="scsi0", size="+1G") == "OK"
    generation = _config(vm)["vmgenid"]
    assert vm.run("POST", f"{VM}/snapshot/before/rollback") == "OK"
    config = _config(vm)
    assert (config["memory"], config["description"], config["parent"]) == ("64", "later", "before")
    assert config["scsi0"].endswith("size=1G")
    assert "scsi1" not in config
    assert config["unused0"] == "local:100/vm-100-disk-1.qcow2"
    assert config["vmgenid"] != generation


def test_a_rollback_stops_the_virtual_machine_and_starts_it_when_asked(vm: Simulator) -> None:
    assert vm.run("POST", f"{VM}/snapshot", snapname="before") == "OK"
    vm.run("POST", f"{VM}/status/start")
    vm.data("PUT", f"{VM}/config", memory=128)
    assert vm.run("POST", f"{VM}/snapshot/before/rollback") == "OK"
    assert vm.data("GET", f"{VM}/status/current")["status"] == "stopped"
    assert [row for row in vm.data("GET", f"{VM}/pending") if "pending" in row] == []
    assert vm.run("POST", f"{VM}/snapshot/before/rollback", start=1) == "OK"
    assert vm.data("GET", f"{VM}/status/current")["status"] == "running"


def test_memory_is_saved_of_what_runs_and_brought_back(vm: Simulator) -> None:
    vm.run("POST", f"{VM}/status/start")
    assert vm.run("POST", f"{VM}/snapshot", snapname="live", vmstate=1) == "OK"
    assert _names(vm)["live"]["vmstate"] == 1
    state = vm.data("GET", f"{VM}/snapshot/live/config")["vmstate"]
    assert state == "local:100/vm-100-state-live.raw"
    vm.run("POST", f"{VM}/status/stop")
    assert vm.run("POST", f"{VM}/snapshot/live/rollback") == "OK"
    assert vm.data("GET", f"{VM}/status/current")["status"] == "running"
    assert not {"vmstate", "runningmachine", "runningcpu"} & set(_config(vm))
    assert vm.run("DELETE", f"{VM}/snapshot/live") == "OK"
    assert state not in [row["volid"] for row in vm.data("GET", "/nodes/pve1/storage/local/content")]


def test_a_detached_disk_cannot_be_deleted_while_a_snapshot_needs_it(vm: Simulator) -> None:
    vm.data("PUT", f"{VM}/config", scsi1="local:1,format=qcow2")
    assert vm.run("POST", f"{VM}/snapshot", snapname="both") == "OK"
    vm.data("PUT", f"{VM}/config", delete="scsi1")
    volid = "local:100/vm-100-disk-1.qcow2"
    assert _config(vm)["unused0"] == volid
    refused = vm.send("PUT", f"{VM}/config", delete="unused0")
    assert refused.reason == f"unable to delete '{volid}' - volume is still in use (snapshot?)"
    assert vm.run("DELETE", f"{VM}/snapshot/both") == "OK"
    assert "parent" not in _config(vm)
    vm.data("PUT", f"{VM}/unlink", idlist="unused0")
    assert volid not in [row["volid"] for row in vm.data("GET", "/nodes/pve1/storage/local/content")]


def test_deleting_the_middle_joins_its_neighbours(vm: Simulator) -> None:
    for name in ("a1", "b2", "c3"):
        assert vm.run("POST", f"{VM}/snapshot", snapname=name) == "OK"
    assert vm.run("DELETE", f"{VM}/snapshot/b2") == "OK"
    rows = _names(vm)
    assert (rows["c3"]["parent"], rows["current"]["parent"]) == ("a1", "c3")


@pytest.mark.parametrize(
    ("method", "path", "params", "status"),
    [
        ("POST", "snapshot", {"snapname": "before"}, "snapshot name 'before' already used"),
        ("DELETE", "snapshot/nosuch", {}, "snapshot 'nosuch' does not exist"),
        ("POST", "snapshot/nosuch/rollback", {}, "snapshot 'nosuch' does not exist"),
    ],
)
def test_what_fails_inside_the_task(vm: Simulator, method: str, path: str, params: dict[str, str], status: str) -> None:
    assert vm.run("POST", f"{VM}/snapshot", snapname="before") == "OK"
    assert vm.run(method, f"{VM}/{path}", **params) == status


@pytest.mark.parametrize(
    ("method", "path", "params", "reason"),
    [
        ("POST", "snapshot", {"snapname": "current"}, "unable to use snapshot name 'current' (reserved name)"),
        ("GET", "config", {"snapshot": "nosuch"}, "snapshot 'nosuch' does not exist"),
        ("PUT", "snapshot/nosuch/config", {"description": "x"}, "snapshot 'nosuch' does not exist"),
    ],
)
def test_what_is_refused_at_once(vm: Simulator, method: str, path: str, params: dict[str, str], reason: str) -> None:
    assert vm.send(method, f"{VM}/{path}", **params).reason == reason


def test_a_raw_disk_and_a_template_have_no_snapshots(vm: Simulator) -> None:
    vm.data("PUT", f"{VM}/config", scsi1="local:1,format=raw")
    assert vm.run("POST", f"{VM}/snapshot", snapname="s1") == "snapshot feature is not available"
    assert vm.data("GET", f"{VM}/feature", feature="snapshot")["hasFeature"] == 0
    vm.data("PUT", f"{VM}/config", delete="scsi1")
    assert vm.run("POST", f"{VM}/snapshot", snapname="s1") == "OK"
    refused = vm.send("POST", f"{VM}/template")
    assert refused.reason == "unable to create template, because VM contains snapshots"
    assert vm.run("DELETE", f"{VM}/snapshot/s1") == "OK"
    assert vm.run("POST", f"{VM}/template") == "OK"
    assert vm.run("POST", f"{VM}/snapshot", snapname="s1") == "you can't take a snapshot if it's a template"


def test_a_copy_of_a_snapshot_has_its_options(vm: Simulator) -> None:
    assert vm.run("POST", f"{VM}/snapshot", snapname="before") == "OK"
    vm.data("PUT", f"{VM}/config", memory=128)
    assert vm.run("POST", f"{VM}/clone", newid=101, snapname="before") == "OK"
    config = vm.data("GET", "/nodes/pve1/qemu/101/config")
    assert config["memory"] == "64"
    assert not {"parent", "snaptime"} & set(config)
