# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may do what: grants on databases, readers inside them, and further roles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import scram
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.provider import Look
from postgresql_runs import Login, Sql, actions, by_name, made, role, run, wish

CONNECT = frozenset({"CONNECT"})


def test_grants_are_exact(server: Server, sql: Sql, login: Login) -> None:
    app = wish("granted", grants={"guest": CONNECT | {"TEMPORARY"}})
    guest = role("guest", password="g")
    made(server, app, guest)
    login("guest", "g", "granted").close()
    sql("GRANT CREATE ON DATABASE granted TO guest WITH GRANT OPTION")
    sql("CREATE ROLE stranger")
    sql("GRANT CONNECT ON DATABASE granted TO stranger")
    done = made(server, app, guest)
    assert done["diff"]["before"]["granted"]["grants"] == {
        "guest": ["CONNECT", "CREATE", "TEMPORARY"],
        "stranger": ["CONNECT"],
    }
    assert done["diff"]["after"]["granted"]["grants"] == {"guest": ["CONNECT", "TEMPORARY"]}
    # not given: left alone
    assert not run(server, replace(app, grants=None))["changed"]
    made(server, replace(app, grants={}))
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        login("guest", "g", "granted")


@pytest.mark.parametrize("privilege", ["CONNECT", "TEMPORARY", "CREATE"])
def test_what_everybody_was_given_is_taken_away(server: Server, sql: Sql, privilege: str) -> None:
    made(server, wish("open_again"))
    sql(f"GRANT {privilege} ON DATABASE open_again TO PUBLIC")
    done = made(server, wish("open_again"))
    assert done["diff"]["before"]["open_again"]["access"] == "everybody"


@pytest.mark.parametrize("privilege", ["CONNECT", "TEMPORARY", "CREATE"])
def test_what_the_owner_lost_is_given_back(server: Server, sql: Sql, privilege: str) -> None:
    made(server, wish("owner_lost"))
    sql(f"REVOKE {privilege} ON DATABASE owner_lost FROM owner_lost")
    assert made(server, wish("owner_lost"))["changed"]


def test_readers_read_everything_there_is_and_will_be_and_write_nothing(server: Server, sql: Sql, login: Login) -> None:
    app = wish("read", password="p", readers=frozenset({"reader_a", "reader_b"}))
    readers = [role("reader_a", password="a"), role("reader_b", password="b")]
    made(server, replace(app, readers=None))
    with login("read", "p", "read") as connection:
        connection.execute("CREATE TABLE old (id serial, n int); INSERT INTO old (n) VALUES (1)")
        connection.execute('CREATE SCHEMA "Odd ""one"; CREATE VIEW "Odd ""one"."a view" AS SELECT n FROM old')
    made(server, app, *readers)
    with login("read", "p", "read") as connection:
        connection.execute("CREATE TABLE new AS SELECT 2 AS n; CREATE SCHEMA later CREATE TABLE newer (n int)")
    assert not run(server, app, *readers, look=Look(extensions="always"))["changed"]
    with login("reader_a", "a", "read") as connection:
        for table in ("old", "new", "later.newer", '"Odd ""one"."a view"'):
            connection.execute(f"SELECT n FROM {table}")
        connection.execute("SELECT last_value FROM old_id_seq")
        for statement in ("INSERT INTO old VALUES (1)", "DELETE FROM new", "CREATE TABLE mine ()", "CREATE SCHEMA s"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)

    done = made(server, replace(app, readers=frozenset({"reader_a"})), *readers)
    assert done["diff"]["before"]["read"]["readers"] == ["reader_a", "reader_b"]
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        login("reader_b", "b", "read")
    held = "SELECT has_table_privilege('reader_b', 'old', 'SELECT') OR has_table_privilege('reader_b', 'new', 'SELECT')"
    assert sql(held, database="read") == [(False,)]
    sql("SET ROLE read; CREATE TABLE after_b ()", database="read")
    assert sql("SELECT has_table_privilege('reader_b', 'after_b', 'SELECT')", database="read") == [(False,)]
    # nothing is left that would keep the role
    made(server, replace(app, readers=frozenset({"reader_a"})), replace(readers[1], state="absent"))


@pytest.mark.parametrize(
    "statement",
    [
        "REVOKE SELECT ON things FROM watcher",
        "REVOKE SELECT ON things_id_seq FROM watcher",
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC, watcher",
        "ALTER DEFAULT PRIVILEGES FOR ROLE watched REVOKE SELECT ON TABLES FROM watcher",
        "REVOKE CONNECT ON DATABASE watched FROM watcher",
    ],
)
def test_what_a_reader_lost_is_found_without_being_told(server: Server, sql: Sql, statement: str) -> None:
    desired = [wish("watched", readers=frozenset({"watcher"})), role("watcher")]
    run(server, *desired)
    sql("SET ROLE watched; CREATE TABLE IF NOT EXISTS things (id serial)", database="watched")
    assert not run(server, *desired)["changed"]
    sql(statement, database="watched")
    assert actions(made(server, *desired)) == {"watched": "update", "role watcher": "unchanged"}


