# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import env_fallback
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.action import DATABASE_ARGUMENTS, ControllerAction
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.plan import plan_fleet
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import load_fleet


class ActionModule(ControllerAction):
    ARGUMENTS = {
        **DATABASE_ARGUMENTS,
        "environment": {"type": "str"},
        "machines": {"type": "list", "elements": "str"},
        "authorized_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
        "authorized_keys_file": {
            "type": "path",
            "no_log": False,
            "fallback": (env_fallback, ["FEDIVERSITY_AUTHORIZED_KEYS_FILE"]),
        },
        "state_dir": {"type": "path", "required": True, "fallback": (env_fallback, ["FEDIVERSITY_STATE_DIR"])},
    }

    def perform(self, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
        keys = [*arguments["authorized_keys"], *_keys_of(arguments["authorized_keys_file"])]
        if not keys:
            raise InvalidInput(
                "no public SSH key is given, so nobody could log in to a new machine",
                where="authorized_keys",
                hint="Set authorized_keys, or FEDIVERSITY_AUTHORIZED_KEYS_FILE to a file with one key per line",
            )
        fleet = load_fleet(connect(arguments["database_url"]), arguments["environment"])
        machines = arguments["machines"] if arguments["machines"] is not None else list(fleet.machines)
        plan = plan_fleet(fleet, load_catalogue(), machines, keys)
        path = Path(arguments["state_dir"]) / "fleet.json"
        _write(path, {"version": 1, "machines": plan.machines})
        return {
            "changed": False,
            **asdict(plan),
            "machines": sorted(plan.machines),
            "fleet_file": str(path),
            "committed": {name: fleet.machines[name].record.system for name in plan.machines},
        }


def _keys_of(file: str | None) -> list[str]:
    if not file:
        return []
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InvalidInput(
            f"cannot be read: {error.strerror}", where=file, hint="Name a file with one public SSH key per line"
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Replace *path*; it holds customers' text, so only its owner may read it.

    :raises BackendError: it cannot be written; the old one is still there.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            whole = Path(folder) / path.name
            whole.touch(mode=0o600)
            whole.write_text(json.dumps(document, indent=1, sort_keys=True), encoding="utf-8")
            whole.replace(path)
    except OSError as error:
        raise BackendError(
            f"the plan cannot be written: {error.strerror}",
            where=str(path),
            hint="Check the free space and the owner of that folder (FEDIVERSITY_STATE_DIR)",
        ) from error
