# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/storage and /nodes/N/storage: definitions, status, contents."""

from __future__ import annotations

from typing import Any

from . import volumes
from .config import parse_size
from .errors import ApiError, invalid
from .formats import split_list
from .routes import Call, endpoint
from .store import Cluster
from .tasks import Task

TOTAL = 256 << 30  # bytes of a simulated storage


def usage(cluster: Cluster, node: str, name: str) -> dict[str, int]:
    """total, used and avail bytes of a storage on a node."""
    used = sum(volume.used for volid, volume in cluster.volumes[node].items() if volid.startswith(f"{name}:"))
    return {"total": TOTAL, "used": used, "avail": TOTAL - used}


def status(cluster: Cluster, node: str, name: str) -> dict[str, Any]:
    entry = volumes.storage(cluster, name)
    shared = int(entry.get("shared", 0))
    flags = {"enabled": 1, "active": 1, "shared": shared, "type": entry["type"]}
    return flags | usage(cluster, node, name) | {"content": ",".join(volumes.contents(cluster, name))}


def _visible(call: Call, name: str) -> bool:
    return call.may(f"/storage/{name}", "Datastore.Audit", "Datastore.AllocateSpace")


@endpoint("GET", "/storage")
async def list_definitions(call: Call) -> object:
    kind = call.params.get("type")
    return [
        entry | {"storage": name}
        for name, entry in call.cluster.storages.items()
        if _visible(call, name) and kind in (None, entry["type"])
    ]


@endpoint("POST", "/storage")
async def create_definition(call: Call) -> object:
    name = call.params["storage"]
    if name in call.cluster.storages:
        raise ApiError(f"create storage failed: storage ID '{name}' already defined")
    call.cluster.storages[name] = {key: value for key, value in call.params.items() if key != "storage"}
    call.cluster.save()
    return {"storage": name, "type": call.params["type"]}


@endpoint("GET", "/storage/{storage}")
async def get_definition(call: Call) -> object:
    name = call.params["storage"]
    return volumes.storage(call.cluster, name) | {"storage": name}


@endpoint("GET", "/nodes/{node}/storage")
async def list_storages(call: Call) -> object:
    wanted = set(split_list(call.params.get("content", "")))
    rows = []
    for name in call.cluster.storages:
        if call.params.get("storage", name) != name or not _visible(call, name):
            continue
        if wanted and not wanted & set(volumes.contents(call.cluster, name)):
            continue
        row = status(call.cluster, call.node, name)
        rows.append(row | {"storage": name, "used_fraction": row["used"] / row["total"]})
    return rows


@endpoint("GET", "/nodes/{node}/storage/{storage}/status")
async def get_status(call: Call) -> object:
    return status(call.cluster, call.node, call.params["storage"])


@endpoint("GET", "/nodes/{node}/storage/{storage}/content")
async def list_content(call: Call) -> object:
    """Images are listed whatever `vmid` says, as on the real server."""
    name, content, vmid = call.params["storage"], call.params.get("content"), call.params.get("vmid")
    volumes.storage(call.cluster, name)
    rows = [
        volumes.row(volume)
        for volid, volume in sorted(call.cluster.volumes[call.node].items())
        if volid.startswith(f"{name}:") and content in (None, volume.content)
    ]
    return [row for row in rows if vmid is None or row.get("vmid", vmid) == vmid]


@endpoint("POST", "/nodes/{node}/storage/{storage}/content")
async def create_volume(call: Call) -> object:
    name, params = call.params["storage"], call.params
    volumes.storage(call.cluster, name)
    size = params["size"] if params["size"][-1] in "MG" else params["size"] + "K"
    kind = params.get("format") or params["filename"].rsplit(".", 1)[-1]
    return volumes.allocate(
        call.cluster, call.node, name, params["vmid"], parse_size(size), name=params["filename"], kind=kind
    ).volid


def _volume_id(call: Call) -> str:
    volume = str(call.params["volume"])
    return volume if ":" in volume else f"{call.params['storage']}:{volume}"


@endpoint("GET", "/nodes/{node}/storage/{storage}/content/{volume}")
async def get_volume(call: Call) -> object:
    volid = _volume_id(call)
    call.require(f"/storage/{volumes.split(volid)[0]}", "Datastore.Audit", "Datastore.AllocateSpace")
    volume = volumes.find(call.cluster, call.node, volid)
    path = volumes.path_of(call.cluster, volid)
    if volume is None:
        raise ApiError(f"volume_size_info on '{volid}' failed")
    return {"format": volume.format, "size": volume.size, "used": volume.used, "path": path}


@endpoint("DELETE", "/nodes/{node}/storage/{storage}/content/{volume}")
async def delete_volume(call: Call) -> object:
    volid = _volume_id(call)
    store, name = volumes.split(volid)
    if not name:
        raise invalid({"volume": "unable to parse volume ID"})
    call.require(f"/storage/{store}", "Datastore.Allocate", "Datastore.AllocateSpace")
    owner = name.split("/")[-2] if name[0].isdigit() else ""

    async def remove(task: Task) -> None:
        volumes.free(call.cluster, call.node, volid)
        task.log.append(f"Removed volume '{volid}'")

    return call.start("imgdel", remove, f"{owner}@{store}" if owner else store)
