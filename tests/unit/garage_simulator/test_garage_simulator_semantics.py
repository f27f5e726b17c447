# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Garage does beyond its OpenAPI document: codes, traps and semantics, each as a test of the simulator."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from lab.garage.api import Request, answer
from lab.garage.store import Store

CONFIGURED = "configured"
UNKNOWN_ID = "ab" * 32
KEY_ID = "GK" + "0a" * 12
SECRET = "5e" * 32


@dataclass
class Api:
    store: Store = field(default_factory=Store)
    token: str = CONFIGURED

    def send(self, method: str, path: str, body: Any = None, authorization: str | None = None) -> tuple[int, Any]:
        path, _mark, query = path.partition("?")
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        reply = answer(self.store, CONFIGURED, Request(method, path, query, authorization, raw))
        return reply.status, json.loads(reply.body) if reply.content_type == "application/json" else reply.body

    def get(self, endpoint: str) -> tuple[int, Any]:
        return self.send("GET", f"/v2/{endpoint}", authorization=f"Bearer {self.token}")

    def post(self, endpoint: str, body: Any = None) -> tuple[int, Any]:
        return self.send("POST", f"/v2/{endpoint}", body, f"Bearer {self.token}")

    def ok(self, endpoint: str, body: Any = None) -> Any:
        status, value = self.post(endpoint, body) if body is not None else self.get(endpoint)
        assert status == 200, value
        return value

    def refused(self, endpoint: str, body: Any = None, *, post: bool = False) -> tuple[int, str]:
        status, value = self.post(endpoint, body) if post or body is not None else self.get(endpoint)
        return status, value["code"]

    def bucket(self, alias: str | None = None) -> str:
        return str(self.ok("CreateBucket", {"globalAlias": alias})["id"])

    def key(self, name: str = "somebody") -> str:
        return str(self.ok("CreateKey", {"name": name})["accessKeyId"])


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.mark.parametrize(
    "authorization", [None, "Basic x", "Bearer wrong", "Bearer unknown.token", f"bearer {CONFIGURED}", CONFIGURED]
)
def test_every_bad_token_is_403(api: Api, authorization: str | None) -> None:
    status, error = api.send("GET", "/v2/ListKeys", authorization=authorization)
    assert (status, error["code"]) == (403, "AccessDenied")
    assert set(error) == {"code", "message", "region", "path"}
    assert error["path"] == "/v2/ListKeys"


def test_wrong_expired_and_narrow_tokens_read_the_same(api: Api) -> None:
    narrow = api.ok("CreateAdminToken", {"scope": ["ListBuckets"]})["secretToken"]
    past = api.ok("CreateAdminToken", {"expiration": "2020-01-01T00:00:00Z"})["secretToken"]
    answers = [api.send("GET", "/v2/ListKeys", authorization=f"Bearer {token}") for token in (narrow, past, "x")]
    assert {(status, error["code"], error["message"]) for status, error in answers} == {
        (403, "AccessDenied", "Forbidden: Invalid bearer token")
    }


def test_scope_and_the_question_that_is_always_allowed(api: Api) -> None:
    api.token = api.ok("CreateAdminToken", {"name": "narrow", "scope": ["ListBuckets"]})["secretToken"]
    assert api.ok("ListBuckets") == []
    assert api.ok("GetCurrentAdminTokenInfo")["scope"] == ["ListBuckets"]
    assert api.refused("GetClusterStatus") == (403, "AccessDenied")


