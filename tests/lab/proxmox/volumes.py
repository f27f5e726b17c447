# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks and images on the storages of a node (PVE/Storage.pm, PVE/Storage/Plugin.pm, PVE/Storage/DirPlugin.pm)."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from .errors import ApiError
from .formats import split_list
from .store import Cluster, Volume

CLOUDINIT_SIZE = 4 << 20
FORMATS = ("raw", "qcow2", "vmdk")  # of a disk in a directory
INTERRUPTED, BY_SIGNAL = "received interrupt", "interrupted by signal"  # how an aborted worker puts it
SHARED_TYPES = frozenset(("nfs", "cifs", "cephfs", "rbd", "iscsi", "iscsidirect", "zfs", "pbs", "esxi"))


def storage(cluster: Cluster, name: str) -> dict[str, Any]:
    """The definition of a storage; 500 when there is none."""
    if name not in cluster.storages:
        raise ApiError(f"storage '{name}' does not exist")
    return cluster.storages[name]


def enabled_storage(cluster: Cluster, node: str, name: str) -> dict[str, Any]:
    """The definition of a storage that is usable on a node; 500 otherwise."""
    entry = storage(cluster, name)
    if entry.get("disable"):
        raise ApiError(f"storage '{name}' is disabled")
    if entry.get("nodes") and node not in split_list(entry["nodes"]):
        raise ApiError(f"storage '{name}' is not available on node '{node}'")
    return entry


def shared(cluster: Cluster, name: str) -> bool:
    """Whether every node sees the same volumes."""
    entry = storage(cluster, name)
    return bool(entry.get("shared")) or entry["type"] in SHARED_TYPES


def contents(cluster: Cluster, name: str) -> list[str]:
    """What a storage may hold."""
    return split_list(storage(cluster, name).get("content", "images"))


def split(volid: str) -> tuple[str, str]:
    """(storage, volume name) of a volume id."""
    name, _unused, volume = volid.partition(":")
    return name, volume


def path_of(cluster: Cluster, volid: str) -> str:
    """Where the file would lie on a real node."""
    name, volume = split(volid)
    folder = {"import/": "import/", "iso/": "template/iso/", "vztmpl/": "template/cache/"}
    for prefix, directory in folder.items():
        if volume.startswith(prefix):
            return f"{storage(cluster, name)['path']}/{directory}{volume.removeprefix(prefix)}"
    parts = volume.split("/")
    return f"{storage(cluster, name)['path']}/images/{'/'.join(parts[-2:])}"


def owner_of(volid: str) -> int:
    """The virtual machine that a disk belongs to; 0 for an image."""
    parts = split(volid)[1].split("/")
    return int(parts[-2]) if len(parts) > 1 and parts[-2].isdigit() else 0


def base_of(volid: str) -> str:
    """The base volume of a linked clone, as STORE:VMID/FILE; "" for every other volume."""
    name, volume = split(volid)
    parts = volume.split("/")
    return f"{name}:{parts[0]}/{parts[1]}" if len(parts) == 4 else ""


def is_base(volid: str) -> bool:
    return volid.rsplit("/", 1)[-1].startswith("base-")


def home(cluster: Cluster, node: str, store: str) -> str:
    """The node under which the volumes of a storage are kept: the first for all when it is shared."""
    return cluster.nodes[0] if store in cluster.storages and shared(cluster, store) else node


def _shelf(cluster: Cluster, node: str, volid: str) -> dict[str, Volume]:
    return cluster.volumes[home(cluster, node, split(volid)[0])]


def _save(cluster: Cluster, node: str, volid: str) -> None:
    cluster.save_volumes(home(cluster, node, split(volid)[0]))


def on_storage(cluster: Cluster, node: str, store: str) -> list[Volume]:
    """The volumes of a storage as a node sees them, by volume id."""
    found = cluster.volumes[home(cluster, node, store)].values()
    return sorted((volume for volume in found if split(volume.volid)[0] == store), key=lambda volume: volume.volid)


def find(cluster: Cluster, node: str, volid: str) -> Volume | None:
    return _shelf(cluster, node, volid).get(volid)


