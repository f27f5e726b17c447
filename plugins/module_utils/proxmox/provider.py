# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual machines of a Proxmox VE cluster as a provider: few requests, safe to repeat at any point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Exists,
    HostingError,
    NotFound,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import (
    Client,
    Invalid,
    LostAnswer,
    Transient,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.compare import (
    APART,
    change_of,
    config_parameters,
    create_parameters,
    starts_itself,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import (
    SYSTEM_DISK,
    format_size,
    parse_config,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.identity import (
    Row,
    allowed,
    blind,
    find,
    machines,
    marked,
    parse_rows,
    pool_paths,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import Power, VmActual, VmDesired
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import (
    Applied,
    Change,
    Plan,
    Refusal,
    one_by_one,
)

# seconds before an unfinished change is looked at again and continued
REPEAT_DELAYS = (1.0, 2.0, 4.0)
# seconds for the guest to shut down before it is stopped
SHUTDOWN_GRACE = 60
# ids tried for one VM when other clients take each one first
ID_ATTEMPTS = 50
POWER_OF_STATUS: Mapping[str, Power] = {"running": "started", "stopped": "stopped"}


class VirtualMachines:
    """Provider of virtual machines.

    :param task_timeout: seconds that one task of the server may take.
    """

    kind: ClassVar[str] = "proxmox_vms"

    def __init__(self, client: Client, task_timeout: float) -> None:
        self._client = client
        self._budget = task_timeout
        self._permissions: Mapping[str, Mapping[str, Any]] | None = None
        # VMs that were read and that this run has not changed since
        self._known: dict[int, VmActual] = {}
        # VMIDs whose creation got no answer, by machine
        self._unanswered: dict[str, int] = {}

    def read(self, desired: Sequence[VmDesired]) -> Mapping[str, VmActual]:
        """One list of the cluster's guests, then one request for each desired VM.

        :raises HostingError: the list cannot be read; errors of a single VM stay with it as its ``problem``.
        """
        usable = [vm for vm in desired if vm.problem is None]
        rows = self._rows()
        if any(not marked(vm.name, rows) for vm in usable) and self._settle(rows):
            rows = self._rows()
        actual = {name: VmActual(name, row.vmid, row.node) for name, row in machines(rows).items()}
        for vm in usable:
            found = self._read_one(vm, rows)
            if found is not None:
                actual[vm.name] = found
        return actual

    def plan(self, desired: Sequence[VmDesired], actual: Mapping[str, VmActual]) -> Plan[VmDesired, VmActual]:
        """Changes of the desired machines; VMs of ours that nobody desires are left alone."""
        changes: list[Change[VmDesired, VmActual]] = []
        refusals: list[Refusal] = []
        for vm in desired:
            present = actual.get(vm.name)
            try:
                if vm.problem is not None:
                    raise vm.problem
                if present is not None and present.problem is not None:
                    raise present.problem
                changes.append(change_of(vm, present))
            except HostingError as error:
                refusals.append(Refusal(vm.name, error))
        return Plan(tuple(changes), tuple(refusals))

    def apply(self, changes: Sequence[Change[VmDesired, VmActual]]) -> Iterator[Applied[VmDesired, VmActual]]:
        return one_by_one(changes, self._apply_one)

    def outputs(self, actual: VmActual) -> Mapping[str, Any]:
        """``address`` is the first fixed address of cloud-init, without prefix length; empty if there is none."""
        if actual.problem is not None:
            return {}
        ip = actual.cloud_init.ip
        fixed = [text for text in (ip.ipv4, ip.ipv6) if text and "/" in text] if ip else []
        return {
            "vmid": actual.vmid,
            "node": actual.node,
            "incarnation": actual.incarnation,
            "address": fixed[0].partition("/")[0] if fixed else "",
            "status": actual.power,
            "pending": list(actual.pending),
            "reboot_required": bool(actual.pending) and actual.power == "started",
        }

    # reading

    def _rows(self) -> tuple[Row, ...]:
        return parse_rows(self._client.get("/cluster/resources", type="vm"))

    def _settle(self, rows: Sequence[Row]) -> bool:
        """Wait for creations that this user has under way: until they end their VMs show no tags.

        They are left over from a run that was killed or that lost an answer. :returns: whether there were any.
        """
        waited = False
        for row in rows:
            if not row.being_created:
                continue
            running = self._client.get(
                f"/nodes/{row.node}/tasks", vmid=row.vmid, source="active", typefilter="qmcreate"
            )
            for task in running:
                tasks.outcome(self._client, task["upid"], budget=self._budget)
                waited = True
        return waited

    def _read_one(self, vm: VmDesired, rows: Sequence[Row]) -> VmActual | None:
        try:
            row = find(vm, rows)
            if row is not None:
                return self._read_row(vm, row)
            problem = blind(vm, self._granted(), self._client.identity)
        except HostingError as error:
            problem = error
        return VmActual(vm.name, problem=problem) if problem else None

    def _read_row(self, vm: VmDesired, row: Row) -> VmActual:
        if row.vmid in self._known:
            return self._known[row.vmid]
        power = POWER_OF_STATUS.get(row.status or "")
        base = VmActual(vm.name, row.vmid, row.node, power or "stopped", pool=row.pool)
        if vm.state == "absent":
            return base
        if vm.pool is not None and row.pool is None and not self._sees_pool(vm.pool):
            base = replace(base, pool=vm.pool)
        path = _path(base)
        if power != vm.power:
            # the row is up to 10 s late; only what looks like a change is worth the exact answer
            status = self._client.get(f"{path}/status/current").get("status")
            power = POWER_OF_STATUS.get(status, "stopped")
        actual = parse_config(base, self._client.get(f"{path}/pending"), power)
        self._known[row.vmid] = actual
        return actual

    def _sees_pool(self, pool: str) -> bool:
        """Rows of ``/cluster/resources`` name the pool only to those who may audit it."""
        return allowed(self._granted(), "Pool.Audit", pool_paths(pool))

    def _granted(self) -> Mapping[str, Mapping[str, Any]]:
        if self._permissions is None:
            self._permissions = self._client.get("/access/permissions")
        return self._permissions

    # changing

    def _apply_one(self, change: Change[VmDesired, VmActual]) -> None:
        """Make the change; after an answer that does not tell what was done, look, and do what is left."""
        desired = change.desired
        if desired is None:
            raise BackendError("a change without desired state", where=change.name)
        for delay in REPEAT_DELAYS:
            try:
                return self._make(desired, change)
            except Transient:
                self._client.sleep(delay)
            plan = self.plan([desired], self.read([desired]))
            for refusal in plan.refusals:
                raise refusal.error
            change = plan.changes[0]
        return self._make(desired, change)

    def _make(self, desired: VmDesired, change: Change[VmDesired, VmActual]) -> None:
        actual = change.actual
        if actual is not None:
            self._known.pop(actual.vmid, None)
        if change.action == "create":
            self._create(desired)
        elif change.action == "update" and actual is not None:
            self._update(desired, actual, tuple(change.after))
        elif change.action == "delete" and actual is not None:
            self._delete(actual)

    def _create(self, desired: VmDesired) -> None:
        for _attempt in range(ID_ATTEMPTS):
            vmid = desired.vmid or self._unanswered.get(desired.name) or self._free_vmid(desired)
            try:
                upid = self._client.post(f"/nodes/{desired.node}/qemu", **create_parameters(desired, vmid))
                tasks.wait(self._client, upid, budget=self._budget)
            except LostAnswer:
                self._unanswered[desired.name] = vmid
                raise
            except Exists as error:
                if self._unanswered.pop(desired.name, None) is not None:
                    raise Transient(error.what, where=error.where) from error
                if desired.vmid is not None:
                    raise
                continue
            self._unanswered.pop(desired.name, None)
            return self._finish_creation(desired, VmActual(desired.name, vmid, str(desired.node)), upid)
        raise Exists(f"other clients took {ID_ATTEMPTS} VMIDs first", where=f"VM {desired.name}", hint="Run again")

    def _free_vmid(self, desired: VmDesired) -> int:
        """An id for a new VM, taken before looking once more whether somebody else makes this machine.

        In this order two runs at the same time cannot both make it: the later one finds the VM, or wants the same id.

        :raises Transient: the machine has a VM now.
        """
        vmid = int(self._client.get("/cluster/nextid"))
        rows = self._rows()
        if self._settle(rows):
            rows = self._rows()
        if marked(desired.name, rows):
            raise Transient("another client has just made this machine", where=f"VM {desired.name}")
        return vmid

    def _finish_creation(self, desired: VmDesired, new: VmActual, upid: str) -> None:
        if starts_itself(desired):
            self._wait_for_start(new, upid)
            return
        if desired.disk is not None and desired.disk.size is not None:
            self._grow(new, desired.disk.size)
        if desired.power == "started":
            self._start(new)

    def _wait_for_start(self, new: VmActual, upid: str) -> None:
        """The start is a task of its own, begun by the creation and found only in the task list."""
        node, created = tasks.parse(upid)
        started = self._client.get(f"/nodes/{node}/tasks", vmid=new.vmid, source="all", typefilter="qmstart")
        for task in started:
            # an id that is used again also shows the starts of its former life
            if int(task.get("starttime", 0)) >= created:
                tasks.wait(self._client, task["upid"], budget=self._budget)

    def _update(self, desired: VmDesired, actual: VmActual, keys: Sequence[str]) -> None:
        """Configuration first: what cannot change while the VM runs is taken over by a stop that follows."""
        config_keys = [key for key in keys if key not in APART]
        if config_keys:
            self._configure(desired, actual, config_keys)
        if "disk_size" in keys and desired.disk is not None and desired.disk.size is not None:
            self._grow(actual, desired.disk.size)
        if "pool" in keys:
            self._client.put("/pools", **{"poolid": desired.pool, "vms": actual.vmid, "allow-move": True})
        if "power" in keys:
            self._start(actual) if desired.power == "started" else self._shut_down(actual)

    def _configure(self, desired: VmDesired, actual: VmActual, keys: Sequence[str]) -> None:
        parameters = config_parameters(desired, actual, keys)
        values = {
            **parameters.values,
            "delete": ",".join(parameters.deleted) or None,
            "digest": actual.digest,
        }
        path = f"{_path(actual)}/config"
        try:
            if "networks" in keys:
                # unplugging can take longer than the 30 s that a synchronous request has
                self._run("POST", path, values)
            else:
                self._client.put(path, **values)
        except HostingError as error:
            if not _kept_as_pending(error):
                raise

    def _grow(self, vm: VmActual, size: int) -> None:
        self._run("PUT", f"{_path(vm)}/resize", {"disk": SYSTEM_DISK, "size": format_size(size)})

    def _start(self, vm: VmActual) -> None:
        try:
            self._run("POST", f"{_path(vm)}/status/start", {})
        except HostingError as error:
            if "already running" not in error.what:
                raise

    def _shut_down(self, vm: VmActual) -> None:
        self._run("POST", f"{_path(vm)}/status/shutdown", {"timeout": SHUTDOWN_GRACE, "forceStop": True})

    def _delete(self, vm: VmActual) -> None:
        """Stop and destroy; the row's status may be late, and stopping a stopped VM is no error."""
        try:
            self._run("POST", f"{_path(vm)}/status/stop", {})
            self._run("DELETE", _path(vm), {"purge": True, "destroy-unreferenced-disks": True})
        except NotFound:
            # somebody else was faster, perhaps a run of ours that was killed; reading back shows if it only moved
            return

    def _run(self, method: str, path: str, params: Mapping[str, str | int | bool | None]) -> None:
        """Send a request that starts a task, and wait for its good end."""
        tasks.wait(self._client, self._client.request(method, path, params), budget=self._budget)


def _path(vm: VmActual) -> str:
    return f"/nodes/{vm.node}/qemu/{vm.vmid}"


def _kept_as_pending(error: HostingError) -> bool:
    """Hot-plug failed: the new value is stored and waits for the next start, which the outputs report."""
    if isinstance(error, Invalid):
        return all("hotplug problem" in text for text in error.parameters.values())
    return "hotplug problem" in error.what
