# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster: one node, always healthy. Functions as in :mod:`lab.garage.keys`."""

from __future__ import annotations

from typing import Any

from lab.garage.store import Tables

VERSION = "v2.3.0"
NODE_ID = "11" * 32
PARTITIONS = 256
SPACE = {"available": 64 * 10**9, "total": 100 * 10**9}


def get_cluster_health(_tables: Tables, _query: dict[str, str], _body: Any) -> dict[str, Any]:
    return {
        "status": "healthy",
        "knownNodes": 1,
        "connectedNodes": 1,
        "storageNodes": 1,
        "storageNodesUp": 1,
        "partitions": PARTITIONS,
        "partitionsQuorum": PARTITIONS,
        "partitionsAllOk": PARTITIONS,
    }


def get_cluster_status(_tables: Tables, _query: dict[str, str], _body: Any) -> dict[str, Any]:
    node = {
        "id": NODE_ID,
        "garageVersion": VERSION,
        "addr": None,
        "hostname": "garage",
        "isUp": True,
        "lastSeenSecsAgo": None,
        "role": {"zone": "lab", "tags": [], "capacity": SPACE["total"]},
        "draining": False,
        "dataPartition": SPACE,
        "metadataPartition": SPACE,
    }
    return {"layoutVersion": 1, "nodes": [node]}


def health(_tables: Tables, _query: dict[str, str], _body: Any) -> str:
    return (
        "Garage is fully operational\n"
        "Consult the full health check API endpoint at /v2/GetClusterHealth for more details\n"
    )
