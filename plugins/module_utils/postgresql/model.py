# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Databases and roles: what is wanted, what the server has, and which of it is ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, unquote

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.names import OWNER_TAG

# The attributes that every role of ours has; NOINHERIT is left to the hosting provider.
ROLE_ATTRIBUTES: Mapping[str, bool] = {
    "LOGIN": True,
    "SUPERUSER": False,
    "CREATEDB": False,
    "CREATEROLE": False,
    "REPLICATION": False,
    "BYPASSRLS": False,
}
PRIVILEGES = ("CONNECT", "TEMPORARY", "CREATE")
ALL_PRIVILEGES = frozenset(PRIVILEGES)
# the grantee PUBLIC in access lists; no role can have an empty name
PUBLIC = ""
INFINITY = "infinity"
# pg_authid.oid of the role that made the cluster: src/include/catalog/pg_authid.dat
BOOTSTRAP_SUPERUSER = 10
# src/include/catalog/pg_database.h: datlocprovider
PROVIDERS: Mapping[str, str] = {"b": "builtin", "c": "libc", "i": "icu"}

State = Literal["present", "retired", "absent"]
AccessList: TypeAlias = "Mapping[str, frozenset[str]]"


@dataclass(frozen=True)
class DesiredRole:
    """One login role.

    :param verifier: in the form of ``pg_authid.rolpassword``; neither it nor *password* leaves the password alone.
    :param member_of: exactly these roles; ``None`` leaves memberships alone.
    :param acts_as: the role that its sessions become, so that what they make belongs to that one.
    :param conn_limit: connections at once, -1 without limit; ``None`` leaves it alone.
    :param valid_until: as :func:`moment` takes it; ``None`` leaves it alone.
    """

    name: str
    mark: str
    password: str | None = field(default=None, repr=False)
    verifier: str | None = field(default=None, repr=False)
    member_of: frozenset[str] | None = None
    acts_as: str | None = None
    conn_limit: int | None = None
    valid_until: str | None = None
    state: State = "present"

    @property
    def key(self) -> str:
        """The name among the results, where a database may have the same name as its role."""
        return role_key(self.name)

    def groups(self) -> frozenset[str]:
        """All roles that it must be a member of."""
        return (self.member_of or frozenset()) | ({self.acts_as} if self.acts_as is not None else set())


@dataclass(frozen=True)
class DesiredDatabase:
    """One database and the role that owns it.

    :param mark: whose it is, for example an application instance; recorded in the COMMENT of role and database.
    :param locale: of the provider *locale_provider*; ``None`` takes and accepts what the server chooses.
    :param conn_limit: connections at once, -1 without limit.
    :param grants: exactly these privileges of others than the owner; ``None`` leaves them alone, but PUBLIC has none.
    :param readers: exactly these may read everything of the owner; ``None`` leaves them alone.
    """

    name: str
    owner: str
    mark: str
    password: str | None = field(default=None, repr=False)
    verifier: str | None = field(default=None, repr=False)
    extensions: tuple[str, ...] = ()
    encoding: str = "UTF8"
    locale: str | None = None
    locale_provider: str = "libc"
    conn_limit: int = -1
    grants: AccessList | None = None
    readers: frozenset[str] | None = None
    state: State = "present"

    @property
    def key(self) -> str:
        return self.name

    def role(self) -> DesiredRole:
        """The role that owns it."""
        return DesiredRole(self.owner, self.mark, self.password, self.verifier, state=self.state)

    def others(self) -> frozenset[str]:
        """The roles besides the owner that are named."""
        return frozenset(self.grants or ()) | (self.readers or frozenset())


Desired: TypeAlias = "DesiredDatabase | DesiredRole"


@dataclass(frozen=True)
class Record:
    """What our COMMENT on a role or database says.

    :param retired: since when, ISO 8601.
    :param extensions: oid by name, of those whose presence the shared catalogue proves.
    """

    mark: str
    retired: str | None = None
    extensions: Mapping[str, int] = field(default_factory=dict)

    def text(self) -> str:
        words = [f"{MARK_PREFIX}{self.mark}"]
        if self.retired is not None:
            words.append(f"retired={self.retired}")
        if self.extensions:
            words.append("ext=" + ",".join(f"{quote(n, safe='')}:{oid}" for n, oid in sorted(self.extensions.items())))
        return " ".join(words)


MARK_PREFIX = f"{OWNER_TAG}:"
# longer comments are none of ours, in characters
COMMENT_MAX = 16384
OID = re.compile(r"[0-9]{1,10}")
SECOND = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def record_of(comment: str | None) -> Record | None:
    """Our record in *comment*; ``None`` if the object carries no mark.

    Tenants may write whatever they like into the comments of their databases, but not into those of their roles.
    """
    words = (comment or "").split()
    if not words or not words[0].startswith(MARK_PREFIX) or len(comment or "") >= COMMENT_MAX:
        return None
    said = dict(word.partition("=")[::2] for word in words[1:])
    pairs = (pair.rpartition(":")[::2] for pair in said.get("ext", "").split(","))
    retired = said.get("retired", "")
    return Record(
        mark=words[0].removeprefix(MARK_PREFIX),
        retired=retired if SECOND.fullmatch(retired) else None,
        extensions={unquote(name): int(oid) for name, oid in pairs if OID.fullmatch(oid)},
    )


def mark_of(comment: str | None) -> str | None:
    """Whose the object is."""
    record = record_of(comment)
    return None if record is None else record.mark


