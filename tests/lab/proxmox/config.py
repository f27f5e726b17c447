# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of a virtual machine: pure functions from what was sent to what is stored and shown.

Source: PVE/QemuServer.pm and PVE/QemuServer/Drive.pm; proxmox-api.md, "VM configuration".
"""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from .formats import split_list
from .schema import DISKS, parse_property_string, schema
from .store import Option, VirtualMachine

DRIVE = re.compile(r"(ide|sata|scsi|virtio|efidisk|tpmstate)\d+")
NET = re.compile(r"net\d+")
UNUSED = re.compile(r"unused\d+")
CDROM_ALIAS = "ide2"  # what the option `cdrom` stands for
MACHINE_VERSION = "10.0+pve0"  # the newest that the simulated QEMU has
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes of `1600M`, `2.5G`, `1024`."""
    return int(float(text.rstrip("KMGT")) * UNITS[text[len(text.rstrip("KMGT")) :]])


def format_size(size: int) -> str:
    """The largest whole unit: 3584M, 1G."""
    for unit in "TGMK":
        if size and size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]}{unit}"
    return str(size)


def normalise_tags(text: str) -> str:
    """Lower case, sorted, unique, joined by `;`."""
    return ";".join(sorted({tag.lower() for tag in split_list(text)}))


def is_option(name: str) -> bool:
    """Whether `delete` and `revert` may name it."""
    return name in schema().options


def stored(name: str, value: Option | float) -> Option:
    """The value as it reads back: an empty text is one blank, tags are normalised, numbers stay numbers."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else str(value)
    if name == "tags":
        value = normalise_tags(str(value))
    elif name == "cpuunits":
        value = max(1, min(int(value), 10000))
    elif name == "description":
        value = str(value).rstrip("\n")
    return " " if value == "" else value


@dataclass(frozen=True)
class Drive:
    """A drive option: the volume (or none, cdrom, a path, STORE:SIZE) and the other keys as text."""

    file: str
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def cdrom(self) -> bool:
        return self.keys.get("media") == "cdrom" or self.file in ("none", "cdrom")

    @property
    def cloudinit(self) -> bool:
        return bool(re.search(r"[:/](?:vm-\d+-)?cloudinit(?:\.\w+)?$", self.file))

    def text(self) -> str:
        """The volume first, then the keys in alphabetical order."""
        return ",".join([self.file, *(f"{key}={value}" for key, value in sorted(self.keys.items()))])


def property_keys(kind: str, text: str, name: str = "value") -> dict[str, str]:
    """The keys of a property string that has passed the schema, as text; booleans as 0 and 1."""
    values, _unused = parse_property_string(kind, text, name)
    return {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in values.items()}


def parse_drive(name: str, text: str) -> Drive:
    """A drive option that has passed the schema."""
    keys = property_keys(re.sub(r"\d+$", "", name), text, name)
    return Drive(keys.pop("file"), keys)


def drives(config: Mapping[str, Option]) -> dict[str, Drive]:
    """The drives of a configuration, in the server's order of drive names."""
    return {name: parse_drive(name, str(config[name])) for name in DISKS if name in config}


def with_mac(text: str, mac: str) -> str:
    """The NIC option as it is stored; a MAC that it has is kept."""
    return _print_net({"macaddr": mac} | property_keys("net", text))


def with_new_mac(text: str, mac: str) -> str:
    """The NIC option of a copy."""
    return _print_net(property_keys("net", text) | {"macaddr": mac})


def _print_net(keys: dict[str, str]) -> str:
    """MODEL=MAC, then the other keys in alphabetical order."""
    first = f"{keys.pop('model')}={keys.pop('macaddr')}"
    return ",".join([first, *(f"{key}={value}" for key, value in sorted(keys.items()))])


def with_new_uuid(smbios1: str) -> str:
    """The SMBIOS option of a copy."""
    keys = property_keys("smbios1", smbios1) | {"uuid": new_uuid()}
    return ",".join(f"{key}={value}" for key, value in sorted(keys.items()))


def new_uuid() -> str:
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


def mac_of(text: str) -> str:
    return str(parse_property_string("net", text)[0].get("macaddr", ""))


def default_boot(config: Mapping[str, Option]) -> str:
    """The boot order that create writes: first disk, first CD drive, first NIC; one blank for nothing."""
    found = drives(config)
    disk = next((name for name, drive in found.items() if not drive.cdrom and not name.startswith(("efi", "tpm"))), "")
    cdrom = next((name for name, drive in found.items() if drive.cdrom), "")
    net = next((name for name in sorted(config) if NET.fullmatch(name)), "")
    return boot_order([name for name in (disk, cdrom, net) if name])


def boot_devices(boot: Option) -> list[str]:
    """The devices of `order=...`."""
    return split_list(str(boot).removeprefix("order=")) if str(boot).startswith("order=") else []


def boot_order(devices: list[str]) -> str:
    return f"order={';'.join(devices)}" if devices else " "


def without_device(boot: Option, device: str) -> str:
    return boot_order([name for name in boot_devices(boot) if name != device])


def agent_enabled(config: Mapping[str, Option]) -> bool:
    return bool(parse_property_string("agent", str(config.get("agent", "0")))[0].get("enabled"))


def memory(config: Mapping[str, Option]) -> int:
    """Bytes; 512 MiB where nothing is said."""
    value = parse_property_string("memory", str(config.get("memory", "512")))[0]["current"]
    return int(value) * UNITS["M"]


def cores(config: Mapping[str, Option]) -> int:
    return int(config.get("vcpus", 0)) or int(config.get("sockets", 1)) * int(config.get("cores", 1))


def boot_disk_size(config: Mapping[str, Option]) -> int:
    """Bytes of the first disk of the boot order, 0 without one (`maxdisk`)."""
    found = drives(config)
    for name in boot_devices(config.get("boot", "")):
        if name in found and not found[name].cdrom:
            return parse_size(found[name].keys.get("size", "0"))
    return 0


def digest(vm: VirtualMachine) -> str:
    """SHA-1 over the configuration file."""
    lines = [f"{name}: {vm.config[name]}" for name in sorted(vm.config)]
    lines += ["[PENDING]"] if vm.pending or vm.deleted else []
    lines += [f"delete: {','.join(sorted(vm.deleted))}"] if vm.deleted else []
    lines += [f"{name}: {vm.pending[name]}" for name in sorted(vm.pending)]
    for snapshot, config in sorted(vm.snapshots.items()):
        lines += [f"[{snapshot}]", *(f"{name}: {config[name]}" for name in sorted(config))]
    return hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()


def shown(name: str, value: Option) -> Option:
    """The value as GET shows it."""
    return "**********" if name == "cipassword" else value


def pinned_machine(machine: Option, ostype: str) -> str:
    """Windows gets the machine version of the moment; "" where nothing is to be set."""
    first, comma, rest = str(machine).partition(",")
    kinds = {"": "pc-i440fx", "pc": "pc-i440fx", "q35": "pc-q35"}
    if ostype.startswith("w") and first in kinds:
        return f"{kinds[first]}-{MACHINE_VERSION}{comma}{rest}"
    return ""


def free_unused(config: Mapping[str, Option]) -> str:
    """The lowest free unusedN."""
    return next(name for number in range(256) if (name := f"unused{number}") not in config)
