# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module garage_access as Ansible starts it, against the simulator's S3 API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.garage import access
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.access import Access, check_bucket
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Client, http_sender
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.s3 import s3_client
from lab.garage.background import RunningGarage, running_garage

MODULE = Path(__file__).parents[3] / "plugins" / "modules" / "garage_access.py"
WITHOUT_LIBRARY = "import runpy, sys; sys.modules['boto3'] = None; runpy.run_path(sys.argv.pop(), {}, '__main__')"


FLAGS = ("read", "write", "owner")


class Site:
    def __init__(self, garage: RunningGarage) -> None:
        self.garage = garage
        self.admin = Client(http_sender(garage.url, garage.admin_token))

    def bucket(self, name: str) -> str:
        return str(self.admin.post("CreateBucket", {"globalAlias": name})["id"])

    def key(self, *flags: str, bucket: str = "") -> dict[str, str]:
        """As an element of the module's ``keys``; with *flags* on *bucket*."""
        made = self.admin.post("CreateKey", {"name": "tenant"})
        if flags:
            body = {"bucketId": bucket, "accessKeyId": made["accessKeyId"], "permissions": dict.fromkeys(flags, True)}
            self.admin.post("AllowBucketKey", body)
        return {"access_key_id": made["accessKeyId"], "secret_access_key": made["secretAccessKey"]}

    def objects(self, bucket: str) -> list[str]:
        return [row.key for row in self.garage.store.tables.objects.listed(bucket, "")]

    def run(self, *keys: dict[str, Any], check: bool = False, **environment: str) -> dict[str, Any]:
        return start(
            {"keys": list(keys), "_ansible_check_mode": check},
            GARAGE_S3_ENDPOINT=self.garage.s3_endpoint,
            **environment,
        )


