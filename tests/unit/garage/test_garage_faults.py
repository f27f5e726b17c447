# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong on the way: no quorum, lost answers, crashes of Garage, narrow tokens, two runs at once."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import RETRY_DELAYS
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    NEVER,
    Desired,
    DesiredBucket,
    Permission,
    Quotas,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.provider import GarageProvider
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import reconcile
from garage_support import Cluster, actions, key, nothing, result

READ = ("fediversity/one", Permission(read=True))
WRITE = ("fediversity/one", Permission(write=True))
FUTURE = "2099-01-01T00:00:00.000Z"
TRIES = 1 + len(RETRY_DELAYS)
START: list[Desired] = [
    key(),
    key("two", 2),
    DesiredBucket("media", permissions=(READ,), aliases=("old",)),
    DesiredBucket("goes", permissions=(READ,)),
    DesiredBucket("stays"),
]
END: list[Desired] = [
    key(create_bucket=True, expiration=FUTURE),
    key("two", 2, present=False),
    key("three", 3),
    DesiredBucket("media", permissions=(WRITE,), aliases=("new",), quotas=Quotas(5)),
    DesiredBucket("goes", present=False),
    DesiredBucket("stays", quotas=Quotas(6)),
    DesiredBucket("made", permissions=(READ,)),
]
WRITES = [
    "AddBucketAlias",
    "AllowBucketKey",
    "CreateBucket",
    "DeleteBucket",
    "DeleteKey",
    "DenyBucketKey",
    "ImportKey",
    "RemoveBucketAlias",
    "UpdateBucket",
    "UpdateKey",
]


def reached(cluster: Cluster) -> None:
    again = cluster.run(*END)
    assert (again["changed"], again["failed"]) == (False, False), again["msg"]
    assert sorted(cluster.store.tables["aliases"]) == ["made", "media", "new", "stays"]
    assert len(cluster.store.tables["buckets"]) == 3
    assert len(cluster.client().get("ListKeys")) == 2


@pytest.mark.parametrize("endpoint", WRITES)
def test_an_answer_that_is_lost_after_the_server_has_committed_is_looked_for(cluster: Cluster, endpoint: str) -> None:
    assert not cluster.run(*START)["failed"]
    cluster.lost[endpoint] = 1
    run = cluster.run(*END)
    assert cluster.lost[endpoint] == 0
    assert not run["failed"], run["msg"]
    reached(cluster)


@pytest.mark.parametrize("endpoint", [*WRITES, "ListKeys", "ListBuckets", "GetBucketInfo", "GetKeyInfo"])
def test_a_moment_without_quorum_is_waited_for(cluster: Cluster, endpoint: str) -> None:
    assert not cluster.run(*START)["failed"]
    cluster.unavailable[endpoint] = 1
    run = cluster.run(*END)
    assert cluster.unavailable[endpoint] == 0
    assert not run["failed"], run["msg"]
    reached(cluster)


@pytest.mark.parametrize("endpoint", WRITES)
def test_one_request_without_quorum_fails_one_item_and_the_others_are_done(cluster: Cluster, endpoint: str) -> None:
    assert not cluster.run(*START)["failed"]
    # the tries, and those after having looked again
    cluster.unavailable[endpoint] = 2 * TRIES
    run = cluster.run(*END)
    failed = [item["name"] for item in run["results"] if item["failed"]]
    assert len(failed) >= 1
    assert all("quorum" in result(run, name)["msg"] for name in failed[:1])
    assert [item["name"] for item in run["results"] if not item["failed"]]
    cluster.unavailable.clear()
    assert not cluster.run(*END)["failed"]
    reached(cluster)


def test_garage_is_killed_between_a_bucket_and_its_alias(cluster: Cluster) -> None:
    def crash(endpoint: str) -> None:
        if endpoint == "CreateBucket":
            cluster.before = nothing
            cluster.client().post("CreateBucket", {})
            raise Unreachable("connection reset")

    cluster.before = crash
    provider = GarageProvider(cluster.client())
    run = reconcile(provider, [key(), DesiredBucket("media", permissions=(READ,))])
    assert not run["failed"], run["msg"]
    (orphan,) = provider.surroundings.unnamed()
    assert orphan["id"] != cluster.info("media")["id"]
    assert cluster.rights("media") == {"fediversity/one": {"read"}}


def test_a_bucket_that_somebody_else_makes_at_the_same_time_is_not_taken(cluster: Cluster) -> None:
    other = cluster.client()

    def race(endpoint: str) -> None:
        if endpoint == "CreateBucket":
            cluster.before = nothing
            other.post("CreateBucket", {"globalAlias": "media"})

    cluster.before = race
    run = cluster.run(DesiredBucket("media", quotas=Quotas(5)))
    assert "Somebody else has just made it: run again" in result(run, "bucket media")["msg"]
    assert not cluster.run(DesiredBucket("media", quotas=Quotas(5)))["failed"]


SCOPE = {"ListKeys", "ListBuckets", "GetBucketInfo", "GetKeyInfo", *WRITES}


@pytest.mark.parametrize("endpoint", WRITES)
def test_a_permission_missing_for_one_endpoint_fails_only_what_needs_it(cluster: Cluster, endpoint: str) -> None:
    assert not cluster.run(*START)["failed"]
    cluster.token = cluster.client().post("CreateAdminToken", {"scope": sorted(SCOPE - {endpoint})})["secretToken"]
    run = cluster.run(*END)
    failed = {item["name"]: item["msg"] for item in run["results"] if item["failed"]}
    assert failed
    assert [text for text in failed.values() if f"scope lacks {endpoint}" not in text] == []
    done = {name for name, action in actions(run).items() if action != "unchanged"} - failed.keys()
    assert done
    cluster.token = "configured"
    assert not cluster.run(*END)["failed"]
    reached(cluster)


def test_of_two_runs_at_once_the_loser_says_so(cluster: Cluster) -> None:
    cluster.run(key(), DesiredBucket("media", permissions=(READ,)), DesiredBucket("other"))
    rival = Cluster(cluster.store)
    done: list[dict[str, Any]] = []

    def overtake(endpoint: str) -> None:
        if endpoint == "UpdateBucket" and not done:
            done.append(rival.run(DesiredBucket("media", permissions=(WRITE,), quotas=Quotas(9))))

    cluster.before = overtake
    run = cluster.run(
        DesiredBucket("other", quotas=Quotas(1)), DesiredBucket("media", permissions=(), quotas=Quotas(1))
    )
    assert not done[0]["failed"]
    assert "somebody else has changed" in result(run, "bucket media")["msg"]
    assert (cluster.info("media")["quotas"]["maxSize"], cluster.rights("media")) == (9, {"fediversity/one": {"write"}})
    assert not result(run, "bucket other")["failed"]


def test_of_a_hundred_unchanged_buckets_each_costs_one_request(cluster: Cluster) -> None:
    wanted: list[Desired] = [key(expiration=NEVER)]
    wanted += [
        DesiredBucket(f"media-{number}", permissions=(READ,), aliases=(), quotas=Quotas(1)) for number in range(100)
    ]
    cluster.run(*wanted)
    assert not cluster.run(*wanted)["changed"]
    assert len(cluster.calls) <= 2 + 100
