# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The provider against the simulator, without HTTP: what is done, in which requests, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.garage import provider as provider_module
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    DesiredBucket,
    DesiredKey,
    Permission,
    Quotas,
    Website,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.provider import GarageProvider
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import reconcile
from garage_support import Cluster, Exchange, Script, actions, foreign_key, key, nothing, result

READ = Permission(read=True)
WRITE = Permission(read=True, write=True)


def bucket(name: str = "media", *rights: tuple[str, Permission], **changes: Any) -> DesiredBucket:
    return DesiredBucket(name, permissions=tuple((f"fediversity/{key}", right) for key, right in rights), **changes)


def test_create_then_unchanged(cluster: Cluster) -> None:
    wanted = [
        key(),
        key("two", 2),
        bucket("media", ("one", WRITE), ("two", READ), quotas=Quotas(10, 5), website=Website("i", "e")),
    ]
    first = cluster.run(*wanted)
    assert not first["failed"], first["msg"]
    assert actions(first) == {
        "bucket media": "create",
        "key fediversity/one": "create",
        "key fediversity/two": "create",
    }
    assert result(first, "bucket media")["id"] == cluster.info("media")["id"]
    assert result(first, "key fediversity/one")["access_key_id"] == key().access_key_id
    assert cluster.rights("media") == {"fediversity/one": {"read", "write"}, "fediversity/two": {"read"}}
    assert cluster.info("media")["quotas"] == {"maxSize": 10, "maxObjects": 5}
    second = cluster.run(*wanted)
    assert not second["changed"]
    assert second["diff"] == {"before": {}, "after": {}}


def test_requests_of_a_creation(cluster: Cluster) -> None:
    cluster.run(key(), bucket("media", ("one", WRITE), quotas=Quotas(10)))
    read = ["ListKeys", "ListBuckets", "GetBucketInfo"]
    assert cluster.calls == [*read, "ImportKey", "CreateBucket", "UpdateBucket", "AllowBucketKey", *read]


def test_unchanged_buckets_cost_one_request_each(cluster: Cluster) -> None:
    wanted = [key(), *(bucket(f"media-{number}", ("one", READ)) for number in range(7))]
    cluster.run(*wanted)
    cluster.run(*wanted)
    assert sorted(cluster.calls) == ["GetBucketInfo"] * 7 + ["ListBuckets", "ListKeys"]


def test_check_mode_writes_nothing_and_predicts(cluster: Cluster) -> None:
    wanted = [key(), bucket("media", ("one", WRITE))]
    predicted = cluster.run(*wanted, check=True)
    assert cluster.calls == ["ListKeys", "ListBuckets", "GetBucketInfo"]
    assert cluster.store.tables["buckets"] == {}
    done = cluster.run(*wanted)
    assert predicted["diff"] == done["diff"]
    assert actions(predicted) == actions(done)
    assert predicted["changed"] is done["changed"] is True


def test_permission_drift_is_repaired_and_foreign_permissions_are_left(cluster: Cluster) -> None:
    wanted = [key(), key("two", 2), bucket("media", ("one", READ))]
    cluster.run(*wanted)
    foreign = foreign_key(cluster, "media")
    client, bucket_id = cluster.client(), cluster.info("media")["id"]

    def change(endpoint: str, number: int, **flags: bool) -> None:
        body = {"bucketId": bucket_id, "accessKeyId": key("", number).access_key_id, "permissions": flags}
        client.post(endpoint, body)

    change("DenyBucketKey", 1, read=True)
    change("AllowBucketKey", 1, owner=True)
    change("AllowBucketKey", 2, write=True)
    run = cluster.run(*wanted)
    assert cluster.rights("media") == {"fediversity/one": {"read"}, "somebody": {"read", "write"}}
    assert run["diff"]["before"]["bucket media"]["permissions"] == {
        f"fediversity/one (GK{1:024x})": ["owner"],
        f"fediversity/two (GK{2:024x})": ["write"],
    }
    assert foreign not in json.dumps(run)
    assert [call for call in cluster.calls if "BucketKey" in call] == ["DenyBucketKey"] * 2 + ["AllowBucketKey"]
    assert not cluster.run(*wanted)["changed"]


