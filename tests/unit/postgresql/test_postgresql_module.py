# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module as Ansible starts it: arguments in, JSON out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.session import LOCK_KEY
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


@pytest.mark.usefixtures("pg_dump")
def test_roles_grants_and_the_final_dump_are_in_the_result(running: RunningServer, tmp_path: Path) -> None:
    server = running.environment()
    database = {
        "name": "by_module_2",
        "password": SENTINEL,
        "grants": [{"role": "module_r", "privileges": ["CONNECT"]}],
    }
    roles = [{"name": "module_r", "password_verifier": "SCRAM-SHA-256$4096:salt$AAAA:BBBB"}]
    refused = start({"databases": [database], "roles": roles}, **server)
    assert "'module_r', password_verifier" in refused["msg"]
    roles = [{"name": "module_r", "password": SENTINEL, "valid_until": "2031-01-01T00:00:00Z"}]
    done = start({"databases": [database], "roles": roles}, **server)
    assert [(one["name"], one["kind"], one["failed"]) for one in done["results"]] == [
        ("by_module_2", "database", False),
        ("role module_r", "role", False),
    ]
    gone = {"databases": [{"name": "by_module_2", "state": "absent"}], "dump_dir": str(tmp_path)}
    dropped = start(gone, **server)
    assert Path(dropped["results"][0]["dump"]["manifest"]).is_file()
    assert not start(gone, **server)["changed"]


def close_when_waited_for(connection: psycopg.Connection) -> None:
    while connection.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone() is None:
        time.sleep(0.1)
    connection.close()


def test_who_has_waited_for_another_run_says_so(running: RunningServer) -> None:
    with psycopg.connect(running.url().replace("+psycopg", ""), autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
        threading.Thread(target=close_when_waited_for, args=(other,)).start()
        done = start({"databases": []}, **running.environment())
    assert "another run was changing this server" in str(done["warnings"])


def test_a_missing_library_is_named() -> None:
    done = start({"databases": []}, "-c", WITHOUT_LIBRARY)
    assert done["failed"]
    assert "psycopg" in done["msg"]
