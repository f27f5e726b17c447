# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies and moves: clones that race or fail, disks on other storages, virtual machines on other nodes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
from lab.proxmox.store import Timing
from proxmox_harness import QUICK, Simulator, Start

ONE, TWO = "/nodes/pve1/qemu", "/nodes/pve2/qemu"
IMPORT = "local:0,import-from=local:import/nixos.qcow2"


@pytest.fixture
def storages(simulator: Simulator) -> Simulator:
    """Beside `local`: `second` on every node, `shared` with the same volumes everywhere."""
    simulator.data("POST", "/storage", storage="second", type="dir", path="/var/lib/vz2", content="images")
    simulator.data("POST", "/storage", storage="shared", type="dir", path="/mnt/shared", content="images", shared=1)
    return simulator


def _volumes(simulator: Simulator, node: str, storage: str) -> list[str]:
    rows = simulator.data("GET", f"/nodes/{node}/storage/{storage}/content", content="images")
    return sorted(row["volid"] for row in rows)


def _log(simulator: Simulator, upid: str) -> list[str]:
    rows = simulator.data("GET", f"/nodes/{upid.split(':')[1]}/tasks/{quote(upid, safe='')}/log", limit=0)
    return [row["t"] for row in rows]


# --- clone -----------------------------------------------------------------------------------------------------------


def test_of_two_clones_with_one_id_one_fails_in_its_task_or_at_once(simulator: Simulator) -> None:
    for vmid in (100, 101):
        simulator.run("POST", ONE, vmid=vmid, scsi0=IMPORT)
    with ThreadPoolExecutor(2) as both:
        answers = list(both.map(lambda vmid: simulator.send("POST", f"{ONE}/{vmid}/clone", newid=200), (100, 101)))
    text = "unable to create VM 200: config file already exists"
    lock = "can't lock file '/var/lock/qemu-server/lock-200.conf' - got timeout"
    ends = [simulator.wait(answer.json()["data"]) if answer.ok else answer.reason for answer in answers]
    assert sorted(end == "OK" for end in ends) == [False, True], ends
    assert set(ends) - {"OK"} <= {text, lock}


def test_a_linked_clone_holds_its_base(simulator: Simulator) -> None:
    simulator.run("POST", ONE, vmid=100, scsi0="local:1", net0="virtio,bridge=vmbr0")
    assert simulator.run("POST", f"{ONE}/100/template") == "OK"
    assert simulator.run("POST", f"{ONE}/100/clone", newid=101) == "OK"
    base = "local:100/base-100-disk-0.raw"
    assert simulator.data("GET", f"{ONE}/101/config")["scsi0"] == f"{base}/101/vm-101-disk-0.qcow2,size=1G"
    upid = simulator.data("DELETE", f"/nodes/pve1/storage/local/content/{quote(base, safe='')}")
    assert simulator.wait(upid) == "base volume '100/base-100-disk-0.raw' is still in use by linked clones"
    assert simulator.run("DELETE", f"{ONE}/100") == f"base volume '{base}' is still in use by linked cloned"
    macs = {simulator.data("GET", f"{ONE}/{vmid}/config")["net0"] for vmid in (100, 101)}
    assert len(macs) == 2


def test_a_clone_waits_no_longer_than_its_own_patience_for_a_busy_source(start: Start) -> None:
    simulator = start(timing=Timing(**{**vars(QUICK), "image_copy": 30, "lock": 1}))
    importing = simulator.data("POST", ONE, vmid=100, scsi0=IMPORT)
    assert simulator.send("POST", f"{ONE}/100/clone", newid=101).reason == "VM is locked (create)"
    simulator.data("DELETE", f"/nodes/pve1/tasks/{quote(importing, safe='')}")
    assert simulator.send("GET", f"{ONE}/100/config").status_code == 500


def test_a_clone_may_go_to_another_node_from_shared_storage_only(storages: Simulator) -> None:
    storages.run("POST", ONE, vmid=100, scsi0="shared:1")
    storages.run("POST", ONE, vmid=101, scsi0="second:1")
    assert storages.run("POST", f"{ONE}/100/clone", newid=200, target="pve2") == "OK"
    assert storages.data("GET", f"{TWO}/200/config")["scsi0"] == "shared:200/vm-200-disk-0.raw,size=1G"
    refused = storages.send("POST", f"{ONE}/101/clone", newid=201, target="pve2")
    assert refused.reason == "can't clone VM to node 'pve2' (VM uses local storage)"


# --- move_disk -------------------------------------------------------------------------------------------------------


def test_a_disk_moves_and_its_source_stays_as_unused(storages: Simulator) -> None:
    storages.run("POST", ONE, vmid=100, scsi0="local:1,discard=on")
    assert storages.run("POST", f"{ONE}/100/move_disk", disk="scsi0", storage="second", format="qcow2") == "OK"
    config = storages.data("GET", f"{ONE}/100/config")
    assert config["scsi0"] == "second:100/vm-100-disk-0.qcow2,discard=on,size=1G"
    assert config["unused0"] == "local:100/vm-100-disk-0.raw"
    assert storages.run("POST", f"{ONE}/100/move_disk", disk="scsi0", storage="local", delete=1) == "OK"
    assert _volumes(storages, "pve1", "second") == []
    assert "unused1" not in storages.data("GET", f"{ONE}/100/config")


