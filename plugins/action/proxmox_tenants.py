# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.vault import get_file_vault_secret
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Denied, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.module import LIMIT_ARGUMENTS
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Connection, connect
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.connection import (
    CONNECTION_ARGUMENTS,
    LIBRARIES,
    connection_of,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.tenant_model import desired_tenants
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.tenants import Tenants, TokenStore
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Limits, reconcile
from ansible_collections.fediversity.hosting.plugins.plugin_utils.action import (
    DATABASE_ARGUMENTS,
    SECRET_KEY_ARGUMENTS,
    ControllerAction,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.libraries import require
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect as open_database
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.secrets import SecretStore, load_keys
from ansible_collections.fediversity.hosting.plugins.plugin_utils.proxmox_tokens import DatabaseTokens, VaultTokens

TENANT: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "pool": {"type": "str"},
    "user": {"type": "str"},
    "token": {"type": "str", "default": "fediversity", "no_log": False},
    "storages": {"type": "list", "elements": "str", "default": []},
    "networks": {"type": "list", "elements": "str", "default": []},
    "templates": {"type": "list", "elements": "int", "default": []},
    "rotate": {"type": "bool", "default": False},
}


class ActionModule(ControllerAction):
    ARGUMENTS = {
        **CONNECTION_ARGUMENTS,
        **LIMIT_ARGUMENTS,
        **DATABASE_ARGUMENTS,
        **SECRET_KEY_ARGUMENTS,
        "tenants": {"type": "list", "elements": "dict", "required": True, "options": TENANT},
        "more_privileges": {"type": "list", "elements": "str", "default": []},
        "token_directory": {"type": "path", "no_log": False},
        "vault_password_file": {"type": "path", "no_log": False},
    }

    def perform(self, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
        require(*LIBRARIES)
        if not arguments["api_password"] and not (arguments["api_token_id"] and arguments["api_token_secret"]):
            raise InvalidInput(
                "no credentials are given",
                where="api_token_id, api_token_secret",
                hint="Set both, or api_password, or the PROXMOX_* variables",
            )
        desired = desired_tenants(arguments["tenants"])
        connection = connection_of(arguments)
        provider = Tenants(
            connect(connection),
            self._store(arguments),
            lambda user, token, secret: _works(connection, user, token, secret),
            frozenset(arguments["more_privileges"]),
        )
        limits = Limits(max_delete_percent=arguments["max_delete_percent"])
        return reconcile(provider, desired, check=self.check_mode, limits=limits)

    def _store(self, arguments: Mapping[str, Any]) -> TokenStore:
        """The directory if one is given, else the operator database."""
        if arguments["token_directory"]:
            return VaultTokens(Path(arguments["token_directory"]), self._vault_secrets(arguments))
        if arguments["database_url"]:
            keys = load_keys(arguments["secret_key"], arguments["secret_key_file"])
            return DatabaseTokens(SecretStore(open_database(arguments["database_url"]), keys))
        raise InvalidInput(
            "nowhere to keep the secrets of the tokens",
            where="token_directory, database_url",
            hint="Name a directory for files under Ansible Vault, or the operator database",
        )

    def _vault_secrets(self, arguments: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Those of the option, else those that Ansible was started with."""
        file = arguments["vault_password_file"]
        if not file:
            return list(self._loader._vault.secrets or ())
        try:
            secret = get_file_vault_secret(filename=file, vault_id="default", loader=self._loader)
            secret.load()
        except AnsibleError as error:
            raise InvalidInput(f"cannot be used ({error.message})", where="vault_password_file") from None
        return [("default", secret)]


def _works(connection: Connection, user: str, token: str, secret: str) -> bool:
    """Whether the cluster takes the secret; a wrong one is refused after three seconds."""
    own = replace(connection, user=user, token_id=token, token_secret=secret, password=None)
    try:
        connect(own).get("/version")
    except (Denied, InvalidInput):
        return False
    return True
