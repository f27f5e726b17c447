# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The high-availability manager: rounds that bring every resource to its requested state (PVE/HA/{Manager,LRM}.pm).

Fencing and recovery from a lost node are not simulated: what was there stays there until the node is back.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from . import ha
from .errors import ApiError
from .hacalls import DIRECT, VM
from .permissions import ROOT, Identity
from .routes import Call
from .store import Cluster, VirtualMachine
from .tasks import Tasks

LOGGER = logging.getLogger(__name__)


async def keep_ha(cluster: Cluster, tasks: Tasks) -> None:
    """A round every `timing.ha` seconds, for ever."""
    manager = Manager(cluster, tasks)
    while True:
        try:
            await manager.round()
        except Exception:  # one round is lost, as with the real daemon
            LOGGER.exception("high availability")
        await asyncio.sleep(max(cluster.timing.ha, 0.02))  # never a busy loop


class Manager:
    """Remembers the task that it started for each resource."""

    def __init__(self, cluster: Cluster, tasks: Tasks) -> None:
        self._cluster, self._tasks = cluster, tasks
        self._running: dict[str, str] = {}

    async def round(self) -> None:
        """Nothing happens without quorum, and nothing to a resource whose task still runs or whose node is down."""
        cluster = self._cluster
        resources, services = ha.part(cluster, "resources"), ha.part(cluster, "services")
        if not cluster.faults.quorate or not (resources or services):
            return
        before = ha.digest(cluster.ha)
        managed = {
            sid: vm
            for sid, resource in resources.items()
            if ha.requested(resource) != "ignored" and (vm := cluster.vms.get(ha.vmid_of(sid)))
        }
        for sid in [sid for sid in services if sid not in managed]:
            services.pop(sid)
        for sid, vm in managed.items():
            first = "request_start" if ha.requested(resources[sid]) == "started" else "request_stop"
            services.setdefault(sid, {"state": first, "failed": 0})["node"] = vm.node
        self._take_commands()
        for sid, vm in managed.items():
            if vm.node not in cluster.faults.offline:
                await self._one(sid, vm, resources[sid], services[sid])
        if ha.digest(cluster.ha) != before:
            cluster.save()

    def _take_commands(self) -> None:
        cluster = self._cluster
        for verb, sid, argument in ha.commands(cluster):
            service = ha.part(cluster, "services").get(sid)
            if service is None:
                continue
            if verb == "stop":
                ha.part(cluster, "resources")[sid]["state"], service["grace"] = "stopped", float(argument)
            elif argument in cluster.nodes and argument != service["node"]:
                service |= {"target": argument, "how": verb}
        ha.commands(cluster).clear()

    async def _one(self, sid: str, vm: VirtualMachine, resource: dict[str, Any], service: dict[str, Any]) -> None:
        wanted = "started" if ha.requested(resource) == "started" else "stopped"
        if self._busy(sid, service):
            return
        running = self._cluster.power(vm) != "stopped"
        if service["state"] == "error":
            if ha.requested(resource) == "disabled":
                service |= {"state": "stopped", "failed": 0}
            return
        if not service.get("target") and wanted == "started":
            node = ha.place(self._cluster, sid)
            if node and node != vm.node:
                service |= {"target": node, "how": "migrate"}
        if target := service.get("target"):
            await self._move(sid, vm, service, str(target), running=running)
        elif wanted == "started":
            await self._start(sid, vm, resource, service, running=running)
        elif running:
            await self._stop(sid, vm, service)
        else:
            service |= {"state": "stopped", "failed": 0}

    def _busy(self, sid: str, service: dict[str, Any]) -> bool:
        """Whether its task still runs; one that failed is counted."""
        upid = self._running.get(sid)
        task = self._tasks.all.get(upid) if upid else None
        if task and not task.exitstatus:
            return True
        if self._running.pop(sid, None) and (task is None or task.exitstatus != "OK"):
            service["failed"] = service.get("failed", 0) + 1
        return False

    async def _start(
        self, sid: str, vm: VirtualMachine, resource: dict[str, Any], service: dict[str, Any], *, running: bool
    ) -> None:
        if running:
            service |= {"state": "started", "failed": 0}
        elif service["failed"] > resource.get("max_restart", 1):
            service["state"] = "error"
        else:
            service["state"] = "started"  # the manager's wish; people see `starting`
            await self._call(sid, vm, "POST", f"{VM}/status/start")

    async def _stop(self, sid: str, vm: VirtualMachine, service: dict[str, Any]) -> None:
        service["state"] = "request_stop"
        if grace := service.pop("grace", self._cluster.timing.shutdown):
            await self._call(sid, vm, "POST", f"{VM}/status/shutdown", timeout=grace, forceStop=1)
        else:
            await self._call(sid, vm, "POST", f"{VM}/status/stop")

    async def _move(self, sid: str, vm: VirtualMachine, service: dict[str, Any], target: str, *, running: bool) -> None:
        how = service["how"]
        if target == vm.node or service["failed"]:
            service |= {"failed": 0, "state": "started" if running else "stopped"}
            service.pop("target")
            service.pop("how")
            return
        service["state"] = how
        if how == "relocate" and running:
            await self._call(sid, vm, "POST", f"{VM}/status/shutdown", forceStop=1)
            return
        online = {"online": 1, "with-local-disks": 1} if running else {}
        await self._call(sid, vm, "POST", f"{VM}/migrate", target=target, **online)

    async def _call(self, sid: str, vm: VirtualMachine, method: str, path: str, **params: object) -> None:
        """Acts as root, past the wrappers that would send the call back here."""
        everything = {"node": vm.node, "vmid": vm.vmid} | params
        call = Call(self._cluster, self._tasks, vm.node, Identity(ROOT), everything)
        try:
            self._running[sid] = str(await DIRECT[method, path](call))
        except ApiError as error:
            LOGGER.info("%s: %s", sid, error.message)
            service = ha.part(self._cluster, "services")[sid]
            service["failed"] = service.get("failed", 0) + 1
