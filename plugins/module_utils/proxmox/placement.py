# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""On which node a virtual machine is to be, and how an existing one gets there.

The choice is a pure function of the rows of ``/cluster/resources`` and of what this run has placed already.

Memory: a node is eligible if what is free by its own statistics, less what this run placed on it, holds the new
machine; so a cluster that overcommits memory stays usable. Among the eligible nodes the one with most room wins, room
being the node's memory less the larger of what is used and what its running guests are configured for (a guest that
has just started uses little of what it will use), less what this run placed. Guests that are stopped do not count:
templates and parked machines would fill the nodes. Statistics are shown with Sys.Audit on the node only; a node without
them is eligible, and comes after those that are known to have room.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    InvalidInput,
    Locked,
    NotFound,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.names import machine_tag
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import format_size, parse_tags
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Place

# seconds between two looks at a virtual machine that the HA manager moves; it works in rounds of 10 s
FIRST_LOOK = 1.0
LAST_LOOK = 5.0


@dataclass(frozen=True)
class Node:
    """One node of the cluster; memory in bytes, None if the user may not see it."""

    name: str
    status: str
    memory: int | None = None
    used: int | None = None

    @property
    def online(self) -> bool:
        return self.status == "online"


@dataclass(frozen=True)
class Storage:
    """One storage on one node; *content* are the content types that it may hold."""

    name: str
    node: str
    status: str
    content: frozenset[str]
    shared: bool


@dataclass(frozen=True)
class Guest:
    """One guest of the cluster; *memory* is the configured one in bytes, None while the statistics are young."""

    vmid: int
    kind: str
    node: str
    name: str = ""
    tags: frozenset[str] = frozenset()
    running: bool = False
    template: bool = False
    memory: int | None = None


@dataclass(frozen=True)
class Cluster:
    """What the rows of ``/cluster/resources`` show of nodes, storages, guests and pools."""

    nodes: Mapping[str, Node] = field(default_factory=dict)
    storages: tuple[Storage, ...] = ()
    guests: tuple[Guest, ...] = ()
    pools: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Wish:
    """What one machine needs of its node.

    :param memory: bytes.
    :param storages: name of a storage and content type, for all volumes that are to be made.
    :param images: the nodes that hold each volume which is to be read.
    :param nodes: allowed nodes; empty for all.
    :param apart_from: machines that should not be on the same node.
    :param strict: they must not be on the same node.
    """

    machine: str
    memory: int
    storages: frozenset[tuple[str, str]] = frozenset()
    images: Mapping[str, Collection[str]] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()
    apart_from: frozenset[str] = frozenset()
    strict: bool = False


def parse_cluster(rows: Iterable[Mapping[str, Any]]) -> Cluster:
    """The rows of GET ``/cluster/resources`` without type, typed."""
    nodes: dict[str, Node] = {}
    storages: list[Storage] = []
    guests: list[Guest] = []
    pools: set[str] = set()
    for row in rows:
        kind = row.get("type")
        if kind == "node":
            name = str(row["node"])
            nodes[name] = Node(name, str(row.get("status", "unknown")), _number(row, "maxmem"), _number(row, "mem"))
        elif kind == "storage":
            storages.append(_storage(row))
        elif kind == "pool":
            pools.add(str(row["pool"]))
        elif "vmid" in row:
            guests.append(_guest(row))
    return Cluster(nodes, tuple(storages), tuple(guests), frozenset(pools))


def _storage(row: Mapping[str, Any]) -> Storage:
    return Storage(
        name=str(row["storage"]),
        node=str(row["node"]),
        status=str(row.get("status", "unknown")),
        content=frozenset(filter(None, str(row.get("content") or "").split(","))),
        shared=bool(int(row.get("shared") or 0)),
    )


