# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way back of a risky change: what is undone without being asked, and what is only told.

Only a machine that has not run since its snapshot was taken is rolled back: nothing that a guest wrote is ever lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, Locked, Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import snapshots, tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, Transient
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import target_config
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.order import Send
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Place

# requests whose failure is undone
UNDONE = ("/config", "/resize")


@dataclass(frozen=True)
class Saved:
    """A safety snapshot of this run.

    :param stopped: the machine has not run since, as far as this run has seen.
    :param config: the configuration that it holds.
    """

    name: str
    stopped: bool
    config: Mapping[str, str]


def is_undone(saved: Saved, step: Send, error: HostingError) -> bool:
    """Whether a failed step is to be undone: it surely failed, and no guest can have written anything."""
    unclear = isinstance(error, Transient | Unreachable | Locked)
    return saved.stopped and step.path in UNDONE and not unclear


def undo(client: Client, place: Place, saved: Saved, budget: float, error: HostingError) -> HostingError:
    """Roll back, and delete the volumes that the change made. :returns: the error that tells both."""
    try:
        snapshots.roll_back(client, place, saved.name, budget)
        _free_new_volumes(client, place, saved, budget)
    except HostingError as failure:
        told = f"the rollback to the snapshot {saved.name} failed too: {failure.what}"
        return type(error)(f"{error.what}; {told}", where=error.where, hint=_way_back(saved))
    return type(error)(f"{error.what}; rolled back to the snapshot {saved.name}", where=error.where, hint=error.hint)


def kept(saved: Saved, error: HostingError) -> HostingError:
    """The error with the way back."""
    hint = f"{error.hint}. {_way_back(saved)}" if error.hint else _way_back(saved)
    return type(error)(f"{error.what}; the snapshot {saved.name} is kept", where=error.where, hint=hint)


def _way_back(saved: Saved) -> str:
    return f"To return to the state before, at the cost of what the guest wrote since: rollback: {saved.name}"


def _free_new_volumes(client: Client, place: Place, saved: Saved, budget: float) -> None:
    """What was allocated since the snapshot is unused after the rollback."""
    config, _pending = target_config(client.get(f"{place.path}/pending"))
    then = {text.partition(",")[0] for text in saved.config.values()}
    new = [key for key, text in config.items() if key.startswith("unused") and text.partition(",")[0] not in then]
    if new:
        values = {"delete": ",".join(sorted(new)), "digest": config.get("digest")}
        tasks.run(client, "POST", f"{place.path}/config", values, budget=budget)
