# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine can do for a lab, and why not."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import cgroups, image, kernel, launch
from lab.errors import NoLabPossible
from lab.paths import State, cache
from lab.world import NAMESPACES, no_permission

# program: the Debian package that has it
PROGRAMS = {
    "ip": "iproute2", "ssh": "openssh-client", "ssh-keygen": "openssh-client", "nix-build": "nix-bin", "tar": "tar",
    "mmdebstrap": "mmdebstrap", "apt-get": "apt",
}  # fmt: skip
LIBRARIES = ("aiohttp", "cryptography")
_GIGABYTE = 10**9
_INOTIFY_PER_HOST = 7


@dataclass(frozen=True)
class Check:
    """One line of the report. A missing thing with `needed` makes the lab impossible, another one only limits it."""

    name: str
    ok: bool
    detail: str
    to_do: str = ""
    needed: bool = True


def checks(state: State) -> Iterator[Check]:
    """Everything `lab up` depends on, cheapest first."""
    yield _permission()
    yield _control_groups()
    yield _overlay()
    yield _programs()
    yield _libraries()
    yield _image()
    yield _disk_space(state)
    yield _memory()
    yield _state_directory(state)
    yield _host_limit()


def report(state: State) -> int:
    """Print one line per check; 77 when no lab is possible, else 0."""
    results = list(checks(state))
    width = max(len(check.name) for check in results)
    for check in results:
        print(
            f"{'ok' if check.ok else 'missing' if check.needed else 'limited':8} {check.name:{width}}  {check.detail}"
        )
        if not check.ok and check.to_do:
            print(f"{'':8} {'':{width}}  to do: {check.to_do}")
    impossible = [check.name for check in results if check.needed and not check.ok]
    print(f"\nno lab is possible here: {', '.join(impossible)}" if impossible else "\na lab is possible here: ./lab up")
    return 77 if impossible else 0


def require_possible(state: State) -> None:
    """Raise NoLabPossible for the first thing that makes a lab impossible."""
    for check in checks(state):
        if check.needed and not check.ok:
            if check.name == "permission":
                raise no_permission()
            raise NoLabPossible(f"cannot start the lab: {check.name}: {check.detail}", "this machine", check.to_do)


def _permission() -> Check:
    possible = os.geteuid() == 0 and _works(NAMESPACES) and _works(kernel.NEWUSER)
    error = no_permission()
    return Check("permission", possible, "root, can make namespaces" if possible else error.what, error.hint)


def _works(namespaces: int) -> bool:
    try:
        pid = kernel.clone(namespaces)
    except OSError:
        return False
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


def _control_groups() -> Check:
    where = cgroups.mount_point()
    ok = where is not None and os.access(where, os.W_OK)
    to_do = "mount -t cgroup2 none /sys/fs/cgroup (or a directory below it); in Docker: --privileged"
    return Check("cgroup v2", ok, f"{where}, writable" if ok else f"{where or 'not mounted'}, not usable", to_do)


def _overlay() -> Check:
    ok = "\toverlay\n" in Path("/proc/filesystems").read_text(encoding="ascii")
    return Check("overlayfs", ok, "in the kernel" if ok else "not loaded", "modprobe overlay")


def _programs() -> Check:
    found = {program: shutil.which(program) for program in PROGRAMS}
    # /nix of the machine is hidden in the lab by the lab's own.
    gone = [name for name, path in found.items() if path is None or os.path.realpath(path).startswith("/nix/")]
    packages = " ".join(dict.fromkeys(PROGRAMS[name] for name in gone))
    return Check(
        "programs", not gone, "not found: " + ", ".join(gone) if gone else "all found", f"apt-get install {packages}"
    )


def _libraries() -> Check:
    gone = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    detail = "not found: " + ", ".join(gone) if gone else f"all found by {sys.executable}"
    return Check("Python", not gone, detail, "make .venv/.lab (installs tests/lab/requirements.txt into .venv)")


def _image() -> Check:
    where = image.location(cache())
    detail = str(where) if where.is_dir() else f"not built yet, `lab up` does it ({where})"
    return Check("host image", True, detail, needed=False)


def _disk_space(state: State) -> Check:
    places = {_existing(state.root), _existing(cache())}
    free = min(shutil.disk_usage(place).free for place in places) / _GIGABYTE
    return Check(
        "disk space", free >= 2, f"{free:.0f} GB free", "free 2 GB, or set LAB_STATE and LAB_CACHE to another disk"
    )


def _existing(path: Path) -> Path:
    return next(candidate for candidate in (path, *path.parents) if candidate.is_dir())


def _memory() -> Check:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024 / _GIGABYTE
    return Check(
        "memory", available >= 1, f"{available:.1f} GB available", "free 1 GB; a host needs 20 to 60 MB", needed=False
    )


def _state_directory(state: State) -> Check:
    kind = kernel.filesystem(_existing(state.root))
    detail = f"{state.root} ({kind})"
    if kind == "overlay":
        return Check(
            "host disks", False, f"in memory: {detail}", "set LAB_STATE to a volume for larger ones", needed=False
        )
    return Check("host disks", True, detail)


def _host_limit() -> Check:
    instances = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text(encoding="ascii"))
    if not launch.only_root_makes_user_namespaces():
        return Check("many hosts", True, "each host has its own inotify limit")
    hosts = instances // _INOTIFY_PER_HOST
    to_do = "sysctl fs.inotify.max_user_instances=1024"
    return Check(
        "many hosts", hosts >= 50, f"about {hosts} (AppArmor keeps user namespaces for root)", to_do, needed=False
    )
