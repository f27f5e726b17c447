# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's disk before its first boot: files written into the upper layer of its overlay."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.launch import FIRST_ID


@dataclass(frozen=True)
class File:
    """A file to put on a disk; `owner` is a user of the image. A `link` makes it a symbolic link instead."""

    path: str
    content: str = ""
    mode: int = 0o644
    owner: str = "root"
    link: str = ""


@dataclass(frozen=True)
class Disk:
    """The writable layer of a disk over read-only layers (topmost first)."""

    upper: Path
    layers: tuple[Path, ...]

    def write(self, files: Sequence[File]) -> None:
        """Write files (replacing them), with the parent directories as the layers below have them."""
        owners = self._users()
        for file in files:
            target = self.upper / file.path.lstrip("/")
            self._make_parents(target)
            uid, gid = owners[file.owner]
            target.unlink(missing_ok=True)
            if file.link:
                target.symlink_to(file.link)
            else:
                target.write_text(file.content, encoding="utf-8")
                target.chmod(file.mode)
            os.lchown(target, uid, gid)

    def has(self, path: str) -> bool:
        return (self.upper / path.lstrip("/")).exists()

    def _make_parents(self, target: Path) -> None:
        missing = [parent for parent in target.parents if parent.is_relative_to(self.upper) and not parent.exists()]
        for directory in reversed(missing):
            directory.mkdir()
            below = [layer / directory.relative_to(self.upper) for layer in self.layers]
            model = next((path for path in below if path.is_dir()), None)
            if model is None:
                directory.chmod(0o755)
                os.chown(directory, FIRST_ID, FIRST_ID)
            else:
                shutil.copystat(model, directory)
                os.chown(directory, model.stat().st_uid, model.stat().st_gid)

    def _users(self) -> dict[str, tuple[int, int]]:
        for layer in self.layers:
            passwd = layer / "etc/passwd"
            if passwd.is_file():
                rows = [line.split(":") for line in passwd.read_text(encoding="utf-8").splitlines()]
                return {row[0]: (FIRST_ID + int(row[2]), FIRST_ID + int(row[3])) for row in rows}
        return {"root": (FIRST_ID, FIRST_ID)}


def network_commands(addresses: Sequence[str], gateway: str | None) -> str:
    """Input for `ip -batch`; can be repeated at any time to get the network back."""
    lines = [f"addr replace {address} dev eth0" + (" nodad" if ":" in address else "") for address in addresses]
    lines.append("link set eth0 up")  # after the addresses: announces them (arp_notify)
    if gateway:
        lines.append(f"route replace default via {gateway} dev eth0")
    return "\n".join(lines) + "\n"


def identity_files(
    hostname: str,
    addresses: Sequence[str],
    gateway: str | None,
    nameservers: Sequence[str],
    authorized_keys: Sequence[str],
) -> list[File]:
    """What a VM gets from its cloud-init drive."""
    return [
        File("/etc/hostname", f"{hostname}\n"),
        File("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost\n"),
        File("/etc/resolv.conf", "".join(f"nameserver {server}\n" for server in nameservers)),
        File("/etc/lab/network", network_commands(addresses, gateway)),
        File("/root/.ssh/authorized_keys", "".join(f"{key.strip()}\n" for key in authorized_keys), 0o600),
    ]


def new_machine_files(hostname: str, scratch: Path) -> list[File]:
    """What a disk gets once: its machine id and its own SSH host key (made in the directory `scratch`)."""
    key = scratch / "ssh_host_ed25519_key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{hostname}", "-f", str(key)], check=True
    )
    public = key.with_suffix(".pub")
    files = [
        File("/etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444),
        File("/etc/ssh/ssh_host_ed25519_key", key.read_text(encoding="utf-8"), 0o600),
        File("/etc/ssh/ssh_host_ed25519_key.pub", public.read_text(encoding="utf-8")),
    ]
    key.unlink()
    public.unlink()
    return files