def stat(cluster: Cluster, node: str, volid: str) -> Volume:
    """An existing volume; 500 as a failed stat() otherwise."""
    volume = find(cluster, node, volid)
    if volume is None:
        raise ApiError(f"failed to stat '{path_of(cluster, volid)}'")
    return volume


def _add(cluster: Cluster, node: str, volume: Volume) -> Volume:
    shelf = _shelf(cluster, node, volume.volid)
    if volume.volid in shelf:
        raise ApiError(f"disk image '{path_of(cluster, volume.volid)}' already exists")
    shelf[volume.volid] = volume
    _save(cluster, node, volume.volid)
    return volume


def allocate(
    cluster: Cluster, node: str, store: str, vmid: int, size: int, *, name: str = "", kind: str = "raw", image: str = ""
) -> Volume:
    """A new disk of `size` bytes; without a name the lowest free vm-ID-disk-N of that storage."""
    file = name or f"{_free_name(cluster, node, store, vmid)}.{kind}"
    volume = Volume(f"{store}:{vmid}/{file}", "images", kind, size, 4096, int(time.time()), vmid, None, image)
    return _add(cluster, node, volume)


def allocate_like(cluster: Cluster, node: str, store: str, vmid: int, *, source: Volume, kind: str) -> Volume:
    """A new disk that is to hold what another one holds (`copy`)."""
    volume = allocate(cluster, node, store, vmid, source.size, kind=kind, image=source.image)
    volume.used = source.used
    return volume


def link(cluster: Cluster, node: str, base: str, vmid: int) -> Volume:
    """A linked clone: a qcow2 over a base volume."""
    source, (store, volume) = stat(cluster, node, base), split(base)
    base_path = "/".join(volume.split("/")[-2:])
    file = f"{_free_name(cluster, node, store, vmid)}.qcow2"
    volid = f"{store}:{base_path}/{vmid}/{file}"
    fields = ("images", "qcow2", source.size, 528384, int(time.time()), vmid, f"../{base_path}", source.image)
    return _add(cluster, node, Volume(volid, *fields))


def _free_name(cluster: Cluster, node: str, store: str, vmid: int) -> str:
    pattern = re.compile(rf"(?:vm|base)-{vmid}-disk-(\d+)\.\w+")
    names = [volume.volid.rsplit("/", 1)[-1] for volume in on_storage(cluster, node, store)]
    taken = {int(match[1]) for name in names if (match := pattern.fullmatch(name))}
    return f"vm-{vmid}-disk-{next(number for number in range(256) if number not in taken)}"


def add_image(cluster: Cluster, node: str, volid: str, *, size: int, used: int) -> None:
    """An image as an upload leaves it: `size` is virtual, `used` the file's, both in bytes."""
    kind = volid.rsplit(".", 1)[-1]
    put(cluster, node, Volume(volid, "import", kind, size, used, int(time.time())))


def put(cluster: Cluster, node: str, volume: Volume) -> None:
    """A volume is there, whatever was there under its id."""
    _shelf(cluster, node, volume.volid)[volume.volid] = volume
    _save(cluster, node, volume.volid)


def in_use_by_clones(cluster: Cluster, node: str, volid: str) -> bool:
    """Whether linked clones stand on a base volume."""
    name, volume = split(volid)
    base = f"{name}:{'/'.join(volume.split('/')[-2:])}"
    return any(base_of(other) == base for other in _shelf(cluster, node, volid))


def free(cluster: Cluster, node: str, volid: str) -> None:
    """Deletes a volume; none is fine too. 500 for the base of a linked clone."""
    if in_use_by_clones(cluster, node, volid):
        raise ApiError(f"base volume '{split(volid)[1]}' is still in use by linked clones")
    if _shelf(cluster, node, volid).pop(volid, None):
        _save(cluster, node, volid)


def resize(cluster: Cluster, node: str, volume: Volume, size: int) -> None:
    volume.size = size
    _save(cluster, node, volume.volid)


def row(volume: Volume) -> dict[str, Any]:
    """A row of `content`: an image shows the size of its file, a disk what the guest sees."""
    fields: dict[str, Any] = {name: getattr(volume, name) for name in ("volid", "content", "format", "ctime")}
    if volume.content != "images":
        return fields | {"size": volume.used}
    return fields | {"size": volume.size, "used": volume.used, "vmid": volume.vmid, "parent": volume.parent}


