# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two tenants on one server: every way from one to the other is tried, by the tenant itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import psycopg
import pytest
from postgresql_estate import Place, new_mark, password

INSUFFICIENT_PRIVILEGE = "42501"
CROSS_DATABASE = "0A000"


@dataclass(frozen=True)
class Tenants:
    """*one* and *other* have a database and a role each, *reader* reads the database of *other*."""

    place: Place
    one: str
    other: str
    reader: str

    def login(self, name: str) -> tuple[str, str]:
        return name, password(name)

    def refused(self, statement: str, *codes: str, role: str = "", database: str = "") -> None:
        """The server refuses the statement of *one*, for lack of a right unless other codes are given."""
        role = role or self.one
        with self.place.connect(*self.login(role), database or self.one) as connection:
            text = statement.format(one=self.one, other=self.other, reader=self.reader)
            with pytest.raises(psycopg.Error) as caught:
                connection.execute(text)
            assert caught.value.sqlstate in (codes or (INSUFFICIENT_PRIVILEGE,)), (text, str(caught.value))


@pytest.fixture(scope="module")
def tenants(reached: Place) -> Iterator[Tenants]:
    place = replace(reached, mark=new_mark())
    one, other, reader = (place.name(what) for what in ("one", "other", "reader"))
    reads = {"readers": [reader]} if place.can_have_readers() else {}
    try:
        place.make(
            {"name": one, "password": password(one)},
            {"name": other, "password": password(other), **reads},
            roles=[{"name": reader, "password": password(reader)}],
        )
        for name in (one, other):
            place.sql("CREATE TABLE secret AS SELECT 'mine' AS word", database=name, login=(name, password(name)))
        yield Tenants(place, one, other, reader)
    finally:
        place.clear()


@pytest.mark.parametrize(("who", "where"), [("one", "other"), ("other", "one"), ("reader", "one")])
def test_nobody_connects_to_the_database_of_another(tenants: Tenants, who: str, where: str) -> None:
    user, database = getattr(tenants, who), getattr(tenants, where)
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        tenants.place.connect(*tenants.login(user), database)


def test_the_right_to_temporary_tables_is_the_owner_s(tenants: Tenants) -> None:
    rights = "SELECT has_database_privilege(%s, %s, 'TEMPORARY'), has_database_privilege(%s, %s, 'CREATE')"
    for who, where, expected in (
        (tenants.one, tenants.other, (False, False)),
        (tenants.other, tenants.one, (False, False)),
        (tenants.reader, tenants.other, (False, False)),
        (tenants.one, tenants.one, (True, True)),
    ):
        assert tenants.place.sql(rights, who, where, who, where) == [expected]


