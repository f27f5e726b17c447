# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The computed meaning of rules against what a real server makes of them."""

from __future__ import annotations

import pytest
import redis
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.client import Facts
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.model import (
    DesiredUser,
    Rules,
    access_rules,
    check_table,
    mark_of,
    parse,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.rules import (
    TENANT_COMMANDS,
    Commands,
    access,
    check_commands,
    scope,
    tenant_commands,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

COMMAND_RULES = [
    *("+@all", "-@all", "+@read", "-@read", "+@write", "-@write", "+@admin", "-@admin", "-@dangerous", "+@dangerous"),
    *("+get", "-get", "+GET", "+set", "-set", "+config", "-config", "+config|get", "-config|set", "+CONFIG|SET"),
    *("+select|0", "+select|1", "+select", "-select", "+client|id", "-client", "+script|load", "-@scripting", "+keys"),
]
KEYS = ["~a:*", "%R~a:*", "%W~a:*", "%RW~b", "~b", "%w~c", "%r~c", "~[d-f]?"]
CHANNELS = ["&a:*", "&b", "&c?"]
SCOPES = st.builds(
    lambda keys, channels, commands: ["resetchannels", *keys, *channels, *commands],
    keys=st.one_of(st.just(["~*"]), st.lists(st.sampled_from(KEYS), max_size=4)),
    channels=st.one_of(st.just(["&*"]), st.lists(st.sampled_from(CHANNELS), max_size=3)),
    commands=st.lists(st.sampled_from(COMMAND_RULES), max_size=7),
)
SMALL = Commands({"read": frozenset({"get", "config|get"}), "slow": frozenset({"get", "set", "config", "config|get"})})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(main=SCOPES, selectors=st.lists(SCOPES, max_size=2))
def test_computed_and_listed_rules_mean_the_same(
    admin: redis.Redis, known: Facts, main: list[str], selectors: list[list[str]]
) -> None:
    rules = [*main, *(f"({' '.join(selector)})" for selector in selectors)]
    admin.execute_command("ACL", "SETUSER", "meaning", "reset", *rules)
    line = next(line for line in admin.execute_command("ACL", "LIST") if line.startswith("user meaning "))
    admin.execute_command("ACL", "DELUSER", "meaning")
    listed = access(parse(line).rules, known.table)
    assert access(rules, known.table) == listed
    assert not listed.main.unknown


def test_order_and_spelling_do_not_matter_where_they_mean_the_same() -> None:
    assert scope(["+get", "+set", "~a", "~b"], SMALL) == scope(["~b", "%R~a", "%W~a", "+SET", "+get"], SMALL)
    assert scope(["+get", "-get"], SMALL) != scope(["-get", "+get"], SMALL)
    assert scope(["%R~a"], SMALL) != scope(["~a"], SMALL)
    assert scope(["+@all"], SMALL).future
    assert not scope(["+@all", "-@all"], SMALL).future


def test_subcommands_and_first_arguments() -> None:
    assert scope(["+config"], SMALL).commands == {"config", "config|get"}
    assert scope(["+config|get"], SMALL).commands == {"config|get"}
    assert scope(["+get|x"], SMALL).first_arguments == {"get|x"}
    # the whole command makes its first arguments pointless
    assert scope(["+get|x", "+get"], SMALL) == scope(["+get"], SMALL)


def test_words_of_future_servers_are_differences() -> None:
    assert scope(["db=1", "+nosuch"], SMALL).unknown == {"db=1", "+nosuch"}
    assert scope(["sanitize-payload", "alldbs"], SMALL) == scope([], SMALL)


@pytest.mark.parametrize("rule", ["+nosuch", "-nosuch", "+@nosuch", "-get|x", "+config|nosuch", "+get|x|y"])
def test_rules_that_the_server_does_not_know_are_named(rule: str) -> None:
    with pytest.raises(InvalidInput, match="no command or category"):
        check_commands(["+get", rule], SMALL)


def test_the_rules_of_tenants_are_those_that_the_server_has(known: Facts) -> None:
    assert tenant_commands(SMALL) == ("+@all",)
    rules = tenant_commands(known.table)
    assert set(rules) < set(TENANT_COMMANDS)
    assert {"-scan", "-pubsub", "-client|tracking"} <= set(rules)
    check_commands(rules, known.table)


OLD = Commands(SMALL.categories, selectors=False)


def test_on_redis_6_the_mark_is_a_key_pattern() -> None:
    item = DesiredUser("old", "old", rules=Rules(("~a",)))
    check_table(item, OLD)
    assert access_rules(item, OLD)[-1] == "~fediversity:old"
    user = parse(f"user old on {' '.join(access_rules(item, OLD))}")
    assert (mark_of(user, OLD), mark_of(user, SMALL)) == ("old", None)
    for rules, said in ((Rules(("~*",)), r"~\*\*"), (Rules(("%R~a",)), "newer server")):
        with pytest.raises(InvalidInput, match=said):
            check_table(DesiredUser("old", "old", rules=rules), OLD)
        check_table(DesiredUser("old", "old", rules=rules), SMALL)
