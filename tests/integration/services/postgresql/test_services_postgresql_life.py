# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The life of databases: made, rotated, retired, dumped, dropped, and what cannot be changed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import MissingCommand
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import dump, scram
from postgresql_estate import Place, by_name, password

CLOSED = ("authentication failed", "not permitted to log in", "permission denied")


def programs(place: Place) -> dump.Programs:
    """pg_dump for this server; without one there is nothing to test."""
    try:
        return dump.choose(dump.installed(), place.version())
    except MissingCommand as error:
        pytest.skip(f"{error.what}")


def opens(place: Place, user: str, secret: str, database: str) -> bool:
    try:
        place.connect(user, secret, database).close()
    except psycopg.OperationalError as error:
        if not any(word in str(error) for word in CLOSED):
            raise
        return False
    return True


def test_made_as_wanted_and_changed_as_wanted(place: Place) -> None:
    name = place.name("app")
    wish: dict[str, Any] = {
        "name": name,
        "password": password("one"),
        "extensions": ["citext", "pg_trgm"],
        "locale": "C",
        "conn_limit": 7,
    }
    result = place.change(wish)
    assert by_name(result)[name]["action"] == "create"
    assert by_name(result)[name]["owner"] == name
    assert by_name(result)[name]["size_bytes"] > 1_000_000
    with place.connect(name, password("one"), name) as connection:
        row = connection.execute(
            "SELECT datcollate, datctype, pg_encoding_to_char(encoding), datconnlimit, rolsuper, rolcreatedb,"
            " rolcreaterole FROM pg_database d JOIN pg_roles r ON r.oid = datdba WHERE datname = current_database()"
        ).fetchone()
        assert row == ("C", "C", "UTF8", 7, False, False, False)
        extensions = connection.execute("SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'").fetchall()
        assert sorted(extensions) == [("citext",), ("pg_trgm",)]
    place.change({**wish, "conn_limit": 9, "extensions": ["citext", "pg_trgm", "unaccent"]})
    place.sql("DROP EXTENSION unaccent", database=name, login=(name, password("one")))
    place.change({**wish, "conn_limit": 9, "extensions": ["citext", "pg_trgm", "unaccent"]})


@pytest.mark.parametrize(
    "what", ["sel\"ect';--", "Grüße ☃ $1", "{}%s%(x)s {{ x }}", "back\\slash /../etc", "-rf", "a=b host=evil"]
)
def test_quotes_and_unicode_are_plain_names(place: Place, what: str) -> None:
    name, secret = place.name(what), password("' \\ : pä$$ {{ x }}")
    wish = {"name": name, "password": secret, "extensions": ["citext"], "mark": "hostile"}
    place.change(wish)
    assert opens(place, name, secret, name)
    place.change({**wish, "state": "retired"})
    place.change({**wish, "state": "absent"}, drop_without_dump=True, max_delete_percent=100)
    assert place.sql("SELECT count(*) FROM pg_roles WHERE rolname = %s", name) == [(0,)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "n" * 64),
        ("name", "☃" * 22),
        ("name", ""),
        ("name", "null\0byte"),
        ("name", "pg_catalog_like"),
        ("owner", "pg_evil"),
        ("owner", "o" * 64),
        ("password", ""),
        ("password", "null\0byte"),
        ("password_verifier", "SCRAM-SHA-256$4096:salt$AAAA:BBBB"),
        ("password_verifier", "md5" + 32 * "0"),
        ("password_verifier", "plain"),
        ("mark", "two words"),
        ("conn_limit", -2),
        ("extensions", [""]),
        ("extensions", ["no\0extension"]),
        ("encoding", "KLINGON"),
        ("locale", "tlh_KL.UTF-8"),
        ("grants", [{"role": "", "privileges": ["CONNECT"]}]),
        ("readers", ["r" * 64]),
    ],
)
def test_bad_input_is_refused_with_its_field_and_the_others_are_made(place: Place, field: str, value: Any) -> None:
    bad = {"name": place.name("bad"), field: value}
    if field == "name" and value == "pg_catalog_like":
        # legal for a database, reserved for its role
        bad["name"] = "pg_" + place.name("bad")
    good = place.name("good")
    result = place.run(bad, {"name": good, "password": password("good")})
    items = by_name(result)
    assert result["failed"]
    assert items[bad["name"]]["failed"]
    assert field in items[bad["name"]]["msg"] or (field == "name" and "owner" in items[bad["name"]]["msg"])
    assert (items[good]["action"], items[good]["failed"]) == ("create", False)
    assert opens(place, good, password("good"), good)
    leftover = place.sql("SELECT count(*) FROM pg_database WHERE datname = %s", place.name("bad"))
    assert field in ("encoding", "locale", "grants", "readers") or leftover == [(0,)]


