# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server that the suite runs against, the module on it, and the removal of what tests made there.

PGHOST, PGPORT (5432), PGUSER, PGPASSWORD, PGSSLMODE, as libpq and the module take them. The login needs CREATEDB and
CREATEROLE and the right to connect to the maintenance database PGDATABASE (postgres).
Without PGHOST a private server is started, and every test runs twice: as its superuser, and as a role without that
power, such as managed servers give.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql as composed
from support.postgresql import Server

ROOT = Path(__file__).resolve().parents[4]
MODULE = ROOT / "plugins" / "modules" / "postgresql_databases.py"
TOLD = ("name", "action", "changed", "failed")
# what must not show in anything that the suite starts
SENTINEL = "sentinel-3b8f"
VERIFIER = re.compile(r"SCRAM-SHA-256\$\d+:[\w+/=]+\$[\w+/=]{44}:")
Result = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A server and names on it that nobody else has.

    :param variables: how the module is told to reach the server.
    :param admin: how the suite itself reaches it, to look and to clean up.
    :param private: the server, where the suite has it for itself.
    """

    variables: Mapping[str, str] = field(repr=False)
    admin: Mapping[str, str] = field(repr=False)
    directory: Path
    private: Server | None = None
    mark: str = ""

    @property
    def maintenance(self) -> str:
        return self.admin.get("PGDATABASE", "postgres")

    @property
    def log(self) -> str:
        """What the private server has logged."""
        if self.private is None:
            raise LookupError("the log of a foreign server is not ours to read")
        return self.private.log.read_text(encoding="utf-8", errors="replace")

    def name(self, what: str) -> str:
        return f"{self.mark}_{what}"

    def at(self, **variables: str) -> Place:
        """The same place, reached otherwise."""
        return replace(self, variables={**self.variables, **variables})

    def connect(
        self, user: str | None = None, password: str | None = None, database: str | None = None, **options: Any
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection, as the administrator unless *user* is given; the caller closes it."""
        return psycopg.connect(
            host=self.admin["PGHOST"],
            port=int(self.admin.get("PGPORT", "5432")),
            user=user or self.admin["PGUSER"],
            password=self.admin["PGPASSWORD"] if user is None else password,
            dbname=database or self.maintenance,
            sslmode=self.admin.get("PGSSLMODE", "prefer"),
            connect_timeout=30,
            autocommit=True,
            **options,
        )

    def sql(
        self,
        statement: str,
        *values: object,
        database: str | None = None,
        names: Sequence[str] = (),
        login: tuple[str, str] | None = None,
    ) -> list[tuple[Any, ...]]:
        """Run one statement; each {} stands for one of *names*, each %s for one of *values*."""
        query = composed.SQL(statement).format(*map(composed.Identifier, names)) if names else statement
        user, password = login or (None, None)
        with self.connect(user, password, database) as connection:
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def version(self) -> int:
        """Major version of the server."""
        with self.connect() as connection:
            return connection.info.server_version // 10000

    def is_superuser(self, user: str) -> bool:
        return bool(self.sql("SELECT rolsuper FROM pg_roles WHERE rolname = %s", user)[0][0])

    def can_have_readers(self) -> bool:
        """Before PostgreSQL 15 readers need a superuser: everybody may create in the schema public."""
        return self.version() >= 15 or self.is_superuser(self.variables["PGUSER"])

    def rights(self, database: str) -> dict[str, Any]:
        """What the catalogue holds of a database and its owner, to compare before and after."""
        row = self.sql(
            "SELECT pg_get_userbyid(datdba), datacl::text, datconnlimit, datallowconn, shobj_description(d.oid,"
            " 'pg_database'), rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolconnlimit"
            " FROM pg_database d JOIN pg_roles r ON r.oid = datdba WHERE datname = %s",
            database,
        )
        return {"row": row}

    def arguments(self, databases: Sequence[Mapping[str, Any]], **options: Any) -> dict[str, Any]:
        return {"login_db": self.maintenance, "databases": list(databases), **options}

    def start(self, *databases: Mapping[str, Any], **options: Any) -> subprocess.Popen[str]:
        """The module as Ansible starts it, its arguments on their way; :func:`finish` takes the result."""
        process = subprocess.Popen(
            [sys.executable, str(MODULE)],
            env={**self.environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        if process.stdin is None:
            raise RuntimeError("no way to the module")
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": self.arguments(databases, **options)}))
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, *databases: Mapping[str, Any], **options: Any) -> Result:
        """One run of the module; it may fail."""
        return finish(self.start(*databases, **options))

    def make(self, *databases: Mapping[str, Any], **options: Any) -> Result:
        """One run that must not fail."""
        result = self.run(*databases, **options)
        assert not result["failed"], result["msg"]
        return result

    def change(self, *databases: Mapping[str, Any], **options: Any) -> Result:
        """Check mode, the real thing, and once more: the prediction must be right, the last run find nothing to do."""
        predicted = self.run(*databases, _ansible_check_mode=True, _ansible_diff=True, **options)
        result = self.make(*databases, _ansible_diff=True, **options)
        again = self.make(*databases, _ansible_diff=True, **options)
        assert not predicted["failed"], predicted["msg"]
        assert told(predicted) == told(result)
        assert predicted["diff"] == result["diff"]
        assert result["changed"], result["msg"]
        assert not again["changed"], (again["msg"], again["diff"])
        return result

    def environment(self) -> dict[str, str]:
        taken = ("ANSIBLE_", "PG")
        return {**{k: v for k, v in os.environ.items() if not k.startswith(taken)}, **self.variables}

    def ansible(self, *arguments: str) -> tuple[int, str]:
        """Run ansible-playbook; exit code and output."""
        environment = {
            **self.environment(),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_HOME": str(self.directory / "home"),
            "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.host_list,ansible.builtin.yaml",
            "ANSIBLE_NOCOLOR": "1",
        }
        python = ["-e", f"ansible_python_interpreter={sys.executable}"]
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), *python, *arguments],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=600,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def clear(self) -> None:
        """Remove every database and role whose name starts with the mark; what is left fails at the end."""
        pattern = self.mark.replace("_", r"\_") + "%"
        if self.private is not None and self.private.process is None:
            self.private.start()
        for (name,) in self.sql("SELECT datname FROM pg_database WHERE datname LIKE %s", pattern):
            self.sql("ALTER DATABASE {} IS_TEMPLATE false", names=[name])
            self.sql("DROP DATABASE {} WITH (FORCE)", names=[name])
        roles = [name for (name,) in self.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", pattern)]
        for name in roles:
            self.sql("DROP OWNED BY {}", names=[name])
        for name in roles:
            self.sql("DROP ROLE {}", names=[name])


def finish(process: subprocess.Popen[str]) -> Result:
    """The result of :meth:`Place.start`; no password may show in it."""
    output, errors = process.communicate(timeout=300)
    assert output, errors
    assert SENTINEL not in output + errors
    assert not VERIFIER.search(output + errors)
    return {"failed": False, "changed": False, "msg": "", **json.loads(output)}


def new_mark() -> str:
    """What names of one test start with, and no others."""
    return f"it{secrets.token_hex(3)}"


def told(result: Result) -> list[list[Any]]:
    return [[item[key] for key in TOLD] for item in result["results"]]


def by_name(result: Result) -> dict[str, Result]:
    return {item["name"]: item for item in result["results"]}


def password(of: str) -> str:
    """A password that is easy to find wherever it should not be."""
    return f"{SENTINEL}-{of}"


def chosen() -> bool:
    """Whether the environment names a server."""
    return bool(os.environ.get("PGHOST"))


def from_environment(variables: Mapping[str, str], directory: Path, private: Server | None = None) -> Place:
    """The server that the variables name."""
    reach = {name: value for name, value in variables.items() if name.startswith("PG")}
    return Place(reach, reach, directory, private)


def managed(place: Place) -> Place:
    """The same server for a login that may make databases and roles, and nothing else."""
    name, secret = "provisioner", secrets.token_hex(16)
    place.sql("CREATE ROLE {} LOGIN CREATEDB CREATEROLE", names=[name])
    place.sql(f"ALTER ROLE {name} PASSWORD '{secret}'")
    return place.at(PGUSER=name, PGPASSWORD=secret)
