# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Convergence: from any state of a real server, one run reaches any other."""

from __future__ import annotations

import redis
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.client import Facts, Server
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.model import (
    DesiredUser,
    Rules,
    access_rules,
    parse,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.rules import access
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_valkey_provider import actions, digest, listed, run, wish
from test_valkey_rules import CHANNELS, COMMAND_RULES, KEYS

RULES = st.builds(
    Rules,
    keys=st.one_of(st.just(("~*",)), st.lists(st.sampled_from(KEYS), max_size=3, unique=True).map(tuple)),
    channels=st.one_of(st.just(("&*",)), st.lists(st.sampled_from(CHANNELS), max_size=2, unique=True).map(tuple)),
    commands=st.lists(st.sampled_from(COMMAND_RULES), max_size=5).map(tuple),
)
HASHES = st.lists(st.sampled_from([digest("a"), digest("b"), digest("c")]), max_size=2, unique=True).map(tuple)
USERS = st.one_of(
    st.builds(
        lambda name, hashes, enabled, rules, selectors: wish(
            f"prop_{name}", hashes=hashes, enabled=enabled, rules=rules, selectors=tuple(selectors)
        ),
        name=st.sampled_from("abc"),
        hashes=st.none() | HASHES,
        enabled=st.booleans(),
        rules=RULES,
        selectors=st.lists(RULES, max_size=2),
    ),
    st.builds(
        lambda name, state: wish(f"prop_{name}", prefix=f"prop_{name}", state=state),
        name=st.sampled_from("abc"),
        state=st.sampled_from(["present", "absent"]),
    ),
)
FLEETS = st.lists(USERS, max_size=3, unique_by=lambda item: item.name)
# what somebody does to the users of others and to ours
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["foreign_a", "foreign_b", "prop_a", "prop_b"]),
        st.sampled_from(["on", "off", "nopass", ">secret", "resetkeys", "resetchannels", "(~x +get)", *COMMAND_RULES]),
    ),
    max_size=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=FLEETS, edits=EDITS, after=FLEETS)
def test_one_run_reaches_any_state_from_any_other(
    server: Server,
    admin: redis.Redis,
    known: Facts,
    *,
    before: list[DesiredUser],
    edits: list[tuple[str, str]],
    after: list[DesiredUser],
) -> None:
    admin.execute_command("ACL", "DELUSER", "prop_a", "prop_b", "prop_c", "foreign_a", "foreign_b")
    run(server, *before)
    ours = {item.name for item in before if item.state == "present"}
    for name, rule in edits:
        if name in ours or name.startswith("foreign"):
            admin.execute_command("ACL", "SETUSER", name, rule)
    found = listed(admin)
    predicted = run(server, *after, check=True)
    assert listed(admin) == found
    done = run(server, *after)
    assert not done["failed"], done["msg"]
    assert (done["diff"], done["changed"], done["results"] and actions(done)) == (
        predicted["diff"],
        predicted["changed"],
        predicted["results"] and actions(predicted),
    )
    assert not run(server, *after)["changed"]
    assert not run(server, *after, check=True)["changed"]

    now = listed(admin)
    wanted = {item.name: item for item in after}
    assert {name: line for name, line in now.items() if name not in wanted} == {
        name: line for name, line in found.items() if name not in wanted
    }
    for item in after:
        assert (item.name in now) == (item.state == "present")
        if item.state == "present":
            user = parse(now[item.name])
            assert (user.enabled, user.no_password) == (item.enabled, False)
            assert item.hashes is None or user.hashes == set(item.hashes)
            assert access(user.rules, known.table) == access(access_rules(item, known.table), known.table)
