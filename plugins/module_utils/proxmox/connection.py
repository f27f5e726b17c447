# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection options that all Proxmox VE modules share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import env_fallback
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, Connection, connect

LIBRARIES = ("proxmoxer", "requests")


def _from_environment(*variables: str) -> dict[str, Any]:
    return {"fallback": (env_fallback, list(variables))}


# matches doc_fragments/proxmox.py; the second and third names are those of other tools
CONNECTION_ARGUMENTS: dict[str, dict[str, Any]] = {
    "api_host": {
        "type": "str",
        "required": True,
        **_from_environment("PROXMOX_HOST", "PROXMOX_URL", "PROXMOX_VE_ENDPOINT"),
    },
    "api_port": {"type": "int", "default": 8006, **_from_environment("PROXMOX_PORT")},
    "api_user": {
        "type": "str",
        "required": True,
        **_from_environment("PROXMOX_USER", "PROXMOX_USERNAME", "PROXMOX_VE_USERNAME"),
    },
    "api_token_id": {"type": "str", **_from_environment("PROXMOX_TOKEN_ID")},
    "api_token_secret": {"type": "str", "no_log": True, **_from_environment("PROXMOX_TOKEN_SECRET")},
    "api_password": {"type": "str", "no_log": True, **_from_environment("PROXMOX_PASSWORD", "PROXMOX_VE_PASSWORD")},
    "validate_certs": {"type": "bool", "default": True, **_from_environment("PROXMOX_VALIDATE_CERTS")},
    "ca_path": {"type": "path", **_from_environment("PROXMOX_CA_PATH")},
    "fingerprint": {"type": "list", "elements": "str", "default": [], **_from_environment("PROXMOX_FINGERPRINT")},
    "api_timeout": {"type": "int", "default": 40, **_from_environment("PROXMOX_TIMEOUT")},
    "task_timeout": {"type": "int", "default": 600, **_from_environment("PROXMOX_TASK_TIMEOUT")},
    "lock_timeout": {"type": "int", "default": 60, **_from_environment("PROXMOX_LOCK_TIMEOUT")},
}
CONNECTION_RULES: dict[str, Any] = {
    "required_one_of": [("api_token_secret", "api_password")],
    "required_together": [("api_token_id", "api_token_secret")],
}


def connection_of(params: Mapping[str, Any]) -> Connection:
    """The module's connection options; ``connect`` makes independent clients of them, one for each thread."""
    return Connection(
        host=params["api_host"],
        port=params["api_port"],
        user=params["api_user"],
        token_id=params["api_token_id"],
        token_secret=params["api_token_secret"],
        password=params["api_password"],
        validate_certs=params["validate_certs"],
        ca_path=params["ca_path"],
        fingerprints=tuple(params["fingerprint"]),
        timeout=params["api_timeout"],
        lock_timeout=params["lock_timeout"],
    )


def client_of(params: Mapping[str, Any]) -> Client:
    """A client for the module's connection options.

    :raises HostingError: an option cannot work, or a login with password fails.
    """
    return connect(connection_of(params))
