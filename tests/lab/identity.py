# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, passwords and tokens of one lab, new for each `lab up`."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.paths import State, read_json, write_json, write_private

PROXMOX_USER = "fediversity@pve"
PROXMOX_TOKEN = "lab"


@dataclass(frozen=True)
class Secrets:
    postgresql_password: str
    tsig_secret: str  # base64, for hmac-sha256
    garage_admin_token: str
    proxmox_token_secret: str
    proxmox_root_password: str


def create(state: State) -> None:
    """Write the lab's secrets, the controller's SSH key pair and its key for secrets at rest."""
    made = Secrets(
        postgresql_password=secrets.token_urlsafe(24),
        tsig_secret=base64.b64encode(secrets.token_bytes(32)).decode(),
        garage_admin_token=secrets.token_urlsafe(32),
        proxmox_token_secret=str(uuid.uuid4()),
        proxmox_root_password=secrets.token_urlsafe(16),
    )
    write_json(state.secrets, asdict(made))
    state.controller.mkdir(mode=0o700)
    write_private(secret_key_file(state), base64.urlsafe_b64encode(os.urandom(32)).decode() + "\n")
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab-controller", "-f", str(state.ssh_key)], check=True
    )
    state.proxmox.mkdir()
    state.garage.mkdir()
    accounts = {
        "users": {"root@pam": {"password": made.proxmox_root_password}},
        "tokens": {f"{PROXMOX_USER}!{PROXMOX_TOKEN}": {"secret": made.proxmox_token_secret, "privsep": 0}},
    }
    write_json(state.proxmox / "accounts.json", accounts)


def load(state: State) -> Secrets:
    return Secrets(**read_json(state.secrets))


def public_key(state: State) -> str:
    return state.ssh_key.with_suffix(".pub").read_text(encoding="utf-8").strip()


def secret_key_file(state: State) -> Path:
    """Fernet key of the operator database's secrets."""
    return state.controller / "secret.key"
