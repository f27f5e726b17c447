# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.action import DATABASE_ARGUMENTS, ControllerAction
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.importer import (
    import_operators,
    preview_import,
)


class ActionModule(ControllerAction):
    ARGUMENTS = {**DATABASE_ARGUMENTS, "src": {"type": "path", "required": True}}

    def perform(self, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
        run = preview_import if self.check_mode else import_operators
        imported = asdict(run(connect(arguments["database_url"]), Path(arguments["src"]), load_catalogue()))
        return {
            "diff": {"before": imported.pop("before"), "after": imported.pop("after")},
            **imported,
        }
