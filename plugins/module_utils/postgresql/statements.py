# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The SQL statements that change roles and databases; identifiers and values are always quoted by psycopg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

try:
    from psycopg import sql
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import scram
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.catalogue import Facts
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    PRIVILEGES,
    PUBLIC,
    ROLE_ATTRIBUTES,
    AccessList,
    Actual,
    ActualRole,
    DesiredDatabase,
    DesiredRole,
    Membership,
    Record,
    moment,
    record_of,
)

# kinds of objects in ALTER DEFAULT PRIVILEGES, and what a reader may do with them
READING: Mapping[str, str] = {"TABLES": "SELECT", "SEQUENCES": "SELECT", "SCHEMAS": "USAGE"}


def save_role(item: DesiredRole, actual: Actual, facts: Facts) -> list[sql.Composed]:
    """Make the role as it is wanted, but for its memberships; a password goes out as a verifier only."""
    name, role = sql.Identifier(item.name), actual.role
    statements = []
    if role is None:
        statements.append(sql.SQL("CREATE ROLE {} LOGIN").format(name))
    words = _differing(item, role)
    if words:
        statements.append(sql.SQL("ALTER ROLE {} {}").format(name, sql.SQL(" ").join(words)))
    verifier = new_verifier(item) if actual.password == "differs" else None
    if verifier is not None:
        statements.append(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(verifier)))
    if item.acts_as is not None and (role is None or role.acts_as != item.acts_as):
        statements.append(sql.SQL("ALTER ROLE {} SET role = {}").format(name, sql.Literal(item.acts_as)))
    record = record_of(role.comment) if role is not None else None
    if record is None or record.retired is not None:
        statements.append(comment("ROLE", item.name, Record(item.mark)))
    if not facts.superuser and (role is None or not role.administered):
        statements.append(_grant_membership(item.name, facts.login, facts))
    return statements


def _differing(item: DesiredRole, role: ActualRole | None) -> list[sql.Composable]:
    """Only what differs: even naming SUPERUSER is reserved to superusers."""
    words: list[sql.Composable] = []
    if role is not None:
        words += [
            sql.SQL(attribute if wanted else f"NO{attribute}")
            for attribute, wanted in ROLE_ATTRIBUTES.items()
            if role.attributes[attribute] != wanted
        ]
    if item.conn_limit is not None and item.conn_limit != (role.conn_limit if role else -1):
        words.append(sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(item.conn_limit)))
    if item.valid_until is not None and (role is None or role.valid_until != moment(item.valid_until)):
        words.append(sql.SQL("VALID UNTIL {}").format(sql.Literal(moment(item.valid_until))))
    return words


def new_verifier(item: DesiredRole) -> str | None:
    """What the server is to keep of the password."""
    if item.verifier is not None:
        return scram.parse(item.verifier).text()
    return None if item.password is None else scram.parse(scram.make(item.password).text()).text()


def save_memberships(item: DesiredRole, role: ActualRole | None, facts: Facts) -> list[sql.Composed]:
    """Make the role a member of what is wanted and of nothing else; after all roles were made."""
    there = role.memberships if role is not None else ()
    wanted = item.groups()
    statements = [
        _grant_membership(group, item.name, facts) for group in sorted(wanted - (role.groups() if role else set()))
    ]
    if item.member_of is not None:
        statements += [_revoke_membership(one, item.name, facts) for one in there if one.group not in wanted]
    return statements


def _grant_membership(group: str, member: str, facts: Facts) -> sql.Composed:
    options = " WITH INHERIT TRUE, SET TRUE" if facts.version >= 160000 else ""
    statement = sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(member))
    return sql.Composed([statement, sql.SQL(options)])


def _revoke_membership(one: Membership, member: str, facts: Facts) -> sql.Composed:
    names = sql.Identifier(one.group), sql.Identifier(member)
    # from 16 on there is one membership for each grantor
    if facts.version >= 160000:
        return sql.SQL("REVOKE {} FROM {} GRANTED BY {} CASCADE").format(*names, sql.Identifier(one.grantor))
    return sql.SQL("REVOKE {} FROM {} CASCADE").format(*names)


def retire_role(item: DesiredRole, role: ActualRole, since: str) -> list[sql.Composed]:
    """Let nobody log in as the role any more."""
    name = sql.Identifier(role.name)
    statements = []
    if role.attributes["LOGIN"]:
        statements.append(sql.SQL("ALTER ROLE {} NOLOGIN").format(name))
    statements.append(comment("ROLE", role.name, Record(item.mark, retired=since)))
    return statements


def drop_role(name: str) -> list[sql.Composed]:
    """Drop the role with what it still has in the maintenance database and with its privileges."""
    return [drop_owned(name), sql.SQL("DROP ROLE {}").format(sql.Identifier(name))]


def drop_owned(name: str) -> sql.Composed:
    """Take the privileges of a role that owns nothing away, in the connected database and on shared objects."""
    return sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name))