def test_a_verifier_is_a_password_and_both_together_are_none(place: Place) -> None:
    name = place.name("verified")
    verifier = scram.make(password("verified")).text()
    wish = {"name": name, "password_verifier": verifier}
    if not place.is_superuser(place.variables["PGUSER"]):
        place.make({"name": name, "password": password("verified")})
        result = place.run(wish)
        assert "password_verifier" in by_name(result)[name]["msg"]
        assert opens(place, name, password("verified"), name)
        return
    place.change(wish)
    assert opens(place, name, password("verified"), name)
    assert not place.make({"name": name, "password": password("verified")})["changed"]
    assert place.run({"name": name, "password": "x", "password_verifier": verifier})["failed"]
    assert place.sql("SELECT rolpassword FROM pg_authid WHERE rolname = %s", name) == [(verifier,)]


def test_a_rotation_replaces_the_password(place: Place) -> None:
    name = place.name("rotated")
    place.make({"name": name, "password": password("old")})
    place.change({"name": name, "password": password("new")})
    assert opens(place, name, password("new"), name)
    assert not opens(place, name, password("old"), name)


def test_a_rotation_without_downtime_takes_a_second_role(place: Place) -> None:
    owner, second = place.name("owner"), place.name("second")
    database = {"name": owner, "password": password("first")}
    place.make(database)
    with place.connect(owner, password("first"), owner) as running:
        running.execute("CREATE TABLE before (a int)")
        place.change(database, roles=[{"name": second, "password": password("second"), "acts_as": owner}])
        with place.connect(second, password("second"), owner) as other:
            other.execute("INSERT INTO before VALUES (1)")
            other.execute("CREATE TABLE after (a int)")
            other.execute("ALTER TABLE before ADD COLUMN b int")
        assert place.sql(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'",
            database=owner,
            login=(second, password("second")),
        ) == [(owner,)]
        # the first login goes away, nobody was interrupted
        place.change(
            {"name": owner, "password": password("third")},
            roles=[{"name": second, "password": password("second"), "acts_as": owner}],
        )
        assert running.execute("SELECT count(*) FROM after").fetchone() == (0,)
    assert not opens(place, owner, password("first"), owner)
    assert opens(place, owner, password("third"), owner)
    place.change({"name": owner, "password": password("third")}, roles=[{"name": second, "state": "absent"}])
    assert not opens(place, second, password("second"), owner)
    with place.connect(owner, password("third"), owner) as connection:
        assert connection.execute("SELECT a FROM before").fetchall() == [(1,)]


def test_an_expired_role_and_its_limit(place: Place) -> None:
    name, late = place.name("db"), place.name("late")
    database = {"name": name, "password": password("db"), "grants": [{"role": late, "privileges": ["CONNECT"]}]}
    role = {"name": late, "password": password("late"), "conn_limit": 1}
    place.change(database, roles=[{**role, "valid_until": "2001-01-01T00:00:00Z"}])
    assert not opens(place, late, password("late"), name)
    place.change(database, roles=[{**role, "valid_until": "2101-01-01T00:00:00Z"}])
    with (
        place.connect(late, password("late"), name),
        pytest.raises(psycopg.OperationalError, match="too many connections"),
    ):
        place.connect(late, password("late"), name)


