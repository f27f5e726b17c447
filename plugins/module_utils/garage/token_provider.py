# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Admin tokens of a Garage cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    NotFound,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.files import read_secret, reserved
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.model import NEVER, is_owned
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.provider import understood
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.scopes import ALL
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.tokens import (
    NEW,
    OLD,
    ActualToken,
    DesiredToken,
    TokenChange,
    TokenRow,
    conflicts,
    decide,
    in_days,
    plan_token,
    token_rows,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Applied, Plan, Refusal, one_by_one

# ListAdminTokens ends there without saying so
LIST_TOKENS_MAX = 10_000


class TokenProvider:
    """Reads with one list; writes one token at a time."""

    kind: ClassVar[str] = "garage_admin_tokens"

    def __init__(self, client: Client, caller: str) -> None:
        """:param caller: id of the token that *client* uses, empty for the one of the configuration file."""
        self._client = client
        self._caller = caller
        self._problems: Mapping[str, HostingError] = {}

    def read(self, desired: Sequence[DesiredToken]) -> Mapping[str, ActualToken]:
        """All tokens of ours, by name."""
        rows = understood(token_rows, self._client.get("ListAdminTokens"))
        if len(rows) >= LIST_TOKENS_MAX:
            raise BackendError(
                f"Garage lists only its first {LIST_TOKENS_MAX} tokens, so a token may exist without being seen",
                where="ListAdminTokens",
                hint="Delete tokens that nobody uses",
            )
        owned = [row for row in rows if is_owned(row.name)]
        names = {row.name.removesuffix(NEW).removesuffix(OLD) for row in owned} | {wanted.name for wanted in desired}
        files = {wanted.name: wanted.token_file for wanted in desired if wanted.present}
        problems: dict[str, HostingError] = {}
        actual: dict[str, ActualToken] = {}
        for name in sorted(names):
            path, file = files.get(name), None
            try:
                file = None if path is None else read_secret(path, f"token {name}, token_file")
            except HostingError as error:
                problems[name] = error
            kinds = [tuple(row for row in owned if row.name == name + mark) for mark in ("", NEW, OLD)]
            if any(kinds) or (file is not None and file.content is not None):
                actual[name] = ActualToken(kinds[0], kinds[1], kinds[2], file)
        self._problems = problems
        return actual

    def plan(
        self, desired: Sequence[DesiredToken], actual: Mapping[str, ActualToken]
    ) -> Plan[DesiredToken, ActualToken]:
        changes: list[TokenChange] = []
        refusals: list[Refusal] = []
        errors = {**self._problems, **conflicts(desired)}
        for name, wanted in {wanted.name: wanted for wanted in desired}.items():
            try:
                if name in errors:
                    raise errors[name]
                changes.append(plan_token(wanted, actual.get(name, ActualToken()), self._caller))
            except HostingError as error:
                refusals.append(Refusal(name, error))
        # the token in use comes last: nothing of this run depends on it then
        changes.sort(key=lambda change: (change.action == "delete", _has(change.actual, self._caller)))
        return Plan(tuple(changes), tuple(refusals))

    def apply(self, changes: Sequence[TokenChange]) -> Iterator[Applied[DesiredToken, ActualToken]]:
        for applied in one_by_one(changes, self._apply_one):
            yield applied
            if isinstance(applied.error, Unreachable):
                raise applied.error

    def _apply_one(self, change: TokenChange) -> None:
        wanted, actual = change.desired, change.actual or ActualToken()
        if wanted is None:
            return
        if change.action == "delete":
            for row in (*actual.live, *actual.new, *actual.old):
                self._delete(row)
            return
        decision = decide(wanted, actual, self._caller)
        steps = decision.steps
        where = f"token {wanted.name}, token_file"
        if steps.make:
            self._make(wanted, decision.current, steps.retire, where)
        else:
            for row in steps.retire:
                self._retire(wanted, row)
        if steps.update is not None:
            token_id, body = steps.update
            self._client.post("UpdateAdminToken", body, id=token_id)
        if steps.protect and wanted.token_file is not None and actual.file is not None and actual.file.content:
            with reserved(wanted.token_file, where) as keep:
                keep(actual.file.content)
        for row in steps.drop:
            self._delete(row)

    def _make(self, wanted: DesiredToken, current: TokenRow | None, retire: Sequence[TokenRow], where: str) -> None:
        scope = wanted.scope if wanted.scope is not None else current.scope if current else (ALL,)
        body: dict[str, Any] = {"name": wanted.name + NEW, "scope": list(scope)}
        expiration = wanted.expiration if wanted.lifetime is None else in_days(wanted.lifetime)
        body |= {"neverExpires": True} if expiration in (None, NEVER) else {"expiration": expiration}
        with reserved(str(wanted.token_file), where) as keep:
            made = understood(dict, self._client.post("CreateAdminToken", body))
            keep(understood(lambda answer: str(answer["secretToken"]), made))
        for row in retire:
            self._retire(wanted, row)
        self._client.post("UpdateAdminToken", {"name": wanted.name}, id=str(made["id"]))

    def _retire(self, wanted: DesiredToken, row: TokenRow) -> None:
        """Make *row* a predecessor: it ends soon, and until then whoever has it can go on."""
        body: dict[str, Any] = {"name": wanted.name + OLD}
        end = in_days((wanted.lifetime or 1) / 3)
        # "never" is greater than any instant
        if end < row.expiration:
            body["expiration"] = end
        self._client.post("UpdateAdminToken", body, id=row.id)

    def _delete(self, row: TokenRow) -> None:
        try:
            self._client.post("DeleteAdminToken", id=row.id)
        except NotFound:
            return  # somebody else was faster

    def outputs(self, actual: ActualToken) -> Mapping[str, Any]:
        """``id``, ``scope`` and ``expiration``."""
        if len(actual.live) != 1:
            return {}
        row = actual.live[0]
        return {
            "id": row.id,
            "scope": list(row.scope),
            "expiration": None if row.expiration == NEVER else row.expiration,
        }


def _has(actual: ActualToken | None, token_id: str) -> bool:
    return actual is not None and token_id in {row.id for row in (*actual.live, *actual.new, *actual.old)}
