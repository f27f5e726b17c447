# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each feature of a virtual machine on the simulated cluster: check mode says it, a run does it, the next finds it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client
from conftest import Simulator
from proxmox_runs import WEB, change, run, vms, volumes

STOPPED = {**WEB, "power": "stopped"}
TEMPLATE = {**WEB, "name": "base", "vmid": 9000, "power": "stopped", "template": True}
CLONE = {**WEB, "name": "copy", "vmid": 200, "clone": {"vmid": 9000}, "disk": {"size": 8}}


@pytest.fixture
def client(simulator: Simulator) -> Client:
    """A client that does not wait long between two looks."""
    found = simulator.client()
    return replace(found, sleep=lambda seconds: time.sleep(min(seconds, 0.02)))


def config(client: Client, vmid: int, node: str = "pve1") -> Mapping[str, Any]:
    answer: Mapping[str, Any] = client.get(f"/nodes/{node}/qemu/{vmid}/config")
    return answer


def second_storage(client: Client, **fields: Any) -> None:
    client.post("/storage", storage="second", type="dir", path="/srv/second", content="images", **fields)


def test_a_clone_is_brought_to_its_desired_state_in_the_same_call(client: Client, simulator: Simulator) -> None:
    change(client, TEMPLATE)
    assert config(client, 9000)["template"] == 1
    simulator.requests()
    created = run(client, CLONE)
    sent = [request for request in simulator.requests() if "/tasks" not in request]
    assert created["results"][0]["action"] == "create", created
    assert sent == [
        "GET /cluster/resources",
        "GET /access/permissions",
        "GET /nodes/pve1/qemu/9000/pending",
        "POST /nodes/pve1/qemu/9000/clone",
        "PUT /nodes/pve1/qemu/200/config",
        "PUT /nodes/pve1/qemu/200/resize",
        "POST /nodes/pve1/qemu/200/status/start",
    ]
    again = run(client, CLONE)
    assert (again["changed"], again["results"][0]["status"]) == (False, "started"), again
    made = config(client, 200)
    assert (made["name"], made["tags"]) == ("copy", "fediversity;fediversity-machine-copy")
    assert made["description"] == WEB["description"]
    assert "size=8G" in made["scsi0"]
    # the template is still told from its copy
    assert run(client, TEMPLATE)["changed"] is False


def test_check_mode_of_a_clone_says_what_is_done(client: Client) -> None:
    change(client, TEMPLATE)
    result = change(client, {**CLONE, "vmid": None, "power": "stopped", "tags": ["x"]})
    assert result["diff"]["after"]["copy"]["clone"] == 9000
    assert result["results"][0]["status"] == "stopped"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"disk": {"size": 1}}, "VM copy, disk.size: the disk has 4G and cannot shrink to 1G"),
        ({"clone": {"vmid": 9000, "storage": "local"}}, "VM copy, clone.storage: a linked clone stays on the storage"),
        ({"clone": {"vmid": 9999}}, "VM copy, clone: no virtual machine 9999 can be seen"),
        ({"clone": {"vmid": 100}, "networks": [{"bridge": "no"}]}, "VM copy, clone: no virtual machine 100"),
    ],
)
def test_a_clone_that_cannot_be_is_refused_before_it_is_made(client: Client, fields: dict[str, Any], text: str) -> None:
    change(client, TEMPLATE)
    result = run(client, {**CLONE, **fields})
    assert (result["results"][0]["action"], result["results"][0]["msg"][: len(text)]) == ("refused", text)
    assert len(vms(client)) == 1


def test_a_full_clone_of_a_plain_machine(client: Client) -> None:
    second_storage(client)
    change(client, {**WEB, "vmid": 150})
    clone = {"vmid": 150, "full": True, "storage": "second", "format": "raw"}
    change(client, {"name": "copy", "clone": clone, "power": "stopped"})
    made = config(client, 100)
    assert made["scsi0"].startswith("second:100/")
    assert made["tags"] == "fediversity;fediversity-machine-copy"
    assert run(client, WEB)["changed"] is False


