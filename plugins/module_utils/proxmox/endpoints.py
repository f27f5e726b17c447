# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The entry points of one cluster: where its API is, who asks, TLS, login, and fail-over between nodes.

proxmoxer brings the session and the token's header. Nothing of the environment (proxies, authorities, netrc) has a say.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Denied, InvalidInput, Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.answers import NO_ANSWER, Answer, LostAnswer
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.tls import checked_adapter, parse_fingerprint

try:
    import requests
    from proxmoxer.backends.https import ProxmoxHTTPApiTokenAuth, ProxmoxHttpSession
    from urllib3.exceptions import NewConnectionError
except ImportError:
    pass  # required_libraries() in module.py reports it before any use

# seconds; the server's own proxy gives up on a request after 30
MIN_TIMEOUT = 35
CONNECT_TIMEOUT = 10
# seconds after which a write gets a new connection: the server closes idle ones after 5 (pve-http-server), and a write
# that meets the closing would leave it open whether it was carried out
IDLE = 2.0
# seconds; a ticket is valid for two hours
RENEW_TICKET = 3600
# what an HTTP header may hold (RFC 9110 section 5.5), less the space: tokens have none
TOKEN = re.compile(r"[\x21-\x7e]+\Z")
HOST = re.compile(r"(?:[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?)\Z")


@dataclass(frozen=True)
class Endpoint:
    """The API of one node."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoints(text: str, port: int) -> tuple[Endpoint, ...]:
    """The entry points of ``host[:port],host2[:port]``; a URL is taken too, as other tools write it.

    :raises InvalidInput: one of them is no host.
    """
    found = [_endpoint(part.strip(), port) for part in text.split(",") if part.strip()]
    if not found:
        raise InvalidInput("no node is given", where="api_host", hint="Name at least one node of the cluster")
    return tuple(dict.fromkeys(found))


def _endpoint(text: str, port: int) -> Endpoint:
    bare = re.sub(r"^https://|/(api2/json/?)?$", "", text)
    match = re.match(r"\[([^\]]+)\](?::(\d+))?\Z", bare) or re.match(r"([^:]+)(?::(\d+))?\Z", bare)
    host, given = match.groups() if match else (bare, None)
    number = int(given or port)
    if not HOST.match(host) or not 0 < number < 65536:
        raise InvalidInput(
            f"{text!r} is no address of an API", where="api_host", hint="Write host, host:port or [IPv6 address]:port"
        )
    return Endpoint(host, number)


@dataclass(frozen=True)
class Connection:
    """Where the API is and who asks.

    :param host: ``host[:port]`` of one or more nodes, separated by commas.
    :param user: user with realm, such as ``fediversity@pve``.
    :param port: of hosts that name none.
    :param token_secret: secret of the API token ``token_id``; preferred to ``password`` if both are given.
    :param ca_path: file or directory of the authorities to trust instead of the system's.
    :param fingerprints: SHA-256 of the nodes' certificates, in hex with or without colons. They are then checked in
        place of the authorities, or beside them if ``ca_path`` is given.
    :param timeout: seconds to wait for an answer, at least MIN_TIMEOUT.
    :param lock_timeout: seconds for which requests are tried again while a task locks their VM.
    """

    host: str
    user: str
    port: int = 8006
    token_id: str | None = None
    token_secret: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    validate_certs: bool = True
    ca_path: str | None = None
    fingerprints: tuple[str, ...] = ()
    timeout: int = 40
    lock_timeout: float = 60

    @property
    def identity(self) -> str:
        """The user, or ``user!token``, as Proxmox writes it."""
        return f"{self.user}!{self.token_id}" if self.token_secret else self.user

    @property
    def verify(self) -> str | bool:
        """What requests shall check; an authority is always named, because True would let the environment choose."""
        if self.ca_path and self.validate_certs:
            return self.ca_path
        if self.fingerprints or not self.validate_certs:
            return False
        return str(requests.utils.DEFAULT_CA_BUNDLE_PATH)

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
        if not self.token_secret and not self.password:
            raise InvalidInput(
                "it is empty",
                where="api_token_secret" if self.token_id else "api_password",
                hint="Give the secret of an API token, or a password",
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
        parse_endpoints(self.host, self.port)
        for text in self.fingerprints:
            parse_fingerprint(text)


class Ticket:
    """Login by password, in the form in which proxmoxer's session asks for it."""

    def __init__(self, verify_ssl: str | bool, timeout: tuple[int, int]) -> None:
        self.verify_ssl, self.timeout = verify_ssl, timeout
        self.ticket, self.csrf, self.born = "", "", 0.0

    def get_cookies(self) -> dict[str, str]:
        return {"PVEAuthCookie": self.ticket} if self.ticket else {}

    def __call__(self, request: Any) -> Any:
        if self.csrf and request.method != "GET":
            request.headers["CSRFPreventionToken"] = self.csrf
        return request


