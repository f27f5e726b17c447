# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Objects: put, get, head, copy, delete. Every operation takes a :class:`~lab.garage.s3.call.Call`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import unquote

from lab.garage.errors import ApiError, bad_request, forbidden, no_such_bucket, no_such_object
from lab.garage.objects import Object
from lab.garage.s3 import checksums, xml
from lab.garage.s3.buckets import flags, resolve
from lab.garage.s3.call import Answer, Call, xml_answer
from lab.garage.store import OLDEST
from lab.garage.times import instant

# kept with an object and answered with it, beside x-amz-meta-*
KEPT = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-website-redirect-location",
)
OVERRIDES = ("cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires")
RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What of a request's headers is stored with the object."""
    kept = {name: value for name, value in headers.items() if name in KEPT or name.startswith("x-amz-meta-")}
    # how the body was sent, not what it is
    encodings = [part.strip() for part in kept.pop("content-encoding", "").split(",")]
    encoding = ",".join(part for part in encodings if part and part != "aws-chunked")
    return {**kept, "content-encoding": encoding} if encoding else kept


def check_quotas(call: Call, size: int, before: Object | None) -> None:
    """Refuse an object of *size* bytes that would make the bucket exceed a limit by growing it.

    :raises ApiError: 403.
    """
    quotas, counts = call.row["quotas"], call.objects.counts(call.bucket_id)
    more, grown = (0 if before else 1), size - (before.size if before else 0)
    most_objects, most_bytes = quotas["maxObjects"], quotas["maxSize"]
    if most_objects is not None and more > 0 and counts["objects"] + more > most_objects:
        raise forbidden(f"Object quota is reached, maximum objects for this bucket: {most_objects}")
    if most_bytes is not None and grown > 0 and counts["bytes"] + grown > most_bytes:
        raise forbidden(
            f"Bucket size quota is reached, maximum total size of objects for this bucket: {most_bytes}. The bucket is "
            f"already {counts['bytes']} bytes, and this object would add {grown} bytes."
        )


def put_object(call: Call) -> Answer:
    checksum = checksums.check(call.headers, call.trailer, call.body)
    check_quotas(call, len(call.body), call.objects.get(call.bucket_id, call.key))
    row = call.objects.put(call.bucket_id, call.key, call.body, {**kept_headers(call.headers), **checksum})
    return Answer(headers={"ETag": f'"{row.etag}"', **checksum})


def get_object(call: Call) -> Answer:
    """Also for HEAD: the server leaves the body out."""
    row = call.objects.get(call.bucket_id, call.key)
    if row is None:
        raise no_such_object()
    condition = _condition(call.headers, row)
    if condition:
        return Answer(condition)
    headers = _object_headers(row, call)
    content = call.objects.content(call.bucket_id, call.key)
    given = RANGE.match(call.headers.get("range", ""))
    if given is None:
        return Answer(200, content, headers=headers)
    first, last = _bounds(given[1], given[2], row.size)
    headers = {name: value for name, value in headers.items() if not name.startswith(checksums.PREFIX)}
    headers["Content-Range"] = f"bytes {first}-{last}/{row.size}"
    return Answer(206, content[first : last + 1], headers=headers)


def _object_headers(row: Object, call: Call) -> dict[str, str]:
    shown = dict(row.headers)
    if call.headers.get("x-amz-checksum-mode", "").upper() != "ENABLED":
        shown = {name: value for name, value in shown.items() if not name.startswith(checksums.PREFIX)}
    for name in OVERRIDES:
        if call.query.get(f"response-{name}"):
            shown[name] = call.query[f"response-{name}"]
    return {
        **shown,
        "Last-Modified": formatdate(row.modified / 1000, usegmt=True),
        "Accept-Ranges": "bytes",
        "ETag": f'"{row.etag}"',
    }


def _condition(headers: Mapping[str, str], row: Object) -> int:
    """The status that a condition leads to, 0 if the object is answered (RFC 9110 section 13.2.2)."""
    if "if-match" in headers:
        if not _matches(headers["if-match"], row.etag):
            return 412
    elif "if-unmodified-since" in headers and _second(row) > _parsed(headers["if-unmodified-since"]):
        return 412
    if "if-none-match" in headers:
        return 304 if _matches(headers["if-none-match"], row.etag) else 0
    if "if-modified-since" in headers and _second(row) <= _parsed(headers["if-modified-since"]):
        return 304
    return 0


def _matches(given: str, etag: str) -> bool:
    return any(item.strip().strip('"') in (etag, "*") for item in given.split(","))


def _second(row: Object) -> int:
    return row.modified // 1000


def _parsed(text: str) -> int:
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except ValueError as error:
        raise bad_request("Invalid date in a condition") from error


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """The first and the last byte of a range.

    :raises ApiError: 416.
    """
    begin = int(first) if first else max(size - int(last or 0), 0)
    end = min(int(last), size - 1) if first and last else size - 1
    if not (first or last) or begin > end:
        raise ApiError(416, "InvalidRange", "Invalid HTTP range")
    return begin, end


def delete_object(call: Call) -> Answer:
    """An object that is not there is no error."""
    call.objects.delete(call.bucket_id, call.key)
    return Answer(204)


def delete_objects(call: Call) -> Answer:
    """In Garage 2.0 an object that is not there is an error of that object, later it counts as deleted."""
    checksums.check(call.headers, call.trailer, call.body)
    root = xml.parse("Delete", call.body)
    quiet = xml.text(root, "Quiet") == "true"
    deleted, errors = [], []
    for item in root.findall("Object"):
        key = xml.text(item, "Key") or ""
        if not call.objects.delete(call.bucket_id, key) and call.store.version == OLDEST:
            errors.append({"Code": "NoSuchKey", "Key": key, "Message": "Key not found"})
        elif not quiet:
            deleted.append({"Key": key})
    return xml_answer("DeleteResult", {"Deleted": deleted, "Error": errors})


def copy_object(call: Call) -> Answer:
    source, content = copy_source(call)
    given = kept_headers(call.headers)
    replaces = call.headers.get("x-amz-metadata-directive") == "REPLACE"
    check_quotas(call, len(content), call.objects.get(call.bucket_id, call.key))
    row = call.objects.put(call.bucket_id, call.key, content, given if replaces else source.headers)
    return xml_answer("CopyObjectResult", {"LastModified": instant(row.modified), "ETag": f'"{row.etag}"'})


def copy_source(call: Call) -> tuple[Object, bytes]:
    """The object that ``x-amz-copy-source`` names, if the key may read it.

    :raises ApiError: 400, 403, 404, 412.
    """
    bucket, slash, key = unquote(call.headers["x-amz-copy-source"]).lstrip("/").partition("/")
    if not slash:
        raise bad_request("Invalid copy source")
    tables = call.store.tables
    bucket_id = resolve(tables, call.key_id, bucket)
    if bucket_id is None:
        raise no_such_bucket(bucket)
    if not flags(tables, bucket_id, call.key_id)["read"]:
        raise forbidden(f"Reading from bucket {bucket} not allowed for this key")
    row = call.objects.get(bucket_id, key)
    if row is None:
        raise no_such_object()
    prefix = "x-amz-copy-source-"
    conditions = {name.removeprefix(prefix): value for name, value in call.headers.items() if name.startswith(prefix)}
    if _condition(conditions, row):
        raise ApiError(412, "PreconditionFailed", "At least one of the preconditions you specified did not hold")
    return row, call.objects.content(bucket_id, key)
