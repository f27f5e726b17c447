# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A simulated cluster on loopback, with tokens, for one test."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, Connection, connect
from lab.proxmox.guests import NoGuests
from lab.proxmox.server import serve_proxmox
from lab.proxmox.store import Timing
from proxmox_processes import Modules, module_server
from support.certificate import make_certificate
from support.simulated_proxmox import Loop, event_loop

TOKENS = {"fediversity@pve!lab": 0, "fediversity@pve!blind": 1}


class ObedientGuests(NoGuests):
    """Guests that power off as soon as they are asked to."""

    def shutdown(self, name: str) -> None:
        self.stop(name)


@dataclass
class Simulator:
    """The running API and what is needed to speak to it."""

    port: int
    authority: Path
    secrets: dict[str, str] = field(repr=False)
    access_log: Path

    def connection(self, token: str = "fediversity@pve!lab", **fields: Any) -> Connection:
        user, _mark, token_id = token.partition("!")
        values: dict[str, Any] = {"token_id": token_id, "token_secret": self.secrets[token], **fields}
        return Connection("127.0.0.1", user, port=self.port, ca_path=str(self.authority), **values)

    def client(self, token: str = "fediversity@pve!lab", **fields: Any) -> Client:
        return connect(self.connection(token, **fields))

    def requests(self) -> list[str]:
        """``METHOD path`` of all requests since the last call."""
        lines = self.access_log.read_text(encoding="utf-8").splitlines() if self.access_log.exists() else []
        self.access_log.write_text("", encoding="utf-8")
        return [line.rpartition(" ")[0].replace("/api2/json", "") for line in lines]


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    certificate, key = make_certificate(tmp_path)
    state, access_log = tmp_path / "state", tmp_path / "access.log"
    state.mkdir()
    secrets = {token: str(uuid.uuid4()) for token in TOKENS}
    tokens = {token: {"secret": secrets[token], "privsep": TOKENS[token]} for token in TOKENS}
    accounts = {"users": {"fediversity@pve": {"password": "pa55word"}}, "tokens": tokens}
    (state / "accounts.json").write_text(json.dumps(accounts), encoding="utf-8")
    loop = asyncio.new_event_loop()
    runner = loop.run_until_complete(
        serve_proxmox(
            hosts=ObedientGuests(),
            state=state,
            host="127.0.0.1",
            port=0,
            certificate=certificate,
            key=key,
            access_log=access_log,
            timing=Timing(refused_login=0, image_copy=0.05, ha=0.05),
        )
    )
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Simulator(runner.addresses[0][1], certificate, secrets, access_log)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    """Where the clusters of proxmox_processes run."""
    with event_loop() as servers:
        yield servers


@pytest.fixture(scope="session")
def modules() -> Iterator[Modules]:
    with module_server() as server:
        yield server
