# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Listings of objects and of unfinished uploads, page by page."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from lab.garage.errors import bad_request
from lab.garage.objects import Object, Upload
from lab.garage.s3.call import Answer, Call, xml_answer
from lab.garage.times import instant

PAGE = 1000
NOBODY = {"DisplayName": "Dummy Key", "ID": "GKDummyKey"}


@dataclass
class Page:
    """``last`` is the last key that was looked at; ``more`` whether others follow."""

    rows: list[Any] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    last: str = ""
    more: bool = False


def page_of(rows: Iterable[Object | Upload], prefix: str, delimiter: str, size: int) -> Page:
    """Of *rows*, sorted by key, at most *size* entries: rows, or what those that share a beginning have in common."""
    page = Page()
    for row in rows:
        if not row.key.startswith(prefix):
            if row.key.encode() > prefix.encode():
                break
            continue
        cut = row.key.find(delimiter, len(prefix)) if delimiter else -1
        shared = row.key[: cut + len(delimiter)] if cut >= 0 else ""
        if not shared or shared not in page.prefixes[-1:]:
            if len(page.rows) + len(page.prefixes) == size:
                page.more = True
                break
            if shared:
                page.prefixes.append(shared)
            else:
                page.rows.append(row)
        page.last = row.key
    return page


def list_objects_v2(call: Call) -> Answer:
    if call.query["list-type"] != "2":
        raise bad_request(f"Invalid endpoint: list-type={call.query['list-type']}")
    token, after = call.query.get("continuation-token"), call.query.get("start-after")
    begin = _from_token(token) if token is not None else after
    page = _objects(call, begin)
    encode = _encoder(call)
    return _answer(
        call,
        page,
        {
            "StartAfter": None if after is None else encode(after),
            "ContinuationToken": token,
            "NextContinuationToken": _token(page.last) if page.more else None,
            "KeyCount": len(page.rows) + len(page.prefixes),
        },
    )


def list_objects(call: Call) -> Answer:
    marker = call.query.get("marker")
    page = _objects(call, marker)
    encode = _encoder(call)
    return _answer(
        call,
        page,
        {
            "Marker": None if marker is None else encode(marker),
            "NextMarker": encode(page.last) if page.more else None,
        },
    )


def _objects(call: Call, after: str | None) -> Page:
    prefix = call.query.get("prefix", "")
    start = max(prefix, after or "", key=str.encode)
    rows = call.objects.listed(call.bucket_id, start, after=start == after)
    return page_of(rows, prefix, call.query.get("delimiter", ""), _size(call, "max-keys"))


def _answer(call: Call, page: Page, further: dict[str, Any]) -> Answer:
    encode = _encoder(call)
    return xml_answer(
        "ListBucketResult",
        {
            "Name": call.bucket,
            "Prefix": encode(call.query.get("prefix", "")),
            **further,
            "MaxKeys": _size(call, "max-keys"),
            "Delimiter": encode(call.query["delimiter"]) if call.query.get("delimiter") else None,
            "EncodingType": call.query.get("encoding-type"),
            "IsTruncated": page.more,
            "Contents": [
                {
                    "Key": encode(row.key),
                    "LastModified": instant(row.modified),
                    "ETag": f'"{row.etag}"',
                    "Size": row.size,
                    "StorageClass": "STANDARD",
                }
                for row in page.rows
            ],
            "CommonPrefixes": [{"Prefix": encode(prefix)} for prefix in page.prefixes],
        },
    )


def list_multipart_uploads(call: Call) -> Answer:
    marker, id_marker = call.query.get("key-marker", ""), call.query.get("upload-id-marker", "")
    rows = [
        upload
        for upload in call.objects.uploads(call.bucket_id)
        if not marker
        or upload.key.encode() > marker.encode()
        or (upload.key == marker and id_marker and upload.id > id_marker)
    ]
    size = _size(call, "max-uploads")
    page = page_of(rows, call.query.get("prefix", ""), call.query.get("delimiter", ""), size)
    encode = _encoder(call)
    return xml_answer(
        "ListMultipartUploadsResult",
        {
            "Bucket": call.bucket,
            "KeyMarker": encode(marker) if marker else None,
            "UploadIdMarker": id_marker or None,
            "NextKeyMarker": encode(page.last) if page.more else None,
            "NextUploadIdMarker": page.rows[-1].id if page.more and page.rows else None,
            "Prefix": encode(call.query.get("prefix", "")),
            "MaxUploads": size,
            "IsTruncated": page.more,
            "Upload": [
                {
                    "Initiated": instant(upload.started),
                    "Initiator": NOBODY,
                    "Key": encode(upload.key),
                    "UploadId": upload.id,
                    "Owner": NOBODY,
                    "StorageClass": "STANDARD",
                }
                for upload in page.rows
            ],
            "CommonPrefixes": [{"Prefix": encode(prefix)} for prefix in page.prefixes],
            "EncodingType": call.query.get("encoding-type"),
        },
    )


def _size(call: Call, name: str) -> int:
    text = call.query.get(name, str(PAGE))
    if not text.isdigit():
        raise bad_request("Failed to parse query parameter")
    return min(max(int(text), 1), PAGE)


def _encoder(call: Call) -> Any:
    return quote if call.query.get("encoding-type") == "url" else str


def _token(last: str) -> str:
    return "]" + base64.b64encode(last.encode()).decode()


def _from_token(token: str) -> str:
    try:
        if token[:1] == "]":
            return base64.b64decode(token[1:], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        pass
    raise bad_request("Invalid continuation token")
