# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests without lab hosts: an operating system with cloud-init and guest agent, as far as the API can see it.

A started guest boots for a while; then its agent answers, with the addresses that cloud-init gave it, and it shuts
down when asked. The agent speaks qemu-ga's protocol (QEMU docs/interop/qemu-ga-ref: lines of JSON) on a unix socket in
the abstract namespace, which leaves no file behind.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import socketserver
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_interface
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .guests import GuestSpec, NoGuests, PowerState

OFF = 0.4  # seconds that a guest takes to shut down
FIRST_SLOT = 18  # PCI slot of net0: a card that cloud-init did not name is ens18 and so on
COUNTERS = ("rx-bytes", "rx-packets", "rx-errs", "rx-dropped", "tx-bytes", "tx-packets", "tx-errs", "tx-dropped")
LOOPBACK = ("127.0.0.1/8", "::1/128")
DEBIAN: Mapping[str, str] = MappingProxyType(
    {
        "id": "debian",
        "name": "Debian GNU/Linux",
        "pretty-name": "Debian GNU/Linux 13 (trixie)",
        "version": "13 (trixie)",
        "version-id": "13",
        "machine": "x86_64",
        "kernel-release": "6.12.107+deb13-cloud-amd64",
        "kernel-version": "#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-08-29)",
    }
)


@dataclass
class _Booted:
    """A guest whose power is on; `named` are the network cards that it found when it booted."""

    spec: GuestSpec
    timers: list[threading.Timer]
    named: tuple[str, ...]
    up: bool = False
    server: socketserver.ThreadingUnixStreamServer | None = None


