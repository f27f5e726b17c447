# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections to one PostgreSQL server and what its catalogues hold; psycopg's errors end here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    Locked,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    ROLE_ATTRIBUTES,
    ActualDatabase,
    ActualRole,
    comment_of,
)

CONNECT_SECONDS = 10
LOCK_SECONDS = 60
# any constant that other users of advisory locks will not choose: "fedi" in ASCII
LOCK_KEY = 0x66656469

ROLES = """
SELECT rolname, rolpassword, rolcanlogin AS "LOGIN", rolsuper AS "SUPERUSER", rolcreatedb AS "CREATEDB",
       rolcreaterole AS "CREATEROLE", rolreplication AS "REPLICATION", rolbypassrls AS "BYPASSRLS",
       pg_catalog.shobj_description(oid, 'pg_authid') AS comment
FROM pg_catalog.pg_authid
WHERE rolname = ANY(%(names)s) OR starts_with(pg_catalog.shobj_description(oid, 'pg_authid'), %(prefix)s)
"""

# The size of a database needs CONNECT or pg_read_all_stats.
DATABASES = """
SELECT datname, pg_catalog.pg_get_userbyid(datdba) AS owner, pg_catalog.pg_encoding_to_char(encoding) AS encoding,
       datcollate, datctype, datconnlimit, datallowconn,
       pg_catalog.has_database_privilege('public', oid, 'CONNECT, TEMPORARY') AS public_access,
       pg_catalog.has_database_privilege(datdba, oid, 'CONNECT') AS owner_access,
       pg_catalog.shobj_description(oid, 'pg_database') AS comment,
       CASE WHEN pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')
              OR pg_catalog.has_database_privilege(oid, 'CONNECT')
            THEN pg_catalog.pg_database_size(oid) END AS size_bytes
FROM pg_catalog.pg_database
WHERE datname = ANY(%(names)s) OR pg_catalog.pg_get_userbyid(datdba) = ANY(%(owners)s)
   OR starts_with(pg_catalog.shobj_description(oid, 'pg_database'), %(prefix)s)
"""


@dataclass(frozen=True)
class Server:
    """How to reach the server; *host* may be the directory of its socket."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str = "postgres"
    ssl_mode: str = "prefer"

    @contextmanager
    def connect(self, database: str | None = None) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        """An autocommit connection to *database* (default: the maintenance database).

        :raises Denied: wrong credentials, or pg_hba.conf has no entry for us.
        :raises Unreachable: no connection.
        :raises HostingError: an error of the server inside the block, translated.
        """
        with translated(f"PostgreSQL {self.host}:{self.port}"):
            # nothing that the owner of a database can set for it may redirect our statements: search_path
            connection = psycopg.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password,
                dbname=database or self.database,
                sslmode=self.ssl_mode,
                connect_timeout=CONNECT_SECONDS,
                application_name="fediversity.hosting",
                options="-c search_path=pg_catalog -c client_encoding=UTF8",
                autocommit=True,
                row_factory=dict_row,
            )
            try:
                yield connection
            finally:
                connection.close()


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn psycopg's errors into ours; the failed statement, which may hold a verifier, is never repeated."""
    try:
        yield
    except psycopg.Error as error:
        raise _translate(error, where) from None


def _translate(error: psycopg.Error, where: str) -> HostingError:
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
        text = " ".join(str(error).split()).rstrip("?. ")
        # libpq gives no SQLSTATE for a refused connection; FATAL comes from a server that answered
        if "authentication failed" in text or "pg_hba.conf" in text:
            return Denied(
                f"the server refuses the login: {text}",
                where=where,
                hint="Check login_user, login_password and the server's pg_hba.conf",
            )
        return Unreachable(text, where=where, hint="Check login_host and login_port and that the server runs")
    what = error.diag.message_primary or type(error).__name__
    hint = error.diag.message_hint or ""
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return Denied(what, where=where, hint=hint or "Use a login_user that may do this")
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return Locked(
            "another run is changing this server", where=where, hint=f"Waited {LOCK_SECONDS} s; run again later"
        )
    if isinstance(error, psycopg.errors.DuplicateObject | psycopg.errors.DuplicateDatabase):
        return Exists(what, where=where, hint=hint or "Run again")
    return BackendError(what, where=where, hint=hint)


def lock(connection: psycopg.Connection[dict[str, Any]]) -> None:
    """Keep other runs out until the connection ends.

    :raises psycopg.errors.LockNotAvailable: after :data:`LOCK_SECONDS` seconds.
    """
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{LOCK_SECONDS}s"])
    connection.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])


def roles(connection: psycopg.Connection[dict[str, Any]], names: Sequence[str]) -> dict[str, ActualRole]:
    """The roles of *names* and all that carry our mark; needs to read pg_authid, which superusers can."""
    rows = connection.execute(ROLES, {"names": list(names), "prefix": comment_of("")})
    return {
        row["rolname"]: ActualRole(
            name=row["rolname"],
            attributes={attribute: row[attribute] for attribute in ROLE_ATTRIBUTES},
            verifier=row["rolpassword"],
            comment=row["comment"],
        )
        for row in rows
    }


def databases(
    connection: psycopg.Connection[dict[str, Any]], names: Sequence[str], owners: Sequence[str]
) -> dict[str, ActualDatabase]:
    """The databases of *names*, those that belong to *owners*, and all that carry our mark."""
    rows = connection.execute(DATABASES, {"names": list(names), "owners": list(owners), "prefix": comment_of("")})
    return {
        row["datname"]: ActualDatabase(
            name=row["datname"],
            owner=row["owner"],
            encoding=row["encoding"],
            collate=row["datcollate"],
            ctype=row["datctype"],
            conn_limit=row["datconnlimit"],
            allows_connections=row["datallowconn"],
            public_access=row["public_access"],
            owner_access=row["owner_access"],
            comment=row["comment"],
            size_bytes=row["size_bytes"],
        )
        for row in rows
    }


def extensions(connection: psycopg.Connection[dict[str, Any]], names: Sequence[str]) -> frozenset[str]:
    """Those of *names* that the connected database has."""
    rows = connection.execute("SELECT extname FROM pg_catalog.pg_extension WHERE extname = ANY(%s)", [list(names)])
    return frozenset(row["extname"] for row in rows)
