# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A private Garage for tests: a real one where a program named ``garage`` is on PATH, else the simulator."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab.garage import real
from lab.garage.api import REGION
from lab.garage.background import running_garage
from lab.garage.store import NEWEST

HOST = "127.0.0.1"


@dataclass
class GarageServer:
    """A server that can be stopped and started again. ``program`` is None for the simulator."""

    plan: real.Plan
    program: str | None
    version: str = NEWEST
    _process: subprocess.Popen[bytes] | None = None
    _simulator: ExitStack = field(default_factory=ExitStack)

    @property
    def admin_url(self) -> str:
        return f"http://{self.plan.admin}"

    @property
    def s3_endpoint(self) -> str:
        return f"http://{self.plan.s3}"

    @property
    def admin_token(self) -> str:
        return self.plan.admin_token

    @property
    def log(self) -> str:
        """What the server has logged of its requests."""
        file = self.plan.log if self.program else self.plan.directory / "garage-access.log"
        return file.read_text(encoding="utf-8", errors="replace")

    def environment(self) -> dict[str, str]:
        """The variables of the modules."""
        return {
            "GARAGE_ADMIN_URL": self.admin_url,
            "GARAGE_ADMIN_TOKEN": self.admin_token,
            "GARAGE_S3_ENDPOINT": self.s3_endpoint,
            "GARAGE_S3_REGION": self.plan.region,
        }

    def start(self) -> None:
        """Start it, with what it knew before, and wait until it serves."""
        if self.program:
            self._process = real.start(self.program, self.plan)
            return
        ports = [int(address.rpartition(":")[2]) for address in (self.plan.admin, self.plan.s3)]
        self._simulator.enter_context(
            running_garage(
                self.plan.directory,
                self.admin_token,
                ports[0],
                s3_port=ports[1],
                region=self.plan.region,
                version=self.version,
            )
        )

    def stop(self) -> None:
        self._simulator.close()
        if self._process is not None:
            real.stop(self._process)
            self._process = None


@contextmanager
def garage_server(*, version: str = NEWEST, region: str = REGION) -> Iterator[GarageServer]:
    """Serve while the block runs, on loopback, with a directory that is removed at the end.

    :param version: of the simulator.
    """
    directory = Path(tempfile.mkdtemp(prefix="fediversity-garage-"))
    admin, s3, web, rpc = (f"{HOST}:{port}" for port in _free_ports(4))
    plan = real.Plan(directory, admin, s3, web, rpc, region, secrets.token_hex(16))
    server = GarageServer(plan, real.program(), version)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _count in range(number)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]
