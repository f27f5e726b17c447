# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is refused, always with the item, its field and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput, NotOwned
from ansible_collections.fediversity.hosting.plugins.module_utils.names import POSTGRESQL_NAME_MAX
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import scram
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    MARK_PREFIX,
    PROVIDERS,
    Actual,
    ActualDatabase,
    Desired,
    DesiredDatabase,
    DesiredRole,
    Record,
    mark_of,
    moment,
    role_key,
)

# the first server that has the provider
PROVIDER_SINCE = {"libc": 130000, "icu": 150000, "builtin": 170000}


def check(item: Desired) -> None:
    """Refuse what PostgreSQL would cut, reserve, or understand as something else.

    :raises InvalidInput: with the field and the way out.
    """
    if isinstance(item, DesiredRole):
        _check_role(item, title(item), "name")
        return
    where = title(item)
    _check_name(item.name, where, "name")
    if item.name.startswith(role_key("")):
        raise InvalidInput(
            "the name reads like that of a role in the results", where=f"{where}, name", hint="Use another name"
        )
    _check_role(item.role(), where, "owner")
    for option, names in (("extensions", item.extensions), ("grants", item.grants or ()), ("readers", item.readers)):
        for name in sorted(names or ()):
            _check_name(name, where, option)
            if option != "extensions":
                _check_other(item, name, option)
    if item.locale_provider != "libc" and item.locale is None:
        raise InvalidInput(
            f"the provider {item.locale_provider} needs a locale",
            where=f"{where}, locale_provider",
            hint="Give locale too",
        )
    for option, value in (("encoding", item.encoding), ("locale", item.locale)):
        if value is not None and ("\0" in value or not _is_text(value)):
            raise InvalidInput("it cannot be sent", where=f"{where}, {option}", hint="Use plain text")
    _check_limit(item.conn_limit, where)


def title(item: Desired) -> str:
    """The item as errors name it."""
    return f"role {item.name!r}" if isinstance(item, DesiredRole) else f"database {item.name!r}"


def _check_role(role: DesiredRole, where: str, option: str) -> None:
    _check_name(role.name, where, option)
    _check_reserved(role.name, where, option)
    if not role.mark or not _is_text(role.mark) or "\0" in role.mark or mark_of(Record(role.mark).text()) != role.mark:
        raise InvalidInput("the mark holds white space", where=f"{where}, mark", hint="Use one word")
    if role.password is not None and role.verifier is not None:
        raise InvalidInput(
            "password and password_verifier are given", where=f"{where}, password_verifier", hint="Give one of them"
        )
    if role.password is not None and (not role.password or "\0" in role.password or not _is_text(role.password)):
        raise InvalidInput(
            "the password is empty or holds characters that cannot be sent",
            where=f"{where}, password",
            hint="Leave the option out to manage no password",
        )
    if role.verifier is not None:
        _check_verifier(role.verifier, where)
    for name in sorted(role.groups()):
        _check_name(name, where, "member_of or acts_as")
        if name == role.name:
            raise InvalidInput("a role cannot be a member of itself", where=f"{where}, member_of", hint="Remove it")
    if role.valid_until is not None:
        try:
            moment(role.valid_until)
        except (ValueError, OverflowError):
            raise InvalidInput(
                "it is no moment",
                where=f"{where}, valid_until",
                hint="Write it like 2027-01-31T12:00:00+01:00, or infinity",
            ) from None
    if role.conn_limit is not None:
        _check_limit(role.conn_limit, where)


def _check_verifier(text: str, where: str) -> None:
    try:
        scram.parse(text)
    except ValueError as error:
        raise InvalidInput(
            f"it is no SCRAM-SHA-256 verifier ({error}); the server would take it for a clear password",
            where=f"{where}, password_verifier",
            hint="Take it from pg_authid.rolpassword, or give password",
        ) from None


def _check_other(item: DesiredDatabase, name: str, option: str) -> None:
    where = title(item)
    if name == item.owner:
        raise InvalidInput("the owner has all privileges anyway", where=f"{where}, {option}", hint="Remove it")
    if name in ("public", "none"):
        raise InvalidInput(
            f"{name!r} is no role; what everybody has, no tenant is protected from",
            where=f"{where}, {option}",
            hint="Name the roles",
        )


def _check_name(name: str, where: str, option: str) -> None:
    size = len(name.encode(errors="surrogatepass"))
    if not name or "\0" in name or size > POSTGRESQL_NAME_MAX or not _is_text(name):
        raise InvalidInput(
            f"{option} has {size} bytes or characters that PostgreSQL has no place for",
            where=f"{where}, {option}",
            hint=f"Use 1 to {POSTGRESQL_NAME_MAX} bytes of UTF-8 without the null character",
        )


def _check_reserved(name: str, where: str, option: str) -> None:
    # src/backend/commands/user.c IsReservedName, src/include/catalog/pg_authid.dat
    if name in ("public", "none") or name.startswith("pg_"):
        raise InvalidInput(
            f"the role name {name!r} is reserved by PostgreSQL", where=f"{where}, {option}", hint="Choose another name"
        )


def _check_limit(limit: int, where: str) -> None:
    if not -1 <= limit < 1 << 31:
        raise InvalidInput(f"conn_limit is {limit}", where=f"{where}, conn_limit", hint="Use -1 or more")