def test_tokens(api: Api) -> None:
    made = api.ok("CreateAdminToken", {"name": "one"})
    assert made["scope"] == ["*"]
    assert made["secretToken"].startswith(f"{made['id']}.")
    assert "secretToken" not in api.ok(f"GetAdminTokenInfo?id={made['id']}")
    both = {"expiration": "2099-01-01T00:00:00Z", "neverExpires": True}
    assert api.refused(f"UpdateAdminToken?id={made['id']}", both) == (400, "InvalidRequest")
    assert api.refused("GetAdminTokenInfo?search=nobody") == (400, "InvalidRequest")
    assert api.refused("GetAdminTokenInfo?id=nobody") == (404, "NoSuchAdminToken")
    assert api.ok(f"GetAdminTokenInfo?search={made['id'][:6]}")["name"] == "one"
    assert api.post(f"DeleteAdminToken?id={made['id']}") == (200, None)
    assert api.refused(f"DeleteAdminToken?id={made['id']}", post=True) == (404, "NoSuchAdminToken")
    assert [token["name"] for token in api.ok("ListAdminTokens")] == ["admin_token (from daemon configuration)"]
    api.token = made["secretToken"]
    assert api.refused("ListKeys") == (403, "AccessDenied")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v2/Nothing"), ("POST", "/v2/ListKeys"), ("GET", "/v1/bucket"), ("DELETE", "/")]
)
def test_unknown_endpoints_are_400_even_without_token(api: Api, method: str, path: str) -> None:
    status, error = api.send(method, path)
    assert (status, error["code"]) == (400, "InvalidRequest")
    assert "Unknown API endpoint" in error["message"]


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("CreateBucket", b"{"),
        ("CreateBucket", []),
        ("CreateBucket", {"globalAlias": 5}),
        ("ImportKey", {"accessKeyId": KEY_ID}),
        ("AllowBucketKey", {"bucketId": UNKNOWN_ID, "accessKeyId": KEY_ID}),
        ("AllowBucketKey", {"bucketId": UNKNOWN_ID, "accessKeyId": KEY_ID, "permissions": {"read": None}}),
        ("AddBucketAlias", {"bucketId": UNKNOWN_ID, "localAlias": "name"}),
        (f"UpdateBucket?id={UNKNOWN_ID}", {"quotas": {"maxSize": -1}}),
        (f"UpdateBucket?id={UNKNOWN_ID}", {"quotas": {"maxSize": 2**64}}),
        (f"UpdateBucket?id={UNKNOWN_ID}", {"quotas": {"maxSize": 1.0}}),
        (f"UpdateBucket?id={UNKNOWN_ID}", {"quotas": {"maxSize": True}}),
        (f"UpdateKey?id={KEY_ID}", {"expiration": "tomorrow"}),
        (f"UpdateKey?id={KEY_ID}", {"neverExpires": None}),
        ("UpdateBucket", {}),
        ("UpdateBucket?id=", {}),
        (f"UpdateBucket?id={UNKNOWN_ID}&id={UNKNOWN_ID}", {}),
        ("UpdateBucket?id=short", {}),
    ],
)
def test_bad_requests(api: Api, endpoint: str, body: Any) -> None:
    assert api.refused(endpoint, body) == (400, "InvalidRequest")


def test_unknown_fields_are_ignored_and_null_is_absent(api: Api) -> None:
    bucket = api.ok("CreateBucket", {"globalAlias": "media", "colour": "red", "localAlias": None})
    assert "colour" not in bucket


@pytest.mark.parametrize("endpoint", ["GetBucketInfo", "UpdateBucket", "DeleteBucket"])
def test_unknown_bucket(api: Api, endpoint: str) -> None:
    body = {} if endpoint == "UpdateBucket" else None
    post = endpoint != "GetBucketInfo"
    assert api.refused(f"{endpoint}?id={UNKNOWN_ID}", body, post=post) == (404, "NoSuchBucket")


@pytest.mark.parametrize("endpoint", ["GetKeyInfo", "UpdateKey", "DeleteKey"])
def test_unknown_key(api: Api, endpoint: str) -> None:
    body = {} if endpoint == "UpdateKey" else None
    assert api.refused(f"{endpoint}?id={KEY_ID}", body, post=endpoint != "GetKeyInfo") == (404, "NoSuchAccessKey")


