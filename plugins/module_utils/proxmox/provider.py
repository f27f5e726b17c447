# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual machines of a Proxmox VE cluster as a provider: few requests, safe to repeat at any point."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, HostingError, NotFound
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import placement, preflight
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, Transient
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.clones import as_cloned, check_clone
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.compare import deletion, difference
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import incarnation
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.create import check_creation, shown_creation
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.fields import BY_OPTION, field_of
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.identity import Row, machines
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.making import View
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import VmActual, VmDesired
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parallel import Parallel
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.reader import Reader, left_alone
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.vmids import Ids
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.worker import Worker
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import (
    Applied,
    Change,
    Plan,
    Refusal,
)

# seconds before an unfinished change is looked at again and continued
REPEAT_DELAYS = (0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0)
MIB = 1024**2


class VirtualMachines:
    """Provider of virtual machines, for one run.

    :param task_timeout: seconds that one task of the server may take.
    :param parallel: machines that are read and changed at the same time.
    :param another: makes a further client, for a further thread.
    :param vmid_range: ids for new machines; None takes those that the server offers.
    """

    kind: ClassVar[str] = "proxmox_vms"

    def __init__(
        self,
        client: Client,
        task_timeout: float,
        *,
        parallel: int = 1,
        another: Callable[[], Client] | None = None,
        vmid_range: range | None = None,
    ) -> None:
        self._parallel = Parallel(parallel if another else 1)
        self._own = client
        self._another = another
        self._local = threading.local()
        self._reader = Reader(task_timeout)
        self._ids = Ids(self._look, vmid_range)
        self._worker = Worker(self._reader, self._ids, task_timeout)
        self._view = View()
        self._actual: dict[str, VmActual] | None = None
        self._sources: dict[str, VmActual] = {}
        self._images: dict[str, dict[str, int]] = {}
        self._refused: dict[str, HostingError] = {}
        self._nodes: dict[str, str] = {}
        self._placed: dict[str, tuple[placement.Wish, str]] = {}

    def read(self, desired: Sequence[VmDesired]) -> Mapping[str, VmActual]:
        """One list of the cluster, then what each desired VM needs.

        At a second time it is what this run knows by then: every change was read back when it was made.

        :raises HostingError: the list cannot be read; errors of a single VM stay with it as its ``problem``.
        """
        if self._actual is not None:
            return dict(self._actual)
        usable = [vm for vm in desired if vm.problem is None]
        self._view = self._reader.look(self._own, usable)
        self._ids.view(self._view.rows)
        actual = {name: VmActual(name, row.vmid, row.node) for name, row in machines(self._view.rows).items()}
        found = self._parallel.each(usable, lambda vm: self._found(self._client(), vm, self._view))
        self._actual = actual
        for vm, one in zip(usable, found, strict=True):
            self._know(vm.name, VmActual(vm.name, problem=one) if isinstance(one, HostingError) else one)
        self._prepare(self._own, usable)
        return dict(actual)

    def _found(self, client: Client, vm: VmDesired, view: View) -> VmActual | None:
        """The machine's VM; with its exact power state if anything of it is to change.

        The state in the list is up to 10 s old, and knows no pause. A machine that is to run, and does by the list, is
        not worth a request of its own where nothing else differs; one that must not run is.
        """
        actual = self._reader.machine(client, vm, view)
        if actual is None or actual.problem is not None or vm.state == "absent" or left_alone(vm):
            return actual
        try:
            found = difference(vm, actual)
        except HostingError:
            return actual
        runs = vm.power == "started" or actual.config.get("template") == "1"
        if (runs and not found.after) or found.power is not None:
            return actual
        return replace(actual, power=self._reader.power(client, actual))

    def plan(self, desired: Sequence[VmDesired], actual: Mapping[str, VmActual]) -> Plan[VmDesired, VmActual]:
        """Changes of the desired machines; VMs of ours that nobody desires are left alone."""
        changes: list[Change[VmDesired, VmActual]] = []
        refusals: list[Refusal] = []
        for vm in desired:
            try:
                changes.append(self._change(vm, actual.get(vm.name)))
            except HostingError as error:
                refusals.append(Refusal(vm.name, error))
        return Plan(tuple(changes), tuple(refusals))

    def _change(self, vm: VmDesired, present: VmActual | None) -> Change[VmDesired, VmActual]:
        problem = vm.problem or (present and present.problem) or self._refused.get(vm.name)
        if problem:
            raise problem
        if vm.state == "absent":
            before = deletion(vm, present) if present else {}
            return Change(vm.name, "delete" if present else "unchanged", before, {}, vm, present)
        if present is None:
            return Change(vm.name, "create", {}, shown_creation(vm, self._nodes[vm.name]), vm, None)
        found = difference(self._worker.still_asked(vm), present, self._nodes.get(vm.name))
        return Change(vm.name, "update" if found.after else "unchanged", found.before, found.after, vm, present)

    def apply(self, changes: Sequence[Change[VmDesired, VmActual]]) -> Iterator[Applied[VmDesired, VmActual]]:
        results = self._parallel.each(changes, self._apply_one)
        for change, result in zip(changes, results, strict=True):
            yield Applied(change, result if isinstance(result, HostingError) else None)

    def outputs(self, actual: VmActual) -> Mapping[str, Any]:
        """``address`` is the first fixed address of cloud-init, without prefix length; empty if there is none."""
        if actual.problem is not None:
            return {}
        fixed = [text.partition("/")[0] for text in field_of("addresses").of(actual.config) if "/" in text]
        return {
            "vmid": actual.vmid,
            "node": actual.node,
            "incarnation": incarnation(actual.config),
            "address": fixed[0] if fixed else "",
            "status": actual.power,
            "template": actual.config.get("template", "0") == "1",
            "pending": list(actual.pending),
            "reboot_required": bool(actual.pending) and actual.power == "started",
            "snapshots": list(actual.snapshots),
            **({} if actual.agent is None else {"agent": actual.agent, "addresses": list(actual.addresses)}),
        }

    # preparing: what cannot be is refused, and where a new machine goes is chosen, before anything is written

    def _prepare(self, client: Client, desired: Sequence[VmDesired]) -> None:
        asked = preflight.Asked(client)
        # those with a node of their own first: the others keep clear of them
        for vm in sorted(desired, key=lambda vm: vm.node is None):
            self._refused.pop(vm.name, None)
            present = (self._actual or {}).get(vm.name)
            try:
                if vm.state == "absent" or (present is not None and present.problem is not None):
                    continue
                if present is None:
                    self._prepare_creation(client, asked, vm)
                else:
                    self._prepare_update(asked, vm, present)
            except HostingError as error:
                self._refused[vm.name] = error

    def _prepare_creation(self, client: Client, asked: preflight.Asked, vm: VmDesired) -> None:
        check_creation(vm, {})
        source = self._reader.source(client, vm, self._view) if vm.clone else None
        node = vm.node or self._nodes.get(vm.name) or self._choose(vm, source, asked)
        self._placed[vm.name] = (_wish(vm), node)
        need = preflight.need_of(vm, None, node)
        if source is not None:
            need = _need_of_clone(need, vm, as_cloned(vm, source, source.vmid, node))
        preflight.check_one(asked, need, self._view.cluster)
        self._nodes[vm.name] = node
        if source is not None:
            self._sources[vm.name] = source
            check_clone(vm, source.config)
            # what the copy cannot become is refused now
            difference(vm, as_cloned(vm, source, source.vmid, node))
        else:
            self._images[vm.name] = _image_sizes(asked, vm, node)
            check_creation(vm, self._images[vm.name])

    def _prepare_update(self, asked: preflight.Asked, vm: VmDesired, present: VmActual) -> None:
        self._choose_target(vm, present)
        if not present.config:
            return
        back = self._worker.still_asked(vm).rollback
        if back is not None:
            preflight.check_snapshot(asked, present, back)
        target = self._nodes.get(vm.name)
        moves = target is not None and target != present.node
        need = preflight.need_of(vm, present, target or present.node)
        if moves or need.volumes or need.bridges or need.pool:
            # a node that is named for the creation only may be gone by now
            preflight.check_one(asked, need if moves else replace(need, nodes=()), self._view.cluster)

    def _choose(self, vm: VmDesired, source: VmActual | None, asked: preflight.Asked) -> str:
        if vm.placement is None and source is not None:
            return source.node
        images = {disk.import_from for disk in vm.disks if disk.import_from} if source is None else set()
        holders = {image: preflight.holders(asked, image, self._view.cluster) for image in sorted(images)}
        wish = replace(_wish(vm), images=holders)
        return placement.choose(wish, self._view.cluster, tuple(self._placed.values()))

    def _choose_target(self, vm: VmDesired, present: VmActual) -> None:
        """Where an existing machine is to move, if it is to."""
        self._nodes.pop(vm.name, None)
        if not vm.migrate:
            return
        if vm.node is not None:
            self._nodes[vm.name] = vm.node
            return
        if vm.placement is None:
            return
        wish = _wish(vm)
        allowed = not wish.nodes or present.node in wish.nodes
        placed = tuple(self._placed.values())
        near = placement.neighbours(wish, self._view.cluster, placed, present.node)
        if not allowed or (near and wish.strict):
            self._nodes[vm.name] = placement.choose(wish, self._view.cluster, placed)
            self._placed[vm.name] = (wish, self._nodes[vm.name])

    # changing

    def _client(self) -> Client:
        """The client of this thread."""
        if threading.current_thread() is threading.main_thread() or self._another is None:
            return self._own
        if not hasattr(self._local, "client"):
            self._local.client = replace(self._another(), sleep=self._parallel.sleep)
        client: Client = self._local.client
        return client

    def _look(self, client: Client, desired: Sequence[VmDesired]) -> Sequence[Row]:
        view = self._reader.look(client, desired)
        for problem in view.problems.values():
            raise problem
        return view.rows

    def _apply_one(self, change: Change[VmDesired, VmActual]) -> None:
        """Make the change; after an answer that does not tell what was done, look, and do what is left."""
        desired, client = change.desired, self._client()
        if desired is None:
            raise BackendError("a change without desired state", where=change.name)
        for delay in REPEAT_DELAYS:
            try:
                return self._make(client, desired, change)
            except NotFound as error:
                # the VM moved or went away; anything else that is not there will not come
                if change.actual is None or "onfiguration file" not in error.what:
                    raise
            except Transient:
                pass
            client.sleep(delay)
            change = self._again(client, desired)
        return self._make(client, desired, change)

    def _again(self, client: Client, desired: VmDesired) -> Change[VmDesired, VmActual]:
        """What is left to do, by a fresh look."""
        view = self._reader.look(client, [desired])
        self._ids.view(view.rows)
        found = self._found(client, desired, view)
        self._know(desired.name, found)
        self._view = view
        self._prepare(client, [desired])
        return self._change(desired, found)

    def _know(self, name: str, actual: VmActual | None) -> None:
        if self._actual is None:
            return
        if actual is None:
            self._actual.pop(name, None)
        else:
            self._actual[name] = actual

    def _make(self, client: Client, desired: VmDesired, change: Change[VmDesired, VmActual]) -> None:
        actual, node = change.actual, self._nodes.get(desired.name)
        if change.action == "create" and node is not None:
            source = self._sources.get(desired.name)
            if source is not None:
                self._know(desired.name, self._worker.clone(client, desired, node, source))
            else:
                images = self._images.get(desired.name, {})
                self._know(desired.name, self._worker.create(client, desired, node, images))
        elif change.action == "update" and actual is not None:
            self._know(desired.name, self._worker.update(client, self._worker.still_asked(desired), actual, node))
        elif change.action == "delete" and actual is not None:
            self._worker.delete(client, actual)
            self._know(desired.name, None)


