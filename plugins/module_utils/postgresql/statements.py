# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The SQL statements that change roles and databases; identifiers and values are always quoted by psycopg."""

from __future__ import annotations

try:
    from psycopg import sql
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import scram
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    ROLE_ATTRIBUTES,
    ActualDatabase,
    ActualRole,
    DesiredDatabase,
    comment_of,
)


def save_role(item: DesiredDatabase, role: ActualRole | None) -> list[sql.Composed]:
    """Make the role as it is wanted; the password goes out as a verifier only."""
    name = sql.Identifier(item.owner)
    statements = []
    if role is None:
        statements.append(sql.SQL("CREATE ROLE {} LOGIN").format(name))
    else:
        # only what differs: even naming SUPERUSER is reserved to superusers
        differing = [
            attribute if wanted else f"NO{attribute}"
            for attribute, wanted in ROLE_ATTRIBUTES.items()
            if role.attributes[attribute] != wanted
        ]
        if differing:
            words = sql.SQL(" ").join(sql.SQL(word) for word in differing)
            statements.append(sql.SQL("ALTER ROLE {} {}").format(name, words))
    if item.password is not None and not (role and scram.matches(item.password, role.verifier)):
        verifier = scram.parse(scram.make(item.password).text()).text()
        statements.append(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(verifier)))
    if role is None:
        statements.append(_comment("ROLE", item.owner, item.mark))
    return statements


def create_database(item: DesiredDatabase, server_version: int) -> sql.Composed:
    """CREATE DATABASE that nobody can connect to before :func:`save_database` has closed it to PUBLIC.

    :param server_version: as ``connection.info.server_version``, for example 150018.
    """
    options = [
        sql.SQL("OWNER {}").format(sql.Identifier(item.owner)),
        sql.SQL("TEMPLATE template0 ENCODING {}").format(sql.Literal(item.encoding)),
        sql.SQL("CONNECTION LIMIT {} ALLOW_CONNECTIONS false").format(sql.Literal(item.conn_limit)),
    ]
    if item.locale is not None:
        options.append(sql.SQL("LOCALE {}").format(sql.Literal(item.locale)))
        # from 15 on template0 may be of another provider, which would leave the wish without effect
        if server_version >= 150000:
            options.append(sql.SQL("LOCALE_PROVIDER libc").format())
    return sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(item.name), sql.SQL(" ").join(options))


def save_database(item: DesiredDatabase, database: ActualDatabase | None) -> list[sql.Composed]:
    """Isolate, mark and open the database; *database* is ``None`` right after CREATE DATABASE."""
    name = sql.Identifier(item.name)
    statements = []
    if database is None or database.public_access:
        statements.append(sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(name))
    if database is not None and not database.owner_access:
        statements.append(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, sql.Identifier(item.owner)))
    if database is None or database.comment is None:
        statements.append(_comment("DATABASE", item.name, item.mark))
    if database is not None and database.conn_limit != item.conn_limit:
        statements.append(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, sql.Literal(item.conn_limit)))
    if database is None or not database.allows_connections:
        statements.append(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
    return statements


def create_extensions(item: DesiredDatabase) -> list[sql.Composed]:
    """Inside the database, as its owner: so only extensions that PostgreSQL trusts owners with can be made."""
    return [
        sql.SQL("SET ROLE {}").format(sql.Identifier(item.owner)),
        sql.SQL("SET search_path = public").format(),
        *(sql.SQL("CREATE EXTENSION IF NOT EXISTS {} CASCADE").format(sql.Identifier(e)) for e in item.extensions),
    ]


def drop_database(item: DesiredDatabase) -> list[sql.Composed]:
    """Keep clients from coming back, then drop with those that are still connected (PostgreSQL 13 or newer)."""
    name = sql.Identifier(item.name)
    return [
        sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC, {}").format(name, sql.Identifier(item.owner)),
        sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name),
    ]


def drop_role(item: DesiredDatabase) -> list[sql.Composed]:
    """Drop the role with what it still has in the maintenance database and with its privileges."""
    name = sql.Identifier(item.owner)
    return [sql.SQL("DROP OWNED BY {}").format(name), sql.SQL("DROP ROLE {}").format(name)]


def _comment(kind: str, name: str, mark: str) -> sql.Composed:
    return sql.SQL("COMMENT ON {} {} IS {}").format(
        sql.SQL("ROLE" if kind == "ROLE" else "DATABASE"), sql.Identifier(name), sql.Literal(comment_of(mark))
    )
