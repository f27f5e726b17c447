# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a configuration: what is done at once, what waits for a power cycle, what they do to the disks."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import volumes
from .cloudinit import keys_of, valid_key
from .config import (
    DRIVE,
    IMMEDIATE,
    NET,
    UNITS,
    UNUSED,
    Drive,
    Option,
    boot_devices,
    drives,
    format_size,
    free_unused,
    parse_drive,
    parse_size,
    stored,
    with_mac,
    without_device,
)
from .errors import ApiError, invalid
from .formats import NEW_DISK
from .routes import Call
from .store import Cluster, VirtualMachine, Volume

ROOT_ONLY = ("args", "hookscript", "lock")
HOTPLUG = re.compile(r"net\d+|scsi\d+|virtio\d+|usb\d+")
# Which privilege on the virtual machine an option needs (API2/Qemu.pm `check_vm_modify_config_perm`); else Options.
_PRIVILEGES = (
    (rf"{DRIVE.pattern}|{UNUSED.pattern}", ("VM.Config.Disk",)),
    (r"ci\w+|nameserver|searchdomain|sshkeys|ipconfig\d+", ("VM.Config.Cloudinit", "VM.Config.Network")),
    (NET.pattern, ("VM.Config.Network",)),
    (r"affinity|allow-ksm|cores|cpu|cpulimit|cpuunits|numa\d*|smp|sockets|vcpus", ("VM.Config.CPU",)),
    (r"balloon|hugepages|keephugepages|memory|shares", ("VM.Config.Memory",)),
    (
        r"acpi|arch|audio0|bios|hotplug|ivshmem|kvm|machine|rng0|scsihw|smbios1|tablet|vga|vmgenid|watchdog"
        r"|(?:usb|hostpci|serial|parallel)\d+",
        ("VM.Config.HWType",),
    ),
)


def new_mac() -> str:
    """A random address in the range that Proxmox owns."""
    return "BC:24:11:" + ":".join(f"{byte:02X}" for byte in secrets.token_bytes(3))


def privileges_of(name: str) -> tuple[str, ...]:
    """Privileges of which one allows to set an option."""
    return next((names for pattern, names in _PRIVILEGES if re.fullmatch(pattern, name)), ("VM.Config.Options",))


def check_rights(call: Call, vmid: int, pool: str, names: list[str]) -> None:
    """403 for an option that the caller may not touch; 500 for those of root@pam alone."""
    for name in names:
        if name in ROOT_ONLY:
            call.require_root(name)
        needed = privileges_of(name)
        if not call.may(f"/vms/{vmid}", *needed) and not (pool and call.may(f"/pool/{pool}", *needed)):
            call.require(f"/vms/{vmid}", *needed)


def check_drives(call: Call, params: Mapping[str, Any]) -> None:
    """Drives that are refused before anything is written: storage, syntax of an import, arbitrary paths."""
    cluster = call.cluster
    for name in params:
        if not DRIVE.fullmatch(name):
            continue
        drive = parse_drive(name, str(params[name]))
        source = drive.keys.get("import-from", "")
        new = NEW_DISK.fullmatch(drive.file)
        if source and (not new or float(new[2]) != 0):
            text = "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>"
            raise invalid({name: text})
        if (drive.file.startswith("/") or source.startswith("/")) and not call.who.root_itself:
            where = "at /usr/share/perl5/PVE/Storage.pm line 651."
            raise ApiError(f"Only root can pass arbitrary filesystem paths. {where}")
        if drive.file in ("none", "cdrom") or drive.file.startswith("/"):
            continue
        store, volume = volumes.split(drive.file)
        volumes.storage(cluster, store)
        if new:
            call.require(f"/storage/{store}", "Datastore.AllocateSpace")
        elif not drive.cloudinit and re.match(r"(import|vztmpl|snippets|backup)/", volume):
            raise invalid({name: "content type needs to be 'images' or 'iso'"})
        if source:
            other = volumes.split(source)[0]
            volumes.storage(cluster, other)
            call.require(f"/storage/{other}", "Datastore.Audit", "Datastore.AllocateSpace")


def check_bridges_and_keys(call: Call, params: Mapping[str, Any]) -> None:
    """403 for a bridge that the caller may not use, 500 for text that is no SSH key."""
    for name in params:
        if NET.fullmatch(name) and (bridge := re.search(r"bridge=([^,]+)", str(params[name]))):
            call.require(f"/sdn/zones/localnetwork/{bridge[1]}", "SDN.Use")
    if "sshkeys" in params and not all(valid_key(line) for line in keys_of(params)):
        raise ApiError("SSH public key validation error")


