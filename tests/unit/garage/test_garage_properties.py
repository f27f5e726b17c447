# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Any desired state on any cluster: one run reaches it, a second changes nothing, and what is not ours stays."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    NEVER,
    Desired,
    DesiredBucket,
    DesiredKey,
    Permission,
    Quotas,
    Website,
    bucket_from,
    bucket_rows,
    is_owned,
    key_rows,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.rules import (
    CorsRule,
    LifecycleRule,
    cors_body,
    lifecycle_body,
)
from garage_support import Cluster
from hypothesis import given, settings
from hypothesis import strategies as st

OURS = ("fediversity/a", "fediversity/b", "fediversity/c")
THEIRS = ("x", "y")
BUCKETS = ("bucket-1", "bucket-2", "bucket-3")
# never desired
FOREIGN = "foreign-bucket"
ALIASES = ("alias-1", "alias-2")
LOCAL = ("local-1", "local-2")
PAST, FUTURE = "2020-01-01T00:00:00.000Z", "2099-01-01T00:00:00.000Z"

PERMISSIONS = st.builds(Permission, st.booleans(), st.booleans(), st.booleans())
LIMITS = st.none() | st.integers(0, 3)
QUOTAS = st.builds(Quotas, LIMITS, LIMITS)
WEBSITES = st.builds(Website, st.sampled_from(["i", "j"]), st.sampled_from([None, "e"]))
WORDS = st.sets(st.sampled_from(["a", "b"])).map(lambda chosen: tuple(sorted(chosen)))
CORS = st.builds(
    CorsRule,
    st.sampled_from([("*",), ("https://a", "https://b")]),
    st.sampled_from([("GET",), ("GET", "PUT")]),
    WORDS,
    WORDS,
    st.none() | st.integers(0, 2),
)
DAYS = st.integers(1, 2)
LIFECYCLE = st.builds(
    LifecycleRule,
    enabled=st.booleans(),
    prefix=st.sampled_from([None, "p/"]),
    object_size_greater_than=LIMITS,
    object_size_less_than=LIMITS,
    expiration_date=st.sampled_from([None, "2030-01-01"]),
    abort_incomplete_multipart_upload_days=DAYS,
)
CORS_LISTS = st.lists(CORS, max_size=2).map(tuple)
LIFECYCLE_LISTS = st.lists(LIFECYCLE, max_size=2).map(tuple)


@dataclass(frozen=True)
class ExistingKey:
    version: int
    expiration: str | None
    create_bucket: bool


@dataclass(frozen=True)
class ExistingBucket:
    quotas: Quotas
    website: Website | None
    grants: dict[str, Permission]
    objects: int
    cors_rules: tuple[CorsRule, ...]
    lifecycle_rules: tuple[LifecycleRule, ...]


@dataclass(frozen=True)
class Before:
    """What is there before the run, beside the keys of others, which are always there.

    Names belong to buckets: ``aliases`` by alias, ``local_aliases`` by key name and alias.
    """

    keys: dict[str, ExistingKey]
    buckets: dict[str, ExistingBucket]
    aliases: dict[str, str] = field(default_factory=dict)
    local_aliases: dict[tuple[str, str], str] = field(default_factory=dict)


EXISTING = st.sampled_from([*BUCKETS, FOREIGN])
BEFORE = st.builds(
    Before,
    st.dictionaries(
        st.sampled_from(OURS),
        st.builds(ExistingKey, st.sampled_from([1, 1, 2]), st.sampled_from([None, PAST, FUTURE]), st.booleans()),
    ),
    st.dictionaries(
        EXISTING,
        st.builds(
            ExistingBucket,
            QUOTAS,
            st.none() | WEBSITES,
            st.dictionaries(st.sampled_from([*OURS, *THEIRS]), PERMISSIONS),
            st.sampled_from([0, 0, 1]),
            CORS_LISTS,
            LIFECYCLE_LISTS,
        ),
    ),
    st.dictionaries(st.sampled_from(ALIASES), EXISTING),
    st.dictionaries(st.tuples(st.sampled_from([*OURS, *THEIRS]), st.sampled_from(LOCAL)), EXISTING),
)


