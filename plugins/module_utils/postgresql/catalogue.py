# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the shared catalogues of a server hold, read through one connection to any of its databases."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    COMMENT_MAX,
    MARK_PREFIX,
    ROLE_ATTRIBUTES,
    ActualDatabase,
    ActualRole,
    Desired,
    DesiredDatabase,
    DesiredRole,
    Membership,
    Proof,
)

if TYPE_CHECKING:
    import psycopg

    Connection: TypeAlias = psycopg.Connection[dict[str, Any]]
    Row: TypeAlias = dict[str, Any]

FACTS = """
SELECT current_setting('server_version_num')::int AS version, current_user AS login, rolsuper AS superuser,
       has_table_privilege('pg_authid', 'SELECT') AS reads_verifiers,
       (SELECT coalesce(array_agg(datname::text ORDER BY datname), '{}') FROM pg_database d
        WHERE datname IN ('postgres', 'template1', current_database())
          AND has_database_privilege('public', d.oid, 'CONNECT')) AS open_to_all
FROM pg_roles WHERE rolname = current_user
"""

# {verifier}, {inherits} and {sets} depend on the server and on what we may read.
ROLES = """
SELECT r.rolname, {verifier} AS verifier, rolcanlogin AS "LOGIN", rolsuper AS "SUPERUSER", rolcreatedb AS "CREATEDB",
       rolcreaterole AS "CREATEROLE", rolreplication AS "REPLICATION", rolbypassrls AS "BYPASSRLS",
       rolconnlimit AS conn_limit,
       CASE WHEN isfinite(rolvaliduntil)
            THEN to_char(rolvaliduntil AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            ELSE coalesce(rolvaliduntil::text, 'infinity') END AS valid_until,
       shobj_description(r.oid, 'pg_authid') AS comment,
       (SELECT substr(one, 6) FROM pg_db_role_setting s, unnest(setconfig) one
        WHERE s.setrole = r.oid AND s.setdatabase = 0 AND starts_with(one, 'role=')) AS acts_as,
       (SELECT jsonb_agg(jsonb_build_array(g.rolname, pg_get_userbyid(m.grantor), {inherits}, {sets}))
        FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid) AS memberships,
       pg_has_role(r.oid, 'USAGE') AND pg_has_role(r.oid, {may_become}) AS administered
FROM {roles} r
WHERE r.rolname = ANY(%(names)s) OR starts_with(shobj_description(r.oid, 'pg_authid'), %(prefix)s)
"""

# The size of a database needs CONNECT or pg_read_all_stats.
DATABASES = """
SELECT datname, oid::bigint, pg_get_userbyid(datdba) AS owner, pg_encoding_to_char(encoding) AS encoding,
       {provider} AS provider, datcollate, datctype, {locale} AS locale, {outdated} AS outdated,
       datconnlimit, datallowconn,
       (SELECT jsonb_agg(jsonb_build_array(CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END,
                                           privilege_type))
        FROM aclexplode(coalesce(datacl, acldefault('d', datdba)))) AS access,
       left(shobj_description(oid, 'pg_database'), {comment_max}) AS comment,
       oid IN (SELECT a.datid FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
               WHERE a.datid IS NOT NULL AND NOT r.rolsuper AND r.rolname <> current_user) AS in_use,
       CASE WHEN pg_has_role('pg_read_all_stats', 'USAGE') OR has_database_privilege(oid, 'CONNECT')
            THEN pg_database_size(oid) END AS size_bytes
FROM pg_database
WHERE datname = ANY(%(names)s) OR pg_get_userbyid(datdba) = ANY(%(owners)s)
   OR starts_with(shobj_description(datdba, 'pg_authid'), %(prefix)s)
"""

# An object of the bootstrap superuser has no row: src/backend/catalog/pg_shdepend.c, pinned objects.
EXTENSION_PROOF = """
SELECT dbid::bigint, array_agg(objid::bigint) AS oids FROM pg_shdepend
WHERE dbid = ANY(%s) AND classid = 'pg_extension'::regclass AND deptype = 'o' GROUP BY dbid
"""

