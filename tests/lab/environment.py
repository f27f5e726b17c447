# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `lab exec` gives to its command: where everything in the lab is and the credentials for it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

from lab import identity
from lab.image import NIX_CONFIG
from lab.paths import CHECKOUT, State, cache
from lab.services import (
    CONTROLLER,
    DATABASE,
    DATABASE_USER,
    GARAGE_ADMIN_PORT,
    GARAGE_REGION,
    GARAGE_S3_PORT,
    NAMESERVER,
    PROXMOX_PORT,
    TSIG_NAME,
)
from lab.world import World


def lab_environment(state: State, world: World) -> dict[str, str]:
    """Variables of the lab alone."""
    secrets = identity.load(state)
    return {
        "LAB_STATE": str(state.root),
        "LAB_CACHE": str(cache()),
        "LAB_WORLD": world.id,
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_INVENTORY": str(CHECKOUT / "inventories/lab/lab.operator_db.yml"),
        "ANSIBLE_HOME": str(state.controller / "ansible"),
        "ANSIBLE_PRIVATE_KEY_FILE": str(state.ssh_key),
        "ANSIBLE_SSH_COMMON_ARGS": ssh_arguments(state),
        # In the world's own /run: short enough for a socket, and gone with the lab.
        "ANSIBLE_SSH_CONTROL_PATH_DIR": "/run/ansible-cp",
        "FEDIVERSITY_DATABASE_URL": f"sqlite:///{state.root}/operator.db",
        "FEDIVERSITY_SECRET_KEY_FILE": str(identity.secret_key_file(state)),
        "FEDIVERSITY_STATE_DIR": str(state.controller),
        "FEDIVERSITY_NIXPKGS": str(CHECKOUT / "tests/lab/nixpkgs"),
        "FEDIVERSITY_AUTHORIZED_KEYS_FILE": str(state.ssh_key.with_suffix(".pub")),
        "PROXMOX_HOST": CONTROLLER,
        "PROXMOX_PORT": str(PROXMOX_PORT),
        "PROXMOX_USER": identity.PROXMOX_USER,
        "PROXMOX_TOKEN_ID": identity.PROXMOX_TOKEN,
        "PROXMOX_TOKEN_SECRET": secrets.proxmox_token_secret,
        "PROXMOX_CA_PATH": str(state.ca),
        "PROXMOX_VALIDATE_CERTS": "true",
        "GARAGE_ADMIN_URL": f"http://{CONTROLLER}:{GARAGE_ADMIN_PORT}",
        "GARAGE_ADMIN_TOKEN": secrets.garage_admin_token,
        "GARAGE_S3_ENDPOINT": f"http://{CONTROLLER}:{GARAGE_S3_PORT}",
        "GARAGE_S3_REGION": GARAGE_REGION,
        "PGHOST": DATABASE,
        "PGPORT": "5432",
        "PGUSER": DATABASE_USER,
        "PGPASSWORD": secrets.postgresql_password,
        "PGDATABASE": "postgres",
        "DNS_SERVER": NAMESERVER,
        "DNS_TSIG_NAME": TSIG_NAME,
        "DNS_TSIG_SECRET": secrets.tsig_secret,
        "DNS_TSIG_ALGORITHM": "hmac-sha256",
        "NIX_CONFIG": NIX_CONFIG,
        "XDG_CACHE_HOME": str(state.controller / "cache"),
    }


def ssh_arguments(state: State) -> str:
    """Arguments for ssh: host keys are learned once and kept in the lab."""
    return f"-o StrictHostKeyChecking=accept-new -o {shlex.quote(f'UserKnownHostsFile={state.known_hosts}')}"


def environment(state: State, world: World, inherited: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment with the lab's variables, the checkout's programs first, nothing that bypasses it."""
    unwanted = (
        "NIX_REMOTE",
        "NIX_PATH",
        "NIX_SSHOPTS",
        "SSH_AUTH_SOCK",
        "PGSERVICE",
        "PGSSLMODE",
        "VIRTUAL_ENV",
        "PYTHONHOME",
    )
    result = {name: value for name, value in inherited.items() if name not in unwanted}
    tests = str(CHECKOUT / "tests")
    python_path = [part for part in result.pop("PYTHONPATH", "").split(os.pathsep) if part and part != tests]
    if python_path:
        result["PYTHONPATH"] = os.pathsep.join(python_path)
    if not any(name in result for name in ("LC_ALL", "LC_CTYPE", "LANG")):
        result["LC_ALL"] = "C.UTF-8"  # Ansible refuses to run without UTF-8
    programs = result.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return {**result, **lab_environment(state, world), "PATH": f"{CHECKOUT / '.venv/bin'}{os.pathsep}{programs}"}
