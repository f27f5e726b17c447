# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""POST /nodes/N/qemu/ID/clone: linked and full copies (PVE/API2/Qemu.pm `clone_vm`, PVE/QemuServer.pm `clone_disk`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from . import firewall, rights, volumes
from .checks import check_known, check_lock, check_node_exists, find_snapshot
from .config import DRIVE, NET, UNUSED, Drive, drives, format_size, new_uuid, with_new_mac, with_new_uuid
from .configure import new_mac
from .errors import ApiError, denied, invalid
from .routes import Call, endpoint
from .store import Cluster, Option, VirtualMachine
from .tasks import Task, shared_vm_lock, vm_lock

PATIENCE = 0.1  # part of the ordinary wait for the locks of both configurations
NOT_COPIED = ("parent", "snaptime", "vmstate", "snapstate", "runningcpu", "runningmachine", "lock", "template")


@dataclass(frozen=True)
class Source:
    """What is to be copied, and how: `config` is that of the snapshot, if one is named."""

    vm: VirtualMachine
    config: Mapping[str, Option]
    snapshot: str
    full: bool
    running: bool


@dataclass(frozen=True)
class Order:
    """`config` without the drives in `disks`; a full copy of those in `full`, a link to the others."""

    source: VirtualMachine
    config: Mapping[str, Option]
    disks: Mapping[str, Drive]
    full: frozenset[str]


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/clone")
async def clone(call: Call) -> object:
    cluster, vmid, newid = call.cluster, call.params["vmid"], call.params["newid"]
    _check_allocation(call)
    check_known(cluster, call.node, vmid)
    running = cluster.power(cluster.vms[vmid]) != "stopped"
    _checked(call, running)
    lock_source = vm_lock if running else shared_vm_lock

    async def worker(task: Task) -> None:
        async with lock_source(cluster, vmid, task, PATIENCE), vm_lock(cluster, newid, task, PATIENCE):
            await _clone(call, _checked(call, running), task)

    return call.start("qmclone", worker)


def _check_allocation(call: Call) -> None:
    pool = call.params.get("pool", "")
    if not call.may(f"/vms/{call.params['newid']}", "VM.Allocate") and not (
        pool and call.may(f"/pool/{pool}", "VM.Allocate")
    ):
        raise denied()


def _target(call: Call) -> str:
    """The other node that the copy is for; "" for none."""
    target = str(call.params.get("target", ""))
    return "" if target in (call.node, "localhost") else target


def _checked(call: Call, running: bool) -> Order:
    """Everything that is checked before the task and again in it."""
    cluster, params, target = call.cluster, call.params, _target(call)
    if params.get("pool", "") not in ("", *cluster.pools):
        raise denied(f"pool '{params['pool']}' does not exist")
    if target:
        check_node_exists(cluster, target)
    if store := params.get("storage"):
        _check_storage(call, store, target)
    vm = call.vm()
    check_lock(vm)
    if (cluster.power(vm) != "stopped") != running:
        raise ApiError("unexpected state change")
    snapshot = str(params.get("snapname", ""))
    config = find_snapshot(vm, snapshot) if snapshot else vm.config
    full = bool(params.get("full", not vm.config.get("template")))
    for name in ("storage", "format"):
        if name in params and not full:
            raise ApiError(f"parameter '{name}' not allowed for linked clones")
    everywhere = _check_access(call, config)
    rights.check_bridges(call, config)
    if target and not everywhere:
        raise ApiError(f"can't clone VM to node '{target}' (VM uses local storage)")
    if (other := cluster.vms.get(params["newid"])) and other.node == call.node:
        raise ApiError(f"unable to create VM {params['newid']}: config file already exists")
    return _order(cluster, Source(vm, config, snapshot, full, running))


def _check_storage(call: Call, store: str, target: str) -> None:
    volumes.enabled_storage(call.cluster, call.node, store)
    if "images" not in volumes.contents(call.cluster, store):
        raise invalid({"storage": f"storage '{store}' does not support vm images"})
    if target:
        volumes.enabled_storage(call.cluster, target, store)
        if not volumes.shared(call.cluster, store):
            raise ApiError(f"can't clone to non-shared storage '{store}'")


def _check_access(call: Call, config: Mapping[str, Option]) -> bool:
    """403 for a storage that the caller may not fill; whether every volume is on shared storage."""
    everywhere = True
    for drive in drives(config).values():
        if drive.file == "cdrom":
            call.require("/", "Sys.Console")
        if drive.file in ("none", "cdrom"):
            continue
        store = volumes.split(drive.file)[0]
        everywhere = everywhere and volumes.shared(call.cluster, store)
        if not drive.cdrom or drive.cloudinit:
            call.require(f"/storage/{call.params.get('storage', store)}", "Datastore.AllocateSpace")
    return everywhere


