# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What lies inside one database: extensions, readers, and the schema public; looked at and mended from inside."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, TypeAlias

try:
    from psycopg import sql
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import statements
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.catalogue import Facts
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    BOOTSTRAP_SUPERUSER,
    ActualDatabase,
    DesiredDatabase,
    Inside,
    Record,
    record_of,
)

if TYPE_CHECKING:
    import psycopg

    Connection: TypeAlias = psycopg.Connection[dict[str, Any]]

EXTENSIONS = "SELECT extname, oid::bigint, extowner::bigint AS owner FROM pg_catalog.pg_extension"

PUBLIC_OPEN = """
SELECT EXISTS (SELECT FROM pg_namespace
               WHERE nspname = 'public' AND has_schema_privilege('public', oid, 'CREATE')) AS public_open
"""

# A reader has three default privileges of the owner, and what they give on everything that is there already.
READERS = """
WITH me AS (SELECT datdba FROM pg_database WHERE datname = current_database()),
defaults AS (
  SELECT e.grantee, count(*) FILTER (
    WHERE (a.defaclobjtype::text, e.privilege_type) IN (('r', 'SELECT'), ('S', 'SELECT'), ('n', 'USAGE'))) AS kinds
  FROM me JOIN pg_default_acl a ON a.defaclrole = datdba AND a.defaclnamespace = 0, aclexplode(a.defaclacl) e
  WHERE e.grantee NOT IN (0, datdba) GROUP BY e.grantee
)
SELECT r.rolname AS reader, coalesce(d.kinds, 0) = 3
  AND NOT EXISTS (SELECT FROM pg_class c JOIN me ON c.relowner = datdba
    WHERE c.relpersistence <> 't' AND CASE c.relkind
      WHEN 'S' THEN NOT has_sequence_privilege(r.oid, c.oid, 'SELECT')
      ELSE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT has_table_privilege(r.oid, c.oid, 'SELECT') END)
  AND NOT EXISTS (SELECT FROM pg_namespace n, me WHERE (n.nspowner = datdba OR n.nspname = 'public')
    AND NOT has_schema_privilege(r.oid, n.oid, 'USAGE')) AS complete
FROM pg_roles r LEFT JOIN defaults d ON d.grantee = r.oid
WHERE d.grantee IS NOT NULL OR r.rolname = ANY(%s)
"""

# What the owner, who asks, may let others read.
RELATIONS = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relowner = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
"""
SCHEMAS = """
SELECT nspname AS name FROM pg_catalog.pg_namespace
WHERE pg_catalog.pg_has_role(nspowner, 'USAGE') AND nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
"""


def deduced(item: DesiredDatabase, database: ActualDatabase, facts: Facts) -> Inside | None:
    """The inside as the shared catalogue proves it to be wanted; ``None`` if it must be looked at.

    The record is proved when it has each extension that there is once: a tenant may have written it.
    """
    record = record_of(database.comment)
    recorded = record.extensions if record is not None else {}
    extensions = {name: recorded.get(name, 0) for name in item.extensions}
    proof = database.proof
    if item.extensions and (sorted(recorded.values()) != sorted(proof.extensions) or 0 in extensions.values()):
        return None
    if item.readers is not None and (proof.readers.keys() != item.readers or not all(proof.readers.values())):
        return None
    if closes_public(facts) and not proof.owns_schema:
        return None
    return Inside(extensions, frozenset(extensions), proof.readers)


def closes_public(facts: Facts) -> bool:
    """Whether the schema public is open to everybody at first, and we may close it (PostgreSQL 15 made it closed)."""
    return facts.version < 150000 and facts.superuser


def look(connection: Connection, item: DesiredDatabase, facts: Facts) -> Inside:
    """Look into the connected database."""
    rows = [row for row in connection.execute(EXTENSIONS) if row["extname"] in item.extensions]
    readers: dict[str, bool] = {}
    if item.readers is not None:
        found = connection.execute(READERS, [sorted(item.readers)])
        readers = {row["reader"]: row["complete"] for row in found}
    public_open = False
    if closes_public(facts):
        public_open = any(row["public_open"] for row in connection.execute(PUBLIC_OPEN))
    return Inside(
        extensions={row["extname"]: row["oid"] for row in rows},
        recordable=frozenset(row["extname"] for row in rows if row["owner"] != BOOTSTRAP_SUPERUSER),
        readers=readers,
        public_open=public_open,
    )


def recorded_rightly(item: DesiredDatabase, database: ActualDatabase, inside: Inside) -> bool:
    """Whether the COMMENT holds the wanted extensions as they are."""
    record = record_of(database.comment)
    said = {} if record is None else {name: oid for name, oid in record.extensions.items() if name in item.extensions}
    return said == {name: oid for name, oid in inside.extensions.items() if name in inside.recordable}


def fits(item: DesiredDatabase, inside: Inside) -> bool:
    """Whether nothing inside is missing or too much."""
    readers_fit = item.readers is None or (inside.readers.keys() == item.readers and all(inside.readers.values()))
    return inside.extensions.keys() >= set(item.extensions) and readers_fit and not inside.public_open


def mend(connection: Connection, item: DesiredDatabase, before: Inside, facts: Facts) -> None:
    """Make the inside of the connected database, all of it or nothing, and record the extensions.

    As the owner: so only extensions that PostgreSQL trusts owners with can be made.
    """
    with connection.transaction():
        if closes_public(facts) and before.public_open:
            for statement in statements.close_public(item.owner):
                connection.execute(statement)
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(item.owner)))
        connection.execute("SET LOCAL search_path = public")
        for name in item.extensions:
            if name not in before.extensions:
                connection.execute(statements.create_extension(name))
        # the owner may have put anything into the schema public
        connection.execute("SET LOCAL search_path = pg_catalog")
        if item.readers is not None:
            _grant_reading(connection, item.owner, {name for name in item.readers if not before.readers.get(name)})
            _revoke_reading(connection, item.owner, before.readers.keys() - item.readers)
        rows = connection.execute(EXTENSIONS).fetchall()
        record = Record(
            item.mark, extensions={row["extname"]: row["oid"] for row in rows if row["owner"] != BOOTSTRAP_SUPERUSER}
        )
        connection.execute(statements.comment("DATABASE", item.name, record))


def _grant_reading(connection: Connection, owner: str, readers: Collection[str]) -> None:
    if readers:
        schemas, relations = _owned(connection)
        for statement in statements.grant_reading(owner, sorted(readers), schemas, relations):
            connection.execute(statement)


def _revoke_reading(connection: Connection, owner: str, readers: Collection[str]) -> None:
    if readers:
        schemas, relations = _owned(connection)
        for statement in statements.revoke_reading(owner, sorted(readers), schemas, relations):
            connection.execute(statement)


def _owned(connection: Connection) -> tuple[list[sql.Identifier], list[sql.Identifier]]:
    """Schemas and relations that the current role may let others use."""
    schemas = [sql.Identifier(row["name"]) for row in connection.execute(SCHEMAS)]
    relations = [sql.Identifier(row["schema"], row["name"]) for row in connection.execute(RELATIONS)]
    return schemas, relations
