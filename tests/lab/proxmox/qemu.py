# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/N/qemu: create, list, read, change and delete virtual machines (PVE/API2/Qemu.pm)."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from typing import Any

from . import cloudinit, configure, power, volumes
from . import config as options
from .config import UNUSED, Option, digest, drives, shown
from .configure import Changes, apply_pending, check_bridges_and_keys, check_drives, check_rights, make_options, update
from .errors import ApiError, denied, invalid
from .formats import split_list
from .routes import Call, endpoint, find_vm
from .schema import schema
from .store import Cluster, VirtualMachine
from .tasks import Task, vm_lock

CREATION = "10.0.13"
SUBDIRS = (
    *("config", "cloudinit", "pending", "status", "unlink", "vncproxy", "termproxy", "migrate", "resize", "move"),
    *("rrd", "rrddata", "monitor", "agent", "snapshot", "spiceproxy", "sendkey", "firewall", "mtunnel"),
    "remote_migrate",
)


def check_lock(vm: VirtualMachine) -> None:
    if lock := vm.config.get("lock"):
        raise ApiError(f"VM is locked ({lock})")


def digest_of(vm: VirtualMachine) -> str:
    return digest(vm.config, vm.pending, vm.deleted)


def check_digest(call: Call, vm: VirtualMachine) -> None:
    if call.params.get("digest", digest_of(vm)) != digest_of(vm):
        raise ApiError("checksum mismatch (file change by other user?)")


def check_skiplock(call: Call) -> None:
    if call.params.get("skiplock") and not call.who.root_itself:
        raise invalid({"skiplock": "Only root may use this option."})


def _option_params(call: Call) -> dict[str, Any]:
    return {name: value for name, value in call.params.items() if name in schema().options}


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
    vmid, pool, cluster = call.params["vmid"], call.params.get("pool", ""), call.cluster
    if pool and pool not in cluster.pools:
        raise denied(f"pool '{pool}' does not exist")
    if not call.may(f"/vms/{vmid}", "VM.Allocate") and not (pool and call.may(f"/pool/{pool}", "VM.Allocate")):
        raise denied()
    params = _option_params(call)
    if "archive" in call.params:
        for name in drives(params):
            raise invalid({name: "option conflicts with option 'archive'"})
        raise ApiError(f"unable to restore VM {vmid} - backups are not simulated")
    check_drives(call, params)
    check_rights(call, vmid, pool, list(params))
    check_bridges_and_keys(call, params)
    if cluster.locks[vmid].locked():
        try:
            async with vm_lock(cluster, vmid):
                pass
        except ApiError as error:
            raise ApiError(f"unable to create VM {vmid} - {error.message}") from None
    if other := cluster.vms.get(vmid):
        raise ApiError(f"unable to create VM {vmid} - VM {vmid} already exists on node '{other.node}'")
    vm = VirtualMachine(vmid, call.node, {"lock": "create"})
    cluster.vms[vmid] = vm
    cluster.save_vm(vm)

    async def worker(task: Task) -> None:
        async with vm_lock(cluster, vmid, task):
            await _create(call, vm, params, task)
        if call.params.get("start"):
            call.start("qmstart", lambda start: power.start(cluster, vm.node, vmid, start))

    return call.start("qmcreate", worker)