def create_database(item: DesiredDatabase, facts: Facts) -> sql.Composed:
    """CREATE DATABASE that nobody can connect to before :func:`save_database` has closed it to PUBLIC."""
    options = [
        sql.SQL("OWNER {}").format(sql.Identifier(item.owner)),
        sql.SQL("TEMPLATE template0 ENCODING {}").format(sql.Literal(item.encoding)),
        sql.SQL("CONNECTION LIMIT {} ALLOW_CONNECTIONS false").format(sql.Literal(item.conn_limit)),
    ]
    if item.locale is not None:
        words = {"libc": "LOCALE", "icu": "ICU_LOCALE", "builtin": "BUILTIN_LOCALE"}
        options.append(sql.SQL(words[item.locale_provider] + " {}").format(sql.Literal(item.locale)))
        # from 15 on template0 may be of another provider, which would leave the wish without effect
        if facts.version >= 150000:
            options.append(sql.SQL("LOCALE_PROVIDER {}").format(sql.SQL(item.locale_provider)))
    return sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(item.name), sql.SQL(" ").join(options))


def change_access(database: str, before: AccessList, after: AccessList) -> list[sql.Composed]:
    """GRANT what is missing and REVOKE what is too much, by grantee."""
    return [
        statement
        for grantee in sorted(before.keys() | after.keys())
        for statement in (
            *_access("GRANT {} ON DATABASE {} TO {}", database, grantee, _minus(after, before, grantee)),
            *_access("REVOKE {} ON DATABASE {} FROM {} CASCADE", database, grantee, _minus(before, after, grantee)),
        )
    ]


def _minus(these: AccessList, those: AccessList, grantee: str) -> frozenset[str]:
    return these.get(grantee, frozenset()) - those.get(grantee, frozenset())


def _access(
    template: Literal["GRANT {} ON DATABASE {} TO {}", "REVOKE {} ON DATABASE {} FROM {} CASCADE"],
    database: str,
    grantee: str,
    privileges: frozenset[str],
) -> list[sql.Composed]:
    words = sql.SQL(", ").join(sql.SQL(word) for word in PRIVILEGES if word in privileges)
    whom = sql.SQL("PUBLIC") if grantee == PUBLIC else sql.Identifier(grantee)
    return [sql.SQL(template).format(words, sql.Identifier(database), whom)] if privileges else []


def limit_connections(database: str, limit: int) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(sql.Identifier(database), sql.Literal(limit))


def open_database(database: str) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(database))


def give_database(name: str, owner: str) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), sql.Identifier(owner))


def allow_drop(name: str) -> sql.Composed:
    """A template cannot be dropped, and its owner can make it one."""
    return sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(sql.Identifier(name))


def drop_database(name: str) -> sql.Composed:
    """Drop with those that are still connected (PostgreSQL 13 or newer)."""
    return sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))


def close_public(owner: str) -> list[sql.Composed]:
    """Give the schema public to the owner of the database, as PostgreSQL 15 and newer do."""
    name = sql.Identifier(owner)
    return [
        sql.SQL("ALTER SCHEMA public OWNER TO {}").format(name),
        sql.SQL("REVOKE CREATE ON SCHEMA public FROM PUBLIC").format(),
    ]


def create_extension(name: str) -> sql.Composed:
    return sql.SQL("CREATE EXTENSION IF NOT EXISTS {} CASCADE").format(sql.Identifier(name))


def grant_reading(
    owner: str, readers: Sequence[str], schemas: Sequence[sql.Identifier], relations: Sequence[sql.Identifier]
) -> list[sql.Composed]:
    """Let *readers* read what the owner has and will have."""
    whom = _list([sql.Identifier(name) for name in readers])
    return [
        *(
            sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} GRANT {} ON {} TO {}").format(
                sql.Identifier(owner), sql.SQL(privilege), sql.SQL(kind), whom
            )
            for kind, privilege in READING.items()
        ),
        *_on("GRANT USAGE ON SCHEMA {} TO {}", schemas, whom),
        *_on("GRANT SELECT ON TABLE {} TO {}", relations, whom),
    ]


def revoke_reading(
    owner: str, readers: Sequence[str], schemas: Sequence[sql.Identifier], relations: Sequence[sql.Identifier]
) -> list[sql.Composed]:
    """The reverse of :func:`grant_reading`, whatever *readers* were given beyond."""
    whom = _list([sql.Identifier(name) for name in readers])
    return [
        *(
            sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} REVOKE ALL ON {} FROM {}").format(
                sql.Identifier(owner), sql.SQL(kind), whom
            )
            for kind in READING
        ),
        *_on("REVOKE ALL ON SCHEMA {} FROM {}", schemas, whom),
        *_on("REVOKE ALL ON TABLE {} FROM {}", relations, whom),
    ]


def _on(
    template: Literal[
        "GRANT USAGE ON SCHEMA {} TO {}",
        "GRANT SELECT ON TABLE {} TO {}",
        "REVOKE ALL ON SCHEMA {} FROM {}",
        "REVOKE ALL ON TABLE {} FROM {}",
    ],
    objects: Sequence[sql.Identifier],
    whom: sql.Composed,
) -> list[sql.Composed]:
    return [sql.SQL(template).format(_list(objects), whom)] if objects else []


def _list(names: Sequence[sql.Identifier]) -> sql.Composed:
    return sql.SQL(", ").join(names)


def comment(kind: Literal["ROLE", "DATABASE"], name: str, record: Record) -> sql.Composed:
    return sql.SQL("COMMENT ON {} {} IS {}").format(sql.SQL(kind), sql.Identifier(name), sql.Literal(record.text()))
