# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A DNS server as a process of the tests: started, waited for, stopped."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query

START_SECONDS = 30
STOP_SECONDS = 30


@dataclass
class Process:
    """A server that can be stopped and started again; it also stops when the thread that started it ends.

    ``directory`` is the server's own and holds its log (server.log).
    """

    directory: Path
    port: int
    command: Sequence[str]
    zones: Sequence[str]
    running: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self.directory / "server.log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start the server and wait until it serves its zones."""
        with (self.directory / "server.log").open("ab") as output:
            self.running = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *self.command],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_SECONDS
        while not all(serves(self.port, zone) for zone in self.zones):
            if self.running.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the DNS server did not start:\n{self.log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server as its administrator would."""
        if self.running is None:
            return
        self.running.terminate()
        try:
            self.running.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait(STOP_SECONDS)
        self.running = None

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """The server neither answers nor goes away."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """The server goes on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.running is None:
            raise RuntimeError("the DNS server does not run")
        self.running.send_signal(number)


def program(name: str, package: str) -> str:
    """The path of a program, which Debian keeps where only root looks."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise RuntimeError(f"{name} was not found: install the Debian package '{package}'")
    return path


def free_port() -> int:
    """A port that is free for TCP and UDP."""
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        port: int = tcp.getsockname()[1]
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", port))
    return port


def serves(port: int, zone: str) -> bool:
    """Whether the server has authority for *zone*."""
    try:
        response = dns.query.tcp(dns.message.make_query(zone, "SOA", flags=0), "127.0.0.1", timeout=2, port=port)
    except (dns.exception.DNSException, OSError, EOFError):
        return False
    return bool(response.answer) and bool(response.flags & dns.flags.AA)
