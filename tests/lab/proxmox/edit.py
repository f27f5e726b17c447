# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/N/qemu/ID/config and unlink: changes of a configuration (PVE/API2/Qemu.pm `$update_vm_api`)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

from . import rights
from .checks import check_digest, check_lock, check_skiplock
from .config import CDROM_ALIAS, drives, is_option
from .configure import Changes, check_update, update
from .errors import ApiError, invalid
from .formats import split_list
from .rights import Subject
from .routes import Call, endpoint, find_vm
from .schema import schema
from .store import VirtualMachine
from .tasks import Task, vm_lock


def option_params(call: Call) -> dict[str, Any]:
    """The options of a virtual machine among the parameters; `cdrom` is another name of ide2."""
    params = {name: value for name, value in call.params.items() if name in schema().options}
    if "cdrom" in params:
        value = str(params.pop("cdrom"))
        params[CDROM_ALIAS] = value if "media=" in value else f"{value},media=cdrom"
    return params


def _changes(call: Call) -> Changes:
    params = option_params(call)
    delete, revert = split_list(call.params.get("delete", "")), split_list(call.params.get("revert", ""))
    if not params and not delete and not revert:
        raise ApiError("no options specified")
    for key, names in (("revert", revert), ("delete", delete)):
        for name in names:
            if key == "revert" and not is_option(name):
                raise invalid({key: f"unknown option '{name}'"})
            if name in params:
                raise invalid({"delete": f"you can't use '-{name}' and -{key} {name}' at the same time"})
            if key == "delete" and name in revert:
                raise invalid({"revert": f"you can't use '-delete {name}' and -revert {name}' at the same time"})
            if not is_option(name):
                raise invalid({key: f"unknown option '{name}'"})
    delete = [CDROM_ALIAS if name == "cdrom" else name for name in delete]
    return Changes(params, tuple(delete), tuple(revert), bool(call.params.get("force")))


def prepare_update(call: Call) -> tuple[VirtualMachine, Changes]:
    """The checks of an update, in the server's order."""
    check_skiplock(call)
    rights.check_keys(call.params)
    changes = _changes(call)
    rights.check_imports(changes.options)
    subject = Subject(call, call.params["vmid"], call.cluster.pool_of(call.params["vmid"]))
    vm = call.vm()
    rights.check_options(subject, [*changes.delete, *changes.options])
    rights.check_storages(call, vm.vmid, changes.options)
    rights.check_bridges(call, changes.options)
    _check_replaced(subject, vm, changes)
    check_now(call, vm, changes)
    return vm, changes


def _check_replaced(subject: Subject, vm: VirtualMachine, changes: Changes) -> None:
    """The values that are there must be the caller's to change, too."""
    gone = {name: vm.config[name] for name in (*changes.options, *changes.delete) if name in vm.config}
    for config in (gone, changes.options):
        for drive in drives(config).values():
            rights.check_drive_change(subject, drive)
    rights.check_devices(subject, changes.options, "modify")
    rights.check_devices(subject, gone, "delete")
    rights.check_bridges(subject.call, gone)


def check_now(call: Call, vm: VirtualMachine, changes: Changes) -> None:
    """What may have changed while the call waited for the lock."""
    check_digest(call, vm)
    if not call.params.get("skiplock"):
        check_lock(vm)
    check_update(vm, changes)


async def update_now(call: Call, vm: VirtualMachine, changes: Changes, log: list[str], task: Task | None) -> None:
    """An update under the lock of the configuration."""
    async with vm_lock(call.cluster, vm.vmid, task):
        check_now(call, find_vm(call.cluster, call.node, vm.vmid), changes)
        await update(call.cluster, vm, changes, log)


@endpoint("PUT", "/nodes/{node}/qemu/{vmid}/config")
async def put_config(call: Call) -> object:
    """Answers when the work is done, or 596 when that takes too long; the work goes on."""
    vm, changes = prepare_update(call)
    await within_proxy_limit(call, asyncio.ensure_future(update_now(call, vm, changes, [], None)))
    return None


async def within_proxy_limit(call: Call, work: asyncio.Future[None]) -> None:
    """596 after the time that the hop to the privileged daemon waits for an answer."""
    done, _unused = await asyncio.wait([work], timeout=call.cluster.timing.proxy)
    if not done:
        work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        raise ApiError("Connection timed out", status=596)
    work.result()


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/config")
async def post_config(call: Call) -> object:
    vm, changes = prepare_update(call)
    hidden = ("node", "vmid", "background_delay", "digest", "import-working-storage")
    sent = {key: value for key, value in call.params.items() if key not in hidden}
    sent |= {"cipassword": "<hidden>"} if "cipassword" in sent else {}

    async def worker(task: Task) -> None:
        task.log.append(f"update VM {vm.vmid}: " + " ".join(f"-{key} {sent[key]}" for key in sorted(sent)))
        await update_now(call, vm, changes, task.log, task)

    upid = call.start("qmconfig", worker)
    end = time.monotonic() + call.params.get("background_delay", 0)
    while time.monotonic() < end:
        if status := call.tasks.all[upid].exitstatus:
            if status != "OK" and not status.startswith("WARNINGS"):
                raise ApiError(f"failed to update VM {vm.vmid}: {status}")
            return None
        await asyncio.sleep(0.05)
    return upid


@endpoint("PUT", "/nodes/{node}/qemu/{vmid}/unlink")
async def unlink(call: Call) -> object:
    """`delete` under another name."""
    params = {key: value for key, value in call.params.items() if key != "idlist"}
    return await put_config(replace(call, params=params | {"delete": call.params["idlist"]}))
