# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A transport that plays a script: the expected requests in order, each with the answer of the real server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Answer, Client

IDENTITY = "fediversity@pve!lab"


def upid(kind: str, vmid: int = 100, node: str = "pve1") -> str:
    return f"UPID:{node}:00000F5D:000958E5:6B00CD13:{kind}:{vmid}:{IDENTITY}:"


@dataclass(frozen=True)
class Exchange:
    method: str
    path: str
    answer: Any = None
    params: Mapping[str, str] | None = None
    """None: any parameters."""


@dataclass
class Script:
    """Plays *exchanges*; an answer is data, an Answer, or an exception to raise."""

    exchanges: list[Exchange]
    sent: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def __call__(self, method: str, path: str, params: Mapping[str, str]) -> Answer:
        assert self.exchanges, f"surplus request {method} {path} {dict(params)}"
        expected = self.exchanges.pop(0)
        assert (method, path) == (expected.method, expected.path), f"{method} {path} instead of {expected}"
        if expected.params is not None:
            assert dict(params) == dict(expected.params)
        self.sent.append((method, path, dict(params)))
        if isinstance(expected.answer, Exception):
            raise expected.answer
        return expected.answer if isinstance(expected.answer, Answer) else Answer(200, "OK", expected.answer)

    def client(self) -> Client:
        return Client(self, "pve1:8006", IDENTITY, sleep=self.slept.append, clock=lambda: sum(self.slept))

    def finished(self) -> None:
        assert not self.exchanges, f"missing requests: {self.exchanges}"


def done(kind: str, vmid: int = 100, exit_status: str = "OK") -> Exchange:
    """The task has ended when it is looked at."""
    return Exchange("GET", task_path(kind, vmid) + "/status", {"status": "stopped", "exitstatus": exit_status}, {})


def task_path(kind: str, vmid: int = 100) -> str:
    return f"/nodes/pve1/tasks/{upid(kind, vmid).replace(':', '%3A').replace('@', '%40').replace('!', '%21')}"


def failed(text: str, status: int = 500, errors: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, text, errors=errors or {})
