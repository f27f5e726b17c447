# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No clear password anywhere but in the playbook and in the process that makes the verifier."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import MissingCommand
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import dump
from postgresql_estate import SENTINEL, VERIFIER, Place, from_environment, new_mark, password
from support.postgresql import postgresql_server

TALKATIVE = (
    "log_statement=all",
    "log_min_duration_statement=0",
    "log_min_error_statement=debug5",
    "log_min_messages=debug1",
    "log_error_verbosity=verbose",
    "log_parameter_max_length=-1",
    "log_parameter_max_length_on_error=-1",
    "log_connections=on",
    "track_activity_query_size=16kB",
)
QUIET = ("log_statement=ddl",)


@pytest.fixture(scope="module", params=[TALKATIVE, QUIET], ids=["log everything", "log ddl"])
def talkative(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server that logs what it is told, and a provisioner whose password is a sentinel too."""
    directory = tmp_path_factory.mktemp("leaks")
    with postgresql_server(directory) as server:
        place = from_environment(server.environment(), directory, server)
        # the only statement with a sentinel in it; it comes before the log is turned up
        place.sql(f"CREATE ROLE root_like SUPERUSER LOGIN PASSWORD '{password('provisioner')}'")
        for setting in request.param:
            name, _equals, value = setting.partition("=")
            place.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        place.sql("SELECT pg_reload_conf()")
        server.stop()
        server.log.write_text("", encoding="utf-8")
        server.start()
        yield Place({}, server.environment(), directory, server, new_mark())


class Watch:
    """Looks at all processes and at all sessions of the server while its block runs."""

    def __init__(self, place: Place) -> None:
        self.place, self.stopped = place, threading.Event()
        self.environments: set[str] = set()
        self.commands: set[str] = set()
        self.queries: set[str] = set()
        self.threads = [threading.Thread(target=one) for one in (self._processes, self._sessions)]

    def __enter__(self) -> Watch:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def _processes(self) -> None:
        while not self.stopped.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    self.commands.add(command)
                    if SENTINEL.encode() in (process / "environ").read_bytes():
                        self.environments.add(command)

    def _sessions(self) -> None:
        with self.place.connect() as connection:
            while not self.stopped.is_set():
                rows = connection.execute("SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
                self.queries.update(query or "" for (query,) in rows)


def playbook(place: Place, path: Path, dumps: Path, *, can_dump: bool) -> None:
    one, two, reader = place.name("one"), place.name("two"), place.name("reader")
    login = {
        "login_host": place.admin["PGHOST"],
        "login_port": place.admin["PGPORT"],
        "login_user": "root_like",
        "login_password": password("provisioner"),
    }
    roles: list[dict[str, Any]] = [{"name": reader, "password": password("reader")}]
    first: list[dict[str, Any]] = [
        {"name": one, "password": password("one"), "extensions": ["citext"], "readers": [reader]},
        {"name": two, "password": password("two")},
        {"name": place.name("bad") + 60 * "x", "password": password("bad")},
        {"name": place.name("verifier"), "password_verifier": password("verifier")},
        {"name": place.name("extension"), "password": password("extension"), "extensions": ["no_such"]},
        {"name": place.name("locale"), "password": password("locale"), "locale": "tlh_KL"},
    ]
    rotated = [{**item, "password": item["password"] + "-new"} for item in first[:2]]
    gone = [{**item, "state": "absent"} for item in rotated]
    drop = {"dump_dir": str(dumps)} if can_dump else {"drop_without_dump": True}
    runs: list[dict[str, Any]] = [
        {"databases": first, "roles": roles},
        {"databases": rotated, "roles": [{**roles[0], "password": password("reader-new")}]},
        {"databases": rotated, "roles": roles, "password_check": "login"},
        {"databases": rotated, "login_password": password("wrong")},
        {"databases": gone, "max_delete_percent": 100, **drop},
    ]
    tasks = [
        {
            "fediversity.hosting.postgresql_databases": {**login, **run},
            "check_mode": check,
            "diff": True,
            "ignore_errors": True,
        }
        for run in runs
        for check in (True, False)
    ]
    play = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
    path.write_text(json.dumps([play]), encoding="utf-8")


def test_no_clear_password_shows_anywhere(talkative: Place, tmp_path: Path) -> None:
    place = talkative
    try:
        dump.choose(dump.installed(), place.version())
        can_dump = True
    except MissingCommand:
        can_dump = False
    playbook(place, tmp_path / "play.yml", tmp_path / "dumps", can_dump=can_dump)
    with Watch(place) as watch:
        code, output = place.ansible("-vvv", "--diff", "-i", "localhost,", "-c", "local", str(tmp_path / "play.yml"))
    assert code == 0, output
    log = place.log
    # the watch saw what it looks for, and the log has it
    assert any("ansible-playbook" in command for command in watch.commands)
    assert any("pg_database" in query for query in watch.queries)
    assert f'CREATE DATABASE "{place.name("one")}"' in log
    assert can_dump == any("pg_dump" in command for command in watch.commands)
    assert "ok=10" in output, output

    assert watch.environments == set()
    seen = {"log": log, "output": output, "commands": "\n".join(watch.commands), "queries": "\n".join(watch.queries)}
    for where, text in seen.items():
        assert SENTINEL not in text, where
    assert not VERIFIER.search(output)
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.name != "play.yml":
            assert SENTINEL.encode() not in file.read_bytes(), file
