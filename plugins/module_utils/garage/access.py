# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a key can really do with buckets: every operation is tried, not looked up.

Garage looks at the permission before the object, so an object that is not there tells whether it might be read or
deleted. The only thing that is written is one object with a random name and one upload, which are removed at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.s3 import error_of, s3_errors, status_of

try:
    import botocore.exceptions
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

Verdict: TypeAlias = Literal["allowed", "refused", "missing"]
Operation: TypeAlias = Callable[[Any, str, str], Any]

CONTENT = b"fediversity access check\n"


@dataclass(frozen=True)
class Access:
    """What a key should be able to do with a bucket, by its name or id."""

    bucket: str
    read: bool = False
    write: bool = False
    owner: bool = False


@dataclass(frozen=True)
class Shared:
    """What a list of buckets says of one key; ``names`` are all by which it may list a bucket."""

    accesses: tuple[Access, ...]
    names: frozenset[str]


@dataclass(frozen=True)
class Finding:
    """What was found for one bucket: verdicts by operation, and what is wrong with them (empty: nothing)."""

    bucket: str
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    wrong: str = ""


def _put(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=CONTENT)
    s3.delete_object(Bucket=bucket, Key=key)


def _upload(s3: Any, bucket: str, key: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)


# what each permission of Garage stands for; Garage asks for the permission before it looks for the object
READS: dict[str, Operation] = {
    "head_bucket": lambda s3, bucket, key: s3.head_bucket(Bucket=bucket),
    "list_objects": lambda s3, bucket, key: s3.list_objects_v2(Bucket=bucket, MaxKeys=1),
    "list_uploads": lambda s3, bucket, key: s3.list_multipart_uploads(Bucket=bucket, MaxUploads=1),
    "get_object": lambda s3, bucket, key: s3.get_object(Bucket=bucket, Key=key),
}
WRITES: dict[str, Operation] = {
    "delete_object": lambda s3, bucket, key: s3.delete_object(Bucket=bucket, Key=key),
    "upload_parts": _upload,
    "put_object": _put,
}
OWNS: dict[str, Operation] = {"get_bucket_cors": lambda s3, bucket, key: s3.get_bucket_cors(Bucket=bucket)}


def of_buckets(buckets: Sequence[Mapping[str, Any]], key_name: str | None) -> Shared:
    """What the option ``buckets`` of garage_buckets gives to the key of that name: nothing where it is not named.

    :raises InvalidInput: it is no such list.
    """
    try:
        return _of_buckets(buckets, key_name)
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"it is no list of buckets as garage_buckets takes it ({type(error).__name__}: {error})",
            where="buckets",
            hint="Give each bucket a name, and each permission a key",
        ) from error


def _of_buckets(buckets: Sequence[Mapping[str, Any]], key_name: str | None) -> Shared:
    accesses: list[Access] = []
    names: set[str] = set()
    for bucket in buckets:
        permissions = bucket.get("permissions")
        if bucket.get("state", "present") != "present":
            continue
        given = [row for row in permissions or () if row["key"] == key_name]
        if permissions is None or given:
            local = [row["alias"] for row in bucket.get("local_aliases") or () if row["key"] == key_name]
            names |= {bucket["name"], *(bucket.get("aliases") or ()), *local}
        if permissions is not None:
            flags = {flag: any(boolean(row.get(flag, False)) for row in given) for flag in ("read", "write", "owner")}
            accesses.append(Access(bucket["name"], **flags))
    return Shared(tuple(accesses), frozenset(names))


def check_bucket(s3: Any, access: Access, *, tries_writes: bool = True) -> Finding:
    """Try everything on one bucket; no answer, or one that says neither yes nor no, is what is wrong with it."""
    expected = {
        **dict.fromkeys(READS, access.read),
        **(dict.fromkeys(WRITES, access.write) if tries_writes else {}),
        **dict.fromkeys(OWNS, access.owner),
    }
    verdicts: dict[str, Verdict] = {}
    try:
        for name in expected:
            verdicts[name] = _try(s3, access.bucket, {**READS, **WRITES, **OWNS}[name])
    except HostingError as error:
        return Finding(access.bucket, verdicts, str(error))
    return Finding(access.bucket, verdicts, _wrong(expected, verdicts))


def listed_names(s3: Any) -> list[str]:
    """The names of all buckets for which the key has any permission, sorted.

    :raises HostingError: Denied if there is no such key, it has expired, or its secret is another one.
    """
    with s3_errors("the access key"):
        return sorted(row["Name"] for row in s3.list_buckets().get("Buckets", ()))


def _try(s3: Any, bucket: str, operation: Operation) -> Verdict:
    key = f"fediversity-access-check-{secrets.token_hex(12)}"
    try:
        operation(s3, bucket, key)
    except botocore.exceptions.ClientError as error:
        code, status = str(error.response["Error"].get("Code", "")), status_of(error)
        if status == 403 and "quota" not in str(error.response["Error"].get("Message", "")):
            return "refused"
        if status == 404:
            # HEAD has no code; what else is missing is in the bucket, as Garage looks at the permission first
            return "missing" if code in ("NoSuchBucket", "404") else "allowed"
        raise error_of(error, f"bucket {bucket}") from error
    except botocore.exceptions.BotoCoreError as error:
        raise error_of(error, f"bucket {bucket}") from error
    finally:
        if operation is _put:
            # written by a key that may not delete, or by one whose answer was lost
            with suppress(botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                s3.delete_object(Bucket=bucket, Key=key)
    return "allowed"


def _wrong(expected: Mapping[str, bool], verdicts: Mapping[str, Verdict]) -> str:
    if "missing" in verdicts.values():
        return "there is no bucket of this name for this key, so nothing is proved. Correct the name, or use its id"
    works = sorted(name for name, verdict in verdicts.items() if verdict == "allowed" and not expected[name])
    fails = sorted(name for name, verdict in verdicts.items() if verdict == "refused" and expected[name])
    parts = [f"the key should not be able to: {', '.join(works)}"] if works else []
    parts += [f"the key should be able to: {', '.join(fails)}"] if fails else []
    return "; ".join(parts)
