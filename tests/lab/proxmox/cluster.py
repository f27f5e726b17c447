# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/version, /cluster and /nodes: what exists, and the statistics that arrive late."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from typing import Any

from . import config as options
from . import ha, storage
from .errors import ApiError, invalid
from .routes import Call, endpoint
from .store import Cluster, VirtualMachine
from .tasks import cluster_row

USED = 8 << 30  # bytes that the system of a node takes
STARTED = time.time()


def statistics_row(cluster: Cluster, vm: VirtualMachine) -> dict[str, Any]:
    """What pvestatd knows of a virtual machine."""
    running = cluster.power(vm) != "stopped"
    zero = dict.fromkeys(("cpu", "mem", "memhost", "disk", "diskread", "diskwrite", "netin", "netout"), 0)
    return zero | {
        "name": vm.config.get("name", f"VM {vm.vmid}"),
        "status": "running" if running else "stopped",
        "template": int(vm.config.get("template", 0)),
        "maxmem": options.memory(vm.config),
        "maxcpu": options.cores(vm.config),
        "maxdisk": options.boot_disk_size(vm.config),
        "uptime": int(time.time() - vm.started) if running else 0,
    }


def measured(cluster: Cluster) -> dict[int, dict[str, Any]] | None:
    """What a round of pvestatd finds; the rows of a node that is down are lost. None: the round did not take place."""
    if cluster.faults.strike("statistics", ("late-statistics",)):
        return None
    up = [vm for vm in cluster.vms.values() if vm.node not in cluster.faults.offline]
    return {vm.vmid: statistics_row(cluster, vm) for vm in up}


def take_statistics(cluster: Cluster) -> None:
    """What is found is known at once."""
    if (rows := measured(cluster)) is not None:
        cluster.statistics = rows


async def keep_statistics(cluster: Cluster) -> None:
    """pvestatd, for ever: what is measured becomes known just before `timing.statistics` seconds have passed."""
    steps = 10
    waiting: deque[dict[int, dict[str, Any]]] = deque()
    while True:
        if (rows := measured(cluster)) is not None:
            waiting.append(rows)
        if len(waiting) >= steps:
            cluster.statistics = waiting.popleft()
        await asyncio.sleep(cluster.timing.statistics / steps)


def vm_rows(call: Call) -> list[dict[str, Any]]:
    """Rows of /cluster/resources: identity, tags, lock and pool are fresh, the rest is of the last round."""
    cluster = call.cluster
    if not cluster.timing.statistics and not cluster.faults.strike("statistics", ("late-statistics",)):
        take_statistics(cluster)
    rows = []
    late = cluster.faults.late_rows(cluster.vms)
    for vmid, vm in cluster.vms.items():
        if vmid in late or not call.may(f"/vms/{vmid}", "VM.Audit"):
            continue
        row: dict[str, Any] = {"status": "unknown"} | cluster.statistics.get(vmid, {})
        row |= {"id": f"qemu/{vmid}", "type": "qemu", "node": vm.node, "vmid": vmid}
        row |= {key: vm.config[key] for key in ("tags", "lock") if key in vm.config}
        row |= ha.row(cluster, vmid)
        pool = cluster.pool_of(vmid)
        if pool and call.may(f"/pool/{pool}", "Pool.Audit"):
            row["pool"] = pool
        rows.append(row)
    return rows


def storage_rows(call: Call) -> list[dict[str, Any]]:
    rows = []
    for node in call.cluster.nodes:
        for name in call.cluster.storages:
            if not call.may(f"/storage/{name}", "Datastore.Audit"):
                continue
            now = storage.status(call.cluster, node, name)
            row = {"id": f"storage/{node}/{name}", "type": "storage", "node": node, "storage": name}
            reachable = "unknown" if node in call.cluster.faults.offline else "available"
            row |= {"status": reachable, "plugintype": now["type"], "disk": now["used"], "maxdisk": now["total"]}
            rows.append(row | {"shared": now["shared"], "content": now["content"]})
    return rows


def node_row(call: Call, node: str) -> dict[str, Any]:
    row: dict[str, Any] = {"id": f"node/{node}", "type": "node", "node": node, "status": "online", "level": ""}
    if node in call.cluster.faults.offline:
        return row | {"status": "offline"}
    if not call.may(f"/nodes/{node}", "Sys.Audit"):
        return row
    world = call.cluster.world
    used = sum(options.memory(vm.config) for vm in call.cluster.vms.values() if vm.node == node and vm.started)
    row |= {"cpu": 0.01, "maxcpu": world.cpus, "mem": min(used, world.memory), "maxmem": world.memory}
    return row | {"disk": USED, "maxdisk": world.disk, "uptime": int(time.time() - STARTED)}


