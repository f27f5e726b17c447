# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a VM is put, and how it is moved."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, InvalidInput, Locked
from ansible_collections.fediversity.hosting.plugins.module_utils.names import machine_tag
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.desired import desired_machines
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Place
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.placement import (
    Cluster,
    Guest,
    Node,
    Storage,
    Wish,
    choose,
    migrate,
    neighbours,
    parse_cluster,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.provider import VirtualMachines
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import reconcile
from hypothesis import given
from hypothesis import strategies as st
from proxmox_script import Exchange, Script, done, failed, upid

GIB = 1024**3
NAMES = ("pve1", "pve2", "pve3", "pve4")
MACHINES = ("web", "db", "mail", "chat")


def node(name: str, used: int | None = 0, *, memory: int | None = 64, status: str = "online") -> Node:
    return Node(name, status, None if memory is None else memory * GIB, None if used is None else used * GIB)


def guest(vmid: int, where: str, machine: str = "", memory: int = 1, *, running: bool = True) -> Guest:
    tags = frozenset({machine_tag(machine)}) if machine else frozenset()
    return Guest(vmid, "qemu", where, tags=tags, running=running, memory=memory * GIB)


def cluster(*nodes: Node, guests: tuple[Guest, ...] = (), storages: tuple[Storage, ...] = ()) -> Cluster:
    return Cluster({one.name: one for one in nodes}, storages, guests)


def wish(machine: str = "new", memory: int = 1, **fields: Any) -> Wish:
    return Wish(machine, memory * GIB, **fields)


nodes = st.fixed_dictionaries(
    {
        name: st.builds(
            Node,
            st.just(name),
            st.sampled_from(["online", "online", "offline", "unknown"]),
            st.one_of(st.none(), st.integers(1, 64).map(lambda size: size * GIB)),
            st.one_of(st.none(), st.integers(0, 64).map(lambda size: size * GIB)),
        )
        for name in NAMES
    }
)
guests = st.lists(
    st.builds(
        guest, st.integers(100, 999), st.sampled_from(NAMES), st.sampled_from(["", *MACHINES]), st.integers(1, 8)
    ),
    max_size=8,
)
wishes = st.lists(
    st.builds(
        wish,
        st.sampled_from(MACHINES),
        st.integers(1, 16),
        nodes=st.lists(st.sampled_from(NAMES), unique=True, max_size=3).map(tuple),
        apart_from=st.frozensets(st.sampled_from(MACHINES), max_size=2),
        strict=st.booleans(),
    ),
    unique_by=lambda one: one.machine,
    max_size=4,
)


@given(nodes, guests, wishes)
def test_never_an_offline_or_full_or_forbidden_node(
    there: dict[str, Node], some: list[Guest], wanted: list[Wish]
) -> None:
    world = Cluster(there, (), tuple(some))
    placed: list[tuple[Wish, str]] = []
    for one in wanted:
        try:
            chosen = choose(one, world, placed)
        except InvalidInput:
            continue
        assert choose(one, world, placed) == chosen
        assert there[chosen].status == "online"
        assert not one.nodes or chosen in one.nodes
        if one.strict:
            assert not neighbours(one, world, placed, chosen)
        for other, where in placed:
            near = where == chosen and (one.machine in other.apart_from or other.machine in one.apart_from)
            assert not (near and (one.strict or other.strict))
        memory, used = there[chosen].memory, there[chosen].used
        if memory is not None and used is not None:
            assert used + one.memory + sum(other.memory for other, where in placed if where == chosen) <= memory
        placed.append((one, chosen))


def place_all(world: Cluster, wanted: list[Wish]) -> list[tuple[Wish, str]]:
    placed: list[tuple[Wish, str]] = []
    for one in wanted:
        placed.append((one, choose(one, world, placed)))
    return placed


@given(st.integers(1, 4), st.integers(0, 60))
def test_equal_machines_spread_evenly_over_equal_nodes(count: int, machines: int) -> None:
    world = cluster(*(node(name) for name in NAMES[:count]))
    placed = place_all(world, [wish(f"m{number}") for number in range(machines)])
    counts = Counter(where for _wish, where in placed)
    assert sum(counts.values()) == machines
    assert max(counts.values(), default=0) - min((counts[name] for name in NAMES[:count]), default=0) <= 1


def test_fifty_machines_in_one_call_end_with_equal_room() -> None:
    used = {"pve1": 10, "pve2": 30, "pve3": 0}
    placed = place_all(
        cluster(*(node(name, size) for name, size in used.items())), [wish(f"m{n}", 2) for n in range(50)]
    )
    left = {name: 64 - size - 2 * sum(where == name for _wish, where in placed) for name, size in used.items()}
    assert max(left.values()) - min(left.values()) <= 2


def test_without_statistics_they_still_spread() -> None:
    world = cluster(*(node(name, None, memory=None) for name in NAMES))
    counts = Counter(where for _wish, where in place_all(world, [wish(f"m{n}") for n in range(50)]))
    assert sorted(counts.values()) == [12, 12, 13, 13]


def test_a_node_that_hides_its_memory_comes_last() -> None:
    assert choose(wish(), cluster(node("pve1", None, memory=None), node("pve2", 60))) == "pve2"
    assert choose(wish(memory=8), cluster(node("pve1", None, memory=None), node("pve2", 60))) == "pve1"


def test_configured_memory_of_running_guests_counts_for_the_order_only() -> None:
    """Guests that have just started use little of what they will use; overcommitting stays possible."""
    busy = tuple(guest(100 + number, "pve1", memory=16) for number in range(4))
    assert choose(wish(), cluster(node("pve1", 2), node("pve2", 20), guests=busy)) == "pve2"
    assert choose(wish(), cluster(node("pve1", 2), guests=busy)) == "pve1"
    parked = tuple(guest(100 + number, "pve1", memory=16, running=False) for number in range(4))
    assert choose(wish(), cluster(node("pve1", 2), node("pve2", 20), guests=parked)) == "pve1"


def test_equal_nodes_are_taken_by_fewest_guests_then_by_name() -> None:
    assert choose(wish(), cluster(node("pve2"), node("pve1"))) == "pve1"
    stopped = (guest(100, "pve1", running=False),)
    assert choose(wish(), cluster(node("pve2"), node("pve1"), guests=stopped)) == "pve2"


def test_apart_from_is_preferred_or_required() -> None:
    world = cluster(node("pve1"), node("pve2", 50), guests=(guest(100, "pve1", "db"),))
    apart = {"apart_from": frozenset({"db"})}
    assert choose(wish(), world) == "pve1"
    assert choose(wish(**apart), world) == "pve2"
    assert choose(wish(memory=20, **apart), world) == "pve1"
    with pytest.raises(InvalidInput, match=r"pve1: has db; pve2: only 14G of memory free"):
        choose(wish(memory=20, strict=True, **apart), world)


def test_apart_holds_both_ways_for_machines_of_one_call() -> None:
    first = wish("a", apart_from=frozenset({"b"}), strict=True)
    world = cluster(node("pve1"), node("pve2", 50))
    assert choose(wish("b"), world, [(first, "pve1")]) == "pve2"


def test_a_machine_that_moves_is_no_longer_where_it_was() -> None:
    world = cluster(node("pve1"), node("pve2"), guests=(guest(100, "pve1", "db"),))
    apart = wish("web", apart_from=frozenset({"db"}), strict=True)
    assert choose(apart, world, [(wish("db"), "pve2")]) == "pve1"


def test_the_storage_must_be_there_with_the_content() -> None:
    def storage(where: str, name: str = "fast", content: str = "images") -> Storage:
        return Storage(name, where, "available", frozenset({content}), shared=False)

    needs = wish(storages=frozenset({("fast", "images")}))
    two = (node("pve1"), node("pve2", 50))
    assert choose(needs, cluster(*two, storages=(storage("pve2"),))) == "pve2"
    # no row at all: this user may not see it
    assert choose(needs, cluster(*two)) == "pve1"
    with pytest.raises(InvalidInput, match="pve1: without usable storage fast"):
        choose(needs, cluster(*two, storages=(storage("pve2", content="iso"),)))


def test_a_node_without_the_image_is_not_chosen() -> None:
    world = cluster(node("pve1"), node("pve2", 50))
    assert choose(wish(images={"local:import/x": {"pve2"}}), world) == "pve2"
    with pytest.raises(InvalidInput, match="pve1: without local:import/x; pve2: without local:import/x"):
        choose(wish(images={"local:import/x": set()}), world)


def test_no_visible_node_is_told() -> None:
    with pytest.raises(InvalidInput, match="no node is visible") as caught:
        choose(wish(), cluster())
    assert caught.value.where == "VM new, placement"


def test_rows_of_the_server() -> None:
    world = parse_cluster(
        [
            {"id": "node/pve1", "type": "node", "node": "pve1", "status": "online", "maxmem": 8, "mem": 3, "level": ""},
            {"id": "node/pve2", "type": "node", "node": "pve2", "status": "online"},
            {
                "id": "storage/pve1/local",
                "type": "storage",
                "storage": "local",
                "node": "pve1",
                "status": "available",
                "content": "images,import",
                "shared": 0,
            },
            {"id": "/pool/alice", "type": "pool", "pool": "alice"},
            {"id": "qemu/100", "type": "qemu", "vmid": 100, "node": "pve1", "status": "unknown"},
            {
                "id": "qemu/9000",
                "type": "qemu",
                "vmid": 9000,
                "node": "pve2",
                "status": "stopped",
                "name": "base",
                "template": 1,
                "tags": "a;b",
                "maxmem": 512,
            },
            {"id": "sdn/pve1/localnetwork", "type": "sdn", "node": "pve1", "sdn": "localnetwork", "status": "ok"},
        ]
    )
    assert world.nodes == {"pve1": Node("pve1", "online", 8, 3), "pve2": Node("pve2", "online")}
    assert world.storages == (Storage("local", "pve1", "available", frozenset({"images", "import"}), shared=False),)
    assert world.pools == {"alice"}
    assert world.guests == (
        Guest(100, "qemu", "pve1"),
        Guest(9000, "qemu", "pve2", "base", frozenset({"a", "b"}), template=True, memory=512),
    )


# moving

HERE = Place("web", 100, "pve1", running=True)
PATH = "/nodes/pve1/qemu/100"
FREE = {"running": 1, "allowed_nodes": ["pve2"], "not_allowed_nodes": {}, "local_disks": [], "local_resources": []}


def condition(**fields: Any) -> Exchange:
    return Exchange("GET", f"{PATH}/migrate", {**FREE, **fields}, {"target": "pve2"})


def play(exchanges: list[Exchange], place: Place = HERE, target: str = "pve2", budget: float = 60) -> Place:
    script = Script(exchanges)
    moved = migrate(script.client(), place, target, budget)
    script.finished()
    return moved


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, {"target": "pve2", "online": "1"}),
        ({"running": 0}, {"target": "pve2"}),
        (
            {"local_disks": [{"volid": "local:100/vm-100-disk-0.qcow2", "cdrom": 0}]},
            {"target": "pve2", "online": "1", "with-local-disks": "1"},
        ),
        (
            {"local_disks": [{"volid": "local:100/vm-100-cloudinit.qcow2", "cdrom": 1}]},
            {"target": "pve2", "online": "1"},
        ),
        ({"running": 0, "local_disks": [{"volid": "x", "cdrom": 0}]}, {"target": "pve2"}),
        ({"running": 0, "local_resources": ["hostpci0"]}, {"target": "pve2"}),
    ],
)
def test_what_is_sent_follows_the_server_s_own_look(fields: dict[str, Any], sent: dict[str, str]) -> None:
    exchanges = [condition(**fields), Exchange("POST", f"{PATH}/migrate", upid("qmigrate"), sent), done("qmigrate")]
    assert play(exchanges) == Place("web", 100, "pve2", running=bool(fields.get("running", 1)))


