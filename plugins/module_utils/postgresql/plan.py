# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decisions: what is to be done with each item, without any effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import checks, inside, shown
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.catalogue import Facts
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    Actual,
    Desired,
    DesiredDatabase,
    DesiredRole,
    mark_of,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import (
    Change,
    Plan,
    Refusal,
    Share,
)

ItemChange: TypeAlias = "Change[Desired, Actual]"


@dataclass(frozen=True)
class Policy:
    """What is to become of things, as the module options say.

    :param unlisted: what becomes of databases and roles of ours that are not listed.
    :param mark_prefix: only those whose mark begins so.
    :param roles_listed: roles were given at all; otherwise those that own no database are left alone.
    :param dump_dir: where a final dump goes before a database is dropped.
    """

    unlisted: Literal["keep", "retired"] = "keep"
    mark_prefix: str = ""
    roles_listed: bool = False
    dump_dir: Path | None = None
    dump_jobs: int = 2
    drop_without_dump: bool = False


@dataclass(frozen=True)
class Setting:
    """What a plan must know besides the items.

    :param compares: verifiers can be compared; otherwise passwords are found out by logging in.
    :param known: the roles named in options that exist.
    :param no_dump: why no final dump can be made.
    :param untrusted: the missing extensions that the server has files of; true if only a superuser can make them.
    """

    facts: Facts
    compares: bool = True
    known: frozenset[str] = frozenset()
    untrusted: Mapping[str, bool] = field(default_factory=dict)
    no_dump: HostingError | None = None


def plan(
    desired: Sequence[Desired], actual: Mapping[str, Actual], setting: Setting, policy: Policy
) -> Plan[Desired, Actual]:
    """The changes of all items, first those that are listed."""
    refused: dict[str, HostingError] = dict(checks.conflicts(desired))
    changes: list[ItemChange] = []
    # whoever names a role that only a refused item would make is refused too; each round refuses more, or is the last
    for _round in range(len(desired) + 1):
        accepted = [item for item in desired if item.key not in refused]
        after = replace(setting, known=_known_after(accepted, setting.known))
        changes, refusals = _each(accepted, actual, after, policy)
        refused |= refusals
        if not refusals:
            break
    retired, refusals = _each(unlisted(desired, actual, policy), actual, setting, policy)
    # what was retired before is no news
    changes += [one for one in retired if one.action != "unchanged"]
    return Plan(tuple(changes), tuple(Refusal(key, error) for key, error in (refused | refusals).items()))


def _each(
    items: Sequence[Desired], actual: Mapping[str, Actual], setting: Setting, policy: Policy
) -> tuple[list[ItemChange], dict[str, HostingError]]:
    """The changes of *items*, and why the others are refused."""
    changes: list[ItemChange] = []
    refusals: dict[str, HostingError] = {}
    for item in items:
        try:
            checks.check(item)
            changes.append(change(item, actual.get(item.key) or missing(item), setting, policy))
        except HostingError as error:
            refusals[item.key] = error
    return changes, refusals


def shares(policy: Policy, plan_of_all: Plan[Desired, Actual], actual: Mapping[str, Actual]) -> Iterator[Share]:
    """What is taken away of what is listed and of what *policy* is about; retiring takes away as much as dropping."""
    pending = plan_of_all.pending()
    listed = {one.name for one in plan_of_all.changes} | {one.name for one in plan_of_all.refusals}
    existing = [key for key, found in actual.items() if key in listed or _marks(found).startswith(policy.mark_prefix)]
    taken = {one.name for one in pending if one.action == "delete" or one.after.get("state") == "retired"}
    updated = [one.name for one in pending if one.action == "update" and one.name not in taken]
    yield Share("", len(existing), sorted(taken), updated)


def _marks(actual: Actual) -> str:
    """The mark of the role; only there the tenant cannot change it."""
    return (mark_of(actual.role.comment) if actual.role is not None else None) or ""


def unlisted(desired: Sequence[Desired], actual: Mapping[str, Actual], policy: Policy) -> list[Desired]:
    """The items that are to be retired because nobody lists them."""
    if policy.unlisted == "keep":
        return []
    keys = {item.key for item in desired}
    owners = {item.owner for item in desired if isinstance(item, DesiredDatabase)}
    owners |= {found.database.owner for found in actual.values() if found.database is not None}
    items: list[Desired] = []
    for key, found in actual.items():
        mark = _marks(found)
        if key in keys or not mark or not mark.startswith(policy.mark_prefix):
            continue
        if found.database is not None:
            items.append(DesiredDatabase(found.database.name, found.database.owner, mark, state="retired"))
        elif found.role is not None and policy.roles_listed and found.role.name not in owners:
            items.append(DesiredRole(found.role.name, mark, state="retired"))
    return items


def missing(item: Desired) -> Actual:
    """What the server has of an item of which it has nothing."""
    role = item.role() if isinstance(item, DesiredDatabase) else item
    managed = role.password is not None or role.verifier is not None
    return Actual(role=None, database=None, password="differs" if managed else "not managed")


