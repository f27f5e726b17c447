# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Defects that a review found, each by its reproduction; a mark goes when its defect is gone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Answer, Client, Transport
from conftest import Simulator
from proxmox_runs import WEB, run, vms, volumes

STOPPED = {**WEB, "power": "stopped"}
QCOW2 = {**WEB["disk"], "format": "qcow2"}
SAFE = {**STOPPED, "disk": QCOW2, "safety_snapshot": "risky"}
DATA = {"slot": "scsi1", "storage": "local", "size": 1, "format": "qcow2"}


@pytest.fixture
def client(simulator: Simulator) -> Client:
    found = simulator.client()
    return replace(found, sleep=lambda seconds: time.sleep(min(seconds, 0.02)))


def config(client: Client, vmid: int = 100) -> Mapping[str, Any]:
    answer: Mapping[str, Any] = client.get(f"/nodes/pve1/qemu/{vmid}/config")
    return answer


def through(client: Client, transport: Transport) -> Client:
    return replace(client, transport=transport)


@pytest.mark.parametrize(
    "wanted",
    [
        {"disks": [{"slot": "scsi1", "state": "absent"}]},
        {"disks": [{**DATA, "storage": "second", "move": True}]},
        {"template": True},
    ],
    ids=["delete", "move", "template"],
)
def test_a_risky_change_succeeds_with_a_safety_snapshot(client: Client, wanted: dict[str, Any]) -> None:
    client.post("/storage", storage="second", type="dir", path="/srv/second", content="images")
    run(client, {**SAFE, "disks": [DATA]})
    result = run(client, {**SAFE, **wanted})
    assert not result["failed"], result["msg"]


def test_a_change_that_was_made_is_not_rolled_back_because_it_cannot_be_read(client: Client) -> None:
    run(client, {**SAFE, "power": "started"})
    sent: list[str] = []

    def transport(method: str, path: str, params: Mapping[str, str]) -> Answer:
        if method != "GET":
            sent.append(path)
        elif path.endswith("/pending") and sent and sent[-1].endswith("/config"):
            raise Unreachable("no route", where="test")
        return client.transport(method, path, params)

    run(through(client, transport), {**SAFE, "power": "started", "disks": [DATA]})
    assert not [path for path in sent if path.endswith("/rollback")]


def test_a_refused_firewall_does_not_roll_the_disks_of_a_running_guest_back(client: Client) -> None:
    run(client, {**SAFE, "power": "started"})
    sent: list[str] = []

    def transport(method: str, path: str, params: Mapping[str, str]) -> Answer:
        if method != "GET":
            sent.append(path)
        if path.endswith("/firewall/options") and method == "PUT":
            return Answer(403, "Permission check failed (/vms/100, VM.Config.Network)")
        return client.transport(method, path, params)

    run(through(client, transport), {**SAFE, "power": "started", "disks": [DATA], "firewall": {"enabled": True}})
    assert not [path for path in sent if path.endswith("/rollback")]


def test_a_failed_rollback_does_not_hide_why_it_was_tried(client: Client) -> None:
    run(client, SAFE)

    def transport(method: str, path: str, params: Mapping[str, str]) -> Answer:
        if path.endswith("/resize"):
            return Answer(500, "storage 'local' is full")
        if path.endswith("/rollback"):
            return Answer(500, "VM is locked (backup)")
        return client.transport(method, path, params)

    poor = replace(through(client, transport), lock_timeout=0)
    assert "is full" in run(poor, {**SAFE, "machine": "q35", "disk": {**QCOW2, "size": 9}})["msg"]


def test_the_sight_of_one_guest_does_not_prove_the_sight_of_all(client: Client, simulator: Simulator) -> None:
    tasks.run(client, "POST", "/nodes/pve1/qemu", {"vmid": 105, "name": "foreign"}, budget=10)
    made = "VM.Allocate,VM.Config.Disk,VM.Config.CPU,VM.Config.Memory,VM.Config.Network,VM.Config.Options"
    made += ",VM.Config.HWType,VM.Config.Cloudinit,VM.PowerMgmt,Datastore.AllocateSpace,Datastore.Audit,SDN.Use"
    client.post("/access/roles", roleid="Maker", privs=made)
    client.post("/access/roles", roleid="Look", privs="VM.Audit")
    client.put("/access/acl", path="/", roles="Maker", tokens="fediversity@pve!blind")
    client.put("/access/acl", path="/vms/105", roles="Look,Maker", tokens="fediversity@pve!blind")
    blind = replace(simulator.client("fediversity@pve!blind"), sleep=client.sleep)
    for _time in range(2):
        run(blind, STOPPED)
    assert len(vms(client)) <= 2


