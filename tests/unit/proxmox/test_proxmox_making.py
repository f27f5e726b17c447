# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guests that are being made, that were left half made, or that nobody can look at: no machine is made twice."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import NotFound
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Answer, Client
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.identity import Row, blind, sees_more
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import VmDesired
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.power import plan_reset
from conftest import Simulator
from lab.proxmox.faults import Rule
from proxmox_processes import Modules, client_of, configs, make_template, names
from proxmox_runs import WEB, run, vms
from proxmox_script import Exchange, done, upid
from support.simulated_proxmox import Cluster, Loop, served
from test_proxmox_exchanges import (
    FOREIGN,
    NEW,
    PLACES,
    configured,
    creations,
    lookups,
    pending,
    play,
    resources,
    rights,
)
from test_proxmox_exchanges import WEB as SCRIPTED

STOPPED = {**WEB, "power": "stopped"}
COPY = {"name": "copy", "clone": {"vmid": 100, "full": True}, "power": "stopped"}
TEMPLATE = 900
CLONING = {**NEW, "lock": "clone"}


class Killed(BaseException):
    pass


@pytest.fixture
def client(simulator: Simulator) -> Client:
    found = simulator.client()
    return replace(found, sleep=lambda seconds: time.sleep(min(seconds, 0.02)))


def killed_after_cloning(client: Client, item: dict[str, Any]) -> None:
    """A run that ends when the server has made the copy, before anything else of it is done."""

    def transport(method: str, path: str, params: Mapping[str, str]) -> Answer:
        answer = client.transport(method, path, params)
        if path.endswith("/clone"):
            tasks.wait(client, answer.data, budget=10)
            raise Killed
        return answer

    with pytest.raises(Killed):
        run(replace(client, transport=transport), item)


@pytest.fixture
def half_made(client: Client) -> int:
    """The VMID of a clone of the machine base for the machine copy, of a run that was killed."""
    run(client, {**STOPPED, "name": "base"})
    killed_after_cloning(client, COPY)
    return 101


def descriptions(client: Client) -> dict[int, str]:
    return {row["vmid"]: client.get(f"/nodes/pve1/qemu/{row['vmid']}/config")["description"] for row in vms(client)}


@pytest.mark.parametrize("base", [{**STOPPED, "name": "base"}, {"name": "base"}], ids=["whole", "power only"])
def test_an_unfinished_clone_is_not_taken_for_its_source(client: Client, half_made: int, base: dict[str, Any]) -> None:
    run(client, {"name": "base", "state": "absent"})
    assert [row["vmid"] for row in vms(client)] == [half_made]
    with pytest.raises(NotFound, match="only an unfinished clone"):
        plan_reset(client, "base", None)
    run(client, base)
    assert "unfinished clone for machine copy" in descriptions(client)[half_made]
    assert run(client, {"name": "base", "state": "absent"})["failed"] is False
    assert half_made in descriptions(client)


def test_an_unfinished_clone_goes_with_its_machine(client: Client, half_made: int) -> None:
    result = run(client, {"name": "copy", "state": "absent"})
    assert (result["failed"], result["changed"]) == (False, True), result
    assert half_made not in descriptions(client)
    assert not run(client, {**STOPPED, "name": "base"})["changed"]


def test_a_machine_is_not_made_of_an_image_beside_its_unfinished_clone(client: Client, half_made: int) -> None:
    result = run(client, {**STOPPED, "name": "copy"})
    assert f"VM {half_made} is an unfinished clone for this machine, made of something else" in result["msg"]
    assert "state: absent" in result["msg"]
    assert len(vms(client)) == 2


def test_an_unfinished_clone_is_finished(client: Client, half_made: int) -> None:
    result = run(client, COPY)
    assert (result["failed"], result["results"][0]["vmid"]) == (False, half_made), result
    assert not run(client, COPY)["changed"]


def test_somebody_elses_clone_is_not_waited_for() -> None:
    exchanges = [
        resources(CLONING),
        configured({"name": "theirs", "lock": "clone"}),
        rights(),
        *lookups(),
    ]
    assert play(exchanges, SCRIPTED, check=True)["results"][0]["action"] == "create"


def test_our_own_clone_is_waited_for() -> None:
    config = {"name": "web", "lock": "clone", "description": "fediversity: unfinished clone for machine web\n"}
    active = {"source": "active", "typefilter": "qmclone"}
    exchanges = [
        resources(CLONING),
        configured(config),
        Exchange("GET", "/nodes/pve1/tasks", [{"upid": upid("qmclone", 9000)}], active),
        done("qmclone", 9000),
        resources({**NEW, "lock": None, "name": "web", "status": "stopped"}),
        configured({key: config[key] for key in ("name", "description")}),
        pending({key: config[key] for key in ("name", "description")}),
    ]
    result = play(exchanges, {"name": "web", "state": "absent"}, check=True)
    assert result["results"][0]["action"] == "delete"


def test_a_clone_for_the_machine_whose_task_is_hidden_is_not_repeated() -> None:
    config = {"name": "web", "lock": "clone", "description": "fediversity: unfinished clone for machine web\n"}
    tasks_of_ours = Exchange("GET", "/nodes/pve1/tasks", [], {"source": "active", "typefilter": "qmclone"})
    looks = [resources(CLONING), configured(config), tasks_of_ours] * 4
    message = play([*looks, rights({"/": {"VM.Audit": 1}})], {"name": "web", "vmid": 150, "clone": {"vmid": 9000}})[
        "msg"
    ]
    assert "somebody is cloning VM 100 on the node pve1 for this machine" in message


