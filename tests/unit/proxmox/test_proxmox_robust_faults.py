# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many machines and many runs on a cluster that fails: what was wanted, once, and nothing else.

PROXMOX_SEEDS=N tries N seeds instead of a few.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import Any

import pytest
from lab.proxmox.faults import Rule, transient
from proxmox_processes import Modules, client_of, configs, names, orphans
from support.simulated_proxmox import IMAGE, QUICK, Cluster, Loop, served

SEEDS = range(int(os.environ.get("PROXMOX_SEEDS", "2")))
CROWD = 50
RATE = 0.2


def machine(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "node": "pve1",
        "memory": 512,
        "disk": {"storage": "local", "import_from": IMAGE},
        "networks": [{"bridge": "vmbr0"}],
        "cloud_init": {"user": "root"},
        **fields,
    }


def run(modules: Modules, cluster: Cluster, *items: dict[str, Any], **arguments: Any) -> Any:
    return modules.run("proxmox_vms", {**cluster.arguments(), "vms": list(items), **arguments})


def together(*calls: Any) -> list[Any]:
    """The results of functions that run at the same time."""
    results: list[Any] = [None] * len(calls)

    def call(number: int) -> None:
        results[number] = calls[number]()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("seed", SEEDS)
def test_many_machines_while_a_fifth_of_the_requests_fails(loop: Loop, modules: Modules, seed: int) -> None:
    wanted = [machine(f"vm-{number}") for number in range(CROWD)]
    with served(loop, *transient(RATE), seed=seed) as cluster:
        result = run(modules, cluster, *wanted)
        assert not result.get("failed"), result["msg"]
        cluster.faults.replace([])
        client = client_of(cluster)
        assert names(client) == sorted(item["name"] for item in wanted)
        assert orphans(client) == set()
        again = run(modules, cluster, *wanted)
        assert (again.get("failed"), again["changed"]) == (False, False), again["msg"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_whole_life_while_a_fifth_of_the_requests_fails(loop: Loop, modules: Modules, seed: int) -> None:
    steps = [
        machine("web"),
        machine("web", memory=1024, networks=[{"bridge": "vmbr0", "tag": 5}]),
        machine("web", memory=1024, disks=[{"slot": "scsi1", "storage": "local", "size": 1}]),
        machine("web", memory=1024, power="stopped", tags=["op1"]),
        {"name": "web", "state": "absent"},
    ]
    with served(loop, *transient(RATE), seed=seed) as cluster:
        client = client_of(cluster)
        for number, step in enumerate(steps):
            cluster.faults.replace(transient(RATE), seed * len(steps) + number)
            result = run(modules, cluster, step)
            assert not result.get("failed"), result["msg"]
            cluster.faults.replace([])
            assert names(client) == ([] if step.get("state") == "absent" else ["web"])
            assert orphans(client) == set()


@pytest.mark.parametrize("fields", [{}, {"vmid_range": "500-520"}], ids=["next id", "range"])
def test_parallel_runs_get_distinct_ids(loop: Loop, modules: Modules, fields: dict[str, str]) -> None:
    with served(loop) as cluster:
        runs = [
            lambda first=first: run(
                modules, cluster, *(machine(f"vm-{number}") for number in range(first, first + 3)), **fields
            )
            for first in (0, 3, 6, 9)
        ]
        results = together(*runs)
        assert [result["msg"] for result in results if result.get("failed")] == []
        client = client_of(cluster)
        assert names(client) == sorted(f"vm-{number}" for number in range(12))
        assert len({vmid for _node, vmid in configs(client)}) == 12
        assert orphans(client) == set()


@pytest.mark.parametrize("vmid", [None, 700])
def test_runs_of_the_same_machines_at_once_make_each_once(loop: Loop, modules: Modules, vmid: int | None) -> None:
    wanted = [machine("web-0", vmid=vmid), machine("web-1")]
    with served(loop) as cluster:
        results = together(*[lambda: run(modules, cluster, *wanted)] * 4)
        assert [result["msg"] for result in results if result.get("failed")] == []
        client = client_of(cluster)
        assert names(client) == ["web-0", "web-1"]
        assert orphans(client) == set()
        again = run(modules, cluster, *wanted)
        assert (again.get("failed"), again["changed"]) == (False, False), again["msg"]


def test_rows_that_come_late_are_waited_for_or_harmless(loop: Loop, modules: Modules) -> None:
    """The next run may not see the new machine yet; it must not make a second one."""
    with served(loop) as cluster:
        client_of(cluster).post("/nodes/pve1/qemu", vmid=300, name="neighbour", memory=64)
        cluster.faults.replace([Rule("late-rows", count=2)])
        wanted = machine("web", vmid=301)
        for _run in range(3):
            run(modules, cluster, wanted)
        cluster.faults.replace([])
        last = run(modules, cluster, wanted)
        assert (last.get("failed"), last["changed"]) == (False, False), last["msg"]
        assert names(client_of(cluster)) == ["neighbour", "web"]


def test_without_quorum_nothing_is_made_and_it_says_so(loop: Loop, modules: Modules) -> None:
    with served(loop, Rule("quorum")) as cluster:
        result = run(modules, cluster, machine("web"))
        assert result["failed"]
        assert "no quorum" in result["msg"]
        cluster.faults.replace([])
        assert names(client_of(cluster)) == []


def test_a_silent_agent_fails_nothing(loop: Loop, modules: Modules) -> None:
    with served(loop, Rule("agent"), timing=replace(QUICK, agent=0.01)) as cluster:
        result = run(modules, cluster, machine("web", agent=True, agent_wait=1))
        assert (result.get("failed"), result["changed"]) == (False, True), result["msg"]
        assert result["results"][0]["agent"] is False


def test_a_failing_creation_says_why_and_can_be_repeated(loop: Loop, modules: Modules) -> None:
    with served(loop, Rule("task-half", match="^qmcreate:")) as cluster:
        result = run(modules, cluster, machine("web", vmid=700))
        assert result["failed"]
        assert "qmcreate" in result["msg"]
        cluster.faults.replace([])
        second = run(modules, cluster, machine("web", vmid=700))
        assert not second.get("failed"), second["msg"]
        client = client_of(cluster)
        assert names(client) == ["web"]
        assert orphans(client) == set()


def test_the_rest_of_a_creation_that_died_in_the_server_is_never_taken(loop: Loop, modules: Modules) -> None:
    """Nobody cleaned up after the killed worker: the id holds a locked rest that shows no tag of ours."""
    with served(loop, Rule("task-lost", match="^qmcreate:", limit=1)) as cluster:
        for _run in range(2):
            result = run(modules, cluster, machine("web", vmid=700))
            assert result["failed"]
            assert "VM web, vmid: VMID 700" in result["msg"]
        assert [vmid for _node, vmid in configs(client_of(cluster))] == [700]


def test_an_offline_node_keeps_nobody_from_the_other_one(loop: Loop, modules: Modules) -> None:
    with served(loop) as cluster:
        run(modules, cluster, machine("there", node="pve2"))
        cluster.faults.replace([Rule("offline", node="pve2")])
        result = run(modules, cluster, machine("here"), machine("there", node="pve2", memory=1024))
        told = {one["name"]: one for one in result["results"]}
        assert (told["here"]["failed"], told["there"]["failed"]) == (False, True), result["msg"]
        cluster.faults.replace([])
        assert names(client_of(cluster)) == ["here", "there"]
