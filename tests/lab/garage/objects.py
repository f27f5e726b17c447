# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's objects and unfinished uploads, in SQLite: what is too large for the tables of :mod:`lab.garage.store`."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.garage.times import now_ms

SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT, key BLOB, etag TEXT, size INTEGER, modified INTEGER, headers TEXT, content BLOB,
    PRIMARY KEY (bucket, key));
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, bucket TEXT, key BLOB, started INTEGER, headers TEXT, algorithm TEXT);
CREATE TABLE IF NOT EXISTS parts (
    upload TEXT, number INTEGER, etag TEXT, size INTEGER, modified INTEGER, checksum TEXT, content BLOB,
    PRIMARY KEY (upload, number));
"""


@dataclass(frozen=True)
class Object:
    """``etag`` without quotes, ``modified`` in milliseconds since 1970, ``headers`` as answered."""

    key: str
    etag: str
    size: int
    modified: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Upload:
    """A multipart upload that was neither completed nor aborted; ``algorithm`` is that of its checksums, or empty."""

    id: str
    key: str
    started: int
    headers: Mapping[str, str]
    algorithm: str


@dataclass(frozen=True)
class Part:
    """``checksum`` is base64, empty without one."""

    number: int
    etag: str
    size: int
    modified: int
    checksum: str


class Objects:
    """Objects by bucket id and key, sorted by the bytes of the key; of an object only the newest version is kept."""

    def __init__(self, path: Path | None = None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        self._database = sqlite3.connect(path or ":memory:", check_same_thread=False)
        self._database.executescript(f"PRAGMA synchronous = OFF; {SCHEMA}")
        # tests look at what the server's thread changes
        self._lock = threading.RLock()

    def __deepcopy__(self, _memo: dict[int, Any]) -> Objects:
        """The tables that hold this are copied for every change; objects are not."""
        return self

    def close(self) -> None:
        self._database.close()

    def put(self, bucket: str, key: str, content: bytes, headers: Mapping[str, str] | None = None) -> Object:
        """Store an object in the place of what had its key."""
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return self._put(bucket, Object(key, etag, len(content), now_ms(), dict(headers or {})), content)

    def _put(self, bucket: str, row: Object, content: bytes) -> Object:
        values = (bucket, row.key.encode(), row.etag, row.size, row.modified, json.dumps(dict(row.headers)), content)
        self._write("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)", *values)
        return row

    def get(self, bucket: str, key: str) -> Object | None:
        for row in self._read("SELECT key, etag, size, modified, headers FROM objects WHERE bucket = ? AND key = ?",
                              bucket, key.encode()):  # fmt: skip
            return _object(row)
        return None

    def content(self, bucket: str, key: str) -> bytes:
        """The bytes of an object that exists."""
        ((content,),) = self._read("SELECT content FROM objects WHERE bucket = ? AND key = ?", bucket, key.encode())
        return bytes(content)

    def delete(self, bucket: str, key: str) -> bool:
        """Whether there was one."""
        return bool(self._write("DELETE FROM objects WHERE bucket = ? AND key = ?", bucket, key.encode()))

    def listed(self, bucket: str, start: str, *, after: bool = False) -> Iterator[Object]:
        """The objects from key *start* on, or from the next one on."""
        order = ">" if after else ">="
        return map(_object, self._read(
            f"SELECT key, etag, size, modified, headers FROM objects WHERE bucket = ? AND key {order} ? ORDER BY key",
            bucket, start.encode()))  # fmt: skip

    def counts(self, bucket: str) -> dict[str, int]:
        """The counters of GetBucketInfo, by their names there."""
        ((objects, size),) = self._read("SELECT count(*), coalesce(sum(size), 0) FROM objects WHERE bucket = ?", bucket)
        ((uploads,),) = self._read("SELECT count(*) FROM uploads WHERE bucket = ?", bucket)
        ((parts, part_bytes),) = self._read(
            "SELECT count(*), coalesce(sum(size), 0) FROM parts JOIN uploads ON upload = id WHERE bucket = ?", bucket
        )
        return {
            "objects": objects,
            "bytes": size,
            # multipart ones count here too; others are never seen unfinished
            "unfinishedUploads": uploads,
            "unfinishedMultipartUploads": uploads,
            "unfinishedMultipartUploadParts": parts,
            "unfinishedMultipartUploadBytes": part_bytes,
        }

    def begin(self, bucket: str, key: str, headers: Mapping[str, str], algorithm: str) -> Upload:
        """Begin a multipart upload."""
        upload = Upload(secrets.token_hex(32), key, now_ms(), dict(headers), algorithm)
        values = (upload.id, bucket, key.encode(), upload.started, json.dumps(dict(headers)), algorithm)
        self._write("INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?)", *values)
        return upload

    def uploads(self, bucket: str) -> list[Upload]:
        """Unfinished uploads, sorted by key and id."""
        rows = self._read(
            "SELECT id, key, started, headers, algorithm FROM uploads WHERE bucket = ? ORDER BY key, id", bucket
        )
        return [Upload(row[0], row[1].decode(), row[2], json.loads(row[3]), row[4]) for row in rows]

    def put_part(self, upload: Upload, number: int, content: bytes, checksum: str) -> Part:
        """Store a part in the place of the one that had its number."""
        part = Part(number, hashlib.md5(content, usedforsecurity=False).hexdigest(), len(content), now_ms(), checksum)
        values = (upload.id, number, part.etag, part.size, part.modified, checksum, content)
        self._write("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)", *values)
        return part

    def parts(self, upload: Upload) -> list[Part]:
        rows = self._read("SELECT number, etag, size, modified, checksum FROM parts WHERE upload = ? ORDER BY number",
                          upload.id)  # fmt: skip
        return [Part(*row) for row in rows]

    def complete(self, bucket: str, upload: Upload, numbers: list[int]) -> Object:
        """Make an object of the parts *numbers* and forget the upload."""
        found = {part.number: part for part in self.parts(upload)}
        digests = b"".join(bytes.fromhex(found[number].etag) for number in numbers)
        etag = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(numbers)}"
        contents = dict(self._read("SELECT number, content FROM parts WHERE upload = ?", upload.id))
        content = b"".join(contents[number] for number in numbers)
        row = self._put(bucket, Object(upload.key, etag, len(content), now_ms(), upload.headers), content)
        self.forget(upload.id)
        return row

    def forget(self, upload_id: str) -> None:
        """Drop an upload and its parts."""
        self._write("DELETE FROM parts WHERE upload = ?", upload_id)
        self._write("DELETE FROM uploads WHERE id = ?", upload_id)

    def forget_before(self, bucket: str, instant: int) -> int:
        """Drop the uploads of a bucket that began before *instant* (milliseconds since 1970); their number.

        As in Garage, uploads of one key count once.
        """
        old = [upload for upload in self.uploads(bucket) if upload.started < instant]
        for upload in old:
            self.forget(upload.id)
        return len({upload.key for upload in old})

    def _read(self, query: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def _write(self, statement: str, *values: Any) -> int:
        with self._lock, self._database:
            return self._database.execute(statement, values).rowcount


def _object(row: Any) -> Object:
    return Object(row[0].decode(), row[1], row[2], row[3], json.loads(row[4]))
