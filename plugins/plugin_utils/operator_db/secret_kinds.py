# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How secrets of each kind are made."""

from __future__ import annotations

import base64
import secrets
import string
from collections.abc import Callable

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput

try:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
except ImportError:
    pass  # libraries.require() reports it before any use

ALPHANUMERIC = string.ascii_letters + string.digits
MAX_LENGTH = 4096
# below this a guess becomes thinkable
MIN_LENGTH = 8


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _vapid_private() -> str:
    """P-256 private number, 32 bytes in unpadded base64url (RFC 8292 section 2 uses P-256 keys)."""
    number = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value
    return _base64url(number.to_bytes(32, "big"))


def _vapid_public(private: str) -> str:
    """The uncompressed point, 65 bytes in unpadded base64url (RFC 8292 section 3.2)."""
    number = int.from_bytes(base64.urlsafe_b64decode(private + "=" * (-len(private) % 4)), "big")
    point = ec.derive_private_key(number, ec.SECP256R1()).public_key()
    return _base64url(point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))


# the length is in random bytes, for alphanumeric in characters
SIZED: dict[str, Callable[[int], str]] = {
    "hex": secrets.token_hex,
    "base64": lambda length: base64.b64encode(secrets.token_bytes(length)).decode(),
    "base64url": lambda length: _base64url(secrets.token_bytes(length)),
    "alphanumeric": lambda length: "".join(secrets.SystemRandom().choices(ALPHANUMERIC, k=length)),
}
FIXED: dict[str, Callable[[], str]] = {"vapid-private": _vapid_private}
DERIVED: dict[str, Callable[[str], str]] = {"vapid-public": _vapid_public}
KINDS = (*SIZED, *FIXED, *DERIVED)


def generate(kind: str, length: int | None) -> str:
    """Make a new secret of a checked kind that is not derived."""
    return FIXED[kind]() if length is None else SIZED[kind](length)


def derive(kind: str, source: str) -> str:
    """Compute the secret of a derived kind from the value of its source."""
    return DERIVED[kind](source)


def check_kind(kind: str, length: int | None, source: str | None, where: str) -> None:
    """Check that the kind is known and that length and source fit it.

    :raises InvalidInput: they do not; *where* names the secret.
    """
    if kind not in KINDS:
        raise InvalidInput(f"unknown kind of secret {kind!r}", where=where, hint=f"Known are: {', '.join(KINDS)}")
    if kind in SIZED and (length is None or not MIN_LENGTH <= length <= MAX_LENGTH):
        raise InvalidInput(
            f"a secret of kind {kind} needs a length", where=where, hint=f"Set bytes to {MIN_LENGTH} to {MAX_LENGTH}"
        )
    if kind not in SIZED and length is not None:
        raise InvalidInput(f"a secret of kind {kind} has a fixed length", where=where, hint="Leave out bytes")
    if kind in DERIVED and source is None:
        raise InvalidInput(
            f"a secret of kind {kind} is computed from another one", where=where, hint="Name that one in from"
        )
    if kind not in DERIVED and source is not None:
        raise InvalidInput(
            f"a secret of kind {kind} is not computed from another one", where=where, hint="Leave out from"
        )
