# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a configuration: what is done at once, what waits for a power cycle, what they do to the disks.

Source: `$update_vm_api` in PVE/API2/Qemu.pm, `vmconfig_apply_pending` in PVE/QemuServer.pm.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import hotplug, volumes
from .allocation import make_drives
from .checks import check_protection
from .cloudinit import OPTIONS as CLOUDINIT
from .config import (
    DRIVE,
    NET,
    UNUSED,
    Drive,
    boot_devices,
    boot_order,
    drives,
    free_unused,
    memory,
    new_uuid,
    parse_drive,
    pinned_machine,
    stored,
    with_mac,
)
from .errors import ApiError, invalid
from .store import Cluster, Option, VirtualMachine

CRYPT = re.compile(r"\$(?:[156]|2[ay])(?:\$.+){2}")


@dataclass(frozen=True)
class Changes:
    """What an update asks for: options to set, to delete, and pending changes to drop.

    `force`: a deleted drive goes with its volume.
    """

    options: Mapping[str, Any]
    delete: tuple[str, ...]
    revert: tuple[str, ...] = ()
    force: bool = False


def new_mac() -> str:
    """A random address in the range that Proxmox owns."""
    return "BC:24:11:" + ":".join(f"{byte:02X}" for byte in secrets.token_bytes(3))


def make_options(params: Mapping[str, Any]) -> dict[str, Option]:
    """The options that are no drives, as they are stored."""
    made = {name: stored(name, value) for name, value in params.items() if not DRIVE.fullmatch(name)}
    made |= {name: with_mac(str(value), new_mac()) for name, value in made.items() if NET.fullmatch(name)}
    if made.get("vmgenid") == "1":
        made["vmgenid"] = new_uuid()
    return made


def _files(*configs: Mapping[str, Option]) -> set[str]:
    """The volumes of the drives."""
    return {drive.file for config in configs for drive in drives(config).values() if not drive.cdrom}


def drop_used_from_unused(vm: VirtualMachine) -> None:
    """A volume that a drive has, or will have, is not listed as unusedN; one that only a snapshot has is."""
    used = _files(vm.config, vm.pending)
    for name in [name for name in vm.config if UNUSED.fullmatch(name) and vm.config[name] in used]:
        vm.config.pop(name)


def add_unused(config: dict[str, Option], volid: str) -> str:
    """Lists a volume as the lowest free unusedN, once; that name, "" when it was listed."""
    if volid in (value for name, value in config.items() if UNUSED.fullmatch(name)):
        return ""
    name = free_unused(config)
    config[name] = volid
    return name


def release(cluster: Cluster, vm: VirtualMachine, drive: Drive) -> None:
    """A drive loses its place: its disk becomes unusedN, a cloud-init drive is deleted, others are left."""
    if drive.cloudinit:
        volumes.free(cluster, vm.node, drive.file)
    elif not drive.cdrom and volumes.owner_of(drive.file) == vm.vmid:
        add_unused(vm.config, drive.file)


def free_unless_used(cluster: Cluster, vm: VirtualMachine, volid: str) -> None:
    """Deletes a disk of the virtual machine; 500 while a drive or a snapshot names it."""
    if volid in _files(vm.config, vm.pending, *vm.snapshots.values()):
        raise ApiError(f"unable to delete '{volid}' - volume is still in use (snapshot?)")
    if volumes.owner_of(volid) == vm.vmid:
        volumes.free(cluster, vm.node, volid)


def _remove(cluster: Cluster, vm: VirtualMachine, name: str) -> None:
    """A deletion takes effect."""
    old, force = vm.config.pop(name, None), vm.deleted.pop(name, 0) == 2
    if old is None or not DRIVE.fullmatch(name):
        return
    drive = parse_drive(name, str(old))
    if force and not drive.cdrom:
        free_unless_used(cluster, vm, drive.file)
    else:
        release(cluster, vm, drive)