def build(before: Before) -> Cluster:
    cluster = Cluster()
    client = cluster.client()
    ids = {name: client.post("CreateKey", {"name": name})["accessKeyId"] for name in THEIRS}
    for name, key in before.keys.items():
        ids[name] = key_id(name, key.version)
        client.post("ImportKey", {"accessKeyId": ids[name], "secretAccessKey": secret(name), "name": name})
        with cluster.store.change() as tables:
            tables["keys"][ids[name]]["createBucket"] = key.create_bucket
        if key.expiration is not None:
            client.post("UpdateKey", {"expiration": key.expiration}, id=ids[name])
    made = {name: build_bucket(cluster, name, bucket, ids) for name, bucket in before.buckets.items()}
    for alias, name in before.aliases.items():
        if name in made:
            client.post("AddBucketAlias", {"bucketId": made[name], "globalAlias": alias})
    for (key_name, alias), name in before.local_aliases.items():
        if name in made and key_name in ids:
            local = {"accessKeyId": ids[key_name], "localAlias": alias}
            client.post("AddBucketAlias", {"bucketId": made[name], **local})
    return cluster


def build_bucket(cluster: Cluster, name: str, bucket: ExistingBucket, ids: Mapping[str, str]) -> str:
    client = cluster.client()
    made = str(client.post("CreateBucket", {"globalAlias": name})["id"])
    for key_name in bucket.grants.keys() & ids.keys():
        flags = dict.fromkeys(bucket.grants[key_name].flags(), True)
        client.post("AllowBucketKey", {"bucketId": made, "accessKeyId": ids[key_name], "permissions": flags})
    for number in range(bucket.objects):
        cluster.store.tables.objects.put(made, f"{number}", b"")
    rules = {
        "corsRules": [cors_body(rule) for rule in bucket.cors_rules],
        "lifecycleRules": [lifecycle_body(rule) for rule in bucket.lifecycle_rules],
    }
    client.post("UpdateBucket", rules, id=made)
    with cluster.store.change() as tables:
        row = tables["buckets"][made]
        row["quotas"] = {"maxSize": bucket.quotas.max_size, "maxObjects": bucket.quotas.max_objects}
        row["website"] = bucket.website and {
            "indexDocument": bucket.website.index_document,
            "errorDocument": bucket.website.error_document,
            "routingRules": [{"Redirect": {"HostName": "kept.example.org"}}],
        }
    return made


def key_id(name: str, version: int) -> str:
    return f"GK{ord(name[-1]):012x}{version:012x}"


def secret(name: str) -> str:
    return f"{ord(name[-1]):064x}"


def desired_keys(name: str) -> st.SearchStrategy[DesiredKey]:
    return st.builds(
        DesiredKey,
        st.just(name),
        st.just(key_id(name, 1)),
        st.just(secret(name)),
        st.sampled_from([True, True, False]),
        create_bucket=st.sampled_from([None, False, True]),
        expiration=st.sampled_from([None, NEVER, PAST, FUTURE]),
    )


