# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a failed change or deletion leaves behind, and that a recycled id is never touched."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Answer, Client, LostAnswer
from conftest import Simulator
from proxmox_runs import WEB, run, volumes

STOPPED = {**WEB, "power": "stopped", "disk": {**WEB["disk"], "format": "qcow2"}}
SAFE = {**STOPPED, "safety_snapshot": "risky"}
DATA = {"slot": "scsi1", "storage": "local", "size": 1, "format": "qcow2"}
VM = "/nodes/pve1/qemu/100"


@pytest.fixture
def client(simulator: Simulator) -> Client:
    found = simulator.client()
    return replace(found, sleep=lambda seconds: time.sleep(min(seconds, 0.02)))


def refusing(client: Client, method: str, path: str) -> Client:
    def transport(sent: str, where: str, params: Mapping[str, str]) -> Answer:
        if (sent, where) == (method, path):
            return Answer(500, "storage 'local' is full")
        return client.transport(sent, where, params)

    return replace(client, transport=transport)


def test_the_volume_of_a_change_that_was_undone_is_deleted(client: Client) -> None:
    run(client, SAFE)
    before = volumes(client)
    larger = {**SAFE["disk"], "size": 9}
    result = run(refusing(client, "PUT", f"{VM}/resize"), {**SAFE, "disk": larger, "disks": [DATA]})
    assert "is full; rolled back to the snapshot fediversity-" in result["msg"]
    assert sorted(volumes(client)) == sorted(before)
    assert not [key for key in client.get(f"{VM}/config") if key.startswith("unused") or key == "scsi1"]


def test_a_running_guest_is_not_rolled_back_but_told_the_way(client: Client) -> None:
    item = {**SAFE, "power": "started"}
    run(client, item)
    larger = {**SAFE["disk"], "size": 9}
    result = run(refusing(client, "PUT", f"{VM}/resize"), {**item, "disk": larger, "disks": [DATA]})
    name = next(row["name"] for row in client.get(f"{VM}/snapshot") if row["name"].startswith("fediversity-"))
    assert f"is full; the snapshot {name} is kept" in result["msg"]
    assert f"rollback: {name}" in result["msg"]
    assert "scsi1" in client.get(f"{VM}/config")
    assert client.get(f"{VM}/status/current")["status"] == "running"


def test_a_machine_with_snapshots_is_refused_as_a_template_before_anything_is_written(client: Client) -> None:
    run(client, {**STOPPED, "snapshots": [{"name": "before"}]})
    for check in (True, False):
        result = run(client, {**STOPPED, "template": True}, check=check)
        assert result["results"][0]["action"] == "refused"
        assert "Delete its snapshots first" in result["msg"]
    gone = run(client, {**STOPPED, "template": True, "snapshots": [{"name": "before", "state": "absent"}]})
    assert not gone["failed"], gone["msg"]


def test_a_disk_that_a_snapshot_holds_is_explained(client: Client) -> None:
    run(client, {**STOPPED, "disks": [DATA]})
    run(client, {**STOPPED, "snapshots": [{"name": "before"}]})
    result = run(client, {**STOPPED, "disks": [{"slot": "scsi1", "state": "absent"}]})
    assert "delete the snapshot first" in result["msg"]


def test_an_id_that_somebody_else_has_by_now_is_not_started(client: Client) -> None:
    run(client, {**STOPPED, "vmid": 150})
    begun: list[str] = []

    def transport(method: str, path: str, params: Mapping[str, str]) -> Answer:
        if method != "GET" and not begun:
            begun.append(path)
            tasks.run(client, "DELETE", "/nodes/pve1/qemu/150", {"purge": True}, budget=10)
            tasks.run(client, "POST", "/nodes/pve1/qemu", {"vmid": 150, "name": "payroll"}, budget=10)
        return client.transport(method, path, params)

    # it took so long to make the first machine that the second must be looked at again
    later = itertools.count(step=10)
    slow = replace(client, transport=transport, clock=lambda: float(next(later)))
    run(slow, {**STOPPED, "name": "first"}, {"name": "web", "power": "started"})
    assert client.get("/nodes/pve1/qemu/150/status/current")["status"] == "stopped"


def test_a_machine_stays_under_high_availability_where_its_deletion_fails(client: Client) -> None:
    run(client, {**WEB, "ha": {"state": "started", "max_restart": 3}})
    assert run(refusing(client, "DELETE", VM), {"name": "web", "state": "absent"})["failed"]
    resource = client.get("/cluster/ha/resources/vm:100")
    assert (resource["state"], resource["max_restart"]) == ("started", 3)


def test_a_rollback_whose_answer_is_lost_is_ordered_once(client: Client) -> None:
    run(client, {**STOPPED, "snapshots": [{"name": "before"}]})
    orders: list[str] = []

    def transport(method: str, path: str, params: Mapping[str, str]) -> Answer:
        answer = client.transport(method, path, params)
        if path.endswith("/rollback"):
            orders.append(path)
            raise LostAnswer("the connection broke")
        return answer

    result = run(replace(client, transport=transport), {**STOPPED, "rollback": "before"})
    assert (result["failed"], len(orders)) == (False, 1), result
