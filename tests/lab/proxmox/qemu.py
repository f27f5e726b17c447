# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/N/qemu: create, list, read, change and delete virtual machines (PVE/API2/Qemu.pm)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from . import config as options
from . import firewall, ha, power, rights, volumes
from .allocation import make_drives
from .checks import check_lock, check_protection, check_skiplock, find_snapshot
from .config import UNUSED, digest, drives, shown
from .configure import make_options
from .edit import option_params
from .errors import ApiError, denied, invalid
from .rights import Subject
from .routes import Call, endpoint
from .store import Cluster, Option, VirtualMachine
from .tasks import Task, vm_lock

CREATE_PATIENCE, WORKER_PATIENCE = 0.5, 0.1  # parts of the ordinary wait for the lock of a configuration
SUBDIRS = (
    *("config", "cloudinit", "pending", "status", "unlink", "vncproxy", "termproxy", "migrate", "resize", "move"),
    *("rrd", "rrddata", "monitor", "agent", "snapshot", "spiceproxy", "sendkey", "firewall", "mtunnel"),
    "remote_migrate",
)


@endpoint("GET", "/nodes/{node}/qemu")
async def index(call: Call) -> object:
    return [
        power.list_row(call.cluster, vm)
        for vm in call.cluster.vms.values()
        if vm.node == call.node and call.may(f"/vms/{vm.vmid}", "VM.Audit")
    ]


@endpoint("GET", "/nodes/{node}/qemu/{vmid}")
async def subdirs(call: Call) -> object:
    return [{"subdir": name} for name in SUBDIRS]


@endpoint("POST", "/nodes/{node}/qemu")
async def create(call: Call) -> object:
    """Checks what the real server checks at once, takes the id, and leaves the rest to a task."""
    vmid, cluster = call.params["vmid"], call.cluster
    params = _checked_creation(call)
    try:
        async with vm_lock(cluster, vmid, patience=CREATE_PATIENCE):
            if other := cluster.vms.get(vmid):
                raise ApiError(f"VM {vmid} already exists on node '{other.node}'")
            vm = VirtualMachine(vmid, call.node, {"lock": "create"})
            cluster.vms[vmid] = vm
            cluster.save_vm(vm)
    except ApiError as error:
        raise ApiError(f"unable to create VM {vmid} - {error.message}") from None

    async def worker(task: Task) -> None:
        try:
            async with vm_lock(cluster, vmid, task, WORKER_PATIENCE):
                await _create(call, vm, params, task)
        except (ApiError, asyncio.CancelledError):
            cluster.forget_vm(vm)
            raise
        if call.params.get("ha-managed"):
            task.log.append("Add as HA resource")
            ha.set_state(cluster, f"vm:{vmid}", "started" if call.params.get("start") else "stopped")
        elif call.params.get("start"):
            call.start("qmstart", lambda start: power.start(cluster, vm.node, vmid, start))

    return call.start("qmcreate", worker)


def _checked_creation(call: Call) -> dict[str, Any]:
    vmid, pool, params = call.params["vmid"], call.params.get("pool", ""), option_params(call)
    rights.check_keys(params)
    if pool and pool not in call.cluster.pools:
        raise denied(f"pool '{pool}' does not exist")
    subject = Subject(call, vmid, pool)
    if call.params.get("ha-managed"):
        call.require("/", "Sys.Console")
    if call.params.get("start"):
        subject.require("VM.PowerMgmt")
    if not call.may(f"/vms/{vmid}", "VM.Allocate") and not (pool and call.may(f"/pool/{pool}", "VM.Allocate")):
        raise denied()
    if "archive" in call.params:
        for name in drives(params):
            raise invalid({name: "option conflicts with option 'archive'"})
        raise ApiError(f"unable to restore VM {vmid} - backups are not simulated")
    rights.check_storages(call, vmid, params)
    rights.check_options(subject, params)
    rights.check_devices(subject, params)
    rights.check_bridges(call, params)
    rights.check_imports(params)
    return params


