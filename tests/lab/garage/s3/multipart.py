# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Multipart uploads."""

from __future__ import annotations

import re

from lab.garage.errors import ApiError, bad_request, no_such_upload
from lab.garage.objects import Part, Upload
from lab.garage.s3 import checksums, objects, xml
from lab.garage.s3.call import Answer, Call, xml_answer
from lab.garage.s3.listing import NOBODY, PAGE
from lab.garage.times import instant

RANGE = re.compile(r"bytes=(\d+)-(\d+)\Z")


def create_multipart_upload(call: Call) -> Answer:
    algorithm = checksums.algorithm(call.headers)
    upload = call.objects.begin(call.bucket_id, call.key, objects.kept_headers(call.headers), algorithm)
    return xml_answer("InitiateMultipartUploadResult", {"Bucket": call.bucket, "Key": call.key, "UploadId": upload.id})


def upload_part(call: Call) -> Answer:
    upload = _upload(call)
    checksum = checksums.check(call.headers, call.trailer, call.body)
    if not call.body:
        raise bad_request("Empty body")
    part = call.objects.put_part(upload, _number(call), call.body, checksums.of(upload.algorithm, call.body))
    return Answer(headers={"ETag": f'"{part.etag}"', **checksum})


def upload_part_copy(call: Call) -> Answer:
    upload = _upload(call)
    _source, content = objects.copy_source(call)
    given = call.headers.get("x-amz-copy-source-range")
    if given is not None:
        found = RANGE.match(given)
        if found is None or int(found[2]) >= len(content):
            raise ApiError(416, "InvalidRange", "Invalid HTTP range")
        content = content[int(found[1]) : int(found[2]) + 1]
    part = call.objects.put_part(upload, _number(call), content, checksums.of(upload.algorithm, content))
    return xml_answer("CopyPartResult", {"LastModified": instant(part.modified), "ETag": f'"{part.etag}"'})


def complete_multipart_upload(call: Call) -> Answer:
    upload = _upload(call)
    parts = {part.number: part for part in call.objects.parts(upload)}
    if not parts:
        raise bad_request("No data was uploaded")
    root = xml.parse("CompleteMultipartUpload", call.body)
    named = [(xml.number(item, "PartNumber") or 0, (xml.text(item, "ETag") or "").strip('"'), item)
             for item in root.findall("Part")]  # fmt: skip
    numbers = [number for number, _etag, _item in named]
    if not numbers:
        raise ApiError(400, "EntityTooSmall", "Proposed upload is smaller than the minimum allowed object size")
    if numbers != sorted(set(numbers)):
        raise ApiError(400, "InvalidPartOrder", "Parts given to CompleteMultipartUpload were not in ascending order")
    for number, etag, item in named:
        part = parts.get(number)
        if part is None or part.etag != etag:
            raise ApiError(400, "InvalidPart", "Parts given to CompleteMultipartUpload do not match uploaded parts")
        checksum = xml.text(item, f"Checksum{upload.algorithm.upper()}") if upload.algorithm else None
        if checksum is not None and checksum != part.checksum:
            raise ApiError(400, "InvalidDigest", f"Invalid digest: Invalid checksum for part {number}")
    try:
        size = sum(parts[number].size for number in numbers)
        objects.check_quotas(call, size, call.objects.get(call.bucket_id, call.key))
    except ApiError:
        call.objects.forget(upload.id)
        raise
    row = call.objects.complete(call.bucket_id, upload, numbers)
    return xml_answer(
        "CompleteMultipartUploadResult",
        {
            "Location": f"/{call.bucket}/{call.key}",
            "Bucket": call.bucket,
            "Key": call.key,
            "ETag": f'"{row.etag}"',
        },
    )


def abort_multipart_upload(call: Call) -> Answer:
    call.objects.forget(_upload(call).id)
    return Answer()


def list_parts(call: Call) -> Answer:
    upload = _upload(call)
    marker, size = int(call.query.get("part-number-marker", "0")), int(call.query.get("max-parts", PAGE))
    parts = [part for part in call.objects.parts(upload) if part.number > marker]
    shown = parts[: min(max(size, 1), PAGE)]
    return xml_answer(
        "ListPartsResult",
        {
            "Bucket": call.bucket,
            "Key": call.key,
            "UploadId": upload.id,
            "PartNumberMarker": marker or None,
            "NextPartNumberMarker": shown[-1].number if len(shown) < len(parts) else None,
            "MaxParts": size,
            "IsTruncated": len(shown) < len(parts),
            "Part": [_part(part) for part in shown],
            "Initiator": NOBODY,
            "Owner": NOBODY,
            "StorageClass": "STANDARD",
        },
    )


def _part(part: Part) -> dict[str, object]:
    return {
        "ETag": f'"{part.etag}"',
        "LastModified": instant(part.modified),
        "PartNumber": part.number,
        "Size": part.size,
    }


def _upload(call: Call) -> Upload:
    for upload in call.objects.uploads(call.bucket_id):
        if (upload.id, upload.key) == (call.query["uploadId"], call.key):
            return upload
    raise no_such_upload()


def _number(call: Call) -> int:
    if not call.query["partNumber"].isdigit():
        raise bad_request("Failed to parse query parameter")
    return int(call.query["partNumber"])
