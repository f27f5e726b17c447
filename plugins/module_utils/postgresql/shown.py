# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What diff mode shows of databases and roles: neither passwords nor verifiers."""

from __future__ import annotations

from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import inside, model
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.catalogue import Facts
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.checks import locale_text
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    ALL_PRIVILEGES,
    PUBLIC,
    ROLE_ATTRIBUTES,
    AccessList,
    Actual,
    ActualDatabase,
    ActualRole,
    DesiredDatabase,
    DesiredRole,
)


def database_now(item: DesiredDatabase, actual: Actual, facts: Facts) -> dict[str, Any]:
    """The database and its owner as the server has them."""
    shown: dict[str, Any] = {}
    if actual.role is not None:
        shown |= {"owner": actual.role.name, **_role(actual.role, facts), "password": actual.password}
    database = actual.database
    if database is not None:
        found = actual.inside or model.Inside()
        shown |= {
            "owner": database.owner,
            "encoding": database.encoding,
            "locale": locale_text(database),
            "conn_limit": database.conn_limit,
            "access": _access(database),
            "grants": _grants(database.access, database.owner),
            "mark": model.mark_of(database.comment),
            "state": "retired" if any(_retired(actual)) else "present",
            "extensions": sorted(found.extensions),
        }
        if item.extensions:
            shown["extensions_recorded"] = inside.recorded_rightly(item, database, found)
        if item.readers is not None:
            shown["readers"] = [
                name if complete else f"{name} (incomplete)" for name, complete in sorted(found.readers.items())
            ]
        if inside.closes_public(facts):
            shown["schema_public"] = "everybody may create" if found.public_open else "of the owner"
    return shown


def database_wanted(item: DesiredDatabase, actual: Actual, facts: Facts) -> dict[str, Any]:
    """The same in the state ``present``."""
    database = actual.database
    shown = {
        "owner": item.owner,
        **_role_wanted(facts),
        "password": "as wanted" if actual.password == "differs" else actual.password,
        "encoding": database.encoding if database else item.encoding,
        "locale": locale_text(database) if database else _locale_wanted(item),
        "conn_limit": item.conn_limit,
        "access": "owner",
        "grants": _grants(access_wanted(item, actual), item.owner),
        "mark": item.mark,
        "state": "present",
        "extensions": sorted(item.extensions),
    }
    if item.extensions:
        shown["extensions_recorded"] = True
    if item.readers is not None:
        shown["readers"] = sorted(item.readers)
    if inside.closes_public(facts):
        shown["schema_public"] = "of the owner"
    return shown


def database_retirable(actual: Actual) -> dict[str, Any]:
    """What retiring changes of the database and its owner, as the server has it."""
    database = actual.database
    connect = sorted(who for who, what in (database.access if database else {}).items() if "CONNECT" in what)
    shown = {
        "state": "retired" if all(_retired(actual)) else "present",
        "may_connect": [who or "PUBLIC" for who in connect],
        "in_use": database is not None and database.in_use,
    }
    if actual.role is not None and not actual.serves_others:
        shown["role_attributes"] = _attributes(actual.role)
    return shown


def database_retired(actual: Actual) -> dict[str, Any]:
    """The same in the state ``retired``."""
    shown: dict[str, Any] = {"state": "retired", "may_connect": [], "in_use": False}
    if actual.role is not None and not actual.serves_others:
        shown["role_attributes"] = [name for name in _attributes(actual.role) if name != "LOGIN"]
    return shown


def role_now(item: DesiredRole, actual: Actual, facts: Facts) -> dict[str, Any]:
    """The role as the server has it, as far as it is managed."""
    role = actual.role
    if role is None:
        return {}
    shown = {
        **_role(role, facts),
        "password": actual.password,
        "mark": model.mark_of(role.comment),
        "state": "retired" if any(_retired(actual)) else "present",
    }
    if item.conn_limit is not None:
        shown["conn_limit"] = role.conn_limit
    if item.valid_until is not None:
        shown["valid_until"] = role.valid_until
    if item.acts_as is not None:
        shown["acts_as"] = role.acts_as
    if item.member_of is not None:
        # memberships of another kind are replaced
        shown["member_of"] = sorted({one.group for one in role.memberships} - item.groups() | role.groups())
    elif item.acts_as is not None:
        shown["member_of"] = sorted(role.groups() & item.groups())
    return shown


def role_wanted(item: DesiredRole, actual: Actual, facts: Facts) -> dict[str, Any]:
    """The same in the state ``present``."""
    shown = {
        **_role_wanted(facts),
        "password": "as wanted" if actual.password == "differs" else actual.password,
        "mark": item.mark,
        "state": "present",
    }
    if item.conn_limit is not None:
        shown["conn_limit"] = item.conn_limit
    if item.valid_until is not None:
        shown["valid_until"] = model.moment(item.valid_until)
    if item.acts_as is not None:
        shown["acts_as"] = item.acts_as
    if item.member_of is not None or item.acts_as is not None:
        shown["member_of"] = sorted(item.groups())
    return shown


def _retired(actual: Actual) -> list[bool]:
    """Which of our comments say so; that on the role does not count while it is needed."""
    comments = [actual.database.comment] if actual.database else []
    if actual.role is not None and not actual.serves_others:
        comments.append(actual.role.comment)
    records = [model.record_of(comment) for comment in comments]
    return [record is not None and record.retired is not None for record in records]


def access_wanted(item: DesiredDatabase, actual: Actual) -> AccessList:
    """Who is to have which privileges on the database."""
    now = actual.database.access if actual.database else {}
    others = {who: what for who, what in now.items() if who not in (PUBLIC, item.owner)}
    if item.grants is not None:
        others = dict(item.grants)
    elif item.readers is not None and actual.inside is not None:
        # who is no reader any more
        for name in actual.inside.readers.keys() - item.readers:
            others[name] = others.get(name, frozenset()) - {"CONNECT"}
    for name in item.readers or ():
        others[name] = others.get(name, frozenset()) | {"CONNECT"}
    return {item.owner: ALL_PRIVILEGES, **{who: what for who, what in others.items() if what}}


def access_retired(database: ActualDatabase) -> AccessList:
    """The privileges without those to connect."""
    return {who: what - {"CONNECT"} for who, what in database.access.items()}


def _role(role: ActualRole, facts: Facts) -> dict[str, Any]:
    shown: dict[str, Any] = {"role_attributes": _attributes(role)}
    if not facts.superuser:
        shown["administered"] = role.administered
    return shown


def _role_wanted(facts: Facts) -> dict[str, Any]:
    shown: dict[str, Any] = {"role_attributes": sorted(name for name, held in ROLE_ATTRIBUTES.items() if held)}
    if not facts.superuser:
        shown["administered"] = True
    return shown


def _attributes(role: ActualRole) -> list[str]:
    return sorted(name for name, held in role.attributes.items() if held)


def _locale_wanted(item: DesiredDatabase) -> str:
    return "as template0" if item.locale is None else f"{item.locale} ({item.locale_provider})"


def _access(database: ActualDatabase) -> str:
    """Who may connect without being named, besides superusers."""
    if not database.allows_connections:
        return "nobody"
    if database.access.get(PUBLIC):
        return "everybody"
    return "owner" if database.access.get(database.owner) == ALL_PRIVILEGES else "nobody"


def _grants(access: AccessList, owner: str) -> dict[str, list[str]]:
    """What others than the owner have."""
    return {who: sorted(what) for who, what in sorted(access.items()) if who not in (PUBLIC, owner)}