@pytest.mark.parametrize(
    ("params", "status", "reason"),
    [
        ({"disk": "scsi0", "storage": "local"}, 500, "you can't move to the same storage with same format"),
        ({"disk": "scsi5", "storage": "second"}, 500, "disk 'scsi5' does not exist"),
        ({"disk": "ide2", "storage": "second"}, 500, "you can't move a cdrom"),
        ({"disk": "scsi0", "storage": "nostore"}, 500, "storage 'nostore' does not exist"),
        (
            {"disk": "scsi0", "storage": "second", "digest": "0" * 40},
            500,
            "detected modified configuration - file changed by other user? Try again.",
        ),
        ({"disk": "scsi0"}, 400, "Parameter verification failed."),
    ],
)
def test_what_move_disk_refuses(storages: Simulator, params: dict[str, Any], status: int, reason: str) -> None:
    storages.run("POST", ONE, vmid=100, scsi0="local:1", ide2="none,media=cdrom")
    answer = storages.send("POST", f"{ONE}/100/move_disk", **params)
    assert (answer.status_code, answer.reason) == (status, reason)


def test_a_disk_is_given_to_another_virtual_machine(simulator: Simulator) -> None:
    simulator.run("POST", ONE, vmid=100, scsi0="local:1", scsi1="local:2")
    simulator.run("POST", ONE, vmid=101, scsi0="local:1")
    order = {"disk": "scsi1", "target-vmid": 101, "target-disk": "virtio3"}
    assert simulator.run("POST", f"{ONE}/100/move_disk", **order) == "OK"
    assert "scsi1" not in simulator.data("GET", f"{ONE}/100/config")
    assert simulator.data("GET", f"{ONE}/101/config")["virtio3"] == "local:101/vm-101-disk-1.raw,size=2G"


# --- migrate ---------------------------------------------------------------------------------------------------------


def test_a_stopped_virtual_machine_takes_its_disks_along(storages: Simulator) -> None:
    storages.run("POST", ONE, vmid=100, scsi0="second:1", ide2="local:cloudinit")
    found = storages.data("GET", f"{ONE}/100/migrate")
    assert (found["running"], found["allowed_nodes"]) == (0, ["pve2"])
    assert {row["volid"]: row["cdrom"] for row in found["local_disks"]} == {
        "second:100/vm-100-disk-0.raw": 0,
        "local:100/vm-100-cloudinit.qcow2": 1,
    }
    assert storages.run("POST", f"{ONE}/100/migrate", target="pve2") == "OK"
    assert _volumes(storages, "pve1", "second") == []
    assert _volumes(storages, "pve2", "second") == ["second:100/vm-100-disk-0.raw"]
    assert storages.data("GET", f"{TWO}/100/config")["scsi0"] == "second:100/vm-100-disk-0.raw,size=1G"


def test_a_running_one_moves_online_with_its_local_disks_only_when_told(storages: Simulator) -> None:
    storages.run("POST", ONE, vmid=100, scsi0="second:1")
    storages.run("POST", f"{ONE}/100/status/start")
    refused = storages.send("POST", f"{ONE}/100/migrate", target="pve2")
    assert refused.reason == "can't migrate running VM without --online"
    upid = storages.data("POST", f"{ONE}/100/migrate", target="pve2", online=1)
    assert storages.wait(upid) == "migration aborted"
    assert any("without with-local-disks option" in line for line in _log(storages, upid))
    assert "lock" not in storages.data("GET", f"{ONE}/100/config")
    order = {"target": "pve2", "online": 1, "with-local-disks": 1, "targetstorage": "local"}
    assert storages.run("POST", f"{ONE}/100/migrate", **order) == "OK"
    assert storages.data("GET", f"{TWO}/100/status/current")["status"] == "running"
    assert storages.data("GET", f"{TWO}/100/config")["scsi0"] == "local:100/vm-100-disk-0.raw,size=1G"


def test_shared_disks_stay_where_they_are(storages: Simulator) -> None:
    storages.run("POST", ONE, vmid=100, scsi0="shared:1")
    assert storages.data("GET", f"{ONE}/100/migrate")["local_disks"] == []
    storages.run("POST", f"{ONE}/100/status/start")
    assert storages.run("POST", f"{ONE}/100/migrate", target="pve2", online=1) == "OK"
    assert _volumes(storages, "pve1", "shared") == _volumes(storages, "pve2", "shared") != []


def test_a_device_of_the_node_ties_a_virtual_machine_to_it(simulator: Simulator) -> None:
    simulator.run("POST", ONE, vmid=100)
    assert simulator.as_root("PUT", f"{ONE}/100/config", hostpci0="0000:01:00.0").ok
    assert simulator.data("GET", f"{ONE}/100/migrate")["local_resources"] == ["hostpci0"]
    upid = simulator.data("POST", f"{ONE}/100/migrate", target="pve2")
    assert simulator.wait(upid) == "migration aborted"
    assert any("can't migrate VM which uses local devices: hostpci0" in line for line in _log(simulator, upid))


def test_a_disk_of_another_virtual_machine_does_not_move(simulator: Simulator) -> None:
    simulator.run("POST", ONE, vmid=101, scsi0="local:1")
    simulator.run("POST", ONE, vmid=100, scsi0="local:101/vm-101-disk-0.raw")
    upid = simulator.data("POST", f"{ONE}/100/migrate", target="pve2")
    assert simulator.wait(upid) == "migration aborted"
    assert any("owned by other VM (owner = VM 101)" in line for line in _log(simulator, upid))


def test_a_storage_that_the_other_node_lacks(simulator: Simulator) -> None:
    fields = {"storage": "only1", "type": "dir", "path": "/only", "content": "images", "nodes": "pve1"}
    simulator.data("POST", "/storage", **fields)
    simulator.run("POST", ONE, vmid=100, scsi0="only1:1")
    found = simulator.data("GET", f"{ONE}/100/migrate")
    assert found["not_allowed_nodes"] == {"pve2": {"unavailable_storages": ["only1"]}}
    refused = simulator.send("POST", f"{ONE}/100/migrate", target="pve2")
    assert refused.reason == "storage 'only1' is not available on node 'pve2'"
