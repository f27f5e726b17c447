# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Aliases, rules, uploads, somebody who changes the same bucket, and the remains of crashes."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.cleanup import cleaned_up
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Answer, Client
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    DesiredBucket,
    DesiredKey,
    Permission,
    Quotas,
    Website,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.provider import GarageProvider
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.rules import CorsRule, LifecycleRule
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import reconcile
from garage_support import Cluster, actions, foreign_key, key, nothing, result
from lab.garage.store import NEWEST, OLDEST, Store

CORS = CorsRule(("https://a.example.org",), ("GET", "HEAD"), ("*",), ("ETag",), 3600, "all")
LIFECYCLE = (
    LifecycleRule(abort_incomplete_multipart_upload_days=2),
    LifecycleRule("cache", False, "cache/", 10, 1000, expiration_days=30),
    LifecycleRule("end", expiration_date="2030-01-01", object_size_less_than=5),
)


def local_names(cluster: Cluster, name: str) -> dict[str, list[str]]:
    """By key name, also of keys that have no permission, which GetBucketInfo leaves out."""
    key_names = {row["id"]: row["name"] for row in cluster.client().get("ListKeys")}
    (row,) = [row for row in cluster.client().get("ListBuckets") if name in row["globalAliases"]]
    names: dict[str, list[str]] = {}
    for local in row["localAliases"]:
        names.setdefault(key_names[local["accessKeyId"]], []).append(local["alias"])
    return {key_name: sorted(aliases) for key_name, aliases in names.items()}


def test_global_aliases_are_exact_or_left(cluster: Cluster) -> None:
    cluster.run(DesiredBucket("media", aliases=("media.example.org", "old")))
    assert cluster.info("media")["globalAliases"] == ["media", "media.example.org", "old"]
    assert not cluster.run(DesiredBucket("media"))["changed"]
    run = cluster.run(DesiredBucket("media", aliases=("media.example.org", "new")))
    assert run["diff"]["after"]["bucket media"]["aliases"] == ["media", "media.example.org", "new"]
    assert cluster.info("media")["globalAliases"] == ["media", "media.example.org", "new"]
    assert not cluster.run(DesiredBucket("media", aliases=("new", "media.example.org")))["changed"]
    cluster.run(DesiredBucket("media", aliases=()))
    assert cluster.info("media")["globalAliases"] == ["media"]


def test_a_bucket_gets_a_new_name_and_loses_the_old_one(cluster: Cluster) -> None:
    made = result(cluster.run(DesiredBucket("old")), "bucket old")["id"]
    assert not cluster.run(DesiredBucket("new", id=made, aliases=()))["failed"]
    assert cluster.info("new")["globalAliases"] == ["new"]


def test_local_aliases_are_exact_for_our_keys(cluster: Cluster) -> None:
    cluster.run(key(), key("two", 2), DesiredBucket("media", local_aliases=(("fediversity/one", "mine"),)))
    theirs = foreign_key(cluster, "media")
    bucket_id = cluster.info("media")["id"]
    cluster.client().post("AddBucketAlias", {"bucketId": bucket_id, "accessKeyId": theirs, "localAlias": "theirs"})
    assert not cluster.run(DesiredBucket("media"))["changed"]
    run = cluster.run(DesiredBucket("media", local_aliases=(("fediversity/two", "mine"), ("fediversity/two", "ours"))))
    assert not run["failed"], run["msg"]
    assert local_names(cluster, "media") == {"fediversity/two": ["mine", "ours"], "somebody": ["theirs"]}
    # a name that was used before is refused by CreateBucket, not here
    run = cluster.run(DesiredBucket("media", local_aliases=(("fediversity/one", "mine"),)))
    assert local_names(cluster, "media") == {"fediversity/one": ["mine"], "somebody": ["theirs"]}
    assert not cluster.run(DesiredBucket("media", local_aliases=(("fediversity/one", "mine"),)))["changed"]
    assert not cluster.run(DesiredBucket("media", permissions=()))["changed"]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_local_aliases_of_keys_without_permissions_are_seen(version: str) -> None:
    cluster = Cluster(Store(version=version))
    wanted = DesiredBucket("media", permissions=(), local_aliases=(("fediversity/one", "mine"),))
    for check in (True, False):
        run = cluster.run(key(), wanted, check=check)
        assert (run["changed"], run["failed"]) == (True, False), run["msg"]
    assert not cluster.run(key(), wanted)["changed"]
    run = cluster.run(DesiredBucket("media", quotas=Quotas(5), local_aliases=()))
    assert (run["changed"], run["failed"]) == (True, False), run["msg"]
    assert local_names(cluster, "media") == {}


