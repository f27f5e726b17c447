# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The world: the namespaces around everything in a lab. Killing its first process ends all of it.

The world has its own root (a tmpfs with every top-level directory of the machine bound into it), so that it can have
its own /nix, /run, /etc and network while the checkout and the machine's programs stay where they are.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import shutil
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import cgroups, kernel
from lab.errors import LabError, NoLabPossible
from lab.paths import CHECKOUT, WORLD_RUN, State, read_json, write_json
from lab.services import NAMESERVER

NAMESPACES = kernel.NEWNS | kernel.NEWPID | kernel.NEWNET | kernel.NEWUTS | kernel.NEWIPC

_JOINED = ("net", "uts", "ipc", "mnt", "pid")


@dataclass(frozen=True)
class World:
    id: str
    pid: int  # of the world's first process, on the machine
    started: int  # its start time in clock ticks: tells it from a later process with the same id


def _start_time(pid: int) -> int:
    """Field 22 of /proc/<pid>/stat (proc(5)); 0 when there is no such process or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def find(state: State) -> World | None:
    """The running world of a state directory."""
    try:
        world = World(**read_json(state.world))
    except FileNotFoundError:
        return None
    return world if world.started and _start_time(world.pid) == world.started else None


def require(state: State) -> World:
    world = find(state)
    if world is None:
        raise LabError("the lab is not running", str(state.root), "./lab up")
    return world


def create(state: State, services: bool) -> World:
    """Start the world and in it the supervisor. The state directory must be there."""
    lab_id = secrets.token_hex(4)
    ready, go = os.pipe()
    try:
        pid = kernel.clone(NAMESPACES)
    except PermissionError as error:
        os.close(ready)
        os.close(go)
        raise no_permission() from error
    if pid == 0:
        _first_process(state, lab_id, services, ready, go)
    os.close(ready)
    world = World(lab_id, pid, _start_time(pid))
    try:
        write_json(state.world, asdict(world))
        cgroups.remove_dead_labs()
        cgroups.create_world(lab_id, pid)
        os.write(go, b"1")
    finally:
        os.close(go)
    return world


def no_permission() -> NoLabPossible:
    who = "root without CAP_SYS_ADMIN" if os.geteuid() == 0 else f"user id {os.geteuid()}"
    return NoLabPossible(
        "cannot start the lab: no permission to make namespaces",
        f"this machine, as {who}",
        "run it as root (sudo ./lab up), in a container with --privileged; ./lab doctor tells more",
    )


def _first_process(state: State, lab_id: str, services: bool, ready: int, go: int) -> None:
    try:
        os.close(go)
        if not os.read(ready, 1):
            os._exit(1)
        os.close(ready)
        os.setsid()
        os.umask(0o022)
        log = os.open(state.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.closerange(3, 1024)
        socket.sethostname("controller")
        _build_root(state)
        environment = {
            **os.environ,
            "PYTHONPATH": str(CHECKOUT / "tests"),
            "PYTHONUNBUFFERED": "1",
            "LAB_STATE": str(state.root),
        }
        arguments = [sys.executable, "-m", "lab.supervisor", lab_id, *(["--services"] if services else [])]
        os.execve(sys.executable, arguments, environment)
    except Exception as error:  # noqa: BLE001  a forked process: nobody else would tell
        os.write(2, f"the world could not be made: {error!r}\n".encode())
    finally:
        os._exit(1)


def _build_root(state: State) -> None:
    root = str(state.root / "root")
    os.makedirs(root, exist_ok=True)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", root, "tmpfs", 0, "mode=755")
    for entry in sorted(os.listdir("/")):
        source, target = f"/{entry}", f"{root}/{entry}"
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
        elif os.path.isdir(source):
            os.mkdir(target)
            if entry not in ("proc", "sys", "run", "etc", "nix"):
                kernel.bind(source, target)
    safe = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", f"{root}/proc", "proc", safe)
    kernel.mount("sysfs", f"{root}/sys", "sysfs", safe)
    kernel.bind("/sys/fs/cgroup", f"{root}/sys/fs/cgroup")
    kernel.mount("tmpfs", f"{root}/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
    for directory in (f"{root}/run/lock", f"{root}{WORLD_RUN}", f"{root}/nix"):
        os.makedirs(directory, exist_ok=True)
    state.nix.mkdir(exist_ok=True)
    kernel.bind(state.nix, f"{root}/nix")
    if kernel.filesystem(state.root) == "overlay":  # in a container: no overlay's disk can be on an overlay
        kernel.mount("tmpfs", f"{root}{state.hosts}", "tmpfs", 0, "mode=755")
    _build_etc(root)
    kernel.pivot_root(root)


def _build_etc(root: str) -> None:
    """The machine's /etc with our own changes in a layer above it, because its files may be links or mount points."""
    layer = f"{root}/.etc"
    for part in ("upper", "work"):
        os.makedirs(f"{layer}/{part}")
    kernel.overlay(f"{root}/etc", ["/etc"], layer)
    for name, content in {
        "resolv.conf": f"nameserver {NAMESERVER}\noptions timeout:2 attempts:2\n",
        "hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "hostname": "controller\n",
        "nsswitch.conf": _nsswitch(),
    }.items():
        path = Path(root, "etc", name)
        path.unlink(missing_ok=True)
        path.write_text(content, encoding="utf-8")


def _nsswitch() -> str:
    """The machine's, with host names from files and DNS only: no resolver daemon of the machine knows the lab."""
    try:
        lines = Path("/etc/nsswitch.conf").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    return "\n".join(["hosts: files dns", *(line for line in lines if not line.startswith("hosts:"))]) + "\n"


def enter(world: World) -> None:
    """Join the world's namespaces; children of this process will be inside completely."""
    directory = os.getcwd()
    try:
        kernel.enter(world.pid, _JOINED)
    except PermissionError as error:
        raise LabError(
            "no permission to enter the lab", f"process {world.pid}", "use the user that started it (sudo)"
        ) from error
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")


def kill(state: State) -> None:
    """End the world of a state directory, running or dead: processes, mounts, network, control groups."""
    try:
        known = World(**read_json(state.world))
    except FileNotFoundError:
        return
    if _start_time(known.pid) == known.started:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(known.pid)
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                # The kernel reaps the whole pid namespace before its first process counts as ended.
                if not select.select([descriptor], [], [], 30)[0]:
                    raise LabError("the lab does not end", f"process {known.pid}", "see /proc/<pid>/stack of it")
            except PermissionError as error:
                raise LabError("no permission to end the lab", f"process {known.pid}", "sudo ./lab down") from error
            finally:
                os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(known.pid, 0)
    cgroups.remove(cgroups.lab_directory(known.id))


def empty(state: State, patience: float = 10.0) -> None:
    """Empty the state directory of a dead world; its mounts are released a moment after the last process."""
    deadline = time.monotonic() + patience
    while entries := list(state.root.iterdir()):
        try:
            for entry in entries:
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
