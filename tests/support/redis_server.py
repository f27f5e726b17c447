# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A private Valkey or Redis server for tests: real, on loopback, gone afterwards.

The environment variable VALKEY_SERVER_BINARY names the program of another version than the installed one.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

START_SECONDS = 30
STOP_SECONDS = 30
# Debian's packages make these accounts
ACCOUNTS = ("valkey", "redis", "nobody")


@dataclass
class RedisServer:
    """A server that can be stopped and started again; ``admin`` is a user that may do everything.

    ``directory`` is the server's own; it holds ``users.acl``, ``server.conf`` and ``server.log``.
    """

    directory: Path
    port: int
    command: Sequence[str]
    password: str = field(repr=False)
    host: str = "127.0.0.1"
    user: str = "admin"
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self.directory / "server.log").read_text(encoding="utf-8", errors="replace")

    @property
    def acl_file(self) -> Path:
        """Where the server keeps its users, if it was started so."""
        return self.directory / "users.acl"

    def client(self, user: str | None = None, password: str | None = None) -> redis.Redis:
        """A new connection, as the administrator unless *user* is given."""
        return redis.Redis(
            host=self.host,
            port=self.port,
            username=user or self.user,
            password=self.password if user is None else password,
            decode_responses=True,
            protocol=2,
            socket_timeout=30,
            retry=Retry(NoBackoff(), 0),
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.directory / "server.log").open("ab") as output:
            self.process = subprocess.Popen(
                self.command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((self.host, self.port)) == 0:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{self.log}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            self.process = None

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()


@contextmanager
def redis_server(*settings: str, acl_file: bool = True, config_file: bool = True) -> Iterator[RedisServer]:
    """Runs a server while the block runs; *settings* are lines of its configuration.

    The administrator stands in the ACL file, or else in the configuration file, or is made by a command.
    The server also stops when the test process is killed.
    """
    binary, owner = _binary(), _owner()
    port = _free_port()
    password = secrets.token_hex(16)
    admin = f"user admin on >{password} ~* &* +@all"
    closed = "user default off"
    directory = Path(tempfile.mkdtemp(prefix="fediversity-valkey-"))
    try:
        lines = [
            "bind 127.0.0.1",
            f"port {port}",
            f"dir {directory}",
            f"unixsocket {directory}/socket",
            "save ''",
            *settings,
        ]
        if acl_file:
            (directory / "users.acl").write_text(f"{admin}\n{closed}\n", encoding="utf-8")
            lines.append(f"aclfile {directory}/users.acl")
        elif config_file:
            lines += [admin, closed]
        arguments = [f"{directory}/server.conf"]
        if config_file:
            (directory / "server.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            arguments = [word for line in lines for word in _as_arguments(line)]
        if owner is not None:
            for path in (directory, *directory.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        server = RedisServer(directory, port, [*_as_user(owner), binary, *arguments], password)
        try:
            server.start()
            if not acl_file and not config_file:
                _make_admin(server, admin)
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory)


def _make_admin(server: RedisServer, admin: str) -> None:
    with redis.Redis(host=server.host, port=server.port) as client:
        client.execute_command("ACL", "SETUSER", *admin.split()[1:])
        client.execute_command("ACL", "SETUSER", "default", "off")


def _as_arguments(line: str) -> list[str]:
    name, *values = line.split()
    return [f"--{name}", *("" if value == "''" else value for value in values)]


def _binary() -> str:
    names = [os.environ.get("VALKEY_SERVER_BINARY", ""), "valkey-server", "redis-server"]
    found = [path for path in map(shutil.which, filter(None, names)) if path is not None]
    if not found:
        raise RuntimeError("redis-server was not found: install the Debian package 'redis-server'")
    return found[0]


def _owner() -> pwd.struct_passwd | None:
    """The account to change to: root may write everywhere, a server may not."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in ACCOUNTS if name in known)


def _as_user(owner: pwd.struct_passwd | None) -> list[str]:
    account = [] if owner is None else [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    return ["setpriv", *account, "--pdeathsig", "KILL", "--"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
