# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The final dump of a database on a real PostgreSQL server."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    InvalidInput,
    MissingCommand,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import dump
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.dump import Programs, final_dump
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

Sql = Callable[..., list[tuple[object, ...]]]

SENTINEL = "sentinel-71d4"
CONTENT = """
CREATE TABLE fruit (id int PRIMARY KEY, name text);
INSERT INTO fruit SELECT g, E'new\\nline\\t\\\\. ' || g FROM generate_series(1, 1000) g;
CREATE TABLE "odd "".name
second line" (a int);
INSERT INTO "odd "".name
second line" VALUES (1);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE empty (a int);
CREATE UNLOGGED TABLE fast (a int);
INSERT INTO fast VALUES (1), (2);
CREATE TABLE parent (a int) PARTITION BY RANGE (a);
CREATE TABLE part PARTITION OF parent FOR VALUES FROM (0) TO (10);
INSERT INTO parent VALUES (1), (2), (3);
CREATE TABLE child () INHERITS (fruit);
INSERT INTO child VALUES (2000, 'child');
CREATE TABLE computed (a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
INSERT INTO computed VALUES (1);
CREATE TABLE hidden (a int);
INSERT INTO hidden VALUES (1), (2);
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
ALTER TABLE hidden FORCE ROW LEVEL SECURITY;
CREATE SCHEMA other;
CREATE TABLE other.fruit AS SELECT 1 AS a;
CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM fruit;
CREATE EXTENSION hstore;
SELECT lo_from_bytea(0, 'large');
"""
ROWS = {
    ("other", "fruit"): 1,
    ("public", "child"): 1,
    ("public", "computed"): 1,
    ("public", "empty"): 0,
    ("public", "fast"): 2,
    ("public", "fruit"): 1000,
    ("public", "hidden"): 2,
    ("public", "no_columns"): 1,
    ("public", 'odd ".name\nsecond line'): 1,
    ("public", "part"): 3,
}


def test_a_dump_holds_everything_and_can_be_restored(server: Server, sql: Sql, database: str, tmp_path: Path) -> None:
    sql(CONTENT, database, database)
    done = final_dump(server, database, database, tmp_path / "new" / "dumps", jobs=2)
    assert {(table.schema, table.name): table.rows for table in done.tables} == ROWS
    assert done.digest == hashlib.sha256(done.manifest.read_bytes()).hexdigest()
    assert done.path.parent == done.manifest.parent
    assert [entry.name for entry in (tmp_path / "new" / "dumps").iterdir()] == [done.path.parent.name]
    assert (done.path.parent.stat().st_mode & 0o777, done.manifest.stat().st_mode & 0o777) == (0o700, 0o600)
    assert {file.stat().st_mode & 0o777 for file in done.path.iterdir()} == {0o600}

    manifest = json.loads(done.manifest.read_text(encoding="utf-8"))
    assert {(table["schema"], table["name"]): table["rows"] for table in manifest["tables"]} == ROWS
    assert (manifest["database"], manifest["owner"]) == (database, database)
    assert (manifest["encoding"], manifest["collate"], manifest["ctype"]) == ("UTF8", "C", "C")
    assert "hstore" in [extension["name"] for extension in manifest["extensions"]]
    assert manifest["large_objects"] == 1
    assert {file["name"]: file["sha256"] for file in manifest["files"]} == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in done.path.iterdir()
    }
    assert sum(file["size"] for file in manifest["files"]) == done.bytes

    sql("CREATE ROLE restored")
    sql("CREATE DATABASE restored OWNER restored TEMPLATE template0")
    restored = make_conninfo("", host=server.host, port=server.port, user=server.user, dbname="restored")
    subprocess.run(
        # only here, where nobody is hostile: code of the dump could take the power of a superuser
        ["pg_restore", "--exit-on-error", "--no-owner", "--role=restored", f"--dbname={restored}", str(done.path)],
        env={**os.environ, "PGPASSWORD": str(server.password)},
        check=True,
    )
    for (schema, name), rows in ROWS.items():
        quoted = name.replace('"', '""')
        assert sql(f'SELECT count(*) FROM ONLY {schema}."{quoted}"', "restored") == [(rows,)], name
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('public', 'other')"
    assert sql(owners, "restored") == [("restored",)]
    assert sql("SELECT * FROM seen", "restored") == [(1001,)]


