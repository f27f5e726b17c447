# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults: the others are done, the result names the failed ones, a re-run converges."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Applied, reconcile
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.model import ActualUser, DesiredUser, Rules
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.provider import (
    UserChange,
    ValkeyUsers,
    by_probe,
)
from support.redis_server import RedisServer, redis_server

HASH = hashlib.sha256(b"password").hexdigest()


def wish(name: str, **fields: Any) -> DesiredUser:
    return DesiredUser(**{"name": name, "mark": name, "hashes": (HASH,), **fields})


def reach(running: RedisServer) -> Server:
    return Server(running.host, running.port, user=running.user, password=running.password)


def run(server: Server, *desired: DesiredUser) -> dict[str, Any]:
    return reconcile(ValkeyUsers(server, by_probe), desired)


def names(running: RedisServer) -> set[str]:
    with running.client() as admin:
        return set(admin.execute_command("ACL", "USERS"))


class Disturbed(ValkeyUsers):
    """Something happens between the plan and the changes."""

    def __init__(self, server: Server, disturb: Callable[[], object]) -> None:
        super().__init__(server, by_probe)
        self._disturb = disturb

    def apply(self, changes: Sequence[UserChange]) -> Iterator[Applied[DesiredUser, ActualUser]]:
        self._disturb()
        return super().apply(changes)


def test_a_server_that_stops_mid_run(own_server: RedisServer) -> None:
    server = reach(own_server)
    result = reconcile(Disturbed(server, own_server.stop), [wish("one"), wish("two")])
    assert {item["name"] for item in result["results"] if item["failed"]} == {"one", "two"}
    assert "login_host" in result["msg"]
    assert not result["changed"]
    with pytest.raises(Unreachable):
        run(server, wish("one"))
    own_server.start()
    assert run(server, wish("one"), wish("two"))["changed"]


def test_a_permission_that_is_missing_for_one_of_many(own_server: RedisServer) -> None:
    server = reach(own_server)
    run(server, *(wish(name, prefix=name) for name in ("first", "second", "third")))
    rights = Rules((), (), ("+acl", "+config|get", "+info", "+multi", "+exec"))
    run(server, wish("provisioner", rules=rights))
    weak = replace(server, user="provisioner", password="password")
    desired = [
        wish("first", prefix="first", rules=Rules(("~more",))),
        # needs CLIENT KILL
        wish("second", prefix="second", enabled=False),
        wish("third", state="absent"),
        wish("fourth", prefix="fourth"),
    ]
    result = run(weak, *desired)
    assert {item["name"]: item["failed"] for item in result["results"]} == {
        "first": False,
        "second": True,
        "third": False,
        "fourth": False,
    }
    assert "'client" in next(item["msg"] for item in result["results"] if item["failed"])
    assert not run(server, *desired)["failed"]
    assert not run(server, *desired)["changed"]


def test_no_trace_of_the_probes(own_server: RedisServer) -> None:
    server = reach(own_server)
    run(server, wish("one"), wish("two"))
    provider = ValkeyUsers(server, by_probe)
    provider.save()
    assert not any("probe" in name for name in names(own_server))
    assert "probe" not in own_server.acl_file.read_text(encoding="utf-8")


def test_an_acl_file_that_cannot_be_written(own_server: RedisServer) -> None:
    provider = ValkeyUsers(reach(own_server), by_probe)
    before = own_server.acl_file.read_text(encoding="utf-8")
    # the server writes a new file beside the old one
    os.chmod(own_server.directory, 0o555)
    try:
        assert reconcile(provider, [wish("kept")])["changed"]
        failed = provider.save()
    finally:
        os.chmod(own_server.directory, 0o755)
    assert not failed.saved
    assert "not saved" in str(failed.problem)
    assert own_server.acl_file.read_text(encoding="utf-8") == before
    again = ValkeyUsers(reach(own_server), by_probe)
    assert not reconcile(again, [wish("kept")])["changed"]
    assert again.save().saved
    own_server.restart()
    assert "kept" in names(own_server)


def test_saved_users_mean_the_same_after_a_restart(own_server: RedisServer) -> None:
    provider = ValkeyUsers(reach(own_server), by_probe)
    desired = [
        wish("tenant", prefix="tenant", rules=Rules(("%R~shared:*",), ("&news",), ("+scan", "+select|0", "-select"))),
        wish("readers", rules=Rules(("%R~*",), (), ("+@read", "-keys")), selectors=(Rules(("~q",), (), ("+lpush",)),)),
        wish("everything", rules=Rules(("~*",), ("&*",), ("+@all",))),
        wish("nothing", hashes=None, enabled=False),
    ]
    reconcile(provider, desired)
    assert provider.save().saved
    own_server.restart()
    assert not run(reach(own_server), *desired)["changed"]


def test_users_in_the_configuration_file() -> None:
    with redis_server(acl_file=False) as running:
        provider = ValkeyUsers(reach(running), by_probe)
        desired = [wish("tenant", prefix="tenant"), wish("other", rules=Rules(("~[a-c]#$!",), (), ("+get",)))]
        reconcile(provider, desired)
        saved = provider.save()
        assert (saved.method, saved.saved) == ("config", True)
        running.restart()
        assert not run(reach(running), *desired)["changed"]


def test_a_server_without_any_file() -> None:
    with redis_server(acl_file=False, config_file=False) as running:
        provider = ValkeyUsers(reach(running), by_probe)
        reconcile(provider, [wish("lost")])
        assert json.dumps(provider.save().result()) == '{"method": "none", "saved": false}'