def test_a_creation_whose_task_is_hidden_is_not_repeated() -> None:
    blindly = rights({"/": {"VM.Audit": 1}})
    exchanges = [*[resources(NEW), creations(100)] * 4, blindly]
    message = play(exchanges, SCRIPTED)["msg"]
    assert "somebody is creating VM 100 on the node pve1" in message
    assert "qm unlock 100" in message
    # with an id of its own, it would be made with that one by the other run too
    assert play([resources(NEW), blindly, *lookups()], {**SCRIPTED, "vmid": 150}, check=True)["failed"] is False


# nodes that cannot be asked

OFFLINE = [{**PLACES[0]}, {**PLACES[1], "status": "offline"}, PLACES[2]]
SOURCE = {"type": "qemu", "vmid": 9001, "node": "pve1", "tags": "", "status": "stopped", "template": 1, "name": "base"}
AWAY = {"type": "qemu", "vmid": 300, "node": "pve2", "tags": "", "status": "unknown"}
CLONE = {"name": "web", "clone": {"vmid": 9001}}


def offline(row: dict[str, Any]) -> Exchange:
    return Exchange("GET", "/cluster/resources", [SOURCE, row, FOREIGN, *OFFLINE], {})


@pytest.mark.parametrize(
    ("row", "item"),
    [
        ({**AWAY, "name": "other", "status": "stopped"}, CLONE),
        ({**AWAY, "name": "web", "status": "running"}, CLONE),
        (AWAY, {**CLONE, "vmid": 150}),
    ],
    ids=["name", "running", "vmid"],
)
def test_a_guest_on_an_offline_node_that_is_no_clone_of_ours_stops_nobody(
    row: dict[str, Any], item: dict[str, Any]
) -> None:
    source = {"name": "base", "template": 1, "memory": "512"}
    exchanges = [offline(row), rights(), pending(source, 9001)]
    assert play(exchanges, item, check=True)["results"][0]["action"] == "create"


def test_a_guest_on_an_offline_node_that_may_be_our_clone_is_not_made_again() -> None:
    message = play([offline(AWAY)], CLONE)["msg"]
    assert "guest 300 on the node pve2, which is offline, may be an unfinished clone" in message
    assert "give the machine a vmid" in message


@pytest.mark.parametrize(
    "wanted",
    [{**WEB, "node": "pve1"}, {**WEB, "node": None}, {"name": "web"}, {"name": "web", "state": "absent"}],
    ids=["other node", "no node", "power only", "absent"],
)
def test_a_machine_on_an_offline_node_is_not_made_again(loop: Loop, modules: Modules, wanted: dict[str, Any]) -> None:
    with served(loop) as cluster:
        apply(modules, cluster, {**WEB, "node": "pve2"})
        cluster.faults.replace([Rule("offline", node="pve2")])
        cluster.requests()
        assert apply(modules, cluster, wanted)["failed"]
        assert not [request for request in cluster.requests() if request.startswith("POST /nodes/pve1")]
        cluster.faults.replace([])
        assert names(client_of(cluster)) == ["web"]


# workers that died in the server


def apply(modules: Modules, cluster: Cluster, *items: dict[str, Any]) -> Any:
    return modules.run("proxmox_vms", {**cluster.arguments(), "vms": list(items)})


@pytest.mark.parametrize("vmid", [None, 150])
def test_the_rest_of_a_creation_is_told_with_what_to_do(loop: Loop, modules: Modules, vmid: int | None) -> None:
    with served(loop, Rule("task-lost", match="^qmcreate:", limit=1)) as cluster:
        message = apply(modules, cluster, {**WEB, "vmid": vmid})["msg"]
        assert f"qm unlock {vmid or 100} and then qm destroy {vmid or 100} --purge" in message
        assert len(configs(client_of(cluster))) == 1


def test_the_rest_of_a_clone_is_told_with_what_to_do(loop: Loop, modules: Modules) -> None:
    with served(loop) as cluster:
        make_template(client_of(cluster), TEMPLATE)
        # after its disk, when it says for which machine it is
        cluster.faults.replace([Rule("task-lost", match="^qmclone:", limit=1, count=2)])
        item = {"name": "web", "clone": {"vmid": TEMPLATE, "full": True}, "power": "stopped"}
        for _run in range(2):
            message = apply(modules, cluster, item)["msg"]
            assert "is a locked clone for this machine that no task finishes" in message
            assert "qm unlock 100 and then qm destroy 100" in message
        assert len(configs(client_of(cluster))) == 2


# what proves that the machine would be seen


def test_only_a_guest_in_the_wanted_pool_proves_that_guests_are_seen() -> None:
    rows = [Row(100, "pve1", "qemu"), Row(101, "pve1", "qemu", pool="op1")]
    assert sees_more(VmDesired("web", pool="op1"), rows, "a@pve!t")
    assert not sees_more(VmDesired("web", pool="op2"), rows, "a@pve!t")
    assert not sees_more(VmDesired("web"), rows, "a@pve!t")
    assert not sees_more(VmDesired("web"), rows, "root@pam!t")
    assert sees_more(VmDesired("web"), [], "root@pam")


def test_a_right_that_does_not_reach_below_is_no_sight() -> None:
    assert blind(VmDesired("web"), {"/": {"VM.Audit": 0}}, "a@pve")
    assert blind(VmDesired("web", pool="op1/sub"), {"/pool/op1": {"VM.Audit": 0}}, "a@pve")
    assert blind(VmDesired("web", pool="op1"), {"/pool/op1": {"VM.Audit": 0}}, "a@pve") is None
