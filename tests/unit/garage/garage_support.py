# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scripted answers, and the simulator without HTTP."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Answer, Client
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import Desired, DesiredKey
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.provider import GarageProvider
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.removal import OpenS3
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.token_provider import TokenProvider
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.tokens import DesiredToken, id_of
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


def nothing(endpoint: str) -> None:
    """Happens before a request."""


@dataclass
class Cluster:
    """A simulator that counts requests and can go wrong.

    ``cut_after``: the connection is lost for good after so many answers. By endpoint, how often: ``unavailable``, it is
    answered 503 and nothing is done; ``lost``, it is done and the answer is lost. ``before`` is called first.
    """

    store: Store = field(default_factory=Store)
    token: str = CONFIGURED
    calls: list[str] = field(default_factory=list)
    cut_after: int | None = None
    unavailable: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    before: Callable[[str], None] = nothing

    def send(self, method: str, path: str, body: bytes | None) -> Answer:
        path, _mark, query = path.partition("?")
        endpoint = path.removeprefix("/v2/")
        if self.cut_after is not None and len(self.calls) > self.cut_after:
            raise Unreachable("no answer", where="Garage")
        self.before(endpoint)
        self.calls.append(endpoint)
        if self.unavailable[endpoint] > 0:
            self.unavailable[endpoint] -= 1
            return Answer(503, b'{"code": "ServiceUnavailable", "message": "no quorum"}')
        reply = api.answer(
            self.store, CONFIGURED, api.Request(method, path, query, f"Bearer {self.token}", body or b"")
        )
        if self.cut_after is not None and len(self.calls) > self.cut_after:
            raise Unreachable("connection reset", where="Garage")
        if self.lost[endpoint] > 0:
            self.lost[endpoint] -= 1
            raise Unreachable("connection reset", where="Garage")
        return Answer(reply.status, reply.body.encode())

    def client(self) -> Client:
        return Client(self.send, sleep=lambda seconds: None)

    def run(self, *desired: Desired, check: bool = False, open_s3: OpenS3 | None = None) -> dict[str, Any]:
        self.calls.clear()
        return reconcile(GarageProvider(self.client(), open_s3), desired, check=check)

    def run_tokens(self, *desired: DesiredToken, check: bool = False) -> dict[str, Any]:
        self.calls.clear()
        return reconcile(TokenProvider(self.client(), id_of(self.token)), desired, check=check)

    def info(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client().get("GetBucketInfo", globalAlias=name)
        return found

    def rights(self, name: str) -> dict[str, set[str]]:
        """Flags by key name, without keys that have none."""
        flags = {
            key["name"]: {flag for flag, on in key["permissions"].items() if on} for key in self.info(name)["keys"]
        }
        return {key: on for key, on in flags.items() if on}


def result(run: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [item for item in run["results"] if item["name"] == name]
    return dict(found)


def actions(run: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["action"] for item in run["results"]}


def key(name: str = "one", number: int = 1, **changes: Any) -> DesiredKey:
    return DesiredKey(f"fediversity/{name}", f"GK{number:024x}", f"{number + 0x5EC:064x}", **changes)


def foreign_key(cluster: Cluster, bucket_name: str, name: str = "somebody") -> str:
    """A key of somebody else that may read and write the bucket."""
    key_id = str(cluster.client().post("CreateKey", {"name": name})["accessKeyId"])
    allowed = {"bucketId": cluster.info(bucket_name)["id"], "accessKeyId": key_id}
    cluster.client().post("AllowBucketKey", {**allowed, "permissions": {"read": True, "write": True}})
    return key_id
