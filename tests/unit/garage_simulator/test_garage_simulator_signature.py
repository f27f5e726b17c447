# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulator's signatures against botocore's own signer: headers, URLs, bodies in chunks with trailers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import zlib
from collections.abc import Mapping
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from lab.garage.errors import ApiError
from lab.garage.s3 import checksums
from lab.garage.s3.signature import EMPTY, Request, Verified, verify
from lab.garage.store import Store

KEY, SECRET, REGION = "GK" + "0a" * 12, "5e" * 32, "garage"
URL = "http://127.0.0.1:3900/media/a%20b/%C3%A9?list-type=2&prefix=a%2Fb%20c&x=~"


@pytest.fixture
def store() -> Store:
    made = Store()
    made.tables["keys"][KEY] = {"name": "n", "secret": SECRET, "expiration": None, "localAliases": {}}
    return made


class Signer(S3SigV4Auth):
    """Takes a digest of the payload that is given in the context."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.context.get("digest") or super().payload(request))


def signed(
    *, method: str = "PUT", body: bytes = b"", headers: Mapping[str, str] | None = None, region: str = REGION
) -> dict[str, str]:
    """The headers of a request to URL as botocore signs it."""
    request = AWSRequest(method=method, url=URL, data=body, headers={"Host": "127.0.0.1:3900", **(headers or {})})
    request.context.update(payload_signing_enabled=True, digest=(headers or {}).get("x-amz-content-sha256"))
    Signer(Credentials(KEY, SECRET), "s3", region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def check(store: Store, headers: Mapping[str, str], body: bytes = b"", method: str = "PUT", url: str = URL) -> Verified:
    parts = urlsplit(url)
    return verify(store.tables, REGION, Request(method, parts.path, parts.query, headers, body))


def refused(store: Store, headers: Mapping[str, str], body: bytes = b"", url: str = URL) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        check(store, headers, body, url=url)
    return caught.value.status, caught.value.code


def test_headers(store: Store) -> None:
    assert check(store, signed(body=b"hello"), b"hello").key_id == KEY


@pytest.mark.parametrize("field", ["Credential=GK", "SignedHeaders=x", "Signature=0", "AWS4-HMAC-SHA256"])
def test_every_part_of_the_header_counts(store: Store, field: str) -> None:
    headers = signed()
    name = field.partition("=")[0]
    assert refused(store, {**headers, "authorization": headers["authorization"].replace(name, f"{name}0", 1)})


def test_what_was_signed_is_what_counts(store: Store) -> None:
    headers = signed(body=b"hello", headers={"x-amz-meta-by": "x"})
    assert refused(store, headers, b"other") == (400, "InvalidDigest")
    assert refused(store, {**headers, "x-amz-meta-by": "y"}, b"hello") == (403, "AccessDenied")
    assert refused(store, {**headers, "x-amz-acl": "public-read"}, b"hello") == (400, "InvalidRequest")
    assert refused(store, headers, b"hello", URL.replace("media", "other")) == (403, "AccessDenied")
    assert refused(store, headers, b"hello", f"{URL}&y") == (403, "AccessDenied")
    assert refused(store, {"host": "127.0.0.1:3900"}) == (403, "AccessDenied")
    assert refused(store, signed(region="elsewhere")) == (400, "AuthorizationHeaderMalformed")
    assert refused(store, {**headers, "x-amz-date": "20200101T000000Z"}, b"hello") == (400, "InvalidRequest")


def test_urls(store: Store) -> None:
    request = AWSRequest(method="GET", url="http://127.0.0.1:3900/media/k")
    S3SigV4QueryAuth(Credentials(KEY, SECRET), "s3", REGION, expires=60).add_auth(request)
    headers = {"host": "127.0.0.1:3900"}
    assert check(store, headers, method="GET", url=request.url).key_id == KEY
    longer = request.url.replace("X-Amz-Expires=60", "X-Amz-Expires=61")
    with pytest.raises(ApiError, match="Invalid signature"):
        check(store, headers, method="GET", url=longer)
    with pytest.raises(ApiError, match="exceed a week"):
        check(store, headers, method="GET", url=request.url.replace("Expires=60", "Expires=999999"))


TRAILER = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-trailer": "x-amz-checksum-crc32"}


def crc(content: bytes) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


def test_unsigned_chunks_with_a_trailer(store: Store) -> None:
    """As boto3 sends it over HTTPS."""
    headers = signed(headers=TRAILER)
    body = f"5\r\nhello\r\n1\r\n!\r\n0\r\nx-amz-checksum-crc32:{crc(b'hello!')}\r\n\r\n".encode()
    verified = check(store, headers, body)
    assert (verified.body, verified.trailer) == (b"hello!", {"x-amz-checksum-crc32": crc(b"hello!")})
    assert checksums.check(verified.headers, verified.trailer, verified.body) == verified.trailer
    with pytest.raises(ApiError, match="Failed to validate checksum"):
        checksums.check(verified.headers, verified.trailer, b"other")
    for broken in (body[:9], body.replace(b"5\r\n", b"x\r\n"), body[:-4], b"5\r\nhello0\r\n\r\n"):
        assert refused(store, headers, broken) == (400, "InvalidRequest")


def test_signed_chunks(store: Store) -> None:
    """As "Signature Calculations: Transferring Payload in Multiple Chunks" of the S3 documentation has it."""
    headers = signed(headers={"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"})
    date = headers["x-amz-date"]
    scope = f"{date[:8]}/{REGION}/s3/aws4_request"
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    previous, body = headers["authorization"].rpartition("Signature=")[2], b""
    for data in (b"hello", b""):
        text = "\n".join(["AWS4-HMAC-SHA256-PAYLOAD", date, scope, previous, EMPTY, hashlib.sha256(data).hexdigest()])
        previous = hmac.digest(key, text.encode(), "sha256").hex()
        body += f"{len(data):x};chunk-signature={previous}\r\n".encode() + data + b"\r\n"
    assert check(store, headers, body).body == b"hello"
    assert refused(store, headers, body.replace(b"hello", b"jello")) == (400, "InvalidRequest")


@pytest.mark.parametrize(
    ("name", "expected"), [("crc32", 0xCBF43926), ("crc32c", 0xE3069283), ("crc64nvme", 0xAE8B14860A799888)]
)
def test_checksums_of_the_usual_check_word(name: str, expected: int) -> None:
    """The check values of the catalogue of parametrised CRC algorithms."""
    assert int.from_bytes(checksums.DIGESTS[name](b"123456789"), "big") == expected
