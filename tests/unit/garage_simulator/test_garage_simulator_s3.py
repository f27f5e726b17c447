# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulator's S3 API through boto3: objects, listings, uploads, permissions, quotas, settings."""

from __future__ import annotations

import hashlib
import io
import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from lab.garage import api
from lab.garage.background import RunningGarage, running_garage
from lab.garage.objects import Object
from lab.garage.s3.listing import page_of
from lab.garage.store import OLDEST, Store

MIB = 2**20


@dataclass
class Site:
    garage: RunningGarage

    def admin(self, endpoint: str, body: Any = None) -> Any:
        path, _mark, query = endpoint.partition("?")
        request = api.Request(
            "GET" if body is None else "POST", f"/v2/{path}", query, f"Bearer {self.garage.admin_token}", _json(body)
        )
        reply = api.answer(self.garage.store, self.garage.admin_token, request)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)

    def key(self, **flags: Any) -> dict[str, str]:
        made: dict[str, str] = self.admin("CreateKey", {"name": "tenant", **flags})
        return made

    def bucket(self, name: str) -> str:
        return str(self.admin("CreateBucket", {"globalAlias": name})["id"])

    def allow(self, bucket: str, key: dict[str, str], *flags: str) -> None:
        body = {"bucketId": bucket, "accessKeyId": key["accessKeyId"], "permissions": dict.fromkeys(flags, True)}
        self.admin("AllowBucketKey", body)

    def client(self, key: dict[str, str], secret: str | None = None) -> Any:
        """As a user would make one: boto3's defaults, among them checksums."""
        return boto3.client(
            "s3",
            endpoint_url=self.garage.s3_endpoint,
            region_name="garage",
            aws_access_key_id=key["accessKeyId"],
            aws_secret_access_key=secret or key["secretAccessKey"],
            config=Config(retries={"total_max_attempts": 1}),
        )

    def tenant(self, name: str, *flags: str) -> Any:
        """A bucket and a client that has these permissions on it."""
        key = self.key()
        self.allow(self.bucket(name), key, *(flags or ("read", "write")))
        return self.client(key)


def _json(body: Any) -> bytes:
    return b"" if body is None else json.dumps(body).encode()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_garage(tmp_path) as garage:
        yield Site(garage)


