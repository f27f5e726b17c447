# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The provider against a real PostgreSQL server."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Denied, Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from postgresql_runs import Login, Sql, actions, by_name, run, wish

SENTINEL = "sentinel-4f0c-password"


def test_check_mode_predicts_then_the_run_makes_then_nothing_is_left(server: Server, login: Login) -> None:
    desired = [
        wish("made_one", password=SENTINEL, extensions=("hstore", "pg_trgm"), conn_limit=7, locale="C"),
        wish("made_two", owner="made_owner", mark="made", password="other"),
    ]
    predicted = run(server, *desired, check=True)
    assert predicted["changed"]
    with pytest.raises(psycopg.OperationalError):
        login("made_one", SENTINEL, "made_one")

    done = run(server, *desired)
    assert not done["failed"], done["msg"]
    assert done["diff"] == predicted["diff"]
    assert actions(done) == actions(predicted) == {"made_one": "create", "made_two": "create"}
    assert by_name(done)["made_two"]["owner"] == "made_owner"
    assert by_name(done)["made_one"]["size_bytes"] > 1_000_000

    again = run(server, *desired)
    assert not again["changed"]
    assert again["diff"] == {"before": {}, "after": {}}

    with login("made_one", SENTINEL, "made_one") as connection:
        connection.execute('CREATE TABLE fruit (name text COLLATE "C", tags public.hstore)')
        row = connection.execute(
            "SELECT datcollate, datctype, datconnlimit, rolsuper, rolcreatedb, rolcreaterole"
            " FROM pg_database JOIN pg_roles ON datdba = pg_roles.oid WHERE datname = current_database()"
        ).fetchone()
    assert row == ("C", "C", 7, False, False, False)


def test_neighbours_cannot_connect(server: Server, login: Login) -> None:
    run(server, wish("neighbour_a", password="a-password"), wish("neighbour_b", password="b-password"))
    login("neighbour_a", "a-password", "neighbour_a").close()
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        login("neighbour_a", "a-password", "neighbour_b")


def test_no_password_reaches_log_diff_or_result(server: Server, log_directory: Path) -> None:
    first = run(server, wish("quiet", password=SENTINEL))
    second = run(server, wish("quiet", password=SENTINEL + "-2"), wish("quiet_refused", password="", owner="none"))
    log = (log_directory / "postgresql.log").read_text(encoding="utf-8")
    assert 'CREATE ROLE "quiet"' in log
    for text in (log, json.dumps(first), json.dumps(second), repr(wish("quiet", password=SENTINEL))):
        assert SENTINEL not in text
    for text in (json.dumps(first), json.dumps(second)):
        assert "SCRAM-SHA-256" not in text
    assert second["diff"]["before"]["quiet"]["password"] == "differs"


def test_a_changed_password_replaces_the_old_one(server: Server, login: Login) -> None:
    run(server, wish("rotated", password="old"))
    result = run(server, wish("rotated", password="new"))
    assert actions(result) == {"rotated": "update"}
    login("rotated", "new", "rotated").close()
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        login("rotated", "old", "rotated")
    assert not run(server, wish("rotated"))["changed"]


@pytest.mark.parametrize(
    "password", ["pässwörd ™", "I\u00adX\u2168", "\u06271", "' \\ \" $$ {{ x }}", "SCRAM-SHA-256$4096:salt$AAAA:BBBB"]
)
def test_any_password_logs_in(server: Server, login: Login, password: str) -> None:
    assert not run(server, wish("prepared", password=password))["failed"]
    login("prepared", password, "prepared").close()


