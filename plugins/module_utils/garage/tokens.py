# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Admin tokens: what is wanted, what Garage shows, and the decisions about them. No effects.

Garage shows a token only once, when it makes it. So a token is made as ``<name> (new)``, written to its file, and only
then gets its name: whatever is left as ``(new)`` and is not in the file is known to nobody. Its predecessor stays
valid for a while as ``<name> (old)``. A file tells which token it holds, because a token begins with its id.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Exists, HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.checks import check_expiration, check_owned
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.files import SecretFile
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import (
    NEVER,
    as_list,
    expiration_from,
    instant,
    now,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.scopes import ALL, ENDPOINTS, TOKENS
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Change

NEW, OLD = " (new)", " (old)"
# prefix (the id), dot, secret; src/model/admin_token_table.rs
TOKEN = re.compile(r"([0-9a-f]{24})\.[A-Za-z0-9_-]{43}\Z")
LIFETIME_MAX = 36500


@dataclass(frozen=True)
class DesiredToken:
    """A token; None for ``scope`` or ``expiration``: leave it. ``lifetime``: days, instead of an expiration."""

    name: str
    scope: tuple[str, ...] | None = None
    expiration: str | None = None
    lifetime: int | None = None
    token_file: str | None = None
    present: bool = True


@dataclass(frozen=True)
class TokenRow:
    """One token as ListAdminTokens shows it; ``scope`` is sorted."""

    id: str
    name: str
    expired: bool
    expiration: str
    scope: tuple[str, ...]


@dataclass(frozen=True)
class ActualToken:
    """``live``: tokens of the name; ``new``: tokens in the making; ``old``: predecessors. ``file``: if there is one."""

    live: tuple[TokenRow, ...] = ()
    new: tuple[TokenRow, ...] = ()
    old: tuple[TokenRow, ...] = ()
    file: SecretFile | None = None

    @property
    def file_id(self) -> str | None:
        """Id of the token in the file; empty: the file holds something else; None: there is no file."""
        if self.file is None or self.file.content is None:
            return None
        found = TOKEN.match(self.file.content)
        return found.group(1) if found else ""


@dataclass(frozen=True)
class Steps:
    """What is to be done for one token, in this order.

    ``make``: a new token goes to the file; ``retire``: become predecessors; ``update``: (id, body of UpdateAdminToken);
    ``drop``: are deleted; ``protect``: the file gets its mode.
    """

    make: bool = False
    retire: tuple[TokenRow, ...] = ()
    update: tuple[str, dict[str, Any]] | None = None
    drop: tuple[TokenRow, ...] = ()
    protect: bool = False


@dataclass(frozen=True)
class Decision:
    """``current`` is the token that stays; None: there is none yet."""

    current: TokenRow | None = None
    steps: Steps = field(default_factory=Steps)


TokenChange = Change[DesiredToken, ActualToken]


def token_rows(answer: Sequence[Mapping[str, Any]]) -> tuple[TokenRow, ...]:
    """The tokens of a ListAdminTokens answer, sorted by id, without the one of the configuration file."""
    rows = [
        TokenRow(row["id"], row["name"], row["expired"], expiration_from(row), tuple(sorted(row["scope"])))
        for row in as_list(answer)
        if row.get("id") is not None
    ]
    return tuple(sorted(rows, key=lambda row: row.id))


def id_of(admin_token: str) -> str:
    """Id of the token in use; empty for the one of the configuration file."""
    return admin_token.partition(".")[0] if "." in admin_token else ""


def plan_token(wanted: DesiredToken, actual: ActualToken, caller: str) -> TokenChange:
    """:param caller: id of the token in use.

    :raises HostingError: the token is refused.
    """
    check_token(wanted)
    if not wanted.present:
        return _plan_deletion(wanted, actual, caller)
    decision = decide(wanted, actual, caller)
    current = decision.current
    if current is not None and current.id == caller:
        _check_not_locked_out(wanted)
    before = {} if current is None else _show(wanted, current, actual)
    after = _show_wanted(wanted, decision)
    if current is None:
        return Change(wanted.name, "create", before, after, wanted, actual)
    return Change(wanted.name, "unchanged" if decision.steps == Steps() else "update", before, after, wanted, actual)


def decide(wanted: DesiredToken, actual: ActualToken, caller: str) -> Decision:
    """What is to be done for a token that is wanted.

    :param caller: id of the token in use.
    :raises HostingError: it cannot be done.
    """
    current = _current(wanted, actual)
    # nobody has a token that was never written, unless it is the one in use
    kept = {caller, current.id if current else ""}
    unwritten = tuple(row for row in actual.new if row.id not in kept)
    ended = tuple(row for row in actual.old if row.expired)
    protect = actual.file is not None and not actual.file.private
    if current is None:
        if wanted.scope is None or wanted.token_file is None:
            raise InvalidInput(
                "the token does not exist, and to make it scope (or presets) and token_file are needed",
                where=f"token {wanted.name}",
                hint="Garage shows a token only once, so it must be written somewhere",
            )
        return Decision(None, Steps(make=True, drop=unwritten + ended))
    replaced = tuple(row for row in actual.live if current in actual.new)
    if wanted.lifetime is not None and _is_due(current, wanted.lifetime):
        if wanted.token_file is None:
            raise InvalidInput(
                "the token is to be replaced and token_file is not given", where=f"token {wanted.name}", hint="Give it"
            )
        return Decision(current, _replacing((*replaced, current), Steps(make=True, drop=unwritten + ended)))
    if current.expired and wanted.expiration is None:
        raise InvalidInput(
            f"the token expired at {current.expiration}",
            where=f"token {wanted.name}",
            hint="Give expiration or never_expires to make it valid again, or lifetime to have it replaced",
        )
    body = _update(wanted, current)
    update = (current.id, body) if body else None
    return Decision(current, _replacing(replaced, Steps(update=update, drop=unwritten + ended, protect=protect)))


def _replacing(rows: Sequence[TokenRow], steps: Steps) -> Steps:
    """*steps* in which *rows* become predecessors, or go if they have ended already."""
    retire = tuple(row for row in rows if not row.expired)
    return replace(steps, retire=retire, drop=steps.drop + tuple(row for row in rows if row.expired))


def _current(wanted: DesiredToken, actual: ActualToken) -> TokenRow | None:
    """The token that the file holds, or without a file the only one of the name."""
    where = f"token {wanted.name}"
    if len(actual.live) > 1:
        raise Exists(
            f"{len(actual.live)} tokens have this name: {', '.join(row.id for row in actual.live)}",
            where=where,
            hint="Delete all but one with 'garage admin-token delete'; state absent deletes all of them",
        )
    if wanted.token_file is None:
        return actual.live[0] if actual.live else None
    if actual.file_id is None:
        if actual.live:
            raise Exists(
                "the token exists, its file does not, and Garage shows a token only once",
                where=f"{where}, token_file",
                hint="Put the file back, or delete the token (state absent) and have a new one made",
            )
        return None
    for row in (*actual.live, *actual.new):
        if row.id == actual.file_id:
            return row
    raise Exists(
        "the file holds something else than a token of this name",
        where=f"{where}, token_file",
        hint="Move it away or give another path",
    )


def _is_due(current: TokenRow, lifetime: int) -> bool:
    """Whether less than a third of the lifetime is left, or more than all of it."""
    if current.expired or current.expiration == NEVER:
        return True
    return not in_days(lifetime / 3) < current.expiration < in_days(lifetime + 1)


def in_days(days: float) -> str:
    """The instant so many days from now."""
    return instant((datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="milliseconds"))


def _update(wanted: DesiredToken, current: TokenRow) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if current.name != wanted.name:
        body["name"] = wanted.name
    if wanted.scope is not None and wanted.scope != current.scope:
        body["scope"] = list(wanted.scope)
    if wanted.expiration is not None and wanted.expiration != current.expiration:
        body |= {"neverExpires": True} if wanted.expiration == NEVER else {"expiration": wanted.expiration}
    return body


def _plan_deletion(wanted: DesiredToken, actual: ActualToken, caller: str) -> TokenChange:
    rows = (*actual.live, *actual.new, *actual.old)
    if caller and caller in {row.id for row in rows}:
        raise InvalidInput(
            "it is the token in use, and without it this run could not go on",
            where=f"token {wanted.name}",
            hint="Use another one to delete it",
        )
    before = {"ids": [row.id for row in rows]}
    return Change(wanted.name, "delete" if rows else "unchanged", before if rows else {}, {}, wanted, actual)


def _check_not_locked_out(wanted: DesiredToken) -> None:
    if wanted.scope is not None and ALL not in wanted.scope and not set(TOKENS) <= set(wanted.scope):
        raise InvalidInput(
            f"it is the token in use and would lose {', '.join(sorted({*TOKENS} - {*wanted.scope}))}",
            where=f"token {wanted.name}, scope",
            hint="Add the preset tokens, or use another token to narrow this one",
        )
    if wanted.expiration not in (None, NEVER) and str(wanted.expiration) <= now():
        raise InvalidInput(
            "it is the token in use and would expire at once",
            where=f"token {wanted.name}, expiration",
            hint="Use another token for this",
        )


def conflicts(desired: Sequence[DesiredToken]) -> dict[str, HostingError]:
    """Tokens that are given twice, or whose file is also that of another."""
    names = Counter(wanted.name for wanted in desired)
    files = Counter(wanted.token_file for wanted in desired if wanted.present and wanted.token_file is not None)
    errors: dict[str, HostingError] = {}
    for wanted in desired:
        where = f"token {wanted.name}"
        if names[wanted.name] > 1:
            errors[wanted.name] = InvalidInput(f"is given {names[wanted.name]} times", where=where, hint="Give it once")
        elif wanted.present and wanted.token_file is not None and files[wanted.token_file] > 1:
            errors[wanted.name] = InvalidInput(
                "another token has the same file", where=f"{where}, token_file", hint="Give each its own"
            )
    return errors


def check_token(wanted: DesiredToken) -> None:
    """:raises InvalidInput: the token is refused whatever Garage has."""
    where = f"token {wanted.name}"
    check_owned(wanted.name, where)
    if wanted.name.endswith((NEW, OLD)):
        raise InvalidInput("the end of the name is used for predecessors and successors", where=where, hint="Change it")
    if not wanted.present:
        return
    unknown = sorted({*(wanted.scope or ())} - ENDPOINTS - {ALL})
    if unknown or wanted.scope == ():
        raise InvalidInput(
            f"{', '.join(map(repr, unknown))}: no endpoint of the admin API" if unknown else "the scope is empty",
            where=f"{where}, scope",
            hint="Give names such as ListKeys, or * for all",
        )
    check_expiration(wanted.expiration, f"{where}, expiration")
    if wanted.lifetime is not None and not 1 <= wanted.lifetime <= LIFETIME_MAX:
        raise InvalidInput(
            f"{wanted.lifetime} is no number of days",
            where=f"{where}, lifetime",
            hint=f"Use 1 to {LIFETIME_MAX}",
        )
    if wanted.lifetime is not None and wanted.expiration is not None:
        raise InvalidInput("it excludes expiration and never_expires", where=f"{where}, lifetime", hint="Give one")


def _show(wanted: DesiredToken, current: TokenRow, actual: ActualToken) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": current.id, "scope": list(current.scope), "expiration": current.expiration}
    if current.name != wanted.name:
        shown["name"] = current.name
    if actual.file is not None and actual.file.content is not None:
        shown["token_file"] = "written" if actual.file.private else "readable for others"
    return shown


def _show_wanted(wanted: DesiredToken, decision: Decision) -> dict[str, Any]:
    current, steps = decision.current, decision.steps
    if current is None or steps.make:
        scope = wanted.scope if wanted.scope is not None or current is None else current.scope
        shown: dict[str, Any] = {"id": "made by Garage", "scope": list(scope or ()), "expiration": _show_end(wanted)}
    else:
        scope = wanted.scope if wanted.scope is not None else current.scope
        shown = {"id": current.id, "scope": list(scope), "expiration": wanted.expiration or current.expiration}
    if wanted.token_file is not None:
        shown["token_file"] = "written"
    if steps.retire:
        shown["replaces"] = [row.id for row in steps.retire]
    if steps.drop:
        shown["deletes"] = [row.id for row in steps.drop]
    return shown


def _show_end(wanted: DesiredToken) -> str:
    return f"in {wanted.lifetime} days" if wanted.lifetime is not None else wanted.expiration or NEVER
