# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections to one PostgreSQL server; psycopg's errors end here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

try:
    import psycopg
    from psycopg.rows import dict_row
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    Exists,
    HostingError,
    InvalidInput,
    Locked,
    Unreachable,
)

CONNECT_SECONDS = 10
LOCK_SECONDS = 60
# The owner of a database may set these for all its sessions; ours must be neither redirected nor hindered nor ended.
SETTINGS = {
    "search_path": "pg_catalog",
    "role": "none",
    "local_preload_libraries": "",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read\\ committed",
    "standard_conforming_strings": "on",
    "row_security": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": f"{LOCK_SECONDS}s",
}
# the same, and the server that has them first
LATER_SETTINGS = {"idle_session_timeout": ("0", 140000), "transaction_timeout": ("0", 170000)}


@dataclass(frozen=True)
class Server:
    """How to reach the server; *host* may be the directory of its socket.

    :param version: for example 150018; 0 while it is not known.
    """

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str = "postgres"
    ssl_mode: str = "prefer"
    version: int = 0

    @property
    def where(self) -> str:
        return f"PostgreSQL {self.host}:{self.port}"

    def open(self, database: str | None = None) -> psycopg.Connection[dict[str, Any]]:
        """An autocommit connection to *database* (default: the maintenance database), which the caller closes.

        :raises psycopg.OperationalError: no connection.
        """
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=database or self.database,
            sslmode=self.ssl_mode,
            connect_timeout=CONNECT_SECONDS,
            application_name="fediversity.hosting",
            client_encoding="UTF8",
            options=session_options(self.version),
            autocommit=True,
            row_factory=dict_row,
        )

    @contextmanager
    def connect(self, database: str | None = None) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        """An autocommit connection to *database* (default: the maintenance database).

        :raises Denied: wrong credentials, or pg_hba.conf has no entry for us.
        :raises Unreachable: no connection.
        :raises HostingError: an error of the server inside the block, translated.
        """
        with translated(self.where):
            connection = self.open(database)
            try:
                yield connection
            finally:
                connection.close()


def session_options(version: int) -> str:
    """Options of a connection that put it out of reach of the settings that an owner may make for a database.

    :param version: of the server; 0 leaves out what not every server has.
    """
    later = {name: value for name, (value, since) in LATER_SETTINGS.items() if version >= since}
    return " ".join(f"-c {name}={value}" for name, value in {**SETTINGS, **later}.items())


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn psycopg's errors into ours; the failed statement, which may hold a verifier, is never repeated.

    :raises Unreachable: there is no connection, or no longer: what was sent last may have been done or not.
    """
    try:
        yield
    except psycopg.Error as error:
        raise _translate(error, where) from None
    except UnicodeError:
        raise InvalidInput(
            "the name of the server, the login or its password cannot be sent", where=where, hint="Use plain UTF-8"
        ) from None


def _no_connection(error: psycopg.OperationalError, where: str) -> HostingError:
    text = " ".join(str(error).split()).rstrip("?. ")
    # libpq gives no SQLSTATE for a refused connection; FATAL comes from a server that answered
    if "authentication failed" in text or "pg_hba.conf" in text or "no password supplied" in text:
        return Denied(
            f"the server refuses the login: {text}",
            where=where,
            hint="Check login_user, login_password and the server's pg_hba.conf",
        )
    return Unreachable(text, where=where, hint="Check login_host and login_port and that the server runs")


def _translate(error: psycopg.Error, where: str) -> HostingError:
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
        return _no_connection(error, where)
    what = error.diag.message_primary or type(error).__name__
    hint = error.diag.message_hint or ""
    # the server is going down, has crashed or is coming up; or somebody has ended our session
    if (error.sqlstate or "").startswith("57P"):
        return Unreachable(what, where=where, hint=hint or "Run again")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return Denied(what, where=where, hint=hint or "Use a login_user that may do this")
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return Locked("somebody else holds a lock on it", where=where, hint="Run again later")
    if isinstance(error, psycopg.errors.DuplicateObject | psycopg.errors.DuplicateDatabase):
        return Exists(what, where=where, hint=hint or "Run again")
    return BackendError(what, where=where, hint=hint)
