# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The last copy of a bucket, and emptying the bucket of what that copy holds.

An export is a directory ``<bucket>-<time>`` with

* ``objects/``: one file per object. The files are numbered: names of objects are the operator's and no paths.
* ``manifest.jsonl``: one JSON object per line and object, in the order of the bucket's listing: ``key``, ``size``
  (bytes), ``etag``, ``last_modified``, ``sha256``, ``file``, and ``headers`` (content type and the like, metadata).
* ``export.json``: ``bucket``, ``objects``, ``bytes``, and ``manifest_sha256``.

It has this name only when it is complete and on the disk. Garage has no conditional delete, so whoever can write to the
bucket must lose that permission before :func:`export_bucket` is called, or one write may be lost between the last look
at an object and its deletion.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, InvalidInput, Locked
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.s3 import s3_errors

CHUNK = 2**20
# so many objects are in one directory, and are deleted by one request (the most that S3 takes)
BATCH = 1000
HEADERS = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    # as the server sent it; "Expires" of boto3 is a parsed date
    "ExpiresString",
    "Metadata",
    "WebsiteRedirectLocation",
)
MD5 = re.compile(r"[0-9a-f]{32}\Z")
# a key with one of these cannot be named in an XML document (XML 1.0 section 2.2), so not in DeleteObjects
NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


@dataclass(frozen=True)
class Export:
    """A complete export.

    :param directory: absolute path of the directory.
    :param objects: number of objects.
    :param bytes: sum of their sizes.
    :param digest: SHA-256 of ``manifest.jsonl``, hexadecimal.
    """

    directory: Path
    bucket: str
    objects: int
    bytes: int
    digest: str


@dataclass(frozen=True)
class Listed:
    """An object as the bucket's listing shows it; ``etag`` without quotes, ``last_modified`` as ISO 8601."""

    key: str
    size: int
    etag: str
    last_modified: str