def code(call: Callable[..., Any], **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


@pytest.mark.parametrize("key", ["plain", "a/b c/é+&?=~!'()*,;:@$#%.txt", "x\x01y", "." * 3, "a//b/../c/"])
def test_an_object_comes_back_as_it_was_put(site: Site, key: str) -> None:
    s3 = site.tenant("media")
    put = s3.put_object(Bucket="media", Key=key, Body=b"hello", Metadata={"by": "x"}, ContentType="text/plain")
    assert put["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    got = s3.get_object(Bucket="media", Key=key)
    assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (b"hello", {"by": "x"}, "text/plain")
    assert s3.head_object(Bucket="media", Key=key)["ContentLength"] == 5
    assert s3.get_object(Bucket="media", Key=key, Range="bytes=1-2")["Body"].read() == b"el"
    assert s3.get_object(Bucket="media", Key=key, Range="bytes=-2")["Body"].read() == b"lo"
    assert [row["Key"] for row in s3.list_objects_v2(Bucket="media")["Contents"]] == [key]
    s3.delete_object(Bucket="media", Key=key)
    assert code(s3.get_object, Bucket="media", Key=key) == (404, "NoSuchKey")
    s3.delete_object(Bucket="media", Key=key)


def test_conditions_and_ranges(site: Site) -> None:
    s3 = site.tenant("media")
    etag = s3.put_object(Bucket="media", Key="k", Body=b"hello")["ETag"]
    assert s3.get_object(Bucket="media", Key="k", IfMatch=etag)["Body"].read() == b"hello"
    assert code(s3.get_object, Bucket="media", Key="k", IfMatch='"other"')[0] == 412
    assert code(s3.get_object, Bucket="media", Key="k", IfNoneMatch=etag)[0] == 304
    assert code(s3.get_object, Bucket="media", Key="k", Range="bytes=9-") == (416, "InvalidRange")


def test_content_that_is_not_what_its_digest_says(site: Site) -> None:
    s3 = site.tenant("media")
    other = "XrY7u+Ae7tCTyyK7j1rNww=="
    assert code(s3.put_object, Bucket="media", Key="k", Body=b"x", ContentMD5=other) == (400, "InvalidDigest")
    assert code(s3.put_object, Bucket="media", Key="k", Body=b"x", ChecksumCRC32="AAAAAA==") == (400, "InvalidDigest")
    assert s3.list_objects_v2(Bucket="media")["KeyCount"] == 0


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_checksums_are_kept(site: Site, algorithm: str) -> None:
    s3 = site.tenant("media")
    s3.put_object(Bucket="media", Key="k", Body=b"x", ChecksumAlgorithm=algorithm)
    assert f"Checksum{algorithm}" in s3.head_object(Bucket="media", Key="k", ChecksumMode="ENABLED")
    assert f"Checksum{algorithm}" not in s3.head_object(Bucket="media", Key="k")


def test_copies(site: Site) -> None:
    s3, other = site.tenant("media"), site.tenant("other")
    s3.put_object(Bucket="media", Key="a b", Body=b"hello", Metadata={"by": "x"})
    s3.copy_object(Bucket="media", Key="c", CopySource={"Bucket": "media", "Key": "a b"})
    assert s3.get_object(Bucket="media", Key="c")["Metadata"] == {"by": "x"}
    source = {"Bucket": "media", "Key": "a b"}
    assert code(other.copy_object, Bucket="other", Key="c", CopySource=source) == (403, "AccessDenied")


def test_uploads_of_many_parts(site: Site) -> None:
    s3 = site.tenant("media")
    content = bytes(range(256)) * (80 * 1024)
    s3.upload_fileobj(io.BytesIO(content), "media", "big")
    head = s3.head_object(Bucket="media", Key="big")
    assert head["ETag"].strip('"').endswith("-3")
    assert s3.get_object(Bucket="media", Key="big")["Body"].read() == content

    upload = s3.create_multipart_upload(Bucket="media", Key="u")["UploadId"]
    named = {"Bucket": "media", "Key": "u", "UploadId": upload}
    assert code(s3.complete_multipart_upload, **named, MultipartUpload={"Parts": []})[0] == 400
    etags = [s3.upload_part(**named, PartNumber=n, Body=b"x" * n)["ETag"] for n in (1, 2)]
    assert [part["Size"] for part in s3.list_parts(**named)["Parts"]] == [1, 2]
    info = site.admin("GetBucketInfo?globalAlias=media")
    assert (info["objects"], info["bytes"]) == (1, len(content))
    assert (info["unfinishedMultipartUploads"], info["unfinishedMultipartUploadParts"]) == (1, 2)
    assert info["unfinishedMultipartUploadBytes"] == 3
    parts = [{"PartNumber": n, "ETag": etag} for n, etag in zip((1, 2), etags, strict=True)]
    wrong_order = {"Parts": parts[::-1]}
    assert code(s3.complete_multipart_upload, **named, MultipartUpload=wrong_order) == (400, "InvalidPartOrder")
    wrong_etag = {"Parts": [{"PartNumber": 1, "ETag": etags[1]}]}
    assert code(s3.complete_multipart_upload, **named, MultipartUpload=wrong_etag) == (400, "InvalidPart")
    s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket="media", Key="u")["Body"].read() == b"xxx"
    assert code(s3.abort_multipart_upload, **named) == (404, "NoSuchUpload")


def test_unfinished_uploads_are_cleaned_up_and_keep_no_bucket(site: Site) -> None:
    s3 = site.tenant("media")
    bucket = site.admin("GetBucketInfo?globalAlias=media")["id"]
    for key in ("a", "b"):
        s3.create_multipart_upload(Bucket="media", Key=key)
    assert [row["Key"] for row in s3.list_multipart_uploads(Bucket="media")["Uploads"]] == ["a", "b"]
    cleanup = {"bucketId": bucket, "olderThanSecs": 3600}
    assert site.admin("CleanupIncompleteUploads", cleanup) == {"uploadsDeleted": 0}
    site.admin(f"DeleteBucket?id={bucket}", {})


def test_many_objects_are_listed_by_pages_and_deleted_by_names(site: Site) -> None:
    s3 = site.tenant("media")
    bucket = site.admin("GetBucketInfo?globalAlias=media")["id"]
    keys = sorted({f"{n % 7}/{n}" for n in range(2300)}, key=str.encode)
    for key in keys:
        site.garage.store.tables.objects.put(bucket, key, b"")
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket="media"))
    assert [page["KeyCount"] for page in pages] == [1000, 1000, 300]
    assert [row["Key"] for page in pages for row in page["Contents"]] == keys
    first = s3.list_objects_v2(Bucket="media", Delimiter="/", MaxKeys=2)
    assert [row["Prefix"] for row in first["CommonPrefixes"]] == ["0/", "1/"]
    token = first["NextContinuationToken"]
    then = s3.list_objects_v2(Bucket="media", Delimiter="/", ContinuationToken=token)
    assert [row["Prefix"] for row in then["CommonPrefixes"]] == ["2/", "3/", "4/", "5/", "6/"]
    old = s3.list_objects(Bucket="media", Prefix="3/", MaxKeys=5)
    assert [row["Key"] for row in old["Contents"]] == [key for key in keys if key.startswith("3/")][:5]
    assert old["NextMarker"] == old["Contents"][-1]["Key"]
    assert code(s3.list_objects_v2, Bucket="media", ContinuationToken="x")[0] == 400

    named = [{"Key": keys[0]}, {"Key": "nothing"}]
    answer = s3.delete_objects(Bucket="media", Delete={"Objects": named})
    assert [row["Key"] for row in answer["Deleted"]] == [keys[0], "nothing"]


