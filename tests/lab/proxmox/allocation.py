# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The volumes behind the drives that a call sends (PVE/API2/Qemu.pm `create_disks`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from . import volumes
from .config import UNITS, Drive, drives, format_size
from .errors import ApiError
from .formats import NEW_DISK
from .store import Cluster, Option, VirtualMachine, Volume

EFI_SIZES = {"4m": 540672, "2m": 131072}  # bytes of the firmware's variables
TPM_SIZE = 4 << 20


@dataclass(frozen=True)
class _Work:
    """One creation: volumes that were made so far are in `fresh`."""

    cluster: Cluster
    vm: VirtualMachine
    log: list[str]
    fresh: list[str] = field(default_factory=list)


async def make_drives(
    cluster: Cluster, vm: VirtualMachine, wanted: Mapping[str, Drive], log: list[str]
) -> dict[str, Option]:
    """The drives as they are stored, new volumes made; all of them are freed again when one fails."""
    made: dict[str, Option] = {}
    work = _Work(cluster, vm, log)
    try:
        for name, drive in wanted.items():
            if drive.cloudinit:
                _check_one_cloudinit(name, wanted, drives(vm.config), drives(vm.pending))
            made[name] = (await _make(work, name, drive)).text()
    except (ApiError, asyncio.CancelledError):
        for volid in work.fresh:
            volumes.free(cluster, vm.node, volid)
        raise
    return made


async def _make(work: _Work, name: str, drive: Drive) -> Drive:
    if drive.file in ("none", "cdrom"):
        return Drive(drive.file, _without(drive, "size"))
    if drive.file.endswith(":cloudinit"):
        result = Drive(_cloudinit(work, drive), _without(drive, "format") | {"media": "cdrom"})
    elif new := NEW_DISK.fullmatch(drive.file):
        volume = await _new(work, name, drive, new[1], float(new[2]))
        result = Drive(volume.volid, _new_keys(name, drive) | {"size": format_size(volume.size)})
    else:
        return _existing(work, name, drive)
    work.log.append(f"{name}: successfully created disk '{result.text()}'")
    return result


def _without(drive: Drive, *names: str) -> dict[str, str]:
    return {key: value for key, value in drive.keys.items() if key not in names}


def _new_keys(name: str, drive: Drive) -> dict[str, str]:
    """What stays of the keys; the firmware's own file with enrolled keys knows the newer certificates."""
    keys = _without(drive, "format", "import-from", "size")
    enrolled = name == "efidisk0" and "import-from" not in drive.keys and keys.get("efitype") == "4m"
    return keys | ({"ms-cert": "2023k"} if enrolled and keys.get("pre-enrolled-keys") == "1" else {})


def _check_one_cloudinit(name: str, *places: Mapping[str, Drive]) -> None:
    for other, drive in (item for place in places for item in place.items()):
        if other != name and drive.cloudinit:
            raise ApiError(f"{name} - cloud-init drive is already attached at '{other}'")


def _cloudinit(work: _Work, drive: Drive) -> str:
    store, vmid = volumes.split(drive.file)[0], work.vm.vmid
    kind = drive.keys.get("format", "qcow2")
    file, size = f"vm-{vmid}-cloudinit.{kind}", volumes.CLOUDINIT_SIZE
    volume = volumes.allocate(work.cluster, work.vm.node, store, vmid, size, name=file, kind=kind)
    work.fresh.append(volume.volid)
    return volume.volid


async def _new(work: _Work, name: str, drive: Drive, store: str, gigabytes: float) -> Volume:
    cluster, vm = work.cluster, work.vm
    volumes.enabled_storage(cluster, vm.node, store)
    if "import-from" in drive.keys:
        volume = await _import(work, drive, store)
    else:
        size = EFI_SIZES[drive.keys.get("efitype", "2m")] if name == "efidisk0" else int(gigabytes * UNITS["G"])
        size = TPM_SIZE if name == "tpmstate0" else size
        kind = volumes.possible_format(cluster, store, drive.keys.get("format", ""))
        volume = volumes.allocate(cluster, vm.node, store, vm.vmid, size, kind=kind)
        work.fresh.append(volume.volid)
    if vm.config.get("template"):
        work.fresh[-1] = volumes.make_base(cluster, vm.node, volume.volid)
    return volume


async def _import(work: _Work, drive: Drive, store: str) -> Volume:
    """A new disk with the content of an image or of another disk."""
    cluster, vm, source = work.cluster, work.vm, drive.keys["import-from"]
    image = volumes.stat(cluster, vm.node, source)
    kind = volumes.possible_format(cluster, store, drive.keys.get("format", image.format))
    work.log.append(f"create full clone of drive ({source})")
    volume = volumes.allocate_like(cluster, vm.node, store, vm.vmid, source=image, kind=kind)
    volume.image = image.image or source
    work.fresh.append(volume.volid)
    work.log.append(f"allocated target volume '{volume.volid}'")
    try:
        await volumes.copy(cluster, image, volume, work.log)
    except ApiError as error:
        raise ApiError(f"cannot import from '{source}' - {error.message}") from None
    return volume


def _existing(work: _Work, name: str, drive: Drive) -> Drive:
    if drive.file.startswith("/"):
        return Drive(drive.file, _without(drive, "import-from"))
    volume = volumes.find(work.cluster, work.vm.node, drive.file)
    if volume is None:
        raise ApiError(f"volume '{drive.file}' does not exist")
    if drive.keys.get("format", volume.format) != volume.format:
        text = f"'format={drive.keys['format']}' option different from storage format '{volume.format}'"
        raise ApiError(f"drive '{name}' - volume '{drive.file}' - {text}")
    return Drive(drive.file, {**drive.keys, "size": format_size(volume.size)})
