# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In which order a difference is made up for.

Pure functions. At every boundary between two requests a run may be killed; whatever is left is found by the next one,
because each request is compared for anew and none depends on a memory of the one before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.compare import Difference
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import (
    DISK_KEY,
    NETWORK_KEY,
    format_size,
    parse_bool,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.ha import rules_power
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import (
    Power,
    Shutdown,
    VmActual,
    VmDesired,
    WantedPower,
)

Value: TypeAlias = "str | int | bool | None"


@dataclass(frozen=True)
class Send:
    """One request.

    :param path: below the VM's own path; absolute when it begins with ``/pools``.
    :param task: it answers with a task, to be waited for.
    :param forgives: texts of errors that mean that somebody was faster.
    """

    method: Literal["POST", "PUT", "DELETE"]
    path: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    task: bool = True
    forgives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """The side of the VM that has the option *part* is to be changed."""

    part: str


@dataclass(frozen=True)
class Reboot:
    """The guest is to be restarted if changes wait for it."""


@dataclass(frozen=True)
class Await:
    """The manager of high availability is to be waited for: a task of its own only tells it what to do."""

    running: bool


Step: TypeAlias = "Send | Change | Reboot | Await"


def power_steps(present: Power, wanted: WantedPower, shutdown: Shutdown) -> tuple[Step, ...]:
    """From one power state to the other."""
    start = Send("POST", "/status/start", forgives=("already running",))
    resume, suspend = Send("POST", "/status/resume"), Send("POST", "/status/suspend")
    parameters: dict[str, Value] = {"timeout": shutdown.timeout, "forceStop": shutdown.force}
    stop = Send("POST", "/status/shutdown", parameters)
    # a paused guest cannot shut down
    cut = Send("POST", "/status/stop")
    ways: Mapping[tuple[str, str], tuple[Step, ...]] = {
        ("stopped", "started"): (start,),
        ("stopped", "paused"): (start, suspend),
        ("started", "paused"): (suspend,),
        ("started", "stopped"): (stop,),
        ("paused", "started"): (resume,),
        ("paused", "stopped"): (cut,) if shutdown.force else (resume, stop),
    }
    return ways.get((present, wanted), ())


def moves(actual: VmActual, found: Difference) -> tuple[Step, ...]:
    """What moves disks; then the VM must be read and compared again, because its volumes have other names.

    A waiting change of a disk names the volume that the disk had, so it is taken back; it is found to be missing again.
    """
    ordered: list[Step] = []
    waiting = [move.slot for move in found.disks.moved if move.slot in actual.pending]
    if waiting:
        ordered.append(Send("PUT", "/config", {"revert": ",".join(waiting)}, task=False))
    for move in found.disks.moved:
        where: dict[str, Value] = {"disk": move.slot, "storage": move.storage, "format": move.format, "delete": True}
        # a move that a killed run began may have come first
        ordered.append(Send("POST", "/move_disk", where, forgives=("same storage with same format",)))
    return tuple(ordered)


def steps(desired: VmDesired, actual: VmActual, found: Difference) -> tuple[Step, ...]:
    """What makes the difference good, after snapshot, migration and ``moves``.

    The configuration comes first: what cannot change while the VM runs is taken over by a stop that follows.
    """
    ordered: list[Step] = _configuration(desired, actual, found)
    for slot, size in found.disks.grown.items():
        ordered.append(Send("PUT", "/resize", {"disk": slot, "size": format_size(size)}))
    if found.pool is not None:
        members: dict[str, Value] = {"poolid": found.pool, "vms": actual.vmid, "allow-move": True}
        ordered.append(Send("PUT", "/pools", members, task=False))
    # what its manager starts needs its firewall first; what it no longer has must be its own before it is stopped
    ha = desired.parts.get("ha")
    late = [key for key in found.parts if key == "ha" and ha is not None and rules_power(ha.state)]
    ordered += [Change(key) for key in found.parts if key not in late]
    if found.power is not None:
        ordered += power_steps(actual.power, found.power, desired.shutdown)
        if actual.ha and ha is None and found.power != "paused":
            ordered.append(Await(found.power == "started"))
    ordered += [Change(key) for key in late]
    if found.template:
        ordered.append(Send("POST", "/template", forgives=("convert a template to a template",)))
    if desired.reboot_pending and actual.power == "started" and found.power is None:
        ordered.append(Reboot())
    return tuple(ordered)


def _configuration(desired: VmDesired, actual: VmActual, found: Difference) -> list[Step]:
    """One request, or two where the protection is lifted that would keep the other from removing a disk.

    Volumes are allocated and devices unplugged by a task: a synchronous request has 30 s.
    """
    if not found.values and not found.deleted:
        return []
    values = dict(found.values)
    ordered: list[Step] = []
    digest = actual.config.get("digest")
    if found.disks.deleted and parse_bool(actual.config.get("protection", "0")) and values.get("protection") == "0":
        ordered.append(Send("PUT", "/config", {"protection": values.pop("protection"), "digest": digest}, task=False))
        digest = None
    by_task = any(_is_device(key) for key in (*values, *found.deleted))
    parameters: dict[str, Value] = {
        **values,
        # a hash is stored as it is; with a VM that is not new it could not be compared
        **({"cipassword": desired.password_hash} if actual.unfinished and desired.password_hash else {}),
        "delete": ",".join(found.deleted) or None,
        # the volumes go with their disks
        "force": True if found.disks.deleted else None,
        "digest": digest,
    }
    ordered.append(Send("POST" if by_task else "PUT", "/config", parameters, task=by_task))
    return ordered


def _is_device(key: str) -> bool:
    return bool(DISK_KEY.match(key) or NETWORK_KEY.match(key)) or key in ("efidisk0", "tpmstate0")
