# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Extensions and locales: what is proved from outside, what is looked at inside, what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import checks, model, statements
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.catalogue import Facts
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import Record
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.provider import Look
from postgresql_runs import Sql, actions, made, run, wish


@pytest.fixture
def connections(log_directory: Path, sql: Sql) -> Any:
    """The databases that were connected to while a function ran, by the server's log."""
    sql("ALTER SYSTEM SET log_connections = on")
    sql("SELECT pg_reload_conf(), pg_sleep(0.2)")

    def during(work: Any) -> list[str]:
        log = log_directory / "postgresql.log"
        before = len(log.read_text(encoding="utf-8"))
        work()
        return re.findall(r"connection authorized: .*database=(\S+)", log.read_text(encoding="utf-8")[before:])

    yield during
    sql("ALTER SYSTEM RESET log_connections")
    sql("SELECT pg_reload_conf()")


def test_unchanged_extensions_need_one_connection(server: Server, connections: Any) -> None:
    items = [wish(f"proved_{n}", extensions=("hstore", "pg_trgm"), password="p") for n in range(3)]
    run(server, *items)
    assert connections(lambda: run(server, *items)) == ["postgres"]
    looks = connections(lambda: run(server, *items, look=Look(extensions="always")))
    assert sorted(looks) == ["postgres", "proved_0", "proved_1", "proved_2"]


@pytest.mark.parametrize(
    "statement", ["DROP EXTENSION hstore", "DROP EXTENSION hstore; SET ROLE remade; CREATE EXTENSION hstore"]
)
def test_a_dropped_or_remade_extension_shows(server: Server, sql: Sql, statement: str) -> None:
    item = wish("remade", extensions=("hstore", "citext"))
    run(server, item)
    sql(statement, database="remade")
    assert actions(made(server, item)) == {"remade": "update"}
    assert sql("SELECT 1 FROM pg_extension WHERE extname = 'hstore'", database="remade") == [(1,)]


def test_what_the_bootstrap_superuser_made_is_looked_at(server: Server, sql: Sql, connections: Any) -> None:
    item = wish("by_superuser", extensions=("pg_stat_statements", "hstore"))
    assert "only a superuser" in run(server, item)["msg"]
    made(server, replace(item, extensions=()))
    sql("CREATE EXTENSION pg_stat_statements", database="by_superuser")
    made(server, item)
    assert sorted(connections(lambda: run(server, item))) == ["by_superuser", "postgres"]
    sql("DROP EXTENSION pg_stat_statements", database="by_superuser")
    assert "only a superuser" in run(server, item)["msg"]


def test_a_comment_that_lies_is_not_believed(server: Server, sql: Sql) -> None:
    item = wish("lying", extensions=("hstore",))
    run(server, replace(item, extensions=("citext",)))
    ((oid,),) = sql("SELECT oid::int FROM pg_extension WHERE extname = 'citext'", database="lying")
    for said in ("hstore:1", "hstore:x", "hstore", f"hstore:{'9' * 30}"):
        sql(f"COMMENT ON DATABASE lying IS 'fediversity:lying ext={said},citext:{oid}'")
        assert "lying" in run(server, item, check=True)["diff"]["after"]
    made(server, item)


@pytest.mark.parametrize(
    "record",
    [
        Record("m"),
        Record("m", retired="2026-01-01T00:00:00Z"),
        Record("m", extensions={"a,b:c d%": 3, "uuid-ossp": 4, "Ä": 5}),
        Record("ext=x", retired="2026-01-01T00:00:00Z", extensions={"a": 1}),
    ],
)
def test_records_are_read_as_they_were_written(record: Record) -> None:
    assert model.record_of(record.text()) == record


def test_foreign_comments_are_no_records() -> None:
    for comment in (None, "", "my database", "x fediversity:m"):
        assert model.record_of(comment) is None


@pytest.mark.parametrize(
    ("provider", "version", "words"),
    [
        ("libc", 130000, "LOCALE 'x'"),
        ("libc", 180000, "LOCALE 'x' LOCALE_PROVIDER libc"),
        ("icu", 150000, "ICU_LOCALE 'x' LOCALE_PROVIDER icu"),
        ("builtin", 170000, "BUILTIN_LOCALE 'x' LOCALE_PROVIDER builtin"),
    ],
)
def test_each_version_is_spoken_to_in_its_words(provider: str, version: int, words: str) -> None:
    facts = Facts(version, "postgres", superuser=True, reads_verifiers=True)
    statement = statements.create_database(wish("d", locale="x", locale_provider=provider), facts).as_string(None)
    assert statement.endswith(words)
    assert "TEMPLATE template0" in statement


def test_locales_are_compared_as_the_server_keeps_them(server: Server, sql: Sql) -> None:
    ((version,),) = sql("SELECT current_setting('server_version_num')::int")
    made(server, wish("sorted_c", locale="C"))
    for provider, locale, same, other in (
        ("icu", "de-DE", "de_DE", "fr-FR"),
        ("icu", "und", "root", "de"),
        ("builtin", "C.UTF-8", "C.utf8", "C"),
    ):
        name = f"sorted_{provider}_{locale[0]}"
        item = wish(name, locale=locale, locale_provider=provider)
        if int(str(version)) < checks.PROVIDER_SINCE[provider]:
            assert f"'{name}', locale_provider: the provider {provider} came" in run(server, item)["msg"]
            continue
        made(server, item)
        assert not run(server, replace(item, locale=same))["changed"]
        assert f"the locale is {locale} ({provider}), not {other}" in run(server, replace(item, locale=other))["msg"]
        assert "not C (libc)" in run(server, replace(item, locale="C", locale_provider="libc"))["msg"]


def test_before_15_the_schema_public_is_closed_too(server: Server, sql: Sql) -> None:
    made(server, wish("closed_public"))
    assert sql("SELECT has_schema_privilege('public', 'public', 'CREATE')", database="closed_public") == [(False,)]
    sql("SET ROLE closed_public; CREATE TABLE public.mine ()", database="closed_public")