def test_what_an_older_garage_answers(tmp_path: Path) -> None:
    with running_garage(tmp_path, version=OLDEST) as garage:
        s3 = Site(garage).tenant("media", "read", "write", "owner")
        answer = s3.delete_objects(Bucket="media", Delete={"Objects": [{"Key": "nothing"}]})
        assert [(row["Key"], row["Code"]) for row in answer["Errors"]] == [("nothing", "NoSuchKey")]
        assert "CORSRules" not in s3.get_bucket_cors(Bucket="media")
        assert "IndexDocument" not in s3.get_bucket_website(Bucket="media")
        assert code(s3.get_bucket_lifecycle_configuration, Bucket="media") == (404, "404")


KEYS = st.text(alphabet="ab/é", min_size=1, max_size=5)


@given(
    st.sets(KEYS, max_size=25), st.text(alphabet="ab/", max_size=2), st.sampled_from(["", "/", "b"]), st.integers(1, 4)
)
def test_pages_together_are_the_whole_listing(keys: set[str], prefix: str, delimiter: str, size: int) -> None:
    rows = [Object(key, "", 0, 0) for key in sorted(keys, key=str.encode)]
    found: list[str] = []
    after = ""
    while True:
        page = page_of([row for row in rows if row.key.encode() > after.encode()], prefix, delimiter, size)
        assert len(page.rows) + len(page.prefixes) <= size
        found += sorted([row.key for row in page.rows] + page.prefixes, key=str.encode)
        if not page.more:
            break
        assert len(page.rows) + len(page.prefixes) == size
        after = page.last
    matching = [key for key in keys if key.startswith(prefix)]
    cuts = [key.find(delimiter, len(prefix)) if delimiter else -1 for key in matching]
    whole = {key[: cut + 1] if cut >= 0 else key for key, cut in zip(matching, cuts, strict=True)}
    assert found == sorted(whole, key=str.encode)


