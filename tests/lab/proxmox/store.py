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

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .guests import Guests, NoGuests

Option = str | int


@dataclass(frozen=True)
class Timing:
    """Delays in seconds, as measured on the real server (proxmox-api.md)."""

    refused_login: float = 3.0
    statistics: float = 10.0  # between two rounds of pvestatd; 0 = every read is fresh
    agent: float = 3.0
    lock: float = 10.0
    image_copy: float = 0.3  # a disk imported from an image
    power_on: float = 0.2
    shutdown: float = 60.0  # grace of a shutdown that names none


@dataclass
class VirtualMachine:
    """One virtual machine; `config` is what runs, `pending` and `deleted` wait for the next power cycle."""

    vmid: int
    node: str
    config: dict[str, Option] = field(default_factory=dict)
    pending: dict[str, Option] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
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


@dataclass
class Cluster:
    """The whole simulated cluster and what it needs to act."""

    state: Path
    name: str
    nodes: tuple[str, ...]
    hosts: Guests
    timing: Timing
    blank: NoGuests = field(default_factory=NoGuests)
    vms: dict[int, VirtualMachine] = field(default_factory=dict)
    volumes: dict[str, dict[str, Volume]] = field(default_factory=dict)  # by node, by volume id
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)  # comment, vms, storage
    storages: dict[str, dict[str, Any]] = field(default_factory=dict)  # type, path, content, ...
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    roles: dict[str, list[str]] = field(default_factory=dict)
    acl: list[dict[str, Any]] = field(default_factory=list)
    tickets: dict[str, str] = field(default_factory=dict)  # ticket → user; they end with the process
    statistics: dict[int, dict[str, Any]] = field(default_factory=dict)  # rows of the last pvestatd round
    locks: dict[int, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

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


_CLUSTER_KEYS = ("pools", "storages", "users", "roles", "acl")


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
            setattr(cluster, name, content[name])
    for node in cluster.nodes:
        directory = cluster.state / "nodes" / node
        for file in (directory / "qemu-server").glob("*.json"):
            vm = VirtualMachine(**read_json(file))
            cluster.vms[vm.vmid] = vm
        rows = read_json(file) if (file := directory / "volumes.json").exists() else []
        cluster.volumes[node] = {row["volid"]: Volume(**row) for row in rows}