async def _create(call: Call, vm: VirtualMachine, params: dict[str, Any], task: Task) -> None:
    cluster = call.cluster
    try:
        made = await make_options(cluster, vm, params, task.log)
    except asyncio.CancelledError:
        cluster.forget_vm(vm)
        raise
    except ApiError as error:
        cluster.forget_vm(vm)
        raise ApiError(f"unable to create VM {vm.vmid} - {error.message}") from None
    made_up: dict[str, Option] = {
        "smbios1": f"uuid={uuid.uuid4()}",
        "vmgenid": str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)),
        "meta": f"creation-qemu={CREATION},ctime={int(time.time())}",
    }
    vm.config = made_up | made
    if "boot" not in made:
        vm.config["boot"] = options.default_boot(vm.config)
    if pool := call.params.get("pool"):
        cluster.pools[pool]["vms"].append(vm.vmid)
        cluster.save()
    cluster.save_vm(vm)


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/config")
async def read(call: Call) -> object:
    """Pending values merged, or with `current` only what runs."""
    vm = call.vm()
    if snapshot := call.params.get("snapshot"):
        raise ApiError(f"snapshot '{snapshot}' does not exist")
    config = dict(vm.config)
    if not call.params.get("current"):
        config = {name: value for name, value in config.items() if name not in vm.deleted} | vm.pending
    return {name: shown(name, value) for name, value in config.items()} | {"digest": digest_of(vm)}


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/pending")
async def pending(call: Call) -> object:
    vm = call.vm()
    rows: list[dict[str, Option]] = []
    for name in [*vm.config, *(name for name in vm.pending if name not in vm.config)]:
        row: dict[str, Option] = {"key": name}
        row |= {"value": shown(name, vm.config[name])} if name in vm.config else {}
        row |= {"pending": shown(name, vm.pending[name])} if name in vm.pending else {}
        rows.append(row | ({"delete": 1} if name in vm.deleted else {}))
    return [*rows, {"key": "digest", "value": digest_of(vm)}]


def _prepare_update(call: Call) -> tuple[VirtualMachine, Changes]:
    """The checks of an update, in the server's order."""
    check_skiplock(call)
    params = _option_params(call)
    delete, revert = split_list(call.params.get("delete", "")), split_list(call.params.get("revert", ""))
    if not params and not delete and not revert:
        raise ApiError("no options specified")
    for key, names in (("delete", delete), ("revert", revert)):
        for name in names:
            if name in params:
                raise invalid({"delete": f"you can't use '-{name}' and -{key} {name}' at the same time"})
            if not options.is_option(name):
                raise invalid({key: f"unknown option '{name}'"})
    vm = call.vm()
    check_drives(call, params)
    check_rights(call, vm.vmid, call.cluster.pool_of(vm.vmid), [*params, *delete, *revert])
    check_bridges_and_keys(call, params)
    check_digest(call, vm)
    if not call.params.get("skiplock"):
        check_lock(vm)
    return vm, Changes(params, tuple(delete), tuple(revert))


@endpoint("PUT", "/nodes/{node}/qemu/{vmid}/config")
async def put_config(call: Call) -> object:
    vm, changes = _prepare_update(call)
    async with vm_lock(call.cluster, vm.vmid):
        await update(call.cluster, vm, changes, [])
    return None


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/config")
async def post_config(call: Call) -> object:
    vm, changes = _prepare_update(call)
    sent = {key: value for key, value in call.params.items() if key not in ("node", "vmid", "background_delay")}

    async def worker(task: Task) -> None:
        task.log.append(f"update VM {vm.vmid}: " + " ".join(f"-{key} {shown(key, sent[key])}" for key in sorted(sent)))
        async with vm_lock(call.cluster, vm.vmid, task):
            await update(call.cluster, vm, changes, task.log)

    return call.start("qmconfig", worker)