def export_bucket(s3: Any, bucket: str, directory: Path) -> Export:
    """Copy all objects of *bucket* into a new directory inside *directory*.

    :param s3: client of a key that may read the bucket (:func:`~.s3.s3_client`).
    :param directory: is made if it is missing (mode 0700).
    :raises InvalidInput: *directory* cannot be used.
    :raises Locked: somebody changes the bucket meanwhile.
    :raises HostingError: as :func:`~.s3.error_of`; BackendError when the disk is full or an object's bytes do not fit
        its ETag. No part of a failed export is left.
    """
    with _disk_errors(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{bucket}-", dir=directory))
    try:
        with s3_errors(f"bucket {bucket}"), _disk_errors(directory):
            totals = _copy_objects(s3, bucket, unfinished)
            _write(unfinished / "export.json", json.dumps(totals, indent=2).encode() + b"\n")
            _sync_directories(unfinished)
            now = datetime.now(UTC)
            final = directory.absolute() / f"{bucket}-{now:%Y%m%dT%H%M%S.%fZ}"
            unfinished.rename(final)
            _sync_directory(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Export(final, bucket, totals["objects"], totals["bytes"], totals["manifest_sha256"])


def verify_export(export: Export) -> None:
    """Read all of *export* from the disk and compare it with what was downloaded.

    :raises BackendError: something is missing or differs.
    """
    with _disk_errors(export.directory):
        manifest = export.directory / "manifest.jsonl"
        if _digest_of_file(manifest) != export.digest:
            raise _broken(export, "manifest.jsonl")
        count = 0
        for row in _manifest(export):
            count += 1
            if _digest_of_file(export.directory / row["file"]) != row["sha256"]:
                raise _broken(export, row["file"])
    if count != export.objects:
        raise _broken(export, "manifest.jsonl")


def drain_bucket(s3: Any, bucket: str, export: Export) -> int:
    """Delete from *bucket* exactly the objects that *export* holds and that are as they were; return their number.

    The export is verified first, and the whole bucket is compared with it before the first object is deleted.

    :param s3: client of a key that may read and write the bucket.
    :raises Locked: the bucket holds something that the export does not hold like that. It is left alone.
    :raises HostingError: as :func:`~.s3.error_of`, and as :func:`verify_export`.
    """
    verify_export(export)
    where = f"bucket {bucket}"
    deleted = 0
    with s3_errors(where), _disk_errors(export.directory):
        for _page, others in _compared(s3, bucket, export):
            _refuse(others, where)
        found: list[str] = []
        for page, others in _compared(s3, bucket, export):
            _delete(s3, bucket, page, where)
            deleted += len(page)
            found.extend(others)
        _refuse(found, where)
    return deleted


def _copy_objects(s3: Any, bucket: str, directory: Path) -> dict[str, Any]:
    """Download everything and write the manifest; return the contents of ``export.json``."""
    (directory / "objects").mkdir(mode=0o700)
    count = total = 0
    digest = hashlib.sha256()
    with _new_file(directory / "manifest.jsonl") as manifest:
        for page in _listing(s3, bucket):
            for item in page:
                folder = directory / "objects" / f"{count // BATCH:06}"
                folder.mkdir(mode=0o700, exist_ok=True)
                row = _copy_object(s3, bucket, item, folder / f"{count % BATCH:03}")
                row["file"] = str((folder / f"{count % BATCH:03}").relative_to(directory))
                line = json.dumps(row, sort_keys=True).encode() + b"\n"
                manifest.write(line)
                digest.update(line)
                count += 1
                total += item.size
    return {"bucket": bucket, "objects": count, "bytes": total, "manifest_sha256": digest.hexdigest()}


def _copy_object(s3: Any, bucket: str, item: Listed, path: Path) -> dict[str, Any]:
    """Download one object to the new file *path*; its manifest row without ``file``."""
    if item.key.startswith("/"):
        # uploaded by a form; in a path Garage drops the slashes and means another object (src/api/s3/router.rs)
        raise BackendError(
            f"no request can name the object {item.key!r}, because it begins with a slash",
            where=f"bucket {bucket}",
            hint="Have its owner delete it (DeleteObjects can)",
        )
    # not what is there now, but what was listed
    answer = s3.get_object(Bucket=bucket, Key=item.key, IfMatch=f'"{item.etag}"')
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with _new_file(path) as file:
        for chunk in answer["Body"].iter_chunks(CHUNK):
            file.write(chunk)
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    # of several parts: the digest of their digests, which cannot be compared
    if size != item.size or (MD5.match(item.etag) and md5.hexdigest() != item.etag):
        raise BackendError(
            f"the bytes of {item.key!r} are not those that Garage lists",
            where=f"bucket {bucket}",
            hint="Look at Garage's log; 'garage repair blocks' and 'garage worker list' may help",
        )
    headers = {name: answer[name] for name in HEADERS if answer.get(name)}
    return {
        "key": item.key,
        "size": item.size,
        "etag": item.etag,
        "last_modified": item.last_modified,
        "sha256": sha256.hexdigest(),
        "headers": headers,
    }


def _listing(s3: Any, bucket: str) -> Iterator[list[Listed]]:
    """The objects of *bucket* by pages of at most ``BATCH``, sorted by the bytes of their keys."""
    for answer in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": BATCH}):
        yield [
            Listed(row["Key"], row["Size"], row["ETag"].strip('"'), row["LastModified"].isoformat())
            for row in answer.get("Contents", ())
        ]


def _compared(s3: Any, bucket: str, export: Export) -> Iterator[tuple[list[str], list[str]]]:
    """Per page of the bucket's listing: the keys that *export* holds like that, and the others."""
    rows = _manifest(export)
    row = next(rows, None)
    for page in _listing(s3, bucket):
        same: list[str] = []
        others: list[str] = []
        for item in page:
            while row is not None and row["key"].encode() < item.key.encode():
                row = next(rows, None)
            held = row is not None and item == Listed(row["key"], row["size"], row["etag"], row["last_modified"])
            (same if held else others).append(item.key)
        yield same, others


def _manifest(export: Export) -> Iterator[dict[str, Any]]:
    with (export.directory / "manifest.jsonl").open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _delete(s3: Any, bucket: str, keys: list[str], where: str) -> None:
    """Delete *keys* (at most ``BATCH``); one that is gone already is no error."""
    named = [{"Key": key} for key in keys if not NO_XML.search(key)]
    if named:
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": named, "Quiet": True})
        for error in answer.get("Errors", ()):
            if error.get("Code") != "NoSuchKey":
                raise BackendError(
                    f"{error.get('Key')!r} was not deleted: {error.get('Message')} ({error.get('Code')})",
                    where=where,
                    hint="Look at Garage's log and run again",
                )
    for key in keys:
        if NO_XML.search(key):
            s3.delete_object(Bucket=bucket, Key=key)


def _refuse(keys: list[str], where: str) -> None:
    if keys:
        names = ", ".join(repr(key) for key in keys[:5])
        raise Locked(
            f"{len(keys)} objects are new or were changed after the export ({names}); they are left alone",
            where=where,
            hint="Somebody still writes to the bucket: stop that and run again",
        )


def _broken(export: Export, name: str) -> BackendError:
    return BackendError(
        f"{name} of the export is not what was written; nothing is deleted",
        where=str(export.directory),
        hint="Look at the disk, and run again for a new export",
    )


@contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = (
            InvalidInput if isinstance(error, (FileExistsError, NotADirectoryError, PermissionError)) else BackendError
        )
        raise kind(
            f"the export cannot be kept there: {error.strerror or error}",
            where=str(directory),
            hint="Make room or give another directory (export_dir)",
        ) from error


@contextmanager
def _new_file(path: Path) -> Iterator[Any]:
    """A new file (mode 0600) for bytes, on the disk when the block ends well."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, content: bytes) -> None:
    with _new_file(path) as file:
        file.write(content)


def _digest_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sync_directories(top: Path) -> None:
    for folder, _folders, _files in os.walk(top):
        _sync_directory(Path(folder))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