def test_disks_are_added_grown_moved_and_removed(client: Client) -> None:
    second_storage(client)
    data = {"slot": "scsi1", "storage": "local", "size": 2, "discard": True, "ssd": True}
    change(client, {**WEB, "disks": [data, {"slot": "virtio0", "storage": "second", "size": 1}]})
    first = config(client, 100)
    assert (first["scsi1"].split(",")[-1], first["virtio0"].split(",")[-1]) == (
        "ssd=1",
        "size=1G",
    ) or "size=2G" in first["scsi1"]
    grown = change(client, {**WEB, "disks": [{**data, "size": 3, "cache": "writeback"}]})
    assert grown["diff"]["after"]["web"] == {"disks": {"scsi1": {"size": 3 << 30, "cache": "writeback"}}}
    second = config(client, 100)
    assert second["scsi1"].split(",")[0] == first["scsi1"].split(",")[0]
    assert second["virtio0"] == first["virtio0"]
    stays = run(client, {**WEB, "disks": [{**data, "size": 3, "storage": "second"}]})
    assert stays["changed"] is False
    change(client, {**WEB, "disks": [{**data, "size": 3, "storage": "second", "move": True}]})
    assert config(client, 100)["scsi1"].startswith("second:100/")
    change(client, {**WEB, "disks": [{"slot": slot, "state": "absent"} for slot in ("scsi1", "virtio0")]})
    left = config(client, 100)
    assert not [key for key in left if key.startswith(("unused", "scsi1", "virtio"))]
    assert len(volumes(client)) == 2
    assert client.get("/nodes/pve1/storage/second/content", content="images") == []


def test_firmware_and_passthrough(client: Client) -> None:
    item = {
        **WEB,
        "power": "stopped",
        "bios": "ovmf",
        "machine": "q35",
        "efi_disk": {"storage": "local", "type": "4m", "pre_enrolled_keys": True},
        "tpm": {"storage": "local", "version": "v2.0"},
        "options": {"usb0": "spice", "keyboard": "de"},
    }
    change(client, item)
    change(client, {**item, "options": {"usb0": None, "keyboard": "fr"}})
    made = config(client, 100)
    assert ("usb0" in made, made["keyboard"], made["bios"]) == (False, "fr", "ovmf")


def test_hardware_options(client: Client) -> None:
    item = {
        **WEB,
        "power": "stopped",
        "sockets": 2,
        "cpu": "host",
        "cpu_limit": 1.5,
        "cpu_units": 200,
        "numa": True,
        "balloon": 256,
        "scsi_controller": "virtio-scsi-pci",
        "os_type": "l26",
        "vga": "serial0",
        "boot_order": ["scsi0", "net0"],
        "hotplug": ["network", "disk"],
        "protection": True,
        "startup": {"order": 2, "up": 10},
    }
    change(client, item)
    change(client, {**item, "cpu": "kvm64", "startup": {"up": 20}, "boot_order": ["scsi0"], "cpu_limit": 0.0})
    assert config(client, 100)["startup"] == "order=2,up=20"
    refused = run(client, {"name": "web", "state": "absent"})
    assert "VM web, protection: VM 100 is protected against deletion" in refused["msg"]
    assert len(vms(client)) == 1
    change(client, {"name": "web", "state": "absent", "protection": False})
    assert vms(client) == []


def test_power_states(client: Client) -> None:
    change(client, {**WEB, "power": "unmanaged"})
    for power in ("started", "paused", "started", "paused", "stopped", "paused", "stopped", "started"):
        result = change(client, {"name": "web", "power": power, "force_stop": True})
        assert result["results"][0]["status"] == power
    assert run(client, {**WEB, "power": "unmanaged"})["results"][0]["status"] == "started"