def test_what_is_not_given_stays(cluster: Cluster) -> None:
    cluster.run(key(), bucket("media", ("one", READ), quotas=Quotas(1, 2), website=Website("i")))
    before = cluster.info("media")
    run = cluster.run(DesiredBucket("media"))
    assert not run["changed"]
    assert cluster.info("media") == before


def test_quotas_replace_each_other_and_zero_is_a_limit(cluster: Cluster) -> None:
    cluster.run(DesiredBucket("media", quotas=Quotas(10, 20)))
    assert cluster.run(DesiredBucket("media", quotas=Quotas(None, 0)))["changed"]
    assert cluster.info("media")["quotas"] == {"maxSize": None, "maxObjects": 0}
    assert not cluster.run(DesiredBucket("media", quotas=Quotas(None, 0)))["changed"]


def test_website_on_changed_and_off(cluster: Cluster) -> None:
    for website, shown in (
        (Website("i", "e"), {"indexDocument": "i", "errorDocument": "e", "routingRules": []}),
        (Website("i"), {"indexDocument": "i", "errorDocument": None, "routingRules": []}),
        (False, None),
    ):
        assert cluster.run(DesiredBucket("media", website=website))["changed"]
        assert cluster.info("media").get("websiteConfig") == shown
        assert not cluster.run(DesiredBucket("media", website=website))["changed"]


def test_delete(cluster: Cluster) -> None:
    cluster.run(key(), bucket("media", ("one", READ)))
    gone = [key(present=False), bucket("media", present=False)]
    run = cluster.run(*gone)
    assert actions(run) == {"bucket media": "delete", "key fediversity/one": "delete"}
    # the bucket first: with the key gone nobody would know whose it is
    assert [call for call in cluster.calls if call.startswith("Delete")] == ["DeleteBucket", "DeleteKey"]
    again = cluster.run(*gone)
    assert not again["changed"]
    assert not again["failed"]


def test_a_bucket_with_objects_is_not_deleted(cluster: Cluster) -> None:
    cluster.run(key(), bucket("media", ("one", READ)))
    for number in range(3):
        cluster.store.tables.objects.put(cluster.info("media")["id"], f"{number}", b"")
    run = cluster.run(DesiredBucket("media", present=False), DesiredBucket("other"))
    assert run["failed"]
    assert "holds 3 objects" in result(run, "bucket media")["msg"]
    assert actions(run) == {"bucket media": "refused", "bucket other": "create"}
    assert cluster.info("media")["objects"] == 3


def test_objects_that_came_after_the_plan_stop_the_deletion(script: Callable[[Sequence[Exchange]], Script]) -> None:
    info = {
        "id": "ab" * 32,
        "globalAliases": ["media"],
        "websiteConfig": None,
        "keys": [{"accessKeyId": "GK1", "name": "fediversity/one", "permissions": {"read": True}}],
        "quotas": {},
        "objects": 0,
    }
    read = [
        Exchange("GET", "/v2/ListKeys", answer=[]),
        Exchange("GET", "/v2/ListBuckets", answer=[]),
        Exchange("GET", "/v2/GetBucketInfo?globalAlias=media", answer=info),
    ]
    full = {"code": "BucketNotEmpty", "message": "Tried to delete a non-empty bucket"}
    again = Exchange("GET", f"/v2/GetBucketInfo?id={'ab' * 32}", answer=info)
    delete = Exchange("POST", f"/v2/DeleteBucket?id={'ab' * 32}", None, 409, full)
    made = script([*read, again, delete, *read])
    run = reconcile(GarageProvider(Client(made.send)), [DesiredBucket("media", present=False)])
    assert "never deleted" in result(run, "bucket media")["msg"]