class FailOver:
    """Sends requests to one entry point and stays there until it fails. For one thread."""

    def __init__(self, connection: Connection) -> None:
        self.endpoints = parse_endpoints(connection.host, connection.port)
        self._connection = connection
        self._current = 0
        self._sessions: dict[Endpoint, Any] = {}
        self._used: dict[Endpoint, float] = {}
        timeout = (CONNECT_TIMEOUT, connection.timeout)
        self._ticket = None if connection.token_secret else Ticket(connection.verify, timeout)
        self._auth = self._ticket or ProxmoxHTTPApiTokenAuth(
            connection.user,
            connection.token_id,
            connection.token_secret,
            verify_ssl=connection.verify,
            timeout=timeout,
        )

    @property
    def current(self) -> Endpoint:
        """Where the next request goes."""
        return self.endpoints[self._current]

    def log_in(self) -> None:
        """Get a ticket for the password; nothing with a token.

        :raises Denied: the server refuses.
        """
        if self._ticket is None:
            return
        connection = self._connection
        self._ticket.ticket = self._ticket.csrf = ""
        # it changes nothing, so it may go to every node like a GET
        login = {"username": connection.user, "password": connection.password or ""}
        answer = self._anywhere("POST", "/access/ticket", login, repeatable=True)
        data = answer.data if isinstance(answer.data, dict) else {}
        if answer.status in NO_ANSWER:
            raise Unreachable(
                f"no answer to the login ({answer.status} {answer.reason})",
                where=str(self.current),
                hint="Check that the nodes are up",
            )
        if answer.status >= 400 or not data.get("ticket") or data.get("NeedTFA"):
            second = ", or needs a second factor: use an API token" if data.get("NeedTFA") else ""
            raise Denied(
                f"the server refuses the login of {connection.user}{second}",
                where=str(self.current),
                hint="Check api_user (with its realm) and api_password, or use an API token",
            )
        self._ticket.ticket, self._ticket.csrf = data["ticket"], data["CSRFPreventionToken"]
        self._ticket.born = time.monotonic()

    def send(self, method: str, path: str, params: Mapping[str, str]) -> Answer:
        """One request.

        A GET without answer is asked at the next node; anything else goes there only if it surely was not sent.

        :raises Unreachable: no node can be reached; nothing was sent.
        :raises LostAnswer: sent perhaps, no answer.
        """
        if self._ticket is not None and time.monotonic() - self._ticket.born > RENEW_TICKET:
            self.log_in()
        return self._anywhere(method, path, params, repeatable=method == "GET")

    def upload(self, endpoint: Endpoint, path: str, body: Any, content_type: str) -> Answer:
        """POST *body* (file-like, of known length) to just this node, without holding it in memory."""
        session = self._session(endpoint)
        session.close()
        return _translated(
            # not proxmoxer's request, which reads its data as a mapping
            lambda: requests.Session.request(
                session,
                "POST",
                f"https://{endpoint}/api2/json{path}",
                data=body,
                headers={"Content-Type": content_type},
                cookies=self._auth.get_cookies(),
                timeout=self._auth.timeout,
                verify=self._auth.verify_ssl,
                allow_redirects=False,
            ),
            f"{endpoint} POST {path}",
        )

    def _anywhere(self, method: str, path: str, params: Mapping[str, str], *, repeatable: bool) -> Answer:
        """The answer of the first node that gives one, else the last failure."""
        last: Answer | None = None
        failure: Unreachable | LostAnswer | None = None
        for _endpoint in self.endpoints:
            try:
                last, failure = self._one(self.current, method, path, params), None
                if not repeatable or last.status not in NO_ANSWER:
                    return last
            except Unreachable as error:
                failure = error
            except LostAnswer as error:
                if not repeatable:
                    raise
                failure = error
            self._current = (self._current + 1) % len(self.endpoints)
        if failure is not None:
            raise failure
        if last is None:
            raise Unreachable("no node is given", where="api_host")
        return last

    def _one(self, endpoint: Endpoint, method: str, path: str, params: Mapping[str, str]) -> Answer:
        session = self._session(endpoint)
        if method != "GET" and time.monotonic() - self._used.get(endpoint, 0.0) > IDLE:
            session.close()
        query, form = (params, None) if method in ("GET", "DELETE") else (None, dict(params))
        url = f"https://{endpoint}/api2/json{path}"
        try:
            return _translated(
                lambda: session.request(
                    method,
                    url,
                    params=query,
                    data=form,
                    timeout=self._auth.timeout,
                    verify=self._auth.verify_ssl,
                    allow_redirects=False,
                ),
                f"{endpoint} {method} {path}",
            )
        finally:
            self._used[endpoint] = time.monotonic()

    def _session(self, endpoint: Endpoint) -> Any:
        if endpoint not in self._sessions:
            session = ProxmoxHttpSession()
            session.auth = self._auth
            session.trust_env = False
            session.headers["Accept"] = "application/json"
            session.mount("https://", checked_adapter(self._connection.fingerprints))
            self._sessions[endpoint] = session
        return self._sessions[endpoint]


