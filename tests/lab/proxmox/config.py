# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of a virtual machine: pure functions from what was sent to what is stored and shown.

Source: PVE/QemuServer.pm and PVE/QemuServer/Drive.pm; proxmox-api.md, "VM configuration".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .formats import split_list
from .schema import DISKS, parse_property_string, schema

Option = str | int

DRIVE = re.compile(r"(ide|sata|scsi|virtio|efidisk|tpmstate)\d+")
NET = re.compile(r"net\d+")
UNUSED = re.compile(r"unused\d+")
# Options that a running virtual machine takes at once (`fast_plug_option`).
IMMEDIATE = frozenset(
    (
        *("allow-ksm", "description", "hookscript", "lock", "migrate_downtime", "migrate_speed", "name", "onboot"),
        *("protection", "shares", "startup", "tags", "vmstatestorage"),
    )
)
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


def parse_drive(name: str, text: str) -> Drive:
    """A drive option that has passed the schema."""
    kind = re.sub(r"\d+$", "", name)
    values, _unused = parse_property_string(kind, text, name)
    raw = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    keys = {key: value for key, value in raw.items() if key not in ("file", "volume")}
    return Drive(values["file"], keys)


def drives(config: Mapping[str, Option]) -> dict[str, Drive]:
    """The drives of a configuration, in the server's order of drive names."""
    return {name: parse_drive(name, str(config[name])) for name in DISKS if name in config}


def with_mac(text: str, mac: str) -> str:
    """The NIC option as it is stored: as sent, with a MAC where none was given."""
    values, _unused = parse_property_string("net", text)
    if "macaddr" in values:
        return text
    others = [
        part for part in text.split(",") if part and part != values["model"] and part != f"model={values['model']}"
    ]
    return ",".join([f"{values['model']}={mac}", *others])


def mac_of(text: str) -> str:
    return str(parse_property_string("net", text)[0].get("macaddr", ""))


def default_boot(config: Mapping[str, Option]) -> str:
    """The boot order that create writes: first disk, first CD drive, first NIC; one blank for nothing."""
    found = drives(config)
    disk = next((name for name, drive in found.items() if not drive.cdrom and not name.startswith(("efi", "tpm"))), "")
    cdrom = next((name for name, drive in found.items() if drive.cdrom), "")
    net = next((name for name in sorted(config) if NET.fullmatch(name)), "")
    order = [name for name in (disk, cdrom, net) if name]
    return f"order={';'.join(order)}" if order else " "


def boot_devices(boot: Option) -> list[str]:
    """The devices of `order=...`."""
    return split_list(str(boot).removeprefix("order=")) if str(boot).startswith("order=") else []


def without_device(boot: Option, device: str) -> str:
    order = [name for name in boot_devices(boot) if name != device]
    return f"order={';'.join(order)}" if order else " "


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


def digest(config: Mapping[str, Option], pending: Mapping[str, Option], deleted: list[str]) -> str:
    """SHA-1 over the configuration file."""
    lines = [f"{name}: {config[name]}" for name in sorted(config)]
    lines += ["[PENDING]"] if pending or deleted else []
    lines += [f"delete: {','.join(sorted(deleted))}"] if deleted else []
    lines += [f"{name}: {pending[name]}" for name in sorted(pending)]
    return hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()


def shown(name: str, value: Option) -> Option:
    """The value as GET shows it."""
    return "**********" if name == "cipassword" else value


def free_unused(config: Mapping[str, Option]) -> str:
    """The lowest free unusedN."""
    return next(name for number in range(256) if (name := f"unused{number}") not in config)