def _set(cluster: Cluster, vm: VirtualMachine, name: str) -> None:
    """A pending value takes effect."""
    value, old = vm.pending.pop(name), vm.config.get(name)
    vm.config[name] = value
    if old is not None and DRIVE.fullmatch(name):
        drive = parse_drive(name, str(old))
        if drive.file != parse_drive(name, str(value)).file:
            release(cluster, vm, drive)


def apply_pending(cluster: Cluster, vm: VirtualMachine) -> None:
    """What waited for a power cycle takes effect."""
    for name in list(vm.deleted):
        _remove(cluster, vm, name)
    for name in list(vm.pending):
        _set(cluster, vm, name)
    drop_used_from_unused(vm)
    vm.cloudinit = {}
    cluster.save_vm(vm)


async def _plug(cluster: Cluster, vm: VirtualMachine, touched: set[str]) -> dict[str, str]:
    """Brings to a running guest what it takes; what went wrong with which option, which then waits."""
    problems: dict[str, str] = {}

    async def taken(name: str, step: hotplug.Step) -> bool:
        problem = step.problem
        if step.unplug and not vm.booted:  # nobody in the guest lets go of the device
            await asyncio.sleep(cluster.timing.unplug)
            problem = f"error on hot-unplugging device '{step.unplug}' - still busy in guest?\n"
        if problem:
            problems[name] = f"hotplug problem - {problem}"
        return step.now and not problem

    for name in [name for name in vm.deleted if name in touched]:
        if await taken(name, hotplug.deletion(vm.config, name)):
            _remember(vm, name)
            _remove(cluster, vm, name)
    for name in [name for name in vm.pending if name in touched or name in hotplug.IMMEDIATE]:
        if await taken(name, hotplug.change(vm.config, name, vm.pending[name])):
            _remember(vm, name)
            _set(cluster, vm, name)
    return problems


def _remember(vm: VirtualMachine, name: str) -> None:
    """The cloud-init drive of a running guest keeps the value that it was made with."""
    if name in (*CLOUDINIT, "name") or re.match(r"ipconfig\d|net\d", name):
        vm.cloudinit.setdefault(name, vm.config.get(name, ""))
        if vm.cloudinit[name] == vm.pending.get(name, ""):
            vm.cloudinit.pop(name)


def check_update(vm: VirtualMachine, changes: Changes) -> None:
    """What depends on the configuration of the moment."""
    options = changes.options
    if options.get("memory") or "balloon" in options:
        known = vm.config | vm.pending | {name: options[name] for name in ("memory", "balloon") if name in options}
        if int(known.get("balloon", 0)) << 20 > memory(known):
            raise ApiError("balloon value too large (must be smaller than assigned memory)")


@dataclass(frozen=True)
class _Edit:
    """One update: `touched` are the options that may be brought to a running guest."""

    cluster: Cluster
    vm: VirtualMachine
    log: list[str]
    touched: set[str]


async def update(cluster: Cluster, vm: VirtualMachine, changes: Changes, log: list[str]) -> None:
    """Stores the changes as pending, then applies what needs no power cycle; 400 when a guest refuses one."""
    options, delete = dict(changes.options), list(changes.delete)
    for name in changes.revert:
        if name in vm.config:
            options[name] = vm.config[name]
        elif name in vm.pending:
            delete.append(name)
    _check_boot(vm, options, delete)
    edit = _Edit(cluster, vm, log, {*options, *delete})
    try:
        for name in delete:
            _mark_deleted(edit, name, 2 if changes.force else 1)
        for name, value in sorted(make_options(options).items()):
            _mark_changed(vm, name, value)
        for name in sorted(name for name in options if DRIVE.fullmatch(name)):
            await _mark_drive(edit, name, parse_drive(name, str(options[name])))
    finally:
        cluster.save_vm(vm)
    vm.pending = {name: value for name, value in vm.pending.items() if vm.config.get(name) != value}
    vm.deleted = {name: force for name, force in vm.deleted.items() if name in vm.config}
    if cluster.power(vm) == "stopped":
        apply_pending(cluster, vm)
        return
    problems = await _plug(cluster, vm, edit.touched)
    drop_used_from_unused(vm)
    cluster.save_vm(vm)
    if problems:
        raise invalid(problems)