def _translated(call: Callable[[], Any], where: str) -> Answer:
    """The answer that *call* gets, with the errors of requests as ours."""
    try:
        return _answer(call(), where)
    except (requests.exceptions.ConnectTimeout, requests.exceptions.InvalidURL) as error:
        raise _unreachable(error, where) from error
    except requests.exceptions.ConnectionError as error:
        if isinstance(_reason(error), NewConnectionError):
            raise _unreachable(error, where) from error
        raise LostAnswer(f"the connection broke ({_cause(error)})", where=where, hint="Run again") from error
    except requests.exceptions.RequestException as error:
        raise LostAnswer(f"no answer ({_cause(error)})", where=where, hint="Run again") from error


def _answer(response: Any, where: str) -> Answer:
    """:raises Unreachable: whoever answers is no Proxmox VE API."""
    status, kind = response.status_code, response.headers.get("Content-Type", "")
    if status in NO_ANSWER:
        return Answer(status, response.reason or "")
    if 300 <= status < 400:
        raise _foreign(f"the answer is a redirection to {response.headers.get('Location', 'nowhere')}", where)
    if status >= 500 and "html" in kind:
        # a gateway's own page; what is behind it may have done its work
        raise LostAnswer(f"no answer from the API ({status} {response.reason})", where=where, hint="Run again")
    if status == 404 or "html" in kind:
        raise _foreign(f"the answer is {status} {response.reason} ({kind or 'empty'})", where)
    try:
        body = response.json()
    except ValueError:
        if status < 400 and "json" in kind:
            raise LostAnswer("the answer is cut", where=where, hint="Run again") from None
        if status < 400:
            raise _foreign(f"the answer is no JSON ({kind or 'empty'})", where) from None
        body = {}
    if not isinstance(body, dict) or (status < 400 and "data" not in body):
        raise _foreign("the answer is JSON of another kind", where)
    errors = body.get("errors")
    texts = {name: text for name, text in errors.items() if isinstance(text, str)} if isinstance(errors, dict) else {}
    return Answer(status, response.reason or "", body.get("data"), texts)


def _foreign(what: str, where: str) -> Unreachable:
    return Unreachable(
        f"no Proxmox VE API: {what}",
        where=where,
        hint="Name a node itself in api_host; the port of its API is 8006",
    )


def _unreachable(error: Exception, where: str) -> Unreachable:
    cause = getattr(_reason(error), "__cause__", None)
    if any(isinstance(item, ssl.SSLCertVerificationError) for item in _chain(cause)):
        return Unreachable(
            f"the TLS certificate is not accepted ({_cause(error)})",
            where=where,
            hint="Name the cluster's authority in ca_path and use a host name that the certificate holds, or give the"
            " certificate's SHA-256 as fingerprint",
        )
    return Unreachable(
        f"cannot connect ({_cause(error)})",
        where=where,
        hint="Check api_host and api_port, and that the Proxmox VE API can be reached from here",
    )


def _chain(error: BaseException | None) -> Iterable[object]:
    """The error, what it wraps, and the errors behind it."""
    while error is not None:
        yield error
        yield from error.args
        error = error.__cause__ or error.__context__


def _reason(error: Exception) -> object:
    """What urllib3 gave as reason, the innermost cause that it names."""
    inner = error.args[0] if error.args else error
    return getattr(inner, "reason", inner)


def _cause(error: Exception) -> str:
    """One line without the memory addresses that urllib3 puts in front."""
    return re.sub(r"^.*object at 0x[0-9a-f]+>: |^.*Connection\(.*?\): ", "", str(_reason(error)))
