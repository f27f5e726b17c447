# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From any state to any other in one run, without touching what is not ours."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import Desired
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.provider import Look
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from postgresql_runs import Sql, actions, by_name, role, run, wish

# roles that may be named: ours, listed or not, the owners of the other databases, and somebody else's
NAMED = ("prop_r", "prop_s", "prop_b", "prop_foreign")
PRIVILEGES = st.frozensets(st.sampled_from(["CONNECT", "TEMPORARY", "CREATE"]), min_size=1)
STATES = st.sampled_from(["present", "present", "present", "retired", "absent"])

databases = st.builds(
    wish,
    name=st.sampled_from(["prop_a", "prop_b"]),
    password=st.sampled_from([None, "one", "two"]),
    extensions=st.sampled_from([(), ("hstore",), ("citext", "hstore")]),
    conn_limit=st.sampled_from([-1, 0, 5]),
    grants=st.none() | st.dictionaries(st.sampled_from(["prop_r", "prop_foreign"]), PRIVILEGES, max_size=2),
    readers=st.none() | st.frozensets(st.sampled_from(["prop_r", "prop_s"]), max_size=2),
    state=STATES,
)
roles = st.builds(
    role,
    name=st.sampled_from(["prop_r", "prop_s"]),
    password=st.sampled_from([None, "one", "two"]),
    member_of=st.none() | st.frozensets(st.sampled_from(["prop_a", "prop_foreign"]), max_size=2),
    acts_as=st.sampled_from([None, None, "prop_a"]),
    conn_limit=st.sampled_from([-1, 4]),
    valid_until=st.sampled_from([None, "infinity", "2030-01-01T00:00:00Z"]),
    state=STATES,
)
estates = st.lists(databases | roles, max_size=4, unique_by=lambda item: item.key)

# what somebody may have done by hand, as (database, statement)
drifts = st.lists(
    st.sampled_from(
        [
            ("postgres", "GRANT ALL ON DATABASE prop_a TO PUBLIC"),
            ("postgres", "GRANT CREATE ON DATABASE prop_a TO prop_foreign"),
            ("postgres", "REVOKE ALL ON DATABASE prop_b FROM prop_b"),
            ("postgres", "ALTER ROLE prop_a NOLOGIN CREATEDB"),
            ("postgres", "ALTER ROLE prop_b PASSWORD 'three'"),
            ("postgres", "ALTER DATABASE prop_a CONNECTION LIMIT 3"),
            ("postgres", "ALTER DATABASE prop_b ALLOW_CONNECTIONS false"),
            ("postgres", "COMMENT ON DATABASE prop_a IS 'fediversity:prop_a'"),
            ("postgres", "GRANT prop_foreign TO prop_r WITH ADMIN OPTION"),
            ("postgres", "ALTER ROLE prop_r VALID UNTIL '2020-01-01'"),
            ("prop_a", "DROP EXTENSION hstore"),
            ("prop_a", "CREATE EXTENSION hstore"),
            ("prop_a", "SET ROLE prop_a; CREATE TABLE IF NOT EXISTS t (id serial)"),
            ("prop_a", "REVOKE SELECT ON t FROM prop_r"),
            ("prop_b", "ALTER DEFAULT PRIVILEGES FOR ROLE prop_b REVOKE SELECT ON TABLES FROM prop_s"),
            ("prop_b", "ALTER DEFAULT PRIVILEGES FOR ROLE prop_b GRANT SELECT ON TABLES TO prop_foreign"),
        ]
    ),
    max_size=4,
)

FOREIGN = (
    "SELECT a::text, shobj_description(oid, 'pg_authid') FROM pg_authid a"
    " WHERE NOT starts_with(rolname, 'prop_') OR rolname = 'prop_foreign' ORDER BY oid",
    "SELECT d::text, shobj_description(oid, 'pg_database') FROM pg_database d"
    " WHERE NOT starts_with(datname, 'prop_') OR datname = 'prop_foreign' ORDER BY oid",
    "SELECT * FROM pg_db_role_setting WHERE setrole::regrole::text = 'prop_foreign'",
    "SELECT member::regrole, roleid::regrole FROM pg_auth_members WHERE member::regrole::text = 'prop_foreign'",
)


@pytest.fixture
def clean(server: Server, sql: Sql) -> Any:
    def reset() -> None:
        ours = [wish("prop_a", state="absent"), wish("prop_b", state="absent")]
        result = run(server, *ours, role("prop_r", state="absent"), role("prop_s", state="absent"))
        assert not result["failed"], result["msg"]

    for statement in (
        "CREATE ROLE prop_foreign LOGIN PASSWORD 'theirs' CREATEDB",
        "ALTER ROLE prop_foreign SET work_mem = '1MB'",
        "CREATE DATABASE prop_foreign OWNER prop_foreign CONNECTION LIMIT 3",
        "COMMENT ON DATABASE prop_foreign IS 'theirs'",
    ):
        sql(statement)
    yield reset
    reset()
    sql("DROP DATABASE prop_foreign")
    sql("DROP ROLE prop_foreign")


# no shrinking: every example makes databases
@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(story=st.tuples(estates, drifts, estates))
def test_one_run_reaches_any_state_from_any_other(
    server: Server, sql: Sql, clean: Any, story: tuple[list[Desired], list[tuple[str, str]], list[Desired]]
) -> None:
    before, done_by_hand, after = story
    clean()
    run(server, *before)
    for database, statement in done_by_hand:
        with contextlib.suppress(psycopg.Error):
            sql(statement, database=database)
    foreign = [sql(query) for query in FOREIGN]

    predicted = run(server, *after, check=True)
    done = run(server, *after)
    # what is refused is refused before anything is done; everything else is done
    refused = {name for name, action in actions(predicted).items() if action == "refused"}
    assert {name for name, item in by_name(done).items() if item["failed"]} == refused, done["msg"]
    assert actions(done) == actions(predicted)
    assert done["diff"] == predicted["diff"]
    assert done["changed"] == predicted["changed"]

    again = run(server, *after, look=Look(extensions="always"))
    assert (again["changed"], again["diff"]) == (False, {"before": {}, "after": {}})
    assert [sql(query) for query in FOREIGN] == foreign
    there = {str(name) for (name,) in sql("SELECT datname FROM pg_database WHERE datname IN ('prop_a', 'prop_b')")}
    wanted = {item.key for item in after if item.state == "present"} - refused
    unwanted = {item.key for item in after if item.state == "absent"} - refused
    assert {name for name in wanted if not name.startswith("role ")} <= there
    assert not unwanted & there