async def make_drive(cluster: Cluster, vm: VirtualMachine, name: str, text: str, log: list[str]) -> str:
    """The drive as it is stored, after its new volume, if it asks for one, was made."""
    drive = parse_drive(name, text)
    keys = {key: value for key, value in drive.keys.items() if key not in ("format", "import-from", "size")}
    new = NEW_DISK.fullmatch(drive.file)
    if drive.cloudinit and drive.file.endswith(":cloudinit"):
        store, kind = volumes.split(drive.file)[0], drive.keys.get("format", "qcow2")
        file = f"vm-{vm.vmid}-cloudinit.{kind}"
        size = volumes.CLOUDINIT_SIZE
        volume = volumes.allocate(cluster, vm.node, store, vm.vmid, size, name=file, kind=kind)
        result = Drive(volume.volid, keys | {"media": "cdrom"}).text()
        log.append(f"{name}: successfully created disk '{result}'")
        return result
    if not new:
        found = volumes.find(cluster, vm.node, drive.file)
        if found is None and not drive.cdrom and not drive.file.startswith("/"):
            raise ApiError(f"volume '{drive.file}' does not exist")
        size_key = {"size": format_size(found.size)} if found and found.content == "images" else {}
        return Drive(drive.file, keys | ({} if drive.cdrom else size_key)).text()
    if "import-from" in drive.keys:
        volume = await _import(cluster, vm, drive, log)
    else:
        kind = drive.keys.get("format", "raw")
        volume = volumes.allocate(cluster, vm.node, new[1], vm.vmid, int(float(new[2]) * UNITS["G"]), kind=kind)
    result = Drive(volume.volid, keys | {"size": format_size(volume.size)}).text()
    log.append(f"{name}: successfully created disk '{result}'")
    return result


async def _import(cluster: Cluster, vm: VirtualMachine, drive: Drive, log: list[str]) -> Volume:
    """A new disk with the content of an image or of another disk."""
    store, source = volumes.split(drive.file)[0], drive.keys["import-from"]
    image = volumes.stat(cluster, vm.node, source)
    kind = drive.keys.get("format", image.format)
    volume = volumes.allocate(cluster, vm.node, store, vm.vmid, image.size, kind=kind, image=image.image or source)
    log += [f"create full clone of drive ({source})", f"allocated target volume '{volume.volid}'"]
    try:
        for percent in range(101):
            done = f"{image.size * percent / 100 / UNITS['M']:.1f} MiB of {image.size / UNITS['G']:.1f} GiB"
            log.append(f"transferred {done} ({percent:.2f}%)")
            await asyncio.sleep(cluster.timing.image_copy / 100)
    except asyncio.CancelledError:
        volumes.free(cluster, vm.node, volume.volid)
        raise
    return volume


async def make_options(
    cluster: Cluster, vm: VirtualMachine, params: Mapping[str, Any], log: list[str]
) -> dict[str, Option]:
    """The options as they are stored; new disks in the server's order of drive names. Undone when one fails."""
    made = {name: stored(name, value) for name, value in params.items() if not DRIVE.fullmatch(name)}
    made |= {name: with_mac(str(value), new_mac()) for name, value in made.items() if NET.fullmatch(name)}
    before = set(cluster.volumes[vm.node])
    try:
        for name in sorted((name for name in params if DRIVE.fullmatch(name)), key=_drive_order):
            made[name] = await make_drive(cluster, vm, name, str(params[name]), log)
    except (ApiError, asyncio.CancelledError):
        own = {drive.file for drive in map(_as_drive, made.items()) if drive}
        for volid in own - before:
            volumes.free(cluster, vm.node, volid)
        raise
    return made


def _as_drive(item: tuple[str, Option]) -> Drive | None:
    return parse_drive(item[0], str(item[1])) if DRIVE.fullmatch(item[0]) else None


def _drive_order(name: str) -> tuple[int, int]:
    kinds = ("ide", "scsi", "virtio", "sata", "efidisk", "tpmstate")
    match = re.fullmatch(r"([a-z]+)(\d+)", name)
    return (kinds.index(match[1]), int(match[2])) if match else (len(kinds), 0)


