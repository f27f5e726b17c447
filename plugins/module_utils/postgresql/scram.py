# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SCRAM-SHA-256 verifiers as PostgreSQL keeps them, so that no clear password travels (RFC 5802, RFC 7677)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

# PostgreSQL's defaults: SCRAM_SHA_256_DEFAULT_ITERATIONS, SCRAM_DEFAULT_SALT_LEN (src/include/common/scram-common.h)
ITERATIONS = 4096
SALT_BYTES = 16
KEY_BYTES = hashlib.sha256().digest_size

_FORM = re.compile(r"SCRAM-SHA-256\$([1-9][0-9]{0,8}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)\Z")

# RFC 4013 section 2.3
_PROHIBITED: tuple[Callable[[str], bool], ...] = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


@dataclass(frozen=True)
class Verifier:
    """What the server needs to check a password, and from which the password cannot be computed."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def text(self) -> str:
        """The form of ``pg_authid.rolpassword``."""
        salt, stored_key, server_key = (
            base64.b64encode(part).decode("ascii") for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored_key}:{server_key}"


def parse(text: str) -> Verifier:
    """Read a verifier strictly: PostgreSQL would take a malformed one for a clear password and hash it.

    :raises ValueError: *text* is no SCRAM-SHA-256 verifier; the message does not repeat it.
    """
    form = _FORM.match(text)
    if form is None:
        raise ValueError("not of the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")
    try:
        salt, stored_key, server_key = (base64.b64decode(part, validate=True) for part in form.groups()[1:])
    except binascii.Error:
        raise ValueError("salt or keys are not base64") from None
    if not salt or len(stored_key) != KEY_BYTES or len(server_key) != KEY_BYTES:
        raise ValueError(f"the keys must have {KEY_BYTES} bytes")
    return Verifier(int(form.group(1)), salt, stored_key, server_key)


def make(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> Verifier:
    """The verifier of *password*; without *salt* with a fresh random one (RFC 5802 section 3)."""
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", prepare(password).encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return Verifier(
        iterations,
        salt,
        stored_key=hashlib.sha256(client_key).digest(),
        server_key=hmac.digest(salted, b"Server Key", "sha256"),
    )


def matches(password: str, stored: str | None) -> bool:
    """Whether *stored* (``pg_authid.rolpassword``; md5 and missing ones never match) is a verifier of *password*."""
    try:
        verifier = parse(stored or "")
    except ValueError:
        return False
    expected = make(password, verifier.salt, verifier.iterations)
    return hmac.compare_digest(expected.stored_key, verifier.stored_key) and hmac.compare_digest(
        expected.server_key, verifier.server_key
    )


def prepare(password: str) -> str:
    """SASLprep (RFC 4013); a password that it prohibits is used as it is, like PostgreSQL and libpq do."""
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in password if not stringprep.in_table_b1(char)
    )
    normal = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not normal or any(prohibited(char) for char in normal for prohibited in _PROHIBITED):
        return password
    # RFC 3454 section 6: right-to-left text must be so at both ends and hold no left-to-right character
    if any(stringprep.in_table_d1(char) for char in normal) and (
        not (stringprep.in_table_d1(normal[0]) and stringprep.in_table_d1(normal[-1]))
        or any(stringprep.in_table_d2(char) for char in normal)
    ):
        return password
    return normal
