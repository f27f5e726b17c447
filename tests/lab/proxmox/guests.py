# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the simulator needs of the lab's host driver, and a driver without hosts.

`lab.hosts` satisfies `Guests`; `GuestSpec` has the fields of its HostSpec.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

PowerState = Literal["running", "stopped", "paused"]


@dataclass(frozen=True)
class GuestSpec:
    """Who a guest is: `addresses` are CIDRs, `authorized_keys` are root's."""

    name: str
    hostname: str
    mac: str
    addresses: tuple[str, ...]
    gateway: str | None
    nameservers: tuple[str, ...]
    authorized_keys: tuple[str, ...]
    nics: tuple[str, ...] = ()  # MACs of all network cards; `mac` is the first one's


class Guests(Protocol):
    """A host driver; calls may block and may come from several threads."""

    def define(self, spec: GuestSpec) -> None: ...
    def start(self, name: str) -> None: ...
    def shutdown(self, name: str) -> None: ...
    def stop(self, name: str) -> None: ...
    def reset(self, name: str) -> None: ...
    def suspend(self, name: str) -> None: ...
    def resume(self, name: str) -> None: ...
    def remove(self, name: str) -> None: ...
    def state(self, name: str) -> PowerState: ...
    def agent_socket(self, name: str) -> Path: ...


class NoGuests:
    """Virtual machines without an operating system: they have power, ignore ACPI, and no agent answers.

    With a file their power outlives this process.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._states: dict[str, PowerState] = json.loads(file.read_text("utf-8")) if file and file.exists() else {}

    def _turn(self, name: str, state: PowerState | None) -> None:
        """Another state; None forgets the machine."""
        if state is None:
            self._states.pop(name, None)
        else:
            self._states[name] = state
        if self._file:
            new = self._file.with_name(self._file.name + ".new")
            new.write_text(json.dumps(self._states), encoding="utf-8")
            new.replace(self._file)

    def define(self, spec: GuestSpec) -> None:
        if spec.name not in self._states:
            self._turn(spec.name, "stopped")

    def start(self, name: str) -> None:
        self._turn(name, "running")

    def shutdown(self, name: str) -> None:
        pass

    def stop(self, name: str) -> None:
        self._turn(name, "stopped")

    def reset(self, name: str) -> None:
        self._turn(name, "running")

    def suspend(self, name: str) -> None:
        self._turn(name, "paused")

    def resume(self, name: str) -> None:
        self._turn(name, "running")

    def remove(self, name: str) -> None:
        self._turn(name, None)

    def state(self, name: str) -> PowerState:
        return self._states.get(name, "stopped")

    def agent_socket(self, name: str) -> Path:
        return Path("/nonexistent") / name
