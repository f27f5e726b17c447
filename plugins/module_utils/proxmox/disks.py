# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks and firmware volumes: the options, what differs, and how it is changed.

Pure functions. ``STORAGE:SIZE`` allocates a new volume each time it is sent, so it is sent for an empty slot only; the
volume of a disk that is there is never named anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.check import STORAGE, VOLUME, Check
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import (
    drives,
    format_drive,
    format_properties,
    format_size,
    parse_drive,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import (
    GIB,
    SYSTEM_DISK,
    Disk,
    Drive,
    Firmware,
    Pairs,
)

# qemu-server: MAX_SCSI_DISKS and its kind; ide2 is cloud-init's
SLOT = re.compile(r"(scsi([12]?\d|30)|virtio(\d|1[0-5])|sata[0-5]|ide[013])\Z")
SLOT_HINT = "a slot, such as scsi1; ide2 is that of the cloud-init drive"
SIZE_RANGE = range(1, 1_048_577)
FORMATS = ("raw", "qcow2", "vmdk")
CACHES = ("none", "writethrough", "writeback", "unsafe", "directsync")
PROPERTY = re.compile(r"[a-z][a-z0-9_-]*\Z")
PROPERTY_VALUE = re.compile(r"[^\s,]+\Z")
FLAGS = {"ssd": "ssd", "iothread": "iothread", "backup": "backup", "replicate": "replicate", "readonly": "ro"}
# what the server takes where a key is absent
DEFAULTS = {
    "cache": "none",
    "discard": "ignore",
    "ssd": "0",
    "iothread": "0",
    "backup": "1",
    "replicate": "1",
    "ro": "0",
}
SUFFIX = re.compile(r"\.(raw|qcow2|vmdk)\Z")


def desired_disks(check: Check) -> tuple[Disk, ...]:
    """The options ``disk`` and ``disks``. :raises InvalidInput: a value is refused, or a slot is there twice."""
    system = check.values.get("disk")
    further = check.each("disks", lambda inner: _disk(inner, inner.required("slot", SLOT, SLOT_HINT)))
    disks = (*([] if system is None else [_disk(check.inside("disk", system), SYSTEM_DISK)]), *(further or ()))
    slots = [disk.slot for disk in disks]
    for slot in slots:
        if slots.count(slot) > 1:
            raise check.refused("disks", slot, "every slot once; scsi0 is the option disk")
    return disks


def _disk(check: Check, slot: str) -> Disk:
    size = check.number("size", SIZE_RANGE)
    return Disk(
        slot=slot,
        state=check.values.get("state") or "present",
        storage=check.text("storage", STORAGE, "the name of a storage"),
        import_from=check.text("import_from", VOLUME, "a volume, such as local:import/nixos.qcow2"),
        size=None if size is None else size * GIB,
        move=bool(check.values.get("move")),
        format=check.one_of("format", FORMATS),
        options=_options(check),
    )


def _options(check: Check) -> Pairs:
    found: dict[str, str] = {}
    for key, value in (check.values.get("options") or {}).items():
        text = str(int(value)) if isinstance(value, bool) else str(value)
        if not PROPERTY.match(key) or key in ("file", "volume", "size", "format", "import-from", "media"):
            raise check.refused("options", key, "further keys of the disk, such as iops_rd")
        if not PROPERTY_VALUE.match(text):
            raise check.refused("options", value, "a value without blanks and commas")
        found[key] = text
    found.update({key: value for key in ("cache", "aio") if (value := check.values.get(key)) is not None})
    for option, key in FLAGS.items():
        if check.values.get(option) is not None:
            found[key] = str(int(check.values[option]))
    if check.values.get("discard") is not None:
        found["discard"] = "on" if check.values["discard"] else "ignore"
    return tuple(sorted(found.items()))


def desired_firmware(check: Check) -> tuple[Firmware, ...]:
    """The options ``efi_disk`` and ``tpm``."""
    found = []
    for option, key, names in (
        ("efi_disk", "efidisk0", {"type": "efitype", "pre_enrolled_keys": "pre-enrolled-keys"}),
        ("tpm", "tpmstate0", {"version": "version"}),
    ):
        values = check.values.get(option)
        if values is None:
            continue
        inner = check.inside(option, values)
        options = {
            name: str(int(value)) if isinstance(value, bool) else str(value)
            for given, name in names.items()
            if (value := values.get(given)) is not None
        }
        storage = inner.required("storage", STORAGE, "the name of a storage")
        found.append(Firmware(key, storage, tuple(sorted(options.items()))))
    return tuple(found)


@dataclass(frozen=True)
class Move:
    """A disk that goes to another storage or format."""

    slot: str
    storage: str
    format: str | None = None


@dataclass(frozen=True)
class DiskChanges:
    """What to do with the disks, in this order.

    :param values: text of configuration keys to set.
    :param deleted: slots to empty, with their volumes.
    :param grown: bytes by slot.
    """

    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    deleted: tuple[str, ...] = ()
    moved: tuple[Move, ...] = ()
    grown: Mapping[str, int] = field(default_factory=dict)


def disk_changes(disks: tuple[Disk, ...], config: Mapping[str, str], where: str) -> DiskChanges:
    """What differs between desired disks and those that are there.

    :param where: the VM, for errors.
    :raises InvalidInput: a disk would shrink, or lacks what makes a new one.
    """
    present = drives(config)
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    values: dict[str, str] = {}
    deleted: list[str] = []
    moved: list[Move] = []
    grown: dict[str, int] = {}
    for disk in disks:
        slot, drive = disk.slot, present.get(disk.slot)
        if disk.state == "absent":
            if drive is not None:
                before[slot], after[slot] = {"volume": drive.volume}, {}
                deleted.append(slot)
            continue
        if drive is None:
            if not _fits_empty(disk, config, where):
                continue
            before[slot], after[slot] = {}, shown_new(disk)
            values[slot] = new_disk(disk, where)
            if disk.import_from and disk.size is not None:
                grown[slot] = disk.size
            continue
        have, want = _compared(disk, drive, where)
        if have == want:
            continue
        before[slot], after[slot] = have, want
        options = dict(drive.options)
        changed = {key: value for key, value in disk.options if options.get(key, DEFAULTS.get(key)) != value}
        if changed:
            values[slot] = format_drive(replace(drive, options=tuple({**options, **changed}.items())))
        if "storage" in want or "format" in want:
            moved.append(Move(slot, want.get("storage", drive.storage), want.get("format")))
        if "size" in want and disk.size is not None:
            grown[slot] = disk.size
    return DiskChanges(before, after, values, tuple(deleted), tuple(moved), grown)


def _fits_empty(disk: Disk, config: Mapping[str, str], where: str) -> bool:
    """Whether a disk is to be made in the slot; the system disk is made with the VM only.

    :raises InvalidInput: the slot holds a CD drive, or a size is wanted of a system disk that is not there.
    """
    if disk.slot in config:
        raise InvalidInput("the slot holds a CD drive", where=f"{where}, disk {disk.slot}", hint="Choose another slot")
    if disk.slot != SYSTEM_DISK:
        return True
    if disk.size is not None:
        raise InvalidInput(
            f"the VM has no disk {SYSTEM_DISK}",
            where=f"{where}, disk.size",
            hint="Leave disk out, or name the disk that it has in disks",
        )
    return False


def _compared(disk: Disk, drive: Drive, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What differs of a disk that is there: present and wanted plain values."""
    options = dict(drive.options)
    have: dict[str, Any] = {key: options.get(key, DEFAULTS.get(key)) for key, _value in disk.options}
    want: dict[str, Any] = dict(disk.options)
    if disk.size is not None:
        have["size"], want["size"] = drive.size, disk.size
        check_growth(disk, drive.size, "the disk", where)
    if disk.move:
        suffix = SUFFIX.search(drive.volume)
        if disk.storage is not None:
            have["storage"], want["storage"] = drive.storage, disk.storage
        if disk.format is not None and (suffix or drive.storage != disk.storage):
            have["format"], want["format"] = suffix[1] if suffix else None, disk.format
    keys = [key for key in want if want[key] != have[key]]
    return {key: have[key] for key in keys}, {key: want[key] for key in keys}


def check_growth(disk: Disk, present: int | None, what: str, where: str) -> None:
    """:raises InvalidInput: the disk would shrink, or nobody knows its size."""
    field = f"{where}, disk.size" if disk.slot == SYSTEM_DISK else f"{where}, disk {disk.slot}, size"
    if disk.size is None:
        return
    if present is None:
        raise InvalidInput("the server gives no size of the disk", where=field, hint="Leave the size out")
    if disk.size < present:
        raise InvalidInput(
            f"{what} has {format_size(present)} and cannot shrink to {format_size(disk.size)}",
            where=field,
            hint="Ask for at least the present size",
        )


def as_grown(config: Mapping[str, str], grown: Mapping[str, int]) -> dict[str, str]:
    """The configuration after disks have grown."""
    sizes = {slot: replace(drive, size=grown[slot]) for slot, drive in drives(config).items() if slot in grown}
    return {**config, **{slot: format_drive(drive) for slot, drive in sizes.items()}}


def new_disk(disk: Disk, where: str) -> str:
    """The text that makes a disk. :raises InvalidInput: the storage, or image and size, are missing."""
    if disk.storage is None or (disk.import_from is None and disk.size is None):
        raise InvalidInput(
            "the disk does not exist and cannot be made without storage and one of size and import_from",
            where=f"{where}, disk {disk.slot}",
            hint="Give storage and size",
        )
    size = 0 if disk.import_from else (disk.size or 0) // GIB
    source = [("import-from", disk.import_from)] if disk.import_from else []
    kind = [("format", disk.format)] if disk.format else []
    properties = format_properties([*source, *kind, *disk.options])
    return ",".join(filter(None, [f"{disk.storage}:{size}", properties]))


def shown_new(disk: Disk) -> dict[str, Any]:
    """A disk that is to be made, as plain values."""
    values = {"storage": disk.storage, "import_from": disk.import_from, "size": disk.size, "format": disk.format}
    return {**{key: value for key, value in values.items() if value is not None}, **dict(disk.options)}


def firmware_changes(
    firmware: tuple[Firmware, ...], config: Mapping[str, str], where: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Before, after, and the text of the configuration keys for firmware volumes that are missing.

    :raises InvalidInput: a volume is there with other properties; they cannot change.
    """
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    values: dict[str, str] = {}
    for one in firmware:
        present = dict(parse_drive(config.get(one.key, "")).options)
        if one.key not in config:
            before[one.key], after[one.key] = {}, {"storage": one.storage, **dict(one.options)}
            values[one.key] = ",".join(filter(None, [f"{one.storage}:1", format_properties(one.options)]))
            continue
        for key, value in one.options:
            default = {"efitype": "2m", "pre-enrolled-keys": "0", "version": "v1.2"}.get(key)
            if present.get(key, default) != value:
                raise InvalidInput(
                    f"{one.key} has {key}={present.get(key, default)}, which cannot change to {value}",
                    where=f"{where}, {one.key}",
                    hint="Leave it as it is, or remove the volume by hand first; its content is then lost",
                )
    return before, after, values
