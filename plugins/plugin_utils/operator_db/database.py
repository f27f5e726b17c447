# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connecting to the operator database (SQLite file or PostgreSQL) and bringing it to the newest schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    InvalidInput,
    Locked,
    MissingLibrary,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db import schema

try:
    import sqlalchemy
    from sqlalchemy import Connection, Engine, event, select, text
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
except ImportError:
    pass  # libraries.require() reports it before any use

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_MILLISECONDS = 30_000
CONNECT_SECONDS = 10
# any fixed number: importers and migrations of one PostgreSQL database wait for each other on it
ADVISORY_LOCK = 0x66656469
URL_VARIABLE = "FEDIVERSITY_DATABASE_URL"
IMPORT_HINT = "Import operators.yml first (module fediversity.hosting.operator_db_import)"


class DatabaseNotReady(HostingError):
    """There is no operator database at that place, or its schema is not the one this version works with."""


def connect(url: str | None) -> Engine:
    """Return the engine for ``sqlite:////absolute/path`` or ``postgresql://user:password@host/database``.

    Nothing is opened yet.

    :raises InvalidInput: the URL is missing or cannot be used.
    :raises MissingLibrary: the driver is not installed.
    """
    if not url:
        raise InvalidInput("no operator database is given", hint=f"{_URL_HINT}, in database_url or {URL_VARIABLE}")
    try:
        parsed = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):  # ValueError: the port, or what follows an @ in the password
        raise InvalidInput("the database URL cannot be read", hint=_URL_HINT) from None
    if parsed.get_backend_name() != "sqlite" and (url.count("@") > 1 or _HIDDEN_NOWHERE & parsed.query.keys()):
        raise InvalidInput("the password in the database URL would be taken for something else", hint=_PASSWORD_HINT)
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        parsed = parsed.set(drivername="postgresql+psycopg")
        arguments: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS}
    elif parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        arguments = {}
    else:
        raise InvalidInput(f"{parsed.render_as_string()} is neither SQLite nor PostgreSQL", hint=_URL_HINT)
    try:
        engine = sqlalchemy.create_engine(parsed, connect_args=arguments, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise MissingLibrary(error.name or "psycopg") from error
    except NoSuchModuleError as error:
        raise InvalidInput(str(error), hint=_URL_HINT) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


# messages show the URL: a password must be where they leave it out
_HIDDEN_NOWHERE = frozenset({"password", "sslpassword"})
_PASSWORD_HINT = "Put it between user: and @host, and write @ in it as %40"
_URL_HINT = "Use sqlite:////absolute/path/operator.db or postgresql://user:password@host/database"


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # the driver must not begin transactions by itself: _begin_sqlite says which kind
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: two writers queue up at the start instead of failing when both try to write
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads.

    :raises DatabaseNotReady: the database is absent or has another schema.
    """
    _require_file(engine)
    with typed_errors(engine), engine.begin() as connection:
        _require_revision(connection)
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes; committed when the block ends, rolled back when it raises.

    :raises DatabaseNotReady: the database is absent or has another schema.
    """
    _require_file(engine)
    with typed_errors(engine), engine.execution_options(writes=True).begin() as connection:
        _require_revision(connection)
        yield connection


@contextmanager
def migrating(engine: Engine) -> Iterator[Connection]:
    """A writing transaction that excludes other migrations and imports and has brought the schema up to date."""
    _create_file(engine)
    with typed_errors(engine), engine.execution_options(writes=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": ADVISORY_LOCK})
        if _revision(connection) != schema.REVISION:
            _migrate(connection)
        yield connection


def upgrade(engine: Engine) -> None:
    """Create the operator database or migrate it to the newest schema, in one transaction; safe in parallel.

    :raises DatabaseNotReady: the database was made by a newer version.
    """
    with migrating(engine):
        pass


def check(engine: Engine) -> None:
    """Verify that the database is there and has the schema of this version.

    :raises DatabaseNotReady: it has not.
    """
    with reading(engine):
        pass


def exists(engine: Engine) -> bool:
    """Whether the database holds the tables of any version."""
    if engine.dialect.name == "sqlite" and not _file(engine).exists():
        return False
    with typed_errors(engine), engine.begin() as connection:
        return _revision(connection) is not None


def describe(engine: Engine) -> str:
    """The URL for messages; the password is hidden."""
    return engine.url.render_as_string(hide_password=True)


def _file(engine: Engine) -> Path:
    return Path(str(engine.url.database))


def _require_file(engine: Engine) -> None:
    if engine.dialect.name == "sqlite" and not _file(engine).is_file():
        raise DatabaseNotReady("the operator database does not exist", where=describe(engine), hint=IMPORT_HINT)


def _create_file(engine: Engine) -> None:
    """Make the SQLite file (0600: it holds customer data) and set the journal mode, which stays in the file."""
    if engine.dialect.name != "sqlite":
        return
    path = _file(engine)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)
    except OSError as error:
        raise BackendError(f"cannot make the operator database: {error}", where=describe(engine)) from error
    with typed_errors(engine), engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        if raw is not None:
            raw.cursor().execute("PRAGMA journal_mode = WAL")


def _revision(connection: Connection) -> str | None:
    # alembic_version is Alembic's own table and therefore not part of the schema's metadata
    table = sqlalchemy.table("alembic_version", sqlalchemy.column("version_num"))
    if not sqlalchemy.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(select(table.c.version_num)).scalar_one_or_none()
    return found


def _require_revision(connection: Connection) -> None:
    found = _revision(connection)
    where = connection.engine.url.render_as_string(hide_password=True)
    if found is None:
        raise DatabaseNotReady("this database has no operator database tables", where=where, hint=IMPORT_HINT)
    if found < schema.REVISION:
        raise DatabaseNotReady(
            f"the operator database has schema {found}, this version needs {schema.REVISION}",
            where=where,
            hint=f"{IMPORT_HINT}: it migrates the schema too",
        )
    if found > schema.REVISION:
        raise _too_new(found, where)


def _too_new(found: str, where: str) -> DatabaseNotReady:
    return DatabaseNotReady(
        f"the operator database has schema {found}, newer than {schema.REVISION} of this version",
        where=where,
        hint="Update the collection fediversity.hosting",
    )


def _migrate(connection: Connection) -> None:
    # imported here: Alembic is needed by imports only, and every inventory run would pay for loading it
    try:
        from alembic import command
        from alembic.config import Config
    except ImportError as error:
        raise MissingLibrary("alembic") from error

    found = _revision(connection)
    if found is not None and found > schema.REVISION:
        raise _too_new(found, connection.engine.url.render_as_string(hide_password=True))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def typed_errors(engine: Engine) -> Iterator[None]:
    """Turn driver errors into ours; driver messages never hold the password, statements may hold data: left out."""
    try:
        yield
    except DBAPIError as error:
        where = describe(engine)
        reason = " ".join(str(error.orig).split())
        if "database is locked" in reason:
            raise Locked("another run holds the operator database", where=where, hint="Try again later") from error
        if isinstance(error, OperationalError) and engine.dialect.name == "postgresql":
            raise Unreachable(
                f"the operator database does not answer: {reason}",
                where=where,
                hint="Check the host, the port and the credentials in FEDIVERSITY_DATABASE_URL",
            ) from error
        hint = "Check the owner and free space of the file and its folder" if engine.dialect.name == "sqlite" else ""
        raise BackendError(f"the operator database failed: {reason}", where=where, hint=hint) from error
