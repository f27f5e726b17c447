# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether roles have the passwords that are wanted: computed from their verifiers, or found out by logging in."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union

try:
    import psycopg
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Denied, HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import scram
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.catalogue import Facts
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    ActualRole,
    DesiredRole,
    moment,
)

if TYPE_CHECKING:
    Connection: TypeAlias = psycopg.Connection[dict[str, Any]]

Check = Literal["auto", "catalogue", "login"]
Outcome: TypeAlias = Literal["not managed", "as wanted", "differs", "expired"]
Password: TypeAlias = Union[Outcome, HostingError]  # noqa: UP007 - evaluated when this is imported

LOGINS_AT_ONCE = 4

# Where each role can log in: best its own database, then the maintenance database, then any.
ENTRANCES = """
SELECT r.rolname, (SELECT datname FROM pg_database d
                   WHERE datallowconn AND has_database_privilege(r.oid, d.oid, 'CONNECT')
                   ORDER BY datdba = r.oid DESC, datname = current_database() DESC, datname LIMIT 1) AS datname,
       r.rolvaliduntil <= now() AS expired
FROM pg_roles r WHERE r.rolname = ANY(%s)
"""

WRONG = "password authentication failed"
# what the server says after it has accepted the password: src/backend/utils/init/postinit.c, miscinit.c
ACCEPTED = ("permission denied for database", "too many connections for", "is not currently accepting connections")


def by_catalogue(facts: Facts, check: Check) -> bool:
    """Whether verifiers are read.

    :raises Denied: it is wanted, but the server does not let us.
    """
    if check == "catalogue" and not facts.reads_verifiers:
        raise Denied(
            f"login_user {facts.login!r} may not read pg_authid",
            where="password_check",
            hint="Use a superuser, or password_check: login",
        )
    return facts.reads_verifiers and check != "login"


def compared(wishes: Sequence[DesiredRole], roles: Mapping[str, ActualRole]) -> dict[str, Password]:
    """What is known of each role's password, by the verifiers in *roles*; about 1 ms of CPU time each."""

    def one(item: DesiredRole) -> Password:
        role = roles.get(item.name)
        if item.password is None and item.verifier is None:
            return "not managed"
        if role is not None and _fits(item, role.verifier):
            return "as wanted"
        return "differs"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip((item.name for item in wishes), pool.map(one, wishes), strict=True))


def _fits(item: DesiredRole, stored: str | None) -> bool:
    if item.verifier is None:
        return scram.matches(item.password or "", stored)
    try:
        return scram.parse(stored or "") == scram.parse(item.verifier)
    except ValueError:
        return False


def tried(
    server: Server, connection: Connection, wishes: Sequence[DesiredRole], roles: Mapping[str, ActualRole]
) -> dict[str, Password]:
    """What is known of each role's password, by logging in; one connection each."""
    names = [item.name for item in wishes if item.password is not None and item.name in roles]
    rows = connection.execute(ENTRANCES, [names]).fetchall()
    entrances = {row["rolname"]: row["datname"] for row in rows}
    expired = {row["rolname"] for row in rows if row["expired"]}

    def one(item: DesiredRole) -> Password:
        role = roles.get(item.name)
        if item.password is None:
            return "not managed"
        # nobody can find out the password of a role that may not log in: it is set again with LOGIN
        if role is None or not role.attributes["LOGIN"]:
            return "differs"
        if item.name in expired:
            return _of_expired(item, role)
        return _login(replace(server, user=item.name, password=item.password), entrances[item.name], wrong)

    wrong = _wrong_password(server) if names and not _speaks_english(connection) else ""
    with ThreadPoolExecutor(LOGINS_AT_ONCE) as pool:
        return dict(zip((item.name for item in wishes), pool.map(one, wishes), strict=True))


def _of_expired(item: DesiredRole, role: ActualRole) -> Password:
    """To a role that has expired the server says that its password is wrong, whatever it is."""
    if item.valid_until is None:
        return Denied(
            f"the role has expired ({role.valid_until}), so its password cannot be checked by a login",
            where=f"role {item.name!r}, password",
            hint="Run ALTER ROLE ... VALID UNTIL 'infinity', or log in as a superuser, who can read the stored one",
        )
    return "expired" if moment(item.valid_until) == role.valid_until else "differs"


def _login(server: Server, database: str | None, wrong: str) -> Password:
    """Try to log in as *server* says.

    :param wrong: how this server says 28P01, with a null character in place of the role.
    """
    where = f"role {server.user!r}, password"
    try:
        connection = server.open(database)
    except psycopg.OperationalError as error:
        return _judged(server, error, wrong, where)
    asked = connection.pgconn.used_password
    connection.close()
    if asked:
        return "as wanted"
    return Denied(
        "the server lets the role in without asking for its password, which therefore cannot be checked",
        where=where,
        hint="Correct pg_hba.conf, or log in as a superuser, who can read the stored one",
    )


def _judged(server: Server, error: psycopg.OperationalError, wrong: str, where: str) -> Password:
    text = " ".join(str(error).split())
    if WRONG in text or (wrong and wrong.replace("\0", server.user or "") in text):
        return "differs"
    if any(words in text for words in ACCEPTED):
        return "as wanted"
    hint = "Log in as a superuser, who can read the stored one"
    if "pg_hba.conf" in text:
        hint = f"Let the role log in from here in pg_hba.conf. {hint}"
    return Denied(f"the password cannot be checked by a login: {text}", where=where, hint=hint)


def _speaks_english(connection: Connection) -> bool:
    row = connection.execute("SELECT current_setting('lc_messages') AS locale").fetchone()
    return row is not None and row["locale"].startswith(("C", "POSIX", "en"))


def _wrong_password(server: Server) -> str:
    """What this server says in its language to a wrong password, with a null character in place of the role.

    libpq tells no SQLSTATE of a refused login, so that 28P01 can be recognised by its words only.
    """
    try:
        replace(server, password=secrets.token_hex(16)).open().close()
    except psycopg.OperationalError as error:
        said = " ".join(str(error).split()).rpartition("FATAL:")[2].strip()
        return said.replace(server.user, "\0") if server.user else ""
    return ""