def test_a_key_id_of_another_name_is_refused(cluster: Cluster) -> None:
    wanted = key()
    body = {"accessKeyId": wanted.access_key_id, "secretAccessKey": wanted.secret, "name": "fediversity/other"}
    cluster.client().post("ImportKey", body)
    run = cluster.run(wanted, bucket("media", ("one", READ)))
    assert "belongs to the key 'fediversity/other'" in result(run, "key fediversity/one")["msg"]
    assert "is refused" in result(run, "bucket media")["msg"]
    assert cluster.store.tables["buckets"] == {}


def test_two_keys_of_one_name_are_refused_until_one_is_deleted_by_id(cluster: Cluster) -> None:
    cluster.run(key())
    second = key(number=2)
    body = {"accessKeyId": second.access_key_id, "secretAccessKey": second.secret, "name": second.name}
    cluster.client().post("ImportKey", body)
    run = cluster.run(key(), key("fine", 3), bucket("media", ("one", READ)))
    assert "2 keys have this name" in result(run, "key fediversity/one")["msg"]
    assert actions(run) == {
        "bucket media": "refused",
        "key fediversity/fine": "create",
        "key fediversity/one": "refused",
    }
    assert actions(cluster.run(key(number=2, present=False))) == {"key fediversity/one": "delete"}
    assert not cluster.run(key())["changed"]


def test_a_key_that_goes_by_its_id_is_not_confused_with_another_of_its_name(cluster: Cluster) -> None:
    cluster.run(key())
    run = cluster.run(key(number=2, present=False))
    assert not run["changed"]
    assert [row["id"] for row in cluster.client().get("ListKeys")] == [key().access_key_id]


def test_a_new_id_for_an_old_name_is_refused(cluster: Cluster) -> None:
    cluster.run(key())
    run = cluster.run(key(number=2))
    assert "delete the old key first" in result(run, "key fediversity/one")["msg"]
    assert len(cluster.client().get("ListKeys")) == 1


def test_a_deleted_key_id_says_what_to_do(cluster: Cluster) -> None:
    cluster.run(key())
    cluster.run(key(present=False))
    run = cluster.run(key())
    assert "existed and was deleted" in result(run, "key fediversity/one")["msg"]


def test_an_expired_key_is_made_valid(cluster: Cluster) -> None:
    cluster.run(key())
    cluster.client().post("UpdateKey", {"expiration": "2020-01-01T00:00:00Z"}, id=str(key().access_key_id))
    assert actions(cluster.run(key())) == {"key fediversity/one": "update"}
    assert cluster.client().get("ListKeys")[0]["expired"] is False
    assert not cluster.run(key())["changed"]


def test_a_bucket_that_others_use_is_not_taken_by_its_name(cluster: Cluster) -> None:
    cluster.client().post("CreateBucket", {"globalAlias": "media"})
    foreign_key(cluster, "media")
    before = cluster.info("media")
    for wanted in (bucket("media", ("one", WRITE)), bucket("media", present=False)):
        run = cluster.run(key(), wanted)
        assert "used by keys of others ('somebody') and by none of ours" in result(run, "bucket media")["msg"]
        assert cluster.info("media") == before
    taken = cluster.run(key(), bucket("media", ("one", READ), id=before["id"]))
    assert not taken["failed"]
    assert cluster.rights("media") == {"fediversity/one": {"read"}, "somebody": {"read", "write"}}


def test_a_bucket_of_nobodys_keys_is_deleted_by_its_id_only(cluster: Cluster) -> None:
    made = cluster.client().post("CreateBucket", {"globalAlias": "media"})["id"]
    run = cluster.run(bucket("media", present=False))
    assert f"Give its id {made}" in result(run, "bucket media")["msg"]
    assert cluster.info("media")["id"] == made
    assert actions(cluster.run(bucket("media", id=made, present=False))) == {"bucket media": "delete"}


