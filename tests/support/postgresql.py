# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A private PostgreSQL server for tests: real, on loopback, gone afterwards."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

DEBIAN_VERSIONS = Path("/usr/lib/postgresql")
START_SECONDS = 60
STOP_SECONDS = 30


@dataclass
class Server:
    """How to reach the server over TCP (scram-sha-256); ``socket_directory`` takes passwords too.

    :param log: the file that the server writes its log to.
    """

    host: str
    port: int
    superuser: str
    password: str = field(repr=False)
    socket_directory: Path
    log: Path
    command: Sequence[str] = field(repr=False)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of a database for the superuser."""
        return f"postgresql+psycopg://{self.superuser}:{self.password}@{self.host}:{self.port}/{database}"

    def environment(self) -> dict[str, str]:
        """The server and its superuser as the modules take them from the environment."""
        return {"PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": self.superuser, "PGPASSWORD": self.password}

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, cwd=self.socket_directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log.read_text(encoding='utf-8')}")
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT ends the sessions first, SIGQUIT does not write anything back."""
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(STOP_SECONDS)
        self.process = None

    def _is_ready(self) -> bool:
        try:
            psycopg.connect(self.url().replace("+psycopg", ""), connect_timeout=STOP_SECONDS).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgresql_server(tmp_path: Path, *settings: str) -> Iterator[Server]:
    """Runs a server while the block runs; ``tmp_path`` receives its log (postgresql.log).

    *settings* are ``name=value``. POSTGRESQL_BIN names the directory of other binaries than the newest installed ones.
    The data lies in a directory of its own under the system's temporary directory: pytest's directories are closed
    to the unprivileged user that PostgreSQL insists on, and too long for a socket. The server also stops when the
    test process is killed.
    """
    binaries = _binaries()
    owner = _owner()
    log = tmp_path / "postgresql.log"
    password = secrets.token_hex(16)
    base = Path(tempfile.mkdtemp(prefix="fediversity-pg-"))
    try:
        if owner is not None:
            os.chown(base, owner.pw_uid, owner.pw_gid)
        data = base / "data"
        _initialise(binaries, owner, data, password, log)
        port = _free_port()
        options = ("fsync=off", "shared_buffers=16MB", "max_connections=50", *settings)
        command = [
            *_as_user(owner, ["--pdeathsig", "QUIT"]),
            str(binaries / "postgres"),
            *("-D", str(data), "-k", str(base), "-h", "127.0.0.1", "-p", str(port)),
            *(word for option in options for word in ("-c", option)),
        ]
        server = Server("127.0.0.1", port, "postgres", password, base, log, command)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(base)


def _binaries() -> Path:
    """Those that were chosen, or the newest installed ones; Debian keeps them out of PATH."""
    if chosen := os.environ.get("POSTGRESQL_BIN"):
        return Path(chosen)
    found = sorted(
        (path for path in DEBIAN_VERSIONS.glob("*/bin") if (path / "initdb").exists()),
        key=lambda path: int(path.parent.name),
    )
    if found:
        return found[-1]
    on_path = shutil.which("initdb")
    if on_path is None:
        raise RuntimeError("initdb was not found: install the Debian package 'postgresql'")
    return Path(on_path).resolve().parent


def _owner() -> pwd.struct_passwd | None:
    """The account to change to: PostgreSQL refuses to run as root."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def _as_user(owner: pwd.struct_passwd | None, options: list[str]) -> list[str]:
    account = [] if owner is None else [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    return ["setpriv", *account, *options, "--"]


def _initialise(binaries: Path, owner: pwd.struct_passwd | None, data: Path, password: str, log: Path) -> None:
    password_file = data.parent / "password"
    password_file.write_text(password, encoding="utf-8")
    if owner is not None:
        os.chown(password_file, owner.pw_uid, owner.pw_gid)
    command = [
        *_as_user(owner, ["--no-new-privs"]),
        str(binaries / "initdb"),
        *("-D", str(data), "-U", "postgres", "--pwfile", str(password_file)),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"),
    ]
    with log.open("ab") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        done = subprocess.run(command, cwd=data.parent, check=False, **streams)
    password_file.unlink()
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed:\n{log.read_text(encoding='utf-8')}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