def test_a_machine_that_is_there_is_left_alone() -> None:
    assert play([], target="pve1") == HERE


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"not_allowed_nodes": {"pve2": {"unavailable_storages": ["fast"]}}}, "pve2 lacks storage fast"),
        ({"not_allowed_nodes": {"pve2": {"unavailable-resources": ["gpu"]}}}, "pve2 lacks the mapped devices gpu"),
        (
            {
                "not_allowed_nodes": {
                    "pve2": {"blocking-ha-resources": [{"sid": "vm:101", "cause": "resource-affinity"}]}
                }
            },
            "HA rules keep it apart from vm:101",
        ),
        ({"local_resources": ["hostpci0"]}, "it uses hostpci0"),
    ],
)
def test_obstacles_are_told_before_anything_is_written(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text) as caught:
        play([condition(**fields)])
    assert caught.value.where == "VM web, node"


def test_a_failed_migration_says_why() -> None:
    exchanges = [
        condition(),
        Exchange("POST", f"{PATH}/migrate", upid("qmigrate"), None),
        done("qmigrate", exit_status="migration aborted"),
    ]
    exchanges.append(Exchange("GET", exchanges[-1].path.removesuffix("/status") + "/log", [], None))
    with pytest.raises(BackendError, match="migration aborted"):
        play(exchanges)


