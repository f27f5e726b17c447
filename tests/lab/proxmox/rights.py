# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a caller may write into the configuration of a virtual machine, and which values nobody may.

Source: PVE/API2/Qemu.pm `check_vm_modify_config_perm`, `check_storage_access`, `check_drive_param` and the like.
An option that none of the lists names is for root@pam itself, not even for its tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import volumes
from .cloudinit import keys_of, valid_key
from .config import DRIVE, NET, UNUSED, Drive, parse_drive, property_keys
from .errors import ApiError, invalid
from .formats import NEW_DISK
from .routes import Call
from .store import Option

# pattern of the option → privileges on the virtual machine of which one is enough
_PRIVILEGES = (
    (r"cores|cpu|cpulimit|cpuunits|numa\d*|smp|sockets|vcpus", ("VM.Config.CPU",)),
    (r"memory|balloon|shares|allow-ksm", ("VM.Config.Memory",)),
    (r"acpi|hotplug|kvm|machine|scsihw|smbios1|tablet|vga|watchdog|audio0|rng0", ("VM.Config.HWType",)),
    (
        r"agent|autostart|bios|description|keyboard|localtime|migrate_downtime|migrate_speed|name|onboot|ostype"
        r"|protection|reboot|startdate|startup|tdf|template|tags",
        ("VM.Config.Options",),
    ),
    (r"freeze", ("VM.PowerMgmt",)),
    (r"boot|bootdisk|vmstatestorage", ("VM.Config.Disk",)),
    (NET.pattern, ("VM.Config.Network",)),
    (
        r"cicustom|cipassword|citype|ciuser|ciupgrade|nameserver|searchdomain|sshkeys|ipconfig\d+",
        ("VM.Config.Cloudinit", "VM.Config.Network"),
    ),
)
# these are judged by their value
_BY_VALUE = re.compile(rf"{DRIVE.pattern}|{UNUSED.pattern}|cdrom|(?:serial|usb|hostpci|virtiofs)\d+")


@dataclass(frozen=True)
class Subject:
    """The caller and the virtual machine, which may lie in a pool already or only when it is created."""

    call: Call
    vmid: int
    pool: str

    def require(self, *names: str) -> None:
        """403 unless one of the privileges is held on the virtual machine or its pool."""
        if not self.call.may(f"/vms/{self.vmid}", *names) and not (
            self.pool and self.call.may(f"/pool/{self.pool}", *names)
        ):
            self.call.require(f"/vms/{self.vmid}", *names)


def check_options(subject: Subject, names: Iterable[str]) -> None:
    """403 for an option that the caller may not touch; 500 for those of root@pam alone."""
    if subject.call.who.root_itself:
        return
    for name in names:
        if _BY_VALUE.fullmatch(name):
            continue
        needed = next((privileges for pattern, privileges in _PRIVILEGES if re.fullmatch(pattern, name)), None)
        if needed is None:
            subject.call.require_root(name)
        else:
            subject.require(*needed)
        if name == "startup":
            subject.call.require("/", "Sys.Modify")


def check_devices(subject: Subject, options: Mapping[str, Option], verb: str = "set") -> None:
    """Host devices are for root@pam; sockets and mapped devices for those with the privilege."""
    if subject.call.who.root_itself:
        return
    for name, value in options.items():
        if name.startswith("serial"):
            if value != "socket":
                raise ApiError(f"only root can {verb} '{name}' config for real devices")
            subject.require("VM.Config.HWType")
        elif match := re.fullmatch(r"(usb|hostpci)\d+", name):
            _check_host_device(subject, match[1], name, str(value))
        elif name.startswith("virtiofs"):
            subject.require("VM.Config.Disk")
            subject.call.require(f"/mapping/dir/{property_keys('virtiofs', str(value))['dirid']}", "Mapping.Use")
        elif name == "rng0" and property_keys("rng", str(value))["source"] == "/dev/hwrng":
            subject.call.require("/mapping/hwrng", "Mapping.Use")


def _check_host_device(subject: Subject, kind: str, name: str, value: str) -> None:
    keys = property_keys(kind, value, name)
    what = "real" if kind == "usb" else "non-mapped"
    if "host" in keys and not (kind == "usb" and keys["host"].lower() == "spice"):
        raise ApiError(f"only root can set '{name}' config for {what} devices")
    if "host" not in keys and "mapping" not in keys:
        raise ApiError("either 'host' or 'mapping' must be set.")
    if "mapping" in keys:
        subject.call.require(f"/mapping/{'pci' if kind == 'hostpci' else 'usb'}/{keys['mapping']}", "Mapping.Use")
    subject.require("VM.Config.HWType")
    if "romfile" in keys:
        raise invalid({name: "only root@pam can set 'romfile' option"})


def drives_of(params: Mapping[str, Any]) -> dict[str, Drive]:
    """The drives that a call sends, in the order in which the server goes through them."""
    return {name: parse_drive(name, str(params[name])) for name in sorted(params) if DRIVE.fullmatch(name)}


