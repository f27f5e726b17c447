# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Any desired state on any cluster: one run reaches it, a second changes nothing, and what is not ours stays."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    Desired,
    DesiredBucket,
    DesiredKey,
    Permission,
    Quotas,
    Website,
)
from garage_support import Cluster
from hypothesis import given, settings
from hypothesis import strategies as st

OURS = ("fediversity/a", "fediversity/b", "fediversity/c")
THEIRS = ("x", "y")
BUCKETS = ("bucket-1", "bucket-2", "bucket-3")

PERMISSIONS = st.builds(Permission, st.booleans(), st.booleans(), st.booleans())
LIMITS = st.none() | st.integers(0, 3)
QUOTAS = st.builds(Quotas, LIMITS, LIMITS)
WEBSITES = st.builds(Website, st.sampled_from(["i", "j"]), st.sampled_from([None, "e"]))


@dataclass(frozen=True)
class ExistingKey:
    version: int
    expired: bool


@dataclass(frozen=True)
class ExistingBucket:
    quotas: Quotas
    website: Website | None
    grants: dict[str, Permission]
    objects: int


@dataclass(frozen=True)
class Before:
    """What is there before the run, beside the keys of others, which are always there."""

    keys: dict[str, ExistingKey]
    buckets: dict[str, ExistingBucket]


KEYS = st.builds(ExistingKey, st.sampled_from([1, 1, 2]), st.booleans())
BEFORE = st.builds(
    Before,
    st.dictionaries(st.sampled_from(OURS), KEYS),
    st.dictionaries(
        st.sampled_from(BUCKETS),
        st.builds(
            ExistingBucket,
            QUOTAS,
            st.none() | WEBSITES,
            st.dictionaries(st.sampled_from([*OURS, *THEIRS]), PERMISSIONS),
            st.sampled_from([0, 0, 1]),
        ),
    ),
)


def build(before: Before) -> Cluster:
    cluster = Cluster()
    client = cluster.client()
    ids = {name: client.post("CreateKey", {"name": name})["accessKeyId"] for name in THEIRS}
    for name, key in before.keys.items():
        ids[name] = key_id(name, key.version)
        client.post("ImportKey", {"accessKeyId": ids[name], "secretAccessKey": secret(name), "name": name})
        if key.expired:
            client.post("UpdateKey", {"expiration": "2020-01-01T00:00:00Z"}, id=ids[name])
    for name, bucket in before.buckets.items():
        made = client.post("CreateBucket", {"globalAlias": name})["id"]
        for key_name in bucket.grants.keys() & ids.keys():
            flags = dict.fromkeys(bucket.grants[key_name].flags(), True)
            client.post("AllowBucketKey", {"bucketId": made, "accessKeyId": ids[key_name], "permissions": flags})
        with cluster.store.change() as tables:
            row = tables["buckets"][made]
            row["objects"] = bucket.objects
            row["quotas"] = {"maxSize": bucket.quotas.max_size, "maxObjects": bucket.quotas.max_objects}
            row["website"] = bucket.website and {
                "indexDocument": bucket.website.index_document,
                "errorDocument": bucket.website.error_document,
                "routingRules": [{"Redirect": {"HostName": "kept.example.org"}}],
            }
    return cluster


def key_id(name: str, version: int) -> str:
    return f"GK{ord(name[-1]):012x}{version:012x}"


def secret(name: str) -> str:
    return f"{ord(name[-1]):064x}"


def desired_keys(name: str) -> st.SearchStrategy[DesiredKey]:
    return st.builds(DesiredKey, st.just(name), st.just(key_id(name, 1)), st.just(secret(name)), st.booleans())


