# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the secrets of Proxmox VE tokens are kept: the operator database, or files under Ansible Vault."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, match_encrypt_secret
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Denied, InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.secrets import SecretStore

SECRET_NAME = "proxmox-token"
KIND = "given"


class DatabaseTokens:
    """Secrets of the operator database, ``<tenant>/proxmox-token``."""

    def __init__(self, store: SecretStore) -> None:
        self._store = store

    def get(self, tenant: str) -> str | None:
        ref = _ref(tenant)
        return self._store.find([ref]).get(ref)

    def put(self, tenant: str, user: str, token: str, secret: str) -> None:
        self._store.put(_ref(tenant), KIND, secret)

    def forget(self, tenant: str) -> None:
        self._store.forget(_ref(tenant))

    def place(self, tenant: str) -> Mapping[str, str]:
        return {"secret_ref": _ref(tenant)}


def _ref(tenant: str) -> str:
    return f"{tenant}/{SECRET_NAME}"


class VaultTokens:
    """Files ``<tenant>.yml``, encrypted as a whole, with the options that the modules need to use the token.

    :param secrets: vault secrets with their ids, as Ansible has them; the first one encrypts, all of them decrypt.
    """

    def __init__(self, directory: Path, secrets: Sequence[tuple[str, Any]]) -> None:
        self._directory = directory
        if not secrets:
            raise InvalidInput(
                "no vault secret is given to encrypt the tokens with",
                where="token_directory",
                hint="Run Ansible with --vault-password-file, or set vault_password_file",
            )
        self._vault = VaultLib(list(secrets))
        self._id, self._secret = match_encrypt_secret(list(secrets))

    def get(self, tenant: str) -> str | None:
        path = self._path(tenant)
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Denied(f"cannot read it: {error.strerror}", where=str(path)) from None
        try:
            values = yaml.safe_load(self._vault.decrypt(text))
        except (AnsibleError, yaml.YAMLError):
            raise Denied(
                "it cannot be decrypted with the vault secrets that are given",
                where=str(path),
                hint="Give the right vault password, or remove the file to get a new token",
            ) from None
        secret = values.get("api_token_secret") if isinstance(values, dict) else None
        return secret if isinstance(secret, str) else None

    def put(self, tenant: str, user: str, token: str, secret: str) -> None:
        """Written beside and moved over, so that the file is always a whole one."""
        # Ansible's strings are of a class of their own that YAML does not know
        values = {"api_user": str(user), "api_token_id": str(token), "api_token_secret": str(secret)}
        encrypted = self._vault.encrypt(yaml.safe_dump(values), secret=self._secret, vault_id=self._id)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # mkstemp makes it 0600
            handle, temporary = tempfile.mkstemp(dir=self._directory, prefix=f".{tenant}.")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(encrypted)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(self._path(tenant))
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise Denied(
                f"cannot write the secret: {error.strerror}",
                where=str(self._path(tenant)),
                hint="Make the directory writable and run again; the token is then made anew",
            ) from None

    def forget(self, tenant: str) -> None:
        try:
            self._path(tenant).unlink(missing_ok=True)
        except OSError as error:
            raise Denied(f"cannot remove it: {error.strerror}", where=str(self._path(tenant))) from None

    def place(self, tenant: str) -> Mapping[str, str]:
        return {"secret_file": str(self._path(tenant))}

    def _path(self, tenant: str) -> Path:
        return self._directory / f"{tenant}.yml"
