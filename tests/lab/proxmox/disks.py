# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/N/qemu/ID/resize and move_disk: one disk grows, or goes elsewhere (PVE/API2/Qemu.pm)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

from . import volumes
from .checks import check_digest, check_lock, check_skiplock
from .config import (
    DRIVE,
    UNUSED,
    Drive,
    boot_devices,
    digest,
    drives,
    format_size,
    parse_drive,
    parse_size,
    without_device,
)
from .configure import Changes, add_unused, drop_used_from_unused, update
from .errors import ApiError, invalid
from .rights import Subject
from .routes import Call, endpoint
from .store import Cluster, VirtualMachine, Volume
from .tasks import Task, vm_lock
from .template import make_bases


@endpoint("PUT", "/nodes/{node}/qemu/{vmid}/resize")
async def resize(call: Call) -> object:
    """Every check beyond the parameters is made inside the task."""
    check_skiplock(call)

    async def worker(task: Task) -> None:
        call.vm()
        async with vm_lock(call.cluster, call.params["vmid"], task):
            vm = call.vm()
            check_digest(call, vm)
            if not call.params.get("skiplock"):
                check_lock(vm)
            _grow(call, vm, task)

    return call.start("resize", worker)


def _grow(call: Call, vm: VirtualMachine, task: Task) -> None:
    """Grows a disk to, or with `+` by, a size; everything else is refused."""
    disk, text = call.params["disk"], call.params["size"]
    drive = drives(vm.config).get(disk)
    if drive is None:
        raise ApiError(f"disk '{disk}' does not exist")
    if drive.cdrom:
        raise ApiError("you can't resize a cdrom")
    call.require(f"/storage/{volumes.split(drive.file)[0]}", "Datastore.AllocateSpace")
    volume = volumes.stat(call.cluster, vm.node, drive.file)
    size = parse_size(text.lstrip("+")) + (volume.size if text.startswith("+") else 0)
    if size < volume.size:
        raise ApiError("shrinking disks is not supported")
    if size == volume.size:
        return
    if volume.format not in ("raw", "qcow2"):
        raise ApiError("can't resize this image format")
    volumes.resize(call.cluster, vm.node, volume, size)
    vm.config[disk] = Drive(drive.file, {**drive.keys, "size": format_size(size)}).text()
    call.cluster.save_vm(vm)
    task.log.append("Image resized.")


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/move_disk")
async def move_disk(call: Call) -> object:
    """To another storage, or to another virtual machine of the node."""
    store, other = call.params.get("storage"), call.params.get("target-vmid")
    if store and other:
        raise invalid(dict.fromkeys(("target-vmid", "storage"), "either set 'storage' or 'target-vmid', but not both"))
    if other:
        return _reassign(call, other)
    if not store:
        text = "both 'storage' and 'target-vmid' missing, either needs to be set"
        raise invalid(dict.fromkeys(("target-vmid", "storage"), text))
    call.require(f"/storage/{store}", "Datastore.AllocateSpace")
    _movable(call)

    async def worker(task: Task) -> None:
        async with vm_lock(call.cluster, call.params["vmid"], task):
            await _move(call, *_movable(call), task)

    return call.start("qmmove", worker)


def _check_unmodified(given: str | None, vm: VirtualMachine) -> None:
    if given and given != digest(vm):
        raise ApiError("detected modified configuration - file changed by other user? Try again.")


def _any_drive(vm: VirtualMachine, disk: str) -> Drive:
    """A drive or unusedN; 500 for none and for a CD."""
    if disk not in vm.config:
        raise ApiError(f"disk '{disk}' does not exist")
    drive = parse_drive(disk, str(vm.config[disk])) if DRIVE.fullmatch(disk) else Drive(str(vm.config[disk]))
    if drive.cdrom and not drive.cloudinit:
        raise ApiError("you can't move a cdrom")
    return drive


def _movable(call: Call) -> tuple[VirtualMachine, Drive, bool]:
    """What is to be moved, and whether snapshots hold it, too."""
    cluster, disk, store = call.cluster, call.params["disk"], call.params["storage"]
    vm = call.vm()
    check_lock(vm)
    _check_unmodified(call.params.get("digest"), vm)
    drive = _any_drive(vm, disk)
    kind = volumes.stat(cluster, vm.node, drive.file).format
    if volumes.split(drive.file)[0] == store and call.params.get("format", kind) == kind:
        raise ApiError("you can't move to the same storage with same format")
    volumes.enabled_storage(cluster, vm.node, store)
    if "images" not in volumes.contents(cluster, store):
        raise invalid({"storage": f"storage '{store}' does not support vm images"})
    held = any(drive.file in _files(config) for config in vm.snapshots.values())
    if held and call.params.get("delete"):
        raise ApiError("you can't move a disk with snapshots and delete the source")
    return vm, drive, held


def _files(config: dict[str, str | int]) -> list[str]:
    return [drive.file for drive in drives(config).values()]


