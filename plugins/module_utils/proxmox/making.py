# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is just being made, and what was left half made: looked at before a machine is taken for missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    Locked,
    NotFound,
    NotOwned,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.names import machine_tag
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.clones import is_nameless, marked_machine
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.identity import (
    Permissions,
    Row,
    marked,
    parse_rows,
    rest_hint,
    sees_tasks,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import VmDesired, own_tags
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.placement import Cluster, parse_cluster

# seconds before looking anew at VMs that are being made, where no task is listed that makes them
SETTLING = (0.2, 0.5, 1.0)


@dataclass(frozen=True)
class View:
    """The cluster at one moment.

    :param problems: why it cannot be told whether a machine exists, by machine.
    """

    rows: tuple[Row, ...] = ()
    cluster: Cluster = field(default_factory=Cluster)
    problems: Mapping[str, HostingError] = field(default_factory=dict)

    def online(self, row: Row) -> bool:
        """Whether the node of the guest can be asked."""
        node = self.cluster.nodes.get(row.node)
        return node is None or node.online


@dataclass(frozen=True)
class UnderWay:
    """A guest that is being made. :param machines: which of the missing ones it may be; *certain*: it says so."""

    row: Row
    machines: tuple[VmDesired, ...]
    certain: bool = False


class Making:
    """Looks with the client that it is given, so that each thread may use its own.

    :param budget: seconds that a task may take which is waited for.
    :param granted: the permissions of the client.
    """

    def __init__(self, budget: float, granted: Callable[[Client], Permissions]) -> None:
        self._budget = budget
        self._granted = granted
        # guests with the tags of a machine that were found to be unfinished clones for another one
        self._doubted: set[int] = set()

    def look(self, client: Client, desired: Sequence[VmDesired]) -> View:
        """The cluster, when creations that this user has under way have ended and their machines can be told."""
        view = _view(client)
        missing = [vm for vm in desired if not marked(vm.name, view.rows)]
        if missing:
            try:
                view = self._settled(client, view, missing)
            except HostingError as error:
                # one of them may be what is just being made where nobody can look
                view = replace(view, problems={vm.name: error for vm in missing})
        return self._recognised(client, desired, view)

    def check_owner(self, machine: str, vmid: int, config: Mapping[str, Any]) -> None:
        """:raises NotFound: the VM has the machine's tags only because it is a clone of it; look again."""
        other = marked_machine(config)
        if other not in (None, machine):
            self._doubted.add(vmid)
            raise NotFound(f"VM {vmid} is an unfinished clone for the machine {other}", where=f"VM {machine}")

    # what is being made

    def _settled(self, client: Client, view: View, missing: Sequence[VmDesired]) -> View:
        """The view when creations under way have ended: until then their VMs show no tags, or those of their source.

        They are left over from a run that was killed or that lost an answer, or another run makes them just now. Its
        task is listed a moment after the VM; a lock without a task is looked at a few times.
        """
        pauses = list(SETTLING)
        end = client.clock() + self._budget
        while made := self._under_way(client, view, missing):
            waited = [self._wait_for(client, one) for one in made if view.online(one.row)]
            if not any(waited):
                if not pauses:
                    return replace(view, problems=self._unclear(client, view, made))
                client.sleep(pauses.pop(0))
            if client.clock() > end:
                raise Locked(
                    f"guest {made[0].row.vmid} is still being made after {self._budget:g} s",
                    where=client.host,
                    hint="Run again when that has ended",
                )
            view = _view(client)
        return view

    def _under_way(self, client: Client, view: View, missing: Sequence[VmDesired]) -> list[UnderWay]:
        found = [_under_way(client, view, row, missing) for row in view.rows if row.being_made]
        return [one for one in found if one.machines]

    def _wait_for(self, client: Client, one: UnderWay) -> bool:
        """Wait for the tasks that make the VM. :returns: whether there were any."""
        row = one.row
        if row.lock != "clone":
            chosen: dict[str, Any] = {"vmid": row.vmid, "typefilter": "qmcreate"}
            sources: set[str] = set()
        else:
            # a clone's task bears the id of its source
            chosen = {"typefilter": "qmclone"}
            sources = {str(vm.clone.vmid) for vm in one.machines if vm.clone}
        running = [str(task["upid"]) for task in client.get(f"/nodes/{row.node}/tasks", source="active", **chosen)]
        concerned = [upid for upid in running if not sources or upid.split(":")[6] in sources]
        for upid in concerned:
            tasks.outcome(client, upid, budget=self._budget)
        return bool(concerned)

    def _unclear(self, client: Client, view: View, made: Iterable[UnderWay]) -> dict[str, HostingError]:
        """Why machines must not be made while guests keep a lock for which no task is seen.

        Who sees the tasks of all knows that there is none: the lock is stale, and stops only what is certain.
        """
        problems: dict[str, HostingError] = {}
        for one in made:
            seen = view.online(one.row) and sees_tasks(self._granted(client), one.row.node)
            for vm in one.machines:
                # another run that makes a machine with a given id makes it with this id
                if one.certain or (not seen and vm.vmid is None and vm.state == "present"):
                    problems[vm.name] = _left_over(one.row, vm) if seen else _hidden(client, one, vm)
        return problems

    # clones that were left as the server made them

    def _recognised(self, client: Client, desired: Sequence[VmDesired], view: View) -> View:
        """The view with our own tags on clones that were not finished; until then they have their source's."""
        problems = dict(view.problems)
        machines: dict[int, str | None] = {}
        for vm in desired:
            ours = marked(vm.name, view.rows)
            if vm.name in problems or (len(ours) == 1 and ours[0].vmid not in self._doubted):
                continue
            try:
                doubtful = ours or _candidates(client, vm, view)
                machines.update({row.vmid: _made_for(client, row) for row in doubtful})
                for row in doubtful:
                    if machines[row.vmid] == vm.name:
                        _check_continued(vm, row, view)
            except HostingError as error:
                problems[vm.name] = error
        rows = tuple(
            replace(row, tags=own_tags(machine), unfinished=True) if (machine := machines.get(row.vmid)) else row
            for row in view.rows
        )
        return replace(view, rows=rows, problems=problems)


def _view(client: Client) -> View:
    answer = client.get("/cluster/resources")
    return View(parse_rows(answer), parse_cluster(answer))


def _under_way(client: Client, view: View, row: Row, missing: Sequence[VmDesired]) -> UnderWay:
    possible = tuple(vm for vm in missing if vm.vmid in (None, row.vmid))
    if row.lock != "clone":
        return UnderWay(row, possible)
    clones = tuple(vm for vm in possible if vm.clone)
    if not view.online(row):
        return UnderWay(row, clones)
    try:
        config = client.get(f"/nodes/{row.node}/qemu/{row.vmid}/config")
    except NotFound:
        # it ended or went to its node just now
        return UnderWay(row, tuple(missing))
    if is_nameless(config):
        return UnderWay(row, clones)
    machine = marked_machine(config)
    return UnderWay(row, tuple(vm for vm in missing if vm.name == machine), certain=True)


def _hidden(client: Client, one: UnderWay, vm: VmDesired) -> HostingError:
    row = one.row
    if one.certain:
        what, way = f"somebody is cloning VM {row.vmid} on the node {row.node} for this machine", ""
    else:
        what = (
            f"somebody is creating VM {row.vmid} on the node {row.node}, and {client.identity} cannot see whether it "
        )
        what, way = f"{what}is this machine", ", or give the machine a vmid"
    return Locked(what, where=f"VM {vm.name}", hint=f"Run again when that has ended{way}. {rest_hint(row)}")


def _left_over(row: Row, vm: VmDesired) -> HostingError:
    return BackendError(
        f"VM {row.vmid} is a locked clone for this machine that no task finishes",
        where=f"VM {vm.name}",
        hint=f"{rest_hint(row)}; then run again",
    )


def _candidates(client: Client, vm: VmDesired, view: View) -> list[Row]:
    """Guests that may be the machine's unfinished clone: they have the VM's name, and mostly the tags of the source.

    For a clone, the nodes of all that have the tags of the source are asked, because names in the rows are late. For
    anything else, rows are trusted that have a name, and those are looked at that are too young to have one.
    """
    source = _source(vm, view)
    others = [row for row in view.rows if row.kind == "qemu" and row is not source and not row.being_made]
    if vm.vmid is not None:
        others = [row for row in others if row.vmid == vm.vmid]
    alike = [row for row in others if source is not None and row.tags == source.tags]
    if source is not None and vm.vmid is not None:
        return alike
    _check_offline(vm, [row for row in alike if not view.online(row)])
    seen = [row for row in others if view.online(row) and not row.was_finished]
    unnamed = [row for row in alike if view.online(row)]
    unnamed += [row for row in seen if row.young and row not in unnamed and not _is_machine(row, view)]
    found = [row for row in seen if row.name == vm.name and row not in unnamed]
    for node in sorted({row.node for row in unnamed}):
        names = {int(one["vmid"]): one.get("name") for one in client.get(f"/nodes/{node}/qemu")}
        found += [row for row in unnamed if row.node == node and names.get(row.vmid) == vm.name]
    return found


def _check_offline(vm: VmDesired, alike: Iterable[Row]) -> None:
    """:raises Unreachable: one of the guests may be the machine's unfinished clone, and its node cannot be asked."""
    for row in alike:
        if not row.was_finished and row.name in (None, vm.name):
            raise Unreachable(
                f"guest {row.vmid} on the node {row.node}, which is offline, may be an unfinished clone for it",
                where=f"VM {vm.name}",
                hint="Run again when the node is back, or give the machine a vmid",
            )


def _check_continued(vm: VmDesired, row: Row, view: View) -> None:
    """:raises NotOwned: the unfinished clone is not what the machine is to be made of."""
    source = _source(vm, view)
    if vm.state == "present" and (source is None or source.tags != row.tags):
        raise NotOwned(
            f"VM {row.vmid} is an unfinished clone for this machine, made of something else",
            where=f"VM {vm.name}",
            hint="Remove it with state: absent, then run again",
        )


def _source(vm: VmDesired, view: View) -> Row | None:
    return next((row for row in view.rows if vm.clone is not None and row.vmid == vm.clone.vmid), None)


def _is_machine(row: Row, view: View) -> bool:
    """Whether the guest is a machine of its own: clones of a machine have its tags too."""
    named = any(tag.startswith(machine_tag("")) for tag in row.tags)
    return named and sum(other.tags == row.tags for other in view.rows) == 1


def _made_for(client: Client, row: Row) -> str | None:
    """For which machine the guest is an unfinished clone."""
    try:
        return marked_machine(client.get(f"/nodes/{row.node}/qemu/{row.vmid}/config"))
    except NotFound:
        return None