def apply_one(cluster: Cluster, vm: VirtualMachine, name: str, value: Option | None) -> None:
    """Makes one change effective; a disk that loses its place becomes unusedN, a cloud-init drive is deleted."""
    old = vm.config.pop(name, None)
    if old is not None and DRIVE.fullmatch(name):
        before = parse_drive(name, str(old))
        after = parse_drive(name, str(value)).file if value is not None else ""
        if before.cloudinit and before.file != after:
            volumes.free(cluster, vm.node, before.file)
        elif not before.cdrom and before.file != after:
            vm.config[free_unused(vm.config)] = before.file
    if old is not None and UNUSED.fullmatch(name) and value is None:
        volumes.free(cluster, vm.node, str(old))
    if value is not None:
        vm.config[name] = value
    elif name in boot_devices(vm.config.get("boot", "")):
        vm.config["boot"] = without_device(vm.config["boot"], name)
    vm.pending.pop(name, None)
    if name in vm.deleted:
        vm.deleted.remove(name)


def apply_pending(cluster: Cluster, vm: VirtualMachine) -> None:
    """What waited for a power cycle takes effect."""
    for name in list(vm.deleted):
        apply_one(cluster, vm, name, None)
    for name, value in list(vm.pending.items()):
        apply_one(cluster, vm, name, value)
    cluster.save_vm(vm)


def check_boot(config: Mapping[str, Option], boot: Option) -> None:
    """An update refuses a boot order of devices that do not exist (create does not)."""
    for device in boot_devices(boot):
        if device not in config:
            raise ApiError(f"invalid bootorder: device '{device}' does not exist'")


def _at_once(vm: VirtualMachine, name: str) -> bool:
    """Whether a running virtual machine takes the change without a power cycle."""
    if name in IMMEDIATE or UNUSED.fullmatch(name):
        return True
    features = str(vm.config.get("hotplug", "network,disk,usb"))
    kind = "network" if NET.fullmatch(name) else "usb" if name.startswith("usb") else "disk"
    return bool(HOTPLUG.fullmatch(name)) and (features == "1" or kind in features.split(","))


@dataclass(frozen=True)
class Changes:
    """What an update asks for: options to set, to delete, and pending changes to drop."""

    options: Mapping[str, Any]
    delete: tuple[str, ...]
    revert: tuple[str, ...]


async def update(cluster: Cluster, vm: VirtualMachine, changes: Changes, log: list[str]) -> None:
    """Stores the changes as pending, then applies what needs no power cycle."""
    if "boot" in changes.options:
        check_boot({**vm.config, **vm.pending, **changes.options}, changes.options["boot"])
    made = await make_options(cluster, vm, changes.options, log)
    for name in changes.revert:
        if isinstance(waiting := vm.pending.pop(name, None), str) and DRIVE.fullmatch(name):
            volumes.free(cluster, vm.node, parse_drive(name, waiting).file)
        if name in vm.deleted:
            vm.deleted.remove(name)
    for name in changes.delete:
        vm.pending.pop(name, None)
        if name in vm.config and name not in vm.deleted:
            vm.deleted.append(name)
    for name, value in made.items():
        if name in vm.deleted:
            vm.deleted.remove(name)
        vm.pending[name] = value
        if vm.config.get(name) == value:
            vm.pending.pop(name)
    running = cluster.power(vm) != "stopped"
    for name in [name for name in vm.deleted if not running or _at_once(vm, name)]:
        apply_one(cluster, vm, name, None)
    for name in [name for name in vm.pending if not running or _at_once(vm, name)]:
        apply_one(cluster, vm, name, vm.pending[name])
    cluster.save_vm(vm)


def resize(cluster: Cluster, vm: VirtualMachine, disk: str, text: str, log: list[str]) -> None:
    """Grows a disk to, or with `+` by, a size; everything else is refused."""
    drive = drives(vm.config).get(disk)
    if drive is None:
        raise ApiError(f"disk '{disk}' does not exist")
    if drive.cdrom:
        raise ApiError("you can't resize a cdrom")
    volume = volumes.stat(cluster, vm.node, drive.file)
    size = parse_size(text.lstrip("+")) + (volume.size if text.startswith("+") else 0)
    if size < volume.size:
        raise ApiError("shrinking disks is not supported")
    if size == volume.size:
        return
    volume.size = size
    cluster.save_volumes(vm.node)
    vm.config[disk] = Drive(drive.file, {**drive.keys, "size": format_size(size)}).text()
    cluster.save_vm(vm)
    log.append("Image resized.")
