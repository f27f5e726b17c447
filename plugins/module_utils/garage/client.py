# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Garage's admin API v2: one function per HTTP method, typed errors, and nothing that knows buckets or keys.

Source of the codes and of what each means: the OpenAPI document v2.3.0 and ``src/api/admin`` of Garage.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit

from ansible.module_utils.basic import env_fallback
from ansible.module_utils.urls import ConnectionError as UrlsConnectionError
from ansible.module_utils.urls import Request
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    Exists,
    HostingError,
    InvalidInput,
    NotFound,
    Unreachable,
)

# matches doc_fragments/garage.py
GARAGE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "admin_url": {"type": "str", "required": True, "fallback": (env_fallback, ["GARAGE_ADMIN_URL"])},
    "admin_token": {
        "type": "str",
        "required": True,
        "no_log": True,
        "fallback": (env_fallback, ["GARAGE_ADMIN_TOKEN"]),
    },
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "timeout": {"type": "int", "default": 30},
}

UNAVAILABLE = 503
# seconds before each further try of a request that was answered 503 (no quorum, or a proxy without backend)
RETRY_DELAYS = (0.5, 1.0, 2.0)
# a second try of these could make a second object, or refuse what the first one made
NOT_REPEATED = ("CreateBucket", "ImportKey")
# what an HTTP header may hold (RFC 9110 section 5.5), less the space: tokens have none
TOKEN = re.compile(r"[\x21-\x7e]+\Z")

# error class, text (empty: the server's own) and hint
BY_STATUS: dict[int, tuple[type[HostingError], str, str]] = {
    403: (
        Denied,
        "Garage refuses the admin token",
        "Check admin_token (GARAGE_ADMIN_TOKEN): it is wrong or expired, or its scope lacks {endpoint}",
    ),
    404: (NotFound, "", "Run again; somebody else may have deleted it"),
    409: (Exists, "", "Somebody else has just made it: run again"),
    UNAVAILABLE: (Unreachable, "", "Garage has no quorum or is starting: look at 'garage status'"),
}
BY_CODE: dict[str, tuple[type[HostingError], str, str]] = {
    "BucketNotEmpty": (
        BackendError,
        "the bucket holds objects",
        "Empty it first; a bucket with objects is never deleted",
    ),
    "KeyAlreadyExists": (
        Exists,
        "the access key id exists, or existed and was deleted; Garage never takes it again",
        "Use a new access key id and secret",
    ),
}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer of any status."""

    status: int
    body: bytes


# (method, path with query, JSON body or None) -> answer; raises Unreachable
Send: TypeAlias = "Callable[[str, str, bytes | None], Answer]"


def http_sender(
    admin_url: str, admin_token: str, *, validate_certs: bool = True, ca_path: str | None = None, timeout: int = 30
) -> Send:
    """A sender over HTTP(S) to one Garage node.

    :param admin_url: scheme, host and port of the admin API, such as ``http://127.0.0.1:3903``.
    :param timeout: seconds without an answer before a request is given up.
    :raises InvalidInput: the URL or the token cannot be one.
    """
    parts = urlsplit(admin_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise InvalidInput(
            "the URL of the admin API is not of the form http://HOST:PORT", where="admin_url", hint="Correct it"
        )
    # http.client would put an illegal value into its error message
    if not TOKEN.match(admin_token):
        raise InvalidInput(
            "the admin token is empty or holds a space, a line end or another character that no token has",
            where="admin_token",
            hint="Look at where it comes from; a file's final line end is the usual reason",
        )
    base = admin_url.rstrip("/")
    request = Request(
        headers={"Authorization": f"Bearer {admin_token}", "Content-Type": "application/json"},
        validate_certs=validate_certs,
        ca_path=ca_path,
        timeout=timeout,
        # ~/.netrc would replace the token; a redirect would carry it elsewhere
        use_netrc=False,
        follow_redirects="none",
    )

    def send(method: str, path: str, body: bytes | None) -> Answer:
        try:
            with request.open(method, base + path, data=body) as reply:
                return Answer(reply.status, reply.read())
        except HTTPError as error:
            with error:
                return Answer(error.code, error.read())
        except (OSError, UrlsConnectionError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(
                f"no answer from Garage: {getattr(error, 'reason', None) or error}",
                where=base,
                hint="Check admin_url (GARAGE_ADMIN_URL), that Garage runs there, and the certificate settings",
            ) from error

    return send


class Client:
    """Calls of admin API endpoints by name."""

    def __init__(self, send: Send, *, where: str = "Garage", sleep: Callable[[float], None] = time.sleep) -> None:
        """:param where: the node's URL, for messages."""
        self._send = send
        self._where = where
        self._sleep = sleep

    def get(self, endpoint: str, **query: str) -> Any:
        """The JSON value that *endpoint* answers.

        :raises HostingError: :func:`error_of` tells which.
        """
        return self._call("GET", endpoint, query, None)

    def post(self, endpoint: str, body: Mapping[str, Any] | None = None, **query: str) -> Any:
        """As :meth:`get`, with a JSON body."""
        return self._call("POST", endpoint, query, None if body is None else json.dumps(body).encode())

    def _call(self, method: str, endpoint: str, query: Mapping[str, str], body: bytes | None) -> Any:
        path = f"/v2/{endpoint}" + (f"?{urlencode(query)}" if query else "")
        answer = self._send(method, path, body)
        for delay in () if endpoint in NOT_REPEATED else RETRY_DELAYS:
            if answer.status != UNAVAILABLE:
                break
            self._sleep(delay)
            answer = self._send(method, path, body)
        where = f"{self._where}/v2/{endpoint}"
        if answer.status != 200:
            raise error_of(endpoint, answer, where)
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise BackendError(
                "the answer is no JSON", where=where, hint="Check that admin_url is Garage's admin API (port 3903)"
            ) from error


def error_of(endpoint: str, answer: Answer, where: str) -> HostingError:
    """The error that an answer other than 200 stands for.

    :returns: Denied (403), NotFound (404), Exists (409 for names and ids), Unreachable (503), BackendError (the rest).
    """
    code, message = _code_and_message(answer.body)
    text = f"{message or 'no message'} (HTTP {answer.status}{f' {code}' if code else ''})"
    if code in BY_CODE:
        kind, what, hint = BY_CODE[code]
    else:
        kind, what, hint = BY_STATUS.get(answer.status, (BackendError, "", "Look at Garage's log"))
    if answer.status == 400 and "Unknown API endpoint" in message:
        hint = "Garage 2.0 or newer is needed at admin_url"
    return kind(what or text, where=where, hint=hint.format(endpoint=endpoint))


def _code_and_message(body: bytes) -> tuple[str, str]:
    try:
        error = json.loads(body)
    except ValueError:
        return "", ""
    if not isinstance(error, dict):
        return "", ""
    return str(error.get("code", "")), str(error.get("message", ""))
