# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host driver: makes, powers and removes the hosts of a lab. Runs in the supervisor, inside the world."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from lab import cgroups, full, launch, network
from lab.disk import Disk, File, identity_files, new_machine_files
from lab.errors import LabError
from lab.paths import WORLD_RUN, State

PowerState = Literal["running", "stopped", "paused"]

HOST_NAME = r"[a-z0-9][a-z0-9-]{0,62}"
# systemd's signals to its process 1: systemd(1), SIGNALS.
_POWER_OFF = signal.SIGRTMIN + 4


@dataclass(frozen=True)
class HostSpec:
    """Identity of a host: what a VM is given by its virtual hardware and its cloud-init drive."""

    name: str  # unique in the lab
    hostname: str
    mac: str  # empty: no network card
    addresses: tuple[str, ...]  # CIDR, IPv4 and IPv6
    gateway: str | None
    nameservers: tuple[str, ...]
    authorized_keys: tuple[str, ...]  # for root


class Hosts(Protocol):
    """What the simulators need. Synchronous and thread-safe; an unknown name or an impossible verb raises LabError."""

    def define(self, spec: HostSpec) -> None:
        """Make disk and identity. An existing host must be stopped; it keeps its disk and gets the new identity."""

    def start(self, name: str) -> None:
        """Boot; returns when init has been spawned. Nothing happens when the host runs already."""

    def shutdown(self, name: str) -> None:
        """Ask init to power off, do not wait."""

    def stop(self, name: str) -> None:
        """Cut the power and wait until everything in the host is dead."""

    def reset(self, name: str) -> None:
        """Cut the power and boot."""

    def suspend(self, name: str) -> None:
        """Freeze every process."""

    def resume(self, name: str) -> None:
        """Undo suspend."""

    def remove(self, name: str) -> None:
        """Cut the power and delete the disk."""

    def state(self, name: str) -> PowerState: ...

    def agent_socket(self, name: str) -> Path:
        """Where the guest agent (qemu-ga) listens, once it runs."""


@dataclass
class _Host:
    spec: HostSpec
    lock: threading.RLock = field(default_factory=threading.RLock)
    hardware: subprocess.Popen[str] | None = None
    init: int = 0
    booted: threading.Event = field(default_factory=threading.Event)
    unreachable: tuple[str, ...] = ()  # addresses to which the controller's network is cut


