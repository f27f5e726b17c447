# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TLS of the API: pinned certificates, and errors that tell whether anything was sent."""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Iterable
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput

try:
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPSConnection
    from urllib3.connectionpool import HTTPSConnectionPool
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
except ImportError:
    pass  # required_libraries() in module.py reports it before any use


def parse_fingerprint(text: str) -> str:
    """SHA-256 of a certificate as 64 small hex digits, from the notation with or without colons.

    :raises InvalidInput: it is none.
    """
    digits = re.sub(r"^sha256[:=]?|[:\s]", "", text.strip().lower())
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise InvalidInput(
            f"{text!r} is no SHA-256 fingerprint",
            where="fingerprint",
            hint="Take it from the node: openssl x509 -noout -fingerprint -sha256 -in /etc/pve/local/pve-ssl.pem",
        )
    return digits


def checked_adapter(fingerprints: Iterable[str]) -> HTTPAdapter:
    """An adapter of requests whose connections end in NewConnectionError whenever nothing was sent.

    Also when TLS fails, which urllib3 itself reports like an error in the middle of a request. With *fingerprints* the
    server must have one of these certificates; that is looked at before anything is sent.
    """
    pinned = frozenset(map(parse_fingerprint, fingerprints))

    class CheckedConnection(HTTPSConnection):
        def connect(self) -> None:
            try:
                super().connect()
                self._check_certificate()
            except ConnectTimeoutError:
                # also NewConnectionError, which is one
                raise
            except Exception as error:
                self.close()
                raise NewConnectionError(self, str(error)) from error

        def _check_certificate(self) -> None:
            if not pinned or not isinstance(self.sock, ssl.SSLSocket):
                return
            seen = hashlib.sha256(self.sock.getpeercert(binary_form=True) or b"").hexdigest()
            if seen not in pinned:
                raise ssl.SSLCertVerificationError(f"its SHA-256 is {seen}, which fingerprint does not name")

    class CheckedPool(HTTPSConnectionPool):
        ConnectionCls = CheckedConnection

    class CheckedAdapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            # no http here: nothing may leave without TLS
            self.poolmanager.pool_classes_by_scheme = {"https": CheckedPool}

    return CheckedAdapter()
