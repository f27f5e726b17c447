# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/N/qemu/ID/migrate: a virtual machine goes to another node (PVE/API2/Qemu.pm, PVE/QemuMigrate.pm).

A failed migration ends in `migration aborted`; the reason is in the lines before.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import volumes
from .checks import check_lock, check_node_exists
from .config import UNITS, UNUSED, drives, memory, parse_size, property_keys
from .errors import ApiError, invalid
from .formats import split_list
from .rights import Subject
from .routes import Call, endpoint
from .store import Cluster, Option, VirtualMachine
from .tasks import Task, vm_lock


@dataclass
class LocalVolume:
    """A volume that the virtual machine names, by what names it."""

    volid: str
    cdrom: bool = True
    cloudinit: bool = False
    attached: bool = False
    unused: bool = False
    vmstate: bool = False
    tpmstate: bool = False
    pending: bool = False
    replicate: bool = False
    shared: bool = False
    drive: str = ""
    size: int = 0
    snapshots: dict[str, int] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """As GET shows it."""
        flags = {"cdrom": self.cdrom, "is_cloudinit": self.cloudinit, "is_attached": self.attached}
        flags |= {"is_unused": self.unused, "is_vmstate": self.vmstate, "is_tpmstate": self.tpmstate}
        flags |= {"replicate": self.replicate, "shared": self.shared}
        row: dict[str, Any] = {"volid": self.volid} | {key: int(value) for key, value in flags.items()}
        row |= {"drivename": self.drive} if self.drive else {}
        row |= {"size": self.size} if self.size else {}
        row |= {"referenced_in_pending": 1} if self.pending else {}
        return row | ({"referenced_in_snapshot": self.snapshots} if self.snapshots else {})


def named_volumes(vm: VirtualMachine) -> list[LocalVolume]:
    """Everything that configuration, pending changes and snapshots name (PVE/QemuServer.pm `foreach_volid`)."""
    found: dict[str, LocalVolume] = {}
    places: list[tuple[Mapping[str, Option], str]] = [(vm.config, ""), (vm.pending, "")]
    places += [(config, name) for name, config in vm.snapshots.items()]
    for config, snapshot in places:
        for name, drive in drives(config).items():
            volume = found.setdefault(drive.file, LocalVolume(drive.file))
            volume.cdrom &= drive.cdrom or drive.cloudinit
            volume.cloudinit |= drive.cloudinit
            volume.attached |= config is vm.config
            volume.pending |= config is vm.pending
            volume.tpmstate |= name == "tpmstate0"
            volume.replicate |= drive.keys.get("replicate") != "0"
            volume.shared |= drive.keys.get("shared") == "1"
            volume.drive = name
            volume.size = volume.size or parse_size(drive.keys.get("size", "0"))
            volume.snapshots |= {snapshot: 1} if snapshot else {}
        if "vmstate" in config:
            state = found.setdefault(
                str(config["vmstate"]), LocalVolume(str(config["vmstate"]), cdrom=False, replicate=True)
            )
            state.vmstate, state.snapshots = True, state.snapshots | {snapshot: 1}
        for name in (name for name in config if UNUSED.fullmatch(name)):
            volume = found.setdefault(str(config[name]), LocalVolume(str(config[name]), cdrom=False, replicate=True))
            volume.unused = True
    found.pop("none", None)
    return list(found.values())


def _local(cluster: Cluster, vm: VirtualMachine) -> list[LocalVolume]:
    return [
        volume
        for volume in named_volumes(vm)
        if not volume.shared and not (":" in volume.volid and volumes.shared(cluster, volumes.split(volume.volid)[0]))
    ]


def local_resources(config: Mapping[str, Option], running: bool) -> tuple[list[str], dict[str, dict[str, str]]]:
    """(options that tie the machine to its node, mapped devices by option)."""
    tied = [name for name in ("amd-sev", "intel-tdx") if running and name in config]
    tied += ["ivshmem"] if "ivshmem" in config else []
    mapped: dict[str, dict[str, str]] = {}
    for name, value in config.items():
        match = re.fullmatch(r"(usb|hostpci|serial|parallel|virtiofs)\d+", name)
        if not match or (match[1] == "serial" and value == "socket"):
            continue
        keys = property_keys(match[1], str(value), name) if match[1] in ("usb", "hostpci", "virtiofs") else {}
        if match[1] == "usb" and keys.get("host", "").lower() == "spice":
            continue
        if target := keys.get("mapping") or keys.get("dirid"):
            mapped[name] = {"name": target}
            if match[1] == "hostpci" and not running:
                continue
        tied.append(name)
    return tied, mapped


def _unavailable(cluster: Cluster, vm: VirtualMachine, node: str) -> list[str]:
    """Storages of the drives that a node does not have."""
    used = {volumes.split(drive.file)[0] for drive in drives(vm.config).values() if ":" in drive.file}
    return sorted(store for store in used if not _available(cluster, node, store))