def test_a_locale_that_differs_is_an_error_with_the_way_out(place: Place) -> None:
    name = place.name("fixed")
    place.make({"name": name, "locale": "C"})
    before = place.rights(name)
    for field, value in (("locale", "C.UTF-8"), ("encoding", "SQL_ASCII"), ("owner", place.name("other"))):
        wish = {"name": name, field: value}
        result = place.run(wish, {"name": place.name("beside")})
        item = by_name(result)[name]
        assert (result["failed"], item["action"]) == (True, "refused")
        assert field in item["msg"]
        assert "restore" in item["msg"] or "REASSIGN" in item["msg"]
        assert not by_name(result)[place.name("beside")]["failed"]
    assert place.rights(name) == before
    assert place.sql("SELECT datcollate FROM pg_database WHERE datname = %s", name) == [("C",)]


def test_retired_means_nobody_gets_in_and_nothing_is_lost(place: Place) -> None:
    name, reader, second = place.name("leaving"), place.name("reader"), place.name("second")
    reads = place.can_have_readers()
    lets_in = {"readers": [reader]} if reads else {"grants": [{"role": reader, "privileges": ["CONNECT"]}]}
    wish = {"name": name, "password": password("leaving"), **lets_in}
    roles = [
        {"name": reader, "password": password("reader")},
        {"name": second, "password": password("second"), "acts_as": name},
    ]
    place.make(wish, roles=roles)
    with place.connect(name, password("leaving"), name) as session:
        session.execute("CREATE TABLE kept AS SELECT 1 AS a")
        # an owner may let others in; they must not stay
        session.execute(f'GRANT CONNECT ON DATABASE "{name}" TO PUBLIC')
        place.change({"name": name, "state": "retired"}, roles=roles)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    for user in (name, reader, second):
        assert not opens(place, user, password(user.removeprefix(place.mark + "_")), name), user
    assert place.sql("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", name) == [(False,)]
    place.change(wish, roles=roles)
    for user in (name, second, *([reader] if reads else [])):
        with place.connect(user, password(user.removeprefix(place.mark + "_")), name) as session:
            assert session.execute("SELECT a FROM kept").fetchall() == [(1,)]


