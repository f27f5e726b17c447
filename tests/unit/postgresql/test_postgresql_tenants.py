# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a tenant does with its own database and its own sessions must neither hinder a run nor mislead it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, InvalidInput, Locked
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import apply, client
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.plan import Policy
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.session import LOCK_KEY
from postgresql_runs import Login, Sql, actions, by_name, made, role, run, wish
from support.postgresql import Server as RunningServer

LONG_AGO = "2001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "comment",
    [
        f"fediversity:forger ext=x:{'9' * 5000}",
        "fediversity:forger ext=x:²,y:,:3,%:4",
        "fediversity:forger retired=never",
        "fediversity:forger " + "a" * 100_000,
        f"fediversity:forger retired={LONG_AGO}",
        "fediversity:neighbour",
        "fediversity:",
        "",
    ],
)
def test_a_comment_of_a_tenant_proves_nothing(server: Server, login: Login, comment: str) -> None:
    app = wish("forger", password="p", extensions=("citext",))
    neighbour = wish("neighbour")
    run(server, replace(app, state="present"), neighbour)
    with login("forger", "p", "forger") as connection:
        connection.execute(psycopg.sql.SQL("COMMENT ON DATABASE forger IS {}").format(comment))
    assert not run(server, neighbour)["failed"]
    unlisted = run(server, neighbour, policy=Policy(unlisted="retired", mark_prefix="forger"), check=True)
    assert actions(unlisted) == {"neighbour": "unchanged", "forger": "update"}
    done = run(server, app)
    assert not done["failed"], done["msg"]
    assert not run(server, app)["changed"]
    with login("forger", "p", "forger") as connection:
        connection.execute(psycopg.sql.SQL("COMMENT ON DATABASE forger IS {}").format(comment))
    retired = made(server, replace(app, state="retired"))
    assert by_name(retired)["forger"]["retired_since"] > LONG_AGO
    made(server, replace(app, state="absent"))


@pytest.mark.parametrize("lie", ["citext:{hstore}", "citext:{hstore},hstore:{hstore}", "citext:1", "citext:{citext}"])
def test_a_false_record_of_extensions_hides_nothing(server: Server, sql: Sql, login: Login, lie: str) -> None:
    app = wish("liar", password="p", extensions=("citext", "hstore"))
    run(server, app)
    oids = {str(name): oid for name, oid in sql("SELECT extname, oid::bigint FROM pg_extension", database="liar")}
    with login("liar", "p", "liar") as connection:
        connection.execute("DROP EXTENSION citext")
        connection.execute(f"COMMENT ON DATABASE liar IS 'fediversity:liar ext={lie.format(**oids)}'")
    assert made(server, app)["diff"]["before"]["liar"]["extensions"] == ["hstore"]


def test_a_further_extension_of_a_tenant_is_left_alone(server: Server, login: Login) -> None:
    app = wish("extender", password="p", extensions=("citext",))
    run(server, app)
    with login("extender", "p", "extender") as connection:
        connection.execute("CREATE EXTENSION hstore")
    assert not run(server, app)["changed"]


