# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading a cluster: one list, then what each desired machine needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    HostingError,
    InvalidInput,
    NotFound,
    NotOwned,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.compare import names_power_only
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import target_config
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.guest_agent import ask
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.ha import rules_power
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.identity import (
    Permissions,
    Row,
    allowed_in_pool,
    blind,
    find,
    sees_more,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.making import Making, View
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import Power, VmActual, VmDesired
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Place
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.sides import PARTS

# seconds before looking anew for a machine that was not where the list has it
LOOKS = (0.5, 2.0)
POWER_OF_STATUS: Mapping[str, Power] = {"running": "started", "stopped": "stopped"}


class Reader:
    """Reads with the client that it is given, so that each thread may use its own.

    :param budget: seconds that a task may take which is waited for.
    """

    def __init__(self, budget: float) -> None:
        self._making = Making(budget, self._granted)
        self._permissions: Permissions | None = None

    def look(self, client: Client, desired: Sequence[VmDesired]) -> View:
        """The cluster, when creations that this user has under way have ended and their machines can be told."""
        return self._making.look(client, desired)

    def machine(self, client: Client, vm: VmDesired, view: View) -> VmActual | None:
        """The machine's VM as far as it is needed; None if there is none. Errors become its ``problem``."""
        try:
            for delay in LOOKS:
                try:
                    return self._machine(client, vm, view)
                except NotFound:
                    # it moved or went away since the list was read, or is a clone of the machine
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
        if vm.state == "present" and sees_more(vm, view.rows, client.identity):
            return None
        problem = blind(vm, self._granted(client), client.identity)
        return VmActual(vm.name, problem=problem) if problem else None

    def _of_row(self, client: Client, vm: VmDesired, row: Row) -> VmActual:
        power = POWER_OF_STATUS.get(row.status or "")
        base = VmActual(vm.name, row.vmid, row.node, power or "stopped", row.pool, ha=row.ha, unfinished=row.unfinished)
        base = replace(base, read_at=client.clock())
        if vm.pool is not None and row.pool is None and not self._sees_pool(client, vm.pool):
            base = replace(base, pool=vm.pool)
        if vm.state == "absent":
            return self._owned(client, base)
        if names_power_only(vm) and row.template:
            raise NotOwned(f"guest {row.vmid} is a template", where=f"VM {vm.name}", hint="Say template: true")
        if power is None or (power != vm.power and not left_alone(vm)):
            # the row is up to 10 s late; only what looks like a change is worth the exact answer
            status = _status(client, base)
            base = replace(base, power=_power(status))
            if names_power_only(vm) and status.get("name", vm.name) != vm.name:
                self._owned(client, base)
        if names_power_only(vm):
            return base
        return self.sides(client, vm, self._owned(client, base))

    def _owned(self, client: Client, vm: VmActual) -> VmActual:
        """The same with its configuration. :raises NotFound: it is an unfinished clone for another machine."""
        vm = self.configured(client, vm)
        self._making.check_owner(vm.machine, vm.vmid, vm.config)
        return vm

    def power(self, client: Client, vm: VmActual) -> Power:
        """The exact power state."""
        return _power(_status(client, vm))

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
        return allowed_in_pool(self._granted(client), "Pool.Audit", pool)

    def _granted(self, client: Client) -> Permissions:
        if self._permissions is None:
            self._permissions = client.get("/access/permissions")
        return self._permissions


def _status(client: Client, vm: VmActual) -> Mapping[str, Any]:
    answer: Mapping[str, Any] = client.get(f"{vm.path}/status/current")
    return answer


def _power(status: Mapping[str, Any]) -> Power:
    if status.get("qmpstatus") == "paused" and status.get("status") == "running":
        return "paused"
    return POWER_OF_STATUS.get(str(status.get("status")), "stopped")


def left_alone(vm: VmDesired) -> bool:
    """Whether the power of the machine is none of ours."""
    ha = vm.parts.get("ha")
    return vm.power == "unmanaged" or (ha is not None and rules_power(ha.state) and vm.power != "paused")
