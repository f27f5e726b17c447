# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/N/qemu/ID/status: power states and what a virtual machine looks like from outside."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

from . import config as options
from . import volumes
from .cloudinit import guest_spec, macs_of
from .config import NET, boot_devices, drives
from .configure import apply_pending
from .emulated import EmulatedGuests
from .errors import ApiError, invalid
from .routes import Call, endpoint, find_vm
from .store import Cluster, VirtualMachine
from .tasks import Task, vm_lock

POLL = 0.1  # seconds between two looks at a guest that shuts down
_pids = itertools.count(2000)


def list_row(cluster: Cluster, vm: VirtualMachine) -> dict[str, Any]:
    """A row of GET /nodes/N/qemu: read from the configuration, always fresh."""
    on = cluster.power(vm) != "stopped"
    row: dict[str, Any] = dict.fromkeys(("cpu", "mem", "memhost", "disk", "netin", "netout"), 0)
    row |= {"vmid": vm.vmid, "status": "running" if on else "stopped"}
    row |= {
        "name": vm.config.get("name", f"VM {vm.vmid}"),
        "cpus": options.cores(vm.config),
        "maxmem": options.memory(vm.config),
        "maxdisk": options.boot_disk_size(vm.config),
        "uptime": int(time.time() - vm.started) if on else 0,
    }
    row |= {key: vm.config[key] for key in ("tags", "lock", "template") if vm.config.get(key)}
    if on:
        pressure = (f"pressure{what}{how}" for what in ("cpu", "io", "memory") for how in ("some", "full"))
        row |= {"pid": vm.pid} | dict.fromkeys(pressure, 0)
        row |= {"serial": 1} if "serial0" in vm.config else {}
    return row


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/status")
async def verbs(call: Call) -> object:
    return [{"subdir": name} for name in ("current", "start", "stop", "reset", "shutdown", "suspend", "reboot")]


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/status/current")
async def current(call: Call) -> object:
    vm = call.vm()
    power = call.cluster.power(vm)
    row = list_row(call.cluster, vm) | {"qmpstatus": power, "ha": {"managed": 0}}
    row |= {"agent": 1} if options.agent_enabled(vm.config) else {}
    row |= {"serial": 1} if "serial0" in vm.config else {}
    row |= {"clipboard": None} if "vga" in vm.config else {}
    nets = [name for name in vm.config if NET.fullmatch(name)] if power != "stopped" else []
    if nets:
        row["nics"] = {f"tap{vm.vmid}i{name.removeprefix('net')}": {"netin": 0, "netout": 0} for name in nets}
    return row


def _check_lock(vm: VirtualMachine, skip: bool = False) -> None:
    if vm.config.get("lock") and not skip:
        raise ApiError(f"VM is locked ({vm.config['lock']})")


def _find_any(cluster: Cluster, node: str, vmid: int) -> VirtualMachine:
    vm = cluster.vms.get(vmid)
    if vm is None or vm.node != node:
        raise ApiError(f"unable to find configuration file for VM {vmid} on node '{node}'")
    return vm


def _running(call: Call, vm: VirtualMachine) -> VirtualMachine:
    if call.cluster.power(vm) == "stopped":
        raise ApiError(f"VM {vm.vmid} not running")
    return vm


def _boot_volume(cluster: Cluster, vm: VirtualMachine) -> str:
    """The first disk of the boot order that holds an operating system."""
    found = drives(vm.config)
    for name in boot_devices(vm.config.get("boot", "")):
        volume = volumes.find(cluster, vm.node, found[name].file) if name in found else None
        if volume and volume.image:
            return volume.volid
    return ""


async def remove_guest(cluster: Cluster, vm: VirtualMachine) -> None:
    """The guest and its disk are gone; nobody asks the driver for its state any more."""
    driver, known = cluster.guests(vm), bool(vm.booted)
    vm.booted = ""
    if known:
        await asyncio.to_thread(driver.remove, vm.guest)


async def _switch_on(cluster: Cluster, vm: VirtualMachine) -> None:
    """Hands the identity of the moment to the driver and starts the guest; another boot disk is another guest."""
    apply_pending(cluster, vm)
    disk = _boot_volume(cluster, vm)
    if vm.booted != disk:
        await remove_guest(cluster, vm)
    driver = cluster.hosts if disk else cluster.blank
    await asyncio.sleep(cluster.timing.power_on)
    await asyncio.to_thread(driver.define, guest_spec(vm.guest, vm.vmid, vm.config))
    vm.booted = disk  # from here on its power is the driver's: not before the driver knows the name
    await asyncio.to_thread(driver.start, vm.guest)
    vm.started, vm.pid = time.time(), next(_pids)
    cluster.save_vm(vm)


def show_hardware(cluster: Cluster, vm: VirtualMachine) -> None:
    """A guest that only exists here learns which network cards it has now."""
    driver = cluster.guests(vm)
    if isinstance(driver, EmulatedGuests):
        driver.plug(vm.guest, macs_of(vm.config))


def reattach(cluster: Cluster) -> None:
    """At the start of the simulator: the driver, as new as the process, learns which guests there are."""
    for vm in cluster.vms.values():
        if vm.booted:
            cluster.hosts.define(guest_spec(vm.guest, vm.vmid, vm.config))