def test_a_role_cannot_comment_on_itself(server: Server, login: Login) -> None:
    run(server, wish("commenter", password="p"))
    with (
        login("commenter", "p", "commenter") as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("COMMENT ON ROLE commenter IS NULL")


def test_a_database_of_somebody_else_is_not_ours_by_its_comment(server: Server, sql: Sql) -> None:
    run(server, wish("claimed"))
    sql("DROP DATABASE claimed")
    sql("CREATE ROLE third")
    sql("CREATE DATABASE claimed OWNER third")
    sql("COMMENT ON DATABASE claimed IS 'fediversity:claimed'")
    for state in ("present", "retired", "absent"):
        result = run(server, wish("claimed", state=state))
        assert actions(result) == {"claimed": "refused"}
        assert "REASSIGN OWNED" in result["msg"]
    assert not run(server, policy=Policy(unlisted="retired"), check=True)["diff"]["after"].get("claimed")
    sql("DROP DATABASE claimed")


def test_the_lock_is_not_for_tenants(server: Server, login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    app = wish("locker", password="p")
    run(server, app)
    tenant = login("locker", "p", "postgres")
    tenant.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
    assert not run(server, app)["failed"]
    with pytest.raises(psycopg.OperationalError):
        tenant.execute("SELECT 1")
    # who is none of ours may be another run, and is named
    monkeypatch.setitem(client.SETTINGS, "lock_timeout", "200ms")
    with login(str(server.user), str(server.password), "postgres") as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
        with pytest.raises(Locked, match=rf"postgres \(process {other.info.backend_pid}\)"):
            run(server, app)


@pytest.mark.parametrize("state", ["retired", "absent"])
@pytest.mark.parametrize("database", ["holder", "postgres"])
def test_an_open_transaction_of_the_tenant_stops_nothing(
    server: Server, login: Login, monkeypatch: pytest.MonkeyPatch, state: str, database: str
) -> None:
    monkeypatch.setitem(client.SETTINGS, "lock_timeout", "1s")
    run(server, wish("holder", password="p"))
    with login("holder", "p", database) as tenant:
        tenant.execute("BEGIN; COMMENT ON DATABASE holder IS 'fediversity:holder'")
        done = run(server, wish("holder", state=state))
        assert not done["failed"], done["msg"]
        with pytest.raises(psycopg.OperationalError):
            tenant.execute("COMMIT")
    run(server, wish("holder", state="absent"))


def test_who_comes_back_at_once_is_shut_out(server: Server, running: RunningServer) -> None:
    run(server, wish("eager", password="p"))
    stop = threading.Event()

    def come_back() -> None:
        while not stop.is_set():
            try:
                with psycopg.connect(
                    host=running.host, port=running.port, user="eager", password="p", dbname="eager"
                ) as tenant:
                    tenant.execute("COMMENT ON DATABASE eager IS NULL")
                    tenant.execute("SELECT pg_sleep(60)")
            except psycopg.Error:
                stop.wait(0.01)

    tenants = [threading.Thread(target=come_back) for _number in range(3)]
    for tenant in tenants:
        tenant.start()
    try:
        done = run(server, wish("eager", state="retired"))
    finally:
        stop.set()
        run(server, wish("eager", state="absent"))
        for tenant in tenants:
            tenant.join()
    assert not done["failed"], done["msg"]


def test_who_stays_in_a_retired_database_is_found(server: Server, login: Login) -> None:
    app, second = wish("opened", password="p"), role("opened_b", password="b", acts_as="opened")
    made(server, app, second)
    made(server, replace(app, state="retired"), second)
    with login("opened_b", "b", "postgres") as tenant:
        tenant.execute("GRANT CONNECT ON DATABASE opened TO opened_b")
        inside = login("opened_b", "b", "opened")
        tenant.execute("REVOKE CONNECT ON DATABASE opened FROM opened_b")
    done = run(server, replace(app, state="retired"), second)
    assert actions(done)["opened"] == "update"
    with pytest.raises(psycopg.OperationalError):
        inside.execute("SELECT 1")
    run(server, replace(app, state="absent"), replace(second, state="absent"))


@pytest.mark.usefixtures("pg_dump")
def test_nobody_opens_a_database_between_its_dump_and_its_end(
    server: Server, login: Login, sql: Sql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, second = wish("reopened", password="p"), role("reopened_b", password="b", acts_as="reopened")
    made(server, app, second)
    refused: list[str] = []

    def dumped(*_arguments: object) -> None:
        with login("reopened_b", "b", "postgres") as tenant:
            for statement in (
                "GRANT CONNECT ON DATABASE reopened TO reopened_b",
                "COMMENT ON DATABASE reopened IS NULL",
                "ALTER DATABASE reopened SET role = 'reopened'",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    tenant.execute(statement)
                refused.append(statement)
        raise BackendError("no room", where="disk")

    gone = [replace(app, state="absent"), second]
    monkeypatch.setattr(apply, "final_dump", dumped)
    done = run(server, *gone, policy=Policy(dump_dir=tmp_path))
    assert "no room" in by_name(done)["reopened"]["msg"]
    assert len(refused) == 3
    assert sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'reopened'") == [("reopened",)]
    # a run that was killed there
    sql("ALTER DATABASE reopened OWNER TO postgres")
    assert actions(run(server, app, second))["reopened"] == "refused"
    done = run(server, *(replace(item, state="absent") for item in (app, second)))
    assert not done["failed"], done["msg"]
    assert sql("SELECT 1 FROM pg_database WHERE datname = 'reopened'") == []


def test_what_others_have_does_not_thin_out_a_threshold(server: Server) -> None:
    run(server, *(wish(f"stag_{n}", mark=f"stag-{n}") for n in range(12)), *(wish(f"prod_{n}") for n in range(4)))
    policy = Policy(unlisted="retired", mark_prefix="stag-")
    with pytest.raises(InvalidInput, match="12 of 12 items"):
        run(server, policy=policy, max_delete_percent=30)


def test_maintenance_databases_that_are_open_to_all_are_told(server: Server, sql: Sql) -> None:
    assert run(server)["open_to_all"] == ("postgres", "template1")
    try:
        sql("REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC")
        assert run(server)["open_to_all"] == ()
    finally:
        sql("GRANT CONNECT, TEMPORARY ON DATABASE postgres, template1 TO PUBLIC")


@pytest.mark.parametrize("year", ["0005-01-01T00:00:00Z", "1815-12-10T00:00:00+01:00"])
def test_a_moment_of_any_year_is_kept(server: Server, year: str) -> None:
    made(server, role("ancient", valid_until=year))


@pytest.mark.parametrize("field", [{"user": "\udc80"}, {"password": "\udc80"}, {"host": "a" * 64}])
def test_what_cannot_be_sent_is_refused(server: Server, field: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="cannot be sent"):
        run(replace(server, **field), wish("any"))