def test_local_aliases_are_refused_when_they_cannot_be_seen(cluster: Cluster) -> None:
    cluster.run(key(), DesiredBucket("media"))
    scope = ["ListKeys", "GetBucketInfo", "UpdateBucket"]
    cluster.token = cluster.client().post("CreateAdminToken", {"scope": scope})["secretToken"]
    run = cluster.run(DesiredBucket("media", local_aliases=()))
    assert "scope ListBuckets" in result(run, "bucket media")["msg"]
    assert not cluster.run(DesiredBucket("media", quotas=Quotas(5)))["failed"]


def test_names_of_other_buckets_are_not_taken(cluster: Cluster) -> None:
    cluster.run(key(), DesiredBucket("taken", local_aliases=(("fediversity/one", "mine"),)))
    holder = cluster.info("taken")
    run = cluster.run(
        DesiredBucket("media", aliases=("taken",)), DesiredBucket("other", local_aliases=(("fediversity/one", "mine"),))
    )
    assert actions(run) == {"bucket media": "refused", "bucket other": "refused"}
    assert f"the name taken belongs to the bucket {holder['id']}" in result(run, "bucket media")["msg"]
    assert f"belongs to the bucket {holder['id']}" in result(run, "bucket other")["msg"]
    assert cluster.info("taken") == holder
    assert len(cluster.store.tables["buckets"]) == 1


def test_names_move_from_one_bucket_to_another_in_one_run(cluster: Cluster) -> None:
    cluster.run(key(), DesiredBucket("a-old", aliases=("www",), local_aliases=(("fediversity/one", "mine"),)))
    cluster.run(DesiredBucket("z-gone", aliases=("ftp",), permissions=(("fediversity/one", Permission(read=True)),)))
    wanted = [
        DesiredBucket("a-new", aliases=("ftp", "www"), local_aliases=(("fediversity/one", "mine"),)),
        DesiredBucket("a-old", aliases=(), local_aliases=()),
        DesiredBucket("z-gone", present=False),
    ]
    predicted = cluster.run(*wanted, check=True)
    run = cluster.run(*wanted)
    assert not run["failed"], run["msg"]
    assert (actions(predicted), predicted["diff"]) == (actions(run), run["diff"])
    assert cluster.info("a-new")["globalAliases"] == ["a-new", "ftp", "www"]
    assert local_names(cluster, "a-new") == {"fediversity/one": ["mine"]}
    assert not cluster.run(*wanted)["changed"]


def test_names_that_are_not_given_are_waited_for_in_vain(cluster: Cluster) -> None:
    cluster.run(DesiredBucket("one1", aliases=("x-1",)), DesiredBucket("two2", aliases=("x-2",)))
    before = cluster.store.tables["aliases"]
    swap = [DesiredBucket("one1", aliases=("x-2",)), DesiredBucket("two2", aliases=("x-1",))]
    assert set(actions(cluster.run(*swap)).values()) == {"refused"}
    # the giver is refused, so the taker is
    run = cluster.run(DesiredBucket("one1", aliases=(), quotas=Quotas(-1)), DesiredBucket("new", aliases=("x-1",)))
    assert set(actions(run).values()) == {"refused"}
    assert cluster.store.tables["aliases"] == before


