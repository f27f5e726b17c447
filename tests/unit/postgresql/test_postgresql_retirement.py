# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Going: retired, dumped, dropped; and what nobody lists."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import provider
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.plan import Policy
from postgresql_runs import Login, Sql, actions, by_name, made, role, run, wish

CONNECT = frozenset({"CONNECT"})


def test_retired_keeps_the_data_and_lets_nobody_in(server: Server, login: Login, sql: Sql) -> None:
    app = wish("resting", password="p", extensions=("hstore",), grants={"visitor": CONNECT})
    visitor = role("visitor", password="v")
    made(server, app, visitor)
    client = login("resting", "p", "resting")
    client.execute("CREATE TABLE kept AS SELECT 7 AS n")

    done = made(server, replace(app, state="retired"), visitor)
    assert done["diff"]["before"]["resting"]["may_connect"] == ["resting", "visitor"]
    since = by_name(done)["resting"]["retired_since"]
    assert since.endswith("Z")
    for user, password in (("resting", "p"), ("visitor", "v")):
        with pytest.raises(psycopg.OperationalError, match=r"not permitted to log in|permission denied"):
            login(user, password, "resting")
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT 1")
    assert sql("SELECT n FROM kept", database="resting") == [(7,)]
    assert by_name(run(server, replace(app, state="retired")))["resting"]["retired_since"] == since

    back = made(server, app, visitor)
    assert by_name(back)["resting"]["retired_since"] is None
    with login("resting", "p", "resting") as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(7,)]
    login("visitor", "v", "resting").close()


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER ROLE retired_drift LOGIN",
        "GRANT CONNECT ON DATABASE retired_drift TO retired_drift",
        "GRANT CONNECT ON DATABASE retired_drift TO PUBLIC",
        "COMMENT ON DATABASE retired_drift IS 'fediversity:retired_drift'",
    ],
)
def test_what_lets_somebody_into_a_retired_database_is_found(server: Server, sql: Sql, statement: str) -> None:
    run(server, wish("retired_drift", state="present"))
    run(server, wish("retired_drift", state="retired"))
    sql(statement)
    assert made(server, wish("retired_drift", state="retired"))["changed"]


def test_an_owner_logs_in_while_one_of_its_databases_serves(server: Server, login: Login) -> None:
    first, second = (wish(name, owner="landlord", mark="landlord", password="p") for name in ("house_a", "house_b"))
    made(server, first, second)
    made(server, replace(first, state="retired"), second)
    login("landlord", "p", "house_b").close()
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        login("landlord", "p", "house_a")
    made(server, replace(second, state="retired"))
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        login("landlord", "p", "house_b")
    made(server, second)
    login("landlord", "p", "house_b").close()


def test_a_retired_role_is_out(server: Server, login: Login) -> None:
    made(server, role("leaver", password="p"))
    client = login("leaver", "p", "postgres")
    made(server, role("leaver", state="retired"))
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        login("leaver", "p", "postgres")
    made(server, role("leaver", password="p"))
    login("leaver", "p", "postgres").close()
    assert not run(server, role("never_there", state="retired"), wish("never_there", state="retired"))["changed"]


def test_nothing_is_dropped_without_a_dump(server: Server, sql: Sql) -> None:
    made(server, wish("precious"))
    result = run(server, wish("precious", state="absent"), policy=Policy())
    assert actions(result) == {"precious": "refused"}
    assert "dump_dir" in result["msg"]
    assert sql("SELECT 1 FROM pg_database WHERE datname = 'precious'") == [(1,)]


