# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first process of the world (a reaper) and its child, the supervisor: bridge, hosts, simulators, control."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lab import cgroups, control, identity, image, network, simulators
from lab.errors import LabError
from lab.garage import real
from lab.hosts import HOST_NAME, HostSpec, LabHosts
from lab.paths import State, cache
from lab.paths import state as lab_state
from lab.services import (
    CONTROLLER,
    FURTHER,
    GARAGE_ADMIN_PORT,
    GARAGE_S3_PORT,
    PROXMOX_PORT,
    Service,
    existing_machine,
    services,
)

_PATIENCE = 60  # seconds until every service has to answer; a loaded machine with two cores needs about ten
_AT_ONCE = 6  # hosts that boot at the same time


class Supervisor:
    """The state of a running lab and the verbs of its control socket (methods named verb_…)."""

    def __init__(self, state: State, lab_id: str, with_services: bool) -> None:
        self.state, self.id = state, lab_id
        base = image.location(cache())
        layer = state.root / "layer"
        image.write_lab_layer(layer, base)
        self.hosts = LabHosts(state, (layer, base), cgroups.lab_directory(lab_id))
        self.secrets = identity.load(state)
        self.key = identity.public_key(state)
        self.services: list[Service] = services(self.secrets, self.key, base) if with_services else []
        self.further: dict[str, Service] = {}
        self.lock = threading.Lock()  # of `further` and the file of known hosts
        self.ready: Future[None] = Future()

    def start_services(self) -> None:
        self._start(self.services)

    def _start(self, services: Sequence[Service]) -> None:
        """Define, boot and await hosts; their keys are known to the controller."""
        for service in services:
            self.hosts.define(service.spec, service.files)
        with self.lock, open(self.state.known_hosts, "a", encoding="utf-8") as known:
            for service in services:
                name = service.spec.name
                known.write(f"{_address(service.spec)},{name}.lab.test {self.hosts.public_key(name)}\n")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._start_service, services))

    def _start_service(self, service: Service) -> None:
        name = service.spec.name
        self.hosts.start(name)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return service.answers()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise LabError(
                        f"{name} ({service.purpose}) does not answer after {_PATIENCE} seconds: {error}",
                        f"host {name}",
                        f"./lab run {name} -- systemctl --failed",
                    ) from error
                time.sleep(0.05)

    def verb_wait(self) -> None:
        """Return when everything answers."""
        self.ready.result()

    def verb_status(self) -> dict[str, Any]:
        purposes = {service.spec.name: service.purpose for service in [*self.services, *self.further.values()]}
        hosts = []
        for spec in self.hosts.specs():
            with contextlib.suppress(LabError):  # removed meanwhile
                hosts.append(
                    {
                        "name": spec.name,
                        "hostname": spec.hostname,
                        "state": self.hosts.state(spec.name),
                        "addresses": list(spec.addresses),
                        "cut": self.hosts.is_cut(spec.name),
                        "network_cut": self.hosts.network_is_cut(spec.name),
                        "purpose": purposes.get(spec.name, "virtual machine"),
                    }
                )
        garage = real.program() or "simulator"
        simulators = [
            {
                "name": "Proxmox VE API",
                "url": f"https://{CONTROLLER}:{PROXMOX_PORT}",
                "state": _port_state(PROXMOX_PORT),
                "what": "simulator",
            },
            {
                "name": "Garage admin API",
                "url": f"http://{CONTROLLER}:{GARAGE_ADMIN_PORT}",
                "state": _port_state(GARAGE_ADMIN_PORT),
                "what": garage,
            },
            {
                "name": "Garage S3 API",
                "url": f"http://{CONTROLLER}:{GARAGE_S3_PORT}",
                "state": _port_state(GARAGE_S3_PORT),
                "what": garage,
            },
        ]
        return {"id": self.id, "ready": self.ready.done(), "hosts": hosts, "simulators": simulators}

    def verb_define(self, spec: dict[str, Any]) -> None:
        lists: dict[str, Any] = {key: tuple(spec[key]) for key in ("addresses", "nameservers", "authorized_keys")}
        self.hosts.define(HostSpec(**{**spec, **lists}))

    def verb_power(self, name: str, action: str) -> None:
        actions = {
            "start": self.hosts.start, "shutdown": self.hosts.shutdown, "stop": self.hosts.stop,
            "reset": self.hosts.reset, "suspend": self.hosts.suspend, "resume": self.hosts.resume,
        }  # fmt: skip
        if action not in actions:
            raise LabError(f"no power verb {action}", hint="one of " + ", ".join(actions))
        actions[action](name)

    def verb_remove(self, name: str) -> None:
        self.hosts.remove(name)

    def verb_add_hosts(self, names: list[str]) -> None:
        """Make further hosts and wait until they answer; all or, if a name is wrong, none."""
        with self.lock:
            taken = {spec.name for spec in self.hosts.specs()} | self.further.keys()
            for name in names:
                if name in taken or names.count(name) > 1 or not re.fullmatch(HOST_NAME, name):
                    raise LabError(f"{name!r} cannot be the name of a new host", hint="a new DNS label in lower case")
            used = {_address(service.spec) for service in self.further.values()}
            free = [address for address in FURTHER if address not in used]
            if len(free) < len(names):
                raise LabError("the lab has no more addresses for hosts", hint="./lab host remove NAME")
            added = [existing_machine(*host, self.key) for host in zip(names, free, strict=False)]
            self.further |= {service.spec.name: service for service in added}
        self._start(added)

    def verb_remove_hosts(self, names: list[str]) -> None:
        """Remove hosts that verb_add_hosts made."""
        for name in names:
            with self.lock:
                if name not in self.further:
                    raise LabError(f"{name} is not a host that was added", hint="./lab status lists the hosts")
            self.hosts.remove(name)
            with self.lock:
                address = _address(self.further.pop(name).spec)
                lines = self.state.known_hosts.read_text(encoding="utf-8").splitlines(keepends=True)
                kept = [line for line in lines if not line.startswith((f"{address},", f"{address} "))]
                self.state.known_hosts.write_text("".join(kept), encoding="utf-8")

    def verb_cut(self, name: str) -> None:
        self.hosts.cut(name)

    def verb_uncut(self, name: str) -> None:
        self.hosts.uncut(name)

    def verb_cut_network(self, name: str) -> None:
        self.hosts.cut_network(name)

    def verb_restore_network(self, name: str) -> None:
        self.hosts.restore_network(name)

    def verb_fill(self, name: str, part: str, leave: int = 0) -> None:
        self.hosts.fill(name, part, leave)

    def verb_unfill(self, name: str, part: str) -> None:
        self.hosts.unfill(name, part)

    def verb_init(self, name: str) -> int:
        return self.hosts.init(name)