@endpoint("PUT", "/nodes/{node}/qemu/{vmid}/resize")
async def resize(call: Call) -> object:
    """Every check beyond the parameters is made inside the task."""
    check_skiplock(call)

    async def worker(task: Task) -> None:
        find_vm(call.cluster, call.node, call.params["vmid"])
        async with vm_lock(call.cluster, call.params["vmid"], task):
            vm = call.vm()
            check_digest(call, vm)
            check_lock(vm)
            configure.resize(call.cluster, vm, call.params["disk"], call.params["size"], task.log)

    return call.start("resize", worker)


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/template")
async def template(call: Call) -> object:
    """Turns a stopped virtual machine into a template: its disks become base-ID-disk-N."""
    vm, cluster = call.vm(), call.cluster
    check_lock(vm)
    if vm.config.get("template"):
        raise ApiError("you can't convert a template to a template")
    if cluster.power(vm) != "stopped":
        raise ApiError("you can't convert a VM to template if VM is running")

    async def worker(task: Task) -> None:
        async with vm_lock(cluster, vm.vmid, task):
            apply_pending(cluster, vm)
            for name, drive in drives(vm.config).items():
                if not drive.cdrom:
                    volid = volumes.make_base(cluster, vm.node, drive.file)
                    vm.config[name] = options.Drive(volid, drive.keys).text()
            vm.config["template"] = 1
            cluster.save_vm(vm)

    return call.start("qmtemplate", worker)


@endpoint("DELETE", "/nodes/{node}/qemu/{vmid}")
async def delete(call: Call) -> object:
    check_skiplock(call)
    vm, cluster = call.vm(), call.cluster
    if vm.config.get("protection"):
        raise ApiError(f"can't remove VM {vm.vmid} - protection mode enabled")
    if cluster.power(vm) != "stopped":
        raise ApiError(f"VM {vm.vmid} is running - destroy failed")

    async def worker(task: Task) -> None:
        async with vm_lock(cluster, vm.vmid, task):
            check_lock(find_vm(cluster, call.node, vm.vmid))
            if cluster.power(vm) != "stopped":
                raise ApiError(f"VM {vm.vmid} is running - destroy failed")
            _free_disks(cluster, vm, bool(call.params.get("destroy-unreferenced-disks")))
            if call.params.get("purge"):
                task.log.append(f"purging VM {vm.vmid} from related configurations..")
            await power.remove_guest(cluster, vm)
            cluster.blank.remove(vm.guest)
            _forget(cluster, vm)

    return call.start("qmdestroy", worker)


def _free_disks(cluster: Cluster, vm: VirtualMachine, unreferenced: bool) -> None:
    named = [drive.file for drive in drives(vm.config).values() if not drive.cdrom or drive.cloudinit]
    named += [str(value) for name, value in vm.config.items() if UNUSED.fullmatch(name)]
    for volid in named:
        volumes.free(cluster, vm.node, volid)
    for volid, volume in list(cluster.volumes[vm.node].items()):
        if unreferenced and volume.vmid == vm.vmid:
            volumes.free(cluster, vm.node, volid)


def _forget(cluster: Cluster, vm: VirtualMachine) -> None:
    """The virtual machine, its pool membership and its ACLs are gone."""
    cluster.forget_vm(vm)
    for pool in cluster.pools.values():
        pool["vms"] = [vmid for vmid in pool["vms"] if vmid != vm.vmid]
    cluster.acl = [row for row in cluster.acl if row["path"] != f"/vms/{vm.vmid}"]
    cluster.save()


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/cloudinit")
async def cloudinit_values(call: Call) -> object:
    vm = call.vm()
    wanted = (*cloudinit.OPTIONS, *(name for name in vm.config if name.startswith("ipconfig")))
    rows = [{"key": name, "value": shown(name, vm.config[name])} for name in cloudinit.OPTIONS if name in vm.config]
    for row in rows:
        if row["key"] in vm.pending:
            row["pending"] = shown(str(row["key"]), vm.pending[str(row["key"])])
    fresh = [name for name in vm.pending if name in wanted and name not in vm.config]
    return [*rows, *({"key": name, "pending": shown(name, vm.pending[name])} for name in fresh)]


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/cloudinit/dump")
async def cloudinit_dump(call: Call) -> object:
    vm = call.vm()
    if call.params["type"] == "network":
        return cloudinit.network_data(vm.config)
    dump = cloudinit.user_data if call.params["type"] == "user" else cloudinit.meta_data
    return dump(vm.vmid, vm.config)