def test_two_items_that_are_one_bucket_are_refused(cluster: Cluster) -> None:
    cluster.run(DesiredBucket("media", aliases=("second",)))
    run = cluster.run(DesiredBucket("media", quotas=Quotas(1)), DesiredBucket("second", quotas=Quotas(2)))
    assert actions(run) == {"bucket media": "refused", "bucket second": "refused"}
    assert "is also the bucket of bucket second" in result(run, "bucket media")["msg"]
    run = cluster.run(DesiredBucket("one1", aliases=("two2",)), DesiredBucket("two2"))
    assert actions(run) == {"bucket one1": "refused", "bucket two2": "refused"}


def test_rules_are_exact_or_left_or_cleared(cluster: Cluster) -> None:
    wanted = DesiredBucket("media", cors_rules=(CORS,), lifecycle_rules=LIFECYCLE)
    made = cluster.run(wanted)
    assert not made["failed"], made["msg"]
    info = cluster.info("media")
    assert info["corsRules"] == [
        {
            "ID": "all",
            "AllowedOrigin": ["https://a.example.org"],
            "AllowedMethod": ["GET", "HEAD"],
            "AllowedHeader": ["*"],
            "ExposeHeader": ["ETag"],
            "MaxAgeSeconds": 3600,
        }
    ]
    assert info["lifecycleRules"][1]["Filter"]["And"]["ObjectSizeGreaterThan"] == 10
    assert [rule["Status"] for rule in info["lifecycleRules"]] == ["Enabled", "Disabled", "Enabled"]
    assert not cluster.run(wanted)["changed"]
    assert not cluster.run(DesiredBucket("media", quotas=None))["changed"]
    changed = cluster.run(DesiredBucket("media", lifecycle_rules=LIFECYCLE[:1]))
    assert changed["diff"]["after"]["bucket media"]["lifecycle_rules"] == [
        {"enabled": True, "abort_incomplete_multipart_upload_days": 2}
    ]
    assert cluster.info("media")["corsRules"] == info["corsRules"]
    cluster.run(DesiredBucket("media", cors_rules=(), lifecycle_rules=()))
    assert not {"corsRules", "lifecycleRules"} & {*cluster.info("media")}