@pytest.mark.usefixtures("pg_dump")
def test_absent_dumps_then_drops(server: Server, login: Login, sql: Sql, tmp_path: Path) -> None:
    app = wish("departing", password="p", extensions=("hstore",), readers=frozenset({"mourner"}))
    made(server, app, role("mourner"))
    with login("departing", "p", "departing") as connection:
        connection.execute("CREATE TABLE memories AS SELECT generate_series(1, 10) AS n")
    policy = Policy(dump_dir=tmp_path / "dumps")
    (tmp_path / "dumps").mkdir()
    predicted = run(server, replace(app, state="absent"), policy=policy, check=True)
    assert list((tmp_path / "dumps").iterdir()) == []
    done = run(server, replace(app, state="absent"), policy=policy)
    assert not done["failed"], done["msg"]
    assert done["diff"] == predicted["diff"]
    dump = done["dumps"]["departing"]
    assert json.loads(json.dumps(dump["tables"])) == [{"schema": "public", "name": "memories", "rows": 10}]
    assert Path(dump["manifest"]).is_file()
    assert sql("SELECT 1 FROM pg_database WHERE datname = 'departing'") == []
    assert sql("SELECT 1 FROM pg_roles WHERE rolname = 'departing'") == []
    assert not run(server, replace(app, state="absent"), policy=policy)["changed"]


@pytest.mark.usefixtures("pg_dump")
def test_a_failed_dump_leaves_the_database_retired_until_the_next_run(server: Server, sql: Sql, tmp_path: Path) -> None:
    made(server, wish("undumped", password="p"), wish("dumped"))
    sql("CREATE TABLE t AS SELECT 1 AS n", database="undumped")
    directory = tmp_path / "dumps"
    directory.write_text("in the way", encoding="utf-8")
    gone = [wish("undumped", state="absent"), wish("beside_undumped")]
    result = run(server, *gone, policy=Policy(dump_dir=directory))
    assert {name for name, item in by_name(result).items() if item["failed"]} == {"undumped"}
    assert sql("SELECT n FROM t", database="undumped") == [(1,)]
    assert by_name(result)["undumped"]["retired_since"] is not None
    directory.unlink()
    directory.mkdir()
    result = run(server, *gone, policy=Policy(dump_dir=directory))
    assert not result["failed"], result["msg"]
    assert actions(result) == {"undumped": "delete", "beside_undumped": "unchanged"}


def test_what_nobody_lists_is_retired_if_it_is_ours(server: Server, sql: Sql) -> None:
    listed, unlisted = wish("kept_x", mark="unlisted-kept"), wish("left_x", mark="unlisted-left", password="p")
    sibling = wish("left_y", owner="left_x", mark="unlisted-left", password="p")
    helper = role("left_role", mark="unlisted-role")
    sql("CREATE DATABASE left_foreign")
    run(server, listed, unlisted, sibling, helper, wish("left_other", mark="another-estate"))
    assert not run(server, listed)["changed"]
    policy = Policy(unlisted="retired", mark_prefix="unlisted-")
    done = made(server, listed, policy=policy)
    assert {one.get("state") for one in done["diff"]["after"].values()} == {"retired"}
    assert actions(done) == {"kept_x": "unchanged", "left_x": "update", "left_y": "update"}
    may_log_in = "SELECT rolname FROM pg_roles WHERE rolname IN ('left_x', 'left_other') AND rolcanlogin"
    assert sql(may_log_in) == [("left_other",)]
    with_roles = replace(policy, roles_listed=True)
    assert actions(made(server, listed, policy=with_roles)) == {"kept_x": "unchanged", "role left_role": "update"}
    made(server, listed, unlisted, helper, policy=policy)


def test_taking_away_much_at_once_is_refused(server: Server) -> None:
    many = [wish(f"many_{number}", mark=f"many-{number}") for number in range(12)]
    run(server, *many)
    policy = Policy(unlisted="retired", mark_prefix="many-")
    for check in (True, False):
        with pytest.raises(InvalidInput, match="max_delete_percent"):
            run(server, *many[:2], policy=policy, check=check, max_delete_percent=1)
        with pytest.raises(InvalidInput, match="max_delete_percent"):
            run(server, *(replace(item, state="absent") for item in many), check=check, max_delete_percent=1)
    assert not run(server, *many)["changed"]


def test_without_a_pg_dump_that_is_new_enough_nothing_is_retired(
    server: Server, login: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(server, wish("undumpable", password="p"))
    monkeypatch.setattr(provider, "installed", list)
    for check in (True, False):
        result = run(server, wish("undumpable", state="absent"), policy=Policy(dump_dir=tmp_path), check=check)
        assert actions(result) == {"undumpable": "refused"}
        assert "or newer is needed" in result["msg"]
    login("undumpable", "p", "undumpable").close()