# Of each reader: how many of the owner's default privileges (tables, sequences, schemas) and objects it has a share
# in, and how many objects there are. 2200 is the schema public: src/include/catalog/pg_namespace.dat
READER_PROOF = """
WITH owned AS (
  SELECT s.dbid, s.classid, s.objid FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
  WHERE s.dbid = ANY(%s) AND s.deptype = 'o' AND s.refclassid = 'pg_authid'::regclass AND s.refobjid = d.datdba
    AND s.classid IN ('pg_class'::regclass, 'pg_namespace'::regclass, 'pg_default_acl'::regclass)
  UNION SELECT oid, 'pg_namespace'::regclass, 2200 FROM pg_database WHERE oid = ANY(%s)
), objects AS (
  SELECT dbid, count(*) AS n FROM owned WHERE classid <> 'pg_default_acl'::regclass GROUP BY dbid
)
SELECT o.dbid::bigint, pg_get_userbyid(a.refobjid) AS reader,
       count(*) FILTER (WHERE o.classid = 'pg_default_acl'::regclass) AS defaults,
       count(*) FILTER (WHERE o.classid <> 'pg_default_acl'::regclass) = min(objects.n) AS complete
FROM owned o JOIN objects USING (dbid)
JOIN pg_shdepend a ON a.dbid = o.dbid AND a.classid = o.classid AND a.objid = o.objid AND a.objsubid = 0
                  AND a.deptype = 'a' AND a.refclassid = 'pg_authid'::regclass
GROUP BY o.dbid, a.refobjid HAVING count(*) FILTER (WHERE o.classid = 'pg_default_acl'::regclass) > 0
"""

SCHEMA_PROOF = """
SELECT DISTINCT d.oid::bigint FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
WHERE s.dbid = ANY(%s) AND s.classid = 'pg_namespace'::regclass AND s.deptype = 'o'
  AND s.refclassid = 'pg_authid'::regclass AND s.refobjid = d.datdba
"""

DEPENDENCIES = """
SELECT r.rolname, d.datname, bool_or(s.deptype = 'o') AS owns
FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid JOIN pg_database d ON d.oid = s.dbid
WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = ANY(%s) GROUP BY 1, 2 ORDER BY 1, 2
"""

DEFAULT_PRIVILEGES_OF_A_READER = 3


@dataclass(frozen=True)
class Facts:
    """The server, and what our login may do.

    :param version: for example 150018.
    :param reads_verifiers: pg_authid can be read.
    :param open_to_all: maintenance databases that every role of the server may connect to.
    """

    version: int
    login: str
    superuser: bool
    reads_verifiers: bool
    open_to_all: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """What the server has of the desired items, and of ours that nobody desires.

    :param known: those of the roles named in options that exist.
    """

    roles: Mapping[str, ActualRole] = field(default_factory=dict)
    databases: Mapping[str, ActualDatabase] = field(default_factory=dict)
    known: frozenset[str] = frozenset()


def facts(connection: Connection) -> Facts:
    row = connection.execute(FACTS).fetchone()
    if row is None:
        raise BackendError("the server does not tell who we are", where="pg_roles")
    return Facts(row["version"], row["login"], row["superuser"], row["reads_verifiers"], tuple(row["open_to_all"]))


def snapshot(connection: Connection, found: Facts, desired: Sequence[Desired]) -> Snapshot:
    """The shared catalogues, as far as *desired* asks."""
    databases = [item for item in desired if isinstance(item, DesiredDatabase)]
    further = [item for item in desired if isinstance(item, DesiredRole)]
    owners = {item.owner for item in databases}
    roles = _roles(connection, found, owners | {item.name for item in further})
    there = _databases(connection, found, {item.name for item in databases}, owners)
    dropped = {item.name for item in databases if item.state == "absent"}
    leaving = {item.owner for item in databases if item.state == "absent"}
    leaving |= {item.name for item in further if item.state == "absent"}
    return Snapshot(
        roles=_with_dependencies(connection, roles, leaving & roles.keys(), dropped),
        databases=_with_proof(connection, found, there, [item for item in databases if item.state == "present"]),
        known=_known(connection, desired),
    )


def untrusted(connection: Connection, names: Collection[str]) -> dict[str, bool]:
    """Which of the extensions *names* the server has files of; true for those that only a superuser can make."""
    rows = connection.execute(
        "SELECT name, bool_and(superuser AND NOT trusted) AS untrusted FROM pg_available_extension_versions"
        " WHERE name = ANY(%s) GROUP BY name",
        [sorted(names)],
    )
    return {row["name"]: row["untrusted"] for row in rows}


def _roles(connection: Connection, found: Facts, names: Collection[str]) -> dict[str, ActualRole]:
    with_options = found.version >= 160000
    query = ROLES.format(
        verifier="rolpassword" if found.reads_verifiers else "NULL",
        roles="pg_authid" if found.reads_verifiers else "pg_roles",
        inherits="m.inherit_option" if with_options else "true",
        sets="m.set_option" if with_options else "true",
        may_become="'SET'" if with_options else "'MEMBER'",
    )
    rows = connection.execute(query, {"names": sorted(names), "prefix": MARK_PREFIX})
    return {
        row["rolname"]: ActualRole(
            name=row["rolname"],
            attributes={attribute: row[attribute] for attribute in ROLE_ATTRIBUTES},
            verifier=row["verifier"],
            comment=row["comment"],
            conn_limit=row["conn_limit"],
            valid_until=row["valid_until"],
            acts_as=row["acts_as"],
            memberships=tuple(Membership(*one) for one in sorted(row["memberships"] or [])),
            administered=row["administered"],
        )
        for row in rows
    }


