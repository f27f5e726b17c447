# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox VE API client: proxmoxer as transport, typed errors and the fixed list of retries on top.

The server says what is wrong as text in the HTTP reason phrase, rarely by status code; the texts are those of
Proxmox VE 9.2 (qemu-server, pve-storage, pve-http-server). All paths are below ``/api2/json``.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    Exists,
    HostingError,
    InvalidInput,
    Locked,
    NotFound,
    Unreachable,
)

try:
    import proxmoxer
    import requests
    from urllib3.exceptions import NewConnectionError
except ImportError:
    pass  # required_libraries() in module.py reports it before any use

# seconds; the server's own proxy gives up on a request after 30
MIN_TIMEOUT = 35
# what an HTTP header may hold (RFC 9110 section 5.5), less the space: tokens have none
TOKEN = re.compile(r"[\x21-\x7e]+\Z")
CONNECT_TIMEOUT = 10
# seconds before each further try of a request that the server refused for a moment
RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0)

Value: TypeAlias = "str | int | bool | None"


class Invalid(InvalidInput):
    """The server refuses parameters; ``parameters`` has its text for each of them."""

    def __init__(self, what: str, *, parameters: Mapping[str, str], where: str = "") -> None:
        super().__init__(what, where=where, hint="Correct these values in the desired state")
        self.parameters = dict(parameters)


class Transient(HostingError):
    """Refused for a moment; the server did nothing."""


class LostAnswer(Transient):
    """The request may or may not have been carried out: look before sending it again."""


