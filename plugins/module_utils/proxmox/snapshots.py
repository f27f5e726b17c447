# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of a virtual machine: those that are desired, and those that we take before a risky change.

The safety snapshots are known by their name, ``fediversity-`` and a time; no other is ever deleted unless the item asks
for it by name. A running and a stopped machine can both be saved, provided that all its storages can (on directory
storages: qcow2 only); a template cannot. Only a running machine has memory to save.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, NotFound
from ansible_collections.fediversity.hosting.plugins.module_utils.names import OWNER_TAG
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.check import Check
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, LostAnswer, Value
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Place, Shown

# pve-snapshot-name: a configuration id of at most 40 characters; two names are the server's own
NAME = re.compile(r"(?!(current|pending)\Z)[A-Za-z][A-Za-z0-9_-]{1,39}\Z", re.IGNORECASE)
SAFETY_NAME = re.compile(rf"{OWNER_TAG}-\d{{14}}\Z")
# what the server says (pve-guest-common, AbstractConfig.pm; pve-storage plug-ins), and what to do about it
HINTS: tuple[tuple[str, str], ...] = (
    (
        "snapshot feature is not available",
        "At least one volume lies where no snapshot is possible: use qcow2, or a storage such as ZFS, Ceph or LVM-thin",
    ),
    ("if it's a template", "A template takes no snapshots: leave them out"),
    ("if vm is a template", "A template takes no snapshots: leave them out"),
    ("is not most recent snapshot", "This storage returns only to the newest snapshot: delete the newer ones first"),
    ("incomplete snapshot", "That snapshot was never finished: delete it"),
    ("already used", "Run again"),
    ("volume is still in use (snapshot?)", "A snapshot holds the disk: delete the snapshot first"),
    ("disk with snapshots and delete the source", "A snapshot holds the disk: delete the snapshot first"),
    ("VM contains snapshots", "Delete its snapshots first"),
)


@dataclass(frozen=True)
class SnapshotDesired:
    """One snapshot that is to be there or not; a description of None is not managed.

    :param memory: save the memory too, when it is taken of a running machine; never compared.
    """

    name: str
    present: bool = True
    description: str | None = None
    memory: bool = False


@dataclass(frozen=True)
class Snapshot:
    """One snapshot that is there."""

    name: str
    description: str = ""
    time: int = 0


class Snapshots:
    """The part ``snapshots`` of a virtual machine."""

    key: ClassVar[str] = "snapshots"
    argument: ClassVar[dict[str, Any]] = {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "description": {"type": "str"},
            "vmstate": {"type": "bool", "default": False},
        },
    }

    def desired(self, check: Check, value: Any) -> tuple[SnapshotDesired, ...]:
        """The option, typed. :raises InvalidInput: a name is refused or there twice."""
        found = check.each(self.key, _desired) or ()
        names = [snapshot.name for snapshot in found]
        for name in names:
            if names.count(name) > 1:
                raise check.refused(self.key, name, "every name once")
        return found

    def read(self, client: Client, place: Place, desired: tuple[SnapshotDesired, ...]) -> tuple[Snapshot, ...]:
        """All snapshots; one request."""
        return listed(client, place)

    def compare(self, desired: tuple[SnapshotDesired, ...], actual: tuple[Snapshot, ...] | None) -> tuple[Shown, Shown]:
        """The descriptions by name, of the snapshots that the item names."""
        there = {snapshot.name: snapshot.description for snapshot in actual or ()}
        before = {wanted.name: there[wanted.name] for wanted in desired if wanted.name in there}
        after = {
            wanted.name: there.get(wanted.name, "") if wanted.description is None else wanted.description
            for wanted in desired
            if wanted.present
        }
        return before, after

    def apply(
        self,
        client: Client,
        place: Place,
        desired: tuple[SnapshotDesired, ...],
        actual: tuple[Snapshot, ...],
        budget: float,
    ) -> None:
        """Delete, then take in the given order, then describe."""
        there = {snapshot.name: snapshot.description for snapshot in actual}
        for wanted in desired:
            if not wanted.present and wanted.name in there:
                remove(client, place, wanted.name, budget)
        for wanted in desired:
            if not wanted.present:
                continue
            if wanted.name not in there:
                take(client, place, wanted.name, budget, description=wanted.description or "", memory=wanted.memory)
            elif wanted.description is not None and wanted.description != there[wanted.name]:
                client.put(f"{place.path}/snapshot/{wanted.name}/config", description=wanted.description)


SNAPSHOTS = Snapshots()


