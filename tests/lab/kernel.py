# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few system calls the lab needs that Python 3.11 does not offer: clone(2), mount(2), pivot_root(2), setns(2).

Every function raises OSError with the errno of the call. All are for single-threaded processes only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from collections.abc import Sequence
from pathlib import Path

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 0x20
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE, MS_SHARED = 0x1000, 0x2000, 0x4000, 0x40000, 0x100000
MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_CLONE_CALL = {"x86_64": 56, "aarch64": 220}
_PIVOT_ROOT_CALL = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def clone(namespaces: int) -> int:
    """Fork into new namespaces; the child's process id in the parent, 0 in the child (as os.fork)."""
    # Only the flags matter: a null stack makes clone(2) behave as fork(2) on every architecture in the table.
    call = _CLONE_CALL[platform.machine()]
    return _check(_libc.syscall(call, ctypes.c_ulong(namespaces | signal.SIGCHLD), None, None, None, None), "clone")


def unshare(namespaces: int) -> None:
    _check(_libc.unshare(namespaces), "unshare")


def enter(pid: int, names: Sequence[str]) -> None:
    """Join namespaces of a process, in this order (names as in /proc/<pid>/ns); a pid namespace only for children."""
    # All opened before any is joined: with the mount namespace /proc changes.
    opened = [(name, os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)) for name in names]
    for name, descriptor in opened:
        _check(_libc.setns(descriptor, 0), f"setns {name} of process {pid}")
        os.close(descriptor)


def mount(source: str | Path | None, target: str | Path, kind: str | None, flags: int = 0, options: str = "") -> None:
    raw = [None if part is None else os.fsencode(part) for part in (source, target, kind)]
    result = _libc.mount(raw[0], raw[1], raw[2], ctypes.c_ulong(flags), options.encode() or None)
    _check(result, f"mount {kind or source} on {target}")


def bind(source: str | Path, target: str | Path) -> None:
    mount(source, target, None, MS_BIND | MS_REC)


def overlay(target: str | Path, layers: Sequence[str | Path], disk: str | Path, flags: int = 0) -> None:
    """Mount read-only layers (topmost first) with the writable disk/upper over them (disk/work is the kernel's)."""
    lower = ":".join(_escape(layer) for layer in layers)
    mount(
        "overlay",
        target,
        "overlay",
        flags,
        f"lowerdir={lower},upperdir={_escape(disk)}/upper,workdir={_escape(disk)}/work",
    )


def _escape(path: str | Path) -> str:
    return str(path).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def unmount(target: str | Path) -> None:
    """Detach the mount now, free it when its last user is gone."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def pivot_root(new_root: str | Path) -> None:
    """Make a mount point the root of this mount namespace and drop the old root."""
    os.chdir(new_root)
    # Both arguments the same: the old root is stacked over the new one and can be detached at once (man page, NOTES).
    _check(_libc.syscall(_PIVOT_ROOT_CALL[platform.machine()], b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")


def filesystem(path: Path) -> str:
    """Type of the file system that holds an existing path: ext4, overlay, tmpfs … (proc_pid_mountinfo(5))."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _unused, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return "unknown"


def die_with_parent() -> None:
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