def _guest(row: Mapping[str, Any]) -> Guest:
    return Guest(
        vmid=int(row["vmid"]),
        kind=str(row["type"]),
        node=str(row.get("node", "")),
        name=str(row.get("name") or ""),
        tags=parse_tags(str(row.get("tags") or "")),
        running=row.get("status") == "running",
        template=str(row.get("template") or "0") == "1",
        memory=_number(row, "maxmem"),
    )


def _number(row: Mapping[str, Any], key: str) -> int | None:
    value = row.get(key)
    return None if value is None else int(value)


def choose(wish: Wish, cluster: Cluster, placed: Sequence[tuple[Wish, str]] = ()) -> str:
    """The node for the machine: most room among those that may take it, and as few neighbours to avoid as possible.

    :param placed: machines that this run has placed before, each with its node; they keep apart both ways.
    :raises InvalidInput: no node may take it; says of each node why.
    """
    reasons = {name: reason for name in cluster.nodes if (reason := next(_reasons(wish, cluster, placed, name), ""))}
    eligible = [name for name in cluster.nodes if name not in reasons]
    if not eligible:
        told = "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items()))
        raise InvalidInput(
            f"no node can take the machine ({told or 'no node is visible'})",
            where=f"VM {wish.machine}, placement",
            hint="Allow other nodes, free memory, or name a node",
        )
    return min(eligible, key=lambda name: _rank(wish, cluster, placed, name))


def neighbours(wish: Wish, cluster: Cluster, placed: Sequence[tuple[Wish, str]], node: str) -> set[str]:
    """The machines on *node* from which this one is to be apart; a machine that this run placed is only there."""
    tags = {machine_tag(machine): machine for machine in wish.apart_from}
    moved = {other.machine for other, _node in placed}
    there = {tags[tag] for guest in cluster.guests if guest.node == node for tag in guest.tags if tag in tags} - moved
    for other, where in placed:
        if where == node and (other.machine in wish.apart_from or wish.machine in other.apart_from):
            there.add(other.machine)
    return there - {wish.machine}


def _reasons(wish: Wish, cluster: Cluster, placed: Sequence[tuple[Wish, str]], name: str) -> Iterator[str]:
    """Why the node cannot take the machine."""
    node = cluster.nodes[name]
    if wish.nodes and name not in wish.nodes:
        yield "not allowed"
    if not node.online:
        yield node.status
    lacking = sorted(storage for storage, content in wish.storages if not _offers(cluster, name, storage, content))
    if lacking:
        yield f"without usable storage {', '.join(lacking)}"
    missing = sorted(image for image, holders in wish.images.items() if name not in holders)
    if missing:
        yield f"without {', '.join(missing)}"
    near = neighbours(wish, cluster, placed, name)
    if near and (wish.strict or any(other.strict for other, _node in placed if other.machine in near)):
        yield f"has {', '.join(sorted(near))}"
    if node.memory is not None and node.used is not None:
        free = node.memory - node.used - _placed_memory(placed, name)
        if free < wish.memory:
            yield f"only {format_size(max(free, 0) // 1024**2 * 1024**2)} of memory free"


def _offers(cluster: Cluster, node: str, storage: str, content: str) -> bool:
    """A storage of which no row is visible may be anywhere: the user may not see it."""
    rows = [row for row in cluster.storages if row.name == storage]
    return not rows or any(row.node == node and content in row.content for row in rows)


def _rank(
    wish: Wish, cluster: Cluster, placed: Sequence[tuple[Wish, str]], name: str
) -> tuple[int, bool, int, int, str]:
    near = len(neighbours(wish, cluster, placed, name))
    room = _room(cluster, placed, name)
    guests = sum(guest.node == name for guest in cluster.guests) + sum(node == name for _wish, node in placed)
    return near, cluster.nodes[name].memory is None, -room, guests, name


def _room(cluster: Cluster, placed: Sequence[tuple[Wish, str]], name: str) -> int:
    node = cluster.nodes[name]
    configured = sum(guest.memory or 0 for guest in cluster.guests if guest.node == name and guest.running)
    return (node.memory or 0) - max(node.used or 0, configured) - _placed_memory(placed, name)