def test_a_machine_that_another_token_is_just_making_is_not_made_again(client: Client) -> None:
    """Without Sys.Audit the task of the other token is not shown, and its VM has no tags until it ends."""
    making = {"type": "qemu", "id": "qemu/100", "vmid": 100, "node": "pve1", "status": "unknown", "lock": "create"}
    sent: list[str] = []

    def transport(method: str, path: str, params: Mapping[str, str]) -> Answer:
        if method == "POST":
            sent.append(path)
        answer = client.transport(method, path, params)
        if path == "/access/permissions":
            shown = {place: {"VM.Audit": 1} for place in ("/", "/vms")}
            return Answer(200, "", shown)
        return Answer(200, "", [*answer.data, making]) if path == "/cluster/resources" else answer

    run(through(client, transport), STOPPED)
    assert sent == []


def test_a_raw_key_does_not_allocate_a_disk_at_every_run(client: Client) -> None:
    run(client, STOPPED)
    for _time in range(3):
        run(client, {**STOPPED, "options": {"ide0": "local:1"}})
    assert len(volumes(client)) <= 3


def test_the_first_entry_of_a_raw_key_is_compared(client: Client) -> None:
    run(client, {**STOPPED, "options": {"virtiofs0": "data,cache=always"}})
    assert run(client, {**STOPPED, "options": {"virtiofs0": "home,cache=always"}})["changed"]


def test_a_template_with_the_tag_of_a_machine_is_not_deleted_for_it(client: Client) -> None:
    run(client, STOPPED)
    tasks.run(client, "POST", "/nodes/pve1/qemu/100/template", {}, budget=10)
    assert run(client, STOPPED)["failed"]
    assert run(client, {"name": "web", "state": "absent"})["failed"]


def test_an_id_that_somebody_else_has_by_now_is_not_deleted(client: Client) -> None:
    run(client, {**STOPPED, "vmid": 150})
    begun: list[str] = []

    def transport(method: str, path: str, params: Mapping[str, str]) -> Answer:
        if method != "GET" and not begun:
            begun.append(path)
            tasks.run(client, "DELETE", "/nodes/pve1/qemu/150", {"purge": True}, budget=10)
            tasks.run(
                client, "POST", "/nodes/pve1/qemu", {"vmid": 150, "name": "payroll", "scsi0": "local:1"}, budget=10
            )
        return client.transport(method, path, params)

    # what is done before takes its time
    run(through(client, transport), {**WEB, "name": "first"}, {"name": "web", "state": "absent"})
    assert config(client, 150)["name"] == "payroll"


def test_the_protection_stays_where_the_deletion_fails(client: Client) -> None:
    run(client, {**STOPPED, "name": "base", "vmid": 9000, "template": True, "protection": True})
    run(client, {"name": "copy", "clone": {"vmid": 9000}, "power": "stopped"})
    assert run(client, {"name": "base", "state": "absent", "template": True, "protection": False})["failed"]
    assert config(client, 9000)["protection"] == 1


def test_addresses_go_with_their_network_device(client: Client) -> None:
    run(client, {**STOPPED, "networks": [{"bridge": "vmbr0"}, {"bridge": "vmbr0", "addresses": ["10.5.0.1/24"]}]})
    run(client, STOPPED)
    assert "ipconfig1" not in config(client)


def test_no_trunks_takes_them_away(client: Client) -> None:
    run(client, {**STOPPED, "networks": [{"bridge": "vmbr0", "trunks": [1]}]})
    result = run(client, {**STOPPED, "networks": [{"bridge": "vmbr0", "trunks": []}]})
    assert not result["failed"], result["msg"]


def test_a_disk_does_not_take_the_place_of_the_cloud_init_drive(client: Client) -> None:
    result = run(client, {**STOPPED, "disks": [{"slot": "ide2", "storage": "local", "size": 1}]})
    assert result["failed"] or any("cloudinit" in str(text) for text in config(client).values())


@pytest.mark.parametrize(
    "wanted", [{"rollback": "nope"}, {"disks": [{"slot": "scsi1", "state": "absent"}]}], ids=["rollback", "protection"]
)
def test_check_mode_refuses_what_the_run_refuses(client: Client, wanted: dict[str, Any]) -> None:
    run(client, {**STOPPED, "disks": [DATA], "protection": True})
    assert run(client, {**STOPPED, **wanted})["failed"]
    assert run(client, {**STOPPED, **wanted}, check=True)["failed"]


def test_a_machine_type_that_the_server_pins_is_not_changed_again(client: Client) -> None:
    run(client, {**STOPPED, "machine": "q35", "os_type": "win11"})
    assert not run(client, {**STOPPED, "machine": "q35", "os_type": "win11"})["changed"]