def _check_boot(vm: VirtualMachine, options: dict[str, Any], delete: list[str]) -> None:
    """An update refuses a boot order of devices that do not exist (create does not), and stores it joined by `;`."""
    devices = boot_devices(options.get("boot", ""))
    for device in devices:
        if device in delete or not any(device in known for known in (vm.config, vm.pending, options)):
            raise ApiError(f"invalid bootorder: device '{device}' does not exist'")
    if devices:
        options["boot"] = boot_order(devices)
        delete += ["bootdisk"] if "bootdisk" in vm.config else []


def _order_to_be(vm: VirtualMachine) -> list[str]:
    return boot_devices(vm.pending.get("boot", vm.config.get("boot", "")))


def _mark_deleted(edit: _Edit, name: str, how: int) -> None:
    vm, waiting = edit.vm, edit.vm.pending.pop(name, None)
    value = vm.config.get(name, waiting)
    if value is None:
        edit.log.append(f"cannot delete '{name}' - not set in current configuration!")
        return
    if name in _order_to_be(vm):
        vm.pending["boot"] = boot_order([device for device in _order_to_be(vm) if device != name])
        edit.touched.add("boot")
    if UNUSED.fullmatch(name):
        check_protection(vm, f"can't remove unused disk '{value}'")
        free_unless_used(edit.cluster, vm, str(value))
        vm.config.pop(name)
    elif name == "tags":
        vm.config.pop(name, None)
    else:
        if DRIVE.fullmatch(name):
            check_protection(vm, f"can't remove drive '{name}'")
            if waiting is not None:
                release(edit.cluster, vm, parse_drive(name, str(waiting)))
        vm.deleted[name] = how


def _mark_changed(vm: VirtualMachine, name: str, value: Option) -> None:
    vm.deleted.pop(name, None)
    if name == "cipassword":
        vm.config[name] = value if CRYPT.match(str(value)) else _hashed(str(value))
        return
    vm.pending[name] = value
    if name == "ostype" and "machine" not in vm.pending and "machine" not in vm.deleted:
        machine = pinned_machine(vm.config.get("machine", ""), str(value))
        vm.pending |= {"machine": machine} if machine else {}


def _hashed(password: str) -> str:
    """A password that no longer tells itself, in the shape of crypt(5) SHA-256."""
    salt = secrets.token_hex(4)
    mixed = hashlib.sha256(f"{salt}{password}".encode()).digest()
    return f"$5${salt}${base64.b64encode(mixed, b'./').decode().rstrip('=')}"


async def _mark_drive(edit: _Edit, name: str, drive: Drive) -> None:
    vm, waiting = edit.vm, edit.vm.pending.get(name)
    if waiting == drive.text():
        return
    if name == "tpmstate0" and name in vm.config:
        old = parse_drive(name, str(vm.config[name]))
        if old.file == drive.file and old.keys.get("version", "v1.2") != drive.keys.get("version", "v1.2"):
            raise ApiError("cannot change TPM state version after creation")
    made = await make_drives(edit.cluster, vm, {name: drive}, edit.log)
    if waiting is not None:
        release(edit.cluster, vm, parse_drive(name, str(waiting)))
    vm.pending |= made
    vm.deleted.pop(name, None)
    bootable = drive.cdrom and not drive.cloudinit and name not in _order_to_be(vm)
    if bootable and boot_devices(vm.config.get("boot", "")):
        vm.pending["boot"] = boot_order([*_order_to_be(vm), name])
        edit.touched.add("boot")
