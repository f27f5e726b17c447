# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks and images on the storages of a node (PVE/Storage.pm, PVE/Storage/DirPlugin.pm)."""

from __future__ import annotations

import re
import time
from typing import Any

from .errors import ApiError
from .formats import split_list
from .store import Cluster, Volume

CLOUDINIT_SIZE = 4 << 20


def storage(cluster: Cluster, name: str) -> dict[str, Any]:
    """The definition of a storage; 500 when there is none."""
    if name not in cluster.storages:
        raise ApiError(f"storage '{name}' does not exist")
    return cluster.storages[name]


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


def find(cluster: Cluster, node: str, volid: str) -> Volume | None:
    return cluster.volumes[node].get(volid)


def stat(cluster: Cluster, node: str, volid: str) -> Volume:
    """An existing volume; 500 as a failed stat() otherwise."""
    volume = find(cluster, node, volid)
    if volume is None:
        raise ApiError(f"failed to stat '{path_of(cluster, volid)}'")
    return volume


def _add(cluster: Cluster, node: str, volume: Volume) -> Volume:
    if volume.volid in cluster.volumes[node]:
        raise ApiError(f"disk image '{path_of(cluster, volume.volid)}' already exists")
    cluster.volumes[node][volume.volid] = volume
    cluster.save_volumes(node)
    return volume


def allocate(
    cluster: Cluster, node: str, store: str, vmid: int, size: int, *, name: str = "", kind: str = "raw", image: str = ""
) -> Volume:
    """A new disk of `size` bytes; without a name the lowest free vm-ID-disk-N of that storage."""
    file = name or f"{_free_name(cluster, node, store, vmid)}.{kind}"
    volume = Volume(f"{store}:{vmid}/{file}", "images", kind, size, 4096, int(time.time()), vmid, None, image)
    return _add(cluster, node, volume)


def _free_name(cluster: Cluster, node: str, store: str, vmid: int) -> str:
    pattern = re.compile(rf"{re.escape(store)}:\S*\b{vmid}/(?:vm|base)-{vmid}-disk-(\d+)\.\w+")
    taken = {int(match[1]) for volid in cluster.volumes[node] if (match := pattern.fullmatch(volid))}
    return f"vm-{vmid}-disk-{next(number for number in range(256) if number not in taken)}"


def add_image(cluster: Cluster, node: str, volid: str, *, size: int, used: int) -> None:
    """An image as an upload leaves it: `size` is virtual, `used` the file's, both in bytes."""
    kind = volid.rsplit(".", 1)[-1]
    cluster.volumes[node][volid] = Volume(volid, "import", kind, size, used, int(time.time()))
    cluster.save_volumes(node)


def free(cluster: Cluster, node: str, volid: str) -> None:
    """Deletes a volume; none is fine too. 500 for the base of a linked clone."""
    if any(other.startswith(f"{volid}/") for other in cluster.volumes[node]):
        raise ApiError(f"base volume '{volid}' is still in use by linked cloned")
    if cluster.volumes[node].pop(volid, None):
        cluster.save_volumes(node)


def row(volume: Volume) -> dict[str, Any]:
    """A row of `content`: an image shows the size of its file, a disk what the guest sees."""
    fields: dict[str, Any] = {name: getattr(volume, name) for name in ("volid", "content", "format", "ctime")}
    if volume.content != "images":
        return fields | {"size": volume.used}
    return fields | {"size": volume.size, "used": volume.used, "vmid": volume.vmid, "parent": volume.parent}


def make_base(cluster: Cluster, node: str, volid: str) -> str:
    """Renames vm-ID-disk-N to base-ID-disk-N for a template; the new volume id."""
    volume = cluster.volumes[node].pop(volid)
    volume.volid = volid.replace("/vm-", "/base-", 1)
    cluster.volumes[node][volume.volid] = volume
    cluster.save_volumes(node)
    return volume.volid