def _pool_rows(call: Call, vms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for name in call.cluster.pools:
        if not call.may(f"/pool/{name}", "Pool.Audit"):
            continue
        row = {"id": f"/pool/{name}", "type": "pool", "pool": name}
        running = [vm for vm in vms if vm.get("pool") == name and vm.get("status") == "running"]
        sums = ("maxcpu", "maxmem", "mem", "cpu", "uptime") if running else ()
        rows.append(row | {key: sum(vm[key] for vm in running) for key in sums})
    return rows


@endpoint("GET", "/version")
async def version(call: Call) -> object:
    return call.cluster.world.versions


@endpoint("GET", "/cluster/nextid")
async def nextid(call: Call) -> object:
    """The lowest free id, as text; reserves nothing."""
    taken = call.cluster.vms
    if wanted := call.params.get("vmid"):
        if wanted in taken:
            raise invalid({"vmid": f"VM {wanted} already exists"})
        return str(wanted)
    return str(next(vmid for vmid in range(100, 1000000000) if vmid not in taken))


@endpoint("GET", "/cluster/resources")
async def resources(call: Call) -> object:
    vms = vm_rows(call)
    zones = [
        {
            "id": f"network/{node}/zone/localnetwork",
            "type": "network",
            "network-type": "zone",
            "network": "localnetwork",
            "node": node,
            "status": "ok",
        }
        for node in call.cluster.nodes
        if call.may("/sdn/zones/localnetwork", "SDN.Audit")
    ]
    nodes = [node_row(call, node) | {"cgroup-mode": 2} for node in call.cluster.nodes]
    kinds = {"vm": vms, "node": nodes, "storage": storage_rows(call), "sdn": zones}
    if kind := call.params.get("type"):
        return kinds[kind]
    return [*_pool_rows(call, vms), *vms, *nodes, *kinds["storage"], *zones]


@endpoint("GET", "/cluster/status")
async def status(call: Call) -> object:
    rows: list[dict[str, Any]] = [
        {
            "id": "cluster",
            "type": "cluster",
            "name": call.cluster.world.name,
            "nodes": len(call.cluster.nodes),
            "version": 2,
            "quorate": int(call.cluster.faults.quorate),
        }
    ]
    for number, node in enumerate(call.cluster.nodes, 1):
        online, address = node not in call.cluster.faults.offline, call.cluster.world.address(node)
        row = {"id": f"node/{node}", "type": "node", "name": node, "nodeid": number, "ip": address}
        rows.append(row | {"online": int(online), "level": "", "local": int(node == call.entry)})
    return rows


@endpoint("GET", "/cluster/tasks")
async def recent_tasks(call: Call) -> object:
    """The latest 25 of every node."""
    tasks = [task for node in call.cluster.nodes for task in call.tasks.of_node(node)[:25]]
    seen = [task for task in tasks if task.user == call.who.user or call.may(f"/nodes/{task.node}", "Sys.Audit")]
    own = [task for task in seen if task.owner == call.who.full or call.may(f"/nodes/{task.node}", "Sys.Audit")]
    ended = max((task for task in tasks if task.exitstatus), key=lambda task: (task.endtime, task.pstart), default=None)
    return [cluster_row(task, task is ended) for task in sorted(own, key=lambda task: task.starttime, reverse=True)]


@endpoint("GET", "/nodes")
async def nodes(call: Call) -> object:
    return [node_row(call, node) | {"ssl_fingerprint": _fingerprint(node)} for node in call.cluster.nodes]


def _fingerprint(node: str) -> str:
    return hashlib.sha256(node.encode()).digest().hex(":").upper()


@endpoint("GET", "/nodes/{node}/version")
async def node_version(call: Call) -> object:
    return call.cluster.world.versions


@endpoint("GET", "/nodes/{node}/status")
async def node_status(call: Call) -> object:
    row, world = node_row(call, call.node), call.cluster.world
    kernel = {"sysname": "Linux", "release": "6.17.0-pve", "version": "#1 SMP", "machine": "x86_64"}
    cpu = {"model": "simulated", "cpus": world.cpus, "cores": world.cpus, "sockets": 1, "mhz": "2000", "user_hz": 100}
    return {
        "uptime": row["uptime"],
        "cpu": 0,
        "wait": 0,
        "idle": 0,
        "loadavg": ["0.00", "0.00", "0.00"],
        "memory": {
            "total": world.memory,
            "used": row["mem"],
            "free": world.memory - row["mem"],
            "available": world.memory - row["mem"],
        },
        "swap": {"total": 0, "used": 0, "free": 0},
        "rootfs": {"total": world.disk, "used": USED, "free": world.disk - USED, "avail": world.disk - USED},
        "ksm": {"shared": 0},
        "boot-info": {"mode": "legacy-bios"},
        "cpuinfo": cpu | {"vendor": "AuthenticAMD", "family": "26", "hvm": "1", "flags": ""},
        "kversion": "Linux 6.17.0-pve",
        "current-kernel": kernel,
        "pveversion": f"pve-manager/{world.version}/{world.repoid}",
    }


@endpoint("GET", "/nodes/{node}/network")
async def networks(call: Call) -> object:
    """The one bridge of every node."""
    if call.params.get("type", "bridge") not in ("bridge", "any_bridge", "any_local_bridge", "include_sdn"):
        return []
    bridge = call.cluster.world.bridge_address(call.node)
    return [
        {
            "iface": "vmbr0",
            "type": "bridge",
            "method": "static",
            "method6": "manual",
            "address": str(bridge.ip),
            "netmask": str(bridge.network.prefixlen),
            "cidr": str(bridge),
            "families": ["inet"],
            "active": 1,
            "autostart": 1,
            "bridge_ports": "",
            "bridge_stp": "off",
            "bridge_fd": "0",
            "priority": 3,
        }
    ]


def require_node(cluster: Cluster, node: str) -> None:
    """500 for a node name in a path that nobody knows."""
    if node not in cluster.nodes:
        text = f"hostname lookup '{node}' failed - failed to get address info for: {node}"
        raise ApiError(f"{text}: Temporary failure in name resolution")
