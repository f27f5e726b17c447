# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Request bodies: which fields an endpoint reads, of which type, and how wrong ones are refused.

As in the real server unknown fields are ignored without a word, ``null`` is the same as absent where a field is
optional, and everything else that does not fit is 400 ``InvalidRequest``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from lab.garage.errors import bad_request

INTEGER_MAX = 2**63 - 1
UNSIGNED_MAX = 2**64 - 1
# RFC 3339 section 5.6
INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})\Z")


@dataclass(frozen=True)
class Scalar:
    kind: Literal["string", "boolean", "integer", "unsigned", "date-time"]


@dataclass(frozen=True)
class ListOf:
    item: Shape


@dataclass(frozen=True)
class Record:
    """An object; ``choices`` are sets of fields of which one must be complete (the first complete one counts)."""

    fields: Mapping[str, Field]
    choices: tuple[tuple[str, ...], ...] = field(default=())


@dataclass(frozen=True)
class Field:
    shape: Shape
    required: bool = False
    nullable: bool = False


Shape = Scalar | ListOf | Record

TEXT = Scalar("string")
BOOLEAN = Scalar("boolean")
INTEGER = Scalar("integer")
UNSIGNED = Scalar("unsigned")
INSTANT_TEXT = Scalar("date-time")


def required(shape: Shape) -> Field:
    return Field(shape, required=True)


def optional(shape: Shape) -> Field:
    """A field that may be absent or null."""
    return Field(shape, nullable=True)


def defaulted(shape: Shape) -> Field:
    """A field that may be absent, but not null."""
    return Field(shape)


def parse(shape: Shape, value: Any) -> Any:
    """Return *value* reduced to the fields of *shape*; fields that are absent or null are left out.

    :raises ApiError: 400, the value does not fit.
    """
    if isinstance(shape, Scalar):
        return _scalar(shape, value)
    if isinstance(shape, ListOf):
        if not isinstance(value, list):
            raise bad_request(f"Invalid JSON: invalid type: expected a sequence, found {_kind(value)}")
        return [parse(shape.item, item) for item in value]
    return _record(shape, value)


