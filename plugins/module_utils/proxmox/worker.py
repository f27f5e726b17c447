# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changing one virtual machine; every request is safe to be the last one of a run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, Exists, HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import snapshots, tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import (
    Client,
    Invalid,
    LostAnswer,
    Transient,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.clones import as_cloned, clone_parameters
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.compare import Difference, difference
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import drives
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.create import (
    Images,
    as_created,
    create_parameters,
    starts_itself,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.disks import as_grown
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.guest_agent import wait as wait_for_agent
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.ha import await_power
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import VmActual, VmDesired
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.order import (
    Await,
    Change,
    Reboot,
    Send,
    Step,
    moves,
    steps,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Part, Place
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.placement import migrate
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.reader import Reader
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.removal import check_same, remove
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.safety_snapshots import (
    Saved,
    is_undone,
    kept,
    undo,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.sides import PARTS
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.vmids import Ids

# somebody else, or a run of ours that was killed, was faster
RUNS_ALREADY = "already running"
# seconds for which what was read of a machine needs no second look before it is changed
FRESH = 5
PART_OF: Mapping[str, Part[Any, Any]] = {part.key: part for part in PARTS}


class Worker:
    """Makes, changes and deletes virtual machines, each method for one, in the thread of its client.

    :param budget: seconds that one task of the server may take.
    """

    def __init__(self, reader: Reader, ids: Ids, budget: float) -> None:
        self._reader = reader
        self._ids = ids
        self._budget = budget
        # what this run has done already, should it have to begin anew with a machine
        self._returned: set[str] = set()
        self._saved: dict[str, Saved] = {}

    def still_asked(self, desired: VmDesired) -> VmDesired:
        """The desired state without the rollback that was done."""
        return replace(desired, rollback=None) if desired.name in self._returned else desired

    def create(self, client: Client, desired: VmDesired, node: str, images: Images) -> VmActual:
        """A new VM from its image, brought to its desired state."""

        def send(vmid: int) -> Any:
            parameters = create_parameters(desired, vmid, node, images)
            return client.request("POST", f"/nodes/{node}/qemu", parameters)

        vmid, upid = self._claimed(client, desired, send)
        made = as_created(desired, node, create_parameters(desired, vmid, node, images), images)
        if starts_itself(desired, images):
            self._wait_for_start(client, made, upid)
            made = replace(made, power="started")
        return self._completed(client, desired, made)

    def clone(self, client: Client, desired: VmDesired, node: str, source: VmActual) -> VmActual:
        """A copy of *source*, brought to its desired state."""

        def send(vmid: int) -> Any:
            parameters = clone_parameters(desired, source, vmid, node)
            return client.request("POST", f"{source.path}/clone", parameters)

        vmid, _upid = self._claimed(client, desired, send)
        return self._completed(client, desired, as_cloned(desired, source, vmid, node))

    def _claimed(self, client: Client, desired: VmDesired, send: Any) -> tuple[int, Any]:
        vmid, upid = self._ids.claim(client, desired, send)
        try:
            tasks.wait(client, upid, budget=self._budget)
        except Exists as error:
            # two clones may both be told to go on; the task of one of them then fails
            self._ids.release(vmid)
            raise Transient(error.what, where=f"VM {desired.name}", hint=error.hint) from error
        except LostAnswer:
            self._ids.lost(vmid)
            raise
        except HostingError:
            self._ids.release(vmid)
            raise
        return vmid, upid

    def _wait_for_start(self, client: Client, new: VmActual, upid: str) -> None:
        """The start is a task of its own, begun by the creation and found only in the task list."""
        node, created = tasks.parse(upid)
        started = client.get(f"/nodes/{node}/tasks", vmid=new.vmid, source="all", typefilter="qmstart")
        for task in started:
            # an id that is used again also shows the starts of its former life
            if int(task.get("starttime", 0)) < created:
                continue
            try:
                tasks.wait(client, task["upid"], budget=self._budget)
            except HostingError as error:
                if RUNS_ALREADY not in error.what:
                    raise

    def _completed(self, client: Client, desired: VmDesired, made: VmActual) -> VmActual:
        """The rest of what a new VM needs. Its configuration is read only where the server chose something."""
        if _volumes_matter(desired, made):
            made = self._reader.configured(client, made)
        if desired.parts:
            made = self._reader.sides(client, replace(desired, agent_wait=0), made)
        found = difference(desired, made)
        if found.disks.moved:
            self._send_all(client, made, moves(made, found))
            made = self._reader.configured(client, made)
            found = difference(desired, made)
        done = self._carry_out(client, desired, made, found)
        return self._after(client, desired, done, found, made)

    def update(self, client: Client, desired: VmDesired, actual: VmActual, target: str | None) -> VmActual:
        """Snapshot, move, then everything else."""
        found = difference(desired, actual, target)
        if client.clock() - actual.read_at > FRESH and not _digest_first(desired, found):
            check_same(client, actual)
        if found.rollback is not None:
            actual, found = self._rolled_back(client, desired, actual, found.rollback, target)
        saved = self._saved.get(desired.name)
        if saved is not None and actual.power != "stopped":
            saved = self._saved[desired.name] = replace(saved, stopped=False)
        if desired.safety_snapshots and found.risky and saved is None:
            name = snapshots.safety_name(time.time())
            snapshots.take(client, _place(actual), name, self._budget, description="before a change of this machine")
            # under high availability its manager may start it at any time
            saved = Saved(name, actual.power == "stopped" and not actual.ha, actual.config)
            self._saved[desired.name] = saved
        if saved is not None:
            actual = replace(actual, snapshots=(saved.name,))
        try:
            done = self._changed(client, desired, actual, found, anew=saved is not None)
        except Transient:
            raise
        except HostingError as error:
            left = self._saved.get(desired.name)
            if left is None:
                raise
            raise kept(left, error) from error
        if saved is not None:
            snapshots.prune(client, _place(done), desired.safety_snapshots, self._budget)
        return done

    def _changed(
        self, client: Client, desired: VmDesired, actual: VmActual, found: Difference, *, anew: bool
    ) -> VmActual:
        if found.target is not None:
            actual, anew = self._migrated(client, actual, found.target), True
        if found.disks.moved:
            self._send_all(client, actual, moves(actual, found))
            anew = True
        if anew:
            # snapshots and moves change the configuration, and with it the digest that is to be sent
            actual = self._reader.configured(client, actual)
            found = difference(desired, actual)
        done = self._carry_out(client, desired, actual, found)
        return self._after(client, desired, done, found, None)

    def _migrated(self, client: Client, actual: VmActual, target: str) -> VmActual:
        try:
            moved = migrate(client, _place(actual), target, self._budget)
        except BackendError as error:
            if "without --online" not in error.what:
                raise
            # it was started after it was looked at
            raise Transient(error.what, where=error.where, hint=error.hint) from error
        return replace(actual, node=moved.node)

    def _rolled_back(
        self, client: Client, desired: VmDesired, actual: VmActual, name: str, target: str | None
    ) -> tuple[VmActual, Difference]:
        snapshots.order_back(client, _place(actual), name, self._budget)
        self._returned.add(desired.name)
        actual = replace(actual, power=self._reader.power(client, actual))
        actual = self._reader.sides(client, desired, self._reader.configured(client, actual))
        return actual, difference(replace(desired, rollback=None), actual, target)

    def _carry_out(self, client: Client, desired: VmDesired, actual: VmActual, found: Difference) -> VmActual:
        for step in steps(desired, actual, found):
            if isinstance(step, Send):
                self._send_or_undo(client, desired, actual, step)
            elif isinstance(step, Change):
                key = step.part
                running = (found.power or actual.power) != "stopped"
                place = replace(_place(actual), running=running)
                PART_OF[key].apply(client, place, desired.parts[key], actual.parts[key], self._budget)
            elif isinstance(step, Reboot):
                self._reboot(client, desired, actual)
            elif isinstance(step, Await):
                await_power(client, _place(actual), step.running, self._budget)
        return replace(actual, power=_power_after(actual, found))

    def _send_all(self, client: Client, actual: VmActual, ordered: Iterable[Step]) -> None:
        for step in ordered:
            if isinstance(step, Send):
                self._send(client, actual, step)

    def _send_or_undo(self, client: Client, desired: VmDesired, actual: VmActual, step: Send) -> None:
        try:
            self._send(client, actual, step)
        except HostingError as error:
            saved = self._saved.get(desired.name)
            if saved is None or not is_undone(saved, step, error) or self._reader.power(client, actual) != "stopped":
                raise
            del self._saved[desired.name]
            raise undo(client, _place(actual), saved, self._budget, error) from error

    def _send(self, client: Client, actual: VmActual, step: Send) -> None:
        path = step.path if step.path.startswith("/pools") else f"{actual.path}{step.path}"
        try:
            if step.task:
                tasks.run(client, step.method, path, step.parameters, budget=self._budget)
            else:
                client.request(step.method, path, step.parameters)
        except HostingError as error:
            if any(text in error.what for text in step.forgives) or _kept_as_pending(error):
                return
            hint = snapshots.hint_of(error)
            if hint is None:
                raise
            raise type(error)(error.what, where=f"VM {actual.machine}", hint=hint) from error

    def _reboot(self, client: Client, desired: VmDesired, actual: VmActual) -> None:
        """Restart the guest if changes wait for it; one that does not shut down is stopped and started, if allowed."""
        if not self._reader.configured(client, actual).pending:
            return
        timeout = desired.shutdown.timeout
        try:
            tasks.run(client, "POST", f"{actual.path}/status/reboot", {"timeout": timeout}, budget=self._budget)
        except HostingError as error:
            if not desired.shutdown.force or "timeout" not in error.what:
                raise
            for action in ("stop", "start"):
                tasks.run(client, "POST", f"{actual.path}/status/{action}", {}, budget=self._budget)

    def _after(
        self, client: Client, desired: VmDesired, done: VmActual, found: Difference, made: VmActual | None
    ) -> VmActual:
        """The VM as it is now: read, unless this run made it and knows it."""
        if made is None and done.config:
            done = self._reader.configured(client, done)
        elif made is not None:
            done = _as_changed(made, done, found)
        if found.pool is not None:
            done = replace(done, pool=found.pool)
        if "ha" in found.parts:
            done = replace(done, power=self._reader.power(client, done))
        if desired.parts:
            done = self._reader.sides(client, replace(desired, agent_wait=0), done)
        if desired.agent_wait and done.power == "started":
            if made is not None:
                done = replace(done, config=self._reader.configured(client, done).config)
            told = wait_for_agent(client, done.path, done.config, desired.agent_wait)
            done = replace(done, agent=told is not None, addresses=told or ())
        return done

    def delete(self, client: Client, actual: VmActual) -> None:
        """Destroy it with everything that is its own."""
        remove(client, actual, _place(actual), self._budget)


def _place(actual: VmActual) -> Place:
    return Place(actual.machine, actual.vmid, actual.node, actual.power != "stopped")


def _digest_first(desired: VmDesired, found: Difference) -> bool:
    """Whether the first write is one that the server refuses if the configuration is not the one that was read."""
    saves = bool(desired.safety_snapshots) and found.risky
    before = saves or found.rollback is not None or found.target is not None or found.disks.moved
    return bool(found.values or found.deleted) and not before


def _power_after(actual: VmActual, found: Difference) -> Any:
    return found.power if found.power in ("started", "stopped", "paused") else actual.power


def _volumes_matter(desired: VmDesired, made: VmActual) -> bool:
    """Whether the names or sizes of the new VM's volumes must be known to go on."""
    present = drives(made.config)
    for disk in desired.disks:
        drive = present.get(disk.slot)
        if drive is None:
            continue
        unknown_size = disk.size is not None and drive.size is None
        if unknown_size or (made.unfinished and (disk.options or disk.move or disk.state == "absent")):
            return True
    return False


def _as_changed(made: VmActual, done: VmActual, found: Difference) -> VmActual:
    """A new VM after the configuration was changed: it had never run, so nothing is pending."""
    config = {key: text for key, text in {**made.config, **found.values}.items() if key not in found.deleted}
    config = as_grown(config, found.disks.grown)
    if found.template:
        config["template"] = "1"
    return replace(done, config=config, unfinished=False)


def _kept_as_pending(error: HostingError) -> bool:
    """Hot-plug failed: the new value is stored and waits for the next start, which the outputs report."""
    if isinstance(error, Invalid) and error.parameters:
        return all("hotplug problem" in text for text in error.parameters.values())
    return "hotplug problem" in error.what
