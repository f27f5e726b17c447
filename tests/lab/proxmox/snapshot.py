# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/N/qemu/ID/snapshot: take, list, describe, roll back, delete (PVE/AbstractConfig.pm, PVE/QemuConfig.pm).

Options and sizes are kept; the files of a lab host are not: a rollback leaves what the guest wrote.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from . import power, volumes
from .checks import check_lock, find_snapshot
from .config import UNITS, UNUSED, Drive, digest, drives, memory, new_uuid
from .configure import add_unused, drop_used_from_unused
from .errors import ApiError
from .routes import Call, endpoint, find_vm
from .store import Cluster, Option, VirtualMachine, Volume
from .tasks import Task, vm_lock

OWN = frozenset(("snapstate", "snaptime", "vmstate", "lock", "description"))  # not copied from or to a configuration
RUNNING = {"runningmachine": "pc-i440fx-10.0+pve0", "runningcpu": "qemu64"}  # noted with a saved memory
STATE_EXTRA = 500 << 20  # bytes of devices beside twice the memory


def _disks(config: dict[str, Option]) -> Iterator[tuple[str, Drive]]:
    """The drives that snapshots concern."""
    return ((name, drive) for name, drive in drives(config).items() if not drive.cdrom)


def _volumes(cluster: Cluster, vm: VirtualMachine, config: dict[str, Option]) -> list[Volume]:
    return [volumes.stat(cluster, vm.node, drive.file) for _name, drive in _disks(config)]


def _copied(config: dict[str, Option]) -> dict[str, Option]:
    return {name: value for name, value in config.items() if name not in OWN and not UNUSED.fullmatch(name)}


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/snapshot")
async def index(call: Call) -> object:
    vm = call.vm()
    rows = []
    for name, config in vm.snapshots.items():
        row: dict[str, Option] = {"name": name, "snaptime": config.get("snaptime", 0)}
        row |= {"vmstate": int("vmstate" in config), "description": config.get("description", "")}
        rows.append(row | {key: config[key] for key in ("parent", "snapstate") if key in config})
    current: dict[str, Option] = {"name": "current", "digest": digest(vm), "description": "You are here!"}
    current |= {"running": int(call.cluster.power(vm) != "stopped")}
    return [*rows, current | ({"parent": vm.config["parent"]} if "parent" in vm.config else {})]


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/snapshot")
async def create(call: Call) -> object:
    name = call.params["snapname"]
    if name == "current" or name.lower() == "pending":
        raise ApiError(f"unable to use snapshot name '{name.lower()}' (reserved name)")
    vm = call.vm()
    blockers = sorted({option.rstrip("0123456789") for option in vm.config} & {"amd-sev", "intel-tdx", "virtiofs"})
    if call.params.get("vmstate") and blockers:
        text = "Cannot live-migrate, snapshot (with RAM), or hibernate a VM with"
        raise ApiError(f"{text}: {', '.join(blockers)}")

    async def worker(task: Task) -> None:
        await _take(call, name, task)

    return call.start("qmsnapshot", worker)


async def _take(call: Call, name: str, task: Task) -> None:
    """The configuration first, under a lock that others see; then the disks; then it counts."""
    cluster = call.cluster
    async with vm_lock(cluster, call.params["vmid"], task):
        vm = call.vm()
        _check_possible(cluster, vm, name)
        vm.config["lock"] = "snapshot"
        vm.snapshots[name] = _copied(vm.config) | {"snapstate": "prepare", "snaptime": int(time.time())}
        for other in vm.snapshots.values():
            if other.get("parent") == name:
                other.pop("parent")
        if description := call.params.get("description"):
            vm.snapshots[name]["description"] = description
        cluster.save_vm(vm)
    try:
        if call.params.get("vmstate") and cluster.power(vm) != "stopped":
            await _save_memory(cluster, vm, name, task)
        for slot, drive in _disks(vm.snapshots[name]):
            await asyncio.sleep(cluster.timing.volume)
            task.log.append(f"snapshotting 'drive-{slot}' ({drive.file})")
            volume = volumes.stat(cluster, vm.node, drive.file)
            volume.snapshots[name] = volume.size
    except (ApiError, asyncio.CancelledError):
        task.log.append("snapshot create failed: starting cleanup")
        _discard(cluster, vm, name)
        raise
    vm.snapshots[name].pop("snapstate")
    vm.config.pop("lock")
    vm.config["parent"] = name
    _save(cluster, vm)