def test_a_bucket_with_objects_is_not_deleted(api: Api) -> None:
    bucket = api.bucket("media")
    api.store.tables.objects.put(bucket, "picture", b"bytes")
    assert api.refused(f"DeleteBucket?id={bucket}", post=True) == (409, "BucketNotEmpty")
    api.store.tables.objects.delete(bucket, "picture")
    assert api.post(f"DeleteBucket?id={bucket}") == (200, None)
    assert api.refused("GetBucketInfo?globalAlias=media") == (404, "NoSuchBucket")
    assert api.bucket("media") != bucket


def test_global_aliases(api: Api) -> None:
    one, two = api.bucket("one"), api.bucket("two")
    assert api.refused("CreateBucket", {"globalAlias": "one"}) == (409, "BucketAlreadyExists")
    assert api.refused("AddBucketAlias", {"bucketId": two, "globalAlias": "one"}) == (400, "InvalidRequest")
    assert api.refused("AddBucketAlias", {"bucketId": two, "globalAlias": "Two!"}) == (400, "InvalidBucketName")
    assert api.refused("CreateBucket", {"globalAlias": "Two!"}) == (400, "InvalidRequest")
    same = api.ok("AddBucketAlias", {"bucketId": one, "globalAlias": "one"})
    assert same["globalAliases"] == ["one"]
    assert api.refused("RemoveBucketAlias", {"bucketId": two, "globalAlias": "one"}) == (500, "InternalError")
    assert api.refused("RemoveBucketAlias", {"bucketId": one, "globalAlias": "none"}) == (500, "InternalError")
    assert api.refused("RemoveBucketAlias", {"bucketId": one, "globalAlias": "one"}) == (400, "InvalidRequest")
    api.ok("AddBucketAlias", {"bucketId": one, "globalAlias": "uno"})
    assert api.ok("RemoveBucketAlias", {"bucketId": one, "globalAlias": "one"})["globalAliases"] == ["uno"]


def test_local_aliases(api: Api) -> None:
    key, bucket = api.key(), api.bucket("one")
    alias = {"bucketId": bucket, "localAlias": "mine", "accessKeyId": key}
    # a key without permissions is not listed, and ListBuckets alone shows its names
    assert api.ok("AddBucketAlias", alias)["keys"] == []
    assert api.ok("ListBuckets")[0]["localAliases"] == [{"accessKeyId": key, "alias": "mine"}]
    api.ok("AllowBucketKey", {"bucketId": bucket, "accessKeyId": key, "permissions": {"read": True}})
    assert api.ok(f"GetBucketInfo?id={bucket}")["keys"][0]["bucketLocalAliases"] == ["mine"]
    assert api.ok("RemoveBucketAlias", alias)["keys"][0]["bucketLocalAliases"] == []
    # the name was used once: CreateBucket refuses it for good, AddBucketAlias does not
    again = {"localAlias": {"accessKeyId": key, "alias": "mine"}}
    assert api.refused("CreateBucket", again) == (400, "InvalidRequest")
    api.ok("AddBucketAlias", alias)
    assert api.ok("ListBuckets")[0]["localAliases"] == [{"accessKeyId": key, "alias": "mine"}]
    other = {"bucketId": api.bucket("two"), "localAlias": "mine", "accessKeyId": key}
    assert api.refused("AddBucketAlias", other) == (400, "InvalidRequest")
    assert api.refused("RemoveBucketAlias", other) == (500, "InternalError")


@pytest.mark.parametrize(
    "name", ["ab", "a" * 64, "Upper", "-a-", "a.b.", "10.0.0.1", "x-s3alias", "xn--abc", "a.xn--abc", "a_b", "ünï"]
)
def test_invalid_bucket_names(api: Api, name: str) -> None:
    assert api.refused("CreateBucket", {"globalAlias": name}) == (400, "InvalidRequest")


@pytest.mark.parametrize("name", ["abc", "a" * 63, "media.example.org", "a--b", "a..b", "1.2.3.4.5"])
def test_valid_bucket_names(api: Api, name: str) -> None:
    assert api.ok("CreateBucket", {"globalAlias": name})["globalAliases"] == [name]


