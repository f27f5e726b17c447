# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading a cluster: one list, then what each desired machine needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    HostingError,
    InvalidInput,
    Locked,
    NotFound,
    NotOwned,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.clones import marked_machine
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.compare import names_power_only
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import target_config
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.guest import ask
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.ha import rules_power
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.identity import (
    Row,
    allowed,
    blind,
    find,
    marked,
    parse_rows,
    pool_paths,
    sees_more,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import (
    Power,
    VmActual,
    VmDesired,
    own_tags,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Place
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.placement import Cluster, parse_cluster
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.sides import PARTS

# seconds before looking anew at VMs that are being made, where no task is listed that makes them
SETTLING = (0.2, 0.5, 1.0)
# seconds before looking anew for a machine that was not where the list has it
LOOKS = (0.5, 2.0)
POWER_OF_STATUS: Mapping[str, Power] = {"running": "started", "stopped": "stopped"}


@dataclass(frozen=True)
class View:
    """The cluster at one moment.

    :param problems: why it cannot be told whether a machine exists, by machine.
    """

    rows: tuple[Row, ...] = ()
    cluster: Cluster = field(default_factory=Cluster)
    problems: Mapping[str, HostingError] = field(default_factory=dict)


class Reader:
    """Reads with the client that it is given, so that each thread may use its own.

    :param budget: seconds that a task may take which is waited for.
    """

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._permissions: Mapping[str, Mapping[str, Any]] | None = None

    def look(self, client: Client, desired: Sequence[VmDesired]) -> View:
        """The cluster, when creations that this user has under way have ended and their machines can be told."""
        view = self._view(client)
        missing = [vm.name for vm in desired if not marked(vm.name, view.rows)]
        if missing:
            try:
                view = self._settled(client, view)
            except HostingError as error:
                # one of them may be what is just being made where nobody can look
                view = replace(view, problems=dict.fromkeys(missing, error))
        return self._recognised(client, desired, view)

    def _view(self, client: Client) -> View:
        answer = client.get("/cluster/resources")
        return View(parse_rows(answer), parse_cluster(answer))

    def _settled(self, client: Client, view: View) -> View:
        """The view when creations under way have ended: until then their VMs show no tags, or those of their source.

        They are left over from a run that was killed or that lost an answer, or another run makes them just now. Its
        task is listed a moment after the VM; a lock without a task is looked at a few times and then stops nobody.
        """
        pauses = list(SETTLING)
        end = client.clock() + self._budget
        while made := [row for row in view.rows if row.being_made]:
            waited = [self._wait_for(client, row) for row in made]
            if not any(waited):
                if not pauses:
                    break
                client.sleep(pauses.pop(0))
            if client.clock() > end:
                raise Locked(
                    f"guest {made[0].vmid} is still being made after {self._budget:g} s",
                    where=client.host,
                    hint="Run again when that has ended",
                )
            view = self._view(client)
        return view

    def _wait_for(self, client: Client, row: Row) -> bool:
        """Wait for the tasks that make the VM. :returns: whether there were any."""
        # a clone's task bears the id of its source
        chosen: dict[str, Any] = (
            {"typefilter": "qmclone"} if row.lock == "clone" else {"vmid": row.vmid, "typefilter": "qmcreate"}
        )
        running = client.get(f"/nodes/{row.node}/tasks", source="active", **chosen)
        for task in running:
            tasks.outcome(client, task["upid"], budget=self._budget)
        return bool(running)

    def _recognised(self, client: Client, desired: Sequence[VmDesired], view: View) -> View:
        """The view with our own tags on clones that were not finished; until then they have their source's."""
        problems = dict(view.problems)
        machines: dict[int, str | None] = {}
        for vm in desired:
            ours = marked(vm.name, view.rows)
            if len(ours) == 1 or not (ours or vm.clone):
                continue
            try:
                doubtful = ours or self._candidates(client, vm, view.rows)
                machines.update({row.vmid: self._made_for(client, row) for row in doubtful})
            except HostingError as error:
                problems[vm.name] = error
        rows = tuple(
            replace(row, tags=own_tags(machine), unfinished=True) if (machine := machines.get(row.vmid)) else row
            for row in view.rows
        )
        return replace(view, rows=rows, problems=problems)

    def _candidates(self, client: Client, vm: VmDesired, rows: Sequence[Row]) -> list[Row]:
        """Guests that may be the machine's unfinished clone: they have the tags of the source, and the VM's name.

        Names in the rows are late, so each node is asked, if it has a guest in question at all.
        """
        source = next((row for row in rows if vm.clone and row.vmid == vm.clone.vmid), None)
        if source is None:
            return []
        alike = [row for row in rows if row.tags == source.tags and row.vmid != source.vmid and row.kind == "qemu"]
        if vm.vmid is not None:
            return [row for row in alike if row.vmid == vm.vmid]
        found: list[Row] = []
        for node in sorted({row.node for row in alike}):
            names = {int(one["vmid"]): one.get("name") for one in client.get(f"/nodes/{node}/qemu")}
            found += [row for row in alike if row.node == node and names.get(row.vmid) == vm.name]
        return found

    def _made_for(self, client: Client, row: Row) -> str | None:
        """For which machine the guest is an unfinished clone."""
        try:
            config = client.get(f"/nodes/{row.node}/qemu/{row.vmid}/config")
        except NotFound:
            return None
        return marked_machine(str(config.get("description", "")))

    def machine(self, client: Client, vm: VmDesired, view: View) -> VmActual | None:
        """The machine's VM as far as it is needed; None if there is none. Errors become its ``problem``."""
        try:
            for delay in LOOKS:
                try:
                    return self._machine(client, vm, view)
                except NotFound:
                    # it moved or went away since the list was read
                    client.sleep(delay)
                    view = self.look(client, [vm])
            return self._machine(client, vm, view)
        except HostingError as error:
            return VmActual(vm.name, problem=error)

    def _machine(self, client: Client, vm: VmDesired, view: View) -> VmActual | None:
        if vm.name in view.problems:
            raise view.problems[vm.name]
        row = find(vm, view.rows)
        if row is not None:
            return self._of_row(client, vm, row)
        if vm.state == "present" and sees_more(vm, view.rows):
            return None
        problem = blind(vm, self._granted(client), client.identity)
        return VmActual(vm.name, problem=problem) if problem else None

    def _of_row(self, client: Client, vm: VmDesired, row: Row) -> VmActual:
        power = POWER_OF_STATUS.get(row.status or "")
        base = VmActual(vm.name, row.vmid, row.node, power or "stopped", row.pool, ha=row.ha, unfinished=row.unfinished)
        if vm.pool is not None and row.pool is None and not self._sees_pool(client, vm.pool):
            base = replace(base, pool=vm.pool)
        if vm.state == "absent":
            return self.configured(client, base)
        if names_power_only(vm) and row.template:
            raise NotOwned(f"guest {row.vmid} is a template", where=f"VM {vm.name}", hint="Say template: true")
        if power is None or (power != vm.power and not left_alone(vm)):
            # the row is up to 10 s late; only what looks like a change is worth the exact answer
            base = replace(base, power=self.power(client, base))
        if names_power_only(vm):
            return base
        return self.sides(client, vm, self.configured(client, base))

    def power(self, client: Client, vm: VmActual) -> Power:
        """The exact power state."""
        status = client.get(f"{vm.path}/status/current")
        if status.get("qmpstatus") == "paused" and status.get("status") == "running":
            return "paused"
        return POWER_OF_STATUS.get(str(status.get("status")), "stopped")

    def configured(self, client: Client, vm: VmActual) -> VmActual:
        """The same with its configuration."""
        config, pending = target_config(client.get(f"{vm.path}/pending"))
        return replace(vm, config=config, pending=pending)

    def sides(self, client: Client, vm: VmDesired, actual: VmActual) -> VmActual:
        """The same with what has requests of its own, and with what the agent tells at once."""
        place = Place(vm.name, actual.vmid, actual.node, actual.power != "stopped")
        parts = {part.key: part.read(client, place, vm.parts[part.key]) for part in PARTS if part.key in vm.parts}
        actual = replace(actual, parts=parts)
        if not vm.agent_wait or actual.power != "started":
            return actual
        told = ask(client, actual.path, actual.config)
        return replace(actual, agent=told is not None, addresses=told or ())

    def source(self, client: Client, vm: VmDesired, view: View) -> VmActual | None:
        """What the machine is to be a clone of, None if that cannot be seen.

        :raises InvalidInput: it is no virtual machine.
        """
        row = next((row for row in view.rows if vm.clone is not None and row.vmid == vm.clone.vmid), None)
        if row is None:
            return None
        if row.kind != "qemu":
            raise InvalidInput(
                f"guest {row.vmid} is a container", where=f"VM {vm.name}, clone.vmid", hint="Name a virtual machine"
            )
        return self.configured(client, VmActual("", row.vmid, row.node))

    def _sees_pool(self, client: Client, pool: str) -> bool:
        """Rows of ``/cluster/resources`` name the pool only to those who may audit it."""
        return allowed(self._granted(client), "Pool.Audit", pool_paths(pool))

    def _granted(self, client: Client) -> Mapping[str, Mapping[str, Any]]:
        if self._permissions is None:
            self._permissions = client.get("/access/permissions")
        return self._permissions


def left_alone(vm: VmDesired) -> bool:
    """Whether the power of the machine is none of ours."""
    ha = vm.parts.get("ha")
    return vm.power == "unmanaged" or (ha is not None and rules_power(ha.state) and vm.power != "paused")
