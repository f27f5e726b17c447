# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Managed servers: our login is no superuser and may not read pg_authid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Denied
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import passwords, scram
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.plan import Policy
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.provider import Look
from postgresql_runs import Login, Sql, actions, by_name, made, role, run, wish
from support.postgresql import Server as RunningServer

CONNECT = frozenset({"CONNECT"})
PROVISIONER = "provisioner_pw"


@pytest.fixture
def managed(server: Server, sql: Sql) -> Server:
    if not sql("SELECT 1 FROM pg_roles WHERE rolname = 'provisioner'"):
        sql(f"CREATE ROLE provisioner LOGIN CREATEDB CREATEROLE PASSWORD '{PROVISIONER}'")
    return replace(server, user="provisioner", password=PROVISIONER)


@pytest.fixture
def has_readers(sql: Sql) -> bool:
    ((version,),) = sql("SELECT current_setting('server_version_num')::int")
    return int(str(version)) >= 150000


@pytest.fixture
def hba(running: RunningServer, sql: Sql) -> Iterator[Callable[[str], None]]:
    """Puts a line before all others of pg_hba.conf while the test runs."""
    path = running.socket_directory / "data" / "pg_hba.conf"
    text = path.read_text(encoding="utf-8")

    def first(line: str) -> None:
        path.write_text(f"{line}\n{text}", encoding="utf-8")
        sql("SELECT pg_reload_conf(), pg_sleep(0.2)")

    yield first
    path.write_text(text, encoding="utf-8")
    sql("SELECT pg_reload_conf(), pg_sleep(0.2)")


def test_everything_is_made_without_a_superuser(managed: Server, login: Login, has_readers: bool) -> None:
    app = wish(
        "managed_app",
        password="p",
        extensions=("hstore", "pg_trgm"),
        conn_limit=9,
        grants={"managed_guest": CONNECT},
        readers=frozenset({"managed_reader"}) if has_readers else None,
    )
    roles = [
        role("managed_guest", password="g"),
        role("managed_reader", password="r"),
        role("managed_second", password="s", acts_as="managed_app", conn_limit=5),
    ]
    done = made(managed, app, *roles)
    assert by_name(done)["managed_app"]["size_bytes"] > 1_000_000
    with login("managed_second", "s", "managed_app") as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
    login("managed_guest", "g", "managed_app").close()
    if has_readers:
        with login("managed_reader", "r", "managed_app") as connection:
            assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]
    made(managed, replace(app, grants={}), *(replace(item, state="absent") for item in roles[:1]), *roles[1:])


def test_a_changed_password_is_found_by_logging_in(managed: Server, sql: Sql, login: Login) -> None:
    app = wish("managed_rotated", password="one")
    made(managed, app)
    made(managed, replace(app, password="two"))
    login("managed_rotated", "two", "managed_rotated").close()
    sql("ALTER ROLE managed_rotated PASSWORD 'three'")
    assert made(managed, replace(app, password="two"))["diff"]["before"]["managed_rotated"]["password"] == "differs"
    sql("ALTER ROLE managed_rotated NOLOGIN")
    made(managed, replace(app, password="two"))
    # what the server says after it has accepted the password
    sql("ALTER ROLE managed_rotated CONNECTION LIMIT 0")
    assert not run(managed, replace(app, password="two"))["changed"]


def test_a_verifier_cannot_be_compared(managed: Server) -> None:
    verifier = scram.make("p").text()
    result = run(managed, wish("unverifiable", verifier=verifier), role("unverifiable_role", verifier=verifier))
    assert set(actions(result).values()) == {"refused"}
    assert "'unverifiable', password_verifier" in result["msg"]
    with pytest.raises(Denied, match="pg_authid"):
        run(managed, wish("any"), look=Look(passwords="catalogue"))


def test_a_login_that_says_nothing_about_the_password_is_told(
    managed: Server, server: Server, hba: Callable[[str], None]
) -> None:
    app = wish("doubtful", password="p")
    made(managed, app)
    hba("host all doubtful all trust")
    result = run(managed, app, wish("beside_doubtful"))
    assert "without asking for its password" in by_name(result)["doubtful"]["msg"]
    assert not by_name(result)["beside_doubtful"]["failed"]
    hba("host all doubtful all reject")
    assert "pg_hba.conf" in by_name(run(managed, app))["doubtful"]["msg"]
    # who can read the stored one needs no login
    assert not run(server, app)["failed"]


