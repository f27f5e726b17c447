# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.action import (
    DATABASE_ARGUMENTS,
    SECRET_KEY_ARGUMENTS,
    ControllerAction,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.secrets import (
    SecretSpec,
    SecretStore,
    load_keys,
)


class ActionModule(ControllerAction):
    ARGUMENTS = {
        **DATABASE_ARGUMENTS,
        **SECRET_KEY_ARGUMENTS,
        "secrets": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "no_log": False,
            "options": {
                "ref": {"type": "str", "required": True},
                "kind": {"type": "str", "required": True},
                "bytes": {"type": "int"},
                "source": {"type": "str"},
            },
        },
        "rewrap": {"type": "bool", "default": False},
    }

    def perform(self, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
        keys = load_keys(arguments["secret_key"], arguments["secret_key_file"])
        store = SecretStore(connect(arguments["database_url"]), keys)
        specs = [SecretSpec(**fields) for fields in arguments["secrets"]]
        created = store.missing(specs) if self.check_mode else store.ensure(specs)
        rewrapped = _rewrap(store, self.check_mode) if arguments["rewrap"] else 0
        return {"changed": bool(created or rewrapped), "created": list(created), "rewrapped": rewrapped}


def _rewrap(store: SecretStore, check_mode: bool) -> int:
    return store.outdated() if check_mode else store.rewrap()