def test_a_reboot_takes_pending_changes_over_only_if_asked(client: Client) -> None:
    change(client, WEB)
    waiting = change(client, {**WEB, "memory": 1024})["results"][0]
    assert (waiting["pending"], waiting["reboot_required"]) == (["memory"], True)
    done = change(client, {**WEB, "memory": 1024, "reboot": "if_pending"})
    assert done["diff"]["after"] == {"web": {"pending": []}}
    assert (done["results"][0]["pending"], done["results"][0]["status"]) == ([], "started")
    at_once = change(client, {**WEB, "memory": 2048, "reboot": "if_pending"})["results"][0]
    assert at_once["pending"] == []


def test_firewall_is_up_before_the_first_start(client: Client, simulator: Simulator) -> None:
    rules = [{"name": "ssh", "type": "in", "action": "ACCEPT", "protocol": "tcp", "dport": "22"}]
    simulator.requests()
    change(client, {**WEB, "firewall": {"enabled": True, "policy_in": "DROP", "rules": rules}})
    sent = simulator.requests()
    created = sent.index("POST /nodes/pve1/qemu")
    started = sent.index("POST /nodes/pve1/qemu/100/status/start")
    assert created < sent.index("POST /nodes/pve1/qemu/100/firewall/rules") < started
    change(client, {**WEB, "firewall": {"enabled": True, "rules": []}})


def test_high_availability_starts_stops_and_goes_with_the_machine(client: Client) -> None:
    created = change(client, {**WEB, "ha": {"state": "started"}})["results"][0]
    assert created["status"] == "started"
    stopped = change(client, {**WEB, "power": "stopped", "ha": {"state": "stopped"}})["results"][0]
    assert stopped["status"] == "stopped"
    change(client, {**WEB, "ha": {"state": "started"}})
    change(client, {"name": "web", "state": "absent"})
    assert client.get("/cluster/ha/resources") == []


def test_placement_keeps_machines_apart_and_migrate_moves(client: Client) -> None:
    one = {**WEB, "node": None, "placement": {}}
    two = {**one, "name": "web2", "placement": {"apart_from": ["web"], "strict": True}}
    placed = {row["name"]: row["node"] for row in change(client, one, two)["results"]}
    assert set(placed.values()) == {"pve1", "pve2"}
    third = run(
        client, {**one, "name": "web3", "placement": {"nodes": ["pve1"], "apart_from": ["web", "web2"], "strict": True}}
    )
    assert "VM web3, placement: no node can take the machine" in third["msg"]
    other = "pve2" if placed["web"] == "pve1" else "pve1"
    assert run(client, {**WEB, "node": other})["changed"] is False
    moved = change(client, {**WEB, "node": other, "migrate": True})
    assert moved["diff"]["after"] == {"web": {"node": other}}
    assert moved["results"][0]["node"] == other


def test_snapshots_and_rollback(client: Client) -> None:
    change(client, {**WEB, "snapshots": [{"name": "before"}]})
    change(client, {**WEB, "memory": 1024, "power": "stopped"})
    result = run(client, {**WEB, "power": "stopped", "rollback": "before"})
    assert (result["changed"], result["failed"]) == (True, False), result
    assert config(client, 100)["memory"] == "512"
    change(client, {**WEB, "snapshots": [{"name": "before", "state": "absent"}]})


def test_a_safety_snapshot_is_taken_before_a_risky_change(client: Client) -> None:
    item = {**WEB, "safety_snapshot": "risky", "safety_snapshots_kept": 1}
    change(client, item)
    assert change(client, {**item, "memory": 1024})["results"][0]["snapshots"] == []
    first = run(client, {**item, "memory": 1024, "bios": "ovmf"})["results"][0]["snapshots"]
    assert len(first) == 1
    time.sleep(1.1)
    second = run(client, {**item, "memory": 1024, "bios": "seabios"})["results"][0]["snapshots"]
    kept = [row["name"] for row in client.get("/nodes/pve1/qemu/100/snapshot") if row["name"] != "current"]
    assert kept == second


