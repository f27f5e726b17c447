# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import scram
from hypothesis import given, settings
from hypothesis import strategies as st

# RFC 7677 section 3: user "user", password "pencil"
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
AUTH_MESSAGE = (
    "n=user,r=rOprNGfwEbeRWgbNEkqO,"
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
)
CLIENT_PROOF = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
SERVER_SIGNATURE = base64.b64decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def test_rfc_7677_test_vector() -> None:
    verifier = scram.make("pencil", SALT, 4096)
    assert hmac.digest(verifier.server_key, AUTH_MESSAGE.encode(), "sha256") == SERVER_SIGNATURE
    # the client key is the proof XOR the signature, and its hash is the stored key
    signature = hmac.digest(verifier.stored_key, AUTH_MESSAGE.encode(), "sha256")
    client_key = bytes(a ^ b for a, b in zip(CLIENT_PROOF, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == verifier.stored_key


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        # RFC 4013 section 3
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        # prohibited: PostgreSQL takes them as they are
        ("bell\u0007", "bell\u0007"),
        ("\u06271", "\u06271"),
        ("\u00ad", "\u00ad"),
        ("a\u00a0b", "a b"),
        ("\u0627\u0628", "\u0627\u0628"),
    ],
)
def test_saslprep(password: str, prepared: str) -> None:
    assert scram.prepare(password) == prepared


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1), st.binary(min_size=1, max_size=32))
def test_a_verifier_survives_its_text_and_matches_only_its_password(password: str, salt: bytes) -> None:
    verifier = scram.make(password, salt, iterations=2)
    assert scram.parse(verifier.text()) == verifier
    assert scram.matches(password, verifier.text())
    assert not scram.matches(password + "x", verifier.text())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pencil",
        "md5" + "0" * 32,
        "SCRAM-SHA-256$4096:salt$AAAA:BBBB",
        "SCRAM-SHA-256$0:c2FsdA==$" + base64.b64encode(bytes(32)).decode() + ":" + base64.b64encode(bytes(32)).decode(),
        "SCRAM-SHA-256$4096:c2FsdA==$"
        + base64.b64encode(bytes(32)).decode()
        + ":"
        + base64.b64encode(bytes(31)).decode(),
        "SCRAM-SHA-256$4096:c2Fsd$" + base64.b64encode(bytes(32)).decode() + ":" + base64.b64encode(bytes(32)).decode(),
        scram.make("pencil").text() + "\n",
    ],
)
def test_a_malformed_verifier_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"keys|form") as caught:
        scram.parse(text)
    assert not text or text not in str(caught.value)
    assert not scram.matches(text, text)


def test_no_key_is_shown() -> None:
    shown = repr(scram.make("pencil", SALT))
    assert "stored_key" not in shown
    assert "server_key" not in shown