READS: dict[str, Callable[[Any], Any]] = {
    "head_bucket": lambda s3: s3.head_bucket(Bucket="media"),
    "list": lambda s3: s3.list_objects_v2(Bucket="media"),
    "get": lambda s3: s3.get_object(Bucket="media", Key="there"),
    "head": lambda s3: s3.head_object(Bucket="media", Key="there"),
    "uploads": lambda s3: s3.list_multipart_uploads(Bucket="media"),
    "location": lambda s3: s3.get_bucket_location(Bucket="media"),
    "versioning": lambda s3: s3.get_bucket_versioning(Bucket="media"),
    "acl": lambda s3: s3.get_bucket_acl(Bucket="media"),
}
WRITES: dict[str, Callable[[Any], Any]] = {
    "put": lambda s3: s3.put_object(Bucket="media", Key="new", Body=b""),
    "delete": lambda s3: s3.delete_object(Bucket="media", Key="nothing"),
    "delete_many": lambda s3: s3.delete_objects(Bucket="media", Delete={"Objects": [{"Key": "nothing"}]}),
    "create_upload": lambda s3: s3.create_multipart_upload(Bucket="media", Key="new"),
    "lifecycle": lambda s3: s3.put_bucket_lifecycle_configuration(
        Bucket="media",
        LifecycleConfiguration={"Rules": [{"Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]},
    ),
}
OWNS: dict[str, Callable[[Any], Any]] = {
    "get_cors": lambda s3: s3.get_bucket_cors(Bucket="media"),
    "get_website": lambda s3: s3.get_bucket_website(Bucket="media"),
    "put_website": lambda s3: s3.put_bucket_website(
        Bucket="media", WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}}
    ),
    "delete_cors": lambda s3: s3.delete_bucket_cors(Bucket="media"),
    "delete": lambda s3: s3.delete_bucket(Bucket="media"),
}


def allowed(call: Callable[[Any], Any], s3: Any) -> bool:
    try:
        call(s3)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        # the permission comes first: what is missing or not empty is the owner's to know
        assert status in (403, 404, 409)
        return bool(status != 403)
    return True


@pytest.mark.parametrize(
    "flags", [(), ("read",), ("write",), ("owner",), ("read", "write"), ("read", "write", "owner")]
)
def test_what_each_permission_allows(site: Site, flags: tuple[str, ...]) -> None:
    key = site.key()
    bucket = site.bucket("media")
    site.garage.store.tables.objects.put(bucket, "there", b"")
    if flags:
        site.allow(bucket, key, *flags)
    s3 = site.client(key)
    assert [row["Name"] for row in s3.list_buckets()["Buckets"]] == (["media"] if flags else [])
    for permission, calls in (("read", READS), ("write", WRITES), ("owner", OWNS)):
        found = {name: allowed(call, s3) for name, call in calls.items()}
        assert found == dict.fromkeys(calls, permission in flags)


def test_keys_that_are_nobodys(site: Site) -> None:
    key = site.key()
    site.allow(site.bucket("media"), key, "read")
    assert code(site.client(key, "0" * 64).list_buckets) == (403, "AccessDenied")
    assert code(site.client({**key, "accessKeyId": "GKnobody"}).list_buckets) == (403, "AccessDenied")
    s3 = site.client(key)
    assert code(s3.head_bucket, Bucket="nothing")[0] == 404
    assert code(s3.list_objects_v2, Bucket="nothing") == (404, "NoSuchBucket")
    site.admin(f"UpdateKey?id={key['accessKeyId']}", {"expiration": "2020-01-01T00:00:00Z"})
    assert code(s3.list_buckets) == (403, "AccessDenied")
    site.admin(f"DeleteKey?id={key['accessKeyId']}", {})
    assert code(s3.list_buckets) == (403, "AccessDenied")


def test_names_of_a_bucket(site: Site) -> None:
    key, other = site.key(), site.key()
    bucket = site.bucket("media")
    site.allow(bucket, key, "read")
    site.allow(bucket, other, "read")
    site.admin("AddBucketAlias", {"bucketId": bucket, "localAlias": "mine", "accessKeyId": key["accessKeyId"]})
    s3 = site.client(key)
    assert [row["Name"] for row in s3.list_buckets()["Buckets"]] == ["media", "mine"]
    for name in ("media", "mine", bucket):
        s3.head_bucket(Bucket=name)
    assert code(site.client(other).head_bucket, Bucket="mine")[0] == 404


def test_buckets_made_and_deleted_through_s3(site: Site) -> None:
    s3 = site.client(site.key())
    assert code(s3.create_bucket, Bucket="new-one") == (403, "AccessDenied")
    maker = site.client(site.key(allow={"createBucket": True}))
    maker.create_bucket(Bucket="new-one")
    maker.create_bucket(Bucket="new-one")
    assert code(maker.create_bucket, Bucket="UPPER")[0] == 400
    site.bucket("theirs")
    assert code(maker.create_bucket, Bucket="theirs") == (409, "BucketAlreadyExists")
    maker.put_object(Bucket="new-one", Key="k", Body=b"")
    assert code(maker.delete_bucket, Bucket="new-one") == (409, "BucketNotEmpty")
    maker.delete_object(Bucket="new-one", Key="k")
    maker.delete_bucket(Bucket="new-one")
    assert maker.list_buckets()["Buckets"] == []


def test_quotas_refuse_growth_and_nothing_else(site: Site) -> None:
    s3 = site.tenant("media")
    bucket = site.admin("GetBucketInfo?globalAlias=media")["id"]
    s3.put_object(Bucket="media", Key="a", Body=b"x" * 10)
    site.admin(f"UpdateBucket?id={bucket}", {"quotas": {"maxSize": 5, "maxObjects": 1}})
    assert code(s3.put_object, Bucket="media", Key="b", Body=b"") == (403, "AccessDenied")
    assert code(s3.put_object, Bucket="media", Key="a", Body=b"x" * 11) == (403, "AccessDenied")
    s3.put_object(Bucket="media", Key="a", Body=b"x" * 9)
    upload = s3.create_multipart_upload(Bucket="media", Key="u")["UploadId"]
    part = s3.upload_part(Bucket="media", Key="u", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    named = {"Bucket": "media", "Key": "u", "UploadId": upload}
    assert code(s3.complete_multipart_upload, **named, MultipartUpload=parts) == (403, "AccessDenied")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="media")


def test_settings_are_the_same_through_both_apis(site: Site) -> None:
    s3 = site.tenant("media", "read", "write", "owner")
    cors = {"AllowedOrigins": ["*"], "AllowedMethods": ["GET", "PUT"], "MaxAgeSeconds": 5}
    s3.put_bucket_cors(Bucket="media", CORSConfiguration={"CORSRules": [cors]})
    both = {"And": {"Prefix": "logs/", "ObjectSizeGreaterThan": 5}}
    rules = [
        {"ID": "a", "Status": "Enabled", "Filter": both, "Expiration": {"Days": 7}},
        {"Status": "Disabled", "Filter": {"Prefix": "x"}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}},
    ]
    s3.put_bucket_lifecycle_configuration(Bucket="media", LifecycleConfiguration={"Rules": rules})
    website = {"IndexDocument": {"Suffix": "i.html"}, "ErrorDocument": {"Key": "e.html"}}
    s3.put_bucket_website(Bucket="media", WebsiteConfiguration=website)
    info = site.admin("GetBucketInfo?globalAlias=media")
    assert info["corsRules"][0]["AllowedMethod"] == ["GET", "PUT"]
    assert info["lifecycleRules"][0]["Filter"]["And"]["Prefix"] == "logs/"
    assert info["websiteConfig"]["errorDocument"] == "e.html"
    # what the admin API answers it also takes, and nothing changes
    same = {"corsRules": info["corsRules"], "lifecycleRules": info["lifecycleRules"]}
    assert {**info, "keys": []} == {**site.admin(f"UpdateBucket?id={info['id']}", same), "keys": []}
    assert s3.get_bucket_cors(Bucket="media")["CORSRules"] == [cors]
    assert s3.get_bucket_lifecycle_configuration(Bucket="media")["Rules"] == rules
    assert s3.get_bucket_website(Bucket="media")["IndexDocument"] == {"Suffix": "i.html"}
    for forget in (s3.delete_bucket_cors, s3.delete_bucket_lifecycle, s3.delete_bucket_website):
        forget(Bucket="media")
    info = site.admin("GetBucketInfo?globalAlias=media")
    assert ("corsRules" in info, "lifecycleRules" in info, info["websiteAccess"]) == (False, False, False)


