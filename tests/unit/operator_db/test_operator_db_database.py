# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    InvalidInput,
    Locked,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db import database, schema
from sqlalchemy import Engine, select

INFO = select(schema.database_info.c.uuid)


def test_migrations_lead_to_the_schema_of_the_code(engine: Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_the_code_knows_its_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.REVISION]


def test_a_second_upgrade_keeps_the_database(engine: Engine) -> None:
    with database.reading(engine) as connection:
        before = connection.execute(INFO).scalar_one()
    database.upgrade(engine)
    with database.reading(engine) as connection:
        assert connection.execute(INFO).scalar_one() == before


def test_parallel_upgrades_agree(empty: Engine) -> None:
    engines = [database.connect(empty.url.render_as_string(hide_password=False)) for _unused in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(database.upgrade, engines))
    with database.reading(empty) as connection:
        assert connection.execute(select(schema.database_info)).all() == [(1, connection.execute(INFO).scalar_one())]
    for engine in engines:
        engine.dispose()


def test_a_database_without_tables_is_named(empty: Engine) -> None:
    with pytest.raises(database.DatabaseNotReady) as caught:
        database.check(empty)
    expected = {
        "sqlite": "the operator database does not exist",
        "postgresql": "this database has no operator database tables",
    }
    assert str(caught.value) == (
        f"{empty.url.render_as_string(hide_password=True)}: {expected[empty.dialect.name]}. "
        "Import operators.yml first (module fediversity.hosting.operator_db_import)"
    )
    assert not database.exists(empty)


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        ("0000", "the operator database has schema 0000, this version needs 0003"),
        ("9999", "the operator database has schema 9999, newer than 0003 of this version"),
    ],
)
def test_another_schema_is_refused(engine: Engine, revision: str, expected: str) -> None:
    with engine.execution_options(writes=True).begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
    with pytest.raises(database.DatabaseNotReady, match=expected):
        database.check(engine)


def test_a_newer_schema_is_not_migrated(engine: Engine) -> None:
    with engine.execution_options(writes=True).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(database.DatabaseNotReady, match="newer than"):
        database.upgrade(engine)


def test_a_failed_transaction_leaves_nothing(engine: Engine) -> None:
    def write_and_fail() -> None:
        with database.writing(engine) as connection:
            row = {"name": "alice", "display_name": "A", "contact": "a@b"}
            connection.execute(sqlalchemy.insert(schema.operators), row)
            raise KeyError

    with pytest.raises(KeyError):
        write_and_fail()
    with database.reading(engine) as connection:
        assert connection.execute(select(schema.operators)).all() == []


def test_the_sqlite_file_belongs_to_its_owner_alone(sqlite_url: str, tmp_path: Path) -> None:
    engine = database.connect(sqlite_url)
    database.upgrade(engine)
    assert stat.S_IMODE((tmp_path / "operator.db").stat().st_mode) == 0o600
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    engine.dispose()


def test_a_writer_that_does_not_end_is_named(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MILLISECONDS", 1)
    first, second = database.connect(sqlite_url), database.connect(sqlite_url)
    database.upgrade(first)
    with database.writing(first), pytest.raises(Locked, match="another run holds the operator database"):
        database.upgrade(second)
    first.dispose()
    second.dispose()


def test_a_silent_server_is_named_without_the_password() -> None:
    engine = database.connect("postgresql://fediversity:swordfish@127.0.0.1:1/operators")
    with pytest.raises(Unreachable) as caught:
        database.check(engine)
    assert "postgresql+psycopg://fediversity:***@127.0.0.1:1/operators: the operator database does not answer" in str(
        caught.value
    )
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://fediversity:pass@swordfish@127.0.0.1:1/operators",
        "postgresql://fediversity:pass@127:swordfish@127.0.0.1:1/operators",
        "postgresql://fediversity:pass@host/swordfish@127.0.0.1:1/operators",
        "postgresql://127.0.0.1:1/operators?user=fediversity&password=swordfish",
        "mysql://127.0.0.1:1/operators?password=swordfish",
    ],
)
def test_a_password_in_the_wrong_place_is_refused_unseen(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        database.connect(url)
    assert "swordfish" not in str(caught.value)


def test_the_cause_of_an_error_holds_no_values(engine: Engine) -> None:
    """Ansible prints causes too."""
    broken = sqlalchemy.text("SELECT :value FROM nowhere")
    with pytest.raises(BackendError) as caught, database.reading(engine) as connection:
        connection.execute(broken, {"value": "swordfish"})
    assert "nowhere" in str(caught.value.__cause__)
    assert "swordfish" not in str(caught.value.__cause__)


@pytest.mark.parametrize("url", ["", "sqlite://", "mysql://root@localhost/x", "postgresql+asyncpg://x/y"])
def test_an_unusable_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="Use sqlite:"):
        database.connect(url)