def test_a_second_role_changes_the_password_without_downtime(server: Server, login: Login, sql: Sql) -> None:
    app = wish("rotating", password="old")
    second = role("rotating_b", mark="rotating", password="new", acts_as="rotating")
    made(server, app)
    made(server, app, second)
    with login("rotating_b", "new", "rotating") as connection:
        connection.execute("CREATE TABLE made_by_b ()")
    assert sql("SELECT tableowner FROM pg_tables WHERE tablename = 'made_by_b'", database="rotating") == [("rotating",)]
    sql("ALTER ROLE rotating_b RESET role; REVOKE rotating FROM rotating_b")
    done = made(server, app, second)
    assert done["diff"]["before"]["role rotating_b"]["acts_as"] is None
    assert actions(made(server, app, replace(second, state="absent")))["role rotating_b"] == "delete"


def test_roles_are_as_listed(server: Server, sql: Sql) -> None:
    sql("CREATE ROLE team_a; CREATE ROLE team_b; CREATE ROLE team_c")
    item = role(
        "worker", member_of=frozenset({"team_a", "team_b"}), conn_limit=3, valid_until="2030-01-01T01:00:00+01:00"
    )
    made(server, item)
    attributes = "SELECT rolconnlimit, extract(epoch FROM rolvaliduntil)::int, rolcanlogin FROM pg_roles"
    assert sql(f"{attributes} WHERE rolname = 'worker'") == [(3, 1893456000, True)]
    sql("GRANT team_c TO worker WITH ADMIN OPTION; REVOKE team_a FROM worker; ALTER ROLE worker CONNECTION LIMIT 9")
    sql("ALTER ROLE worker VALID UNTIL 'infinity' CREATEDB")
    done = made(server, item)
    assert done["diff"]["before"]["role worker"]["member_of"] == ["team_b", "team_c"]
    made(server, replace(item, valid_until="infinity", member_of=None, conn_limit=None))
    members = "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = 'worker'::regrole ORDER BY 1"
    assert sql(members) == [("team_a",), ("team_b",)]
    made(server, replace(item, state="absent"))
    assert sql("SELECT 1 FROM pg_roles WHERE rolname = 'worker'") == []


def test_a_role_that_owns_something_is_not_dropped(server: Server, sql: Sql) -> None:
    made(server, wish("workshop"), role("smith"))
    sql("CREATE SCHEMA forge AUTHORIZATION smith", database="workshop")
    result = run(server, role("smith", state="absent"))
    assert actions(result) == {"role smith": "refused"}
    assert "'workshop' holds objects of it" in result["msg"]
    made(server, role("smith", state="retired"))


def test_a_verifier_is_taken_as_it_is(server: Server, login: Login) -> None:
    verifier = scram.make("known to nobody here").text()
    made(server, wish("verified", verifier=verifier))
    login("verified", "known to nobody here", "verified").close()
    other = scram.make("known to nobody here").text()
    assert made(server, wish("verified", verifier=other))["changed"]
    assert not run(server, wish("verified", password="known to nobody here"))["changed"]


@pytest.mark.parametrize(
    "verifier",
    [
        "SCRAM-SHA-256$4096:salt$AAAA:BBBB",
        "SCRAM-SHA-256$0:c2FsdA==$" + "A" * 43 + "=:" + "A" * 43 + "=",
        "SCRAM-SHA-256$4096:c2FsdA==$" + "A" * 43 + "=:" + "A" * 43 + "=\n",
        "md5" + "0" * 32,
        "plain-text-4711",
        "",
    ],
)
def test_a_malformed_verifier_is_refused_and_never_sent(server: Server, sql: Sql, verifier: str) -> None:
    result = run(server, wish("malformed", verifier=verifier), role("malformed_role", verifier=verifier))
    assert set(actions(result).values()) == {"refused"}
    for item in result["results"]:
        assert "password_verifier" in item["msg"]
        assert not verifier or verifier not in item["msg"]
    assert sql("SELECT 1 FROM pg_roles WHERE rolname LIKE 'malformed%'") == []


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (wish("named", grants={"nobody_known": CONNECT}), "'named', grants: there is no role 'nobody_known'"),
        (wish("named", readers=frozenset({"nobody_known"})), "'named', readers"),
        (wish("named", grants={"named": CONNECT}), "owner has all privileges"),
        (wish("named", grants={"public": CONNECT}), "is no role"),
        (wish("role named"), "reads like that of a role"),
        (wish("named", locale_provider="icu"), "needs a locale"),
        (wish("named", password="p", verifier="v"), "password and password_verifier"),
        (role("named", member_of=frozenset({"nobody_known"})), "there is no role"),
        (role("named", acts_as="named"), "member of itself"),
        (role("named", valid_until="tomorrow"), "'named', valid_until"),
        (role("named", valid_until="2030-01-01T00:00:00"), "'named', valid_until"),
        (role("named", conn_limit=1 << 31), "conn_limit"),
        (role("pg_named"), "reserved"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(server: Server, sql: Sql, item: Any, said: str) -> None:
    result = run(server, item, role("beside_it"))
    assert actions(result)[item.key] == "refused"
    assert said in by_name(result)[item.key]["msg"]
    assert not by_name(result)["role beside_it"]["failed"]
    assert sql("SELECT 1 FROM pg_roles WHERE rolname = 'named'") == []


def test_an_owner_is_not_listed_twice(server: Server) -> None:
    result = run(server, wish("lonely"), role("lonely"))
    assert actions(result) == {"lonely": "create", "role lonely": "refused"}