class Outdated(Transient):
    """Somebody else changed the object since it was read: read it again."""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: status, reason phrase, ``data`` of the body, and the text for each refused parameter."""

    status: int
    reason: str
    data: Any = None
    errors: Mapping[str, str] = field(default_factory=dict)


Transport = Callable[[str, str, Mapping[str, str]], Answer]
"""(method, path, parameters) to answer; raises Unreachable (not sent) or LostAnswer (no answer)."""


@dataclass(frozen=True)
class Connection:
    """Where the API is and who asks.

    :param user: user with realm, such as ``fediversity@pve``.
    :param token_secret: secret of the API token ``token_id``; preferred to ``password`` if both are given.
    :param ca_path: file or directory of the authorities to trust instead of the system's.
    :param timeout: seconds to wait for an answer, at least MIN_TIMEOUT.
    """

    host: str
    user: str
    port: int = 8006
    token_id: str | None = None
    token_secret: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    validate_certs: bool = True
    ca_path: str | None = None
    timeout: int = 40

    @property
    def identity(self) -> str:
        """The user, or ``user!token``, as Proxmox writes it."""
        return f"{self.user}!{self.token_id}" if self.token_secret else self.user

    def check(self) -> None:
        """:raises InvalidInput: an option cannot work."""
        if "@" not in self.user or "!" in self.user:
            raise InvalidInput(
                f"{self.user!r} is no user with realm",
                where="api_user",
                hint="Write user@realm, such as fediversity@pve, and the token's name in api_token_id",
            )
        if self.token_id and "!" in self.token_id:
            raise InvalidInput(
                f"{self.token_id!r} is no token name", where="api_token_id", hint="Write only the part after the !"
            )
        if self.token_secret and not TOKEN.match(self.token_secret):
            # requests would quote it in its error, escaped, so that no_log does not find it
            raise InvalidInput(
                "the secret holds a space, a line end or another character that no token has",
                where="api_token_secret",
                hint="Copy it again, without a final line end",
            )
        if self.timeout < MIN_TIMEOUT:
            raise InvalidInput(
                f"{self.timeout} s is too short: the server itself waits up to 30 s",
                where="api_timeout",
                hint=f"Use at least {MIN_TIMEOUT}",
            )
        if self.ca_path and not os.path.exists(self.ca_path):
            raise InvalidInput(f"{self.ca_path} does not exist", where="ca_path", hint="Name a PEM file or directory")


# (text, class, hint): the first match decides; "can't lock file" at create means that another create holds the id
ERROR_TEXTS: tuple[tuple[re.Pattern[str], type[HostingError], str], ...] = tuple(
    (re.compile(pattern), error, hint)
    for pattern, error, hint in (
        (r"unable to create VM \d+ - can't lock file|already exists|: File exists", Exists, ""),
        (
            r"lock.* - got timeout|got lock request timeout|got no worker upid",
            Transient,
            "Run again when the cluster is less busy",
        ),
        (r"checksum mismatch|detected modified configuration", Outdated, "Run again"),
        (r"VM is locked|CT is locked", Locked, "Run again when the task that holds the lock has ended"),
        (r"does not exist|no such |unable to find configuration file|no such task", NotFound, ""),
        (
            r"no quorum|/etc/pve/.*Permission denied",
            BackendError,
            "The cluster has no quorum and takes no changes: bring its nodes back",
        ),
        (r"protection mode enabled", Denied, "Remove the protection of the virtual machine first"),
        (r"hostname lookup '.*' failed", NotFound, "Name a node of this cluster"),
        (r"only root can|Only root (can|may)", Denied, ""),
    )
)


def error_of_text(text: str, where: str = "") -> HostingError:
    """The typed error for a reason phrase or for the exit status of a task."""
    text = text.strip()
    for pattern, error, hint in ERROR_TEXTS:
        if pattern.search(text):
            return error(text, where=where, hint=hint)
    return BackendError(text or "the server gives no reason", where=where)


def error_of_answer(answer: Answer, method: str, where: str, identity: str) -> HostingError:
    """The typed error for an answer with status 400 or above."""
    if answer.status == 401:
        return Denied(
            f"the server refuses {identity} ({answer.reason})",
            where=where,
            hint="Check api_user, api_token_id, api_token_secret or api_password, and that the token has not expired",
        )
    if answer.status == 403:
        return Denied(f"{identity}: {answer.reason}", where=where, hint="Give the user and its token this privilege")
    if answer.status in (595, 596, 599):
        what = f"no answer from the node or daemon behind the API ({answer.status} {answer.reason})"
        return LostAnswer(what, where=where, hint="Check that all nodes of the cluster are up, then run again")
    if "no such task" in answer.errors.values():
        return NotFound("no such task", where=where)
    if answer.errors:
        texts = "; ".join(f"{name}: {' '.join(text.split())}" for name, text in sorted(answer.errors.items()))
        return Invalid(f"the server refuses {texts}", parameters=answer.errors, where=where)
    return error_of_text(answer.reason, where)


def encode(params: Mapping[str, Value]) -> dict[str, str]:
    """Parameters as the API takes them: booleans as 0 and 1, no None."""
    return {
        name: str(int(value)) if isinstance(value, bool) else str(value)
        for name, value in params.items()
        if value is not None
    }


@dataclass(frozen=True)
class Client:
    """Requests that answer with data or raise a typed error.

    :param host: named in errors.
    :param identity: user or token, named in errors.
    """

    transport: Transport
    host: str
    identity: str
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def get(self, path: str, /, **params: Value) -> Any:
        return self.request("GET", path, params)

    def post(self, path: str, /, **params: Value) -> Any:
        return self.request("POST", path, params)

    def put(self, path: str, /, **params: Value) -> Any:
        return self.request("PUT", path, params)

    def delete(self, path: str, /, **params: Value) -> Any:
        return self.request("DELETE", path, params)

    def request(self, method: str, path: str, params: Mapping[str, Value]) -> Any:
        """The ``data`` of the answer.

        Sent again after RETRY_DELAYS when the server did nothing (Transient), or for a GET without answer.

        :raises HostingError: the class tells what the caller can do about it.
        """
        for delay in RETRY_DELAYS:
            try:
                return self._once(method, path, params)
            except Outdated:
                raise
            except LostAnswer:
                if method != "GET":
                    raise
            except Transient:
                pass
            self.sleep(delay)
        return self._once(method, path, params)

    def _once(self, method: str, path: str, params: Mapping[str, Value]) -> Any:
        answer = self.transport(method, path, encode(params))
        if answer.status >= 400:
            raise error_of_answer(answer, method, f"{self.host} {method} {path}", self.identity)
        return answer.data


def connect(connection: Connection) -> Client:
    """A client for the server; nothing is sent yet with a token, one login with a password.

    :raises InvalidInput: an option cannot work.
    :raises Denied: the login is refused.
    :raises Unreachable: no server there, or its certificate is not trusted.
    """
    connection.check()
    # the authorities are named for each request: True would let REQUESTS_CA_BUNDLE choose others
    verify = (connection.ca_path or requests.utils.DEFAULT_CA_BUNDLE_PATH) if connection.validate_certs else False
    credentials = (
        {"token_name": connection.token_id, "token_value": connection.token_secret}
        if connection.token_secret
        else {"password": connection.password}
    )
    where = f"{connection.host}:{connection.port}"

    def login() -> Any:
        return proxmoxer.ProxmoxAPI(
            connection.host,
            port=connection.port,
            user=connection.user,
            verify_ssl=verify,
            timeout=(CONNECT_TIMEOUT, connection.timeout),
            **credentials,
        )

    try:
        api = translated(login, where)
    except proxmoxer.AuthenticationError as error:
        raise Denied(
            f"the server refuses the login of {connection.user}",
            where=where,
            hint="Check api_user (with its realm) and api_password, or use an API token",
        ) from error

    def transport(method: str, path: str, params: Mapping[str, str]) -> Answer:
        resource = api(path.lstrip("/"))
        send = {"GET": resource.get, "POST": resource.post, "PUT": resource.put, "DELETE": resource.delete}[method]
        try:
            return Answer(200, "OK", translated(lambda: send(**params), f"{where} {method} {path}"))
        except proxmoxer.ResourceException as error:
            errors = error.errors if isinstance(error.errors, dict) else {}
            texts = {name: text for name, text in errors.items() if isinstance(text, str)}
            return Answer(error.status_code, str(error.content or ""), errors=texts)

    return Client(transport, where, connection.identity)


def translated(call: Callable[[], Any], where: str) -> Any:
    """What *call* returns, with the errors of requests as ours."""
    try:
        return call()
    except requests.exceptions.SSLError as error:
        raise Unreachable(
            f"the TLS certificate is not accepted ({_cause(error)})",
            where=where,
            hint="Name the cluster's authority in ca_path and use a host name that the certificate holds",
        ) from error
    except (requests.exceptions.ConnectTimeout, requests.exceptions.InvalidURL) as error:
        raise _unreachable(error, where) from error
    except requests.exceptions.ConnectionError as error:
        if isinstance(_reason(error), NewConnectionError):
            raise _unreachable(error, where) from error
        raise LostAnswer(f"the connection broke ({_cause(error)})", where=where, hint="Run again") from error
    except requests.exceptions.RequestException as error:
        raise LostAnswer(f"no answer ({_cause(error)})", where=where, hint="Run again") from error


def _unreachable(error: Exception, where: str) -> Unreachable:
    return Unreachable(
        f"cannot connect ({_cause(error)})",
        where=where,
        hint="Check api_host and api_port, and that the Proxmox VE API can be reached from here",
    )


def _reason(error: Exception) -> object:
    """What urllib3 gave as reason, the innermost cause that it names."""
    inner = error.args[0] if error.args else error
    return getattr(inner, "reason", inner)


def _cause(error: Exception) -> str:
    """One line without the memory addresses that urllib3 puts in front."""
    return re.sub(r"^.*object at 0x[0-9a-f]+>: |^.*Connection\(.*\): ", "", str(_reason(error)))