ASKED = Exchange("POST", f"{PATH}/migrate", upid("hamigrate"), None)
ABSENT = failed("Configuration file 'nodes/pve2/qemu-server/100.conf' does not exist")
THERE = "/nodes/pve2/qemu/100/status/current"


def test_the_ha_manager_is_awaited() -> None:
    exchanges = [
        condition(),
        ASKED,
        done("hamigrate"),
        Exchange("GET", THERE, ABSENT),
        Exchange("GET", f"{PATH}/status/current", {"status": "running", "ha": {"managed": 1, "state": "migrate"}}),
        Exchange("GET", THERE, {"status": "running", "lock": "migrate", "ha": {"managed": 1, "state": "migrate"}}),
        Exchange("GET", THERE, {"status": "running", "ha": {"managed": 1, "state": "started"}}),
    ]
    assert play(exchanges).node == "pve2"


def test_an_ha_manager_that_gives_up_is_told() -> None:
    exchanges = [
        condition(),
        ASKED,
        done("hamigrate"),
        Exchange("GET", THERE, ABSENT),
        Exchange("GET", f"{PATH}/status/current", {"status": "stopped", "ha": {"managed": 1, "state": "error"}}),
    ]
    with pytest.raises(BackendError, match="state error"):
        play(exchanges)


