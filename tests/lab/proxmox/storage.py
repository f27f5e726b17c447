# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/storage and /nodes/N/storage: definitions, status, contents."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from typing import Any

from . import rights, volumes
from .config import parse_size
from .errors import ApiError, invalid
from .formats import split_list
from .routes import Call, endpoint
from .store import Cluster
from .tasks import Task


def usage(cluster: Cluster, node: str, name: str) -> dict[str, int]:
    """total, used and avail bytes of a storage on a node."""
    used = sum(volume.used for volume in volumes.on_storage(cluster, node, name))
    total = cluster.world.disk
    return {"total": total, "used": used, "avail": total - used}


def status(cluster: Cluster, node: str, name: str) -> dict[str, Any]:
    entry = volumes.storage(cluster, name)
    shared = int(entry.get("shared", 0))
    enabled = int(not entry.get("disable"))
    flags = {"enabled": enabled, "active": enabled, "shared": shared, "type": entry["type"]}
    return flags | usage(cluster, node, name) | {"content": ",".join(volumes.contents(cluster, name))}


def _visible(call: Call, name: str) -> bool:
    return call.may(f"/storage/{name}", "Datastore.Audit", "Datastore.AllocateSpace")


def _digest(cluster: Cluster) -> str:
    """Of the one file that all definitions are in."""
    return hashlib.sha1(json.dumps(cluster.storages, sort_keys=True).encode(), usedforsecurity=False).hexdigest()


@endpoint("GET", "/storage")
async def list_definitions(call: Call) -> object:
    kind, digest = call.params.get("type"), _digest(call.cluster)
    return [
        entry | {"storage": name, "digest": digest}
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
    return volumes.storage(call.cluster, name) | {"storage": name, "digest": _digest(call.cluster)}


@endpoint("PUT", "/storage/{storage}")
async def change_definition(call: Call) -> object:
    name = call.params["storage"]
    entry = volumes.storage(call.cluster, name)
    if call.params.get("digest", _digest(call.cluster)) != _digest(call.cluster):
        raise ApiError(
            "update storage failed: detected modified configuration - file changed by other user? Try again."
        )
    given = {key: value for key, value in call.params.items() if key not in ("storage", "digest", "delete")}
    for key in split_list(call.params.get("delete", "")):
        if key in given:
            raise ApiError(f"update storage failed: cannot set and delete property '{key}' at the same time!")
        entry.pop(key, None)
    entry |= given
    call.cluster.save()
    return {"storage": name, "type": entry["type"]}


@endpoint("DELETE", "/storage/{storage}")
async def delete_definition(call: Call) -> object:
    """Only the definition goes: the files stay, and are there again when it comes back."""
    volumes.storage(call.cluster, call.params["storage"])
    call.cluster.storages.pop(call.params["storage"])
    call.cluster.save()
    return None


def _on(call: Call, name: str, node: str) -> bool:
    nodes = call.cluster.storages[name].get("nodes")
    return not nodes or node in split_list(nodes)


@endpoint("GET", "/nodes/{node}/storage")
async def list_storages(call: Call) -> object:
    wanted = set(split_list(call.params.get("content", "")))
    rows = []
    for name in call.cluster.storages:
        if call.params.get("storage", name) != name or not _visible(call, name):
            continue
        if not _on(call, name, call.node) or not _on(call, name, call.params.get("target", call.node)):
            continue
        if wanted and not wanted & set(volumes.contents(call.cluster, name)):
            continue
        row = status(call.cluster, call.node, name)
        rows.append(row | {"storage": name, "used_fraction": row["used"] / row["total"]})
    return rows


@endpoint("GET", "/nodes/{node}/storage/{storage}/status")
async def get_status(call: Call) -> object:
    return status(call.cluster, call.node, call.params["storage"])


def _readable(call: Call, volid: str) -> bool:
    try:
        rights.check_volume(call, 0, volid)
    except ApiError:
        return False
    return True


@endpoint("GET", "/nodes/{node}/storage/{storage}/content")
async def list_content(call: Call) -> object:
    """Images are listed whatever `vmid` says, as on the real server."""
    name, content, vmid = call.params["storage"], call.params.get("content"), call.params.get("vmid")
    volumes.enabled_storage(call.cluster, call.node, name)
    rows = [
        volumes.row(volume)
        for volume in volumes.on_storage(call.cluster, call.node, name)
        if content in (None, volume.content) and _readable(call, volume.volid)
    ]
    return [row for row in rows if vmid is None or row.get("vmid", vmid) == vmid]


@endpoint("POST", "/nodes/{node}/storage/{storage}/content")
async def create_volume(call: Call) -> object:
    name, params = call.params["storage"], call.params
    size = params["size"] if params["size"][-1] in "MG" else params["size"] + "K"
    kind = params.get("format", "raw")
    if match := re.search(r"\.(raw|qcow2|vmdk)$", params["filename"]):
        if params.get("format", match[1]) != match[1]:
            raise invalid({"format": f"different storage formats ({kind} != {match[1]})"})
        kind = match[1]
    volumes.enabled_storage(call.cluster, call.node, name)
    if not re.fullmatch(r"[^/\s]+\.(?:raw|qcow2|vmdk|subvol)", params["filename"]):
        raise ApiError(f"unable to parse volume filename '{params['filename']}'")
    return volumes.allocate(
        call.cluster, call.node, name, params["vmid"], parse_size(size), name=params["filename"], kind=kind
    ).volid


def _volume_id(call: Call) -> str:
    """The volume of the path; its storage may be left out, or must be the one of the path."""
    volume, storage = str(call.params["volume"]), call.params["storage"]
    if ":" not in volume:
        return f"{storage}:{volume}"
    if volumes.split(volume)[0] != storage:
        raise invalid({"volume": f"storage ID mismatch ({volumes.split(volume)[0]} != {storage})\n"})
    return volume


@endpoint("GET", "/nodes/{node}/storage/{storage}/content/{volume}")
async def get_volume(call: Call) -> object:
    volid = _volume_id(call)
    rights.check_volume(call, 0, volid)
    volume = volumes.find(call.cluster, call.node, volid)
    path = volumes.path_of(call.cluster, volid)
    if volume is None:
        raise ApiError(f"volume_size_info on '{volid}' failed - no format")
    kind = volume.format if volume.content in ("images", "import") else "raw"
    return {"format": kind, "size": volume.size, "used": volume.used, "path": path}


@endpoint("DELETE", "/nodes/{node}/storage/{storage}/content/{volume}")
async def delete_volume(call: Call) -> object:
    """With a delay it waits so many seconds for the end."""
    volid = _volume_id(call)
    store, name = volumes.split(volid)
    volumes.storage(call.cluster, store)
    if not re.fullmatch(r"(?:\d+/\S+/)?\d+/[^/\s]+\.\w+|(?:iso|vztmpl|import|backup|snippets)/.+", name):
        raise ApiError(f"unable to parse directory volume name '{name}'")
    call.require(f"/storage/{store}", "Datastore.Allocate")
    owner = volumes.owner_of(volid)

    async def remove(task: Task) -> None:
        volumes.free(call.cluster, call.node, volid)
        task.log.append(f"Removed volume '{volid}'")

    upid = call.start("imgdel", remove, f"{owner}@{store}" if owner else store)
    end = time.monotonic() + call.params.get("delay", 0)
    while time.monotonic() < end:
        if status := call.tasks.all[upid].exitstatus:
            if status != "OK":
                raise ApiError(status)
            return None
        await asyncio.sleep(0.05)
    return upid
