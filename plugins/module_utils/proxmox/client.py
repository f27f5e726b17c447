# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox VE API client: data or a typed error, with the fixed list of retries.

All paths are below ``/api2/json``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Exists, Locked
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.answers import (
    Answer,
    Invalid,
    LostAnswer,
    Outdated,
    Transient,
    error_of_answer,
    error_of_text,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.endpoints import Connection, FailOver

__all__ = (
    "RETRY_DELAYS",
    "Answer",
    "Client",
    "Connection",
    "Invalid",
    "LostAnswer",
    "Outdated",
    "Transient",
    "Transport",
    "Value",
    "client_over",
    "connect",
    "encode",
    "error_of_answer",
    "error_of_text",
    "open_transport",
)

# seconds before each further try of a request that the server refused for a moment
RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0)
# seconds between two tries of a request whose VM is locked by a task
LOCK_DELAYS = (0.5, 1.0, 2.0, 5.0)

Value: TypeAlias = "str | int | bool | None"

Transport = Callable[[str, str, Mapping[str, str]], Answer]
"""(method, path, parameters) to answer; raises Unreachable (surely not sent) or LostAnswer (no answer)."""


def encode(params: Mapping[str, Value]) -> dict[str, str]:
    """Parameters as the API takes them: booleans as 0 and 1, no None."""
    return {
        name: str(int(value)) if isinstance(value, bool) else str(value)
        for name, value in params.items()
        if value is not None
    }


@dataclass(frozen=True)
class Client:
    """Requests that answer with data or raise a typed error. For one thread: ``connect`` again for another one.

    :param host: named in errors.
    :param identity: user or token, named in errors.
    :param lock_timeout: seconds for which a request is tried again while a task of the server locks its VM.
    """

    transport: Transport
    host: str
    identity: str
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    lock_timeout: float = 0

    def get(self, path: str, /, **params: Value) -> Any:
        return self.request("GET", path, params)

    def post(self, path: str, /, **params: Value) -> Any:
        return self.request("POST", path, params)

    def put(self, path: str, /, **params: Value) -> Any:
        return self.request("PUT", path, params)

    def delete(self, path: str, /, **params: Value) -> Any:
        return self.request("DELETE", path, params)

    def request(self, method: str, path: str, params: Mapping[str, Value]) -> Any:
        """The ``data`` of the answer.

        Sent again after RETRY_DELAYS when the server did nothing (Transient) or for a GET without answer, and within
        ``lock_timeout`` when a task locks the VM. Nothing else is sent twice.

        :raises HostingError: the class tells what the caller can do about it.
        :raises LostAnswer: also when a further try of a write finds its object: an earlier one may have made it.
        """
        delays, lock_delays = list(RETRY_DELAYS), list(LOCK_DELAYS)
        end = self.clock() + self.lock_timeout
        while True:
            try:
                return self._once(method, path, params)
            except Outdated:
                raise
            except Exists as error:
                if len(delays) == len(RETRY_DELAYS) or method == "GET":
                    raise
                raise LostAnswer(error.what, where=error.where, hint="Run again") from error
            except Locked:
                delay = lock_delays.pop(0) if len(lock_delays) > 1 else lock_delays[0]
                if self.clock() + delay > end:
                    raise
            except Transient as error:
                if not delays or (isinstance(error, LostAnswer) and method != "GET"):
                    raise
                delay = delays.pop(0)
            self.sleep(delay)

    def _once(self, method: str, path: str, params: Mapping[str, Value]) -> Any:
        answer = self.transport(method, path, encode(params))
        if answer.status >= 400:
            raise error_of_answer(answer, f"{self.host} {method} {path}", self.identity)
        return answer.data


def connect(connection: Connection) -> Client:
    """A client of its own for each call, so that every thread can have one.

    Nothing is sent yet with a token; with a password there is one login.

    :raises InvalidInput: an option cannot work.
    :raises Denied: the login is refused.
    :raises Unreachable: no server there, or its certificate is not trusted.
    """
    return client_over(open_transport(connection), connection)


def open_transport(connection: Connection) -> FailOver:
    """The checked and logged-in way to the cluster; raises as ``connect``."""
    connection.check()
    transport = FailOver(connection)
    transport.log_in()
    return transport


def client_over(transport: FailOver, connection: Connection) -> Client:
    host = ",".join(map(str, transport.endpoints))
    return Client(transport.send, host, connection.identity, lock_timeout=connection.lock_timeout)
