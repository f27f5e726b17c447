# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups: one cgroup2 directory per lab, one below it per host. Only the core is used, no controller."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from lab.errors import NoLabPossible

_PREFIX = "fediversity-lab-"


def mount_point() -> Path | None:
    """Where cgroup2 is mounted: /sys/fs/cgroup (unified) or a directory below it (hybrid); None when it is not."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _unused, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4]))
    return None


def _root() -> Path:
    root = mount_point()
    if root is None:
        raise NoLabPossible(
            "cannot start the lab: no cgroup v2 hierarchy is mounted",
            "/proc/self/mountinfo",
            "mount it: mount -t cgroup2 none /sys/fs/cgroup (or a directory below it)",
        )
    return root


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Between making a lab's directory and moving its first process there it looks like a dead lab's."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def lab_directory(lab_id: str) -> Path:
    return _root() / f"{_PREFIX}{lab_id}"


def create_world(lab_id: str, pid: int) -> None:
    """Make the lab's directory and put the world's first process into it."""
    with _locked(_root()):
        world = lab_directory(lab_id) / "world"
        world.mkdir(parents=True)
        (world / "cgroup.procs").write_text(str(pid), encoding="ascii")


def create_host(directory: Path, pid: int, owner: int) -> None:
    """Make a host's directory, delegate it to the host's root and put the host's first process into it."""
    directory.mkdir(exist_ok=True)
    for name in (".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
        os.chown(directory / name, owner, owner)
    freeze(directory, "0")
    (directory / "cgroup.procs").write_text(str(pid), encoding="ascii")


def freeze(directory: Path, value: str) -> None:
    """Stop ("1") or continue ("0") every process below a directory."""
    (directory / "cgroup.freeze").write_text(value, encoding="ascii")


def frozen(directory: Path) -> bool:
    return _says(directory / "cgroup.freeze", "1")


def _populated(directory: Path) -> bool:
    return _says(directory / "cgroup.events", "populated 1")


def _says(file: Path, text: str) -> bool:
    try:
        return text in file.read_text(encoding="ascii")
    except OSError:  # ENOENT or ENODEV: removed meanwhile
        return False


def remove(directory: Path, patience: float = 5.0) -> None:
    """Remove a directory tree whose processes are dead; they leave their cgroup a moment after they were reaped."""
    deadline = time.monotonic() + patience
    while directory.is_dir():
        for path, _unused, _unused in os.walk(directory, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        if time.monotonic() > deadline:
            raise OSError(f"control group {directory} still has processes")
        if directory.is_dir():
            time.sleep(0.02)


def remove_dead_labs() -> list[str]:
    """Remove the directories of labs that were killed without `lab down`; their ids."""
    root = _root()
    with _locked(root):
        dead = [path for path in root.glob(f"{_PREFIX}*") if not _populated(path)]
        for path in dead:
            remove(path)
    return [path.name.removeprefix(_PREFIX) for path in dead]