def test_an_ha_manager_that_does_nothing_is_told() -> None:
    look = [
        Exchange("GET", THERE, ABSENT),
        Exchange("GET", f"{PATH}/status/current", {"status": "running", "ha": {"managed": 1, "state": "started"}}),
    ]
    with pytest.raises(Locked, match="has not moved"):
        play([condition(), ASKED, done("hamigrate"), *look, *look], budget=0.5)


@pytest.mark.parametrize("running", [True, False])
def test_on_the_simulator(simulator: Any, running: bool) -> None:
    client = simulator.client()
    tasks.wait(client, client.post("/nodes/pve1/qemu", vmid=100, scsi0="local:1,format=qcow2"), budget=30)
    if running:
        tasks.wait(client, client.post(f"{PATH}/status/start"), budget=30)
    moved = migrate(client, HERE, "pve2", 30)
    assert moved == Place("web", 100, "pve2", running)
    assert client.get(f"{moved.path}/status/current")["status"] == ("running" if running else "stopped")
    world = parse_cluster(client.get("/cluster/resources"))
    assert [one.node for one in world.guests] == ["pve2"]
    assert choose(wish(), world) == "pve1"


def planned(simulator: Any, *items: dict[str, Any]) -> dict[str, Any]:
    """Where the module would create the machines; check mode."""
    disk = {"storage": "local", "import_from": "local:import/nixos.qcow2"}
    machines = desired_machines([{"disk": disk, "memory": 256, **item} for item in items])
    result = reconcile(VirtualMachines(simulator.client(), 30), machines, check=True)
    return {name: after["node"] for name, after in result["diff"]["after"].items()}


def test_on_the_simulator_fifty_machines_of_one_call_are_balanced(simulator: Any) -> None:
    nodes_ = planned(simulator, *({"name": f"m{number}", "placement": {}} for number in range(50)))
    assert Counter(nodes_.values()) == {"pve1": 25, "pve2": 25}
    asked = [request.partition("?")[0] for request in simulator.requests()]
    # the list, the rights, and the image on each node
    assert len(asked) == 4, asked


def test_on_the_simulator_machines_with_a_node_of_their_own_are_kept_clear_of(simulator: Any) -> None:
    apart = {"apart_from": ["a"], "strict": True}
    assert planned(simulator, {"name": "b", "placement": apart}, {"name": "a", "node": "pve1"}) == {
        "a": "pve1",
        "b": "pve2",
    }