def _available(cluster: Cluster, node: str, store: str) -> bool:
    try:
        volumes.enabled_storage(cluster, node, store)
    except ApiError:
        return False
    return True


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/migrate")
async def preconditions(call: Call) -> object:
    vm, cluster = call.vm(), call.cluster
    check_lock(vm)
    running = cluster.power(vm) != "stopped"
    tied, mapped = local_resources(vm.config, running)
    refused: dict[str, dict[str, Any]] = {}
    for node in (node for node in cluster.nodes if node != vm.node):
        missing = _unavailable(cluster, vm, node)
        refused[node] = {"unavailable_storages": missing} if missing else {}
        refused[node] |= {"unavailable-resources": sorted(mapped)} if mapped else {}  # no mapping is ever defined
    return {
        "running": int(running),
        "allowed_nodes": [node for node, reasons in refused.items() if not reasons],
        "not_allowed_nodes": refused,
        "local_disks": [volume.row() for volume in _local(cluster, vm)],
        "local_resources": tied,
        "mapped-resources": sorted(mapped),
        "mapped-resource-info": mapped,
        "has-dbus-vmstate": 1,
    }


@dataclass(frozen=True)
class StorageMap:
    """Which storage of the target takes the volumes of which."""

    entries: Mapping[str, str]
    default: str = ""

    def target(self, store: str) -> str:
        return self.entries.get(store, self.default or store)


def parse_map(text: str) -> StorageMap:
    """`1`, a storage, or pairs A:B (PVE/JSONSchema.pm `parse_idmap`)."""
    items = split_list(text)
    pairs = dict(item.split(":", 1) for item in items if ":" in item)
    plain = [item for item in items if ":" not in item]
    problem = ""
    if len(plain) > 1:
        problem = "default target ID can only be provided once\n"
    if "1" in plain and len(items) > 1:
        problem = "identity mapping cannot be combined with other mappings\n"
    if problem:
        raise invalid({"targetstorage": f"failed to parse storage map: {problem}"})
    return StorageMap(pairs, plain[0] if plain and plain[0] != "1" else "")


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/migrate")
async def migrate(call: Call) -> object:
    cluster, target = call.cluster, call.params["target"]
    if target == call.node:
        raise invalid({"target": "target is local node."})
    check_node_exists(cluster, target)
    for name in ("force", "migration_type", "migration_network"):
        if call.params.get(name) and not call.who.root_itself:
            raise invalid({name: "Only root may use this option."})
    vm = call.vm()
    check_lock(vm)
    if cluster.power(vm) != "stopped" and not call.params.get("online"):
        raise ApiError("can't migrate running VM without --online")
    stores = _check_storages(call, vm, target)

    async def worker(task: Task) -> None:
        started = time.monotonic()
        try:
            async with vm_lock(cluster, vm.vmid, task):
                await _migrate(call, target, stores, task)
        except ApiError as error:
            _log(task, f"ERROR: migration aborted (duration {_duration(started)}): {error.message}")
            raise ApiError("migration aborted") from None
        _log(task, f"migration finished successfully (duration {_duration(started)})")

    return call.start("qmigrate", worker)


def _check_storages(call: Call, vm: VirtualMachine, target: str) -> StorageMap:
    cluster, text = call.cluster, call.params.get("targetstorage", "")
    stores = parse_map(text)
    if text and text != "1":
        Subject(call, vm.vmid, cluster.pool_of(vm.vmid)).require("VM.Config.Disk")
        for store in [*stores.entries.values(), *([stores.default] if stores.default else [])]:
            volumes.enabled_storage(cluster, target, store)
            call.require(f"/storage/{store}", "Datastore.AllocateSpace")
            if "images" not in volumes.contents(cluster, store):
                raise ApiError(f"storage '{store}' does not support vm images")
        return stores
    for drive in drives(vm.config).values():
        if ":" in drive.file:
            store, volume = volumes.split(drive.file)
            volumes.enabled_storage(cluster, vm.node, store)
            volumes.enabled_storage(cluster, target, store)
            kind = "iso" if volume.startswith("iso/") else "images"
            if kind not in volumes.contents(cluster, store):
                raise ApiError(f"{drive.file}: content type '{kind}' is not available on storage '{store}'")
    return stores


def _log(task: Task, text: str) -> None:
    task.log.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")


def _duration(started: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(time.monotonic() - started))


async def _migrate(call: Call, target: str, stores: StorageMap, task: Task) -> None:
    cluster, vm = call.cluster, call.vm()
    check_lock(vm)
    running = cluster.power(vm) != "stopped"
    if running and not call.params.get("online"):
        raise ApiError("can't migrate running VM without --online")
    _check_resources(call, vm, target, running, task)
    moving = _check_volumes(call, vm, running, task)
    for volume in moving:
        volumes.enabled_storage(cluster, target, stores.target(volumes.split(volume.volid)[0]))
    vm.config["lock"] = "migrate"
    cluster.save_vm(vm)
    try:
        address = cluster.world.address(target)
        _log(task, f"starting migration of VM {vm.vmid} to node '{target}' ({address})")
        await _copy(call, vm, moving, task)
    except asyncio.CancelledError:
        raise ApiError("received interrupt") from None
    finally:
        vm.config.pop("lock")
        cluster.save_vm(vm)
    _hand_over(call, vm, moving, stores, task)