def test_rules_that_the_server_drops_are_a_failure() -> None:
    cluster = Cluster(Store(version=OLDEST))
    run = cluster.run(
        DesiredBucket("media", cors_rules=(CORS,)),
        DesiredBucket("other", lifecycle_rules=LIFECYCLE, quotas=Quotas(5)),
        DesiredBucket("none", cors_rules=(), lifecycle_rules=()),
    )
    assert "accepted cors_rules and did not keep them" in result(run, "bucket media")["msg"]
    assert "2.3" in result(run, "bucket other")["msg"]
    # they may have been set through S3 since
    assert "2.3" in result(run, "bucket none")["msg"]
    assert "does not tell" in cluster.run(DesiredBucket("other", lifecycle_rules=()))["msg"]
    assert not cluster.run(DesiredBucket("other", quotas=Quotas(6)))["failed"]
    assert cluster.info("other")["quotas"]["maxSize"] == 6
    assert cluster.run(DesiredBucket("media", cors_rules=(CORS,)))["failed"]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"aliases": ("Bad_Name",)}, "aliases: 'Bad_Name' is no valid bucket name"),
        ({"aliases": ("media",)}, "aliases: 'media' is given twice"),
        ({"aliases": ("abc", "abc")}, "'abc' is given twice"),
        ({"local_aliases": (("fediversity/one", "no"),)}, "local_aliases of 'fediversity/one'"),
        ({"local_aliases": (("somebody", "name"),)}, "the key is not ours"),
        ({"local_aliases": (("fediversity/none", "name"),)}, "local_aliases of 'fediversity/none': the key does not"),
        ({"local_aliases": (("fediversity/one", "name"),) * 2}, "given twice"),
        ({"website": Website("")}, "website.index_document: a website needs an index document"),
        ({"cors_rules": (replace(CORS, allowed_origins=()),)}, "cors_rules[0].allowed_origins"),
        ({"cors_rules": (CORS, replace(CORS, id=None, allowed_methods=()))}, "cors_rules[1].allowed_methods"),
        ({"cors_rules": (replace(CORS, allowed_methods=("get",)),)}, "'get' is no method"),
        ({"cors_rules": (replace(CORS, allowed_origins=("https://a b",)),)}, "is no origin"),
        ({"cors_rules": (replace(CORS, allowed_headers=("X:",)),)}, "allowed_headers: 'X:' is no header"),
        ({"cors_rules": (replace(CORS, expose_headers=("\u00e9",)),)}, "expose_headers"),
        ({"cors_rules": (replace(CORS, max_age_seconds=-1),)}, "max_age_seconds: -1"),
        ({"cors_rules": (CORS, CORS)}, "cors_rules[0].id"),
        ({"lifecycle_rules": (LifecycleRule("x"),)}, "lifecycle_rules[0]: the rule does nothing: it has no days"),
        ({"lifecycle_rules": (LifecycleRule(expiration_days=0),)}, "lifecycle_rules[0].expiration_days: 0"),
        ({"lifecycle_rules": (LifecycleRule(abort_incomplete_multipart_upload_days=-1),)}, "upload_days: -1"),
        ({"lifecycle_rules": (LifecycleRule(expiration_date="1.1.2030"),)}, "no date"),
        ({"lifecycle_rules": (LifecycleRule(expiration_date="2030-02-30"),)}, "no date"),
        ({"lifecycle_rules": (LifecycleRule(expiration_days=1, expiration_date="2030-01-01"),)}, "exclude each other"),
        ({"lifecycle_rules": (LifecycleRule(expiration_days=1, object_size_less_than=-1),)}, "object_size_less_than"),
        ({"quotas": Quotas(2**64)}, "quotas.max_size: 18446744073709551616 is no quota"),
        ({"cleanup_incomplete_uploads": -1}, "cleanup_incomplete_uploads: -1"),
        ({"export_dir": "/tmp"}, "export_dir"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    cluster: Cluster, wanted: dict[str, Any], words: str
) -> None:
    run = cluster.run(key(), DesiredBucket("media", **wanted), DesiredBucket("fine"))
    assert words in result(run, "bucket media")["msg"]
    assert actions(run)["bucket media"] == "refused"
    assert not result(run, "bucket fine")["failed"]
    assert len(cluster.store.tables["buckets"]) == 1


def test_one_who_changes_the_bucket_meanwhile_is_not_undone(cluster: Cluster) -> None:
    cluster.run(DesiredBucket("media", quotas=Quotas(1)), DesiredBucket("other"))
    human = cluster.client()
    bucket_id = cluster.info("media")["id"]
    written: list[str] = []

    def meddle(endpoint: str) -> None:
        if endpoint == "UpdateBucket" and not written:
            written.append(endpoint)
            human.post("UpdateBucket", {"quotas": {"maxSize": 7, "maxObjects": 7}}, id=bucket_id)

    cluster.before = meddle
    # the first bucket's write is when somebody changes the second
    run = cluster.run(DesiredBucket("other", quotas=Quotas(3)), DesiredBucket("media", quotas=Quotas(2)))
    assert "somebody else has changed quotas since this run planned" in result(run, "bucket media")["msg"]
    assert cluster.info("media")["quotas"] == {"maxSize": 7, "maxObjects": 7}
    assert not result(run, "bucket other")["failed"]
    cluster.before = nothing
    assert not cluster.run(DesiredBucket("media", quotas=Quotas(2)))["failed"]