def test_retired_dumped_dropped_and_restored(place: Place, tmp_path: Path) -> None:
    pg_restore = str(programs(place).pg_restore)
    name, heir = place.name("gone"), place.name("heir")
    place.make({"name": name, "password": password("gone"), "extensions": ["hstore"], "locale": "C"})
    with place.connect(name, password("gone"), name) as session:
        session.execute("CREATE TABLE fruit AS SELECT g AS id, 'x' || g AS name FROM generate_series(1, 1234) g")
        session.execute("CREATE SCHEMA deep; CREATE TABLE deep.empty (a int)")
        session.execute("CREATE SEQUENCE counter; SELECT nextval('counter')")
    options = {"dump_dir": str(tmp_path / "dumps"), "max_delete_percent": 100}
    refused = place.run({"name": name, "state": "absent"}, max_delete_percent=100)
    assert refused["failed"]
    assert "dump_dir" in by_name(refused)[name]["msg"]
    assert opens(place, name, password("gone"), name)

    place.change({"name": name, "state": "retired"})
    place.change({"name": name, "state": "absent"}, **options)
    assert place.sql("SELECT 1 FROM pg_database WHERE datname = %s", name) == []
    assert place.sql("SELECT 1 FROM pg_roles WHERE rolname = %s", name) == []

    (directory,) = (tmp_path / "dumps").iterdir()
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["database"], manifest["owner"], manifest["encoding"]) == (name, name, "UTF8")
    assert {table["name"]: table["rows"] for table in manifest["tables"]} == {"fruit": 1234, "empty": 0}
    for file in manifest["files"]:
        data = (directory / "data" / file["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["size"], file["sha256"])

    place.make({"name": heir, "password": password("heir"), "locale": "C"})
    target = psycopg.conninfo.make_conninfo(
        "", host=place.admin["PGHOST"], port=place.admin.get("PGPORT", "5432"), user=heir, dbname=heir
    )
    subprocess.run(
        [
            pg_restore,
            "--exit-on-error",
            "--no-owner",
            f"--dbname={target}",
            str(directory / "data"),
        ],
        env={**os.environ, "PGPASSWORD": password("heir")},
        check=True,
        capture_output=True,
    )
    with place.connect(heir, password("heir"), heir) as session:
        assert session.execute("SELECT count(*), min(name) FROM fruit").fetchone() == (1234, "x1")
        owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert session.execute(f"{owners} AND relkind IN ('r', 'S')").fetchall() == [(heir,)]
        assert session.execute("SELECT nextval('counter')").fetchone() == (2,)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER DATABASE {} IS_TEMPLATE true",
        "ALTER DATABASE {} SET local_preload_libraries = 'nope'",
        "ALTER DATABASE {} SET statement_timeout = '1ms'",
        "ALTER DATABASE {} SET role = {}",
        "ALTER DATABASE {} SET default_transaction_read_only = on",
        "ALTER DATABASE {} SET standard_conforming_strings = off",
        "ALTER DATABASE {} CONNECTION LIMIT 0",
        "ALTER DATABASE {} ALLOW_CONNECTIONS false",
        "COMMENT ON DATABASE {} IS 'fediversity:{} retired=2001-01-01T00:00:00Z ext=citext:1'",
        "COMMENT ON DATABASE {} IS 'fediversity:somebody_else'",
        "COMMENT ON DATABASE {} IS NULL",
        "GRANT ALL ON DATABASE {} TO PUBLIC",
        "REVOKE ALL ON DATABASE {} FROM {}",
    ],
)
def test_an_owner_cannot_keep_its_database_from_being_managed_and_dropped(
    place: Place, tmp_path: Path, statement: str
) -> None:
    name = place.name("stubborn")
    wish = {"name": name, "password": password("stubborn"), "extensions": ["citext"]}
    place.make(wish)
    owner = (name, password("stubborn"))
    try:
        place.sql(statement, names=[name] * statement.count("{}"), login=owner)
    except psycopg.errors.InvalidParameterValue as error:
        pytest.skip(f"this server refuses it: {error}")
    extended = {**wish, "extensions": ["citext", "pg_trgm"]}
    place.make(extended)
    assert not place.make(extended)["changed"]
    place.change({"name": name, "state": "retired"})
    try:
        programs(place)
    except pytest.skip.Exception:
        options: dict[str, Any] = {"drop_without_dump": True}
    else:
        options = {"dump_dir": str(tmp_path)}
    place.change({"name": name, "state": "absent"}, max_delete_percent=100, **options)


def test_unlisted_databases_of_ours_are_retired_and_foreign_ones_left(place: Place) -> None:
    if place.private is None:
        pytest.skip("would retire what others have on the server of the environment")
    kept, unlisted, foreign = place.name("kept"), place.name("unlisted"), place.name("foreign")
    place.make({"name": kept, "password": password("kept")}, {"name": unlisted, "password": password("unlisted")})
    place.sql("CREATE ROLE {} LOGIN PASSWORD 'theirs'", names=[foreign])
    place.sql("CREATE DATABASE {} OWNER {}", names=[foreign, foreign])
    before = place.rights(foreign)
    place.change({"name": kept, "password": password("kept")}, unlisted="retired", max_delete_percent=100)
    assert opens(place, kept, password("kept"), kept)
    assert not opens(place, unlisted, password("unlisted"), unlisted)
    assert place.rights(foreign) == before
    assert opens(place, foreign, "theirs", foreign)
    for state in ("present", "retired", "absent"):
        result = place.run({"name": foreign, "state": state}, drop_without_dump=True, max_delete_percent=100)
        assert by_name(result)[foreign]["action"] == "refused"
    assert place.rights(foreign) == before
