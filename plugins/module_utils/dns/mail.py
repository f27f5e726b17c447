# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TXT records that mail depends on: SPF and DKIM as their RFCs want them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput

DOMAINKEY = b"_domainkey"
# RFC 8301 section 3.2: verifiers take RSA keys of 1024 to 4096 bits
RSA_BITS = range(1024, 4097)
# RFC 8463 section 4.2
ED25519_BYTES = 32
SEQUENCE, INTEGER, BIT_STRING = 0x30, 0x02, 0x03


def check_texts(labels: tuple[bytes, ...], texts: Collection[bytes], where: str) -> None:
    """Refuse what receivers of mail would not take.

    :param labels: of the name of the record set.
    :raises InvalidInput: two SPF records, or a DKIM key that is malformed, too short or too long.
    """
    policies = [text for text in texts if text.lower() == b"v=spf1" or text.lower().startswith(b"v=spf1 ")]
    if len(policies) > 1:
        raise InvalidInput(
            f"there are {len(policies)} SPF records",
            where=where,
            hint="Join them in one: receivers treat several as an error (RFC 7208, 3.2 and 4.5)",
        )
    if DOMAINKEY in labels[1:]:
        for text in texts:
            _check_dkim(text, where)


def _check_dkim(text: bytes, where: str) -> None:
    """RFC 6376 section 3.6.1."""
    tags: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.decode("latin-1").split(";"))):
        name, equals, value = part.partition("=")
        if not equals or name.strip() in tags:
            raise _bad_key(f"{part[:40]!r} is no tag, or is there twice", where)
        tags[name.strip()] = "".join(value.split())
    if tags.get("v", "DKIM1") != "DKIM1" or ("v" in tags and next(iter(tags)) != "v"):
        raise _bad_key("the tag v is not DKIM1, or not the first", where)
    if "p" not in tags:
        raise _bad_key("the tag p, the public key, is missing", where)
    # an empty one revokes the key
    if not tags["p"]:
        return
    try:
        key = base64.b64decode(tags["p"], validate=True)
    except (binascii.Error, ValueError):
        raise _bad_key("the tag p is not base64", where) from None
    kind = tags.get("k", "rsa")
    if kind == "ed25519" and len(key) != ED25519_BYTES:
        raise _bad_key(f"the Ed25519 key has {len(key)} bytes, not {ED25519_BYTES}", where)
    if kind == "rsa":
        bits = _modulus_bits(key, where)
        if bits not in RSA_BITS:
            raise _bad_key(f"the RSA key has {bits} bits, not 1024 to 4096 (RFC 8301, 3.2)", where)


def _modulus_bits(key: bytes, where: str) -> int:
    """Bits of the modulus of an RSA public key, in a SubjectPublicKeyInfo (RFC 5280) or bare (RFC 8017)."""
    try:
        content, _rest = _element(key, SEQUENCE)
        if content[:1] == bytes([SEQUENCE]):
            _algorithm, content = _element(content, SEQUENCE)
            bits, _rest = _element(content, BIT_STRING)
            content, _rest = _element(bits[1:], SEQUENCE)
        modulus, _rest = _element(content, INTEGER)
    except (IndexError, ValueError):
        raise _bad_key("the tag p holds no RSA public key, perhaps it was cut off", where) from None
    return int.from_bytes(modulus, "big").bit_length()


def _element(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Content of the first DER element and what follows it.

    :raises ValueError: it has another tag or is cut off.
    """
    if data[0] != tag:
        raise ValueError("another element")
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        raise ValueError("cut off")
    return data[start : start + size], data[start + size :]


def _bad_key(what: str, where: str) -> InvalidInput:
    return InvalidInput(f"no DKIM key: {what}", where=where, hint="Copy the record that the mail server printed")