def _order(cluster: Cluster, source: Source) -> Order:
    copied, disks, whole = dict[str, Option](), dict[str, Drive](), set[str]()
    for name, value in sorted(source.config.items()):
        if name in NOT_COPIED or UNUSED.fullmatch(name):
            continue
        if source.full and source.running and not source.snapshot and name == "tpmstate0":
            raise ApiError("cannot clone TPM state while VM is running")
        if NET.fullmatch(name):
            copied[name] = with_new_mac(str(value), new_mac())
        elif DRIVE.fullmatch(name) and (drive := drives({name: value})[name]) and (drive.cloudinit or not drive.cdrom):
            disks[name] = drive
            if source.full or drive.cloudinit or name == "tpmstate0":
                whole.add(name)
            _check_feature(cluster, source, name, drive, how="Full" if name in whole else "Linked")
        else:
            copied[name] = value
    return Order(source.vm, copied, disks, frozenset(whole))


def _check_feature(cluster: Cluster, source: Source, name: str, drive: Drive, *, how: str) -> None:
    volume = volumes.stat(cluster, source.vm.node, drive.file)
    feature = "copy" if how == "Full" else "clone"
    if not volumes.has_feature(volume, feature, "" if drive.cloudinit else source.snapshot):
        where = " a snapshot of" if source.snapshot else ""
        raise ApiError(f"{how} clone feature is not supported for{where} '{drive.file}' ({name})")


async def _clone(call: Call, order: Order, task: Task) -> None:
    """The copy holds its id from the first moment, with a lock; nothing of it stays when something fails."""
    cluster, newid = call.cluster, call.params["newid"]
    task.log.append(f"creating a clone of VM {order.source.vmid} with ID {newid}")
    if newid in cluster.vms:
        path = f"/etc/pve/nodes/{call.node}/qemu-server/{newid}.conf"
        raise ApiError(f"close (rename) atomic file '{path}' failed: File exists")
    vm = VirtualMachine(newid, call.node, {"lock": "clone", "description": " qmclone temporary file"})
    cluster.vms[newid] = vm
    cluster.save_vm(vm)
    firewall.clone(cluster, order.source.vmid, newid)
    fresh: list[str] = []
    try:
        await _fill(call, order, vm, fresh, task)
    except (ApiError, asyncio.CancelledError) as error:
        for volid in fresh:
            volumes.free(cluster, vm.node, volid)
        firewall.forget(cluster, newid)
        cluster.forget_vm(vm)
        reason = error.message if isinstance(error, ApiError) else volumes.BY_SIGNAL
        raise ApiError(f"clone failed: {reason}") from None


async def _fill(call: Call, order: Order, vm: VirtualMachine, fresh: list[str], task: Task) -> None:
    cluster = call.cluster
    config = _identity(call, order) | {"lock": "clone"}
    for name in order.disks:
        await asyncio.sleep(cluster.timing.volume)
        config[name] = (await _copy_drive(call, order, name, fresh=fresh, task=task)).text()
        vm.config = dict(config)
        cluster.save_vm(vm)
    config.pop("lock")
    if order.source.pending:
        names = ",".join(order.source.pending)
        task.warn(f"found pending changes for '{names}', discarding for clone")
    cluster.forget_vm(vm)
    vm.node, vm.config = _target(call) or vm.node, config
    cluster.vms[vm.vmid] = vm
    cluster.save_vm(vm)
    if pool := call.params.get("pool"):
        cluster.pools[pool]["vms"].append(vm.vmid)
        cluster.save()


def _identity(call: Call, order: Order) -> dict[str, Option]:
    """The copied options with what makes the copy another machine."""
    config = dict(order.config)
    config["smbios1"] = with_new_uuid(str(config.get("smbios1", "")))
    if config.get("vmgenid", "0") != "0":
        config["vmgenid"] = new_uuid()
    config["name"] = call.params.get("name") or f"Copy-of-VM-{config.get('name', order.source.vmid)}"
    if call.params.get("description"):
        config["description"] = call.params["description"]
    return config


async def _copy_drive(call: Call, order: Order, name: str, *, fresh: list[str], task: Task) -> Drive:
    cluster, newid, node, drive = call.cluster, call.params["newid"], call.node, order.disks[name]
    how = "full" if name in order.full else "linked"
    task.log.append(f"create {how} clone of drive {name} ({drive.file})")
    if name not in order.full:
        volume = volumes.link(cluster, node, drive.file, newid)
        fresh.append(volume.volid)
    else:
        source = volumes.stat(cluster, node, drive.file)
        store = call.params.get("storage") or volumes.split(drive.file)[0]
        kind = volumes.possible_format(cluster, store, call.params.get("format") or source.format)
        if drive.cloudinit:
            file, size = f"vm-{newid}-cloudinit.{kind}", volumes.CLOUDINIT_SIZE
            volume = volumes.allocate(cluster, node, store, newid, size, name=file, kind=kind)
        else:
            volume = volumes.allocate_like(cluster, node, store, newid, source=source, kind=kind)
        fresh.append(volume.volid)
        task.log.append(f"allocated target volume '{volume.volid}'")
        if not drive.cloudinit:
            limit = call.params.get("bwlimit", 0)
            await volumes.copy(cluster, source, volume, task.log, bwlimit=limit, end=volumes.BY_SIGNAL)
    keys = {key: value for key, value in drive.keys.items() if key != "format"}
    return Drive(volume.volid, keys | {"size": format_size(volume.size)})