def test_a_wrong_password_is_known_in_the_language_of_the_server() -> None:
    wrong = "Passwort-Authentifizierung für Benutzer »\0« fehlgeschlagen"
    server = Server("h", 1, user="eins")
    for said, expected in (
        ("Passwort-Authentifizierung für Benutzer »eins« fehlgeschlagen", "differs"),
        ('password authentication failed for user "eins"', "differs"),
        ('permission denied for database "d"', "as wanted"),
        ('too many connections for role "eins"', "as wanted"),
    ):
        error = psycopg.OperationalError(f'connection to server at "h", port 1 failed: FATAL:  {said}')
        assert passwords._judged(server, error, wrong, "") == expected
    for said in ("kein pg_hba.conf-Eintrag für Host »h«", "Datenbank »d« existiert nicht"):
        error = psycopg.OperationalError(f'connection to server at "h", port 1 failed: FATAL:  {said}')
        assert isinstance(passwords._judged(server, error, wrong, ""), Denied)


def test_a_superuser_may_check_by_login_too(server: Server) -> None:
    made(server, wish("tried", password="p"), look=Look(passwords="login"))
    assert made(server, wish("tried", password="q"), look=Look(passwords="login"))["changed"]


def test_what_others_made_is_refused_or_told(managed: Server, sql: Sql) -> None:
    sql("CREATE ROLE powerful SUPERUSER LOGIN; COMMENT ON ROLE powerful IS 'fediversity:powerful'")
    sql("CREATE DATABASE foreign_to_managed")
    result = run(managed, wish("powerful"), wish("foreign_to_managed"), wish("managed_ours"))
    assert {name for name, item in by_name(result).items() if item["failed"]} == {"powerful", "foreign_to_managed"}
    assert sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'powerful'") == [(True,)]


@pytest.mark.usefixtures("pg_dump")
def test_retired_dumped_and_dropped(managed: Server, login: Login, sql: Sql, tmp_path: Path) -> None:
    app = wish("managed_going", password="p", conn_limit=2)
    made(managed, app)
    client = login("managed_going", "p", "managed_going")
    client.execute("CREATE TABLE t AS SELECT generate_series(1, 3) AS n")
    retired = made(managed, replace(app, state="retired"))
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT 1")
    # nobody tells us the size of a database that we may not connect to
    assert by_name(retired)["managed_going"]["size_bytes"] is None
    made(managed, app)
    login("managed_going", "p", "managed_going").close()
    policy = Policy(dump_dir=tmp_path)
    done = run(managed, replace(app, state="absent"), policy=policy)
    assert not done["failed"], done["msg"]
    assert [table["rows"] for table in done["dumps"]["managed_going"]["tables"]] == [3]
    assert sql("SELECT 1 FROM pg_roles WHERE rolname = 'managed_going'") == []


def test_a_role_that_has_expired_is_told_and_its_password_is_as_wanted_later(managed: Server, login: Login) -> None:
    late = role("managed_late", password="p", valid_until="2001-01-01T00:00:00Z")
    made(managed, late)
    result = run(managed, replace(late, valid_until=None))
    assert "the role has expired (2001-01-01" in by_name(result)["role managed_late"]["msg"]
    # nobody could see whether the password is another one
    assert not run(managed, replace(late, password="q"))["changed"]
    made(managed, replace(late, password="q", valid_until="infinity"))
    login("managed_late", "q", "postgres").close()


def test_an_owner_that_shuts_us_out_is_mended(managed: Server, login: Login) -> None:
    app = wish("managed_shut", password="p", extensions=("citext",))
    made(managed, app)
    for statement in (
        "ALTER DATABASE managed_shut CONNECTION LIMIT 0",
        "REVOKE ALL ON DATABASE managed_shut FROM managed_shut",
        "ALTER DATABASE managed_shut ALLOW_CONNECTIONS false",
    ):
        with login("managed_shut", "p", "managed_shut") as connection:
            connection.execute("DROP EXTENSION citext")
        with login("managed_shut", "p", "postgres") as connection:
            connection.execute(statement)
        made(managed, app)
        assert not made(managed, app, look=Look(extensions="always"))["changed"]
