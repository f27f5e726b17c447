# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of the simulated cluster: what it is made of, and how it lies on disk.

<state>/cluster.json                         pools, storages, accounts
<state>/nodes/<node>/qemu-server/<vmid>.json one virtual machine
<state>/nodes/<node>/volumes.json            disks and images
<state>/nodes/<node>/tasks/<upid>.json       one task (lab.proxmox.tasks)

Every file is replaced atomically; all changes happen in the event loop's thread.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network
from pathlib import Path
from typing import Any

from .faults import Faults
from .guests import Guests, NoGuests
from .locks import FileLock

Option = str | int


@dataclass(frozen=True)
class Timing:
    """Delays in seconds, as measured on the real server (proxmox-api.md)."""

    refused_login: float = 3.0
    statistics: float = 10.0  # between two rounds of pvestatd; 0 = every read is fresh
    agent: float = 3.0
    lock: float = 10.0
    proxy: float = 30.0  # after which a synchronous call is answered 596 while its work goes on
    image_copy: float = 1.5  # for each GiB that a copied disk or image holds
    volume: float = 0.05  # before a cloned, moved or migrated disk is there
    migration: float = 1.0
    unplug: float = 5.0  # until a device is given up that no guest lets go of
    ha: float = 10.0  # between two rounds of the high-availability manager
    upload: float = 5.0  # after which an upload that is none is cut off
    power_on: float = 0.2
    boot: float = 10.0  # until the agent of a guest answers that only exists in the simulator
    shutdown: float = 60.0  # grace of a shutdown that names none


@dataclass
class VirtualMachine:
    """One virtual machine; `config` is what runs, `pending` and `deleted` wait for the next power cycle."""

    vmid: int
    node: str
    config: dict[str, Option] = field(default_factory=dict)
    pending: dict[str, Option] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)  # 2 = with its volume (force)
    snapshots: dict[str, dict[str, Option]] = field(default_factory=dict)
    cloudinit: dict[str, Option] = field(
        default_factory=dict
    )  # what the drive of the running guest still says; "" = nothing
    booted: str = ""  # volume that the guest's disk stands for; "" = nothing to boot from
    started: float = 0.0  # Unix time of the last power-on
    pid: int = 0

    @property
    def guest(self) -> str:
        """Name of the guest in the driver."""
        return f"vm-{self.vmid}"


@dataclass
class Volume:
    """A disk or image; `size` is what the guest sees, `used` what the file takes, both in bytes."""

    volid: str
    content: str
    format: str
    size: int
    used: int
    ctime: int
    vmid: int | None = None
    parent: str | None = None
    image: str = ""  # the image it was copied from; "" = blank
    digests: dict[str, str] = field(default_factory=dict)  # of the file of an image, by algorithm
    snapshots: dict[str, int] = field(default_factory=dict)  # size at each, in bytes


@dataclass(frozen=True)
class World:
    """What an installation decides: names, versions, and networks, in which the n-th node has the n-th address."""

    nodes: tuple[str, ...] = ("pve1", "pve2")
    name: str = "lab"
    version: str = "9.2.0"  # of pve-manager
    repoid: str = "lab0000000000000"
    qemu: str = "10.0.13"
    network: str = "10.99.0.0/24"  # of the nodes
    bridge_network: str = "10.98.0.0/24"  # of vmbr0
    cpus: int = 2  # of a node
    memory: int = 25276502016  # bytes of a node
    disk: int = 270553174016  # bytes of a node's file system, on which its storages lie

    @property
    def versions(self) -> dict[str, str]:
        """The answer of GET /version."""
        release = ".".join(self.version.split(".")[:2])
        return {"release": release, "version": self.version, "repoid": self.repoid}

    def address(self, node: str) -> str:
        """Where the cluster finds a node."""
        return str(ip_network(self.network)[self.nodes.index(node) + 1])

    def bridge_address(self, node: str) -> IPv4Interface | IPv6Interface:
        """The address of a node's bridge, with its network."""
        network = ip_network(self.bridge_network)
        return ip_interface(f"{network[self.nodes.index(node) + 1]}/{network.prefixlen}")


@dataclass
class Cluster:
    """The whole simulated cluster and what it needs to act."""

    state: Path
    world: World
    hosts: Guests
    timing: Timing
    faults: Faults = field(default_factory=Faults)
    blank: NoGuests = field(default_factory=NoGuests)
    vms: dict[int, VirtualMachine] = field(default_factory=dict)
    volumes: dict[str, dict[str, Volume]] = field(default_factory=dict)  # by node, by volume id
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)  # comment, vms, storage
    storages: dict[str, dict[str, Any]] = field(default_factory=dict)  # type, path, content, ...
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    roles: dict[str, list[str]] = field(default_factory=dict)
    acl: list[dict[str, Any]] = field(default_factory=list)
    firewall: dict[str, dict[str, Any]] = field(default_factory=dict)  # by vmid or "cluster" (lab.proxmox.firewall)
    ha: dict[str, Any] = field(default_factory=dict)  # resources, rules, services (lab.proxmox.ha)
    tickets: dict[str, str] = field(default_factory=dict)  # ticket → user; they end with the process
    statistics: dict[int, dict[str, Any]] = field(default_factory=dict)  # rows of the last pvestatd round
    locks: dict[int, FileLock] = field(default_factory=lambda: defaultdict(FileLock))

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.world.nodes

    def guests(self, vm: VirtualMachine) -> Guests:
        """The driver behind a virtual machine: only one with an operating system is a lab host."""
        return self.hosts if vm.booted else self.blank

    def power(self, vm: VirtualMachine) -> str:
        """running, stopped or paused"""
        return self.guests(vm).state(vm.guest)

    def pool_of(self, vmid: int) -> str:
        return next((name for name, pool in self.pools.items() if vmid in pool["vms"]), "")

    def save_vm(self, vm: VirtualMachine) -> None:
        write_json(self._vm_file(vm), asdict(vm))

    def forget_vm(self, vm: VirtualMachine) -> None:
        self.vms.pop(vm.vmid, None)
        self._vm_file(vm).unlink(missing_ok=True)

    def save_volumes(self, node: str) -> None:
        rows = [asdict(volume) for volume in self.volumes[node].values()]
        write_json(self.state / "nodes" / node / "volumes.json", rows)

    def save(self) -> None:
        """Pools, storages, accounts."""
        content = {name: getattr(self, name) for name in _CLUSTER_KEYS}
        write_json(self.state / "cluster.json", content)

    def _vm_file(self, vm: VirtualMachine) -> Path:
        return self.state / "nodes" / vm.node / "qemu-server" / f"{vm.vmid}.json"


_CLUSTER_KEYS = ("pools", "storages", "users", "roles", "acl", "firewall", "ha")


def write_json(path: Path, content: object) -> None:
    """Replaces the file in one step; readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    with open(new, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(content, file, indent=1)
    os.replace(new, path)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def load(cluster: Cluster) -> None:
    """Reads what an earlier process left in the state directory."""
    if (file := cluster.state / "cluster.json").exists():
        content: Mapping[str, Any] = read_json(file)
        for name in _CLUSTER_KEYS:
            setattr(cluster, name, content.get(name, getattr(cluster, name)))
    for node in cluster.nodes:
        directory = cluster.state / "nodes" / node
        for file in (directory / "qemu-server").glob("*.json"):
            vm = VirtualMachine(**read_json(file))
            cluster.vms[vm.vmid] = vm
        rows = read_json(file) if (file := directory / "volumes.json").exists() else []
        cluster.volumes[node] = {row["volid"]: Volume(**row) for row in rows}
