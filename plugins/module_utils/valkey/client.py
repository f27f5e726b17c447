# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One connection to one Valkey or Redis server and what its ACL holds; redis-py's errors end here."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible.module_utils.basic import env_fallback
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    HostingError,
    InvalidInput,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.model import ActualUser, parse
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.rules import Commands

Command: TypeAlias = "tuple[str, ...]"
Reply: TypeAlias = "Any | HostingError"

CONNECT_SECONDS = 10
ANSWER_SECONDS = 20
# channel permissions, without which tenants cannot be kept apart
OLDEST = (6, 2)
WITH_SELECTORS = (7, 0)

# matches doc_fragments/valkey.py
CONNECTION_ARGUMENTS: dict[str, dict[str, Any]] = {
    "login_host": {"type": "str", "default": "localhost", "fallback": (env_fallback, ["VALKEY_HOST"])},
    "login_port": {"type": "int", "default": 6379, "fallback": (env_fallback, ["VALKEY_PORT"])},
    "login_socket": {"type": "path", "fallback": (env_fallback, ["VALKEY_SOCKET"])},
    "login_user": {"type": "str", "fallback": (env_fallback, ["VALKEY_USER"])},
    "login_password": {"type": "str", "no_log": True, "fallback": (env_fallback, ["VALKEY_PASSWORD"])},
    "tls": {"type": "bool", "default": False, "fallback": (env_fallback, ["VALKEY_TLS"])},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path", "fallback": (env_fallback, ["VALKEY_CA_PATH"])},
    "client_cert": {"type": "path", "fallback": (env_fallback, ["VALKEY_CLIENT_CERT"])},
    "client_key": {"type": "path", "fallback": (env_fallback, ["VALKEY_CLIENT_KEY"])},
}


@dataclass(frozen=True)
class Server:
    """How to reach the server; *socket* is the path of its Unix-domain socket and comes before host and port."""

    host: str = "localhost"
    port: int = 6379
    socket: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    validate_certs: bool = True
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    def __str__(self) -> str:
        return f"Valkey {self.socket or f'{self.host}:{self.port}'}"

    def connect(self) -> redis.Redis:
        """A client; its first command makes the connection, which all others use too."""
        common: dict[str, Any] = {
            "username": self.user,
            "password": self.password,
            "protocol": 2,
            "decode_responses": True,
            # users of others may have any bytes in their names and patterns
            "encoding_errors": "surrogateescape",
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": ANSWER_SECONDS,
            # what was sent is never sent again behind our back
            "retry": Retry(NoBackoff(), 0),
        }
        if self.socket is not None:
            place: dict[str, Any] = {"unix_socket_path": self.socket}
        else:
            place = {"host": self.host, "port": self.port}
        if self.tls and self.socket is None:
            place |= {
                "ssl": True,
                "ssl_cert_reqs": "required" if self.validate_certs else "none",
                "ssl_check_hostname": self.validate_certs,
                "ssl_ca_certs": self.ca_path,
                "ssl_certfile": self.client_cert,
                "ssl_keyfile": self.client_key,
            }
        with translated(str(self)):
            client = redis.Redis(**place, **common)
        # replies as the server sends them
        client.response_callbacks.clear()
        return client


def server_of(params: Mapping[str, Any]) -> Server:
    """The module's connection options."""
    return Server(
        host=params["login_host"],
        port=params["login_port"],
        socket=params["login_socket"],
        user=params["login_user"],
        password=params["login_password"],
        tls=params["tls"],
        validate_certs=params["validate_certs"],
        ca_path=params["ca_path"],
        client_cert=params["client_cert"],
        client_key=params["client_key"],
    )


@dataclass(frozen=True)
class Facts:
    """What does not change while we are connected.

    :param login_user: the user that we are logged in as.
    :param acl_file: path of the ACL file, empty without one; ``None`` if the server does not tell.
    :param config_file: path of the configuration file, empty without one.
    :param role: ``master`` or ``slave``, as INFO names them.
    :param replicas: number of replicas that are connected.
    """

    login_user: str
    table: Commands
    acl_file: str | None
    config_file: str
    role: str
    replicas: int
    cluster: bool


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn redis-py's errors into ours."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise translate(error, where) from None


def translate(error: Exception, where: str) -> HostingError:
    """Our error for one of redis-py's, whose text may repeat the command with its hashes."""
    text = " ".join(re.sub(r"^Command # .* caused error: ", "", str(error), flags=re.DOTALL).split()).rstrip(".")
    if isinstance(error, redis.AuthenticationError) or text.startswith(("WRONGPASS", "NOAUTH")):
        return Denied(
            f"the server refuses the login: {text}",
            where=where,
            hint="Check login_user and login_password; the environment variables count too",
        )
    if isinstance(error, redis.exceptions.NoPermissionError) or text.startswith("NOPERM"):
        return Denied(text, where=where, hint="Log in as a user that may do this; docs/valkey.md has its rules")
    if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):
        return Unreachable(text, where=where, hint="Check login_host, login_port and tls, and that the server runs")
    return BackendError(re.sub(r"'[#>][^']*'", "(hidden)", text), where=where)