@pytest.mark.parametrize(
    "setting",
    [
        "role = %s",
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "default_transaction_read_only = on",
        "standard_conforming_strings = off",
        "search_path = 'other'",
        "client_encoding = 'LATIN1'",
        "row_security = off",
        "local_preload_libraries = 'nope'",
        "default_transaction_isolation = 'serializable'",
    ],
)
def test_settings_of_the_owner_change_nothing(
    server: Server, sql: Sql, database: str, tmp_path: Path, setting: str
) -> None:
    sql("CREATE TABLE fruit AS SELECT 'é' AS name FROM generate_series(1, 3)", database, database)
    sql("CREATE TABLE theirs (a int)", database)
    quoted = '"' + database.replace('"', '""') + '"'
    sql(f"ALTER DATABASE {quoted} SET {setting.replace('%s', quoted)}", role=database)
    done = final_dump(server, database, database, tmp_path, jobs=1)
    assert {table.name: table.rows for table in done.tables} == {"fruit": 3, "theirs": 0}
    assert len(json.loads(done.manifest.read_text(encoding="utf-8"))["settings"]) == 1


def test_the_owner_s_role_dumps_where_login_is_no_superuser(
    server: Server, sql: Sql, database: str, tmp_path: Path
) -> None:
    quoted = '"' + database.replace('"', '""') + '"'
    sql(CONTENT.replace("ALTER TABLE hidden FORCE ROW LEVEL SECURITY;", ""), database, database)
    sql("CREATE ROLE plain LOGIN NOINHERIT PASSWORD 'plain'")
    sql(f"GRANT {quoted} TO plain")
    sql(f"GRANT CONNECT ON DATABASE {quoted} TO plain")
    sql(f"ALTER DATABASE {quoted} CONNECTION LIMIT 5")
    done = final_dump(replace(server, user="plain", password="plain"), database, database, tmp_path, jobs=1)
    assert {(table.schema, table.name): table.rows for table in done.tables} == ROWS
    sql("CREATE TABLE not_theirs (a int)", database)
    with pytest.raises(HostingError, match="permission denied for table not_theirs"):
        final_dump(replace(server, user="plain", password="plain"), database, database, tmp_path, jobs=1)
    assert len(list(tmp_path.iterdir())) == 1
    sql("DROP OWNED BY plain", database)
    sql("DROP ROLE plain")


def programs_that(directory: Path, after: str) -> None:
    """Programs like the installed ones; *after* is what the shell does when pg_dump has finished ($data)."""
    real = dump.choose(dump.installed(), 15)
    directory.mkdir()
    (directory / "pg_restore").symlink_to(real.pg_restore)
    script = f"""#!/bin/sh
case "$1" in --version) exec {real.pg_dump} --version;; esac
for word; do case "$word" in --file=*) data=${{word#--file=}};; esac; done
{real.pg_dump} "$@" || exit
{after}
"""
    (directory / "pg_dump").write_text(script, encoding="utf-8")
    (directory / "pg_dump").chmod(0o755)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ('rm "$data"/*.dat.gz', "None in the"),
        ('for f in "$data"/*.dat.gz; do head -c 30 "$f" > "$f.new" && mv "$f.new" "$f"; done', "damaged"),
        ('for f in "$data"/*.dat.gz; do : > "$f"; done', "damaged"),
        ('for f in "$data"/*.dat.gz; do zcat "$f" | sed 1d | gzip > "$f.new" && mv "$f.new" "$f"; done', "999 in the"),
        ('for f in "$data"/*.dat.gz; do zcat "$f" | sed 5q | gzip > "$f.new" && mv "$f.new" "$f"; done', "damaged"),
        ('echo nonsense > "$data/toc.dat"', "pg_restore failed"),
        ("echo 'pg_dump: error: could not write to file: No space left on device' >&2; exit 1", "No space left"),
        ("kill -9 $$", "code -9"),
    ],
)
def test_a_dump_that_is_not_complete_is_not_kept(
    server: Server, sql: Sql, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, after: str, said: str
) -> None:
    sql("CREATE TABLE fruit AS SELECT g FROM generate_series(1, 1000) g", database, database)
    programs_that(tmp_path / "programs", after)
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:{os.environ['PATH']}")
    with pytest.raises(BackendError, match=said) as caught:
        final_dump(server, database, database, tmp_path / "dumps", jobs=1)
    assert database in str(caught.value)
    assert SENTINEL not in str(caught.value)
    assert list((tmp_path / "dumps").iterdir()) == []


def test_the_password_is_in_no_argument_and_no_environment(
    server: Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    programs_that(tmp_path / "programs", f'echo "$@" > {told}; env >> {told}; ls -lL "$PGPASSFILE" >> {told}')
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:{os.environ['PATH']}")
    monkeypatch.setenv("PGPASSWORD", str(server.password))
    final_dump(server, database, database, tmp_path / "dumps", jobs=2)
    text = told.read_text(encoding="utf-8")
    assert SENTINEL not in text
    assert "\n-rw------- " in text
    (line,) = [line for line in text.splitlines() if line.startswith("PGPASSFILE=")]
    assert not Path(line.partition("=")[2]).parent.exists()


def test_what_cannot_be_done_is_said(server: Server, database: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="login_password"):
        dump._password_line("two\nlines")
    with pytest.raises(HostingError, match="does not exist"):
        final_dump(server, "no_such_database", database, tmp_path / "dumps", jobs=1)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BackendError, match="Not a directory"):
        final_dump(server, database, database, tmp_path / "file" / "dumps", jobs=1)
    assert list((tmp_path / "dumps").iterdir()) == []


