# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulator on loopback and a small client for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from lab.proxmox.faults import Faults
from lab.proxmox.server import serve_proxmox
from lab.proxmox.store import Timing, World
from lab.proxmox.world import Image

IMAGE = Image("local:import/nixos.qcow2", size=2 << 30, used=100 << 20)
SECRET = "11111111-2222-3333-4444-555555555555"
PASSWORD = "correct horse"
QUICK = Timing(
    refused_login=0, statistics=0, ha=0.02, upload=0.1, agent=0.2, lock=0.3, image_copy=0.02, power_on=0, shutdown=0.3,
    volume=0.01, migration=0, unplug=0.05,
)  # fmt: skip
ACCOUNTS = {
    "users": {"root@pam": {"password": PASSWORD}},
    "tokens": {
        "root@pam!lab": {"secret": SECRET, "privsep": 0},
        "fediversity@pve!lab": {"secret": SECRET, "privsep": 0},
    },
}


@dataclass(frozen=True)
class Simulator:
    """A running simulator and a client with the token root@pam!lab."""

    port: int
    state: Path
    faults: Faults
    ports: tuple[int, ...] = ()  # of the entry points of all nodes that have one

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def access_log(self) -> list[str]:
        return (self.state / "access.log").read_text(encoding="utf-8").splitlines()

    def send(self, method: str, path: str, /, token: str = "root@pam!lab", **params: Any) -> requests.Response:
        headers = {"Authorization": f"PVEAPIToken={token}={SECRET}"}
        sent = {"data": params} if method in ("POST", "PUT") else {"params": params}
        return requests.request(method, f"{self.url}/api2/json{path}", headers=headers, timeout=30, **sent)

    def as_root(self, method: str, path: str, /, **params: Any) -> requests.Response:
        """As root@pam itself, which a token of it is not."""
        url = f"{self.url}/api2/json"
        login = {"username": "root@pam", "password": PASSWORD}
        ticket = requests.post(f"{url}/access/ticket", data=login, timeout=30).json()["data"]
        headers = {"CSRFPreventionToken": ticket["CSRFPreventionToken"]}
        cookies = {"PVEAuthCookie": requests.utils.quote(ticket["ticket"], safe="")}
        return requests.request(method, url + path, data=params, headers=headers, cookies=cookies, timeout=30)

    def data(self, method: str, path: str, /, **params: Any) -> Any:
        """The data of a call that must succeed."""
        answer = self.send(method, path, **params)
        assert answer.status_code == 200, (answer.status_code, answer.reason, answer.text)
        return answer.json()["data"]

    def wait(self, upid: str) -> str:
        """How a task ended."""
        path = f"/nodes/{upid.split(':')[1]}/tasks/{requests.utils.quote(upid, safe='')}/status"
        for _unused in range(600):
            data = self.data("GET", path)
            if data["status"] == "stopped":
                return str(data["exitstatus"])
            threading.Event().wait(0.02)
        raise AssertionError(f"{upid} does not end")

    def run(self, method: str, path: str, /, **params: Any) -> str:
        """How the task of a call ended."""
        return self.wait(self.data(method, path, **params))


@contextmanager
def simulator_on(
    state: Path,
    timing: Timing,
    hosts: Any,
    images: tuple[Image, ...],
    faults: Faults | None = None,
    *,
    entries: int = 1,
    world: World | None = None,
) -> Iterator[Simulator]:
    """A simulator in a thread of its own."""
    faults = faults or Faults()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        serving = serve_proxmox(
            hosts=hosts, state=state, host="127.0.0.1", port=0, certificate=None, key=None,
            access_log=state / "access.log", timing=timing, images=images, faults=faults,
            more=[("127.0.0.1", 0)] * (entries - 1), world=world,
        )  # fmt: skip
        runner = asyncio.run_coroutine_threadsafe(serving, loop).result(30)
        try:
            ports = tuple(address[1] for address in runner.addresses)
            yield Simulator(ports[0], state, faults, ports)
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


Start = Callable[..., Simulator]
