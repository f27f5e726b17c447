# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many requests the jobs need, by the access log of the simulator; looks at tasks apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Answer, Client
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.proxmox.faults import Rule
from proxmox_processes import Modules, client_of, make_template
from proxmox_script import IDENTITY, upid
from support.simulated_proxmox import IMAGE, NODES, QUICK, Cluster, Loop, served

TEMPLATE = 900
FLEET = 226


def machine(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "name": f"vm-{number}",
        "vmid": 101 + number,
        "node": "pve1",
        "cores": 2,
        "memory": 512,
        "disk": {"storage": "local", "import_from": IMAGE},
        "networks": [{"bridge": "vmbr0"}],
        "cloud_init": {"user": "root", "addresses": [f"10.99.1.{number + 1}/16"], "gateway": "10.99.0.1"},
        **fields,
    }


@dataclass(frozen=True)
class Counter:
    cluster: Cluster
    modules: Modules

    def run(self, module: str, **arguments: Any) -> Any:
        return self.modules.run(module, {**self.cluster.arguments(), **arguments})

    def make(self, *items: dict[str, Any]) -> None:
        result = self.run("proxmox_vms", vms=list(items))
        assert not result.get("failed"), result["msg"]

    def count(self, module: str, **arguments: Any) -> tuple[list[str], Any]:
        """The requests of one run, and its result."""
        self.cluster.requests()
        result = self.run(module, **arguments)
        return [request for request in self.cluster.requests() if "/tasks" not in request], result


@pytest.fixture
def counter(loop: Loop, modules: Modules) -> Iterator[Counter]:
    """With a list that is never late: these are the requests of a cluster that nobody has just changed."""
    with served(loop, timing=replace(QUICK, statistics=0)) as cluster:
        yield Counter(cluster, modules)


@pytest.mark.parametrize(
    ("fields", "most"),
    [({"pool": "op1"}, 4), ({"pool": "op1", "vmid": None}, 5), ({}, 5), ({"vmid": None}, 6)],
    ids=["pool", "pool, next id", "no pool", "no pool, next id"],
)
def test_create_from_image_with_cloud_init_and_start(counter: Counter, fields: dict[str, Any], most: int) -> None:
    client = client_of(counter.cluster)
    client.post("/pools", poolid="op1")
    client.post("/nodes/pve1/qemu", vmid=800, name="neighbour", pool=fields.get("pool"))
    sent, result = counter.count("proxmox_vms", vms=[machine(0, **fields)])
    assert (result.get("failed"), result["results"][0]["status"]) == (False, "started"), result
    assert len(sent) <= most, sent
    assert sum(request.startswith("POST") for request in sent) == 1


def test_create_in_a_range_of_ids(counter: Counter) -> None:
    client = client_of(counter.cluster)
    client.post("/pools", poolid="op1")
    client.post("/nodes/pve1/qemu", vmid=2000, name="neighbour", pool="op1")
    sent, result = counter.count("proxmox_vms", vms=[machine(0, vmid=None, pool="op1")], vmid_range="2000-2009")
    assert result["results"][0]["vmid"] == 2001, result
    assert len(sent) <= 4, sent


def test_clone_with_cloud_init_resize_and_start(counter: Counter) -> None:
    make_template(client_of(counter.cluster), TEMPLATE)
    clone = {"clone": {"vmid": TEMPLATE, "full": True}, "disk": {"storage": "local", "size": 8}}
    sent, result = counter.count("proxmox_vms", vms=[machine(0, **clone)])
    assert (result.get("failed"), result["results"][0]["status"]) == (False, "started"), result
    assert len(sent) <= 9, sent


@pytest.mark.parametrize("number", [1, 10, 50])
def test_no_change(counter: Counter, number: int) -> None:
    items = [machine(vm) for vm in range(number)]
    counter.make(*items)
    sent, result = counter.count("proxmox_vms", vms=items)
    assert (result.get("failed"), result["changed"]) == (False, False), result
    assert len(sent) == 1 + number, sent


def test_power_alone_needs_no_configuration(counter: Counter) -> None:
    counter.make(machine(0), machine(1))
    sent, result = counter.count("proxmox_vms", vms=[{"name": "vm-0"}, {"name": "vm-1", "power": "started"}])
    assert (result.get("failed"), result["changed"]) == (False, False), result
    assert sent == ["GET /cluster/resources"]


def test_a_failed_task(counter: Counter) -> None:
    counter.make(machine(0, power="stopped"))
    counter.cluster.faults.replace([Rule("task-fails", match="^qmstart:")])
    counter.cluster.requests()
    result = counter.run("proxmox_vms", vms=[{"name": "vm-0"}])
    sent = counter.cluster.requests()
    assert result["failed"]
    assert "worker" in result["msg"]
    assert len([request for request in sent if not request.endswith("/status")]) <= 4, sent


def test_the_whole_fleet_is_one_request(counter: Counter) -> None:
    client = client_of(counter.cluster)
    for number in range(FLEET):
        client.post(f"/nodes/{NODES[number % 2]}/qemu", vmid=1000 + number, name=f"vm-{number}")
    sent, result = counter.count("proxmox_info")
    assert sent == ["GET /cluster/resources"]
    assert len(result["guests"]) == FLEET


@settings(max_examples=200, deadline=None)
@given(ended=st.floats(min_value=0, max_value=500))
def test_an_end_is_noticed_within_two_seconds(ended: float) -> None:
    """*ended* is the second at which the task ends; requests take no time."""
    slept: list[float] = []

    def transport(_method: str, _path: str, _parameters: object) -> Answer:
        done = sum(slept) >= ended
        return Answer(200, "OK", {"status": "stopped", "exitstatus": "OK"} if done else {"status": "running"})

    client = Client(transport, "pve1:8006", IDENTITY, sleep=slept.append, clock=lambda: sum(slept))
    tasks.wait(client, upid("qmstart"), budget=600)
    assert sum(slept) - ended <= 2.0