def _databases(
    connection: Connection, found: Facts, names: Collection[str], owners: Collection[str]
) -> dict[str, ActualDatabase]:
    """The databases of *names*, those that belong to *owners*, and all whose owner carries our mark."""
    knows_providers = found.version >= 150000
    locale = "datlocale" if found.version >= 170000 else "daticulocale" if knows_providers else "NULL"
    query = DATABASES.format(
        comment_max=COMMENT_MAX,
        provider="datlocprovider" if knows_providers else "'c'",
        locale=locale,
        outdated="coalesce(datcollversion <> pg_database_collation_actual_version(oid), false)"
        if knows_providers
        else "false",
    )
    rows = connection.execute(query, {"names": sorted(names), "owners": sorted(owners), "prefix": MARK_PREFIX})
    return {row["datname"]: _database(row) for row in rows}


def _database(row: Row) -> ActualDatabase:
    access: dict[str, frozenset[str]] = {}
    for grantee, privilege in row["access"] or []:
        access[grantee] = access.get(grantee, frozenset()) | {privilege}
    return ActualDatabase(
        name=row["datname"],
        oid=row["oid"],
        owner=row["owner"],
        encoding=row["encoding"],
        provider=row["provider"],
        collate=row["datcollate"],
        ctype=row["datctype"],
        locale=row["locale"],
        conn_limit=row["datconnlimit"],
        allows_connections=row["datallowconn"],
        access=access,
        comment=row["comment"],
        collation_outdated=row["outdated"],
        in_use=row["in_use"],
        size_bytes=row["size_bytes"],
    )


def _with_proof(
    connection: Connection, found: Facts, databases: dict[str, ActualDatabase], desired: Sequence[DesiredDatabase]
) -> dict[str, ActualDatabase]:
    """The databases with what pg_shdepend tells of those where something inside is wanted."""

    def oids(wishes: Sequence[DesiredDatabase]) -> list[int]:
        return [databases[item.name].oid for item in wishes if item.name in databases]

    extensions: dict[int, frozenset[int]] = {}
    readers: dict[int, dict[str, bool]] = {}
    schemas: set[int] = set()
    if asked := oids([item for item in desired if item.extensions]):
        for row in connection.execute(EXTENSION_PROOF, [asked]):
            extensions[row["dbid"]] = frozenset(row["oids"])
    if asked := oids([item for item in desired if item.readers is not None]):
        for row in connection.execute(READER_PROOF, [asked, asked]):
            complete = row["complete"] and row["defaults"] == DEFAULT_PRIVILEGES_OF_A_READER
            readers.setdefault(row["dbid"], {})[row["reader"]] = complete
    if found.version < 150000 and (asked := oids(desired)):
        schemas = {row["oid"] for row in connection.execute(SCHEMA_PROOF, [asked])}
    return {
        name: replace(
            database,
            proof=Proof(
                extensions.get(database.oid, frozenset()), readers.get(database.oid, {}), database.oid in schemas
            ),
        )
        for name, database in databases.items()
    }


def _with_dependencies(
    connection: Connection, roles: dict[str, ActualRole], leaving: Collection[str], dropped: Collection[str]
) -> dict[str, ActualRole]:
    """The roles, and of those that are to go where they have objects and privileges, but for *dropped* databases."""
    if not leaving:
        return roles
    found = connection.execute(DEPENDENCIES, [sorted(leaving)])
    rows = [row for row in found if row["datname"] not in dropped]
    return roles | {
        name: replace(
            roles[name],
            owns_in=tuple(row["datname"] for row in rows if row["rolname"] == name and row["owns"]),
            privileges_in=tuple(row["datname"] for row in rows if row["rolname"] == name and not row["owns"]),
        )
        for name in leaving
    }


def _known(connection: Connection, desired: Sequence[Desired]) -> frozenset[str]:
    named = {name for item in desired for name in _named(item)}
    if not named:
        return frozenset()
    rows = connection.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [sorted(named)])
    return frozenset(row["rolname"] for row in rows)


def _named(item: Desired) -> frozenset[str]:
    return item.groups() if isinstance(item, DesiredRole) else item.others()
