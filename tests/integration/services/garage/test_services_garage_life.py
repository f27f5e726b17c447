# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Buckets, keys and tokens from their making to their end: settings, rotation, quotas, deletion with an export."""

from __future__ import annotations

import io
import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Denied, NotFound
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Client, http_sender
from botocore.exceptions import ClientError
from garage_place import Place, Tenant, by_name, eventually

EXPIRES = datetime(2030, 12, 31, 23, 59, 59, tzinfo=UTC)
CONTENTS = {"a": b"one", "~root/.ssh/id": b"two", "folder/": b"", "é {{ x }}\n": b"three"}


def bucket(place: Place, what: str, *tenants: Tenant, **fields: Any) -> dict[str, Any]:
    permissions = [{"key": tenant.name, "read": True, "write": True} for tenant in tenants]
    return {"name": place.name(what), "permissions": permissions, **fields}


def status(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def is_refused(place: Place, tenant: Tenant, what: str) -> bool:
    try:
        place.s3(tenant).head_bucket(Bucket=place.name(what))
    except ClientError as error:
        return status(error) == 403
    return False


def test_settings_are_made_kept_and_taken_back(place: Place) -> None:
    tenant = place.tenant("app")
    rules = {
        "cors_rules": [{"allowed_origins": ["https://a.example"], "allowed_methods": ["GET", "PUT"]}],
        "lifecycle_rules": [{"prefix": "tmp/", "expiration_days": 7, "abort_incomplete_multipart_upload_days": 1}],
    }
    item = bucket(
        place,
        "media",
        tenant,
        aliases=[place.name("media.example")],
        local_aliases=[{"key": tenant.name, "alias": place.name("mine")}],
        quotas={"max_size": 10**9, "max_objects": 1000},
        website={"enabled": True, "index_document": "i.html", "error_document": "e.html"},
    )
    place.change("garage_buckets", {"keys": [tenant.option], "buckets": [item]})
    info = place.info("media")
    assert sorted(info["globalAliases"]) == [place.name("media"), place.name("media.example")]
    assert (info["quotas"]["maxSize"], info["quotas"]["maxObjects"]) == (10**9, 1000)
    assert info["websiteConfig"]["errorDocument"] == "e.html"
    assert place.rights("media") == {tenant.name: {"read", "write"}}
    s3 = place.s3(tenant)
    names = [place.name("media"), place.name("media.example"), place.name("mine")]
    eventually(lambda: sorted(row["Name"] for row in s3.list_buckets()["Buckets"]) == sorted(names))

    keeps_rules = place.keeps_rules("media")
    if keeps_rules:
        place.change("garage_buckets", {"buckets": [{**item, **rules}]})
        place.allow("media", tenant, "owner")
        eventually(lambda: "CORSRules" in s3.get_bucket_cors(Bucket=place.name("media")))
        assert s3.get_bucket_cors(Bucket=place.name("media"))["CORSRules"][0]["AllowedMethods"] == ["GET", "PUT"]
        found = s3.get_bucket_lifecycle_configuration(Bucket=place.name("media"))["Rules"]
        assert (found[0]["Expiration"], found[0]["Filter"]) == ({"Days": 7}, {"Prefix": "tmp/"})
    else:
        # a server that drops what it does not know must not pass for one that keeps it
        result = place.run("garage_buckets", {"buckets": [{**item, **rules}]})
        assert "did not keep" in result["msg"]

    nothing = {"aliases": [], "local_aliases": [], "quotas": {}, "website": {"enabled": False}}
    nothing |= {name: [] for name in rules} if keeps_rules else {}
    place.change("garage_buckets", {"buckets": [{**item, **nothing, "permissions": []}]})
    info = place.info("media")
    assert info["globalAliases"] == [place.name("media")]
    assert (info["quotas"], info["websiteAccess"]) == ({"maxSize": None, "maxObjects": None}, False)
    assert place.rights("media") == {}
    eventually(lambda: is_refused(place, tenant, "media"))


def test_no_rules_and_names_for_keys_without_permissions_are_settled(place: Place) -> None:
    tenant = place.tenant("app")
    local = [{"key": tenant.name, "alias": place.name("mine")}]
    item = bucket(place, "media", local_aliases=local)
    place.change("garage_buckets", {"keys": [tenant.option], "buckets": [item]})
    empty = {"cors_rules": [], "lifecycle_rules": []}
    if place.keeps_rules("media"):
        result = place.run("garage_buckets", {"buckets": [{**item, **empty}]})
        assert (result["failed"], result["changed"]) == (False, False), result["msg"]
    else:
        result = place.run("garage_buckets", {"buckets": [{**item, **empty}]})
        assert "does not tell which rules" in result["msg"]
    # a key that has had a permission and lost it
    place.change("garage_buckets", {"buckets": [bucket(place, "media", tenant, local_aliases=local)]})
    place.change("garage_buckets", {"buckets": [item]})
    place.change("garage_buckets", {"buckets": [{**item, "local_aliases": []}]})
    rows = [row for row in place.admin.get("ListBuckets") if place.name("media") in row["globalAliases"]]
    assert [row["localAliases"] for row in rows] == [[]]


def test_a_quota_is_a_limit_and_raising_it_ends_it(place: Place) -> None:
    tenant = place.tenant("app")
    item = bucket(place, "small", tenant, quotas={"max_objects": 1})
    place.change("garage_buckets", {"keys": [tenant.option], "buckets": [item]})
    s3, named = place.s3(tenant), {"Bucket": place.name("small")}
    eventually(lambda: bool(s3.put_object(**named, Key="first", Body=b"x")))
    place.await_objects("small", 1)
    with pytest.raises(ClientError) as caught:
        s3.put_object(**named, Key="second", Body=b"x")
    assert (status(caught.value), "quota" in str(caught.value)) == (403, True)
    place.change("garage_buckets", {"buckets": [{**item, "quotas": {"max_objects": 2}}]})
    eventually(lambda: bool(s3.put_object(**named, Key="second", Body=b"x")))


def test_a_key_is_rotated_without_a_moment_without_one(place: Place) -> None:
    old, new = place.tenant("app"), place.tenant("app-2")
    name = place.name("media")

    def permissions(*tenants: Tenant) -> list[dict[str, Any]]:
        return [{"name": name, "permissions": [{"key": one.name, "read": True, "write": True} for one in tenants]}]

    gone = {"name": old.name, "access_key_id": old.access_key_id, "state": "absent"}
    first, both, last, again = place.tasks(
        {"garage_buckets": {"keys": [old.option], "buckets": permissions(old)}},
        {"garage_buckets": {"keys": [new.option], "buckets": permissions(old, new)}},
        {"garage_buckets": {"keys": [gone, new.option], "buckets": permissions(new), "max_delete_percent": 100}},
        {"garage_buckets": {"keys": [gone, new.option], "buckets": permissions(new), "max_delete_percent": 100}},
    )
    assert [(run["failed"], run["changed"]) for run in (first, both, last, again)] == [(False, True)] * 3 + [
        (False, False)
    ], (first["msg"], both["msg"], last["msg"], again["msg"])
    eventually(lambda: bool(place.s3(new).head_bucket(Bucket=name)))
    eventually(lambda: is_refused(place, old, "media"))
    # Garage never takes an id again, and this must be told
    result = place.run("garage_buckets", {"keys": [old.option]})
    assert "never takes it again" in by_name(result)[f"key {old.name}"]["msg"]


def test_a_key_that_garage_makes_is_in_its_file_and_nowhere_else(place: Place, tmp_path: Path) -> None:
    name, file = f"fediversity/{place.name('made')}", tmp_path / "secret"
    result = place.change("garage_keys", {"keys": [{"name": name, "secret_file": str(file)}]})
    secret = file.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret not in json.dumps(result)
    made = Tenant(name, by_name(result)[f"key {name}"]["access_key_id"], secret)
    eventually(lambda: place.s3(made).list_buckets()["Buckets"] == [])
    past = {"name": name, "expiration": "2020-01-01T00:00:00Z"}
    place.change("garage_keys", {"keys": [past]})
    eventually(lambda: _is_denied(place, made))
    place.change("garage_keys", {"keys": [{"name": name, "never_expires": True}]})
    eventually(lambda: place.s3(made).list_buckets()["Buckets"] == [])


def _is_denied(place: Place, tenant: Tenant) -> bool:
    try:
        place.s3(tenant).list_buckets()
    except ClientError as error:
        return status(error) == 403
    return False


def test_a_token_does_what_its_scope_says_and_no_more(place: Place, tmp_path: Path) -> None:
    name, file = f"fediversity/{place.name('run')}", tmp_path / "token"
    wanted = {"tokens": [{"name": name, "presets": ["run"], "token_file": str(file), "never_expires": True}]}
    result = place.change("garage_admin_tokens", wanted)
    token = file.read_text(encoding="utf-8")
    assert token not in json.dumps(result)
    tenant = place.tenant("app")
    arguments = {"keys": [tenant.option], "buckets": [bucket(place, "media", tenant)], "admin_token": token}
    made = place.run("garage_buckets", arguments)
    assert (made["failed"], made["changed"]) == (False, True), made["msg"]
    gone = {"buckets": [bucket(place, "media", state="absent")], "admin_token": token}
    refused = place.run("garage_buckets", gone)
    assert "DeleteBucket" in refused["msg"]
    assert place.exists("media")
    narrow = Client(http_sender(place.environment["GARAGE_ADMIN_URL"], token))
    with pytest.raises(Denied):
        narrow.post("CreateAdminToken", {"name": "more"})
    place.change("garage_admin_tokens", {"tokens": [{"name": name, "state": "absent"}], "max_delete_percent": 100})
    with pytest.raises(Denied):
        narrow.get("ListBuckets")


def test_a_bucket_goes_only_with_its_objects_kept(place: Place, tmp_path: Path) -> None:
    tenant = place.tenant("app")
    place.change("garage_buckets", {"keys": [tenant.option], "buckets": [bucket(place, "media", tenant)]})
    s3, named = place.s3(tenant), {"Bucket": place.name("media")}
    eventually(lambda: bool(s3.head_bucket(**named)))
    for key, content in CONTENTS.items():
        s3.put_object(
            **named, Key=key, Body=content, ContentType="text/x-made", Metadata={"by": "app"}, Expires=EXPIRES
        )
    large = bytes(range(256)) * (36 * 1024)
    s3.upload_fileobj(io.BytesIO(large), place.name("media"), "large")
    s3.create_multipart_upload(**named, Key="unfinished")
    place.await_objects("media", 5)

    gone = {"name": place.name("media"), "state": "absent"}
    kept = {**gone, "export_dir": str(tmp_path / "exports")}
    without, predicted, deleted, again = place.tasks(
        {"garage_buckets": {"buckets": [gone]}},
        {"garage_buckets": {"buckets": [kept]}, "check_mode": True},
        {"garage_buckets": {"buckets": [kept]}},
        {"garage_buckets": {"buckets": [kept]}},
    )
    assert without["failed"]
    assert "5 objects" in without["msg"]
    assert (predicted["failed"], predicted["changed"]) == (False, True), predicted["msg"]
    assert (deleted["failed"], deleted["changed"]) == (False, True), deleted["msg"]
    assert (again["failed"], again["changed"]) == (False, False), again["msg"]
    with pytest.raises(NotFound):
        place.info("media")

    export = by_name(deleted)[f"bucket {place.name('media')}"]["export"]
    directory = Path(export["directory"])
    assert list((tmp_path / "exports").iterdir()) == [directory]
    lines = (directory / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["key"]: row for row in map(json.loads, lines)}
    found = {key: (directory / row["file"]).read_bytes() for key, row in rows.items()}
    assert found == {**CONTENTS, "large": large}
    expires = "Tue, 31 Dec 2030 23:59:59 GMT"
    assert rows["a"]["headers"] == {"ContentType": "text/x-made", "ExpiresString": expires, "Metadata": {"by": "app"}}
    assert (export["objects"], export["bytes"]) == (5, sum(map(len, found.values())))
    # the key that read it is gone
    names = [row["name"] for row in place.admin.get("ListKeys")]
    assert [name for name in names if "export" in name and place.mark in name] == []


def test_unfinished_uploads_of_long_ago_go(place: Place) -> None:
    tenant = place.tenant("app")
    item = bucket(place, "media", tenant)
    place.change("garage_buckets", {"keys": [tenant.option], "buckets": [item]})
    s3, named = place.s3(tenant), {"Bucket": place.name("media")}
    eventually(lambda: bool(s3.head_bucket(**named)))
    s3.create_multipart_upload(**named, Key="unfinished")
    eventually(lambda: place.info("media")["unfinishedUploads"] == 1)
    kept, gone = place.tasks(
        {"garage_buckets": {"buckets": [{**item, "cleanup_incomplete_uploads": 3600}]}},
        {"garage_buckets": {"buckets": [{**item, "cleanup_incomplete_uploads": 0}]}},
    )
    assert (kept["failed"], gone["failed"]) == (False, False), (kept["msg"], gone["msg"])
    assert by_name(kept)[f"bucket {place.name('media')}"]["uploads_deleted"] == 0
    assert by_name(gone)[f"bucket {place.name('media')}"]["uploads_deleted"] == 1
    assert "Uploads" not in s3.list_multipart_uploads(**named)


def test_what_is_wrong_is_refused_by_item_and_the_rest_is_done(place: Place) -> None:
    tenant = place.tenant("app")
    wrong = {
        f"key {place.name('theirs')}": {"keys": [{**place.tenant("x").option, "name": place.name("theirs")}]},
        f"bucket {place.name('Upper')}": {"buckets": [{"name": place.name("Upper")}]},
        f"bucket {place.name('minus')}": {"buckets": [{"name": place.name("minus"), "quotas": {"max_size": -1}}]},
        f"bucket {place.name('nobody')}": {
            "buckets": [{"name": place.name("nobody"), "permissions": [{"key": "fediversity/nobody", "read": True}]}]
        },
    }
    arguments: dict[str, Any] = {"keys": [tenant.option], "buckets": [bucket(place, "good", tenant)]}
    for more in wrong.values():
        for kind, items in more.items():
            arguments[kind] = [*arguments[kind], *items]
    result = place.run("garage_buckets", arguments)
    assert result["failed"]
    assert {name for name, item in by_name(result).items() if item["failed"]} == set(wrong)
    assert all(item["msg"] for item in result["results"] if item["failed"])
    assert place.rights("good") == {tenant.name: {"read", "write"}}


def test_two_keys_of_one_name_are_not_guessed(place: Place) -> None:
    name = f"fediversity/{place.name('twice')}"
    for _count in range(2):
        place.admin.post("CreateKey", {"name": name})
    item = {"name": place.name("media"), "permissions": [{"key": name, "read": True}]}
    result = place.run("garage_buckets", {"buckets": [item]})
    assert result["failed"]
    assert "shares its name with another" in result["msg"]
    assert not place.exists("media")


def test_a_bucket_of_others_is_not_taken(place: Place) -> None:
    theirs = place.foreign_key("theirs")
    place.admin.post("CreateBucket", {"globalAlias": place.name("media")})
    place.allow("media", theirs, "read", "write")
    before = place.info("media")
    tenant = place.tenant("app")
    wishes = {"keys": [tenant.option], "buckets": [bucket(place, "media", tenant, quotas={"max_size": 1})]}
    result = place.run("garage_buckets", wishes)
    assert by_name(result)[f"bucket {place.name('media')}"]["action"] == "refused"
    assert place.info("media") == before
    result = place.run("garage_buckets", {"buckets": [{"name": place.name("media"), "state": "absent"}]})
    assert result["failed"]
    assert place.info("media") == before