def _wish(vm: VmDesired) -> placement.Wish:
    where = vm.placement
    memory = int(vm.settings.get("memory", BY_OPTION["memory"].default)) * MIB
    volumes = {(disk.storage, "images") for disk in vm.disks if disk.storage and disk.state == "present"}
    return placement.Wish(
        machine=vm.name,
        memory=memory,
        storages=frozenset(volumes),
        nodes=tuple(sorted(where.nodes)) if where and where.nodes else (),
        apart_from=where.apart_from if where else frozenset(),
        strict=bool(where and where.strict),
    )


def _need_of_clone(need: preflight.Need, vm: VmDesired, cloned: VmActual) -> preflight.Need:
    """What a clone needs beside what its source has already."""
    beside = preflight.need_of(vm, cloned, need.node)
    storage = tuple(volume for volume in need.volumes if volume.field == "clone.storage")
    return replace(need, volumes=(*storage, *beside.volumes), bridges=beside.bridges)


def _image_sizes(asked: preflight.Asked, vm: VmDesired, node: str) -> dict[str, int]:
    """Sizes of the images that the machine's disks are made of, as far as they are told."""
    found: dict[str, int] = {}
    for image in {disk.import_from for disk in vm.disks if disk.import_from}:
        storage = image.partition(":")[0]
        path = f"/nodes/{node}/storage/{quote(storage, safe='')}/content/{quote(image, safe='')}"
        try:
            found[image] = int(asked.get(path)["size"])
        except (HostingError, KeyError):
            continue
    return found
