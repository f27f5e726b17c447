# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The final dump of a database: what is kept, with a proof that it is complete, before the database is dropped."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

try:
    import psycopg
    from psycopg import conninfo, sql
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    InvalidInput,
    MissingCommand,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import client
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server

if TYPE_CHECKING:
    Connection: TypeAlias = psycopg.Connection[dict[str, Any]]

# where Debian, Red Hat and a build from source keep the programs of each version
DIRECTORIES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")
# how long pg_dump waits for somebody else's lock, in ms
LOCK_WAIT_MS = 60_000
# what follows the rows: src/bin/pg_dump/pg_dump.c dumpTableData_copy, after the end of the last line
END_OF_ROWS = b"\n\\.\n\n\n"
# a line of pg_restore --list (no name can begin one): dump id; oid of the catalogue, oid of the object, kind
TABLE_DATA = re.compile(r"^(\d+); 0 (\d+) TABLE DATA ", re.MULTILINE)

DATABASE = """
SELECT pg_catalog.pg_get_userbyid(datdba) AS owner, pg_catalog.pg_encoding_to_char(encoding) AS encoding,
       datcollate AS collate, datctype AS ctype,
       pg_catalog.to_jsonb(d) ->> 'datlocprovider' AS provider,
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale') AS locale,
       coalesce((SELECT setconfig FROM pg_catalog.pg_db_role_setting WHERE setdatabase = d.oid AND setrole = 0),
                '{}') AS settings,
       (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS superuser
FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database()
"""

KEPT_FACTS = ("encoding", "collate", "ctype", "provider", "locale", "settings")

EXTENSIONS = "SELECT extname AS name, extversion AS version FROM pg_catalog.pg_extension ORDER BY 1"

# What pg_dump has to dump the rows of: no tables of other sessions, none of other servers, and none that an extension
# has brought along. Those belong to a superuser or to us; what a tenant has added to its extension is the tenant's.
TABLES = """
SELECT c.oid::bigint, n.nspname AS schema, c.relname AS name, e.extname AS extension
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
LEFT JOIN (pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid)
  ON d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
    AND d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (e.oid IS NULL OR NOT o.rolsuper AND o.rolname <> session_user)
ORDER BY 2, 3
"""

LARGE_OBJECTS = "SELECT pg_catalog.count(*) AS n FROM pg_catalog.pg_largeobject_metadata"


@dataclass(frozen=True)
class TableRows:
    """A table and how many rows of it the dump holds."""

    schema: str
    name: str
    rows: int


@dataclass(frozen=True)
class Dump:
    """A verified dump.

    :param path: the directory that pg_restore takes.
    :param bytes: size of its files.
    :param digest: SHA-256 of the manifest, in hex; the manifest holds the digests of all files.
    """

    path: Path
    manifest: Path
    bytes: int
    tables: tuple[TableRows, ...]
    digest: str


@dataclass(frozen=True)
class Programs:
    """pg_dump and pg_restore of one version, such as 15.18 (*major* 15)."""

    pg_dump: Path
    pg_restore: Path
    major: int
    version: str