def test_a_bucket_that_others_begin_to_use_after_the_plan_stays(cluster: Cluster) -> None:
    cluster.run(key(), bucket("media", ("one", READ)), bucket("before", ("one", READ)))

    def give(endpoint: str) -> None:
        if endpoint == "DeleteBucket":
            cluster.before = nothing
            foreign_key(cluster, "media")

    cluster.before = give
    run = cluster.run(bucket("before", present=False), bucket("media", present=False))
    assert "keys of others use the bucket ('somebody')" in result(run, "bucket media")["msg"]
    assert cluster.info("media")


def test_a_bucket_is_found_by_its_id_and_gets_its_name(cluster: Cluster) -> None:
    bucket_id = result(cluster.run(DesiredBucket("old")), "bucket old")["id"]
    run = cluster.run(DesiredBucket("new", id=bucket_id))
    assert run["diff"]["after"]["bucket new"]["aliases"] == ["new", "old"]
    assert cluster.info("new")["id"] == bucket_id
    assert not cluster.run(DesiredBucket("new", id=bucket_id))["changed"]


def test_an_id_that_does_not_exist_makes_no_new_bucket(cluster: Cluster) -> None:
    run = cluster.run(DesiredBucket("media", id="ab" * 32))
    assert "no bucket with the id" in result(run, "bucket media")["msg"]
    assert cluster.store.tables["buckets"] == {}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (DesiredKey("fediversity/one", "GK" + "1" * 24, None), "both needed"),
        (DesiredKey("fediversity/one", None, "5" * 64), "both needed"),
        (DesiredKey("fediversity/one", "GK 1", "5" * 64), "access_key_id: the access key id is malformed"),
        (DesiredKey("fediversity/one", "GK" + "1" * 24, "short"), "secret_access_key: the secret is malformed"),
        (DesiredKey("one", "GK" + "1" * 24, "5" * 64), "Name it fediversity/"),
        (DesiredKey("fediversity/", "GK" + "1" * 24, "5" * 64), "Name it fediversity/"),
        (DesiredKey("somebody", present=False), "Name it fediversity/"),
        (DesiredBucket("Bad_Name"), "no valid bucket name"),
        (DesiredBucket("10.0.0.1"), "no valid bucket name"),
        (DesiredBucket("media", id="AB" * 32), "64 lower-case hex digits"),
        (DesiredBucket("media", quotas=Quotas(-1, None)), "quotas.max_size: -1 is no quota"),
        (DesiredBucket("media", quotas=Quotas(None, 2**64)), "quotas.max_objects"),
        (DesiredBucket("media", website=Website("")), "index document"),
        (DesiredBucket("media", permissions=(("somebody", READ),)), "not ours"),
        (DesiredBucket("media", permissions=(("fediversity/none", READ),)), "does not exist"),
        (DesiredBucket("media", permissions=(("fediversity/x", READ),) * 2), "given twice"),
    ],
)
def test_bad_items_are_refused_alone(cluster: Cluster, wanted: Any, words: str) -> None:
    run = cluster.run(wanted, DesiredBucket("fine"))
    assert words in result(run, wanted.item)["msg"]
    assert wanted.item in result(run, wanted.item)["msg"]
    assert actions(run) == {wanted.item: "refused", "bucket fine": "create"}
    assert [row["aliases"] for row in cluster.store.tables["buckets"].values()] == [["fine"]]


def test_an_item_given_twice_is_refused(cluster: Cluster) -> None:
    run = cluster.run(DesiredBucket("media"), DesiredBucket("media", quotas=Quotas(1)), key(), key(present=False))
    assert actions(run) == {"bucket media": "refused", "key fediversity/one": "refused"}


def test_a_permission_may_name_a_key_of_an_earlier_run_but_not_one_that_goes(cluster: Cluster) -> None:
    cluster.run(key())
    assert not cluster.run(bucket("media", ("one", READ)))["failed"]
    run = cluster.run(key(present=False), bucket("other", ("one", READ)))
    assert "to be deleted" in result(run, "bucket other")["msg"]


WANTED = [key(), bucket("media", ("one", WRITE), quotas=Quotas(10))]


