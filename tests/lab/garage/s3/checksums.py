# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checksums that a client sends beside its data (``x-amz-checksum-*``): CRC32, CRC32C, CRC64NVME, SHA-1, SHA-256."""

from __future__ import annotations

import base64
import functools
import hashlib
import zlib
from collections.abc import Callable, Mapping

from lab.garage.errors import bad_request, invalid_digest

PREFIX = "x-amz-checksum-"
# reflected polynomials
CASTAGNOLI = (0x82F63B78, 32)
NVME = (0x9A6C9329AC4BC9B5, 64)


def check(headers: Mapping[str, str], trailer: Mapping[str, str], content: bytes) -> dict[str, str]:
    """Compare the checksums of a request with its content; the one to keep, as a header.

    :raises ApiError: 400, one is unknown, or differs.
    """
    if "content-md5" in headers:
        _compare("Content-MD5", hashlib.md5(content, usedforsecurity=False).digest(), headers["content-md5"])
    announced = headers.get("x-amz-trailer")
    if announced is not None and announced not in trailer:
        raise bad_request("trailing checksum was not sent")
    given = {name: value for name, value in {**headers, **trailer}.items() if name.removeprefix(PREFIX) in DIGESTS}
    if len(given) > 1:
        raise bad_request("multiple x-amz-checksum-* headers given")
    for name, value in given.items():
        _compare(name, DIGESTS[name.removeprefix(PREFIX)](content), value)
    return given


def algorithm(headers: Mapping[str, str]) -> str:
    """The algorithm that a multipart upload announces, in lower case, or empty.

    :raises ApiError: 400, it is none.
    """
    name = headers.get("x-amz-checksum-algorithm", "").lower()
    if name and name not in DIGESTS:
        raise bad_request("invalid checksum algorithm")
    return name


def of(name: str, content: bytes) -> str:
    """The checksum of *content* in base64, empty for no algorithm."""
    return base64.b64encode(DIGESTS[name](content)).decode() if name else ""


def _compare(name: str, digest: bytes, given: str) -> None:
    if base64.b64encode(digest).decode() != given.strip('"'):
        raise invalid_digest(f"Failed to validate checksum {name}")


@functools.cache
def _table(polynomial: int) -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _bit in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return tuple(table)


def _crc(kind: tuple[int, int]) -> Callable[[bytes], bytes]:
    polynomial, bits = kind
    ones = 2**bits - 1

    def digest(content: bytes) -> bytes:
        table, value = _table(polynomial), ones
        for byte in content:
            value = table[(value ^ byte) & 0xFF] ^ value >> 8
        whole: int = value ^ ones
        return whole.to_bytes(bits // 8, "big")

    return digest


DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "crc32": lambda content: zlib.crc32(content).to_bytes(4, "big"),
    "crc32c": _crc(CASTAGNOLI),
    "crc64nvme": _crc(NVME),
    "sha1": lambda content: hashlib.sha1(content, usedforsecurity=False).digest(),
    "sha256": lambda content: hashlib.sha256(content).digest(),
}