REFUSED = {
    "read": ('SELECT * FROM "{other}".public.secret', CROSS_DATABASE),
    "write": ("INSERT INTO \"{other}\".public.secret VALUES ('x')", CROSS_DATABASE),
    "become the other": ('SET ROLE "{other}"',),
    "become the other session": ('SET SESSION AUTHORIZATION "{other}"',),
    "become a superuser": ("SET ROLE pg_monitor",),
    "join the other": ('GRANT "{other}" TO "{one}"',),
    "join the reader": ('GRANT "{reader}" TO "{one}"',),
    "join those that read everything": ('GRANT pg_read_all_data TO "{one}"', INSUFFICIENT_PRIVILEGE, "42704"),
    "join those that read files": ('GRANT pg_read_server_files TO "{one}"',),
    "open the other's database": ('GRANT CONNECT ON DATABASE "{other}" TO "{one}"',),
    "open the other's database to all": ('GRANT ALL ON DATABASE "{other}" TO PUBLIC',),
    "change the other's password": ("ALTER ROLE \"{other}\" PASSWORD 'taken'",),
    "lock the other out": ('ALTER ROLE "{other}" NOLOGIN',),
    "change the other's settings": ('ALTER ROLE "{other}" SET search_path = evil',),
    "change the other's database": ('ALTER DATABASE "{other}" SET search_path = evil',),
    "limit the other": ('ALTER DATABASE "{other}" CONNECTION LIMIT 0',),
    "close the other's database": ('ALTER DATABASE "{other}" ALLOW_CONNECTIONS false',),
    "rename the other": ('ALTER ROLE "{other}" RENAME TO renamed',),
    "rename the other's database": ('ALTER DATABASE "{other}" RENAME TO renamed',),
    "rename the own database": ('ALTER DATABASE "{one}" RENAME TO renamed',),
    "take the other's database": ('ALTER DATABASE "{other}" OWNER TO "{one}"',),
    "give the own database away": ('ALTER DATABASE "{one}" OWNER TO "{other}"',),
    "drop the other's database": ('DROP DATABASE "{other}"',),
    "drop the other": ('DROP ROLE "{other}"',),
    "drop what the other owns": ('DROP OWNED BY "{other}"',),
    "take what the other owns": ('REASSIGN OWNED BY "{other}" TO "{one}"',),
    "mark the other": ("COMMENT ON ROLE \"{other}\" IS 'fediversity:evil'",),
    "mark the other's database": ("COMMENT ON DATABASE \"{other}\" IS 'fediversity:evil'",),
    "mark itself": ("COMMENT ON ROLE \"{one}\" IS 'fediversity:evil'",),
    "read passwords": ("SELECT rolpassword FROM pg_authid",),
    "read passwords of old": ("SELECT passwd FROM pg_shadow",),
    "write the catalogue": ("UPDATE pg_database SET datacl = NULL",),
    "size of the other's database": ("SELECT pg_database_size('{other}')",),
    "make a database": ("CREATE DATABASE made",),
    "copy the other's database": ('CREATE DATABASE made TEMPLATE "{other}"',),
    "make a role": ("CREATE ROLE made",),
    "become more": ('ALTER ROLE "{one}" SUPERUSER',),
    "make databases from now on": ('ALTER ROLE "{one}" CREATEDB',),
    "lift the own limit of connections": ('ALTER ROLE "{one}" CONNECTION LIMIT -1',),
    "change the server": ("ALTER SYSTEM SET log_statement = 'all'",),
    "hide from the log": ("SET log_statement = 'none'",),
    "read a file": ("SELECT pg_read_file('/etc/passwd')",),
    "list a directory": ("SELECT pg_ls_dir('.')",),
    "copy from a file": ("COPY secret FROM '/etc/passwd'",),
    "copy from a program": ("COPY secret FROM PROGRAM 'id'",),
    "load a file as large object": ("SELECT lo_import('/etc/passwd')",),
    "load a library": ("LOAD '/tmp/evil'",),
    "write in C": ("CREATE FUNCTION evil() RETURNS int LANGUAGE c AS 'libc.so.6', 'getpid'",),
    "reach other servers": ("CREATE EXTENSION dblink", INSUFFICIENT_PRIVILEGE, "0A000", "58P01"),
    "reach files": ("CREATE EXTENSION file_fdw", INSUFFICIENT_PRIVILEGE, "0A000", "58P01"),
    "an untrusted language": ("CREATE EXTENSION plpython3u", INSUFFICIENT_PRIVILEGE, "0A000", "58P01"),
    "make an event trigger": (
        "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        " CREATE EVENT TRIGGER evil ON ddl_command_start EXECUTE FUNCTION f()",
    ),
    "publish all tables": ("CREATE PUBLICATION all_tables FOR ALL TABLES",),
    "replicate": ("SELECT pg_create_physical_replication_slot('evil')",),
    "make a tablespace": ("CREATE TABLESPACE evil LOCATION '/tmp'",),
    "reload the server": ("SELECT pg_reload_conf()",),
    "reset statistics": ("SELECT pg_stat_reset_shared('bgwriter')",),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_one_tenant_tries_is_refused(tenants: Tenants, what: str) -> None:
    statement, *codes = REFUSED[what]
    before = [tenants.place.rights(name) for name in (tenants.one, tenants.other)]
    tenants.refused(statement, *codes)
    assert [tenants.place.rights(name) for name in (tenants.one, tenants.other)] == before


def test_sessions_of_the_other_cannot_be_ended_or_watched(tenants: Tenants) -> None:
    place = tenants.place
    with place.connect(*tenants.login(tenants.other), tenants.other) as theirs:
        theirs.execute("SELECT 'a secret in a query'")
        tenants.refused(f"SELECT pg_terminate_backend({theirs.info.backend_pid})")
        tenants.refused(f"SELECT pg_cancel_backend({theirs.info.backend_pid})")
        seen = place.sql(
            "SELECT query, client_addr::text, state FROM pg_stat_activity WHERE pid = %s",
            theirs.info.backend_pid,
            database=tenants.one,
            login=tenants.login(tenants.one),
        )
        assert seen == [("<insufficient privilege>", None, None)]
        theirs.execute("SELECT 1")


def test_a_reader_reads_tables_of_now_and_later_and_nothing_else(tenants: Tenants) -> None:
    place, reader, other = tenants.place, tenants.login(tenants.reader), tenants.other
    if not place.can_have_readers():
        pytest.skip("before PostgreSQL 15 only a superuser can close the schema public to readers")
    place.sql("CREATE SCHEMA IF NOT EXISTS later", database=other, login=tenants.login(other))
    place.sql("CREATE TABLE later_on AS SELECT 7 AS a", database=other, login=tenants.login(other))
    assert place.sql("SELECT * FROM secret", database=other, login=reader) == [("mine",)]
    assert place.sql("SELECT * FROM later_on", database=other, login=reader) == [(7,)]
    for statement in (
        "INSERT INTO secret VALUES ('x')",
        "UPDATE secret SET word = 'x'",
        "DELETE FROM secret",
        "TRUNCATE secret",
        "DROP TABLE secret",
        "ALTER TABLE secret ADD COLUMN a int",
        "CREATE TABLE public.mine (a int)",
        "CREATE TEMPORARY TABLE mine (a int)",
        "CREATE SCHEMA mine",
        "CREATE EXTENSION citext",
        'GRANT SELECT ON secret TO "{one}"',
        'SET ROLE "{other}"',
        'GRANT CONNECT ON DATABASE "{other}" TO "{one}"',
    ):
        codes = (INSUFFICIENT_PRIVILEGE,)
        if statement.startswith("GRANT"):
            # without the right to grant, PostgreSQL warns and grants nothing
            with place.connect(*reader, other) as connection:
                try:
                    connection.execute(statement.format(one=tenants.one, other=other))
                except psycopg.errors.InsufficientPrivilege:
                    pass
            assert place.sql("SELECT has_database_privilege(%s, %s, 'CONNECT')", tenants.one, other) == [(False,)]
        else:
            tenants.refused(statement, *codes, role=tenants.reader, database=other)
    assert place.sql("SELECT * FROM secret", database=other, login=reader) == [("mine",)]


def test_what_an_owner_gives_away_is_taken_back(tenants: Tenants) -> None:
    """An owner may open its own database; the next run closes it."""
    place, one, other = tenants.place, tenants.one, tenants.other
    wish = {"name": one, "password": password(one), "grants": []}
    place.make(wish)
    for statement in ("GRANT CONNECT ON DATABASE {} TO PUBLIC", f'GRANT CONNECT ON DATABASE {{}} TO "{other}"'):
        place.sql(statement, names=[one], database=one, login=tenants.login(one))
        place.connect(*tenants.login(other), one).close()
        place.change(wish)
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            place.connect(*tenants.login(other), one)


def test_what_every_role_of_a_server_sees(tenants: Tenants) -> None:
    """The limits that docs/postgresql.md names: PostgreSQL has no right that hides these."""
    one = tenants.login(tenants.one)
    for statement in (
        "SELECT 1 FROM pg_database WHERE datname = %s",
        "SELECT 1 FROM pg_roles WHERE rolname = %s",
        "SELECT 1 FROM pg_database WHERE shobj_description(oid, 'pg_database') LIKE 'fediversity:%%' AND datname = %s",
        "SELECT 1 FROM pg_stat_database WHERE datname = %s",
    ):
        assert tenants.place.sql(statement, tenants.other, database=tenants.one, login=one) == [(1,)]