@pytest.mark.parametrize("request_number", range(7))
def test_a_connection_that_breaks_at_any_request_is_repaired_by_running_again(
    cluster: Cluster, request_number: int
) -> None:
    """The server has done what it was asked, and the answer is lost."""
    cluster.cut_after = request_number
    if request_number < 3:  # cut while reading, before anything was written
        with pytest.raises(Unreachable):
            cluster.run(*WANTED)
    else:
        assert cluster.run(*WANTED)["failed"]
    cluster.cut_after = None
    again = cluster.run(*WANTED)
    assert not again["failed"], again["msg"]
    assert cluster.rights("media") == {"fediversity/one": {"read", "write"}}
    assert cluster.info("media")["quotas"] == {"maxSize": 10, "maxObjects": None}
    assert len(cluster.store.tables["buckets"]) == len(cluster.store.tables["keys"]) == 1
    assert not cluster.run(*WANTED)["changed"]


def test_an_alias_that_a_crash_of_garage_left_half_made_is_completed(cluster: Cluster) -> None:
    """CreateBucket writes the bucket, the alias, and the alias in the bucket; here the last step is missing."""
    cluster.run(DesiredBucket("media"))
    with cluster.store.change() as tables:
        next(iter(tables["buckets"].values()))["aliases"] = []
    run = cluster.run(*WANTED)
    assert not run["failed"], run["msg"]
    assert actions(run)["bucket media"] == "update"
    assert cluster.info("media")["globalAliases"] == ["media"]


def test_a_bucket_without_alias_is_left_alone(cluster: Cluster) -> None:
    """Whose it is cannot be known: it may be one that its owner keeps for its local alias, or by id."""
    orphan = cluster.client().post("CreateBucket", {})
    cluster.run(*WANTED)
    assert cluster.client().get("GetBucketInfo", id=orphan["id"]) == orphan


def test_when_garage_goes_away_the_rest_is_not_tried(cluster: Cluster) -> None:
    provider = GarageProvider(cluster.client())
    wanted = [DesiredBucket(f"media-{number}") for number in range(5)]
    changes = provider.plan(wanted, provider.read(wanted)).pending()
    cluster.calls.clear()
    cluster.cut_after = 1
    with pytest.raises(Unreachable):
        list(provider.apply(changes))
    assert cluster.calls == ["CreateBucket"] * 2


def test_a_permission_missing_for_one_endpoint_fails_only_what_needs_it(cluster: Cluster) -> None:
    scope = ["ListKeys", "GetBucketInfo", "CreateBucket"]
    cluster.token = cluster.client().post("CreateAdminToken", {"scope": scope})["secretToken"]
    run = cluster.run(key(), DesiredBucket("media"))
    assert "scope lacks ImportKey" in result(run, "key fediversity/one")["msg"]
    assert result(run, "bucket media")["changed"]


def test_more_keys_than_garage_lists_are_an_error(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_module, "LIST_KEYS_MAX", 1)
    cluster.client().post("CreateKey", {"name": "somebody"})
    with pytest.raises(BackendError, match="lists only its first 1 keys"):
        cluster.run(key())


@pytest.mark.parametrize("answer", [{}, [{"name": "x"}], [5], "text", None])
def test_answers_of_something_else_than_garage(script: Callable[[Sequence[Exchange]], Script], answer: Any) -> None:
    made = script([Exchange("GET", "/v2/ListKeys", answer=answer)])
    with pytest.raises(BackendError, match="not understood"):
        reconcile(GarageProvider(Client(made.send)), [DesiredBucket("media")])


def test_no_secret_in_results_diffs_and_representations(cluster: Cluster) -> None:
    wanted = key()
    assert wanted.secret
    runs = [cluster.run(wanted, check=True), cluster.run(wanted), cluster.run(wanted)]
    bad = DesiredKey("fediversity/bad", "GK" + "9" * 24, "sentinel secret!")
    runs.append(cluster.run(bad))
    for text in (json.dumps(runs), repr(wanted), str(wanted), repr(bad)):
        assert wanted.secret not in text
        assert "sentinel" not in text
