# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Full file systems: /nix, /var or /boot of a running host becomes a file system of its own and is full.

It is a tmpfs with a copy of the directory, mounted over it in the namespace of the host's hardware (launch.py), from
where it reaches the host. When the host goes down, also by a power cut, the hardware puts the content back on the disk.
Run by hosts.py in the world, with bytes to leave free or none to make room:
`python -m lab.full <process id of the hardware> <mount point of the disk> <part> [<bytes>]`.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from lab import kernel

PARTS = ("nix", "var", "boot")


def fill(disk: Path, part: str, leave: int) -> None:
    """Leave only so many free bytes (whole blocks) below a directory of the mounted disk."""
    target = disk / part
    if not os.path.ismount(target):
        _mount_copy(target, disk.with_name(f"{disk.name}-{part}"))
    while True:
        now = os.statvfs(target)
        try:
            return _resize(target, str((now.f_blocks - now.f_bfree) * now.f_frsize + leave))
        except OSError as error:
            if error.errno != errno.EINVAL:  # something was written meanwhile
                raise


def make_room(disk: Path, part: str) -> None:
    """Undo `fill` as far as the host can tell."""
    if os.path.ismount(disk / part):
        _resize(disk / part, "50%")


def _resize(target: Path, size: str) -> None:
    kernel.mount("tmpfs", target, "tmpfs", kernel.MS_REMOUNT | kernel.MS_NODEV, f"size={size}")


def write_back(disk: Path) -> None:
    """Give the disk of a host that is down its directories back, with what was changed while they were full."""
    for part in PARTS:
        target = disk / part
        if os.path.ismount(target):
            copy = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
            kernel.unmount(target)
            source = Path(f"/proc/{os.getpid()}/fd/{copy}")  # also for cp
            _update(target, source)
            os.close(copy)


def _mount_copy(target: Path, staging: Path) -> None:
    staging.mkdir()
    kernel.mount("tmpfs", staging, "tmpfs", kernel.MS_NODEV, "nr_inodes=0,mode=755")
    subprocess.run(["cp", "-a", "--", f"{target}/.", f"{staging}/"], check=True)
    kernel.mount(staging, target, None, kernel.MS_MOVE)
    staging.rmdir()


def _update(target: Path, source: Path) -> None:
    """Make a directory equal to another one that was copied from it, writing only what differs."""
    wanted = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(source)}
    present = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(target)}
    for name, status in present.items():
        if name not in wanted or _kind(status) != _kind(wanted[name]):
            _remove(target / name)
    for name, status in wanted.items():
        old = present.get(name)
        if stat.S_ISDIR(status.st_mode) and old is not None and _kind(old) == _kind(status):
            _update(target / name, source / name)
        elif old is None or _marks(old) != _marks(status):
            subprocess.run(["cp", "-a", "-T", "--remove-destination", "--", source / name, target / name], check=True)
    old, new = target.stat(), source.stat()
    if (old.st_uid, old.st_gid, old.st_mode) != (new.st_uid, new.st_gid, new.st_mode):
        os.chown(target, new.st_uid, new.st_gid)
        target.chmod(stat.S_IMODE(new.st_mode))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _kind(status: os.stat_result) -> int:
    return stat.S_IFMT(status.st_mode)


def _marks(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns)


def main() -> None:
    hardware, disk, part, *leave = sys.argv[1:]
    kernel.enter(int(hardware), ("mnt",))
    if leave:
        fill(Path(disk), part, int(leave[0]))
    else:
        make_room(Path(disk), part)


if __name__ == "__main__":
    main()