@pytest.mark.parametrize(
    "name", ['a"; DROP ROLE postgres; --', "it's", "{}%s%(x)s", "Grüße ☃", "back\\slash", "select"]
)
def test_hostile_identifiers_are_plain_names(server: Server, login: Login, name: str) -> None:
    item = wish(name, password="secret", mark="hostile", extensions=("citext",))
    assert not run(server, item)["failed"]
    assert not run(server, item)["changed"]
    login(name, "secret", name).close()
    assert actions(run(server, replace(item, state="absent"))) == {name: "delete"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "n" * 64}, "64 bytes"),
        ({"name": "☃" * 22}, "66 bytes"),
        ({"name": "null\0byte"}, "null character"),
        ({"name": ""}, "0 bytes"),
        ({"name": "good", "owner": "pg_hacker"}, "reserved"),
        ({"name": "good", "owner": "public"}, "reserved"),
        ({"name": "good", "mark": "two words"}, "white space"),
        ({"name": "good", "password": ""}, "empty"),
        ({"name": "good", "conn_limit": -2}, "conn_limit"),
        ({"name": "good", "extensions": ("",)}, "extensions"),
    ],
)
def test_bad_input_is_refused_with_its_field_and_the_others_are_made(server: Server, fields: Any, said: str) -> None:
    bad = wish(**{"owner": fields["name"], "mark": "bad", **fields})
    result = run(server, bad, wish("beside_bad_input"))
    assert actions(result)[bad.name] == "refused"
    assert said in by_name(result)[bad.name]["msg"]
    assert not by_name(result)["beside_bad_input"]["failed"]


def test_what_carries_no_mark_of_ours_is_never_touched(server: Server, sql: Sql) -> None:
    sql("CREATE ROLE foreign_role LOGIN PASSWORD 'theirs'")
    sql("CREATE DATABASE foreign_database")
    sql("CREATE DATABASE other_mark")
    sql("COMMENT ON DATABASE other_mark IS 'fediversity:somebody'")
    before = sql("SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'foreign%'")
    for state in ("present", "absent"):
        result = run(
            server,
            wish("foreign_role", password="ours", state=state),
            wish("foreign_database", state=state),
            wish("other_mark", state=state),
            wish("postgres", state=state),
            wish("allowed", state=state),
        )
        assert actions(result) == {
            "foreign_role": "refused",
            "foreign_database": "refused",
            "other_mark": "refused",
            "postgres": "refused",
            "allowed": "create" if state == "present" else "delete",
        }
        assert "COMMENT ON ROLE" in by_name(result)["foreign_role"]["msg"]
        assert "somebody" in by_name(result)["other_mark"]["msg"]
    assert sql("SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'foreign%'") == before
    assert sql("SELECT 1 FROM pg_roles WHERE rolname IN ('foreign_database', 'other_mark')") == []


def test_a_failing_item_leaves_the_others_done(server: Server) -> None:
    desired = [
        wish("fails_late", extensions=("no_such_extension",)),
        wish("untrusted", extensions=("file_fdw",)),
        wish("works", extensions=("hstore",)),
    ]
    result = run(server, *desired)
    assert result["failed"]
    assert {name for name, item in by_name(result).items() if item["failed"]} == {"fails_late", "untrusted"}
    assert "no_such_extension" in by_name(result)["fails_late"]["msg"]
    assert "only a superuser" in by_name(result)["untrusted"]["msg"]
    again = run(server, replace(desired[0], extensions=("citext",)), replace(desired[1], extensions=()), desired[2])
    assert not again["failed"], again["msg"]
    assert actions(again) == {"fails_late": "create", "untrusted": "create", "works": "unchanged"}


def test_locale_encoding_and_owner_cannot_be_changed_in_place(server: Server) -> None:
    run(server, wish("fixed", locale="C"))
    for fields, said in (
        ({"locale": "C.UTF-8"}, "locale"),
        ({"encoding": "SQL_ASCII"}, "encoding"),
        ({"owner": "fixed_other"}, "owner"),
    ):
        result = run(server, wish("fixed", **fields))
        assert actions(result) == {"fixed": "refused"}
        assert f"'fixed', {said}" in result["msg"]
    assert not run(server, wish("fixed", locale="POSIX", encoding="utf-8"))["changed"]


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("ALTER ROLE drifting NOLOGIN CREATEDB", "role_attributes"),
        ("ALTER ROLE drifting PASSWORD NULL", "password"),
        ("GRANT CONNECT ON DATABASE drifting TO PUBLIC", "access"),
        ("GRANT TEMPORARY ON DATABASE drifting TO PUBLIC", "access"),
        ("REVOKE CONNECT ON DATABASE drifting FROM drifting", "access"),
        ("ALTER DATABASE drifting ALLOW_CONNECTIONS false", "access"),
        ("ALTER DATABASE drifting CONNECTION LIMIT 3", "conn_limit"),
        ("COMMENT ON DATABASE drifting IS NULL", "mark"),
    ],
)
def test_drift_is_seen_and_mended(server: Server, login: Login, sql: Sql, statement: str, shown: str) -> None:
    item = wish("drifting", password="secret")
    run(server, item)
    sql(statement)
    result = run(server, item)
    assert actions(result) == {"drifting": "update"}
    assert result["diff"]["before"]["drifting"][shown] != result["diff"]["after"]["drifting"][shown]
    assert not result["failed"], result["msg"]
    login("drifting", "secret", "drifting").close()
    assert not run(server, item)["changed"]