def test_one_who_writes_right_after_us_is_told(cluster: Cluster) -> None:
    cluster.run(DesiredBucket("media"))
    bucket_id, human = cluster.info("media")["id"], cluster.client()
    written: list[str] = []

    def meddle(endpoint: str) -> None:
        if endpoint == "ListKeys" and "UpdateBucket" in cluster.calls and not written:
            written.append(endpoint)
            human.post("UpdateBucket", {"quotas": {"maxSize": 7, "maxObjects": None}}, id=bucket_id)

    cluster.before = meddle
    run = cluster.run(DesiredBucket("media", quotas=Quotas(2)))
    assert "quotas still differs" in result(run, "bucket media")["msg"]


def test_foreign_permissions_that_change_meanwhile_are_no_obstacle_and_stay(cluster: Cluster) -> None:
    cluster.run(key(), DesiredBucket("media", permissions=(("fediversity/one", Permission(read=True)),)))
    theirs = foreign_key(cluster, "media")
    human, bucket_id = cluster.client(), cluster.info("media")["id"]
    done: list[str] = []

    def meddle(endpoint: str) -> None:
        if endpoint == "GetBucketInfo" and cluster.calls.count("GetBucketInfo") == 1 and not done:
            done.append(endpoint)
            body = {"bucketId": bucket_id, "accessKeyId": theirs, "permissions": {"owner": True}}
            human.post("AllowBucketKey", body)

    cluster.before = meddle
    run = cluster.run(DesiredBucket("media", permissions=(("fediversity/one", Permission(write=True)),)))
    assert not run["failed"], run["msg"]
    assert cluster.rights("media") == {"fediversity/one": {"write"}, "somebody": {"read", "write", "owner"}}


def test_remains_of_a_crash_are_told_and_can_be_used_or_deleted_by_their_id(cluster: Cluster) -> None:
    """Garage was killed between the bucket and its alias."""
    orphan = cluster.client().post("CreateBucket", {})["id"]
    second = cluster.client().post("CreateBucket", {})["id"]
    provider = GarageProvider(cluster.client())
    assert not reconcile(provider, [DesiredBucket("media")], check=True)["failed"]
    assert {row["id"] for row in provider.surroundings.unnamed()} == {orphan, second}
    assert not cluster.run(DesiredBucket("media", id=orphan, quotas=Quotas(5)))["failed"]
    assert cluster.info("media")["id"] == orphan
    assert not cluster.run(DesiredBucket("gone", id=second, present=False))["failed"]
    reconcile(provider, [DesiredBucket("media")], check=True)
    assert provider.surroundings.unnamed() == []


def test_a_bucket_of_another_name_is_not_deleted_by_its_id(cluster: Cluster) -> None:
    made = result(cluster.run(DesiredBucket("media")), "bucket media")["id"]
    run = cluster.run(DesiredBucket("other", id=made, present=False))
    assert "the bucket of this id has other names: media" in result(run, "bucket other")["msg"]
    assert cluster.info("media")["id"] == made


def test_a_bucket_that_others_use_is_deleted_only_by_its_id(cluster: Cluster) -> None:
    cluster.run(key(), DesiredBucket("media", permissions=(("fediversity/one", Permission(read=True)),)))
    foreign_key(cluster, "media")
    run = cluster.run(DesiredBucket("media", present=False))
    assert "keys of others use the bucket ('somebody')" in result(run, "bucket media")["msg"]
    assert not cluster.run(DesiredBucket("media", id=cluster.info("media")["id"], present=False))["failed"]


def test_a_key_is_not_deleted_when_a_bucket_would_lose_its_only_name(cluster: Cluster) -> None:
    cluster.run(key())
    local = {"localAlias": {"accessKeyId": key().access_key_id, "alias": "mine"}}
    made = cluster.client().post("CreateBucket", local)["id"]
    run = cluster.run(key(present=False))
    assert "mine: buckets that have no other name" in result(run, "key fediversity/one")["msg"]
    assert not cluster.run(key(present=False), DesiredBucket("media", id=made))["failed"]
    assert cluster.info("media")["id"] == made
    assert cluster.client().get("ListKeys") == []