def _desired(check: Check) -> SnapshotDesired:
    description = check.values.get("description")
    return SnapshotDesired(
        name=check.required("name", NAME, "2 to 40 letters, digits, _ and -, beginning with a letter, not current"),
        present=(check.values.get("state") or "present") == "present",
        description=None if description is None else str(description).rstrip(),
        memory=bool(check.values.get("vmstate")),
    )


def parse(rows: Iterable[Mapping[str, Any]]) -> tuple[Snapshot, ...]:
    """The answer of GET ``snapshot`` without the row of the present state, oldest first."""
    found = [
        Snapshot(str(row["name"]), str(row.get("description") or "").rstrip(), int(row.get("snaptime") or 0))
        for row in rows
        if row.get("name") != "current"
    ]
    return tuple(sorted(found, key=lambda snapshot: (snapshot.time, snapshot.name)))


def listed(client: Client, place: Place) -> tuple[Snapshot, ...]:
    """The snapshots of the machine, oldest first."""
    return parse(client.get(f"{place.path}/snapshot"))


def check_name(check: Check, field_name: str) -> str | None:
    """The name of a snapshot in the option *field_name*, None if it is not given.

    :raises InvalidInput: it cannot be one.
    """
    return check.text(field_name, NAME, "the name of a snapshot")


def safety_name(now: float) -> str:
    """The name of a safety snapshot that is taken at *now* (seconds of the epoch)."""
    return time.strftime(f"{OWNER_TAG}-%Y%m%d%H%M%S", time.gmtime(now))


def surplus(snapshots: Sequence[Snapshot], kept: int) -> list[str]:
    """The names of the safety snapshots that are too many, oldest first; their names sort by time."""
    ours = sorted(snapshot.name for snapshot in snapshots if SAFETY_NAME.match(snapshot.name))
    return ours[: max(len(ours) - kept, 0)]


def take(
    client: Client, place: Place, name: str, budget: float, *, description: str = "", memory: bool = False
) -> None:
    """Take a snapshot.

    :param budget: seconds.
    :raises HostingError: the server cannot; the hint says why where its text does not.
    """
    parameters: dict[str, Value] = {"snapname": name, "description": description or None, "vmstate": memory or None}
    _run(client, place, "POST", "", parameters, budget=budget)


def prune(client: Client, place: Place, kept: int, budget: float) -> None:
    """Delete the oldest safety snapshots down to *kept*; no other snapshot is touched."""
    for name in surplus(listed(client, place), kept):
        remove(client, place, name, budget)


def remove(client: Client, place: Place, name: str, budget: float) -> None:
    """Delete one snapshot; it may be gone already."""
    try:
        _run(client, place, "DELETE", f"/{name}", {}, budget=budget)
    except NotFound:
        return


def roll_back(client: Client, place: Place, name: str, budget: float, *, start: bool = False) -> None:
    """Return disks and configuration to the snapshot; the server stops a running machine at once.

    A snapshot with memory leaves the machine running.

    :param start: start it afterwards.
    :raises NotFound: no such snapshot.
    :raises HostingError: the server cannot.
    """
    _run(client, place, "POST", f"/{name}/rollback", {"start": start or None}, budget=budget)


def order_back(client: Client, place: Place, name: str, budget: float) -> None:
    """``roll_back``, but a task that was begun by a request without answer is waited for, and not begun twice."""
    known = _rollbacks(client, place)
    try:
        roll_back(client, place, name, budget)
    except LostAnswer:
        begun = [upid for upid in _rollbacks(client, place) if upid not in known]
        if not begun:
            raise
        tasks.wait(client, begun[0], budget=budget)


def _rollbacks(client: Client, place: Place) -> list[str]:
    """The tasks that have rolled the machine back, the latest first."""
    path = f"/nodes/{place.node}/tasks"
    return [task["upid"] for task in client.get(path, vmid=place.vmid, source="all", typefilter="qmrollback")]


def _run(client: Client, place: Place, method: str, path: str, params: Mapping[str, Value], *, budget: float) -> None:
    try:
        tasks.run(client, method, f"{place.path}/snapshot{path}", params, budget=budget)
    except HostingError as error:
        hint = hint_of(error)
        if hint is None:
            raise
        raise type(error)(error.what, where=f"VM {place.machine}, snapshots", hint=hint) from error


def hint_of(error: HostingError) -> str | None:
    """What to do about an error of the server that has to do with snapshots; None for any other."""
    return next((hint for text, hint in HINTS if text in error.what), None)
