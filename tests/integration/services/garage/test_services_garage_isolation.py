# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two tenants of a cluster: every access of one to what is the other's is tried through S3 and refused."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError
from garage_place import Place, Tenant, by_name, eventually, used

KEY = "folder/there"
CONTENT = b"alice's"
SETTINGS: dict[str, Any] = {
    "cors": {"CORSRules": [{"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}]},
    "lifecycle": {"Rules": [{"Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]},
    "website": {"IndexDocument": {"Suffix": "index.html"}},
    "acl": {"Grants": [], "Owner": {"ID": "x"}},
}


@dataclass(frozen=True)
class Target:
    """A bucket of somebody, an object and an unfinished upload in it; and a bucket of the one who tries."""

    bucket: str
    upload: str
    own: str

    @property
    def object(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": KEY}

    @property
    def part(self) -> dict[str, str]:
        return {**self.object, "UploadId": self.upload}


Attempt = Callable[[Any, Target], Any]

READS: dict[str, Attempt] = {
    "head_bucket": lambda s3, it: s3.head_bucket(Bucket=it.bucket),
    "list_objects_v2": lambda s3, it: s3.list_objects_v2(Bucket=it.bucket),
    "list_objects": lambda s3, it: s3.list_objects(Bucket=it.bucket),
    "list_multipart_uploads": lambda s3, it: s3.list_multipart_uploads(Bucket=it.bucket),
    "list_parts": lambda s3, it: s3.list_parts(**it.part),
    "get_object": lambda s3, it: s3.get_object(**it.object),
    "get_object_range": lambda s3, it: s3.get_object(**it.object, Range="bytes=0-1"),
    "head_object": lambda s3, it: s3.head_object(**it.object),
    "copy_out": lambda s3, it: s3.copy_object(Bucket=it.own, Key="stolen", CopySource=it.object),
    "get_bucket_location": lambda s3, it: s3.get_bucket_location(Bucket=it.bucket),
    "get_bucket_versioning": lambda s3, it: s3.get_bucket_versioning(Bucket=it.bucket),
    "get_bucket_acl": lambda s3, it: s3.get_bucket_acl(Bucket=it.bucket),
    "get_bucket_lifecycle": lambda s3, it: s3.get_bucket_lifecycle_configuration(Bucket=it.bucket),
}
WRITES: dict[str, Attempt] = {
    "put_object": lambda s3, it: s3.put_object(Bucket=it.bucket, Key="new", Body=b"x"),
    "put_object_over": lambda s3, it: s3.put_object(**it.object, Body=b"x"),
    "delete_object": lambda s3, it: s3.delete_object(**it.object),
    "delete_objects": lambda s3, it: s3.delete_objects(Bucket=it.bucket, Delete={"Objects": [{"Key": KEY}]}),
    "copy_in": lambda s3, it: s3.copy_object(Bucket=it.bucket, Key="new", CopySource={"Bucket": it.own, "Key": "own"}),
    "create_multipart_upload": lambda s3, it: s3.create_multipart_upload(Bucket=it.bucket, Key="new"),
    "upload_part": lambda s3, it: s3.upload_part(**it.part, PartNumber=2, Body=b"x"),
    "complete_multipart_upload": lambda s3, it: s3.complete_multipart_upload(
        **it.part, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": "x"}]}
    ),
    "abort_multipart_upload": lambda s3, it: s3.abort_multipart_upload(**it.part),
    "put_bucket_lifecycle": lambda s3, it: s3.put_bucket_lifecycle_configuration(
        Bucket=it.bucket, LifecycleConfiguration=SETTINGS["lifecycle"]
    ),
    "delete_bucket_lifecycle": lambda s3, it: s3.delete_bucket_lifecycle(Bucket=it.bucket),
    "put_bucket_acl": lambda s3, it: s3.put_bucket_acl(Bucket=it.bucket, AccessControlPolicy=SETTINGS["acl"]),
    "put_object_acl": lambda s3, it: s3.put_object_acl(**it.object, AccessControlPolicy=SETTINGS["acl"]),
    "put_bucket_policy": lambda s3, it: s3.put_bucket_policy(Bucket=it.bucket, Policy="{}"),
}
OWNS: dict[str, Attempt] = {
    "get_bucket_cors": lambda s3, it: s3.get_bucket_cors(Bucket=it.bucket),
    "put_bucket_cors": lambda s3, it: s3.put_bucket_cors(Bucket=it.bucket, CORSConfiguration=SETTINGS["cors"]),
    "delete_bucket_cors": lambda s3, it: s3.delete_bucket_cors(Bucket=it.bucket),
    "get_bucket_website": lambda s3, it: s3.get_bucket_website(Bucket=it.bucket),
    "put_bucket_website": lambda s3, it: s3.put_bucket_website(
        Bucket=it.bucket, WebsiteConfiguration=SETTINGS["website"]
    ),
    "delete_bucket_website": lambda s3, it: s3.delete_bucket_website(Bucket=it.bucket),
    "delete_bucket": lambda s3, it: s3.delete_bucket(Bucket=it.bucket),
    "create_bucket": lambda s3, it: s3.create_bucket(Bucket=f"{it.own}-new"),
}


@dataclass(frozen=True)
class Site:
    """alice with a bucket, a key that writes and one that reads; bob with a bucket and a key."""

    place: Place
    alice: Tenant
    reader: Tenant
    bob: Tenant
    upload: str

    @property
    def target(self) -> Target:
        return Target(self.place.name("alice"), self.upload, self.place.name("bob"))


def wishes(place: Place, alice: Tenant, reader: Tenant, bob: Tenant) -> dict[str, Any]:
    return {
        "keys": [alice.option, reader.option, bob.option],
        "buckets": [
            {
                "name": place.name("alice"),
                "permissions": [
                    {"key": alice.name, "read": True, "write": True},
                    {"key": reader.name, "read": True},
                ],
            },
            {"name": place.name("bob"), "permissions": [{"key": bob.name, "read": True, "write": True}]},
        ],
    }


@pytest.fixture(scope="module")
def site(cluster: Place) -> Iterator[Site]:
    """Every test leaves it as it was."""
    with used(cluster) as place:
        yield made_site(place)


def made_site(place: Place) -> Site:
    alice, reader, bob = place.tenant("alice"), place.tenant("reader"), place.tenant("bob")
    place.change("garage_buckets", wishes(place, alice, reader, bob))
    s3, own = place.s3(alice), place.s3(bob)
    for client, bucket in ((s3, "alice"), (place.s3(reader), "alice"), (own, "bob")):
        eventually(lambda client=client, bucket=bucket: bool(client.head_bucket(Bucket=place.name(bucket))))
    s3.put_object(Bucket=place.name("alice"), Key=KEY, Body=CONTENT)
    own.put_object(Bucket=place.name("bob"), Key="own", Body=b"bob's")
    part = {"Bucket": place.name("alice"), "Key": KEY}
    upload = s3.create_multipart_upload(**part)["UploadId"]
    s3.upload_part(**part, UploadId=upload, PartNumber=1, Body=b"x")
    return Site(place, alice, reader, bob, upload)


def refusal(attempt: Attempt, s3: Any, target: Target) -> str:
    """How it was refused, empty if it was not."""
    try:
        attempt(s3, target)
    except ClientError as error:
        return f"{error.response['ResponseMetadata']['HTTPStatusCode']} {error.response['Error']['Code']}"
    return ""


def refusals(s3: Any, target: Target, attempts: dict[str, Attempt]) -> dict[str, str]:
    return {name: refusal(attempt, s3, target) for name, attempt in attempts.items()}


def state(site: Site) -> Iterator[Any]:
    """All there is to see of alice's bucket, with what it holds."""
    s3, name = site.place.s3(site.alice), site.target.bucket
    info = site.place.info("alice")
    for field in ("globalAliases", "websiteConfig", "corsRules", "lifecycleRules", "quotas"):
        yield info.get(field)
    yield site.place.rights("alice")
    yield [(row["Key"], row["ETag"]) for row in s3.list_objects_v2(Bucket=name).get("Contents", ())]
    yield s3.get_object(Bucket=name, Key=KEY)["Body"].read()
    yield [(row["Key"], row["UploadId"]) for row in s3.list_multipart_uploads(Bucket=name).get("Uploads", ())]
    yield [part["PartNumber"] for part in s3.list_parts(**site.target.part).get("Parts", ())]


def test_everything_of_another_tenant_is_refused(site: Site) -> None:
    bob, target = site.place.s3(site.bob), site.target
    before = list(state(site))
    everything = {**READS, **WRITES, **OWNS}
    found = refusals(bob, target, everything)
    assert {name: how for name, how in found.items() if not how.startswith("403")} == {}
    # the id of a bucket is another name of it
    by_id = Target(site.place.info("alice")["id"], site.upload, target.own)
    found = refusals(bob, by_id, everything)
    assert {name: how for name, how in found.items() if not how.startswith("403")} == {}
    assert refusal(lambda s3, it: s3.create_bucket(Bucket=it.bucket), bob, target) == "409 BucketAlreadyExists"
    assert [row["Name"] for row in bob.list_buckets()["Buckets"]] == [target.own]
    assert list(state(site)) == before


def test_a_tenant_can_do_everything_with_its_own(site: Site) -> None:
    before = list(state(site))
    alice, own = site.place.s3(site.alice), Target(site.target.bucket, site.upload, site.target.bucket)
    alice.put_object(Bucket=own.bucket, Key="own", Body=b"x")
    useful = ["head_bucket", "list_objects_v2", "list_parts", "get_object", "head_object", "copy_out", "put_object"]
    found = refusals(alice, own, {name: {**READS, **WRITES}[name] for name in useful})
    assert found == dict.fromkeys(useful, "")
    for key in ("own", "stolen", "new"):
        alice.delete_object(Bucket=own.bucket, Key=key)
    # settings are the hosting provider's
    found = refusals(alice, own, OWNS)
    assert {name: how for name, how in found.items() if not how.startswith("403")} == {}
    assert list(state(site)) == before


def test_a_key_that_reads_does_not_write(site: Site) -> None:
    reader, target = site.place.s3(site.reader), site.target
    before = list(state(site))
    own = Target(target.bucket, target.upload, target.bucket)
    changes = {**WRITES, **OWNS, "copy_out": READS["copy_out"]}
    found = refusals(reader, own, changes)
    assert {name: how for name, how in found.items() if not how.startswith("403")} == {}
    useful = ("head_bucket", "list_objects_v2", "list_parts", "get_object", "head_object")
    assert refusals(reader, own, {name: READS[name] for name in useful}) == dict.fromkeys(useful, "")
    assert list(state(site)) == before


def test_without_a_key_or_with_a_wrong_secret(site: Site) -> None:
    place, target = site.place, site.target
    stranger = Tenant(site.alice.name, site.alice.access_key_id, site.bob.secret_access_key)
    found = refusals(place.s3(stranger), target, {**READS, **WRITES, **OWNS})
    assert {name: how for name, how in found.items() if not how.startswith("403")} == {}
    url = f"{place.environment['GARAGE_S3_ENDPOINT']}/{target.bucket}/{KEY}"
    presigned = place.s3(site.bob).generate_presigned_url("get_object", Params=target.object)
    for address in (url, presigned):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(address)
        with caught.value:
            assert caught.value.code == 403


def test_the_module_proves_it(site: Site) -> None:
    place, target = site.place, site.target
    alice = {"name": target.bucket, "read": True, "write": True}
    own = {"name": target.own, "read": True, "write": True}

    def key(tenant: Tenant, **what: Any) -> dict[str, Any]:
        return {name: value for name, value in tenant.option.items() if name != "name"} | what

    proof = [
        key(site.alice, buckets=[alice], refused=[target.own]),
        key(site.reader, buckets=[{**alice, "write": False}], refused=[target.own]),
        key(site.bob, buckets=[own], refused=[target.bucket]),
    ]
    before = list(state(site))
    proved, checked = place.tasks(
        {"garage_access": {"keys": proof}}, {"garage_access": {"keys": proof}, "check_mode": True}
    )
    assert (proved["failed"], proved["changed"]) == (False, False), proved["msg"]
    assert (checked["failed"], checked["changed"]) == (False, False), checked["msg"]
    # somebody lets bob read past the module
    place.allow("alice", site.bob, "read")
    eventually(lambda: refusal(READS["get_object"], place.s3(site.bob), target) == "")
    found = place.run("garage_access", {"keys": proof})
    wrong = {name for name, item in by_name(found).items() if item["failed"]}
    assert wrong == {site.bob.access_key_id, f"{site.bob.access_key_id} on {target.bucket}"}
    # and the next run takes it back
    place.change("garage_buckets", wishes(place, site.alice, site.reader, site.bob))
    eventually(lambda: refusal(READS["get_object"], place.s3(site.bob), target).startswith("403"))
    assert list(state(site)) == before
