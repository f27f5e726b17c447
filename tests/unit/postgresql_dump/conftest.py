# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from support.postgresql import Server as RunningServer
from support.postgresql import postgresql_server

Sql = Callable[..., list[tuple[object, ...]]]
PASSWORD = "sentinel-71d4:\\'pass word"


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with postgresql_server(tmp_path_factory.mktemp("postgresql")) as server:
        yield server


@pytest.fixture(scope="session")
def sql(running: RunningServer) -> Sql:
    """Runs one statement and returns its rows, as superuser or as *role*."""

    def run(statement: str, database: str = "postgres", role: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(
            host=running.host,
            port=running.port,
            user=running.superuser,
            password=running.password,
            dbname=database,
            autocommit=True,
            options="-c role=none -c default_transaction_read_only=off",
        ) as connection:
            connection.execute(psycopg.sql.SQL("SET ROLE {}").format(psycopg.sql.Identifier(role)))
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    return run


@pytest.fixture(scope="session")
def server(running: RunningServer, sql: Sql) -> Server:
    """The server as the module is told to reach it; the password has what a password file quotes."""
    sql(f"CREATE ROLE dumper SUPERUSER LOGIN PASSWORD {psycopg.sql.quote(PASSWORD)}")
    return Server(running.host, running.port, "dumper", PASSWORD)


@pytest.fixture
def database(sql: Sql) -> Iterator[str]:
    """A database of a role of the same name."""
    name = 'tenant "Ü/ber" 1'
    sql(f"CREATE ROLE {quoted(name)} LOGIN")
    sql(f"CREATE DATABASE {quoted(name)} OWNER {quoted(name)} TEMPLATE template0 LOCALE 'C' CONNECTION LIMIT 1")
    try:
        yield name
    finally:
        sql(f"DROP DATABASE {quoted(name)} WITH (FORCE)")
        sql(f"DROP ROLE {quoted(name)}")


def quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
