# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restarts, cut connections and missing permissions: the other items are done, and a run after it converges."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from garage_place import Place, Tenant, by_name, eventually
from support.cutting_proxy import Direction, Request, cutting_proxy, first_answer_to

WAIT_SECONDS = 120


def buckets(place: Place, *names: str, tenant: Tenant) -> list[dict[str, Any]]:
    permissions = [{"key": tenant.name, "read": True, "write": True}]
    return [{"name": place.name(name), "permissions": permissions} for name in names]


def converges(place: Place, arguments: dict[str, Any]) -> None:
    again, last = place.tasks({"garage_buckets": arguments}, {"garage_buckets": arguments})
    assert not again["failed"], again["msg"]
    assert (last["changed"], last["failed"]) == (False, False), last["msg"]
    names = [name for row in place.admin.get("ListBuckets") for name in row["globalAliases"]]
    for item in arguments["buckets"]:
        assert names.count(item["name"]) == 1
        assert place.admin.get("GetBucketInfo", globalAlias=item["name"])["keys"][0]["permissions"]["write"]


@pytest.mark.parametrize("lost", ["CreateBucket", "AllowBucketKey", "ImportKey"])
def test_a_connection_that_is_cut_after_the_server_has_done_it(place: Place, lost: str) -> None:
    tenant = place.tenant("app")
    arguments = {"keys": [tenant.option], "buckets": buckets(place, "one", "two", tenant=tenant)}
    cut = first_answer_to(f"/v2/{lost}".encode())
    with cutting_proxy(place.address("GARAGE_ADMIN_URL"), cut) as proxy:
        result = place.through(admin=proxy).run("garage_buckets", arguments)
        assert len(proxy.cuts) == 1
    assert len(result["results"]) == 3
    converges(place, arguments)
    assert len([row for row in place.admin.get("ListKeys") if row["name"] == tenant.name]) == 1


def test_a_server_that_restarts_mid_run(private: Place) -> None:
    server = private.private
    assert server is not None
    tenant = private.tenant("app")
    arguments = {"keys": [tenant.option], "buckets": buckets(private, "one", "two", "three", tenant=tenant)}
    reached, resumed = threading.Event(), threading.Event()
    created: list[bytes] = []

    def hold(direction: Direction, request: Request) -> bool:
        """Keeps the run between the first bucket and the second."""
        if direction == "request" and b"/v2/CreateBucket" in request.data:
            created.append(request.data)
            if len(created) == 2:
                reached.set()
                resumed.wait(WAIT_SECONDS)
        return False

    with cutting_proxy(private.address("GARAGE_ADMIN_URL"), hold) as proxy:
        try:
            with private.through(admin=proxy).running({"garage_buckets": arguments}) as running:
                assert reached.wait(WAIT_SECONDS)
                server.stop()
                server.start()
                resumed.set()
                (result,) = running()
        finally:
            resumed.set()
    assert len(result["results"]) == 4
    converges(private, arguments)


def test_an_s3_api_that_is_gone_deletes_nothing(place: Place, tmp_path: Path) -> None:
    tenant = place.tenant("app")
    arguments = {"keys": [tenant.option], "buckets": buckets(place, "one", tenant=tenant)}
    place.run("garage_buckets", arguments)
    s3, named = place.s3(tenant), {"Bucket": place.name("one")}
    eventually(lambda: bool(s3.put_object(**named, Key="k", Body=b"x")))
    place.await_objects("one", 1)
    gone = {**buckets(place, "one", tenant=tenant)[0], "state": "absent", "export_dir": str(tmp_path)}
    with cutting_proxy(place.address("GARAGE_S3_ENDPOINT"), lambda direction, request: True) as proxy:
        wanted = [gone, *buckets(place, "two", tenant=tenant)]
        result = place.through(s3=proxy).run("garage_buckets", {"buckets": wanted, "timeout": 5})
    failed = {name: item["failed"] for name, item in by_name(result).items()}
    assert failed == {f"bucket {place.name('one')}": True, f"bucket {place.name('two')}": False}
    assert (place.exists("one"), place.exists("two")) == (True, True)
    assert list(tmp_path.iterdir()) == []
    names = [row["name"] for row in place.admin.get("ListKeys")]
    assert [name for name in names if "export" in name and place.mark in name] == []
    # the run took the right to write away; the next one gives it back
    converges(place, {**arguments, "buckets": buckets(place, "one", "two", tenant=tenant)})
    eventually(lambda: bool(s3.put_object(**named, Key="k2", Body=b"x")))


def test_a_token_that_lacks_a_permission_for_some_items(place: Place) -> None:
    tenant = place.tenant("app")
    keys = [tenant.option]
    place.run("garage_buckets", {"keys": keys, "buckets": buckets(place, "there", tenant=tenant)})
    scope = ["ListKeys", "ListBuckets", "GetBucketInfo", "GetKeyInfo", "UpdateBucket", "AllowBucketKey"]
    token = place.admin.post("CreateAdminToken", {"name": place.name("narrow"), "scope": scope})["secretToken"]
    there = {**buckets(place, "there", tenant=tenant)[0], "quotas": {"max_objects": 5}}
    arguments: dict[str, Any] = {"keys": keys, "buckets": [there, *buckets(place, "new", tenant=tenant)]}
    result = place.run("garage_buckets", {**arguments, "admin_token": token})
    failed = {name: item["failed"] for name, item in by_name(result).items()}
    assert failed == {
        f"key {tenant.name}": False,
        f"bucket {place.name('there')}": False,
        f"bucket {place.name('new')}": True,
    }
    assert "CreateBucket" in result["msg"]
    assert place.info("there")["quotas"]["maxObjects"] == 5
    converges(place, arguments)
