# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""AWS Signature Version 4 as Garage verifies it: in headers, in a URL, and of a body in chunks.

Source: "Authenticating Requests (AWS Signature Version 4)" in the Amazon S3 API Reference.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

from lab.garage import keys
from lab.garage.errors import ApiError, bad_request, forbidden
from lab.garage.store import Tables

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
STREAMING = {
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER": (False, True),
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD": (True, False),
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER": (True, True),
}
EMPTY = hashlib.sha256(b"").hexdigest()
INSTANT = "%Y%m%dT%H%M%SZ"
LONGEST = timedelta(days=1)
LONGEST_URL = timedelta(days=7)
TRAILER = re.compile(rb"([a-z0-9-]+):([A-Za-z0-9+/=]+)\n?\r\n(?:x-amz-trailer-signature:([0-9a-f]+)\r\n)?\r\n\Z")


@dataclass(frozen=True)
class Request:
    """``path`` as it came, ``query`` the string after the question mark, ``headers`` by lower case name."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Verified:
    """Who asks, and the request as it was meant.

    ``headers`` hold those that a URL carried; ``body`` has no chunks any more and its digest was compared;
    ``trailer`` are the checksums that came behind it.
    """

    key_id: str
    headers: Mapping[str, str]
    body: bytes
    trailer: Mapping[str, str]


@dataclass(frozen=True)
class _Signature:
    key_id: str
    scope: str
    signed: tuple[str, ...]
    signature: str
    date: datetime
    payload: str


def verify(tables: Tables, region: str, request: Request) -> Verified:
    """Who signed *request*.

    :raises ApiError: 403, nobody who may ask; 400, it is not signed as it must be.
    """
    query = _query(request.query)
    headers = dict(request.headers)
    if "X-Amz-Algorithm" in query:
        found = _from_url(query)
        del query["X-Amz-Signature"]
    elif "authorization" in headers:
        found = _from_headers(headers)
    else:
        raise forbidden("Garage does not support anonymous access yet")
    _check_signed(found, headers)
    lines = [request.method, request.path, _canonical(query)]
    lines += [f"{name}:{headers[name].strip()}" for name in found.signed]
    canonical = "\n".join([*lines, "", ";".join(found.signed), found.payload])
    key, signing_key = _key(tables, region, found)
    text = _string_to_sign(ALGORITHM, found, hashlib.sha256(canonical.encode()).hexdigest())
    if not hmac.compare_digest(_hmac(signing_key, text).hex(), found.signature):
        raise forbidden("Invalid signature")
    headers.update({name.lower(): value for name, value in query.items() if name.lower().startswith("x-amz-")})
    body, trailer = _body(request.body, found, signing_key)
    return Verified(key, headers, body, trailer)


def _query(text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name in query:
            raise bad_request(f"duplicate query parameter: `{name}`")
        query[name] = value
    return query


def _canonical(query: Mapping[str, str]) -> str:
    return "&".join(sorted(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query.items()))


def _from_headers(headers: Mapping[str, str]) -> _Signature:
    kind, _space, rest = headers["authorization"].partition(" ")
    if kind != ALGORITHM:
        raise bad_request("Unsupported authorization method")
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    for name in ("Credential", "SignedHeaders", "Signature"):
        if name not in fields:
            raise bad_request(f"Could not find {name} in Authorization field")
    if "x-amz-content-sha256" not in headers:
        raise bad_request("Missing X-Amz-Content-Sha256 field")
    date = _date(headers.get("x-amz-date"), LONGEST)
    return _signature(
        fields["Credential"], fields["SignedHeaders"], fields["Signature"], date, headers["x-amz-content-sha256"]
    )


def _from_url(query: Mapping[str, str]) -> _Signature:
    if query["X-Amz-Algorithm"] != ALGORITHM:
        raise bad_request("Unsupported authorization method")
    for name in ("X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Expires"):
        if name not in query:
            raise bad_request(f"{name} not found in query parameters")
    if not query["X-Amz-Expires"].isdigit():
        raise bad_request("X-Amz-Expires is not a number")
    lifetime = timedelta(seconds=int(query["X-Amz-Expires"]))
    if lifetime > LONGEST_URL:
        raise bad_request("X-Amz-Expires may not exceed a week")
    date = _date(query.get("X-Amz-Date"), lifetime)
    return _signature(query["X-Amz-Credential"], query["X-Amz-SignedHeaders"], query["X-Amz-Signature"], date, UNSIGNED)


def _signature(credential: str, signed: str, signature: str, date: datetime, payload: str) -> _Signature:
    key_id, slash, scope = credential.partition("/")
    if not slash:
        raise bad_request("Credentials does not contain '/' in authorization field")
    return _Signature(key_id, scope, tuple(sorted(signed.lower().split(";"))), signature, date, payload)


def _date(text: str | None, lifetime: timedelta) -> datetime:
    if text is None:
        raise bad_request("Missing X-Amz-Date field")
    try:
        date = datetime.strptime(text, INSTANT).replace(tzinfo=UTC)
    except ValueError as error:
        raise bad_request("Invalid date") from error
    if datetime.now(UTC) - date > lifetime:
        raise bad_request("Date is too old")
    return date


def _check_signed(found: _Signature, headers: Mapping[str, str]) -> None:
    if "host" not in found.signed:
        raise bad_request("Header `Host` should be signed")
    for name in found.signed:
        if name not in headers:
            raise bad_request(f"signed header `{name}` is not present")
    for name in headers:
        if name.startswith("x-amz-") and name not in found.signed:
            raise bad_request(f"Header `{name}` should be signed")


def _key(tables: Tables, region: str, found: _Signature) -> tuple[str, bytes]:
    """The id of the key and what signs with its secret that day."""
    if found.scope != f"{found.date:%Y%m%d}/{region}/s3/aws4_request":
        raise ApiError(
            400,
            "AuthorizationHeaderMalformed",
            f"Authorization header malformed, unexpected scope: {found.scope}",
        )
    row = tables["keys"].get(found.key_id)
    if row is None:
        raise forbidden(f"No such key: {found.key_id}")
    if keys.expired(row):
        raise forbidden(f"Access key {found.key_id} has expired")
    key = f"AWS4{row['secret']}".encode()
    for part in (f"{found.date:%Y%m%d}", region, "s3", "aws4_request"):
        key = _hmac(key, part)
    return found.key_id, key


def _string_to_sign(kind: str, found: _Signature, *rest: str) -> str:
    return "\n".join([kind, found.date.strftime(INSTANT), found.scope, *rest])


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _body(raw: bytes, found: _Signature, signing_key: bytes) -> tuple[bytes, dict[str, str]]:
    """The body without chunks, and the trailer."""
    if found.payload == UNSIGNED:
        return raw, {}
    if found.payload in STREAMING:
        is_signed, has_trailer = STREAMING[found.payload]
        return _chunks(raw, found, signing_key if is_signed else None, has_trailer)
    if not re.fullmatch(r"[0-9a-f]{64}", found.payload):
        raise bad_request("Invalid content sha256 hash")
    if hashlib.sha256(raw).hexdigest() != found.payload:
        raise ApiError(400, "InvalidDigest", "Invalid digest: Request content hash does not match signed hash")
    return raw, {}


def _chunks(
    raw: bytes, found: _Signature, signing_key: bytes | None, has_trailer: bool
) -> tuple[bytes, dict[str, str]]:
    content, previous, rest = [], found.signature, raw
    while True:
        head, line_end, rest = rest.partition(b"\r\n")
        size_text, _semicolon, extension = head.partition(b";chunk-signature=")
        if not line_end or not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size_text):
            raise bad_request("Stream error: Parser error")
        size = int(size_text, 16)
        data, rest = rest[:size], rest[size:]
        if len(data) < size:
            raise bad_request("Stream error: Unexpected EOF")
        if signing_key is not None:
            previous = _compare(_chunk_signature(found, signing_key, previous, data), extension)
        content.append(data)
        if not size:
            break
        if rest[:2] != b"\r\n":
            raise bad_request("Stream error: Parser error")
        rest = rest[2:]
    if not has_trailer:
        return b"".join(content), {}
    match = TRAILER.match(rest)
    if match is None:
        raise bad_request("trailing checksum was not sent")
    name, value, signature = match.groups()
    if signing_key is not None:
        data = name + b":" + value + b"\n"
        _compare(_trailer_signature(found, signing_key, previous, data), signature)
    return b"".join(content), {name.decode(): value.decode()}


def _chunk_signature(found: _Signature, signing_key: bytes, previous: str, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return _hmac(signing_key, _string_to_sign(f"{ALGORITHM}-PAYLOAD", found, previous, EMPTY, digest)).hex()


def _trailer_signature(found: _Signature, signing_key: bytes, previous: str, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    # the word that Garage expects; AWS has TRAILER there
    return _hmac(signing_key, _string_to_sign(f"{ALGORITHM}-PAYLOAD", found, previous, digest)).hex()


def _compare(expected: str, given: bytes | None) -> str:
    if not hmac.compare_digest(expected.encode(), given or b""):
        raise bad_request("Stream error: Invalid payload signature")
    return expected