class EmulatedGuests(NoGuests):
    """A driver of such guests; `boot` is how long they take (seconds), `system` what get-osinfo says."""

    def __init__(self, boot: float, file: Path | None = None, system: Mapping[str, str] = DEBIAN) -> None:
        super().__init__(file)
        self._boot, self._system = boot, system
        self._specs: dict[str, GuestSpec] = {}
        self._on: dict[str, _Booted] = {}
        self._lock = threading.RLock()
        self._prefix = f"\0lab-{os.getpid()}-{uuid.uuid4().hex}-"

    def define(self, spec: GuestSpec) -> None:
        """The identity that cloud-init finds at the next boot; one that was on when the process ended boots again."""
        with self._lock:
            super().define(spec)
            self._specs[spec.name] = spec
            if self.state(spec.name) == "running" and spec.name not in self._on:
                self._power_on(spec.name)

    def plug(self, name: str, nics: tuple[str, ...]) -> None:
        """The network cards of the moment."""
        with self._lock:
            if guest := self._on.get(name):
                guest.spec = replace(guest.spec, nics=nics)

    def start(self, name: str) -> None:
        with self._lock:
            super().start(name)
            self._power_on(name)

    def shutdown(self, name: str) -> None:
        """A guest that still boots shuts down when it has booted."""
        with self._lock:
            guest = self._on.get(name)
            if guest is None or self.state(name) != "running":
                return
            self._later(guest, OFF if guest.up else self._boot + OFF, lambda: self._ended(name, guest))

    def _ended(self, name: str, guest: _Booted) -> None:
        with self._lock:
            if self._on.get(name) is guest:
                self.stop(name)

    def stop(self, name: str) -> None:
        with self._lock:
            self._power_off(name)
            super().stop(name)

    def reset(self, name: str) -> None:
        with self._lock:
            self._power_off(name)
            self.start(name)

    def remove(self, name: str) -> None:
        with self._lock:
            self._power_off(name)
            self._specs.pop(name, None)
            super().remove(name)

    def state(self, name: str) -> PowerState:
        with self._lock:
            return super().state(name)

    def agent_socket(self, name: str) -> Path:
        return Path(self._prefix + name)

    def close(self) -> None:
        """Ends what runs; the states stay as they are, for the next process."""
        with self._lock:
            for name in list(self._on):
                self._power_off(name)

    def _power_on(self, name: str) -> None:
        spec = self._specs[name]
        guest = self._on[name] = _Booted(spec, [], spec.nics)
        self._later(guest, self._boot, lambda: self._booted(name, guest))

    def _later(self, guest: _Booted, seconds: float, act: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        guest.timers.append(timer)
        timer.start()

    def _booted(self, name: str, guest: _Booted) -> None:
        with self._lock:
            if self._on.get(name) is not guest:
                return
            agent = Agent(guest, self._system, lambda: self.shutdown(name))
            guest.up, guest.server = True, _serve(str(self.agent_socket(name)), agent, lambda: self.state(name))

    def _power_off(self, name: str) -> None:
        guest = self._on.pop(name, None)
        if guest is None:
            return
        for timer in guest.timers:
            timer.cancel()
        if guest.server:
            server, guest.server = guest.server, None
            server.socket.close()  # nobody can connect from here on
            threading.Thread(target=server.shutdown, daemon=True).start()


def _serve(address: str, agent: Agent, state: Callable[[], str]) -> socketserver.ThreadingUnixStreamServer:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                if state() != "running":
                    return
                try:
                    answer = agent.answer(json.loads(line))
                except ValueError:
                    answer = {"error": {"class": "GenericError", "desc": "JSON parse error"}}
                self.wfile.write(json.dumps(answer).encode() + b"\n")

    server = socketserver.ThreadingUnixStreamServer(address, Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    return server


class Agent:
    """What qemu-ga of a guest answers."""

    def __init__(self, guest: _Booted, system: Mapping[str, str], power_off: Callable[[], None]) -> None:
        self._guest, self._system, self._power_off = guest, system, power_off
        self._pids = itertools.count(500)
        self._ended: dict[int, dict[str, Any]] = {}

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        arguments = request.get("arguments") or {}
        commands: dict[str, Callable[[], object]] = {
            "guest-sync": lambda: arguments["id"],
            "guest-ping": dict,
            "guest-get-host-name": lambda: {"host-name": self._guest.spec.hostname},
            "guest-get-osinfo": lambda: dict(self._system),
            "guest-network-get-interfaces": self._interfaces,
            "guest-exec": lambda: self._run(arguments["path"], arguments.get("arg", [])),
            "guest-exec-status": lambda: self._status(arguments["pid"]),
            "guest-shutdown": self._power_off,
        }
        name = str(request.get("execute"))
        if name not in commands:
            text = f"The command {name} has not been found"
            return {"error": {"class": "CommandNotFound", "desc": text}}
        try:
            return {"return": commands[name]()}
        except _Refused as refused:
            return {"error": {"class": "GenericError", "desc": str(refused)}}

    def _interfaces(self) -> list[dict[str, Any]]:
        spec = self._guest.spec
        rows = [{"name": "lo", "hardware-address": "00:00:00:00:00:00", **_addresses(LOOPBACK)}]
        for number, mac in enumerate(spec.nics):
            if mac in self._guest.named:
                own = spec.addresses if mac == spec.mac else ()
                name, found = f"eth{number}", _addresses((*own, f"{link_local(mac)}/64"))
            else:
                name, found = f"ens{FIRST_SLOT + number}", {}
            rows.append({"name": name, "hardware-address": mac, **found})
        return rows

    def _run(self, path: str, arguments: list[str]) -> dict[str, int]:
        outputs: dict[str, Callable[[], str]] = {
            "hostname": lambda: f"{self._guest.spec.hostname}\n",
            "uname": lambda: "Linux\n",
            "echo": lambda: " ".join(arguments) + "\n",
            "true": str,
            "false": str,
        }
        program = path.rsplit("/", 1)[-1]
        if program not in outputs:
            raise _Refused(
                f"Guest agent command failed, error was 'Failed to execute child process \u201c{path}\u201d "
                "(No such file or directory)'"
            )
        pid, text = next(self._pids), outputs[program]()
        ended: dict[str, Any] = {"exited": True, "exitcode": int(program == "false")}
        if text:
            ended |= {"out-data": base64.b64encode(text.encode()).decode(), "out-truncated": False}
        self._ended[pid] = ended
        return {"pid": pid}

    def _status(self, pid: int) -> dict[str, Any]:
        if pid not in self._ended:
            raise _Refused("Invalid parameter 'pid'")
        return self._ended.pop(pid)


class _Refused(Exception):
    """The agent's own error text."""


def _addresses(cidrs: tuple[str, ...]) -> dict[str, Any]:
    rows = []
    for cidr in cidrs:
        address = ip_interface(cidr)
        family = f"ipv{address.version}"
        prefix = address.network.prefixlen
        rows.append({"ip-address": str(address.ip), "ip-address-type": family, "prefix": prefix})
    return {"ip-addresses": rows, "statistics": dict.fromkeys(COUNTERS, 0)}


def link_local(mac: str) -> IPv6Address:
    """The address that a MAC gives (RFC 4291, appendix A)."""
    parts = bytes.fromhex(mac.replace(":", ""))
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes([parts[0] ^ 2]) + parts[1:3] + b"\xff\xfe" + parts[3:])
