# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Operations of the S3 API: which request is which, who may do it, and the way to its answer, without HTTP."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qsl, unquote

from lab.garage.errors import ApiError, bad_request, forbidden, no_such_bucket
from lab.garage.s3 import buckets, listing, multipart, objects, settings, xml
from lab.garage.s3.call import Answer, Call
from lab.garage.s3.signature import Request, Verified, verify
from lab.garage.store import Store

Operation = Callable[[Call], Answer]

# (method, has a key): [(parameter that must be there, permission, operation)], the first that fits counts
OPERATIONS: dict[tuple[str, bool], list[tuple[str, str, Operation]]] = {
    ("GET", True): [("uploadId", "read", multipart.list_parts), ("", "read", objects.get_object)],
    ("HEAD", True): [("", "read", objects.get_object)],
    ("PUT", True): [("partNumber", "write", multipart.upload_part), ("", "write", objects.put_object)],
    ("POST", True): [
        ("uploadId", "write", multipart.complete_multipart_upload),
        ("uploads", "write", multipart.create_multipart_upload),
    ],
    ("DELETE", True): [
        ("uploadId", "write", multipart.abort_multipart_upload),
        ("", "write", objects.delete_object),
    ],
    ("GET", False): [
        ("list-type", "read", listing.list_objects_v2),
        ("acl", "read", buckets.get_bucket_acl),
        ("cors", "owner", settings.get_cors),
        # as in Garage: not the owner's alone
        ("lifecycle", "read", settings.get_lifecycle),
        ("location", "read", buckets.get_bucket_location),
        ("uploads", "read", listing.list_multipart_uploads),
        ("versioning", "read", buckets.get_bucket_versioning),
        ("website", "owner", settings.get_website),
        ("", "read", listing.list_objects),
    ],
    ("HEAD", False): [("", "read", buckets.head_bucket)],
    ("PUT", False): [
        ("cors", "owner", settings.put_cors),
        ("lifecycle", "write", settings.put_lifecycle),
        ("website", "owner", settings.put_website),
    ],
    ("POST", False): [("delete", "write", objects.delete_objects)],
    ("DELETE", False): [
        ("cors", "owner", settings.delete_cors),
        ("lifecycle", "write", settings.delete_lifecycle),
        ("website", "owner", settings.delete_website),
        ("", "owner", buckets.delete_bucket),
    ],
}
# parameters that make another operation of a request; those that are not in OPERATIONS are not implemented, as in
# Garage (policies, tags, locks, versions and so on)
KEYWORDS = {
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "tagging",
    "torrent",
    "uploads",
    "versioning",
    "versions",
    "website",
}
OF_OBJECTS_OF_BUCKETS = {"copy": objects.copy_object, "part": multipart.upload_part_copy}


def answer(store: Store, region: str, request: Request) -> Answer:
    """What the server answers; writes are in the store before this returns."""
    try:
        return _answer(store, region, request)
    except ApiError as error:
        body = {"Code": error.code, "Message": error.message, "Resource": request.path, "Region": region}
        return Answer(error.status, xml.document("Error", body), "application/xml")


def _answer(store: Store, region: str, request: Request) -> Answer:
    # Garage lets no key begin with a slash when it is named by a path
    bucket, _slash, key = request.path.removeprefix("/").partition("/")
    key = unquote(key.lstrip("/"), errors="strict")
    if request.method not in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        raise bad_request("Unknown method")
    verified = verify(store.tables, region, request)
    if not bucket:
        return buckets.list_buckets(store, verified.key_id)
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    keyword = next((name for name in query if name in KEYWORDS), "")
    if (request.method, bool(key), keyword) == ("PUT", False, ""):
        return buckets.create_bucket(store, region, verified.key_id, bucket, verified.body)
    bucket_id = buckets.resolve(store.tables, verified.key_id, bucket)
    if bucket_id is None:
        raise no_such_bucket(bucket)
    permission, operation = _operation(request.method, key, keyword, query, verified)
    if not buckets.flags(store.tables, bucket_id, verified.key_id)[permission]:
        raise forbidden("Operation is not allowed for this key.")
    return operation(
        Call(
            store=store,
            region=region,
            key_id=verified.key_id,
            bucket=bucket,
            bucket_id=bucket_id,
            key=key,
            query=query,
            headers=verified.headers,
            body=verified.body,
            trailer=verified.trailer,
        )
    )


def _operation(method: str, key: str, keyword: str, query: dict[str, str], verified: Verified) -> tuple[str, Operation]:
    """The permission that is needed, and the operation."""
    for parameter, permission, operation in OPERATIONS.get((method, bool(key)), ()):
        is_it = parameter in query if parameter else not keyword
        if is_it and (not keyword or parameter == keyword):
            if "x-amz-copy-source" in verified.headers and method == "PUT" and key:
                return permission, OF_OBJECTS_OF_BUCKETS["part" if parameter else "copy"]
            return permission, operation
    needed = "read" if method in ("GET", "HEAD") else "write"
    return needed, _not_implemented


def _not_implemented(call: Call) -> Answer:
    raise ApiError(501, "NotImplemented", f"Unimplemented action: {'&'.join(call.query) or 'PostObject'}")