def test_permissions_are_added_and_taken_never_set(api: Api) -> None:
    key, bucket = api.key(), api.bucket("media")

    def change(endpoint: str, **flags: bool) -> dict[str, bool]:
        body = {"bucketId": bucket, "accessKeyId": key, "permissions": flags}
        return dict(api.ok(endpoint, body)["keys"][0]["permissions"])

    assert change("AllowBucketKey", read=True) == {"read": True, "write": False, "owner": False}
    assert change("AllowBucketKey", write=True, read=False) == {"read": True, "write": True, "owner": False}
    assert change("DenyBucketKey", read=True) == {"read": False, "write": True, "owner": False}
    # a key that lost everything is not listed any more
    body = {"bucketId": bucket, "accessKeyId": key, "permissions": {"write": True}}
    assert api.ok("DenyBucketKey", body)["keys"] == []
    assert api.ok(f"GetKeyInfo?id={key}")["buckets"] == []


def test_update_bucket_replaces_whole_fields(api: Api) -> None:
    update = f"UpdateBucket?id={api.bucket('media')}"
    assert api.ok(update, {"quotas": {"maxSize": 5, "maxObjects": 0}})["quotas"] == {"maxSize": 5, "maxObjects": 0}
    assert api.ok(update, {"quotas": {"maxObjects": 7}})["quotas"] == {"maxSize": None, "maxObjects": 7}
    assert api.ok(update, {})["quotas"] == {"maxSize": None, "maxObjects": 7}
    assert api.refused(update, {"websiteAccess": {"enabled": True}}) == (400, "InvalidRequest")
    rules = [{"Redirect": {"HostName": "example.org"}}]
    website = {"enabled": True, "indexDocument": "i", "errorDocument": "e", "routingRules": rules}
    assert api.ok(update, {"websiteAccess": website})["websiteConfig"]["errorDocument"] == "e"
    kept = api.ok(update, {"websiteAccess": {"enabled": True, "indexDocument": "j"}})["websiteConfig"]
    assert kept == {"indexDocument": "j", "errorDocument": None, "routingRules": rules}
    with_document = {"websiteAccess": {"enabled": False, "indexDocument": "i"}}
    assert api.refused(update, with_document) == (400, "InvalidRequest")
    assert "websiteConfig" not in api.ok(update, {"websiteAccess": {"enabled": False}})
    cors = [{"AllowedOrigin": ["*"], "AllowedMethod": ["GET"]}]
    whole = {"AllowedHeader": [], "ExposeHeader": [], **cors[0]}
    assert api.ok(update, {"corsRules": cors})["corsRules"] == [whole]
    assert api.ok(update, {"quotas": {}})["corsRules"] == [whole]
    assert "corsRules" not in api.ok(update, {"corsRules": []})


def test_import_key_and_its_tombstone(api: Api) -> None:
    body = {"accessKeyId": KEY_ID, "secretAccessKey": SECRET, "name": "fediversity/x"}
    assert "secretAccessKey" not in api.ok("ImportKey", body)
    assert api.refused("ImportKey", body) == (409, "KeyAlreadyExists")
    assert api.post(f"DeleteKey?id={KEY_ID}") == (200, None)
    assert api.ok("ListKeys") == []
    assert api.refused("ImportKey", body) == (409, "KeyAlreadyExists")
    assert api.refused("ImportKey", {**body, "accessKeyId": "GKshort"}) == (400, "InvalidRequest")
    assert api.refused("ImportKey", {**body, "accessKeyId": "GK" + "1" * 24, "secretAccessKey": "x"}) == (
        400,
        "InvalidRequest",
    )