def test_the_oldest_programs_that_can_dump_the_server_are_chosen() -> None:
    versions = {"17.2": 17, "15.18": 15, "18beta1": 18}
    programs = [Programs(Path(name, "pg_dump"), Path(name), major, name) for name, major in versions.items()]
    assert [dump.choose(programs, major).version for major in (13, 15, 16, 18)] == ["15.18", "15.18", "17.2", "18beta1"]
    with pytest.raises(MissingCommand, match=r"pg_dump 19 .* installed: 15\.18, 17\.2, 18beta1"):
        dump.choose(programs, 19)


def test_programs_without_pg_restore_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs_that(tmp_path / "whole", "")
    shutil.copytree(tmp_path / "whole", tmp_path / "half", symlinks=True)
    (tmp_path / "half" / "pg_restore").unlink()
    monkeypatch.setattr(dump, "DIRECTORIES", ())
    monkeypatch.setenv("PATH", f"{tmp_path / 'half'}:/bin:{tmp_path / 'whole'}")
    assert tmp_path / "whole" in [found.pg_dump.parent for found in dump.installed()]
    assert tmp_path / "half" not in [found.pg_dump.parent for found in dump.installed()]


@given(st.lists(st.binary(max_size=9).map(lambda row: row.replace(b"\n", b"").replace(b"\\", b""))), st.booleans())
def test_rows_are_counted_and_no_part_of_a_file_passes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[bytes], compressed: bool
) -> None:
    file = tmp_path_factory.mktemp("rows") / ("1.dat.gz" if compressed else "1.dat")
    text = b"".join(row + b"\n" for row in rows) + b"\\.\n\n\n"
    whole = gzip.compress(text) if compressed else text
    file.write_bytes(whole)
    assert dump.rows_in(file) == len(rows)
    for size in sorted({0, 1, len(whole) // 2, len(whole) - 1}):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"\w"):
            dump.rows_in(file)


@given(st.text(min_size=1, max_size=63), st.text(min_size=1, max_size=63))
def test_no_name_of_a_database_leads_out_of_the_directory(one: str, other: str) -> None:
    names = [dump._file_name(name) for name in (one, other)]
    assert (names[0] == names[1]) == (one == other)
    for name in names:
        assert name
        assert not name.startswith(".")
        assert set("/\0\n") & set(name) == set()


def test_a_table_that_its_owner_hides_in_an_extension_stops_the_dump(
    server: Server, sql: Sql, database: str, tmp_path: Path
) -> None:
    sql("CREATE TABLE victim AS SELECT 1 AS a; CREATE EXTENSION citext", database, database)
    sql("ALTER EXTENSION citext ADD TABLE victim", database, database)
    with pytest.raises(BackendError, match=r"public\.victim was added to the extension citext.*ALTER EXTENSION"):
        final_dump(server, database, database, tmp_path, jobs=1)
    assert list(tmp_path.iterdir()) == []
    sql("ALTER EXTENSION citext DROP TABLE victim", database, database)
    assert [table.rows for table in final_dump(server, database, database, tmp_path, jobs=1).tables] == [1]


@pytest.mark.parametrize("before", ["z 9; 0 {} TABLE DATA ", "z\n9; 0 {} TABLE DATA public victim "])
def test_the_name_of_a_table_is_no_line_of_the_listing(
    server: Server, sql: Sql, database: str, tmp_path: Path, before: str
) -> None:
    sql("CREATE TABLE victim AS SELECT generate_series(1, 2) AS a", database, database)
    ((oid,),) = sql("SELECT 'victim'::regclass::oid::bigint", database)
    sql(f'CREATE TABLE "{before.format(oid)}" (a int)', database, database)
    done = final_dump(server, database, database, tmp_path, jobs=1)
    assert {table.name: table.rows for table in done.tables} == {"victim": 2, before.format(oid): 0}


def test_large_objects_are_counted_in_the_dump(
    server: Server, sql: Sql, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql("SELECT lo_from_bytea(0, 'large'), lo_from_bytea(0, 'larger')", database, database)
    programs_that(tmp_path / "programs", 'for f in "$data"/blobs*.toc; do sed -i 1d "$f"; done')
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:{os.environ['PATH']}")
    with pytest.raises(BackendError, match="large objects: 2 in the database and 1 in the dump"):
        final_dump(server, database, database, tmp_path / "dumps", jobs=1)
