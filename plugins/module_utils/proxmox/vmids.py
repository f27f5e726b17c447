# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ids for new virtual machines: no machine is made twice, however many runs make it at the same time.

The rule: an id is the lowest that is free by the view of the cluster that also says that the machine does not exist.
Two runs that both make the machine then want the same id, and one of them loses; the loser looks again. An id of the
server that is higher tells that the view is old: look again before using it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, Exists, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.check import VMID_RANGE
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, LostAnswer, Transient
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.identity import Row, marked, rest_hint
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import VmDesired

# ids tried for one VM when other clients take each one first
ATTEMPTS = 50
# looks at an id that this run gave away and that the server still calls free, and seconds between them
LOOKS = 25
PAUSE = 0.2

Look = Callable[[Client, Sequence[VmDesired]], Sequence[Row]]
"""The guests now, when creations under way have ended."""


class Ids:
    """Gives ids to the creations of one run, to one at a time.

    :param allowed: from which to choose; None takes the next one that the server offers.
    """

    def __init__(self, look: Look, allowed: range | None) -> None:
        self._look = look
        self._allowed = allowed
        self._lock = threading.Lock()
        # ids of the creations of this run, with their machines
        self._given: dict[int, str] = {}
        self._rows: Sequence[Row] = ()
        # ids whose request got no answer, by machine: sent again with the same id, so that a late one is noticed
        self._unanswered: dict[str, int] = {}
        # ids whose creation nobody saw end, by machine
        self._lost: dict[str, int] = {}

    def view(self, rows: Sequence[Row]) -> None:
        """Remember the guests that the cluster has."""
        with self._lock:
            self._rows = rows
            settled = {row.vmid for row in rows if not row.being_made}
            self._unanswered = {name: vmid for name, vmid in self._unanswered.items() if vmid not in settled}

    def claim(self, client: Client, desired: VmDesired, send: Callable[[int], Any]) -> tuple[int, Any]:
        """Choose an id, *send* the creation with it, and return the id and the answer.

        :raises Transient: the machine has a VM now, or may have one: look.
        :raises Exists: the wanted id belongs to somebody whom this user does not see.
        :raises BackendError: the worker of an earlier creation died, and its rest is there.
        """
        with self._lock:
            self._check_rest(desired)
            for _attempt in range(ATTEMPTS):
                vmid = desired.vmid or self._unanswered.get(desired.name) or self._free(client, desired)
                try:
                    answer = send(vmid)
                except LostAnswer:
                    self._unanswered[desired.name] = vmid
                    raise
                except Exists as error:
                    if desired.name in self._unanswered:
                        # most likely our own; no other id is tried before it can be seen whose it is
                        raise Transient(error.what, where=error.where) from error
                    self._look_again(client, desired)
                    if desired.vmid is not None:
                        raise
                    continue
                self._unanswered.pop(desired.name, None)
                self._given[vmid] = desired.name
                return vmid, answer
        raise Exists(f"other clients took {ATTEMPTS} VMIDs first", where=f"VM {desired.name}", hint="Run again")

    def _look_again(self, client: Client, desired: VmDesired) -> None:
        """:raises Transient: the machine has a VM now."""
        self._rows = self._look(client, [desired])
        if marked(desired.name, self._rows):
            raise Transient("another client has just made this machine", where=f"VM {desired.name}")

    def release(self, vmid: int) -> None:
        """The creation with this id failed: another run may use it for a machine that this one wants too."""
        with self._lock:
            self._given.pop(vmid, None)

    def lost(self, vmid: int) -> None:
        """Nobody saw the creation with this id end: what is there under a lock now is its rest."""
        with self._lock:
            self._lost[self._given.pop(vmid)] = vmid

    def _check_rest(self, desired: VmDesired) -> None:
        vmid = self._lost.get(desired.name)
        for row in self._rows:
            if row.vmid == vmid and row.being_made:
                raise BackendError(
                    f"the worker that made VM {vmid} for it died and left it locked",
                    where=f"VM {desired.name}",
                    hint=f"{rest_hint(row)}; then run again",
                )

    def _free(self, client: Client, desired: VmDesired) -> int:
        """:raises Transient: the machine has a VM now."""
        offered = None if self._allowed is not None else self._offered(client)
        # a VM that is just being made shows no tags and may be this machine
        unclear = any(row.being_made for row in self._rows)
        if unclear or marked(desired.name, self._rows) or offered not in (None, self._lowest(VMID_RANGE, desired)):
            self._look_again(client, desired)
        return self._lowest(self._allowed, desired) if self._allowed is not None else offered or 0

    def _offered(self, client: Client) -> int:
        """The server's next id; one that a clone of this run is just taking is waited for."""
        for _look in range(LOOKS):
            vmid = int(client.get("/cluster/nextid"))
            if vmid not in self._given:
                return vmid
            client.sleep(PAUSE)
        # what had it is gone again
        self._given.pop(vmid, None)
        return vmid

    def _lowest(self, allowed: range, desired: VmDesired) -> int:
        taken = {row.vmid for row in self._rows} | set(self._given)
        for vmid in allowed:
            if vmid not in taken:
                return vmid
        raise InvalidInput(
            f"all ids from {allowed[0]} to {allowed[-1]} are taken",
            where=f"VM {desired.name}, vmid_range",
            hint="Widen vmid_range, or give the machine a vmid",
        )


def parse_range(text: str | None) -> range | None:
    """``5000-5999`` as a range. :raises InvalidInput: it is none."""
    if text is None:
        return None
    first, _dash, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise InvalidInput(f"{text!r} is no range", where="vmid_range", hint="Write such as 5000-5999")
    if int(first) not in VMID_RANGE or int(last) not in VMID_RANGE:
        raise InvalidInput(
            f"{text!r} is refused", where="vmid_range", hint=f"Use ids from {VMID_RANGE[0]} to {VMID_RANGE[-1]}"
        )
    return range(int(first), int(last) + 1)
