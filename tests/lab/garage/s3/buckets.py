# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Buckets through S3: names, permissions, making, deleting and listing them."""

from __future__ import annotations

from typing import Any

from lab.garage import buckets, keys
from lab.garage.errors import bad_request, conflict, forbidden
from lab.garage.s3 import xml
from lab.garage.s3.call import Answer, Call, xml_answer
from lab.garage.store import Store, Tables
from lab.garage.times import instant


def resolve(tables: Tables, key_id: str, name: str) -> str | None:
    """The id of the bucket that *name* means to a key: its own alias, a global one, or an id."""
    local = tables["keys"][key_id]["localAliases"].get(name)
    if local is None:
        local = name.lower() if buckets.BUCKET_ID.match(name) else tables["aliases"].get(name)
    return local if local in tables["buckets"] else None


def flags(tables: Tables, bucket_id: str, key_id: str) -> dict[str, bool]:
    """What a key may do with a bucket."""
    return keys.permissions(tables["buckets"][bucket_id]["keys"].get(key_id, [False, False, False]))


def list_buckets(store: Store, key_id: str) -> Answer:
    """Every name of every bucket for which the key has a permission."""
    tables = store.tables
    names = {
        alias: row_id
        for row_id, row in tables["buckets"].items()
        if any(flags(tables, row_id, key_id).values())
        for alias in row["aliases"]
    }
    own = tables["keys"][key_id]["localAliases"].items()
    names.update({alias: row_id for alias, row_id in own if row_id in tables["buckets"]})
    rows = [
        {"CreationDate": instant(tables["buckets"][row_id]["created"]), "Name": name}
        for name, row_id in sorted(names.items())
        if any(flags(tables, row_id, key_id).values())
    ]
    owner = {"DisplayName": tables["keys"][key_id]["name"], "ID": key_id}
    return xml_answer("ListAllMyBucketsResult", {"Buckets": {"Bucket": rows}, "Owner": owner})


def create_bucket(store: Store, region: str, key_id: str, name: str, body: bytes) -> Answer:
    """A bucket with a local alias of the key; nothing if the key may write to the one of that name."""
    if body.strip():
        wanted = xml.text(xml.parse("CreateBucketConfiguration", body), "LocationConstraint")
        if wanted not in (None, region):
            raise bad_request(
                f"Cannot satisfy location constraint `{wanted}`: buckets can only be created in region `{region}`"
            )
    found = resolve(store.tables, key_id, name)
    if found is not None:
        allowed = flags(store.tables, found, key_id)
        if not (allowed["write"] or allowed["owner"]):
            raise conflict("BucketAlreadyExists", "Bucket already exists")
    else:
        if not store.tables["keys"][key_id]["createBucket"]:
            raise forbidden(f"Access key {key_id} is not allowed to create buckets")
        if not buckets.valid_name(name):
            raise bad_request(f"{name}: Invalid bucket name")
        with store.change() as tables:
            made = buckets.create_bucket(tables, {}, {})["id"]
            body_of_alias = {"bucketId": made, "localAlias": name, "accessKeyId": key_id}
            buckets.add_bucket_alias(tables, {}, body_of_alias)
            everything = {"read": True, "write": True, "owner": True}
            buckets.allow_bucket_key(tables, {}, {"bucketId": made, "accessKeyId": key_id, "permissions": everything})
    return Answer(headers={"Location": f"/{name}"})


def head_bucket(_call: Call) -> Answer:
    return Answer()


def delete_bucket(call: Call) -> Answer:
    """Take the name away; with its last name the bucket goes, if it is empty."""
    with call.store.change() as tables:
        own = tables["keys"][call.key_id]["localAliases"].get(call.bucket) == call.bucket_id
        alias: dict[str, Any] = {"localAlias": call.bucket, "accessKeyId": call.key_id}
        alias = alias if own else {"globalAlias": call.bucket}
        names = len(call.row["aliases"]) + sum(
            target == call.bucket_id
            for key in tables["keys"].values()
            if key
            for target in key["localAliases"].values()
        )
        if names > 1:
            buckets.remove_bucket_alias(tables, {}, {"bucketId": call.bucket_id, **alias})
        else:
            buckets.delete_bucket(tables, {"id": call.bucket_id}, None)
    return Answer(204)


def get_bucket_location(call: Call) -> Answer:
    return Answer(
        body=f'<?xml version="1.0" encoding="UTF-8"?><LocationConstraint xmlns="{xml.NAMESPACE}">{call.region}'
        "</LocationConstraint>".encode(),
        content_type="application/xml",
    )


def get_bucket_versioning(_call: Call) -> Answer:
    return xml_answer("VersioningConfiguration", {})


def get_bucket_acl(call: Call) -> Answer:
    allowed = flags(call.store.tables, call.bucket_id, call.key_id)
    grants = ["FULL_CONTROL"] if allowed["owner"] else ["READ", "READ_ACP"] * allowed["read"]
    grants += ["WRITE"] * (allowed["write"] and not allowed["owner"])
    grantee = {"DisplayName": call.store.tables["keys"][call.key_id]["name"], "ID": call.key_id}
    rows = [{"Grantee": grantee, "Permission": grant} for grant in grants]
    return xml_answer("AccessControlPolicy", {"AccessControlList": {"Grant": rows}})
