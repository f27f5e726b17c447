# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import sqlalchemy
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import Application, load_catalogue
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect, upgrade
from sqlalchemy import Engine
from support.postgresql import Server, postgresql_server

LAB = Path(__file__).parents[3] / "inventories" / "lab" / "operators.yml"

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with postgresql_server(tmp_path_factory.mktemp("postgresql")) as running:
        yield running


@pytest.fixture
def postgresql_url(server: Server) -> str:
    """An empty database of its own."""
    name = f"operators{next(_numbers)}"
    maintenance = sqlalchemy.create_engine(server.url(), isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with maintenance.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    return server.url(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/operator.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def empty(url: str) -> Iterator[Engine]:
    """Neither tables nor, with SQLite, a file."""
    engine = connect(url)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(empty: Engine) -> Engine:
    """With tables."""
    upgrade(empty)
    return empty


@pytest.fixture(scope="session")
def catalogue() -> dict[str, Application]:
    return load_catalogue()


@pytest.fixture
def operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write operators.yml and return its path, relative to the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("operators.yml").write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return Path("operators.yml")

    return write


@pytest.fixture
def lab() -> Path:
    return LAB