def start(arguments: dict[str, Any], *python: str, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *python, str(MODULE)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    shown = json.dumps({name: value for name, value in result.items() if name != "invocation"}) + done.stderr
    assert not [key for key in arguments["keys"] if "secret_access_key" in key and key["secret_access_key"] in shown]
    return result


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_garage(tmp_path) as garage:
        yield Site(garage)


def wrong(result: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["msg"] for item in result["results"] if item["failed"]}


def test_two_tenants(site: Site) -> None:
    one, two = site.bucket("one"), site.bucket("two")
    alice, reader, bob = (
        site.key("read", "write", bucket=one),
        site.key("read", bucket=one),
        site.key("read", "write", "owner", bucket=two),
    )
    result = site.run(
        {**alice, "buckets": [{"name": "one", "read": True, "write": True}], "refused": ["two"]},
        {**reader, "buckets": [{"name": "one", "read": True}], "refused": [two]},
        {**bob, "buckets": [{"name": "two", "read": True, "write": True, "owner": True}], "refused": ["one"]},
    )
    assert (result["changed"], result.get("failed", False), wrong(result)) == (False, False, {})
    assert len(result["results"]) == 9
    assert [site.objects(bucket) for bucket in (one, two)] == [[], []]
    by_name = {item["name"]: item for item in result["results"]}
    operations = by_name[f"{reader['access_key_id']} on one"]["operations"]
    assert {name for name, verdict in operations.items() if verdict == "allowed"} == set(access.READS)
    assert set(operations) == {*access.READS, *access.WRITES, *access.OWNS}


@pytest.mark.parametrize("flags", [(), ("read",), ("write",), ("owner",), ("read", "write"), FLAGS])
def test_every_difference_is_found(site: Site, flags: tuple[str, ...]) -> None:
    bucket = site.bucket("media")
    key = site.key(*flags, bucket=bucket)
    s3 = s3_client(site.garage.s3_endpoint, "garage", key["access_key_id"], key["secret_access_key"])
    for read in (False, True):
        for write in (False, True):
            for owner in (False, True):
                finding = check_bucket(s3, Access("media", read, write, owner))
                is_so = (read, write, owner) == tuple(flag in flags for flag in ("read", "write", "owner"))
                assert (finding.wrong == "") == is_so, finding
    assert site.objects(bucket) == []
    assert site.admin.get("GetBucketInfo", id=bucket)["unfinishedUploads"] == 0


def test_what_is_wrong_is_told_and_the_rest_is_checked(site: Site) -> None:
    one, two = site.bucket("one"), site.bucket("two")
    key = site.key("read", "write", bucket=one)
    body = {"bucketId": two, "accessKeyId": key["access_key_id"], "permissions": {"read": True}}
    site.admin.post("AllowBucketKey", body)
    bad = {"access_key_id": key["access_key_id"], "secret_access_key": "0" * 64}
    result = site.run(
        {**key, "buckets": [{"name": "one", "read": True}], "refused": ["two", "nothing"]},
        {**bad, "buckets": [], "refused": ["one"]},
    )
    key_id = key["access_key_id"]
    assert result["failed"]
    assert not result["changed"]
    assert [item["msg"] for item in result["results"][1:4] if item["failed"]] == [
        "the key should not be able to: delete_object, put_object, upload_parts",
        "the key should not be able to: get_object, head_bucket, list_objects, list_uploads",
        "there is no bucket of this name for this key, so nothing is proved. Correct the name, or use its id",
    ]
    assert result["results"][0] == {
        "name": key_id,
        "access_key_id": key_id,
        "changed": False,
        "failed": True,
        "msg": "the key should not reach: two",
    }
    assert "Invalid signature" in result["results"][4]["msg"]
    assert len(result["results"]) == 5
    assert site.objects(one) == []


def test_a_bucket_without_room(site: Site) -> None:
    """The key may write, but nobody can; that is not a permission."""
    bucket = site.bucket("full")
    site.admin.post("UpdateBucket", {"quotas": {"maxObjects": 0}}, id=bucket)
    key = site.key("read", "write", bucket=bucket)
    result = site.run({**key, "buckets": [{"name": "full", "read": True, "write": True}]})
    assert "Object quota is reached" in wrong(result)[f"{key['access_key_id']} on full"]


def test_check_mode_writes_nothing(site: Site) -> None:
    bucket = site.bucket("media")
    key = site.key("read", "write", bucket=bucket)
    result = site.run({**key, "buckets": [{"name": "media", "read": True}]}, check=True)
    assert wrong(result) == {}
    assert set(result["results"][1]["operations"]) == {*access.READS, *access.OWNS}
    assert " PUT " not in site.garage.access_log.read_text(encoding="utf-8")


def test_nobody_answers() -> None:
    key = {"access_key_id": "GK1", "secret_access_key": "5e" * 32, "refused": ["one"]}
    result = start({"s3_endpoint": "http://127.0.0.1:1", "timeout": 1, "keys": [key]})
    assert result["failed"]
    assert "no answer from Garage" in result["results"][0]["msg"]


def test_the_library_is_missing() -> None:
    arguments = {"s3_endpoint": "http://127.0.0.1:1", "keys": []}
    result = start(arguments, "-c", WITHOUT_LIBRARY)
    assert "boto3" in result["msg"]


def test_what_was_wanted_of_the_buckets_is_proved(site: Site) -> None:
    one, two = site.bucket("one"), site.bucket("two")
    site.bucket("open")
    alice, bob = site.key("read", "write", bucket=one), site.key("read", bucket=two)
    site.admin.post("AddBucketAlias", {"bucketId": one, "globalAlias": "other"})
    wanted: list[dict[str, Any]] = [
        {"name": "one", "aliases": ["other"], "permissions": [{"key": "alice", "read": True, "write": True}]},
        {"name": "two", "permissions": [{"key": "bob", "read": True}], "quotas": {"max_size": 5}},
        {"name": "open"},
        {"name": "gone", "permissions": [], "state": "absent"},
    ]
    keys = [
        {**alice, "name": "alice"},
        {**bob, "name": "bob"},
        {"name": "old", "state": "absent"},
        {"name": "made by Garage"},
    ]
    result = start({"keys": keys, "buckets": wanted}, GARAGE_S3_ENDPOINT=site.garage.s3_endpoint)
    assert wrong(result) == {}
    assert [item.get("bucket") for item in result["results"]] == [None, "one", "two"] * 2
    wanted[1]["permissions"] = [{"key": "alice", "read": True}]
    result = start({"keys": keys, "buckets": wanted}, GARAGE_S3_ENDPOINT=site.garage.s3_endpoint)
    assert set(wrong(result)) == {
        f"{alice['access_key_id']} on two",
        bob["access_key_id"],
        f"{bob['access_key_id']} on two",
    }


def test_keys_of_which_nothing_is_proved_are_named(site: Site) -> None:
    done = site.run({"name": "fediversity/one"}, {"name": "fediversity/gone", "state": "absent"})
    assert 'Nothing is proved of keys without secret_access_key: fediversity/one"' in json.dumps(done["warnings"])
