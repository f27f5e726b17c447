# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords of roles, on a server that logs every statement."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from services_leaks import USUAL, Seen, Task, outcomes, played, runs
from support.postgresql import Server, postgresql_server

LOGIN = {"login_host": "127.0.0.1", "login_port": "{{ port }}"}
SUPERUSER = {**LOGIN, "login_user": "postgres", "login_password": "{{ postgres }}"}
# in place of the login
FAILING = [{"login_password": "{{ wrong }}"}, {"login_port": 1, "login_password": "{{ wrong }}"}]
VERIFIER = "SCRAM-SHA-256$4096:c2VudGluZWwtc2FsdC0wMQ==$"
DATABASES = [
    {"name": "carol_photos_pixelfed", "password": "{{ carol }}", "extensions": ["pg_trgm"]},
    {"name": "dora_gallery_pixelfed", "password": "{{ dora }}"},
]
REFUSED = [
    {"name": "carol_photos_pixelfed", "mark": "somebody", "password": "{{ refused }}"},
    {"name": "n" * 64, "password": "{{ refused }}"},
    {"name": "verifier", "password_verifier": VERIFIER + "{{ refused }}"},
    {"name": "failed", "password": "{{ refused }}", "extensions": ["no_such_extension"]},
    {"name": "locale", "password": "{{ refused }}", "locale": "xx_XX"},
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    settings = ("log_statement=all", "log_connections=on", "log_min_messages=info", "log_min_error_statement=info")
    with postgresql_server(tmp_path, *settings) as running:
        yield running


def secrets(server: Server) -> dict[str, str]:
    """By the names of variables."""
    names = ("carol", "dora", "erin", "refused", "wrong", "provisioner")
    return {**{name: f"sentinel-{name}-90be" for name in names}, "postgres": server.password}


def seen_by(server: Server, directory: Path, tasks: list[Task]) -> tuple[Seen, str]:
    """What a play has shown, and the server's log of it."""
    seen = played(directory, tasks, {**secrets(server), "port": server.port})
    return seen, server.log.read_text(encoding="utf-8", errors="replace")


def test_postgresql_databases(tmp_path: Path, server: Server) -> None:
    roles = [{"name": "erin", "password": "{{ erin }}", "member_of": ["carol_photos_pixelfed"]}]
    arguments = {**SUPERUSER, "databases": DATABASES, "roles": roles}
    failing = [{"databases": REFUSED, "roles": []}, *FAILING]
    seen, log = seen_by(server, tmp_path, runs("postgresql_databases", arguments, *failing))
    assert [failed for _changed, failed in outcomes(seen)] == [*[False] * 3, *[True] * 3]
    assert outcomes(seen)[:3] == USUAL
    assert "carol_photos_pixelfed" in log
    assert seen.traces(secrets(server), log=log) == []
    # verifiers are in the server's log, because nothing else makes a role, and nowhere else
    assert seen.traces({"a verifier": "SCRAM-SHA-256$4096:"}) == []


def test_postgresql_databases_without_superuser(tmp_path: Path, server: Server) -> None:
    """Whether a password is right is then found out by logging in with it."""
    with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as connection:
        password = secrets(server)["provisioner"]
        connection.execute("SET log_statement = 'none'")
        connection.execute(f"CREATE ROLE provisioner LOGIN CREATEROLE CREATEDB PASSWORD '{password}'")
    login = {**LOGIN, "login_user": "provisioner", "login_password": "{{ provisioner }}", "password_check": "login"}
    arguments = {**login, "databases": DATABASES[1:]}
    rotated = {"databases": [{**DATABASES[1], "password": "{{ erin }}"}]}
    seen, log = seen_by(server, tmp_path, runs("postgresql_databases", arguments, rotated, *FAILING))
    assert outcomes(seen) == [*USUAL, (True, False), (False, True), (False, True)]
    assert "user=dora_gallery_pixelfed" in log
    assert seen.traces(secrets(server), log=log) == []


def test_a_final_dump(tmp_path: Path, server: Server) -> None:
    made = {**SUPERUSER, "databases": DATABASES}
    gone = [{"name": database["name"], "state": "absent"} for database in DATABASES]
    dumped = {**SUPERUSER, "databases": gone, "dump_dir": str(tmp_path / "left" / "dumps"), "max_delete_percent": 100}
    module = "fediversity.hosting.postgresql_databases"
    (tmp_path / "left" / "dumps").mkdir(parents=True)
    seen, log = seen_by(server, tmp_path, [{module: made}, *runs("postgresql_databases", dumped)])
    assert outcomes(seen) == [(True, False), *USUAL]
    assert "pg_dump" in seen.places["a command line"]
    assert seen.traces(secrets(server), log=log) == []
