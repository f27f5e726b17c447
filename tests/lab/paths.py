# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the lab keeps things. One lab = one state directory; the image cache is shared by all labs of a user."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]

# Inside the world only (a tmpfs): short, because a unix socket path has at most 107 bytes.
WORLD_RUN = Path("/run/lab")


@dataclass(frozen=True)
class State:
    """The files of one lab."""

    root: Path

    @property
    def world(self) -> Path:
        """JSON: id, pid and start time of the world's first process."""
        return self.root / "world.json"

    @property
    def secrets(self) -> Path:
        """JSON of identity.Secrets, mode 0600."""
        return self.root / "secrets.json"

    @property
    def control(self) -> Path:
        return self.root / "control.sock"

    @property
    def log(self) -> Path:
        return self.root / "supervisor.log"

    @property
    def hosts(self) -> Path:
        return self.root / "hosts"

    @property
    def nix(self) -> Path:
        """Becomes /nix inside the world."""
        return self.root / "nix"

    @property
    def controller(self) -> Path:
        return self.root / "controller"

    @property
    def known_hosts(self) -> Path:
        return self.root / "known_hosts"

    @property
    def ssh_key(self) -> Path:
        return self.root / "id_ed25519"

    @property
    def ca(self) -> Path:
        return self.root / "ca.pem"

    @property
    def proxmox(self) -> Path:
        return self.root / "proxmox"

    @property
    def garage(self) -> Path:
        return self.root / "garage"


def state() -> State:
    """The lab that this command is about: LAB_STATE or <checkout>/.lab."""
    return State(Path(os.path.abspath(os.environ.get("LAB_STATE") or CHECKOUT / ".lab")))


def cache() -> Path:
    """Image cache: LAB_CACHE or the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.path.abspath(os.environ.get("LAB_CACHE") or Path(base) / "fediversity-lab"))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, in one step."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    temporary.rename(path)


def write_json(path: Path, value: Any) -> None:
    write_private(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
