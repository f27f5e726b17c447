# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A simulated Proxmox VE cluster on loopback, in this process: for tests of single parts and for measurements."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.proxmox.faults import Faults, Rule
from lab.proxmox.guests import NoGuests
from lab.proxmox.server import serve_proxmox
from lab.proxmox.store import Timing

from support.certificate import make_certificate

USER, TOKEN, BLIND = "fediversity@pve", "lab", "blind"
NODES = ("pve1", "pve2")
IMAGE = "local:import/nixos.qcow2"
# everything takes milliseconds; the statistics stay ten seconds late
QUICK = Timing(refused_login=0, image_copy=0.02, power_on=0.02)


class Guests(NoGuests):
    """Guests that power off as soon as they are asked to."""

    def shutdown(self, name: str) -> None:
        self.stop(name)


@dataclass
class Killer:
    """Kills a process at one of its requests; a hook for the simulator's faults.

    :param victim: process id; 0 kills nobody.
    :param deadly: number of the request, from 1.
    :param moment: ``before`` the server has its body, or ``after`` it did what was asked and before it answers.
    """

    victim: int = 0
    deadly: int = 0
    moment: str = "after"
    seen: list[str] = field(default_factory=list)

    def aim(self, victim: int, deadly: int, moment: str) -> None:
        self.seen.clear()
        self.victim, self.deadly, self.moment = victim, deadly, moment

    def __call__(self, _number: int, moment: str, exchange: str) -> None:
        if moment == "before":
            self.seen.append(exchange)
        if self.victim and (len(self.seen), moment) == (self.deadly, self.moment):
            os.kill(self.victim, signal.SIGKILL)
            self.victim = 0


@dataclass
class Cluster:
    """The running API and what is needed to speak to it."""

    port: int
    authority: Path
    secrets: Mapping[str, str] = field(repr=False)
    killer: Killer
    faults: Faults
    access_log: Path

    def arguments(self, token: str = TOKEN) -> dict[str, Any]:
        """The connection options of our modules."""
        return {
            "api_host": "127.0.0.1",
            "api_port": self.port,
            "api_user": USER,
            "api_token_id": token,
            "api_token_secret": self.secrets[token],
            "ca_path": str(self.authority),
            "validate_certs": True,
        }

    def environment(self) -> dict[str, str]:
        """The same as environment variables."""
        return {
            "PROXMOX_HOST": "127.0.0.1",
            "PROXMOX_PORT": str(self.port),
            "PROXMOX_USER": USER,
            "PROXMOX_TOKEN_ID": TOKEN,
            "PROXMOX_TOKEN_SECRET": self.secrets[TOKEN],
            "PROXMOX_CA_PATH": str(self.authority),
            "PROXMOX_VALIDATE_CERTS": "true",
        }

    def requests(self) -> list[str]:
        """``METHOD path`` of all requests since the last call, as the access log has them."""
        lines = self.access_log.read_text(encoding="utf-8").splitlines() if self.access_log.exists() else []
        self.access_log.write_text("", encoding="utf-8")
        return [line.rpartition(" ")[0].replace("/api2/json", "") for line in lines]


class Loop:
    """An event loop in a thread, for servers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def __call__(self, coroutine: Any) -> Any:
        """What the coroutine returns; at most a minute."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextlib.contextmanager
def event_loop() -> Iterator[Loop]:
    loop = Loop()
    try:
        yield loop
    finally:
        loop.close()


@contextlib.contextmanager
def served(loop: Loop, *rules: Rule, seed: int = 0, **options: Any) -> Iterator[Cluster]:
    """A fresh cluster with these faults; *options* are those of serve_proxmox."""
    with tempfile.TemporaryDirectory(prefix="proxmox-") as directory:
        state, access_log = Path(directory, "state"), Path(directory, "access.log")
        state.mkdir()
        certificate, key = make_certificate(Path(directory))
        secrets = {TOKEN: str(uuid.uuid4()), BLIND: str(uuid.uuid4())}
        tokens = {
            f"{USER}!{name}": {"secret": secret, "privsep": int(name == BLIND)} for name, secret in secrets.items()
        }
        accounts = {"users": {USER: {"password": "pa55word"}}, "tokens": tokens}
        (state / "accounts.json").write_text(json.dumps(accounts), encoding="utf-8")
        killer = Killer()
        faults = Faults(rules, seed=seed, hook=killer)
        values: dict[str, Any] = {"hosts": Guests(), "timing": QUICK, **options}
        runner = loop(
            serve_proxmox(
                state=state,
                host="127.0.0.1",
                port=0,
                certificate=certificate,
                key=key,
                access_log=access_log,
                faults=faults,
                **values,
            )
        )
        try:
            yield Cluster(runner.addresses[0][1], certificate, secrets, killer, faults, access_log)
        finally:
            loop(runner.cleanup())