def change(item: Desired, actual: Actual, setting: Setting, policy: Policy) -> ItemChange:
    """The change that one item needs.

    :raises HostingError: the item is refused.
    """
    checks.check_ownership(item, actual, setting.facts.login)
    if item.verifier is not None and item.state == "present" and not setting.compares:
        raise InvalidInput(
            "a verifier can only be compared with pg_authid, which login_user may not read",
            where=f"{checks.title(item)}, password_verifier",
            hint="Give password instead, or use a superuser",
        )
    if isinstance(item, DesiredRole):
        return _role_change(item, actual, setting)
    if item.state == "absent":
        return _drop(item, actual, setting, policy)
    if item.state == "retired":
        return _retire(item, actual)
    checks.check_server(item, setting.facts.version)
    _check_readers(item, setting.facts)
    checks.check_known(item, setting.known)
    if actual.problem is not None:
        raise actual.problem
    if actual.database is not None:
        checks.check_reachable(item, actual.database)
    _check_extensions(item, actual, setting.untrusted)
    before = shown.database_now(item, actual, setting.facts)
    after = shown.database_wanted(item, actual, setting.facts)
    if actual.database is None:
        return Change(item.key, "create", before, after, item, actual)
    return Change(item.key, "unchanged" if before == after else "update", before, after, item, actual)


def _role_change(item: DesiredRole, actual: Actual, setting: Setting) -> ItemChange:
    before = shown.role_now(item, actual, setting.facts)
    if actual.role is None and item.state != "present":
        return Change(item.key, "unchanged", {}, {}, item, actual)
    if item.state == "absent":
        _check_owns_nothing(item, actual)
        return Change(item.key, "delete", before, {}, item, actual)
    if item.state == "retired":
        return _retire(item, actual)
    checks.check_known(item, setting.known)
    if actual.problem is not None:
        raise actual.problem
    after = shown.role_wanted(item, actual, setting.facts)
    if actual.role is None:
        return Change(item.key, "create", before, after, item, actual)
    return Change(item.key, "unchanged" if before == after else "update", before, after, item, actual)


def _retire(item: Desired, actual: Actual) -> ItemChange:
    if isinstance(item, DesiredDatabase) and actual.database is None:
        return Change(item.key, "unchanged", {}, {}, item, actual)
    before, after = shown.database_retirable(actual), shown.database_retired(actual)
    return Change(item.key, "unchanged" if before == after else "update", before, after, item, actual)


def _drop(item: DesiredDatabase, actual: Actual, setting: Setting, policy: Policy) -> ItemChange:
    role_stays = actual.role is None or actual.owns_others
    if actual.database is None and role_stays:
        return Change(item.key, "unchanged", {}, {}, item, actual)
    if actual.database is not None and policy.dump_dir is None and not policy.drop_without_dump:
        raise InvalidInput(
            "it is not dropped without a final dump",
            where=f"{checks.title(item)}, state",
            hint="Give dump_dir, or retire it, or say drop_without_dump: true",
        )
    if actual.database is not None and setting.no_dump is not None:
        raise setting.no_dump
    if not role_stays:
        _check_owns_nothing(item, actual)
    return Change(item.key, "delete", shown.database_now(item, actual, setting.facts), {}, item, actual)


def _check_owns_nothing(item: Desired, actual: Actual) -> None:
    """Refuse to drop a role with which data would go that nobody has asked to drop."""
    role = actual.role
    there = role.owns_in if role is not None else ()
    if role is None or not (there or (actual.owns_others and isinstance(item, DesiredRole))):
        return
    where = f"the database {there[0]!r} holds objects of it" if there else "it owns a database"
    raise InvalidInput(
        f"the role {role.name!r} cannot be dropped: {where}",
        where=f"{checks.title(item)}, state",
        hint="Run REASSIGN OWNED there, drop the database, or retire the role",
    )


def _check_readers(item: DesiredDatabase, facts: Facts) -> None:
    if item.readers and facts.version < 150000 and not facts.superuser:
        raise InvalidInput(
            "before PostgreSQL 15 everybody may create in the schema public, and only a superuser can change that",
            where=f"{checks.title(item)}, readers",
            hint="Use a superuser or a newer server",
        )


def _check_extensions(item: DesiredDatabase, actual: Actual, untrusted: Mapping[str, bool]) -> None:
    """Refuse extensions that cannot be made."""
    there = actual.inside.extensions if actual.inside is not None else {}
    for name in item.extensions:
        where = f"{checks.title(item)}, extensions"
        if name in there:
            continue
        if name not in untrusted:
            raise InvalidInput(
                f"the server has no extension {name!r}",
                where=where,
                hint="Install the package that holds it on the server, or remove it from the list",
            )
        # what nobody could look into may have it already
        if untrusted[name] and not (actual.database is not None and actual.inside is None):
            raise InvalidInput(
                f"the extension {name!r} is untrusted: only a superuser may make it",
                where=where,
                hint="Make the database without it, have a superuser make it there, then list it",
            )


def missing_extensions(desired: Sequence[Desired], actual: Mapping[str, Actual]) -> set[str]:
    """The extensions that some item needs and its database does not have."""
    wanted: set[str] = set()
    for item in desired:
        if isinstance(item, DesiredDatabase) and item.state == "present":
            found = actual[item.key].inside if item.key in actual else None
            wanted |= set(item.extensions) - (found.extensions.keys() if found is not None else set())
    return wanted


def _known_after(desired: Sequence[Desired], known: frozenset[str]) -> frozenset[str]:
    """The roles that there are after the run."""
    leaving = {_role_of(item) for item in desired if item.state == "absent"}
    staying = {_role_of(item) for item in desired if item.state == "present"}
    return (known - leaving) | staying


def _role_of(item: Desired) -> str:
    return item.name if isinstance(item, DesiredRole) else item.owner


def needs_inside(item: DesiredDatabase, actual: Actual, facts: Facts) -> bool:
    """Whether the change of a database goes on inside it."""
    if actual.database is None or actual.inside is None:
        return bool(item.extensions or item.readers) or inside.closes_public(facts)
    recorded = inside.recorded_rightly(item, actual.database, actual.inside)
    return not (recorded and inside.fits(item, actual.inside))