def desired_buckets(name: str) -> st.SearchStrategy[DesiredBucket]:
    permissions = st.dictionaries(st.sampled_from(OURS), PERMISSIONS).map(lambda chosen: tuple(sorted_items(chosen)))
    local = st.sets(st.tuples(st.sampled_from(OURS), st.sampled_from(LOCAL)), max_size=2)
    return st.builds(
        DesiredBucket,
        name=st.just(name),
        quotas=st.none() | QUOTAS,
        website=st.none() | st.just(False) | WEBSITES,
        permissions=st.none() | permissions,
        present=st.sampled_from([True, True, False]),
        aliases=st.none() | st.sets(st.sampled_from(ALIASES)).map(lambda chosen: tuple(sorted(chosen))),
        local_aliases=st.none() | local.map(lambda chosen: tuple(sorted(chosen))),
        cors_rules=st.none() | CORS_LISTS,
        lifecycle_rules=st.none() | LIFECYCLE_LISTS,
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
    refused = {item["name"] for item in first["results"] if item["failed"]}
    reached(wanted, refused, cluster)
    untouched(wanted, refused, before, after, cluster)

    # what was refused may find its way free now, and nothing else has anything to do
    second = cluster.run(*wanted)
    assert {item["name"] for item in second["results"] if item["changed"]} <= refused
    if not refused:
        assert cluster.store.tables == after
    cluster.store.close()


def reached(wanted: list[Desired], refused: set[str], cluster: Cluster) -> None:
    tables = cluster.store.tables
    for item in wanted:
        if item.item in refused:
            continue
        if isinstance(item, DesiredKey):
            key_reached(item, tables["keys"].get(str(item.access_key_id)))
        elif item.present:
            bucket_reached(item, cluster)
        else:
            # another bucket may have got the name
            assert cluster.store.tables["aliases"].get(item.name) is None


def key_reached(item: DesiredKey, row: Mapping[str, Any] | None) -> None:
    assert (row is not None) == item.present
    if row is None:
        return
    if item.create_bucket is not None:
        assert row["createBucket"] == item.create_bucket
    past, future = 1577836800000, 4070908800000
    assert row["expiration"] in {None: {None, future}, NEVER: {None}, PAST: {past}, FUTURE: {future}}[item.expiration]


def bucket_reached(item: DesiredBucket, cluster: Cluster) -> None:
    bucket = bucket_from(cluster.info(item.name))
    for name in ("quotas", "cors_rules", "lifecycle_rules"):
        if getattr(item, name) is not None:
            assert getattr(bucket, name) == getattr(item, name)
    if item.website is not None:
        assert bucket.website == (item.website or None)
    assert item.name in bucket.aliases
    if item.aliases is not None:
        assert set(bucket.aliases) == {item.name, *item.aliases}
    ours = [grant for grant in bucket.grants if grant.owned]
    if item.local_aliases is not None:
        (row,) = [row for row in bucket_rows(cluster.client().get("ListBuckets")) if row.id == bucket.id]
        key_names = {row.id: row.name for row in key_rows(cluster.client().get("ListKeys"))}
        local = {(key_names[key_id], alias) for key_id, alias in row.local_aliases}
        assert {(name, alias) for name, alias in local if is_owned(name)} == set(item.local_aliases)
    if item.permissions is not None:
        rights = {grant.key_name: grant.permission for grant in ours if grant.permission.flags()}
        assert rights == {name: right for name, right in item.permissions if right.flags()}


def untouched(
    wanted: list[Desired], refused: set[str], before: dict[str, Any], after: dict[str, Any], cluster: Cluster
) -> None:
    theirs = {key_id for key_id, row in before["keys"].items() if row["name"] in THEIRS}
    deleted = before["buckets"].keys() - after["buckets"].keys()
    for key_of_theirs in theirs:
        old, new = before["keys"][key_of_theirs], after["keys"][key_of_theirs]
        # Garage itself takes the names of a deleted bucket away
        names = {alias: None if target in deleted else target for alias, target in old["localAliases"].items()}
        assert new == {**old, "localAliases": names}
    touched = {item.name: item for item in wanted if isinstance(item, DesiredBucket) and item.item not in refused}
    going = {item.access_key_id for item in wanted if isinstance(item, DesiredKey) and not item.present}
    for bucket_id, old in before["buckets"].items():
        new = after["buckets"].get(bucket_id)
        managers = [touched[name] for name in old["aliases"] if name in touched]
        if not managers:
            kept = {key_id: flags for key_id, flags in old["keys"].items() if key_id not in going}
            assert new == {**old, "keys": {**new["keys"], **kept}} if new else False
        elif new is not None:
            assert {key: new["keys"].get(key) for key in theirs} == {key: old["keys"].get(key) for key in theirs}
            assert not new["website"] or not old["website"] or new["website"]["routingRules"]
        else:
            assert not any(manager.present for manager in managers)
            assert cluster.store.tables.objects.counts(bucket_id)["objects"] == 0
            assert not any(any(flags) for key, flags in old["keys"].items() if key in theirs)