def _check_resources(call: Call, vm: VirtualMachine, target: str, running: bool, task: Task) -> None:
    tied, mapped = local_resources(vm.config, running)
    blocking = [name for name in tied if name not in mapped]
    if blocking and not call.params.get("force"):
        raise ApiError(f"can't migrate VM which uses local devices: {', '.join(blocking)}")
    if blocking:
        _log(task, "migrating VM which uses local devices")
    if mapped:
        raise ApiError(f"can't migrate to '{target}': missing mapped devices {', '.join(sorted(mapped))}")


def _check_volumes(call: Call, vm: VirtualMachine, running: bool, task: Task) -> list[LocalVolume]:
    """The local volumes that must move; 500 when one of them cannot."""
    cluster, local, problems = call.cluster, _local(call.cluster, vm), dict[str, str]()
    for volume in sorted(local, key=lambda volume: volume.volid):
        if problem := _problem(cluster, vm, volume, running):
            problems[volume.volid] = problem
        elif volume.attached and running and not volume.cloudinit and not call.params.get("with-local-disks"):
            problems[volume.volid] = "can't live migrate attached local disks without with-local-disks option"
        elif volume.cloudinit or volume.tpmstate:
            _log(task, f"found generated disk '{volume.volid}' (in current VM config)")
        else:
            why = "attached" if volume.attached else "unused" if volume.unused else "referenced by snapshot(s)"
            _log(task, f"found local disk '{volume.volid}' ({why})")
    for volid, problem in problems.items():
        _log(task, f"can't migrate local disk '{volid}': {problem}")
    if problems:
        raise ApiError("Problem found while scanning volumes - can't migrate VM - check log")
    for volume in local:
        if base := volumes.base_of(volume.volid):
            name = base.rsplit("/", 1)[-1]
            raise ApiError(
                f"Problem found while scanning volumes - can't migrate '{volume.volid}' as it's a clone of '{name}'"
            )
    return local


def _problem(cluster: Cluster, vm: VirtualMachine, volume: LocalVolume, running: bool) -> str:
    """Why a volume cannot go to another node; "" for one that can."""
    volid, owner = volume.volid, volumes.owner_of(volume.volid)
    if volid.startswith("/") or volid == "cdrom":
        return "local file/device" if volid.startswith("/") else "can't migrate local cdrom drive"
    held = bool(volume.snapshots) and not volume.vmstate and not volume.cloudinit
    reasons = {
        "local cdrom image": volume.cdrom and not volume.cloudinit,
        f"owned by other VM (owner = VM {owner})": owner != vm.vmid,
        "online storage migration not possible if non-replicated snapshot exists": held and running,
        "non-migratable snapshot exists": held and volumes.stat(cluster, vm.node, volid).format != "qcow2",
        "referenced by linked clone(s)": volumes.in_use_by_clones(cluster, vm.node, volid),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


async def _copy(call: Call, vm: VirtualMachine, moving: list[LocalVolume], task: Task) -> None:
    cluster = call.cluster
    await asyncio.sleep(cluster.timing.migration)
    for volume in moving:
        await asyncio.sleep(cluster.timing.volume)
        source = volumes.stat(cluster, vm.node, volume.volid)
        await volumes.copy(cluster, source, source, task.log, bwlimit=call.params.get("bwlimit", 0))
    if cluster.power(vm) != "stopped":
        _log(task, "start migrate command")
        await asyncio.sleep(cluster.timing.image_copy * memory(vm.config) / UNITS["G"])


def _hand_over(call: Call, vm: VirtualMachine, moving: list[LocalVolume], stores: StorageMap, task: Task) -> None:
    """Volumes and configuration belong to the other node."""
    cluster, target = call.cluster, call.params["target"]
    renamed: dict[str, str] = {}
    for local in moving:
        volume = volumes.stat(cluster, vm.node, local.volid)
        store = stores.target(volumes.split(local.volid)[0])
        renamed[local.volid] = volumes.transfer(cluster, volume, vm.node, target, store)
        _log(task, f"volume '{local.volid}' is '{renamed[local.volid]}' on the target")
    cluster.forget_vm(vm)
    for config in (vm.config, vm.pending, *vm.snapshots.values()):
        _rename(config, renamed)
    vm.node, vm.booted = target, renamed.get(vm.booted, vm.booted)
    cluster.vms[vm.vmid] = vm
    cluster.save_vm(vm)


def _rename(config: dict[str, Option], renamed: Mapping[str, str]) -> None:
    for name, drive in drives(config).items():
        if drive.file in renamed:
            config[name] = type(drive)(renamed[drive.file], drive.keys).text()
    for name in (name for name in config if UNUSED.fullmatch(name) or name == "vmstate"):
        config[name] = renamed.get(str(config[name]), config[name])