def _address(spec: HostSpec) -> str:
    return spec.addresses[0].partition("/")[0]


def _port_state(port: int) -> str:
    try:
        socket.create_connection((CONTROLLER, port), timeout=1).close()
    except OSError:
        return "not running"
    return "running"


def serve_control(supervisor: Supervisor) -> None:
    """Answer control requests, one thread per connection, in the background."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(control.encode(control.answer(supervisor, line)))

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True
        request_queue_size = 64

    listening = supervisor.state.control.with_suffix(".new")
    with control.address(listening) as name:
        server = Server(name, Handler)
    listening.chmod(0o600)
    listening.rename(supervisor.state.control)  # who finds it can connect
    threading.Thread(target=server.serve_forever, name="control", daemon=True).start()


async def supervise(supervisor: Supervisor) -> None:
    try:
        await simulators.serve(supervisor.state, supervisor.hosts, supervisor.secrets)
        await asyncio.to_thread(supervisor.start_services)
        supervisor.ready.set_result(None)
    except Exception as error:  # noqa: BLE001  whatever it is, `lab up` shows it
        traceback.print_exc()
        supervisor.ready.set_exception(error)
    await asyncio.Event().wait()


def main() -> None:
    child = os.fork()
    if child:
        while os.wait()[0] != child:
            pass
        sys.exit("the supervisor ended")
    lab_id, *options = sys.argv[1:]
    network.make_bridge(f"{CONTROLLER}/16")
    supervisor = Supervisor(lab_state(), lab_id, "--services" in options)
    serve_control(supervisor)
    asyncio.run(supervise(supervisor))


if __name__ == "__main__":
    main()