def final_dump(server: Server, database: str, owner: str, directory: Path, jobs: int) -> Dump:
    """Dump *database* into a new directory below *directory* and verify it.

    The rows of every table are counted in the snapshot that is dumped and again in the files of the dump. Nothing is
    left behind when that fails; the new directory appears under its name only when it is complete and on disk.

    :param owner: whose it was, for the manifest; it may belong to our login by now.
    :param jobs: processes of pg_dump. Each takes a connection, and so do pg_dump itself and this function.
    :raises MissingCommand: no installed pg_dump is as new as the server.
    :raises HostingError: the server or the disk refuses, or the dump is not what the database holds.
    """
    where = f"database {database!r}"
    started = datetime.now(UTC)
    target = directory.absolute() / f"{_file_name(database)}-{started:%Y%m%dT%H%M%SZ}"
    with _work_directory(directory.absolute(), where) as work:
        data = work / "data"
        with server.connect(database) as connection:
            programs = choose(installed(), connection.info.server_version // 10000)
            facts = _prepare(connection)
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                snapshot = _one(connection, "SELECT pg_catalog.pg_export_snapshot() AS id")["id"]
                arguments = [
                    *(str(programs.pg_dump), "--format=directory", f"--file={data}", f"--jobs={jobs}"),
                    *(f"--snapshot={snapshot}", f"--lock-wait-timeout={LOCK_WAIT_MS}"),
                    *([] if facts["superuser"] else [f"--role={facts['owner']}"]),
                ]
                _pg_dump(arguments, server, database, connection.info.server_version)
                counted = _count(connection, where)
                extensions = connection.execute(EXTENSIONS).fetchall()
                large_objects = _one(connection, LARGE_OBJECTS)["n"]
                server_version = connection.info.parameter_status("server_version")
        _verify(programs, data, {oid: table.rows for oid, table in counted.items()}, large_objects, where)
        files = [_file(path, data) for path in sorted(data.iterdir())]
        manifest = {
            "version": 1,
            "database": database,
            "dumped_at": f"{started:%Y-%m-%dT%H:%M:%SZ}",
            "server_version": server_version,
            "pg_dump_version": programs.version,
            "owner": owner,
            **{key: facts[key] for key in KEPT_FACTS},
            "extensions": extensions,
            "large_objects": large_objects,
            "tables": [asdict(table) for table in counted.values()],
            "files": files,
        }
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        _write(work / "manifest.json", text)
        _publish(work, target)
    return Dump(
        path=target / "data",
        manifest=target / "manifest.json",
        bytes=sum(file["size"] for file in files),
        tables=tuple(counted.values()),
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def installed() -> list[Programs]:
    """The versions of pg_dump on this machine that have their pg_restore beside them."""
    directories = [Path(name) for name in os.environ.get("PATH", os.defpath).split(os.pathsep) if name]
    directories += [found for pattern in DIRECTORIES for found in sorted(Path("/").glob(pattern[1:]))]
    return [programs for directory in dict.fromkeys(directories) if (programs := _programs(directory))]


def choose(programs: Sequence[Programs], server_major: int) -> Programs:
    """The oldest that can dump the server, so that its dump can be restored into as many versions as possible.

    :param server_major: for example 15.
    :raises MissingCommand: all are older than the server, which pg_dump refuses.
    """
    able = [found for found in programs if found.major >= server_major]
    if not able:
        have = ", ".join(sorted({found.version for found in programs})) or "none"
        raise MissingCommand(
            f"pg_dump {server_major} or newer is needed for this server, installed: {have}",
            where="pg_dump",
            hint=f"Install the client programs of PostgreSQL {server_major} or newer where the module runs",
        )
    return min(able, key=lambda found: found.major)


def rows_in(file: Path) -> int:
    """Rows in one data file of a dump.

    :raises ValueError: it is no complete output of COPY.
    """
    lines, tail = 0, b"\n"
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                lines += chunk.count(b"\n")
                tail = (tail + chunk)[-len(END_OF_ROWS) :]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from None
    if tail != END_OF_ROWS:
        raise ValueError("it ends in the middle")
    return lines - END_OF_ROWS.count(b"\n") + 1


def _programs(directory: Path) -> Programs | None:
    pg_dump, pg_restore = directory / "pg_dump", directory / "pg_restore"
    if not (os.access(pg_dump, os.X_OK) and os.access(pg_restore, os.X_OK)):
        return None
    said = subprocess.run([str(pg_dump), "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"\(PostgreSQL\) ((\d+)\S*)", said)
    return Programs(pg_dump, pg_restore, int(version[2]), version[1]) if version else None


def _prepare(connection: Connection) -> dict[str, Any]:
    """Facts about the database, which only a superuser may read as a whole; everybody else dumps as its owner."""
    facts = _one(connection, DATABASE)
    if not facts["superuser"]:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(facts["owner"])))
    return facts


def _count(connection: Connection, where: str) -> dict[int, TableRows]:
    """Rows of every table by its oid.

    :raises BackendError: there is a table that pg_dump leaves out.
    """
    counted = {}
    for row in connection.execute(TABLES).fetchall():
        if row["extension"] is not None:
            raise BackendError(
                f"table {row['schema']}.{row['name']} was added to the extension {row['extension']}, "
                "so pg_dump leaves it out",
                where=where,
                hint=f"Run ALTER EXTENSION {row['extension']} DROP TABLE ..., or drop the table",
            )
        query = sql.SQL("SELECT pg_catalog.count(*) AS n FROM ONLY {}").format(
            sql.Identifier(row["schema"], row["name"])
        )
        counted[row["oid"]] = TableRows(row["schema"], row["name"], _one(connection, query)["n"])
    return counted


def _pg_dump(arguments: Sequence[str], server: Server, database: str, server_version: int) -> None:
    """Run pg_dump; the password is in neither its arguments nor its environment."""
    target = conninfo.make_conninfo(
        "",
        host=server.host,
        port=server.port,
        user=server.user,
        dbname=database,
        sslmode=server.ssl_mode,
        options=client.session_options(server_version),
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("PGPASSWORD", "PGOPTIONS")}
    with tempfile.TemporaryDirectory(prefix="fediversity-") as private:
        if server.password is not None:
            _write(Path(private, "pgpass"), _password_line(server.password))
            environment["PGPASSFILE"] = str(Path(private, "pgpass"))
        _run([*arguments, "--no-password", f"--dbname={target}"], f"database {database!r}", environment)


def _password_line(password: str) -> str:
    """The password file's only line: any server, any user.

    :raises InvalidInput: libpq ends a password of this file at the end of the line.
    """
    if "\n" in password or "\r" in password:
        raise InvalidInput(
            "the password holds an end of line, which the password file of pg_dump cannot",
            where="login_password",
            hint="Choose another one for this role",
        )
    return "*:*:*:*:" + password.replace("\\", "\\\\").replace(":", "\\:") + "\n"


def _verify(programs: Programs, data: Path, rows: Mapping[int, int], large_objects: int, where: str) -> None:
    """Hold the dump against what was counted in the database, rows by oid of the table.

    :raises BackendError: it is not complete.
    """
    listing = _run([str(programs.pg_restore), "--list", str(data)], where)
    dumped = {int(found[2]): found[1] for found in TABLE_DATA.finditer(listing)}
    _compare("large objects", large_objects, _large_objects(data), where)
    for oid, wanted in rows.items():
        file = next((f for end in (".dat.gz", ".dat") if (f := data / f"{dumped.get(oid)}{end}").exists()), None)
        try:
            found = rows_in(file) if file else None
        except ValueError as error:
            raise BackendError(f"the dump of table {oid} is damaged: {error}", where=where, hint="Run again") from None
        _compare(f"rows of table {oid}", wanted, found, where)


def _compare(what: str, wanted: int, found: int | None, where: str) -> None:
    if found != wanted:
        raise BackendError(f"{what}: {wanted} in the database and {found} in the dump", where=where, hint="Run again")


def _large_objects(data: Path) -> int:
    """How many large objects are in a dump: their list has a line for each."""
    return sum(file.read_bytes().count(b"\n") for file in data.glob("blobs*.toc"))


def _file(path: Path, data: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"name": str(path.relative_to(data)), "size": path.stat().st_size, "sha256": digest}


def _run(command: Sequence[str], where: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a program without any input; what it printed.

    :raises BackendError: with what it complained about.
    """
    done = subprocess.run(
        command,
        env={**(os.environ if environment is None else environment), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        umask=0o077,
        check=False,
    )
    if done.returncode != 0:
        said = [line.partition("error: ")[2] or line for line in done.stderr.splitlines()]
        raise BackendError(
            f"{Path(command[0]).name} failed: {'; '.join(said[:3]) or f'code {done.returncode}'}",
            where=where,
            hint="Nothing was dropped; mend this and run again",
        )
    return done.stdout


@contextmanager
def _work_directory(directory: Path, where: str) -> Iterator[Path]:
    """A directory beside the finished dumps, gone afterwards unless it was renamed; errors of the disk are ours."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".partial-", dir=directory))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise BackendError(
            f"the dump cannot be written: {error.strerror or error}",
            where=where,
            hint=f"Give the directory of the dumps, {directory}, room and permissions, and run again",
        ) from None


def _publish(work: Path, target: Path) -> None:
    """Give the dump its name; it survives a power cut from here on."""
    _sync(work)
    work.rename(target)
    _sync(target.parent)


def _write(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_name(database: str) -> str:
    """The name as far as it is harmless in a path, made unique where it is not."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", database)
    return safe if safe == database else f"{safe}-{hashlib.sha256(database.encode()).hexdigest()[:8]}"


def _one(connection: Connection, query: sql.Composed | str) -> dict[str, Any]:
    """The only row of *query*."""
    row = connection.execute(query).fetchone()
    if row is None:
        raise BackendError("the server returned no row", where="dump")
    return row