def test_a_run_that_ended_after_create_database_is_continued(server: Server, sql: Sql) -> None:
    run(server, wish("torn", extensions=("hstore",)))
    sql("DROP DATABASE torn")
    sql("CREATE DATABASE torn OWNER torn TEMPLATE template0 ENCODING 'UTF8' ALLOW_CONNECTIONS false")
    result = run(server, wish("torn", extensions=("hstore",)))
    assert actions(result) == {"torn": "update"}
    assert not result["failed"], result["msg"]
    assert not run(server, wish("torn", extensions=("hstore",)))["changed"]


def test_absent_drops_under_clients_and_once(server: Server, login: Login, sql: Sql) -> None:
    run(server, wish("leaving", password="secret"))
    client = login("leaving", "secret", "leaving")
    client.execute("CREATE TABLE kept (n int)")
    predicted = run(server, wish("leaving", state="absent"), check=True)
    assert sql("SELECT 1 FROM pg_database WHERE datname = 'leaving'") == [(1,)]
    result = run(server, wish("leaving", state="absent"))
    assert result["diff"] == predicted["diff"]
    assert not result["failed"], result["msg"]
    assert sql("SELECT 1 FROM pg_database WHERE datname = 'leaving'") == []
    assert sql("SELECT 1 FROM pg_roles WHERE rolname = 'leaving'") == []
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT 1")
    assert not run(server, wish("leaving", state="absent"))["changed"]


def test_a_role_stays_while_it_owns_another_database(server: Server, sql: Sql) -> None:
    first, second = (wish(name, owner="shared", mark="shared", password="p") for name in ("shared_a", "shared_b"))
    assert not run(server, first, second)["failed"]
    assert not run(server, replace(first, state="absent"), second)["failed"]
    assert sql("SELECT 1 FROM pg_roles WHERE rolname = 'shared'") == [(1,)]
    run(server, first)
    assert not run(server, replace(first, state="absent"), replace(second, state="absent"))["failed"]
    assert sql("SELECT 1 FROM pg_roles WHERE rolname = 'shared'") == []


def test_contradictions_are_refused(server: Server) -> None:
    result = run(
        server,
        wish("twice"),
        wish("twice", conn_limit=3),
        wish("one_role_a", owner="one_role", mark="m", password="a"),
        wish("one_role_b", owner="one_role", mark="m", password="b"),
        wish("no_contradiction"),
    )
    assert actions(result) == {
        "twice": "refused",
        "one_role_a": "refused",
        "one_role_b": "refused",
        "no_contradiction": "create",
    }


def test_two_runs_at_once_do_not_mix(server: Server) -> None:
    desired = [wish(f"race_{number}", password="same", extensions=("citext",)) for number in range(3)]
    results: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: results.append(run(server, *desired))) for _run in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    for result in results:
        for item in result["results"]:
            assert not item["failed"] or "Run again" in item["msg"]
    final = run(server, *desired)
    assert not final["failed"]
    assert not final["changed"]


def test_unreachable_and_denied(server: Server) -> None:
    with pytest.raises(Unreachable, match="login_port"):
        run(replace(server, port=1), wish("any"))
    with pytest.raises(Denied, match="login_password") as caught:
        run(replace(server, password=SENTINEL), wish("any"))
    assert SENTINEL not in str(caught.value)
    run(server, wish("no_superuser", password="p"))
    unprivileged = replace(server, user="no_superuser", password="p", database="no_superuser")
    denied = run(unprivileged, *(wish(f"any_{number}") for number in range(8)))
    assert all("permission denied to create role" in item["msg"] for item in denied["results"])