def conflicts(desired: Sequence[Desired]) -> dict[str, InvalidInput]:
    """Items that contradict another one, by key: the same twice, or one role wanted in two ways."""
    found: dict[str, InvalidInput] = {}
    seen: set[str] = set()
    owners: dict[str, set[tuple[str, str | None, str | None]]] = {}
    for item in desired:
        if item.key in seen:
            found[item.key] = InvalidInput("it is listed twice", where=title(item), hint="Keep one of them")
        seen.add(item.key)
        if isinstance(item, DesiredDatabase):
            owners.setdefault(item.owner, set()).add((item.mark, item.password, item.verifier))
    for item in desired:
        if isinstance(item, DesiredRole):
            if item.name in owners:
                found[item.key] = InvalidInput(
                    "the role owns a database of this call and is made with it",
                    where=title(item),
                    hint="Remove it from roles, and give its password with the database",
                )
        elif len(owners[item.owner]) > 1:
            found[item.key] = InvalidInput(
                f"role {item.owner!r} is wanted with different passwords or marks",
                where=f"{title(item)}, owner",
                hint="Give all databases of one owner the same password and mark",
            )
    return found


def check_ownership(item: Desired, actual: Actual, login: str) -> None:
    """Refuse an item whose role or database is somebody else's.

    The mark of the role tells whose a database is, because an owner can write any comment on its database.

    :param login: who we are; a database that is being dropped may belong to us by now.
    :raises NotOwned: with the way out.
    :raises InvalidInput: the database belongs to another role than the item says.
    """
    role, database = actual.role, actual.database
    if role is not None and mark_of(role.comment) != item.mark:
        raise _not_owned("role", role.name, role.comment, item.mark)
    if database is None or isinstance(item, DesiredRole) or database.owner == item.owner:
        return
    if mark_of(database.comment) != item.mark:
        raise _not_owned("database", database.name, database.comment, item.mark)
    if item.state == "absent" and database.owner == login:
        return
    raise InvalidInput(
        f"the owner is {database.owner!r}, not {item.owner!r}",
        where=f"{title(item)}, owner",
        hint="Run REASSIGN OWNED in the database and ALTER DATABASE ... OWNER TO, or change the desired state",
    )


def check_known(item: Desired, known: frozenset[str]) -> None:
    """Refuse an item that names roles which neither the server nor the call has.

    :param known: all that there are, or are about to be.
    """
    if isinstance(item, DesiredRole):
        _check_all_known(item, "member_of or acts_as", item.groups(), known)
    else:
        _check_all_known(item, "grants", item.grants or (), known)
        _check_all_known(item, "readers", item.readers or (), known)


def _check_all_known(item: Desired, option: str, names: Iterable[str], known: frozenset[str]) -> None:
    missing = sorted(set(names) - known)
    if missing:
        raise InvalidInput(
            f"there is no role {missing[0]!r}", where=f"{title(item)}, {option}", hint="List it under roles"
        )


def check_server(item: DesiredDatabase, server_version: int) -> None:
    """Refuse what this server is too old for."""
    since = PROVIDER_SINCE[item.locale_provider]
    if server_version < since:
        raise InvalidInput(
            f"the provider {item.locale_provider} came with PostgreSQL {since // 10000}, "
            f"this server is PostgreSQL {server_version // 10000}",
            where=f"{title(item)}, locale_provider",
            hint="Use another provider or a newer server",
        )


def check_reachable(item: DesiredDatabase, database: ActualDatabase) -> None:
    """Refuse what cannot be changed in place.

    :raises InvalidInput: encoding or locale differ from the wish; with the way out.
    """
    where = title(item)
    way_out = "Dump it, drop it and restore the dump into a new one, or change the desired state"
    if _encoding(item.encoding) != _encoding(database.encoding):
        raise InvalidInput(
            f"the encoding is {database.encoding}, not {item.encoding}", where=f"{where}, encoding", hint=way_out
        )
    if item.locale is not None and not _same_locale(item, database):
        raise InvalidInput(
            f"the locale is {locale_text(database)}, not {item.locale} ({item.locale_provider})",
            where=f"{where}, locale",
            hint=way_out,
        )


def locale_text(database: ActualDatabase) -> str:
    """The locale for people."""
    provider = PROVIDERS.get(database.provider, database.provider)
    if database.locale is not None:
        return f"{database.locale} ({provider})"
    if database.collate == database.ctype:
        return f"{database.collate} ({provider})"
    return f"{database.collate} (LC_COLLATE) and {database.ctype} (LC_CTYPE)"


def _same_locale(item: DesiredDatabase, database: ActualDatabase) -> bool:
    wanted = item.locale or ""
    if PROVIDERS.get(database.provider) != item.locale_provider:
        return False
    if item.locale_provider == "libc":
        return {_libc(database.collate), _libc(database.ctype)} == {_libc(wanted)}
    if item.locale_provider == "icu":
        return _icu(database.locale or "") == _icu(wanted)
    return _libc(database.locale or "") == _libc(wanted)


def _not_owned(kind: str, name: str, comment: str | None, mark: str) -> NotOwned:
    whose = mark_of(comment)
    return NotOwned(
        f"the {kind} exists and belongs to {whose!r}" if whose else f"the {kind} exists and carries no mark of ours",
        where=f"{kind} {name!r}",
        hint=f"Choose another name, or give it to us with COMMENT ON {kind.upper()} ... IS '{MARK_PREFIX}{mark}'",
    )


def _is_text(value: str) -> bool:
    """Whether *value* can be sent as UTF-8 (no lone surrogates)."""
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _encoding(name: str) -> str:
    return name.upper().replace("-", "").replace("_", "")


def _libc(name: str) -> str:
    """Spelling variants of one locale made equal: C.UTF-8 and C.utf8, POSIX and C."""
    language, _dot, codeset = name.partition(".")
    return f"{'C' if language == 'POSIX' else language}.{_encoding(codeset)}"


def _icu(name: str) -> str:
    """The server keeps language tags: en_US and en-US, the empty one and root and und."""
    tag = name.replace("_", "-").lower()
    return "und" if tag in ("", "root") else tag
