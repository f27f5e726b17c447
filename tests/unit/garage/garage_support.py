# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scripted answers, and the simulator without HTTP."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Answer, Client
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import Desired
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.provider import GarageProvider
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import reconcile
from lab.garage import api
from lab.garage.store import Store

CONFIGURED = "configured"


@dataclass(frozen=True)
class Exchange:
    """One expected request and its answer."""

    method: str
    path: str
    request: Any = None
    status: int = 200
    answer: Any = None


@dataclass
class Script:
    """Answers the expected requests in their order; a surplus one fails at once, a missing one at the end."""

    left: list[Exchange]

    def send(self, method: str, path: str, body: bytes | None) -> Answer:
        assert self.left, f"surplus request {method} {path}"
        expected = self.left.pop(0)
        assert (method, path) == (expected.method, expected.path)
        assert (None if body is None else json.loads(body)) == expected.request
        answer = expected.answer
        return Answer(expected.status, answer if isinstance(answer, bytes) else json.dumps(answer).encode())


@dataclass
class Cluster:
    """A simulator that counts requests and can lose its connection after having answered some."""

    store: Store = field(default_factory=Store)
    token: str = CONFIGURED
    calls: list[str] = field(default_factory=list)
    cut_after: int | None = None

    def send(self, method: str, path: str, body: bytes | None) -> Answer:
        path, _mark, query = path.partition("?")
        if self.cut_after is not None and len(self.calls) > self.cut_after:
            raise Unreachable("no answer", where="Garage")
        self.calls.append(path.removeprefix("/v2/"))
        reply = api.answer(
            self.store, CONFIGURED, api.Request(method, path, query, f"Bearer {self.token}", body or b"")
        )
        if self.cut_after is not None and len(self.calls) > self.cut_after:
            raise Unreachable("connection reset", where="Garage")
        return Answer(reply.status, reply.body.encode())

    def client(self) -> Client:
        return Client(self.send)

    def run(self, *desired: Desired, check: bool = False) -> dict[str, Any]:
        self.calls.clear()
        return reconcile(GarageProvider(self.client()), desired, check=check)

    def info(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client().get("GetBucketInfo", globalAlias=name)
        return found

    def rights(self, name: str) -> dict[str, set[str]]:
        """Flags by key name, without keys that have none."""
        flags = {
            key["name"]: {flag for flag, on in key["permissions"].items() if on} for key in self.info(name)["keys"]
        }
        return {key: on for key, on in flags.items() if on}