async def _create(call: Call, vm: VirtualMachine, params: dict[str, Any], task: Task) -> None:
    cluster = call.cluster
    try:
        made = make_options(params) | await make_drives(cluster, vm, rights.drives_of(params), task.log)
    except ApiError as error:
        raise ApiError(f"unable to create VM {vm.vmid} - {error.message}") from None
    made_up: dict[str, Option] = {
        "smbios1": f"uuid={options.new_uuid()}",
        "vmgenid": options.new_uuid(),
        "meta": f"creation-qemu={cluster.world.qemu},ctime={int(time.time())}",
    }
    if machine := options.pinned_machine(made.get("machine", ""), str(made.get("ostype", ""))):
        made["machine"] = machine
    vm.config = made_up | made
    if "boot" not in made:
        vm.config["boot"] = options.default_boot(vm.config)
    if pool := call.params.get("pool"):
        cluster.pools[pool]["vms"].append(vm.vmid)
        cluster.save()
    cluster.save_vm(vm)


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/config")
async def read(call: Call) -> object:
    """Pending values merged; with `current` only what runs; with `snapshot` what a snapshot holds."""
    name, current = call.params.get("snapshot"), call.params.get("current")
    if name and current:
        raise invalid(dict.fromkeys(("snapshot", "current"), "cannot use 'snapshot' parameter with 'current'"))
    vm = call.vm()
    if name:
        config = find_snapshot(vm, name)
    elif current:
        config = vm.config
    else:
        config = {key: value for key, value in vm.config.items() if key not in vm.deleted} | vm.pending
    return {key: shown(key, value) for key, value in config.items()} | {"digest": digest(vm)}


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/pending")
async def pending(call: Call) -> object:
    vm = call.vm()
    rows: list[dict[str, Option]] = []
    for name in [*vm.config, *(name for name in vm.pending if name not in vm.config)]:
        row: dict[str, Option] = {"key": name}
        row |= {"value": shown(name, vm.config[name])} if name in vm.config else {}
        row |= {"pending": shown(name, vm.pending[name])} if name in vm.pending else {}
        rows.append(row | ({"delete": vm.deleted[name]} if name in vm.deleted else {}))
    return [*rows, {"key": "digest", "value": digest(vm)}]


@endpoint("DELETE", "/nodes/{node}/qemu/{vmid}")
async def delete(call: Call) -> object:
    check_skiplock(call)
    cluster = call.cluster

    def checked() -> VirtualMachine:
        vm = call.vm()
        check_protection(vm, f"can't remove VM {vm.vmid}")
        if cluster.power(vm) != "stopped":
            raise ApiError(f"VM {vm.vmid} is running - destroy failed")
        return vm

    checked()

    async def worker(task: Task) -> None:
        async with vm_lock(cluster, call.params["vmid"], task):
            vm = checked()
            if not call.params.get("skiplock"):
                check_lock(vm)
            _check_not_base(cluster, vm)
            _free_disks(cluster, vm, task, bool(call.params.get("destroy-unreferenced-disks")))
            if call.params.get("purge"):
                task.log.append(f"purging VM {vm.vmid} from related configurations..")
                ha.forget(cluster, vm.vmid, task)
            await power.remove_guest(cluster, vm)
            cluster.blank.remove(vm.guest)
            _forget(cluster, vm)

    return call.start("qmdestroy", worker)


def _disks(vm: VirtualMachine) -> list[str]:
    """The volumes that the configuration names, of drives, unusedN and saved states."""
    found = []
    for config in (vm.config, vm.pending):
        found += [drive.file for drive in drives(config).values() if not drive.cdrom or drive.cloudinit]
    found += [str(value) for name, value in vm.config.items() if UNUSED.fullmatch(name)]
    found += [str(snapshot["vmstate"]) for snapshot in vm.snapshots.values() if "vmstate" in snapshot]
    return list(dict.fromkeys(volid for volid in found if volumes.owner_of(volid) == vm.vmid))


def _check_not_base(cluster: Cluster, vm: VirtualMachine) -> None:
    for volid in _disks(vm) if vm.config.get("template") else []:
        if volumes.in_use_by_clones(cluster, vm.node, volid):
            raise ApiError(f"base volume '{volid}' is still in use by linked cloned")


def _free_disks(cluster: Cluster, vm: VirtualMachine, task: Task, unreferenced: bool) -> None:
    """Deletes what the configuration names, and with `unreferenced` whatever else has the id in its name."""
    found = _disks(vm)
    if unreferenced:
        shelves = [volumes.on_storage(cluster, vm.node, store) for store in cluster.storages]
        found += [volume.volid for shelf in shelves for volume in shelf if volume.vmid == vm.vmid]
    for volid in found:
        try:
            volumes.free(cluster, vm.node, volid)
        except ApiError as error:
            task.warn(f"Could not remove disk '{volid}', check manually: {error.message}")


def _forget(cluster: Cluster, vm: VirtualMachine) -> None:
    """The virtual machine, its pool membership and its ACLs are gone."""
    cluster.forget_vm(vm)
    for pool in cluster.pools.values():
        pool["vms"] = [vmid for vmid in pool["vms"] if vmid != vm.vmid]
    cluster.acl = [row for row in cluster.acl if row["path"] != f"/vms/{vm.vmid}"]
    firewall.forget(cluster, vm.vmid)
    cluster.save()