async def _move(call: Call, vm: VirtualMachine, drive: Drive, held: bool, task: Task) -> None:
    cluster, disk, store = call.cluster, call.params["disk"], call.params["storage"]
    old = volumes.split(drive.file)[0]
    task.log.append(f"copying volume '{drive.file}' from current storage '{old}' to target storage '{store}'")
    if held:
        task.log.append("moving disk with snapshots, snapshots will not be moved!")
    if disk == "tpmstate0" and cluster.power(vm) != "stopped":
        raise ApiError("storage migration failed: cannot move TPM state while VM is running")
    source = volumes.stat(cluster, vm.node, drive.file)
    kind = volumes.possible_format(cluster, store, call.params.get("format") or source.format)
    task.log.append(f"create full clone of drive {disk} ({drive.file})")
    with _freed_on_failure(cluster, vm) as fresh:
        await asyncio.sleep(cluster.timing.volume)
        volume = _place(cluster, vm, drive, store, kind)
        fresh.append(volume.volid)
        if not drive.cloudinit:
            limit = call.params.get("bwlimit", 0)
            await volumes.copy(cluster, source, volume, task.log, bwlimit=limit, end=volumes.BY_SIGNAL)
    keys = {key: value for key, value in drive.keys.items() if key != "format"}
    vm.config[disk] = Drive(volume.volid, keys | {"size": format_size(volume.size)}).text()
    if UNUSED.fullmatch(disk):
        vm.config[disk] = volume.volid
    if vm.booted == drive.file:
        vm.booted = volume.volid  # the guest goes on with the copy
    if not call.params.get("delete"):
        name = add_unused(vm.config, drive.file)
        task.log.append(f"adding source volume '{drive.file}' as '{name}' to config")
    if vm.config.get("template"):
        make_bases(cluster, vm, disk)
    drop_used_from_unused(vm)
    cluster.save_vm(vm)
    if call.params.get("delete"):
        task.log.append(f"removing source volume '{drive.file}' after successful copy")
        try:
            volumes.free(cluster, vm.node, drive.file)
        except ApiError as error:
            task.log.append(error.message)


def _place(cluster: Cluster, vm: VirtualMachine, drive: Drive, store: str, kind: str) -> Volume:
    if drive.cloudinit:
        file, size = f"vm-{vm.vmid}-cloudinit.{kind}", volumes.CLOUDINIT_SIZE
        return volumes.allocate(cluster, vm.node, store, vm.vmid, size, name=file, kind=kind)
    source = volumes.stat(cluster, vm.node, drive.file)
    return volumes.allocate_like(cluster, vm.node, store, vm.vmid, source=source, kind=kind)


@contextmanager
def _freed_on_failure(cluster: Cluster, vm: VirtualMachine) -> Iterator[list[str]]:
    """New volumes that are noted here do not outlive a failure."""
    fresh: list[str] = []
    try:
        yield fresh
    except (ApiError, asyncio.CancelledError) as error:
        for volid in fresh:
            volumes.free(cluster, vm.node, volid)
        reason = error.message if isinstance(error, ApiError) else volumes.BY_SIGNAL
        raise ApiError(f"storage migration failed: {reason}") from None


def _reassign(call: Call, other: int) -> str:
    vmid, disk = call.params["vmid"], call.params["disk"]
    Subject(call, other, call.cluster.pool_of(other)).require("VM.Config.Disk")
    if other == vmid:
        raise invalid({"target-vmid": "must be different than source VMID to reassign disk"})
    slot = call.params.get("target-disk", disk)
    _source, _target, drive = _reassignable(call, slot)
    call.require(f"/storage/{volumes.split(drive.file)[0]}", "Datastore.AllocateSpace")

    async def worker(task: Task) -> None:
        async with vm_lock(call.cluster, vmid, task), vm_lock(call.cluster, other, task):
            source, target, drive = _reassignable(call, slot)
            task.log.append(f"reassign disk '{disk}' from VM '{vmid}' as '{slot}' to VM '{other}'")
            volid = volumes.reassign(call.cluster, source.node, drive.file, other)
            source.config.pop(disk)
            if disk in boot_devices(source.config.get("boot", "")):
                source.config["boot"] = without_device(source.config["boot"], disk)
            call.cluster.save_vm(source)
            if UNUSED.fullmatch(slot):
                target.config[slot] = volid
                call.cluster.save_vm(target)
            else:
                moved = Drive(volid, drive.keys).text()
                await update(call.cluster, target, Changes({slot: moved}, ()), task.log)

    return call.start("qmmove", worker, f"{vmid}-{disk}>{other}-{slot}")


def _reassignable(call: Call, slot: str) -> tuple[VirtualMachine, VirtualMachine, Drive]:
    """Source, target and drive, after the server's checks."""
    cluster, vmid, other, disk = call.cluster, call.params["vmid"], call.params["target-vmid"], call.params["disk"]
    if vmid not in cluster.vms:
        raise ApiError(f"could not find VM {vmid}")
    if other not in cluster.vms:
        raise ApiError(f"could not find target VM {other}")
    source, target = cluster.vms[vmid], cluster.vms[other]
    if source.node != target.node:
        raise ApiError(f"Both VMs need to be on the same node ({source.node} != {target.node})")
    check_lock(source)
    check_lock(target)
    if source.config.get("template") or target.config.get("template"):
        raise ApiError("Can't move disks from or to template VMs")
    for key, vm in (("digest", source), ("target-digest", target)):
        try:
            _check_unmodified(call.params.get(key), vm)
        except ApiError as error:
            raise ApiError(f"VM {vm.vmid}: {error.message}") from None
    if disk not in source.config:
        raise ApiError(f"Disk '{disk}' for VM '{vmid}' does not exist")
    if slot in target.config:
        raise ApiError(f"Target disk key '{slot}' is already in use for VM '{other}'")
    drive = parse_drive(disk, str(source.config[disk])) if DRIVE.fullmatch(disk) else Drive(str(source.config[disk]))
    if drive.cdrom and not drive.cloudinit:
        raise ApiError("CD drive contents can't be moved to another VM")
    if any(drive.file in _files(config) for config in source.snapshots.values()):
        raise ApiError("Can't move disk used by a snapshot to another VM")
    if cluster.power(source) != "stopped" and not re.match("unused", disk):
        raise ApiError("Cannot move disk to another VM while the source VM is running - detach first")
    return source, target, drive
