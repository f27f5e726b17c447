# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import MissingCommand
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.dump import choose, installed
from postgresql_runs import Login, Sql
from support.postgresql import Server as RunningServer
from support.postgresql import postgresql_server


@pytest.fixture(scope="session")
def log_directory(tmp_path_factory: pytest.TempPathFactory):
    return tmp_path_factory.mktemp("postgresql")


@pytest.fixture(scope="session")
def running(log_directory) -> Iterator[RunningServer]:
    with postgresql_server(log_directory) as server:
        with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET log_statement = 'ddl'")
            connection.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def server(running: RunningServer) -> Server:
    """The server as the provider is told to reach it."""
    return Server(running.host, running.port, running.superuser, running.password)


@pytest.fixture
def sql(running: RunningServer, login: Login) -> Sql:
    """Runs one statement as superuser and returns its rows."""

    def run(
        statement: str, parameters: tuple[object, ...] = (), database: str = "postgres"
    ) -> list[tuple[object, ...]]:
        with login(running.superuser, running.password, database) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    return run


@pytest.fixture
def login(running: RunningServer) -> Login:
    """Opens a connection as any role; the caller closes it."""

    def connect(user: str, password: str, database: str) -> psycopg.Connection:
        return psycopg.connect(
            host=running.host, port=running.port, user=user, password=password, dbname=database, autocommit=True
        )

    return connect


@pytest.fixture
def pg_dump(sql: Sql) -> None:
    """Skips the test where no installed pg_dump is as new as the server."""
    ((version,),) = sql("SELECT current_setting('server_version_num')::int")
    try:
        choose(installed(), int(str(version)) // 10000)
    except MissingCommand as error:
        pytest.skip(str(error))
