# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: secret
short_description: Fetch secrets of the operator database by reference
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Replaces every dictionary whose only key is C(secret), at any depth of a term, by the secret with that reference.
    All terms together cost one query.
  - Use it only as the value of options that hide secrets (C(no_log)), never in C(debug) or in a template on disk.
requirements: [SQLAlchemy, cryptography, psycopg (for PostgreSQL)]
extends_documentation_fragment:
  - fediversity.hosting.operator_db.plugin_database
  - fediversity.hosting.operator_db.plugin_secret_key
options:
  _terms:
    description: References, or lists and dictionaries that hold dictionaries whose only key is C(secret).
    type: list
    elements: raw
    required: true
notes:
  - In check mode a secret that does not exist yet is a random value of 64 hexadecimal digits, which fits the rules of
    every backend and is forgotten afterwards.
seealso:
  - module: fediversity.hosting.operator_secrets
"""

EXAMPLES = r"""
- name: Make the databases with their passwords
  fediversity.hosting.postgresql_databases:
    databases: "{{ lookup('fediversity.hosting.secret', databases) }}"
  vars:
    databases:
      - name: alice_social_mastodon
        password: {secret: alice_social_mastodon/database-password}

- name: Fetch one secret by its reference
  ansible.builtin.set_fact:
    password: "{{ lookup('fediversity.hosting.secret', 'alice_social_mastodon/database-password') }}"
  no_log: true
"""

RETURN = r"""
_raw:
  description: The terms with the secrets in place of the references.
  type: list
  elements: raw
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.plugin_utils.libraries import require
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.references import references, resolve
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.secrets import (
    SecretStore,
    load_keys,
    throw_away_values,
)


class LookupModule(LookupBase):
    def run(self, terms: Sequence[Any], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            return self._resolve(terms, bool((variables or {}).get("ansible_check_mode")))
        except HostingError as error:
            raise AnsibleError(str(error)) from error

    def _resolve(self, terms: Sequence[Any], check_mode: bool) -> list[Any]:
        require("sqlalchemy", "cryptography")
        structures = [{"secret": term} if isinstance(term, str) else term for term in terms]
        refs = references(structures)
        if not refs:
            return structures
        keys = load_keys(self.get_option("secret_key"), self.get_option("secret_key_file"))
        store = SecretStore(connect(self.get_option("database_url")), keys)
        values = store.find(refs) if check_mode else store.get(refs)
        return [resolve(structure, throw_away_values(refs) | values) for structure in structures]