class LabHosts:
    """Hosts on overlay disks over `layers` (topmost first), one `lab.launch` process each."""

    def __init__(self, state: State, layers: Sequence[Path], cgroup: Path) -> None:
        self._state = state
        self._layers = tuple(layers)
        self._cgroup = cgroup
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    def define(self, spec: HostSpec, files: Sequence[File] = ()) -> None:
        """As in Hosts; `files` are written to the disk as well."""
        if not re.fullmatch(HOST_NAME, spec.name):
            raise LabError(f"{spec.name!r} cannot be the name of a host", hint="use a DNS label in lower case")
        with self._lock:
            host = self._hosts.setdefault(spec.name, _Host(spec))
        with host.lock:
            if host.hardware is not None:
                raise LabError(f"host {spec.name} is running", hint="stop it before its identity is changed")
            host.spec = spec
            directory = self._directory(spec.name)
            for part in ("upper", "work"):
                (directory / part).mkdir(parents=True, exist_ok=True)
            (directory / "upper").chmod(0o755)
            os.chown(directory / "upper", launch.FIRST_ID, launch.FIRST_ID)
            disk = Disk(directory / "upper", self._layers)
            if not disk.has("/etc/ssh/ssh_host_ed25519_key"):
                disk.write(new_machine_files(spec.hostname, directory))
            disk.write(
                identity_files(spec.hostname, spec.addresses, spec.gateway, spec.nameservers, spec.authorized_keys)
            )
            disk.write(files)

    def start(self, name: str) -> None:
        host = self._find(name)
        with host.lock:
            if host.hardware is not None:
                return
            host.booted.clear()
            console = self._directory(name) / "console.log"
            with open(console, "a", encoding="utf-8") as log:
                host.hardware = subprocess.Popen(
                    [sys.executable, "-S", "-m", "lab.launch", launch.encode(self._machine(host.spec))],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
                )  # fmt: skip
            threading.Thread(target=self._watch, args=(host, host.hardware), name=f"host {name}", daemon=True).start()
            host.booted.wait()
            if not host.init:
                last = console.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
                raise LabError(f"host {name} does not boot: {' '.join(last)}", str(console))

    def _watch(self, host: _Host, hardware: subprocess.Popen[str]) -> None:
        """Follow the hardware process: one line per boot, end of file when the power is off."""
        stdout = hardware.stdout
        if stdout is not None:
            for line in stdout:
                host.init = int(line)
                host.booted.set()
            stdout.close()
        hardware.wait()
        if host.hardware is hardware:  # not switched on again meanwhile
            host.init, host.hardware = 0, None
            host.booted.set()

    def shutdown(self, name: str) -> None:
        host = self._find(name)
        with host.lock:
            if host.init:
                os.kill(host.init, _POWER_OFF)

    def stop(self, name: str) -> None:
        host = self._find(name)
        with host.lock:
            hardware = host.hardware
            if hardware is not None:
                hardware.terminate()
                hardware.wait()
                host.hardware, host.init = None, 0

    def reset(self, name: str) -> None:
        with self._find(name).lock:
            self.stop(name)
            self.start(name)

    def suspend(self, name: str) -> None:
        self._freeze(name, "1")

    def resume(self, name: str) -> None:
        self._freeze(name, "0")

    def _freeze(self, name: str, value: str) -> None:
        host = self._find(name)
        with host.lock:
            if host.hardware is None:
                raise LabError(f"host {name} is not running", hint=f"./lab power {name} start")
            cgroups.freeze(self._cgroup / name, value)

    def remove(self, name: str) -> None:
        self.restore_network(name)
        with self._find(name).lock:
            self.stop(name)
            shutil.rmtree(self._directory(name))
            shutil.rmtree(WORLD_RUN / "share" / name, ignore_errors=True)
            with self._lock:
                del self._hosts[name]

    def state(self, name: str) -> PowerState:
        if self._find(name).hardware is None:
            return "stopped"
        return "paused" if cgroups.frozen(self._cgroup / name) else "running"

    def agent_socket(self, name: str) -> Path:
        return WORLD_RUN / "share" / name / "agent.sock"

    def cut(self, name: str) -> None:
        """Pull the network cable; it stays out over reboots."""
        with self._find(name).lock:
            self._cut_marker(name).touch()
            self._set_carrier(name, "down")

    def uncut(self, name: str) -> None:
        with self._find(name).lock:
            self._cut_marker(name).unlink(missing_ok=True)
            self._set_carrier(name, "up")

    def _set_carrier(self, name: str, carrier: str) -> None:
        if Path("/sys/class/net", _link(name)).exists():
            subprocess.run(["ip", "link", "set", _link(name), carrier], check=True)

    def cut_network(self, name: str) -> None:
        """Lose everything between the controller and the host, also over reboots; the host's own network is fine."""
        host = self._find(name)
        with host.lock:
            if not host.unreachable:
                host.unreachable = tuple(address.partition("/")[0] for address in host.spec.addresses)
                network.cut(host.unreachable)

    def restore_network(self, name: str) -> None:
        host = self._find(name)
        with host.lock:
            network.restore(host.unreachable)
            host.unreachable = ()

    def fill(self, name: str, part: str, leave: int) -> None:
        """Leave so many free bytes on /nix, /var or /boot until `unfill` or the next boot."""
        self._change_room(name, part, str(leave))

    def unfill(self, name: str, part: str) -> None:
        self._change_room(name, part)

    def _change_room(self, name: str, part: str, *leave: str) -> None:
        host = self._find(name)
        if part not in full.PARTS:
            raise LabError(f"no part {part} of a disk", hint="one of " + ", ".join(full.PARTS))
        with host.lock:
            if host.hardware is None:
                raise LabError(f"host {name} is not running", hint=f"./lab power {name} start")
            command = ["-S", "-m", "lab.full", str(host.hardware.pid), str(_root(name)), part, *leave]
            done = subprocess.run([sys.executable, *command], stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                raise LabError(" ".join(done.stderr.splitlines()[-1:]), f"/{part} of host {name}")

    def init(self, name: str) -> int:
        """Process id of the host's init in the world; raises LabError when the host is not running."""
        pid = self._find(name).init
        if not pid:
            raise LabError(f"host {name} is not running", hint=f"./lab power {name} start")
        return pid

    def specs(self) -> list[HostSpec]:
        with self._lock:
            return [host.spec for host in self._hosts.values()]

    def is_cut(self, name: str) -> bool:
        return self._cut_marker(name).exists()

    def network_is_cut(self, name: str) -> bool:
        return bool(self._find(name).unreachable)

    def public_key(self, name: str) -> str:
        """The host's SSH host key, `ssh-ed25519 AAAA…`."""
        path = self._directory(name) / "upper/etc/ssh/ssh_host_ed25519_key.pub"
        return " ".join(path.read_text(encoding="utf-8").split()[:2])

    def _find(self, name: str) -> _Host:
        with self._lock:
            if name not in self._hosts:
                raise LabError(f"no host {name} in this lab", hint="./lab status lists the hosts")
            return self._hosts[name]

    def _directory(self, name: str) -> Path:
        return self._state.hosts / name

    def _cut_marker(self, name: str) -> Path:
        return self._directory(name) / "cut"

    def _machine(self, spec: HostSpec) -> launch.Machine:
        """The hardware of a host, ready to be switched on."""
        share, root = WORLD_RUN / "share" / spec.name, _root(spec.name)
        shutil.rmtree(share, ignore_errors=True)  # the agent's socket of the last boot
        share.mkdir(parents=True)
        os.chown(share, launch.FIRST_ID, launch.FIRST_ID)
        root.mkdir(parents=True, exist_ok=True)
        directory = self._directory(spec.name)
        return launch.Machine(
            hostname=spec.hostname,
            mac=spec.mac,
            link=_link(spec.name),
            layers=tuple(map(str, self._layers)),
            disk=str(directory),
            root=str(root),
            share=str(share),
            cgroup=str(self._cgroup / spec.name),
            creator=_creator(spec.name),
            cut_marker=str(self._cut_marker(spec.name)),
        )


def _root(name: str) -> Path:
    """Where the disk is mounted."""
    return WORLD_RUN / "root" / name


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def _link(name: str) -> str:
    """Name of the bridge's end of the cable: readable where the kernel's 15 bytes allow it."""
    return f"v-{name}" if len(name) <= 13 else f"v-{_number(name):08x}"


def _creator(name: str) -> int:
    """A user id of the host's own (launch.FIRST_CREATOR); root where AppArmor forbids user namespaces to others."""
    return 0 if launch.only_root_makes_user_namespaces() else launch.FIRST_CREATOR + _number(name) % 1_000_000
