# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The provider against a real server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import redis
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Denied, Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import reconcile
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey import client as valkey_client
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.model import (
    DesiredUser,
    Rules,
    from_options,
    parse,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.provider import (
    ValkeyUsers,
    by_computation,
    by_probe,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.rules import access
from support.redis_server import RedisServer

SENTINEL = "sentinel-71aa-password"


def digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def wish(name: str, **fields: Any) -> DesiredUser:
    return DesiredUser(**{"name": name, "mark": name, **fields})


def run(server: Server, *desired: DesiredUser, check: bool = False) -> dict[str, Any]:
    return reconcile(ValkeyUsers(server, by_computation if check else by_probe), desired, check=check)


def by_name(result: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item for item in result["results"]}


def actions(result: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["action"] for item in result["results"]}


def listed(admin: redis.Redis) -> dict[str, str]:
    return {line.split(" ")[1]: line for line in admin.execute_command("ACL", "LIST")}


FULL = wish(
    "full",
    hashes=(digest("one"), digest("two")),
    prefix="full",
    rules=Rules(("%R~shared:*",), ("&news",), ("+scan",)),
    selectors=(Rules(("%W~inbox",), (), ("+lpush",)), Rules((), ("&log:*",), ("+publish",))),
)


def test_check_mode_predicts_then_the_run_makes_then_nothing_is_left(
    running: RedisServer, server: Server, admin: redis.Redis
) -> None:
    desired = [FULL, wish("plain", hashes=(digest("p"),), rules=Rules(commands=("+ping",)))]
    before = listed(admin)
    predicted = run(server, *desired, check=True)
    assert predicted["changed"]
    assert listed(admin) == before

    done = run(server, *desired)
    assert not done["failed"], done["msg"]
    assert done["diff"] == predicted["diff"]
    assert actions(done) == actions(predicted) == {"full": "create", "plain": "create"}
    assert by_name(done)["plain"]["enabled"]
    assert set(listed(admin)) == {*before, "full", "plain"}

    again = run(server, *desired)
    assert not again["changed"]
    assert again["diff"] == {"before": {}, "after": {}}

    for password in ("one", "two"):
        with running.client("full", password) as tenant:
            assert tenant.set("full:a", "1")
            assert tenant.get("shared:a") is None
            assert tenant.lpush("inbox", "x")
            assert tenant.publish("log:a", "x") == 0
            for refused in (("SET", "shared:a", "1"), ("LRANGE", "inbox", "0", "1"), ("PUBLISH", "other", "x")):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    tenant.execute_command(*refused)


def test_check_mode_sends_no_command_that_writes(server: Server, admin: redis.Redis) -> None:
    admin.execute_command("CONFIG", "RESETSTAT")
    run(server, FULL, wish("never", prefix="never"), check=True)
    used = set(admin.info("commandstats"))
    assert "cmdstat_acl|list" in used
    assert used <= {
        *("cmdstat_acl|list", "cmdstat_acl|cat", "cmdstat_acl|whoami", "cmdstat_config|get", "cmdstat_info"),
        *("cmdstat_auth", "cmdstat_hello", "cmdstat_client|setinfo", "cmdstat_config|resetstat"),
    }


def test_a_hundred_users_take_one_connection_and_few_round_trips(
    server: Server, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    desired = [wish(f"many_{number}", prefix=f"many_{number}", hashes=(digest("p"),)) for number in range(100)]
    trips: list[Any] = []
    ask = valkey_client.ask

    def counted(connection: redis.Redis, where: str, commands: Sequence[Any], **more: bool) -> list[Any]:
        trips.extend(commands[:1])
        return ask(connection, where, commands, **more)

    monkeypatch.setattr(valkey_client, "ask", counted)
    connections = admin.info("stats")["total_connections_received"]
    provider = ValkeyUsers(server, by_probe)
    assert reconcile(provider, desired)["changed"]
    assert provider.save().saved
    assert len(trips) <= 7
    assert admin.info("stats")["total_connections_received"] == connections + 1
    trips.clear()
    assert not run(server, *desired)["changed"]
    assert len(trips) <= 3
    gone = [replace(item, state="absent") for item in desired[:20]]
    assert set(actions(run(server, *gone)).values()) == {"delete"}


def test_a_plan_that_deletes_too_much_is_refused(server: Server, admin: redis.Redis) -> None:
    desired = [wish(f"mass_{number}") for number in range(12)]
    run(server, *desired)
    ours = [name for name, line in listed(admin).items() if "~fediversity:" in line]
    with pytest.raises(Exception, match="max_delete_percent"):
        run(server, *(wish(name, state="absent") for name in ours))
    assert set(ours) <= set(listed(admin))


def test_neither_password_nor_hash_is_shown_or_logged(
    running: RedisServer, server: Server, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    desired = from_options(
        [
            {
                **{"name": "quiet", "mark": None, "passwords": [SENTINEL], "password_hashes": None, "enabled": True},
                **{"prefix": "quiet", "keys": [], "channels": [], "commands": [], "selectors": []},
                **{"adopt": False, "state": "present"},
            }
        ]
    )
    first = run(server, *desired)
    second = run(server, replace(desired[0], hashes=(digest("other"),)))
    refused = run(server, replace(desired[0], hashes=(digest(SENTINEL) + "0",)))
    assert second["diff"]["before"]["quiet"]["passwords"] == "differs"
    slow = json.dumps(admin.execute_command("SLOWLOG", "GET", "1000"), default=str)
    assert "SETUSER" in slow
    texts = [running.log, slow, caplog.text, repr(desired), *map(json.dumps, (first, second, refused))]
    users = [parse(line) for line in listed(admin).values()]
    for text in [*texts, repr(users)]:
        assert SENTINEL not in text
        assert digest(SENTINEL) not in text
        assert digest("other") not in text


def test_rotation_overlaps_and_unmanaged_passwords_stay(running: RedisServer, server: Server) -> None:
    def works(password: str) -> bool:
        with running.client("rotated", password) as tenant:
            try:
                return bool(tenant.ping())
            except redis.AuthenticationError:
                return False

    item = wish("rotated", hashes=(digest("old"),), rules=Rules(commands=("+ping",)))
    run(server, item)
    run(server, replace(item, hashes=(digest("new"), digest("old"))))
    assert (works("old"), works("new")) == (True, True)
    run(server, replace(item, hashes=(digest("new"),)))
    assert (works("old"), works("new")) == (False, True)
    unmanaged = replace(item, hashes=None, rules=Rules(commands=("+ping", "+echo")))
    assert actions(run(server, unmanaged)) == {"rotated": "update"}
    assert works("new")
    assert not run(server, unmanaged)["changed"]
    run(server, replace(item, hashes=()))
    assert not works("new")


@pytest.mark.parametrize(
    ("drift", "shown"),
    [
        (["off"], "enabled"),
        (["nopass"], "passwords"),
        (["resetpass"], "passwords"),
        ([f"#{'a' * 64}"], "passwords"),
        (["~other:*"], "keys"),
        (["allkeys"], "keys"),
        (["&other"], "channels"),
        (["allchannels"], "channels"),
        (["+scan"], "commands"),
        (["-get"], "commands"),
        (["+@all"], "commands"),
        (["(~x +get)"], "selectors"),
        (["skip-sanitize-payload"], "other"),
    ],
)
def test_drift_is_seen_and_mended(server: Server, admin: redis.Redis, drift: list[str], shown: str) -> None:
    item = wish("drifting", prefix="drifting", hashes=(digest("p"),))
    run(server, item)
    good = listed(admin)["drifting"]
    admin.execute_command("ACL", "SETUSER", "drifting", *drift)
    predicted = run(server, item, check=True)
    result = run(server, item)
    assert actions(result) == actions(predicted) == {"drifting": "update"}
    assert result["diff"] == predicted["diff"]
    before, after = (result["diff"][side]["drifting"] for side in ("before", "after"))
    assert {key for key in {*before, *after} if before.get(key) != after.get(key)} == {shown}
    assert not result["failed"], result["msg"]
    assert access(parse(listed(admin)["drifting"]).rules, ValkeyUsers(server, by_probe).facts.table) == access(
        parse(good).rules, ValkeyUsers(server, by_probe).facts.table
    )


def test_disabled_and_deleted_users_are_disconnected(running: RedisServer, server: Server) -> None:
    item = wish("leaving", hashes=(digest("p"),), rules=Rules(commands=("+ping", "+client|id")))
    for change in ({"enabled": False}, {"state": "absent"}):
        run(server, item)
        with running.client("leaving", "p") as tenant:
            connection = tenant.connection_pool.get_connection()
            connection.send_command("PING")
            assert connection.read_response() == "PONG"
            assert run(server, replace(item, **change))["changed"]
            connection.send_command("PING")
            with pytest.raises(redis.ConnectionError):
                connection.read_response()
            with pytest.raises(redis.AuthenticationError):
                connection.connect()
        assert not run(server, replace(item, **change))["changed"]


def test_what_carries_no_mark_of_ours_is_never_touched(server: Server, admin: redis.Redis) -> None:
    admin.execute_command("ACL", "SETUSER", "foreign", "on", ">theirs", "~fediversity:foreign", "&*", "+@all")
    run(server, wish("marked", mark="somebody"))
    before = listed(admin)
    for state in ("present", "absent"):
        result = run(
            server,
            *(wish(name, state=state, prefix=name) for name in ("foreign", "marked", "default", "admin")),
            wish("allowed", state=state),
        )
        assert actions(result) == {
            **dict.fromkeys(("foreign", "marked", "default", "admin"), "refused"),
            "allowed": "create" if state == "present" else "delete",
        }
        assert "adopt" in by_name(result)["foreign"]["msg"]
        assert "somebody" in by_name(result)["marked"]["msg"]
        assert "logged in as" in by_name(result)["admin"]["msg"]
        assert {name: line for name, line in listed(admin).items() if name != "allowed"} == before


def test_users_are_taken_over_when_asked(own_server: RedisServer) -> None:
    server = Server(own_server.host, own_server.port, user=own_server.user, password=own_server.password)
    with own_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "theirs", "on", "nopass", "~*", "+@all")
        admin.execute_command("ACL", "SETUSER", "default", "on", "nopass", "~*", "&*", "+@all")
        wishes = [
            wish("theirs", adopt=True, hashes=(digest("p"),), prefix="theirs"),
            wish("default", adopt=True, hashes=(), enabled=False),
        ]
        predicted = run(server, *wishes, check=True)
        done = run(server, *wishes)
        assert done["diff"] == predicted["diff"]
        assert actions(done) == {"theirs": "update", "default": "update"}
        assert not run(server, *(replace(item, adopt=False) for item in wishes))["changed"]
        assert actions(run(server, wish("theirs", mark="other", adopt=True))) == {"theirs": "refused"}
        with pytest.raises(redis.AuthenticationError), redis.Redis(port=own_server.port) as anonymous:
            anonymous.ping()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "two words"}, "name"),
        ({"name": "quo'te"}, "name"),
        ({"name": 'quo"te'}, "name"),
        ({"name": "grüße"}, "name"),
        ({"name": "☃"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "null\0byte"}, "name"),
        ({"name": "new\nline"}, "name"),
        ({"name": "line\n"}, "name"),
        ({"name": "n" * 129}, "name"),
        ({"name": "(parenthesis)"}, "name"),
        ({"mark": "two words"}, "mark"),
        ({"mark": "glob*"}, "mark"),
        ({"prefix": "a:b"}, "prefix"),
        ({"prefix": "a*"}, "prefix"),
        ({"prefix": ""}, "prefix"),
        ({"prefix": "a b"}, "prefix"),
        ({"hashes": ("",)}, "password_hashes"),
        ({"hashes": ("clear password",)}, "password_hashes"),
        ({"hashes": ("A" * 64,)}, "password_hashes"),
        ({"rules": Rules(("bare",))}, "keys"),
        ({"rules": Rules(("~a b",))}, "keys"),
        ({"rules": Rules(("~a)",))}, "keys"),
        ({"rules": Rules(('~a"',))}, "keys"),
        ({"rules": Rules(("%X~a",))}, "keys"),
        ({"rules": Rules(("~fediversity:other",))}, "keys"),
        ({"rules": Rules(("~*", "~a"))}, "keys"),
        ({"rules": Rules(("%R~*", "%W~*", "~a"))}, "keys"),
        ({"rules": Rules(("~*",)), "prefix": "a"}, "keys"),
        ({"rules": Rules((), ("bare",))}, "channels"),
        ({"rules": Rules((), ("&*", "&a"))}, "channels"),
        ({"rules": Rules((), (), ("get",))}, "commands"),
        ({"rules": Rules((), (), ("+get ~*",))}, "commands"),
        ({"rules": Rules((), (), (">password",))}, "commands"),
        ({"rules": Rules((), (), ("nopass",))}, "commands"),
        ({"rules": Rules((), (), ("+nosuchcommand",))}, "commands"),
        ({"rules": Rules((), (), ("+get", "-@nosuchcategory"))}, "commands"),
        ({"rules": Rules((), (), ("+config|nosuch",))}, "commands"),
        ({"selectors": (Rules((), (), ("+nosuch",)),)}, "commands"),
        ({"selectors": (Rules(("x)",)),)}, "keys"),
    ],
)
def test_bad_input_is_refused_with_its_field_and_the_others_are_made(
    server: Server, admin: redis.Redis, fields: Any, said: str
) -> None:
    bad = wish(**{"name": "bad", "mark": "bad", **fields})
    good = wish("beside_bad_input")
    for check in (True, False):
        result = run(server, bad, good, check=check)
        assert actions(result)[bad.name] == "refused"
        assert f", {said}" in by_name(result)[bad.name]["msg"] or f"or {said}" in by_name(result)[bad.name]["msg"]
        assert not by_name(result)["beside_bad_input"]["failed"]
    assert bad.name not in listed(admin)