def test_what_garage_does_not_implement(site: Site) -> None:
    s3 = site.tenant("media", "read", "write", "owner")
    assert code(s3.get_bucket_policy, Bucket="media") == (501, "NotImplemented")
    assert code(s3.get_object_tagging, Bucket="media", Key="k") == (501, "NotImplemented")


def test_objects_survive_a_restart_and_no_signature_is_logged(tmp_path: Path) -> None:
    with running_garage(tmp_path) as garage:
        site = Site(garage)
        key = site.key()
        site.allow(site.bucket("media"), key, "read", "write")
        site.client(key).put_object(Bucket="media", Key="k", Body=b"hello")
    with running_garage(tmp_path) as garage:
        site = Site(garage)
        url = site.client(key).generate_presigned_url("get_object", Params={"Bucket": "media", "Key": "k"})
        urllib.request.urlopen(url).close()
        assert garage.store.tables.objects.content(site.admin("ListBuckets")[0]["id"], "k") == b"hello"
        log = garage.access_log.read_text(encoding="utf-8")
    signature = url.partition("X-Amz-Signature=")[2].partition("&")[0]
    assert signature
    assert "X-Amz-Signature=-" in log
    assert signature not in log
    assert key["secretAccessKey"] not in log


def test_a_store_without_a_path_keeps_nothing() -> None:
    store = Store()
    store.tables.objects.put("b", "k", b"x")
    assert store.tables.objects.counts("b")["objects"] == 1
    assert Store().tables.objects.counts("b")["objects"] == 0
