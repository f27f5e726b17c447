# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Garage's admin API v2: one function per HTTP method, typed errors, and nothing that knows buckets or keys.

Source of the codes and of what each means: the OpenAPI document v2.3.0 and ``src/api/admin`` of Garage.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlencode, urlsplit

from ansible.module_utils.basic import env_fallback
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    Exists,
    HostingError,
    InvalidInput,
    NotFound,
    Unreachable,
)

try:
    import requests
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

# require_libraries() takes these
ADMIN_LIBRARIES = ("requests",)
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
# seconds after which a request gets a new connection: proxies close idle ones, and a write that meets the closing would
# leave open whether it was carried out
IDLE = 2.0
# seconds before each further try of a request that was answered 503 (no quorum, or a proxy without backend)
RETRY_DELAYS = (0.5, 1.0, 2.0)
# a second try of these could make a second object, or refuse what the first one made
NOT_REPEATED = ("CreateBucket", "CreateKey", "ImportKey", "CreateAdminToken")
# what an HTTP header may hold (RFC 9110 section 5.5), less the space: tokens have none
TOKEN = re.compile(r"[\x21-\x7e]+\Z")
# a name or an IP address
HOST = re.compile(r"[A-Za-z0-9._:-]+\Z")

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
        "They came after the plan: run again. A bucket with objects is never deleted",
    ),
    "KeyAlreadyExists": (
        Exists,
        "the access key id exists, or existed and was deleted; Garage never takes it again",
        "Use a new access key id and secret, and give them to the application",
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
    check_url(admin_url, "admin_url", "the URL of the admin API")
    # http.client would put an illegal value into its error message
    if not TOKEN.match(admin_token):
        raise InvalidInput(
            "the admin token is empty or holds a space, a line end or another character that no token has",
            where="admin_token",
            hint="Look at where it comes from; a file's final line end is the usual reason",
        )
    base = admin_url.rstrip("/")
    session = requests.Session()
    # ~/.netrc would replace the token, and a proxy of the environment would see it
    session.trust_env = False
    session.headers.update({"Authorization": f"Bearer {admin_token}", "Content-Type": "application/json"})
    verify = (ca_path or _system_authorities()) if validate_certs else False
    used = time.monotonic()

    def once(method: str, path: str, body: bytes | None) -> Answer:
        nonlocal used
        if time.monotonic() - used > IDLE:
            session.close()
        try:
            # a redirect would carry the token elsewhere
            reply = session.request(
                method, base + path, data=body, timeout=timeout, verify=verify, allow_redirects=False
            )
        finally:
            used = time.monotonic()
        return Answer(reply.status_code, reply.content)

    def send(method: str, path: str, body: bytes | None) -> Answer:
        try:
            try:
                return once(method, path, body)
            except requests.ConnectionError as error:
                # the kept connection may have been closed at this very moment; only reading can be done twice
                if method != "GET" or isinstance(error, requests.Timeout):
                    raise
                return once(method, path, body)
        except (OSError, ValueError) as error:
            raise Unreachable(
                f"no answer from Garage: {_cause(error)}",
                where=base,
                hint="Check admin_url (GARAGE_ADMIN_URL), that Garage runs there, and the certificate settings",
            ) from error

    return send


def check_url(url: str, option: str, what: str) -> None:
    """:raises InvalidInput: *url* is not scheme, host and port, and perhaps a path."""
    try:
        parts = urlsplit(url)
        correct = parts.scheme in ("http", "https") and bool(HOST.match(parts.hostname or "")) and parts.port != 0
    except ValueError:
        correct = False
    if not correct or parts.query or parts.fragment or "@" in parts.netloc:
        raise InvalidInput(f"{what} is not of the form http://HOST:PORT", where=option, hint="Correct it")


def _system_authorities() -> str | bool:
    """The system's file or directory of authorities; requests would take a list of its own."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath or True


def _cause(error: Exception) -> str:
    """One line without the memory addresses that urllib3 puts in front."""
    inner = error.args[0] if error.args else error
    return re.sub(r"^.*object at 0x[0-9a-f]+>: |^.*Connection\(.*?\): ", "", str(getattr(inner, "reason", inner)))


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