def test_contradictions_are_refused(server: Server) -> None:
    result = run(
        server,
        wish("twice"),
        wish("twice", enabled=False),
        wish("tenant_a", prefix="shared"),
        wish("tenant_b", prefix="shared"),
        wish("pair_a", mark="pair", prefix="pair"),
        wish("pair_b", mark="pair", prefix="pair"),
        wish("default", state="absent"),
    )
    assert actions(result) == {
        **dict.fromkeys(("twice", "tenant_a", "tenant_b", "default"), "refused"),
        **dict.fromkeys(("pair_a", "pair_b"), "create"),
    }


def test_the_loser_of_a_race_says_so(server: Server) -> None:
    provider = ValkeyUsers(server, by_probe)
    desired = [wish("raced", hashes=(digest("mine"),)), wish("not_raced")]
    changes = provider.plan(desired, provider.read(desired)).pending()
    run(server, wish("raced", hashes=(digest("theirs"),)))
    errors = {done.change.name: done.error for done in provider.apply(changes)}
    assert "another run changed it" in str(errors["raced"])
    assert errors["not_raced"] is None


def test_unreachable_and_denied(server: Server) -> None:
    with pytest.raises(Unreachable, match="login_port"):
        run(replace(server, port=1), wish("any"))
    with pytest.raises(Denied, match="login_password") as caught:
        run(replace(server, password=SENTINEL), wish("any"))
    assert SENTINEL not in str(caught.value)
    run(server, wish("powerless", hashes=(digest("p"),), prefix="powerless"))
    with pytest.raises(Denied, match=r"docs/valkey\.md"):
        run(replace(server, user="powerless", password="p"), wish("any"))


def test_the_rights_of_the_documented_login_suffice(server: Server) -> None:
    rights = Rules((), (), ("+acl", "+client|kill", "+config|get", "+config|rewrite", "+info", "+multi", "+exec"))
    run(server, wish("provisioner", hashes=(digest("p"),), rules=rights))
    login = replace(server, user="provisioner", password="p")
    item = wish("by_provisioner", prefix="by_provisioner")
    for change in ({}, {"enabled": False}, {"state": "absent"}):
        provider = ValkeyUsers(login, by_probe)
        result = reconcile(provider, [replace(item, **change)])
        assert (result["changed"], result["failed"]) == (True, False), result["msg"]
        assert provider.save().saved
