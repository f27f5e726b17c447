# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Databases with their roles: what is wanted, what the server has, and which of it is ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput, NotOwned
from ansible_collections.fediversity.hosting.plugins.module_utils.names import OWNER_TAG, POSTGRESQL_NAME_MAX

# The attributes that every role of ours has; NOINHERIT and VALID UNTIL are left to the hosting provider.
ROLE_ATTRIBUTES: Mapping[str, bool] = {
    "LOGIN": True,
    "SUPERUSER": False,
    "CREATEDB": False,
    "CREATEROLE": False,
    "REPLICATION": False,
    "BYPASSRLS": False,
}


@dataclass(frozen=True)
class DesiredDatabase:
    """One database and the role that owns it.

    :param mark: whose it is, for example an application instance; recorded in the COMMENT of role and database.
    :param locale: LC_COLLATE and LC_CTYPE; ``None`` takes and accepts what the server chooses.
    :param conn_limit: connections at once, -1 without limit.
    """

    name: str
    owner: str
    mark: str
    password: str | None = field(default=None, repr=False)
    extensions: tuple[str, ...] = ()
    encoding: str = "UTF8"
    locale: str | None = None
    conn_limit: int = -1
    state: Literal["present", "absent"] = "present"


@dataclass(frozen=True)
class ActualRole:
    """A row of pg_authid; *attributes* by the names of :data:`ROLE_ATTRIBUTES`."""

    name: str
    attributes: Mapping[str, bool]
    verifier: str | None = field(repr=False)
    comment: str | None


@dataclass(frozen=True)
class ActualDatabase:
    """A row of pg_database.

    *public_access*: PUBLIC may CONNECT or make temporary tables; *owner_access*: the owner may CONNECT.
    """

    name: str
    owner: str
    encoding: str
    collate: str
    ctype: str
    conn_limit: int
    allows_connections: bool
    public_access: bool
    owner_access: bool
    comment: str | None
    size_bytes: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Actual:
    """What the server has of one item.

    :param role_needed: the role owns, or is about to own, another database, so that it must stay.
    :param extensions: those of the database, as far as they were asked for.
    :param problem: why the database could not be looked into.
    """

    role: ActualRole | None
    database: ActualDatabase | None
    role_needed: bool = False
    extensions: frozenset[str] = field(default=frozenset(), compare=False)
    problem: HostingError | None = field(default=None, compare=False)


def from_options(options: Sequence[Mapping[str, Any]]) -> list[DesiredDatabase]:
    """The module option ``databases``."""
    return [
        DesiredDatabase(
            name=item["name"],
            owner=item["owner"] or item["name"],
            mark=item["mark"] or item["name"],
            password=item["password"],
            extensions=tuple(sorted(set(item["extensions"]))),
            encoding=item["encoding"],
            locale=item["locale"],
            conn_limit=item["conn_limit"],
            state=item["state"],
        )
        for item in options
    ]


def comment_of(mark: str) -> str:
    """The owner mark in COMMENT ON ROLE and COMMENT ON DATABASE."""
    return f"{OWNER_TAG}:{mark}"


def mark_of(comment: str | None) -> str | None:
    """Whose the object is: the mark is the first word of the comment."""
    words = (comment or "").split()
    prefix = comment_of("")
    return words[0].removeprefix(prefix) if words and words[0].startswith(prefix) else None


def check(item: DesiredDatabase) -> None:
    """Refuse what PostgreSQL would cut, reserve, or understand as something else.

    :raises InvalidInput: with the field and the way out.
    """
    for option, value in (("name", item.name), ("owner", item.owner), *(("extensions", e) for e in item.extensions)):
        size = len(value.encode(errors="surrogatepass"))
        if not value or "\0" in value or size > POSTGRESQL_NAME_MAX or not _is_text(value):
            raise InvalidInput(
                f"{option} has {size} bytes or characters that PostgreSQL has no place for",
                where=f"database {item.name!r}, {option}",
                hint=f"Use 1 to {POSTGRESQL_NAME_MAX} bytes of UTF-8 without the null character",
            )
    # src/backend/commands/user.c IsReservedName, src/include/catalog/pg_authid.dat
    if item.owner in ("public", "none") or item.owner.startswith("pg_"):
        raise InvalidInput(
            f"the role name {item.owner!r} is reserved by PostgreSQL",
            where=f"database {item.name!r}, owner",
            hint="Choose another owner",
        )
    if not item.mark or not _is_text(item.mark) or mark_of(comment_of(item.mark)) != item.mark or "\0" in item.mark:
        raise InvalidInput("the mark holds white space", where=f"database {item.name!r}, mark", hint="Use one word")
    if item.password is not None and (not item.password or "\0" in item.password or not _is_text(item.password)):
        raise InvalidInput(
            "the password is empty or holds characters that cannot be sent",
            where=f"database {item.name!r}, password",
            hint="Leave the option out to manage no password",
        )
    if item.conn_limit < -1:
        raise InvalidInput(
            f"conn_limit is {item.conn_limit}", where=f"database {item.name!r}, conn_limit", hint="Use -1 or more"
        )