def _check_possible(cluster: Cluster, vm: VirtualMachine, name: str) -> None:
    if vm.config.get("template"):
        raise ApiError("you can't take a snapshot if it's a template")
    check_lock(vm)
    if name in vm.snapshots:
        raise ApiError(f"snapshot name '{name}' already used")
    if not all(volumes.has_feature(volume, "snapshot") for volume in _volumes(cluster, vm, vm.config)):
        raise ApiError("snapshot feature is not available")


async def _save_memory(cluster: Cluster, vm: VirtualMachine, name: str, task: Task) -> None:
    """The memory goes to a volume of twice its size."""
    store = _state_storage(cluster, vm)
    size = memory(vm.config) * 2 + STATE_EXTRA
    volume = volumes.allocate(cluster, vm.node, store, vm.vmid, size, name=f"vm-{vm.vmid}-state-{name}.raw")
    vm.snapshots[name] |= {"vmstate": volume.volid} | RUNNING
    cluster.save_vm(vm)
    task.log.append(f"saving VM state and RAM using storage '{store}'")
    await asyncio.sleep(cluster.timing.image_copy * memory(vm.config) / UNITS["G"])
    task.log.append(f"completed saving the VM state in 1s, saved {memory(vm.config) / UNITS['M']:.2f} MiB")


def _state_storage(cluster: Cluster, vm: VirtualMachine) -> str:
    """The named one, else a shared one that holds a disk, else any that does."""
    if name := vm.config.get("vmstatestorage"):
        return str(name)
    used = sorted({volumes.split(drive.file)[0] for _name, drive in _disks(vm.config)})
    return next((name for name in used if volumes.shared(cluster, name)), used[0] if used else "local")


def _save(cluster: Cluster, vm: VirtualMachine) -> None:
    for node in cluster.nodes:
        cluster.save_volumes(node)
    cluster.save_vm(vm)


def _discard(cluster: Cluster, vm: VirtualMachine, name: str) -> None:
    """A snapshot is gone, with its memory; its disks stay, as unusedN when no drive has them any more."""
    config = vm.snapshots.pop(name)
    if "vmstate" in config:
        volumes.free(cluster, vm.node, str(config["vmstate"]))
    for _slot, drive in _disks(config):
        if volume := volumes.find(cluster, vm.node, drive.file):
            volume.snapshots.pop(name, None)
            add_unused(vm.config, drive.file)
    for other in (vm.config, *vm.snapshots.values()):
        if other.get("parent") == name:
            other.pop("parent")
            other.update({"parent": config["parent"]} if "parent" in config else {})
    vm.config.pop("lock", None)
    drop_used_from_unused(vm)
    _save(cluster, vm)


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/snapshot/{snapname}")
async def verbs(call: Call) -> object:
    return [{"cmd": "rollback"}, {"cmd": "config"}]


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/snapshot/{snapname}/config")
async def read(call: Call) -> object:
    return find_snapshot(call.vm(), call.params["snapname"])


@endpoint("PUT", "/nodes/{node}/qemu/{vmid}/snapshot/{snapname}/config")
async def describe(call: Call) -> object:
    if "description" in call.params:
        async with vm_lock(call.cluster, call.params["vmid"]):
            vm = call.vm()
            check_lock(vm)
            find_snapshot(vm, call.params["snapname"])["description"] = call.params["description"]
            call.cluster.save_vm(vm)
    return None