def test_a_token_without_listbuckets_does_all_but_delete_keys(cluster: Cluster) -> None:
    scope = ["ListKeys", "GetBucketInfo", "ImportKey", "CreateBucket", "DeleteKey", "UpdateBucket"]
    cluster.token = cluster.client().post("CreateAdminToken", {"scope": scope})["secretToken"]
    run = cluster.run(key(), DesiredBucket("media", quotas=Quotas(1)), DesiredKey("fediversity/none", present=False))
    assert not run["failed"], run["msg"]
    run = cluster.run(key(present=False))
    assert "scope ListBuckets" in result(run, "key fediversity/one")["msg"]


def begin_uploads(cluster: Cluster, number: int) -> None:
    for count in range(number):
        cluster.store.tables.objects.begin(cluster.info("media")["id"], f"{count}", {}, "")
    # of this millisecond they would not be older than 0 seconds
    time.sleep(0.005)


def clean(cluster: Cluster, wanted: DesiredBucket, *, check: bool = False) -> dict[str, Any]:
    provider = GarageProvider(cluster.client())
    cluster.calls.clear()
    run = reconcile(provider, [wanted], check=check)
    return cleaned_up(cluster.client(), [wanted], provider.buckets, run, check=check)


def test_incomplete_uploads_are_removed(cluster: Cluster) -> None:
    wanted = DesiredBucket("media", cleanup_incomplete_uploads=0)
    assert result(clean(cluster, wanted), "bucket media")["uploads_deleted"] == 0
    begin_uploads(cluster, 2)
    assert clean(cluster, wanted, check=True)["changed"]
    assert "CleanupIncompleteUploads" not in cluster.calls
    run = clean(cluster, wanted)
    assert (run["changed"], result(run, "bucket media")["uploads_deleted"]) == (True, 2)
    assert result(run, "bucket media")["action"] == "update"
    assert not clean(cluster, wanted)["changed"]
    assert cluster.calls == ["ListKeys", "ListBuckets", "GetBucketInfo"]


def test_young_uploads_stay_and_are_no_change(cluster: Cluster) -> None:
    wanted = DesiredBucket("media", cleanup_incomplete_uploads=3600)
    clean(cluster, wanted)
    begin_uploads(cluster, 1)
    run = clean(cluster, wanted)
    assert (run["changed"], result(run, "bucket media")["uploads_deleted"]) == (False, 0)


def test_uploads_that_cannot_be_removed_fail_their_item(cluster: Cluster) -> None:
    cluster.run(DesiredBucket("media"))
    begin_uploads(cluster, 1)
    scope = ["ListKeys", "ListBuckets", "GetBucketInfo"]
    cluster.token = cluster.client().post("CreateAdminToken", {"scope": scope})["secretToken"]
    run = clean(cluster, DesiredBucket("media", cleanup_incomplete_uploads=0))
    assert run["failed"]
    assert "scope lacks CleanupIncompleteUploads" in run["msg"]
    assert "scope lacks CleanupIncompleteUploads" in json.dumps(run["results"])


def test_an_odd_answer_about_removed_uploads_fails_its_item_only(cluster: Cluster) -> None:
    wanted = DesiredBucket("media", cleanup_incomplete_uploads=0)
    cluster.run(wanted)
    begin_uploads(cluster, 1)

    def odd(method: str, path: str, body: bytes | None) -> Answer:
        return Answer(200, b"{}") if "Cleanup" in path else cluster.send(method, path, body)

    provider = GarageProvider(Client(odd))
    run = cleaned_up(Client(odd), [wanted], provider.buckets, reconcile(provider, [wanted]), check=False)
    assert "answer is not understood" in result(run, "bucket media")["msg"]