def _placed_memory(placed: Sequence[tuple[Wish, str]], node: str) -> int:
    return sum(wish.memory for wish, where in placed if where == node)


def migrate(client: Client, place: Place, target: str, budget: float) -> Place:
    """Move the virtual machine to *target*: with its memory while it runs, only its disks and configuration otherwise.

    A machine under high availability is moved by the HA manager, which works in rounds of 10 s.

    :param budget: seconds for the task, and once more for the HA manager.
    :returns: the virtual machine at its new place.
    :raises InvalidInput: the server says that *target* cannot take it; nothing was written.
    :raises Locked: it has not arrived within the budget.
    :raises HostingError: the migration failed.
    """
    if place.node == target:
        return place
    condition = client.get(f"{place.path}/migrate", target=target)
    running = bool(int(condition.get("running") or 0))
    problem = _obstacle(condition, target, running)
    if problem:
        raise InvalidInput(
            f"the virtual machine cannot move from {place.node} to {target}: {problem}",
            where=f"VM {place.machine}, node",
            hint="Remove the obstacle, choose another node, or leave migrate out",
        )
    local = any(not int(disk.get("cdrom") or 0) for disk in condition.get("local_disks") or ())
    upid = client.post(
        f"{place.path}/migrate",
        **{"target": target, "online": running or None, "with-local-disks": (running and local) or None},
    )
    tasks.wait(client, upid, budget=budget)
    moved = replace(place, node=target, running=running)
    if ":hamigrate:" in upid:
        _await_arrival(client, place, moved, budget)
    return moved


def _obstacle(condition: Mapping[str, Any], target: str, running: bool) -> str:
    """What GET ``migrate`` says against the target."""
    told: list[str] = []
    refused = (condition.get("not_allowed_nodes") or {}).get(target) or {}
    if storages := refused.get("unavailable_storages"):
        told.append(f"{target} lacks storage {_words(storages)}")
    if resources := refused.get("unavailable-resources"):
        told.append(f"{target} lacks the mapped devices {_words(resources)}")
    if blocking := refused.get("blocking-ha-resources"):
        told.append(f"HA rules keep it apart from {_words(str(one.get('sid', one)) for one in blocking)}")
    # a stopped machine may go where the same devices are; the server does not look either
    if running and (resources := condition.get("local_resources")):
        told.append(f"it uses {_words(resources)}, which belongs to the node")
    return "; ".join(told)


def _words(values: Collection[Any] | Iterable[Any]) -> str:
    return ", ".join(sorted(str(value) for value in values))


def _await_arrival(client: Client, start: Place, moved: Place, budget: float) -> None:
    end = client.clock() + budget
    pause = FIRST_LOOK
    while True:
        try:
            status = client.get(f"{moved.path}/status/current")
        except NotFound:
            status = None
        if status is not None and not status.get("lock") and (status.get("status") == "running") == moved.running:
            return
        _look_for_error(client, start, status)
        if client.clock() >= end:
            raise Locked(
                f"the HA manager has not moved the virtual machine to {moved.node} within {budget:g} s",
                where=f"VM {start.machine}",
                hint="Look at the HA status and at the task list of both nodes",
            )
        client.sleep(pause)
        pause = min(pause * 1.5, LAST_LOOK)


def _look_for_error(client: Client, start: Place, status: Mapping[str, Any] | None) -> None:
    """:raises BackendError: the HA manager has given up."""
    if status is None:
        try:
            status = client.get(f"{start.path}/status/current")
        except HostingError:
            return
    if (status.get("ha") or {}).get("state") == "error":
        raise BackendError(
            "the HA manager could not move the virtual machine and reports the state error",
            where=f"VM {start.machine}",
            hint="Look at the HA log, then set the HA state to disabled and back",
        )
