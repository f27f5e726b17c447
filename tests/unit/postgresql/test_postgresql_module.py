# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module as Ansible starts it: arguments in, JSON out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.postgresql import Server as RunningServer

MODULE = Path(__file__).parents[3] / "plugins" / "modules" / "postgresql_databases.py"
SENTINEL = "sentinel-9c1e-password"
WITHOUT_LIBRARY = "import runpy, sys; sys.modules['psycopg'] = None; runpy.run_path(sys.argv.pop(), {}, '__main__')"


def start(arguments: dict[str, Any], *python: str, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *python, str(MODULE)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert SENTINEL not in done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_server_and_login_come_from_the_environment(running: RunningServer) -> None:
    arguments = {"databases": [{"name": "by_module", "password": SENTINEL}]}
    environment = {
        "PGHOST": running.host,
        "PGPORT": str(running.port),
        "PGUSER": running.superuser,
        "PGPASSWORD": running.password,
    }
    predicted = start({**arguments, "_ansible_check_mode": True}, **environment)
    assert (predicted["changed"], predicted["results"][0]["action"]) == (True, "create")
    done = start(arguments, **environment)
    assert done["diff"] == predicted["diff"]
    assert (done["changed"], done["failed"]) == (True, False)
    again = start(arguments, **environment)
    assert (again["changed"], again["results"][0]["owner"]) == (False, "by_module")
    denied = start(arguments, **{**environment, "PGPASSWORD": SENTINEL})
    assert "login_password" in denied["msg"]


def test_a_missing_library_is_named() -> None:
    done = start({"databases": []}, "-c", WITHOUT_LIBRARY)
    assert done["failed"]
    assert "psycopg" in done["msg"]
