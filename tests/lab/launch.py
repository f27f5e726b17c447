# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host: the process that is its hardware. Run by hosts.py in the world: `python -m lab.launch <JSON of Machine>`.

It mounts the disk (an overlay over the image), boots systemd in namespaces of its own, plugs the network in, and
boots again when the host reboots. Each boot prints one line with the process id of the host's init to standard output.
It exits with 0 when the host is powered off: halted from inside, or by SIGTERM (the power cut).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from lab import cgroups, full, kernel

BRIDGE = "br0"

# Ids inside a host are mapped to this range of the machine; the same for all hosts: the image has these owners.
FIRST_ID = 1_073_741_824
IDS = 65_536

# inotify instances are counted per *creator* of a user namespace, and limited to 128; a systemd host needs 7.
# Each host's namespace is therefore created by a user id of its own.
FIRST_CREATOR = FIRST_ID + IDS

_NAMESPACES = (
    kernel.NEWUSER | kernel.NEWNS | kernel.NEWPID | kernel.NEWNET | kernel.NEWUTS | kernel.NEWIPC
)  # fmt: skip


def only_root_makes_user_namespaces() -> bool:
    """Whether AppArmor takes the rights from user namespaces of other users (Ubuntu 24.04 and later)."""
    switch = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    return switch.exists() and switch.read_text(encoding="ascii").strip() == "1"


@dataclass(frozen=True)
class Machine:
    """Hardware of one host. All paths absolute, as seen in the world."""

    hostname: str
    mac: str  # empty: no network card
    link: str  # the bridge's end of the cable
    layers: tuple[str, ...]  # read-only disk layers, topmost first
    disk: str  # directory with upper/ and work/
    root: str  # mount point for the disk
    share: str  # appears as /run/lab in the host
    cgroup: str
    creator: int  # user id that creates the user namespace
    cut_marker: str  # while this file exists the cable is unplugged


def encode(machine: Machine) -> str:
    return json.dumps(asdict(machine))


def _mount_disk(machine: Machine) -> None:
    kernel.unshare(kernel.NEWNS)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.overlay(machine.root, machine.layers, machine.disk, kernel.MS_NODEV)
    kernel.mount(None, machine.root, None, kernel.MS_SHARED)  # what is mounted on it (full.py) reaches the host


def _plug_in(machine: Machine, pid: int) -> None:
    """Connect the host's eth0 to the bridge; the cable of the last boot may still be there, the kernel is late."""
    if not machine.mac:
        return
    subprocess.run(["ip", "link", "del", machine.link], stderr=subprocess.DEVNULL, check=False)
    carrier = "down" if Path(machine.cut_marker).exists() else "up"
    commands = [
        f"link add {machine.link} type veth peer name eth0 address {machine.mac} netns {pid}",
        f"link set {machine.link} master {BRIDGE} {carrier}",
    ]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def _map_ids(pid: int) -> None:
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text(f"0 {FIRST_ID} {IDS}", encoding="ascii")


def _mount_device_files(dev: str) -> None:
    kernel.mount("tmpfs", dev, "tmpfs", kernel.MS_NOSUID, "mode=755,size=1m")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        Path(dev, name).touch()
        kernel.mount(f"/dev/{name}", f"{dev}/{name}", None, kernel.MS_BIND)
    for name, mode in (("pts", 0o755), ("shm", 0o1777)):
        Path(dev, name).mkdir()
        Path(dev, name).chmod(mode)
    kernel.mount(
        "devpts",
        f"{dev}/pts",
        "devpts",
        kernel.MS_NOSUID | kernel.MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=620,gid=5",
    )
    Path(dev, "ptmx").symlink_to("pts/ptmx")
    for name, target in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        Path(dev, name).symlink_to(f"/proc/self/fd{target}")


def _become_init(machine: Machine) -> None:
    """In the new namespaces, ids mapped, network plugged in, control group joined: build the mounts and run systemd."""
    os.setresgid(0, 0, 0)
    os.setgroups([])
    os.setresuid(0, 0, 0)
    os.umask(0o022)
    kernel.unshare(kernel.NEWCGROUP)
    kernel.die_with_parent()
    os.setsid()
    root, safe = machine.root, kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.bind(root, root)  # a mount that came from the parent namespace is locked: no pivot_root onto it
    kernel.mount("proc", f"{root}/proc", "proc", safe)
    kernel.mount("sysfs", f"{root}/sys", "sysfs", safe | kernel.MS_RDONLY)
    kernel.mount("cgroup2", f"{root}/sys/fs/cgroup", "cgroup2", safe)
    _mount_device_files(f"{root}/dev")
    kernel.mount("tmpfs", f"{root}/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
    Path(root, "run/lab").mkdir()
    kernel.bind(machine.share, f"{root}/run/lab")
    socket.sethostname(machine.hostname)
    kernel.pivot_root(root)
    # systemd behaves as in a container when this variable is set (systemd: CONTAINER_INTERFACE).
    environment = {"container": "lab", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "linux"}
    os.execve("/sbin/init", ["/sbin/init"], environment)


class Power:
    """The power switch: SIGTERM to this process cuts the power, also between two boots."""

    def __init__(self) -> None:
        self.init = 0
        self.off = False
        signal.signal(signal.SIGTERM, self._cut)

    def _cut(self, _number: int, _frame: FrameType | None) -> None:
        self.off = True
        self.cut()

    def cut(self) -> None:
        if self.off and self.init:
            os.kill(self.init, signal.SIGKILL)


def _boot(machine: Machine, power: Power) -> int:
    """Run the host until its init ends; init's wait status."""
    ready, go = os.pipe()
    os.seteuid(machine.creator)
    pid = kernel.clone(_NAMESPACES)
    if pid == 0:
        try:
            os.close(go)
            if os.read(ready, 1):
                os.close(ready)
                _become_init(machine)
        except OSError as error:
            print(f"boot failed: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os.seteuid(0)
    power.init = pid
    os.close(ready)
    try:
        _map_ids(pid)
        _plug_in(machine, pid)
        cgroups.create_host(Path(machine.cgroup), pid, FIRST_ID)
        print(pid, flush=True)
        os.write(go, b"1")
    finally:
        os.close(go)  # without the byte the child gives up
        power.cut()
        _unused, status = os.waitpid(pid, 0)
        power.init = 0
    return status


def main() -> int:
    fields = json.loads(sys.argv[1])
    machine = Machine(**{**fields, "layers": tuple(fields["layers"])})
    power = Power()
    _mount_disk(machine)
    while not power.off:
        status = _boot(machine, power)
        cgroups.remove(Path(machine.cgroup))
        full.write_back(Path(machine.root))
        # reboot(2) in a pid namespace kills its init: SIGHUP for restart, SIGINT for halt and power off.
        if os.WIFEXITED(status):
            return 1
        if os.WTERMSIG(status) != signal.SIGHUP:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
