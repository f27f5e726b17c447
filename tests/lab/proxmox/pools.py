# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/pools: groups of virtual machines and storages (PVE/API2/Pool.pm)."""

from __future__ import annotations

from typing import Any

from .cluster import storage_rows, vm_rows
from .errors import ApiError
from .formats import split_list
from .routes import Call, endpoint


def _pool(call: Call) -> dict[str, Any]:
    name = call.params["poolid"]
    if name not in call.cluster.pools:
        raise ApiError(f"pool '{name}' does not exist")
    return call.cluster.pools[name]


def _details(call: Call) -> dict[str, Any]:
    pool, kind = _pool(call), call.params.get("type")
    vms = [row for row in vm_rows(call) if row["vmid"] in pool["vms"]]
    storages: dict[str, dict[str, Any]] = {}
    for row in storage_rows(call):
        if row["storage"] in pool["storage"]:
            storages.setdefault(row["storage"], row)
    members = [{key: value for key, value in row.items() if key not in ("pool", "tags", "lock")} for row in vms]
    members = [row for row in [*members, *storages.values()] if kind in (None, row["type"])]
    return _comment(pool) | {"members": members}


def _comment(pool: dict[str, Any]) -> dict[str, Any]:
    return {"comment": pool["comment"]} if pool.get("comment") is not None else {}


@endpoint("GET", "/pools")
async def index(call: Call) -> object:
    if name := call.params.get("poolid"):
        call.require(f"/pool/{name}", "Pool.Audit")
        return [_details(call) | {"poolid": name}]
    names = [name for name in sorted(call.cluster.pools) if call.may(f"/pool/{name}", "Pool.Audit")]
    return [{"poolid": name} | _comment(call.cluster.pools[name]) for name in names]


@endpoint("GET", "/pools/{poolid}")
async def read(call: Call) -> object:
    return _details(call) | {"poolid": call.params["poolid"]}


@endpoint("POST", "/pools")
async def create(call: Call) -> object:
    name = call.params["poolid"]
    if name in call.cluster.pools:
        raise ApiError(f"create pool failed: pool '{name}' already exists")
    call.cluster.pools[name] = {"comment": call.params.get("comment"), "vms": [], "storage": []}
    call.cluster.save()
    return None


def _change(call: Call, pool: dict[str, Any]) -> None:
    """Adds or removes members; nothing is changed when one of them is refused."""
    name, params = call.params["poolid"], call.params
    vms, storages = list(pool["vms"]), list(pool["storage"])
    moved: list[int] = []
    for vmid in map(int, split_list(params.get("vms", ""))):
        if params.get("delete"):
            if vmid not in vms:
                raise ApiError(f"VM {vmid} is not a pool member")
            vms.remove(vmid)
            continue
        owner = call.cluster.pool_of(vmid)
        if owner == name:
            raise ApiError(f"VM {vmid} is already a pool member")
        if owner and not params.get("allow-move"):
            raise ApiError(f"VM {vmid} belongs already to pool '{owner}' and 'allow-move' is not set")
        moved.append(vmid)
        vms.append(vmid)
    for store in split_list(params.get("storage", "")):
        if params.get("delete") and store not in storages:
            raise ApiError(f"Storage '{store}' is not a pool member")
        if not params.get("delete") and store in storages:
            raise ApiError(f"Storage '{store}' is already a pool member")
        storages.remove(store) if params.get("delete") else storages.append(store)
    for other in call.cluster.pools.values():
        other["vms"] = [vmid for vmid in other["vms"] if vmid not in moved]
    pool["vms"], pool["storage"] = vms, storages
    if "comment" in params:
        pool["comment"] = params["comment"]


async def _update(call: Call) -> object:
    try:
        _change(call, _pool(call))
    except ApiError as error:
        raise ApiError(f"update pools failed: {error.message}") from None
    call.cluster.save()
    return None


async def _delete(call: Call) -> object:
    name = call.params["poolid"]
    try:
        pool = _pool(call)
        for vmid in sorted(pool["vms"]):
            if vmid in call.cluster.vms:
                raise ApiError(f"pool '{name}' is not empty (contains VM {vmid})")
        for store in sorted(pool["storage"]):
            if store in call.cluster.storages:
                raise ApiError(f"pool '{name}' is not empty (contains storage '{store}')")
    except ApiError as error:
        raise ApiError(f"delete pool failed: {error.message}") from None
    del call.cluster.pools[name]
    call.cluster.acl = [row for row in call.cluster.acl if row["path"] != f"/pool/{name}"]
    call.cluster.save()
    return None


for _path in ("/pools", "/pools/{poolid}"):
    endpoint("PUT", _path)(_update)
    endpoint("DELETE", _path)(_delete)
