# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.utils.display import Display
from ansible_collections.fediversity.hosting.plugins.plugin_utils.action import DATABASE_ARGUMENTS, ControllerAction
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import check, connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.lock import hold

display = Display()


class ActionModule(ControllerAction):
    ARGUMENTS = {
        **DATABASE_ARGUMENTS,
        "timeout": {"type": "int", "default": 600},
    }

    def perform(self, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Mapping[str, Any]:
        engine = connect(arguments["database_url"])
        check(engine)
        # a task runs in a worker process, which Ansible's main process has forked
        hold(engine, os.getppid(), arguments["timeout"], display.display)
        return {"changed": False}