def check_imports(params: Mapping[str, Any]) -> None:
    """400 for an import in the wrong form, and for an ISO image that is not said to be a CD."""
    for name, drive in drives_of(params).items():
        if "import-from" in drive.keys:
            new = NEW_DISK.fullmatch(drive.file)
            if not new or float(new[2]) != 0:
                text = "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>"
                raise invalid({name: text})
            needed = {"efidisk0": ("efitype", "pre-enrolled-keys"), "tpmstate0": ("version",)}.get(name, ())
            for key in needed:
                if key not in drive.keys:
                    raise invalid({name: f"need to specify '{key}' when using 'import-from'"})
        if volumes.split(drive.file)[1].startswith("iso/") and drive.keys.get("media") != "cdrom":
            raise invalid({name: "explicit 'media=cdrom' is required for iso images"})


def check_storages(call: Call, vmid: int, params: Mapping[str, Any]) -> None:
    """Storages that do not exist or hold no disks, volumes and paths that the caller may not use."""
    cluster = call.cluster
    for name, drive in drives_of(params).items():
        new = NEW_DISK.fullmatch(drive.file)
        if drive.file == "cdrom":
            call.require("/", "Sys.Console")
        elif new and not drive.cdrom:
            if "images" not in volumes.contents(cluster, new[1]):
                raise invalid({"storage": f"storage '{new[1]}' does not support vm images"})
            call.require(f"/storage/{new[1]}", "Datastore.AllocateSpace")
        elif drive.file.endswith(":cloudinit"):
            volumes.storage(cluster, volumes.split(drive.file)[0])
        elif drive.file != "none":
            check_volume(call, vmid, drive.file)
            if re.match(r"(import|vztmpl|snippets|backup)/", volumes.split(drive.file)[1]):
                raise invalid({name: "content type needs to be 'images' or 'iso'"})
        if source := drive.keys.get("import-from"):
            _check_source(call, vmid, name, source)
    if "vmstatestorage" in params:
        call.require(f"/storage/{params['vmstatestorage']}", "Datastore.AllocateSpace")


def _check_source(call: Call, vmid: int, name: str, source: str) -> None:
    kind = volumes.split(source)[1].partition("/")[0]
    if kind in ("iso", "vztmpl", "snippets", "backup"):
        raise invalid({name: f"{source} has wrong type '{kind}' - needs to be 'images' or 'import'"})
    if not source.startswith("/") and (owner := volumes.owner_of(source)):
        volumes.storage(call.cluster, volumes.split(source)[0])
        call.require(f"/vms/{owner}", "VM.Clone")
    else:
        check_volume(call, vmid, source)


def check_volume(call: Call, vmid: int, volid: str) -> None:
    """403 or 500 for a volume that the caller may not read (PVE/Storage.pm `check_volume_access`)."""
    if volid.startswith("/"):
        if not call.who.root_itself:
            where = "at /usr/share/perl5/PVE/Storage.pm line 651."
            raise ApiError(f"Only root can pass arbitrary filesystem paths. {where}")
        return
    store, volume = volumes.split(volid)
    volumes.storage(call.cluster, store)
    owner = volumes.owner_of(volid)
    if call.may(f"/storage/{store}", "Datastore.Allocate") or owner == vmid:
        return
    if re.match(r"(iso|vztmpl|import)/", volume):
        call.require(f"/storage/{store}", "Datastore.AllocateSpace", "Datastore.Audit")
    elif owner:
        call.require(f"/storage/{store}", "Datastore.Audit")
        call.require(f"/vms/{owner}", "VM.Config.Disk")
    else:
        raise ApiError(f"missing privileges to access {volid}")


def check_drive_change(subject: Subject, drive: Drive) -> None:
    """403 for a drive that the caller may not attach, change or detach."""
    if drive.cloudinit:
        subject.require("VM.Config.Cloudinit")
        subject.require("VM.Config.CDROM")
    else:
        subject.require("VM.Config.CDROM" if drive.cdrom else "VM.Config.Disk")


def check_bridges(call: Call, options: Mapping[str, Option]) -> None:
    """403 for a bridge, or a VLAN on it, that the caller may not use."""
    for name in sorted(name for name in options if NET.fullmatch(name)):
        keys = property_keys("net", str(options[name]), name)
        path = f"/sdn/zones/localnetwork/{keys.get('bridge', '')}"
        tags = [keys["tag"]] if keys.get("tag") else []
        for low, high in re.findall(r"(\d+)(?:-(\d+))?", keys.get("trunks", "")):
            tags += [str(tag) for tag in range(int(low), int(high or low) + 1)]
        if "bridge" in keys:
            for where in [f"{path}/{tag}" for tag in tags] or [path]:
                call.require(where, "SDN.Use")


def check_keys(options: Mapping[str, Option]) -> None:
    """500 for text that is no SSH key."""
    if "sshkeys" in options and not all(valid_key(line) for line in keys_of(options)):
        raise ApiError("SSH public key validation error")