def conflicts(desired: Sequence[DesiredDatabase]) -> dict[str, InvalidInput]:
    """Items that contradict another one, by name: the same database twice, or one role wanted in two ways."""
    found: dict[str, InvalidInput] = {}
    names: set[str] = set()
    roles: dict[str, set[tuple[str, str | None]]] = {}
    for item in desired:
        roles.setdefault(item.owner, set()).add((item.mark, item.password))
        if item.name in names:
            found[item.name] = InvalidInput(
                "the database is listed twice", where=f"database {item.name!r}", hint="Keep one of them"
            )
        names.add(item.name)
    for item in desired:
        if len(roles[item.owner]) > 1:
            found[item.name] = InvalidInput(
                f"role {item.owner!r} is wanted with different passwords or marks",
                where=f"database {item.name!r}, owner",
                hint="Give all databases of one owner the same password and mark",
            )
    return found


def check_ownership(item: DesiredDatabase, actual: Actual) -> None:
    """Refuse an item whose role or database is somebody else's.

    A database without any comment is ours when our role owns it: a run ended between CREATE DATABASE and COMMENT.

    :raises NotOwned: with the way out.
    """
    role, database = actual.role, actual.database
    if role is not None and mark_of(role.comment) != item.mark:
        raise _not_owned("role", role.name, role.comment, item.mark)
    if database is None or mark_of(database.comment) == item.mark:
        return
    if database.comment is None and role is not None and database.owner == role.name:
        return
    raise _not_owned("database", database.name, database.comment, item.mark)


def check_reachable(item: DesiredDatabase, database: ActualDatabase) -> None:
    """Refuse what cannot be changed in place.

    :raises InvalidInput: encoding, locale or owner differ from the wish; with the way out.
    """
    where = f"database {item.name!r}"
    way_out = "Dump it, drop it and restore the dump into a new one, or change the desired state"
    if _encoding(item.encoding) != _encoding(database.encoding):
        raise InvalidInput(
            f"the encoding is {database.encoding}, not {item.encoding}", where=f"{where}, encoding", hint=way_out
        )
    if item.locale is not None and {_locale(database.collate), _locale(database.ctype)} != {_locale(item.locale)}:
        raise InvalidInput(
            f"the locale is {database.collate} (LC_COLLATE) and {database.ctype} (LC_CTYPE), not {item.locale}",
            where=f"{where}, locale",
            hint=way_out,
        )
    if database.owner != item.owner:
        raise InvalidInput(
            f"the owner is {database.owner!r}, not {item.owner!r}",
            where=f"{where}, owner",
            hint="Run REASSIGN OWNED in the database and ALTER DATABASE ... OWNER TO, or change the desired state",
        )


def _not_owned(kind: str, name: str, comment: str | None, mark: str) -> NotOwned:
    whose = mark_of(comment)
    return NotOwned(
        f"the {kind} exists and belongs to {whose!r}" if whose else f"the {kind} exists and carries no mark of ours",
        where=f"{kind} {name!r}",
        hint=f"Choose another name, or give it to us with COMMENT ON {kind.upper()} ... IS '{comment_of(mark)}'",
    )


def _is_text(value: str) -> bool:
    """Whether *value* can be sent as UTF-8 (no lone surrogates)."""
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _encoding(name: str) -> str:
    return name.upper().replace("-", "").replace("_", "")


def _locale(name: str) -> str:
    """Spelling variants of one locale made equal: C.UTF-8 and C.utf8, POSIX and C."""
    language, _dot, codeset = name.partition(".")
    return f"{'C' if language == 'POSIX' else language}.{_encoding(codeset)}"