def _record(shape: Record, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad_request(f"Invalid JSON: invalid type: expected an object, found {_kind(value)}")
    parsed = {}
    for name, entry in shape.fields.items():
        if name not in value:
            if entry.required:
                raise bad_request(f"Invalid JSON: missing field `{name}`")
        elif value[name] is not None or not entry.nullable:
            parsed[name] = parse(entry.shape, value[name])
    if shape.choices and not any(all(name in parsed for name in choice) for choice in shape.choices):
        raise bad_request("Invalid JSON: data did not match any variant")
    return parsed


def _scalar(shape: Scalar, value: Any) -> Any:
    if shape.kind == "boolean":
        fits = isinstance(value, bool)
    elif shape.kind in ("integer", "unsigned"):
        low, high = (0, UNSIGNED_MAX) if shape.kind == "unsigned" else (-INTEGER_MAX - 1, INTEGER_MAX)
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    elif shape.kind == "date-time":
        fits = isinstance(value, str) and _is_instant(value)
    else:
        fits = isinstance(value, str)
    if not fits:
        raise bad_request(f"Invalid JSON: invalid value: expected {shape.kind}, found {_kind(value)}")
    return value


def _is_instant(text: str) -> bool:
    if not INSTANT.match(text):
        return False
    try:
        datetime.fromisoformat(text.upper())
    except ValueError:
        return False
    return True


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def instant_ms(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 instant."""
    return round(datetime.fromisoformat(text.upper()).timestamp() * 1000)


PERMISSIONS = Record({"read": defaulted(BOOLEAN), "write": defaulted(BOOLEAN), "owner": defaulted(BOOLEAN)})
QUOTAS = Record({"maxSize": optional(UNSIGNED), "maxObjects": optional(UNSIGNED)})
KEY_PERMISSIONS = Record({"createBucket": defaulted(BOOLEAN)})

ROUTING_RULE = Record(
    {
        "Condition": optional(
            Record({"HttpErrorCodeReturnedEquals": optional(INTEGER), "KeyPrefixEquals": optional(TEXT)})
        ),
        "Redirect": required(
            Record(
                {
                    "HostName": optional(TEXT),
                    "HttpRedirectCode": optional(INTEGER),
                    "Protocol": optional(TEXT),
                    "ReplaceKeyPrefixWith": optional(TEXT),
                    "ReplaceKeyWith": optional(TEXT),
                }
            )
        ),
    }
)
CORS_RULE = Record(
    {
        "AllowedHeader": defaulted(ListOf(TEXT)),
        "AllowedMethod": required(ListOf(TEXT)),
        "AllowedOrigin": required(ListOf(TEXT)),
        "ExposeHeader": defaulted(ListOf(TEXT)),
        "ID": optional(TEXT),
        "MaxAgeSeconds": optional(INTEGER),
    }
)
_SIZES = {"ObjectSizeGreaterThan": optional(INTEGER), "ObjectSizeLessThan": optional(INTEGER), "Prefix": optional(TEXT)}
LIFECYCLE_RULE = Record(
    {
        "AbortIncompleteMultipartUpload": optional(Record({"DaysAfterInitiation": required(INTEGER)})),
        "Expiration": optional(Record({"Date": optional(TEXT), "Days": optional(INTEGER)})),
        "Filter": optional(Record({"And": optional(Record(_SIZES)), **_SIZES})),
        "ID": optional(TEXT),
        "Status": required(TEXT),
    }
)

CREATE_BUCKET = Record(
    {
        "globalAlias": optional(TEXT),
        "localAlias": optional(
            Record({"accessKeyId": required(TEXT), "alias": required(TEXT), "allow": defaulted(PERMISSIONS)})
        ),
    }
)
UPDATE_BUCKET = Record(
    {
        "corsRules": optional(ListOf(CORS_RULE)),
        "lifecycleRules": optional(ListOf(LIFECYCLE_RULE)),
        "quotas": optional(QUOTAS),
        "websiteAccess": optional(
            Record(
                {
                    "enabled": required(BOOLEAN),
                    "errorDocument": optional(TEXT),
                    "indexDocument": optional(TEXT),
                    "routingRules": optional(ListOf(ROUTING_RULE)),
                }
            )
        ),
    }
)
CLEANUP_UPLOADS = Record({"bucketId": required(TEXT), "olderThanSecs": required(UNSIGNED)})
BUCKET_KEY = Record({"bucketId": required(TEXT), "accessKeyId": required(TEXT), "permissions": required(PERMISSIONS)})
BUCKET_ALIAS = Record(
    {
        "bucketId": required(TEXT),
        "globalAlias": optional(TEXT),
        "localAlias": optional(TEXT),
        "accessKeyId": optional(TEXT),
    },
    choices=(("globalAlias",), ("localAlias", "accessKeyId")),
)
UPDATE_KEY = Record(
    {
        "allow": optional(KEY_PERMISSIONS),
        "deny": optional(KEY_PERMISSIONS),
        "expiration": optional(INSTANT_TEXT),
        "name": optional(TEXT),
        "neverExpires": defaulted(BOOLEAN),
    }
)
IMPORT_KEY = Record({"accessKeyId": required(TEXT), "name": optional(TEXT), "secretAccessKey": required(TEXT)})
UPDATE_TOKEN = Record(
    {
        "expiration": optional(INSTANT_TEXT),
        "name": optional(TEXT),
        "neverExpires": defaulted(BOOLEAN),
        "scope": optional(ListOf(TEXT)),
    }
)
UPDATE_LAYOUT = Record(
    {
        "roles": defaulted(
            ListOf(
                Record(
                    {
                        "id": required(TEXT),
                        "remove": defaulted(BOOLEAN),
                        "zone": defaulted(TEXT),
                        "tags": defaulted(ListOf(TEXT)),
                        "capacity": optional(UNSIGNED),
                    }
                )
            )
        )
    }
)
APPLY_LAYOUT = Record({"version": required(UNSIGNED)})
