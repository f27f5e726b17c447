# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster: one node, healthy as soon as it has a layout. Functions as in :mod:`lab.garage.keys`."""

from __future__ import annotations

from typing import Any

from lab.garage.errors import bad_request, internal
from lab.garage.store import NEWEST, Tables

NODE_ID = "11" * 32
PARTITIONS = 256
SPACE = {"available": 64 * 10**9, "total": 100 * 10**9}
# what a server answers before it has a layout
WITHOUT_LAYOUT = frozenset(
    f"/v2/{name}"
    for name in (
        "GetClusterHealth",
        "GetClusterStatus",
        "GetClusterLayout",
        "UpdateClusterLayout",
        "ApplyClusterLayout",
        "GetCurrentAdminTokenInfo",
    )
)


def has_layout(tables: Tables) -> bool:
    """Whether this node has got its role, without which nothing can be stored."""
    return bool(tables["layout"]["version"])


def get_cluster_health(tables: Tables, _query: dict[str, str], _body: Any) -> dict[str, Any]:
    is_ready = has_layout(tables)
    return {
        "status": "healthy" if is_ready else "unavailable",
        "knownNodes": 1,
        "connectedNodes": 1,
        "storageNodes": int(is_ready),
        "storageNodesUp": int(is_ready),
        "partitions": PARTITIONS,
        "partitionsQuorum": PARTITIONS * is_ready,
        "partitionsAllOk": PARTITIONS * is_ready,
    }


def get_cluster_status(tables: Tables, _query: dict[str, str], _body: Any) -> dict[str, Any]:
    node = {
        "id": NODE_ID,
        "garageVersion": NEWEST,
        "addr": None,
        "hostname": "garage",
        "isUp": True,
        "lastSeenSecsAgo": None,
        "role": tables["layout"]["role"],
        "draining": False,
        "dataPartition": SPACE,
        "metadataPartition": SPACE,
    }
    return {"layoutVersion": tables["layout"]["version"], "nodes": [node]}


def get_cluster_layout(tables: Tables, _query: dict[str, str], _body: Any) -> dict[str, Any]:
    layout = tables["layout"]
    role = layout["role"]
    return {
        "version": layout["version"],
        "roles": [{"id": NODE_ID, "storedPartitions": PARTITIONS, "usableCapacity": role["capacity"], **role}]
        if role
        else [],
        "parameters": {"zoneRedundancy": "maximum"},
        "partitionSize": (role["capacity"] or 0) // PARTITIONS if role else 0,
        "stagedRoleChanges": [{"id": NODE_ID, **layout["staged"]}] if layout["staged"] else [],
        "stagedParameters": None,
    }


def update_cluster_layout(tables: Tables, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    """Only this node can get a role; removing it, and other parameters, are not served."""
    for role in body.get("roles", ()):
        if role["id"] != NODE_ID or role.get("remove"):
            raise bad_request("Invalid node ID, or a removal")
        if "zone" not in role or "tags" not in role:
            raise bad_request("Invalid JSON: data did not match any variant")
        tables["layout"]["staged"] = {name: role.get(name) for name in ("zone", "tags", "capacity")}
    return get_cluster_layout(tables, query, None)


def apply_cluster_layout(tables: Tables, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    layout = tables["layout"]
    if body["version"] != layout["version"] + 1:
        raise internal("Invalid new layout version")
    tables["layout"] = {"version": body["version"], "role": layout["staged"] or layout["role"], "staged": None}
    return {
        "message": ["==== COMPUTATION OF A NEW PARTITION ASSIGNATION ===="],
        "layout": get_cluster_layout(tables, query, None),
    }


def health(tables: Tables, _query: dict[str, str], _body: Any) -> str:
    return (
        f"Garage is {'fully operational' if has_layout(tables) else 'unavailable'}\n"
        "Consult the full health check API endpoint at /v2/GetClusterHealth for more details\n"
    )
