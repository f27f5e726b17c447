# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API as the tests themselves use it, without the collection's code: to look at the cluster, and to clean up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import requests

# seconds that one task of a real server may take
TASK_TIMEOUT = 600


class ApiError(Exception):
    """The server's answer was an error."""


@dataclass(frozen=True)
class Api:
    """Requests with the token of the environment variables PROXMOX_*."""

    url: str
    authorization: str = field(repr=False)
    verify: str | bool = True

    def __call__(self, method: str, path: str, /, **parameters: Any) -> Any:
        """The answer's data. :raises ApiError: the server refuses."""
        in_query = method in ("GET", "DELETE")
        answer = requests.request(
            method,
            f"{self.url}/api2/json{path}",
            params=parameters if in_query else None,
            data=None if in_query else parameters,
            headers={"Authorization": self.authorization},
            verify=self.verify,
            timeout=60,
        )
        if answer.status_code >= 400:
            raise ApiError(f"{method} {path}: {answer.status_code} {answer.reason} {answer.text}")
        return answer.json()["data"]

    def do(self, method: str, path: str, /, **parameters: Any) -> None:
        """A request that starts a task; waits for its good end."""
        upid = str(self(method, path, **parameters))
        task = f"/nodes/{upid.split(':')[1]}/tasks/{quote(upid, safe='')}/status"
        end = time.monotonic() + TASK_TIMEOUT
        while (status := self("GET", task))["status"] != "stopped":
            if time.monotonic() > end:
                raise ApiError(f"{upid} does not end")
            time.sleep(0.2)
        if status["exitstatus"] != "OK" and not status["exitstatus"].startswith("WARNINGS"):
            raise ApiError(f"{upid}: {status['exitstatus']}")

    def vms(self, pool: str) -> list[Mapping[str, Any]]:
        """Rows of the virtual machines in a pool."""
        rows = self("GET", "/cluster/resources", type="vm")
        return [row for row in rows if row.get("pool") == pool and row["type"] == "qemu"]

    def config(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """The configuration of a virtual machine, named by a result of our module (vmid, node)."""
        config: Mapping[str, Any] = self("GET", f"{path(result)}/config")
        return config

    def settle(self, result: Mapping[str, Any]) -> None:
        """Wait until the cluster's list, which is up to ten seconds late, shows the power state of a machine."""
        end = time.monotonic() + 60
        while True:
            status = self("GET", f"{path(result)}/status/current")["status"]
            rows = self("GET", "/cluster/resources", type="vm")
            if [row.get("status") for row in rows if row["vmid"] == result["vmid"]] == [status]:
                return
            if time.monotonic() > end:
                raise ApiError(f"the list does not show that {result['vmid']} is {status}")
            time.sleep(0.5)

    def volumes(self, node: str, storages: Iterable[str]) -> set[str]:
        """The disks on these storages of a node."""
        return {
            str(row["volid"])
            for storage in storages
            for row in self("GET", f"/nodes/{node}/storage/{storage}/content", content="images")
        }


def path(result: Mapping[str, Any]) -> str:
    return f"/nodes/{result['node']}/qemu/{result['vmid']}"


def properties(text: str) -> dict[str, str]:
    """``volume,key=value`` as {"": volume, key: value}."""
    parts = [part.partition("=") for part in text.split(",")]
    return {(key if equals else ""): (value if equals else key) for key, equals, value in parts}