@endpoint("DELETE", "/nodes/{node}/qemu/{vmid}/snapshot/{snapname}")
async def delete(call: Call) -> object:
    """Whether there is such a snapshot is found out inside the task."""
    cluster, name = call.cluster, call.params["snapname"]

    async def worker(task: Task) -> None:
        async with vm_lock(cluster, call.params["vmid"], task):
            vm = call.vm()
            config = find_snapshot(vm, name)
            check_lock(vm)
            if vm.config.get("template"):
                raise ApiError("you can't delete a snapshot if vm is a template")
            vm.config["lock"] = "snapshot-delete"
            config["snapstate"] = "delete"
            cluster.save_vm(vm)
        for _disk in _disks(config):
            await asyncio.sleep(cluster.timing.volume)
        _discard(cluster, vm, name)

    return call.start("qmdelsnapshot", worker)


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/snapshot/{snapname}/rollback")
async def rollback(call: Call) -> object:
    """A running virtual machine is stopped first; one with saved memory runs again afterwards."""
    if call.params.get("start"):
        call.require(f"/vms/{call.params['vmid']}", "VM.PowerMgmt")
    cluster, name, vmid = call.cluster, call.params["snapname"], call.params["vmid"]

    async def worker(task: Task) -> None:
        async with vm_lock(cluster, vmid, task):
            vm = call.vm()
            if vm.config.get("template"):
                raise ApiError("you can't rollback if vm is a template")
            config = find_snapshot(vm, name)
            if state := config.get("snapstate"):
                raise ApiError(f"unable to rollback to incomplete snapshot (snapstate = {state})")
            check_lock(vm)
            if cluster.power(vm) != "stopped":
                await asyncio.to_thread(cluster.guests(vm).stop, vm.guest)
            vm.config["lock"] = "rollback"
            cluster.save_vm(vm)
        await _restore_disks(cluster, vm, name, config)
        _restore_config(vm, name, config)
        _save(cluster, vm)
        if "vmstate" in config or call.params.get("start"):
            await power.start(cluster, find_vm(cluster, call.node, vmid).node, vmid, task)

    return call.start("qmrollback", worker)


async def _restore_disks(cluster: Cluster, vm: VirtualMachine, name: str, config: dict[str, Option]) -> None:
    for slot, drive in _disks(config):
        await asyncio.sleep(cluster.timing.volume)
        volume = volumes.stat(cluster, vm.node, drive.file)
        if name not in volume.snapshots:
            raise ApiError(f"snapshot '{name}' does not exist on '{drive.file}' ({slot})")
        volume.size = volume.snapshots[name]


def _restore_config(vm: VirtualMachine, name: str, config: dict[str, Option]) -> None:
    """The snapshot's options; description and unused disks are kept, pending changes are not."""
    kept = {key: value for key, value in vm.config.items() if key == "description" or UNUSED.fullmatch(key)}
    then = [drive.file for _slot, drive in _disks(config)]
    for _slot, drive in _disks(vm.config):
        if drive.file not in then:
            add_unused(kept, drive.file)
    then_options = {key: value for key, value in _copied(config).items() if key not in RUNNING}
    vm.config = kept | then_options | {"parent": name}
    if "vmgenid" in vm.config:
        vm.config["vmgenid"] = new_uuid()
    vm.pending, vm.deleted = {}, {}
    drop_used_from_unused(vm)


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/feature")
async def feature(call: Call) -> object:
    """Whether every disk can be cloned, copied or snapshotted, and where the disks are."""
    vm, cluster, name = call.vm(), call.cluster, call.params.get("snapname", "")
    config = find_snapshot(vm, name) if name else vm.config
    found = _volumes(cluster, vm, config)
    able = all(volumes.has_feature(volume, call.params["feature"], name) for volume in found)
    stores = [volumes.split(drive.file)[0] for drive in drives(config).values() if ":" in drive.file]
    everywhere = all(volumes.shared(cluster, store) for store in stores)
    return {"hasFeature": int(able), "nodes": list(cluster.nodes) if everywhere else [vm.node]}