def make_base(cluster: Cluster, node: str, volid: str) -> str:
    """Renames vm-ID-disk-N to base-ID-disk-N for a template; the new volume id."""
    directory, _unused, file = volid.rpartition("/")
    return _rename(cluster, node, volid, f"{directory}/{re.sub('^vm-', 'base-', file)}").volid


def reassign(cluster: Cluster, node: str, volid: str, vmid: int) -> str:
    """Gives a disk to another virtual machine of the node; the new volume id."""
    store, kind = split(volid)[0], stat(cluster, node, volid).format
    base = base_of(volid)
    start = f"{base}/" if base else f"{store}:"
    volume = _rename(cluster, node, volid, f"{start}{vmid}/{_free_name(cluster, node, store, vmid)}.{kind}")
    volume.vmid = vmid
    _save(cluster, node, volume.volid)
    return volume.volid


def _rename(cluster: Cluster, node: str, old: str, new: str) -> Volume:
    shelf = _shelf(cluster, node, old)
    volume = shelf.pop(old)
    volume.volid = new
    shelf[new] = volume
    _save(cluster, node, new)
    return volume


def transfer(cluster: Cluster, volume: Volume, node: str, target: str, store: str) -> str:
    """Moves a local volume to another node, to a storage there; under another name if its own is taken."""
    old_store, name = split(volume.volid)
    new = f"{store}:{name}"
    if new in cluster.volumes[home(cluster, target, store)]:
        prefix, _unused, file = name.rpartition("/")
        if "-disk-" not in file:
            raise ApiError(f"volume '{new}' already exists")
        new = f"{store}:{prefix}/{_free_name(cluster, target, store, volume.vmid or 0)}.{volume.format}"
    _shelf(cluster, node, volume.volid).pop(volume.volid)
    cluster.save_volumes(home(cluster, node, old_store))
    volume.volid = new
    cluster.volumes[home(cluster, target, store)][new] = volume
    _save(cluster, target, new)
    return new


def possible_format(cluster: Cluster, store: str, wanted: str = "") -> str:
    """The format of a new disk: the wanted one where the storage keeps files, else raw."""
    return wanted if wanted in FORMATS and "path" in storage(cluster, store) else "raw"


def has_feature(volume: Volume, feature: str, snapshot: str = "") -> bool:
    """snapshot, clone (linked), copy, template: by format and state (Storage/Plugin.pm `volume_has_feature`)."""
    if feature == "snapshot" or snapshot:
        return volume.format == "qcow2" and feature in ("snapshot", "copy") and not is_base(volume.volid)
    if feature == "clone":
        return is_base(volume.volid)
    return volume.format in FORMATS and not (feature == "template" and is_base(volume.volid))


async def copy(
    cluster: Cluster, source: Volume, target: Volume, log: list[str], *, bwlimit: int = 0, end: str = INTERRUPTED
) -> None:
    """Takes the time that the data take: what the source holds, or its whole size at `bwlimit` KiB/s.

    `end` is how the worker puts it when somebody aborts it.
    """
    seconds = cluster.timing.image_copy * source.used / (1 << 30)
    if bwlimit:
        seconds = max(seconds, source.size / (bwlimit << 10))
    steps = 100 if source.used > 1 << 20 else 1
    try:
        for step in range(steps + 1):
            done = source.size * step // steps
            log.append(f"transferred {_bytes(done)} of {_bytes(source.size)} ({100 * step / steps:.2f}%)")
            if step < steps:
                await asyncio.sleep(seconds / steps)
    except asyncio.CancelledError:
        rate = f" -r {bwlimit}K" if bwlimit else ""
        paths = f"{path_of(cluster, source.volid)} zeroinit:{path_of(cluster, target.volid)}"
        command = f"/usr/bin/qemu-img convert -p -n{rate} -f {source.format} -O {target.format} {paths}"
        raise ApiError(f"copy failed: command '{command}' failed: {end}") from None


def _bytes(count: int) -> str:
    """As the real server renders sizes: 843.8 MiB."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.1f} {units[0]}"