def test_a_failed_risky_change_is_rolled_back(client: Client) -> None:
    item = {**WEB, "power": "stopped", "safety_snapshot": "risky"}
    change(client, item)
    before = config(client, 100)
    result = run(client, {**item, "options": {"hostpci0": "0000:99:00.0", "args": "-foo"}})
    assert "rolled back to the snapshot fediversity-" in result["msg"], result
    after = config(client, 100)
    assert {**after, "digest": "", "parent": "", "vmgenid": ""} == {**before, "digest": "", "parent": "", "vmgenid": ""}


def test_several_machines_at_the_same_time(client: Client, simulator: Simulator) -> None:
    items = [{**WEB, "name": f"web-{number}", "memory": 64} for number in range(8)]
    another = simulator.client

    def hasty() -> Client:
        return replace(another(), sleep=client.sleep)

    result = run(client, *items, parallel=4, another=hasty)
    assert result["failed"] is False, result["msg"]
    assert [row["name"] for row in result["results"]] == [item["name"] for item in items]
    assert len({row["vmid"] for row in result["results"]}) == 8
    assert run(client, *items, parallel=4, another=hasty)["changed"] is False


def test_ids_from_a_range(client: Client) -> None:
    client.post("/nodes/pve1/qemu", vmid=500, memory=64)
    result = run(client, WEB, {**WEB, "name": "web2"}, vmid_range=range(500, 503))
    assert [row["vmid"] for row in result["results"]] == [501, 502]
    full = run(client, {**WEB, "name": "web3"}, vmid_range=range(500, 503))
    assert "VM web3, vmid_range: all ids from 500 to 502 are taken" in full["msg"]


def test_only_power_needs_no_configuration(client: Client, simulator: Simulator) -> None:
    change(client, {**WEB, "power": "stopped"})
    simulator.requests()
    assert run(client, {"name": "web", "power": "stopped"})["changed"] is False
    assert not [request for request in simulator.requests() if request.endswith("/pending")]


def test_a_network_device_with_addresses_of_its_own(client: Client) -> None:
    second = {"bridge": "vmbr0", "mtu": 1400, "trunks": [7, 5], "addresses": ["10.98.0.5/24"], "gateway": "10.98.0.1"}
    change(client, {**WEB, "networks": [{"bridge": "vmbr0"}, second]})
    first = config(client, 100)
    assert first["ipconfig1"] == "ip=10.98.0.5/24,gw=10.98.0.1"
    change(client, {**WEB, "networks": [{"bridge": "vmbr0"}, {**second, "link_down": True, "trunks": [5]}]})
    assert config(client, 100)["net1"].split(",")[0] == first["net1"].split(",")[0]


def test_a_password_hash_is_sent_and_never_shown(client: Client) -> None:
    secret = "$6$salt$abcdefghijklmnop"
    result = change(client, {**WEB, "cloud_init": {**WEB["cloud_init"], "password_hash": secret}})
    assert config(client, 100)["cipassword"] == "**********"
    assert secret not in str(result)
    refused = run(client, {**WEB, "cloud_init": {"password_hash": "hunter2"}})
    assert "hunter2" not in str(refused)
    assert "VM web, cloud_init, password_hash: the value is no crypt hash" in refused["msg"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"cpu_limit": 0.1234567},
        {"options": {"ide0": "none,media=cdrom"}},
        {"options": {"rng0": "/dev/urandom,max_bytes=512", "localtime": 1}},
        {"networks": [{"bridge": "vmbr0", "trunks": [1, 5]}, {"bridge": "vmbr0", "addresses": ["10.5.0.1/24"]}]},
    ],
    ids=["cpu_limit", "cd", "raw", "networks"],
)
def test_what_is_set_is_not_set_again(client: Client, wanted: dict[str, Any]) -> None:
    change(client, STOPPED)
    change(client, {**STOPPED, **wanted})


def test_a_template_goes_only_as_one(client: Client) -> None:
    change(client, {**STOPPED, "template": True})
    assert run(client, {"name": "web", "state": "absent"})["failed"]
    assert not run(client, {"name": "web", "state": "absent", "template": True})["failed"]
    assert vms(client) == []