@dataclass(frozen=True)
class Membership:
    """A row of pg_auth_members: *inherits* and *sets* are its options, always true before PostgreSQL 16."""

    group: str
    grantor: str
    inherits: bool
    sets: bool


@dataclass(frozen=True)
class ActualRole:
    """A row of pg_authid, or of pg_roles if that is all we may read.

    :param attributes: by the names of :data:`ROLE_ATTRIBUTES`.
    :param verifier: ``None`` if there is none, or if we may not read it.
    :param administered: our login has its privileges and may become it.
    :param owns_in: databases that hold objects of it and stay; known of roles that are to go, as is the next.
    :param privileges_in: databases that hold objects on which it has privileges and stay.
    """

    name: str
    attributes: Mapping[str, bool]
    verifier: str | None = field(repr=False)
    comment: str | None
    conn_limit: int = -1
    valid_until: str = INFINITY
    acts_as: str | None = None
    memberships: tuple[Membership, ...] = ()
    administered: bool = True
    owns_in: tuple[str, ...] = ()
    privileges_in: tuple[str, ...] = ()

    def groups(self) -> frozenset[str]:
        """The roles that it is a member of in the way we make members."""
        return frozenset(one.group for one in self.memberships if one.inherits and one.sets)


@dataclass(frozen=True)
class Proof:
    """What pg_shdepend tells about the inside of a database.

    :param extensions: oids of those that belong to anybody but the bootstrap superuser.
    :param readers: who has default privileges of the owner, and whether that and everything there is is complete.
    :param owns_schema: a schema belongs to the owner.
    """

    extensions: frozenset[int] = frozenset()
    readers: Mapping[str, bool] = field(default_factory=dict)
    owns_schema: bool = False


@dataclass(frozen=True)
class ActualDatabase:
    """A row of pg_database.

    :param provider: of :data:`PROVIDERS`.
    :param locale: of ICU or the builtin provider.
    :param access: privileges by grantee, the owner and :data:`PUBLIC` among them.
    :param collation_outdated: the operating system's collation is of another version than its indexes.
    :param in_use: somebody is connected who is no superuser.
    """

    name: str
    oid: int
    owner: str
    encoding: str
    provider: str
    collate: str
    ctype: str
    locale: str | None
    conn_limit: int
    allows_connections: bool
    access: AccessList
    comment: str | None
    collation_outdated: bool = False
    in_use: bool = field(default=False, compare=False)
    proof: Proof = Proof()
    size_bytes: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Inside:
    """What a database has inside, as far as it was asked for.

    :param extensions: oid by name.
    :param recordable: those of them whose presence the shared catalogue proves.
    :param readers: who has, or is to have, default privileges of the owner; whether nothing is missing.
    :param public_open: everybody who connects may create in the schema public.
    """

    extensions: Mapping[str, int] = field(default_factory=dict)
    recordable: frozenset[str] = frozenset()
    readers: Mapping[str, bool] = field(default_factory=dict)
    public_open: bool = False


@dataclass(frozen=True)
class Actual:
    """What the server has of one item.

    :param owns_others: the role owns, or is about to own, another database, so that it must stay.
    :param serves_others: one of these is not retired, so that the role must be able to log in.
    :param password: what is known of the password of the role; that of an expired role is not asked for.
    :param problem: why the database could not be looked into, or the password not be checked.
    """

    role: ActualRole | None
    database: ActualDatabase | None
    owns_others: bool = False
    serves_others: bool = False
    password: Literal["not managed", "as wanted", "differs", "expired"] = "not managed"
    inside: Inside | None = None
    problem: HostingError | None = field(default=None, compare=False)


def database_from(item: Mapping[str, Any]) -> DesiredDatabase:
    """One element of the module option ``databases``."""
    return DesiredDatabase(
        name=str(item["name"]),
        owner=str(item["owner"] or item["name"]),
        mark=str(item["mark"] or item["name"]),
        password=item["password"],
        verifier=item["password_verifier"],
        extensions=tuple(sorted({str(name) for name in item["extensions"]})),
        encoding=item["encoding"],
        locale=item["locale"],
        locale_provider=item["locale_provider"],
        conn_limit=item["conn_limit"],
        grants=None if item["grants"] is None else _grants(item["grants"]),
        readers=_names(item["readers"]),
        state=item["state"],
    )


def role_from(item: Mapping[str, Any]) -> DesiredRole:
    """One element of the module option ``roles``."""
    return DesiredRole(
        name=str(item["name"]),
        mark=str(item["mark"] or item["name"]),
        password=item["password"],
        verifier=item["password_verifier"],
        member_of=_names(item["member_of"]),
        acts_as=item["acts_as"],
        conn_limit=item["conn_limit"],
        valid_until=item["valid_until"],
        state=item["state"],
    )


def _names(values: Sequence[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(str(value) for value in values)


def _grants(options: Sequence[Mapping[str, Any]]) -> AccessList:
    """Several entries of one role add up."""
    found: dict[str, frozenset[str]] = {}
    for one in options:
        found[str(one["role"])] = found.get(str(one["role"]), frozenset()) | {str(word) for word in one["privileges"]}
    return {role: privileges for role, privileges in found.items() if privileges}


def role_key(name: str) -> str:
    return f"role {name}"


def moment(text: str) -> str:
    """*text* (ISO 8601 with a time zone, or ``infinity``) in the one form that is compared, in UTC.

    :raises ValueError: it is neither.
    """
    if text == INFINITY:
        return text
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("no time zone")
    return found.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