def desired_buckets(name: str) -> st.SearchStrategy[DesiredBucket]:
    permissions = st.dictionaries(st.sampled_from(OURS), PERMISSIONS).map(lambda chosen: tuple(sorted_items(chosen)))
    return st.builds(
        DesiredBucket,
        name=st.just(name),
        quotas=st.none() | QUOTAS,
        website=st.none() | st.just(False) | WEBSITES,
        permissions=st.none() | permissions,
        present=st.sampled_from([True, True, False]),
    )


def sorted_items(chosen: dict[str, Permission]) -> list[tuple[str, Permission]]:
    return sorted(chosen.items(), key=lambda item: item[0])


@st.composite
def wishes(draw: st.DrawFn) -> list[Desired]:
    keys = [draw(desired_keys(name)) for name in sorted(draw(st.sets(st.sampled_from(OURS))))]
    buckets = [draw(desired_buckets(name)) for name in sorted(draw(st.sets(st.sampled_from(BUCKETS))))]
    return draw(st.permutations([*keys, *buckets]))


def outline(run: dict[str, Any]) -> list[tuple[str, str, bool, bool]]:
    return [(item["name"], item["action"], item["changed"], item["failed"]) for item in run["results"]]


@settings(max_examples=200, deadline=None)
@given(BEFORE, wishes())
def test_converges_as_predicted_and_leaves_the_rest(existing: Before, wanted: list[Desired]) -> None:
    cluster = build(existing)
    before = copy.deepcopy(cluster.store.tables)

    predicted = cluster.run(*wanted, check=True)
    assert cluster.store.tables == before
    first = cluster.run(*wanted)
    assert outline(first) == outline(predicted)
    assert first["diff"] == predicted["diff"]

    after = copy.deepcopy(cluster.store.tables)
    second = cluster.run(*wanted)
    assert not second["changed"]
    assert cluster.store.tables == after

    refused = {item["name"] for item in first["results"] if item["failed"]}
    reached(wanted, refused, cluster)
    untouched(wanted, refused, before, after)


def reached(wanted: list[Desired], refused: set[str], cluster: Cluster) -> None:
    tables = cluster.store.tables
    for item in wanted:
        if item.item in refused:
            continue
        if isinstance(item, DesiredKey):
            assert (tables["keys"].get(item.access_key_id) is not None) == item.present
        elif not item.present:
            assert item.name not in tables["aliases"]
        else:
            row = tables["buckets"][tables["aliases"][item.name]]
            if item.quotas is not None:
                assert row["quotas"] == {"maxSize": item.quotas.max_size, "maxObjects": item.quotas.max_objects}
            if item.website is not None:
                assert (row["website"] is not None) == bool(item.website)
                assert not row["website"] or row["website"]["indexDocument"] == item.website.index_document
            if item.permissions is not None:
                ours = {name: flags for name, flags in cluster.rights(item.name).items() if name in OURS}
                assert ours == {name: set(right.flags()) for name, right in item.permissions if right.flags()}


def untouched(wanted: list[Desired], refused: set[str], before: dict[str, Any], after: dict[str, Any]) -> None:
    theirs = {key_id for key_id, row in before["keys"].items() if row["name"] in THEIRS}
    assert {name: after["keys"][name] for name in theirs} == {name: before["keys"][name] for name in theirs}
    touched = {item.name: item for item in wanted if isinstance(item, DesiredBucket) and item.item not in refused}
    going = {item.access_key_id for item in wanted if isinstance(item, DesiredKey) and not item.present}
    for name, bucket_id in before["aliases"].items():
        old, new = before["buckets"][bucket_id], after["buckets"].get(bucket_id)
        if name not in touched:
            kept = {key_id: flags for key_id, flags in old["keys"].items() if key_id not in going}
            assert new == {**old, "keys": {**new["keys"], **kept}} if new else False
        elif new is not None:
            assert {key: new["keys"].get(key) for key in theirs} == {key: old["keys"].get(key) for key in theirs}
            assert (new["objects"], new["aliases"]) == (old["objects"], old["aliases"])
        else:
            assert not touched[name].present
            assert old["objects"] == 0