def ask(client: redis.Redis, where: str, commands: Sequence[Command], *, atomic: bool = False) -> list[Reply]:
    """The replies to *commands*, sent at once; an error of the server stands in the place of its reply.

    :param atomic: nobody else's command comes in between (MULTI and EXEC).
    :raises HostingError: no answer, or with *atomic* one of the commands is not permitted.
    """
    if not commands:
        return []
    with translated(where):
        # redis-py leaves this method without types
        pipeline: Any = client.pipeline(transaction=atomic)
        for command in commands:
            pipeline.execute_command(*command)
        replies = pipeline.execute(raise_on_error=False)
    return [translate(reply, where) if isinstance(reply, Exception) else reply for reply in replies]


def facts(client: redis.Redis, where: str) -> Facts:
    """Read the facts, by two round trips.

    :raises Denied: the login lacks a permission.
    :raises InvalidInput: the server is too old.
    """
    questions = ["INFO server", "INFO replication", "INFO cluster", "ACL WHOAMI", "ACL CAT", "CONFIG GET aclfile"]
    replies = ask(client, where, [tuple(question.split()) for question in questions])
    settings = replies.pop()
    server, replication, cluster, login_user, categories = (needed(reply) for reply in replies)
    about = {**_fields(server), **_fields(replication), **_fields(cluster)}
    version = tuple(int(part) for part in about["redis_version"].split(".")[:2])
    if version < OLDEST:
        raise InvalidInput(
            f"the server is Redis {about['redis_version']}, which has no permissions for channels",
            where=where,
            hint="Use Redis 6.2 or newer, or Valkey",
        )
    members = ask(client, where, [("ACL", "CAT", category) for category in categories])
    named = dict(zip(categories, (frozenset(map(str.lower, needed(reply))) for reply in members), strict=True))
    return Facts(
        login_user=login_user,
        table=Commands(named, selectors=version >= WITH_SELECTORS),
        # the name of the setting and its value
        acl_file=None if isinstance(settings, HostingError) else settings[1],
        config_file=about.get("config_file", ""),
        role=about["role"],
        replicas=int(about.get("connected_slaves", 0)),
        cluster=about.get("cluster_enabled") == "1",
    )


def needed(reply: Reply) -> Any:
    """The reply, or its error raised."""
    if isinstance(reply, HostingError):
        raise reply
    return reply


def _fields(info: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in info.splitlines() if not line.startswith("#"))
    return {name: value.strip() for name, _colon, value in pairs}


def users(client: redis.Redis, where: str) -> dict[str, ActualUser]:
    """All users of the server by name."""
    return _listed(needed(ask(client, where, [("ACL", "LIST")])[0]))


def users_and_probes(
    client: redis.Redis, where: str, rules: Sequence[Sequence[str]]
) -> tuple[dict[str, ActualUser], list[ActualUser | HostingError]]:
    """All users, and for each of *rules* the user that the server makes of them.

    The probes are made, listed and deleted in one transaction: nobody ever sees them, they cannot log in, and no
    accident leaves one behind.
    """
    stem = f"fediversity-probe-{secrets.token_hex(8)}"
    names = [f"{stem}-{number}" for number in range(len(rules))]
    making = [("ACL", "SETUSER", name, "reset", *words) for name, words in zip(names, rules, strict=True)]
    deleting = [("ACL", "DELUSER", *names)] if names else []
    replies = ask(client, where, [*making, ("ACL", "LIST"), *deleting], atomic=True)
    listed = _listed(needed(replies[len(names)]))
    probes = [
        reply if isinstance(reply, HostingError) else listed[name] for name, reply in zip(names, replies, strict=False)
    ]
    return {name: user for name, user in listed.items() if name not in set(names)}, probes


def users_and_states(
    client: redis.Redis, where: str, names: Sequence[str]
) -> tuple[dict[str, ActualUser], list[Reply]]:
    """All users, and at the same moment the state of each of *names* as ACL GETUSER tells it (it holds the hashes)."""
    states = [("ACL", "GETUSER", name) for name in names]
    replies = ask(client, where, [("ACL", "LIST"), *states], atomic=True)
    return _listed(needed(replies[0])), replies[1:]


def swap(client: redis.Redis, where: str, changes: Sequence[tuple[str, Command]]) -> list[tuple[Reply, Reply]]:
    """For every name and the command that changes this user: its state right before, and the reply.

    Each is a transaction of its own, so that nothing comes in between; all are sent at once.
    """
    commands: list[Command] = []
    for name, command in changes:
        commands += [("MULTI",), ("ACL", "GETUSER", name), command, ("EXEC",)]
    replies = ask(client, where, commands)
    done = []
    for queued, executed in zip(replies[2::4], replies[3::4], strict=True):
        if isinstance(executed, HostingError):
            # the reply to the command says why the transaction was not begun
            error = queued if isinstance(queued, HostingError) else executed
            done.append((error, error))
        else:
            before, reply = executed
            done.append((before, translate(reply, where) if isinstance(reply, Exception) else reply))
    return done


def _listed(lines: Sequence[str]) -> dict[str, ActualUser]:
    return {user.name: user for user in map(parse, lines)}