def test_the_secret_is_shown_once_or_on_demand(api: Api) -> None:
    made = api.ok("CreateKey", {"name": "one"})
    assert len(made["secretAccessKey"]) == 64
    assert "secretAccessKey" not in api.ok(f"GetKeyInfo?id={made['accessKeyId']}")
    shown = api.ok(f"GetKeyInfo?id={made['accessKeyId']}&showSecretKey=true")["secretAccessKey"]
    assert shown == made["secretAccessKey"]
    assert "secretAccessKey" not in api.ok(f"UpdateKey?id={made['accessKeyId']}", {"name": "two"})


def test_key_flags_and_expiration(api: Api) -> None:
    update = f"UpdateKey?id={api.key()}"
    assert api.ok(update, {"allow": {"createBucket": True}})["permissions"] == {"createBucket": True}
    assert api.ok(update, {"allow": {"createBucket": False}})["permissions"] == {"createBucket": True}
    assert api.ok(update, {"deny": {"createBucket": True}})["permissions"] == {"createBucket": False}
    past = "2020-01-01T02:00:00+02:00"
    assert api.ok(update, {"expiration": past})["expired"] is True
    assert api.ok("ListKeys")[0]["expiration"] == "2020-01-01T00:00:00Z"
    assert api.refused(update, {"expiration": past, "neverExpires": True}) == (400, "InvalidRequest")
    assert api.ok(update, {"neverExpires": True})["expired"] is False


def test_names_of_keys_are_not_unique_and_search_refuses_two(api: Api) -> None:
    one, two = api.key("Same"), api.key("Same")
    assert one != two
    assert api.refused("GetKeyInfo?search=same") == (400, "InvalidRequest")
    assert api.refused("GetKeyInfo?search=sam") == (404, "NoSuchAccessKey")
    assert api.ok(f"GetKeyInfo?search={one[:20].lower()}")["accessKeyId"] == one
    assert api.refused("GetKeyInfo") == (400, "InvalidRequest")
    assert api.refused(f"GetKeyInfo?id={one}&search=same") == (400, "InvalidRequest")


def test_search_of_buckets(api: Api) -> None:
    bucket = api.bucket("media")
    assert api.ok("GetBucketInfo?search=media")["id"] == bucket
    assert api.ok(f"GetBucketInfo?search={bucket[:20]}")["id"] == bucket
    assert api.ok(f"GetBucketInfo?search={bucket}")["id"] == bucket
    assert api.refused("GetBucketInfo?search=zz") == (404, "NoSuchBucket")
    with api.store.change() as tables:
        tables["buckets"][bucket[:20] + "0" * 44] = tables["buckets"][bucket]
    assert api.refused(f"GetBucketInfo?search={bucket[:20]}") == (400, "InvalidRequest")


def test_deleting_a_key_takes_its_rights_and_aliases_but_not_the_bucket(api: Api) -> None:
    key = api.key()
    local = {"accessKeyId": key, "alias": "mine", "allow": {"read": True}}
    bucket = api.ok("CreateBucket", {"localAlias": local})["id"]
    assert api.post(f"DeleteKey?id={key}") == (200, None)
    (left,) = api.ok("ListBuckets")
    assert (left["id"], left["globalAliases"], left["localAliases"]) == (bucket, [], [])
    assert api.ok(f"GetBucketInfo?id={bucket}")["keys"] == []


def test_check_wants_a_global_alias_with_website_access(api: Api) -> None:
    bucket = api.bucket("media.example.org")
    assert api.send("GET", "/check?domain=media.example.org")[0] == 400
    api.ok(f"UpdateBucket?id={bucket}", {"websiteAccess": {"enabled": True, "indexDocument": "i"}})
    assert api.send("GET", "/check?domain=media.example.org")[0] == 200
    assert api.send("GET", "/check")[0] == 400


def test_a_refused_write_changes_nothing(api: Api) -> None:
    before = json.dumps(api.store.tables)
    body = {"globalAlias": "media", "localAlias": {"accessKeyId": KEY_ID, "alias": "mine"}}
    assert api.refused("CreateBucket", body) == (404, "NoSuchAccessKey")
    assert json.dumps(api.store.tables) == before