async def start(cluster: Cluster, node: str, vmid: int, task: Task, skip_lock: bool = False) -> None:
    """The worker of a start; every check is made inside the task."""
    find_vm(cluster, node, vmid)
    async with vm_lock(cluster, vmid, task):
        vm = find_vm(cluster, node, vmid)
        _check_lock(vm, skip_lock)
        if vm.config.get("template"):
            raise ApiError("you can't start a vm if it's a template")
        if cluster.power(vm) != "stopped":
            raise ApiError(f"VM {vmid} already running")
        if any(drive.cloudinit for drive in drives(vm.config).values()):
            task.log.append("generating cloud-init ISO")
        await _switch_on(cluster, vm)


async def _off(cluster: Cluster, vm: VirtualMachine) -> None:
    if cluster.power(vm) != "stopped":
        await asyncio.to_thread(cluster.guests(vm).stop, vm.guest)
    apply_pending(cluster, vm)


async def _shut_down(cluster: Cluster, vm: VirtualMachine, timeout: float) -> bool:
    """Asks the guest to power off; whether it did so in time."""
    await asyncio.to_thread(cluster.guests(vm).shutdown, vm.guest)
    end = time.monotonic() + timeout
    while cluster.power(vm) != "stopped":
        if time.monotonic() > end:
            return False
        await asyncio.sleep(POLL)
    apply_pending(cluster, vm)
    return True


def _not_in_time(vm: VirtualMachine) -> ApiError:
    suffix = "" if options.agent_enabled(vm.config) else " - got timeout"
    return ApiError(f"VM quit/powerdown failed{suffix}")


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/status/start")
async def post_start(call: Call) -> object:
    skip = _skip_lock(call)

    async def worker(task: Task) -> None:
        await start(call.cluster, call.node, call.params["vmid"], task, skip)

    return call.start("qmstart", worker)


def _skip_lock(call: Call) -> bool:
    if call.params.get("skiplock") and not call.who.root_itself:
        raise invalid({"skiplock": "Only root may use this option."})
    return bool(call.params.get("skiplock"))


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/status/stop")
async def post_stop(call: Call) -> object:
    """A power cut; of a stopped virtual machine, locked or not, it is done already."""
    skip = _skip_lock(call)

    async def worker(task: Task) -> None:
        vm = _find_any(call.cluster, call.node, call.params["vmid"])
        if call.cluster.power(vm) == "stopped":
            return
        if call.params.get("overrule-shutdown"):
            for other in call.tasks.of_node(call.node):
                if other.type == "qmshutdown" and other.id == str(vm.vmid) and not other.exitstatus:
                    await call.tasks.abort(other.upid)
        async with vm_lock(call.cluster, vm.vmid, task):
            _check_lock(vm, skip)
            await _off(call.cluster, vm)

    return call.start("qmstop", worker)


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/status/shutdown")
async def post_shutdown(call: Call) -> object:
    """ACPI power-off; with forceStop a power cut after the grace."""
    skip, cluster = _skip_lock(call), call.cluster
    vm = cluster.vms.get(call.params["vmid"])
    if vm and vm.node == call.node and cluster.power(vm) == "paused" and not call.params.get("forceStop"):
        raise ApiError("VM is paused - cannot shutdown")

    async def worker(task: Task) -> None:
        vm = _find_any(cluster, call.node, call.params["vmid"])
        if cluster.power(vm) == "stopped":
            return
        async with vm_lock(cluster, vm.vmid, task):
            _check_lock(vm, skip)
            if await _shut_down(cluster, vm, call.params.get("timeout", cluster.timing.shutdown)):
                return
            if not call.params.get("forceStop"):
                raise _not_in_time(vm)
            task.log.append("VM still running - terminating now with SIGTERM")
            await _off(cluster, vm)

    return call.start("qmshutdown", worker)


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/status/reboot")
async def post_reboot(call: Call) -> object:
    """Shutdown and start: what was pending takes effect."""
    vm = _running(call, _find_any(call.cluster, call.node, call.params["vmid"]))

    async def worker(task: Task) -> None:
        async with vm_lock(call.cluster, vm.vmid, task):
            _check_lock(vm)
            if not await _shut_down(call.cluster, vm, call.params.get("timeout", call.cluster.timing.shutdown)):
                raise _not_in_time(vm)
            await _switch_on(call.cluster, vm)

    return call.start("qmreboot", worker)


def _simple(call: Call, kind: str, verb: Callable[[str], None]) -> str:
    vm, skip = _running(call, call.vm()), _skip_lock(call)

    async def worker(task: Task) -> None:
        _check_lock(vm, skip)
        await asyncio.to_thread(verb, vm.guest)

    return call.start(kind, worker)


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/status/reset")
async def post_reset(call: Call) -> object:
    return _simple(call, "qmreset", call.cluster.guests(call.vm()).reset)


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/status/suspend")
async def post_suspend(call: Call) -> object:
    if call.params.get("todisk"):
        raise ApiError("suspend to disk is not simulated")
    return _simple(call, "qmpause", call.cluster.guests(call.vm()).suspend)


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/status/resume")
async def post_resume(call: Call) -> object:
    return _simple(call, "qmresume", call.cluster.guests(call.vm()).resume)
