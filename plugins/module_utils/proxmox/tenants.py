# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tenants of a cluster: pool, user, token, roles and access rights of each operator, as a provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import quote

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    Exists,
    HostingError,
    InvalidInput,
    NotFound,
    NotOwned,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, Transient
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.tenant_model import (
    ROLES,
    VM_PRIVILEGES,
    VMS,
    TenantActual,
    TenantDesired,
    grants_of,
    shown,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import (
    Applied,
    Change,
    Plan,
    Refusal,
    one_by_one,
)

# seconds before a change whose answer was lost is looked at and continued
REPEAT_DELAYS = (1.0, 2.0, 4.0)


class TokenStore(Protocol):
    """Where token secrets are kept, encrypted."""

    def get(self, tenant: str) -> str | None: ...

    def put(self, tenant: str, user: str, token: str, secret: str) -> None: ...

    def forget(self, tenant: str) -> None: ...

    def place(self, tenant: str) -> Mapping[str, str]:
        """Where the tenant's secret is, for the result."""


class Tenants:
    """Provider of tenants.

    :param works: whether the cluster takes (user, token, secret).
    :param more: privileges for the role on the pool beyond VM_PRIVILEGES.
    """

    kind: ClassVar[str] = "proxmox_tenants"

    def __init__(
        self, client: Client, store: TokenStore, works: Callable[[str, str, str], bool], more: frozenset[str]
    ) -> None:
        self._client = client
        self._store = store
        self._works = works
        self._roles = {**ROLES, VMS: VM_PRIVILEGES | more}
        self._rotated: set[str] = set()

    def read(self, desired: Sequence[TenantDesired]) -> Mapping[str, TenantActual]:
        """Four lists, then for each tenant its tokens (where the list of users lacks them) and a trial of its secret.

        :raises HostingError: a list cannot be read; further errors stay with their tenant.
        """
        usable = [tenant for tenant in desired if tenant.problem is None]
        pools = {str(row["poolid"]): str(row.get("comment") or "") for row in self._client.get("/pools")}
        users = {str(row["userid"]): row for row in self._client.get("/access/users", full=True)}
        roles = {
            str(row["roleid"]): frozenset(filter(None, str(row.get("privs") or "").split(",")))
            for row in self._client.get("/access/roles")
            if str(row["roleid"]) in self._roles
        }
        rows = self._client.get("/access/acl")
        found = {}
        for tenant in usable:
            try:
                found[tenant.name] = self._read_one(tenant, pools, users, roles, rows)
            except HostingError as error:
                found[tenant.name] = TenantActual(tenant.name, problem=error)
        return {name: actual for name, actual in found.items() if actual.pool or actual.user or actual.problem}

    def plan(
        self, desired: Sequence[TenantDesired], actual: Mapping[str, TenantActual]
    ) -> Plan[TenantDesired, TenantActual]:
        changes: list[Change[TenantDesired, TenantActual]] = []
        refusals: list[Refusal] = []
        for tenant in desired:
            present = actual.get(tenant.name)
            problem = tenant.problem or (present.problem if present else None)
            if problem is None and tenant.state == "absent" and present is not None and present.members:
                problem = InvalidInput(
                    f"the pool {tenant.pool} still has {', '.join(present.members)}",
                    where=f"tenant {tenant.name}",
                    hint="Delete its virtual machines first (proxmox_vms with state=absent)",
                )
            if problem is not None:
                refusals.append(Refusal(tenant.name, problem))
            else:
                changes.append(self._change_of(tenant, present))
        return Plan(tuple(changes), tuple(refusals))

    def apply(
        self, changes: Sequence[Change[TenantDesired, TenantActual]]
    ) -> Iterator[Applied[TenantDesired, TenantActual]]:
        return one_by_one(changes, self._apply_one)

    def outputs(self, actual: TenantActual) -> Mapping[str, Any]:
        return dict(actual.place)

    # reading

    def _read_one(
        self,
        tenant: TenantDesired,
        pools: Mapping[str, str],
        users: Mapping[str, Mapping[str, Any]],
        roles: Mapping[str, frozenset[str]],
        rows: Sequence[Mapping[str, Any]],
    ) -> TenantActual:
        user = users.get(tenant.user)
        for what, comment in ((f"pool {tenant.pool}", pools.get(tenant.pool)), (f"user {tenant.user}", _comment(user))):
            if comment is not None and comment != tenant.mark:
                raise NotOwned(
                    f"the {what} is there and not ours",
                    where=f"tenant {tenant.name}",
                    hint=f"Choose another name, or give it the comment {tenant.mark!r} if it is this operator's",
                )
        if tenant.state == "present" and user is not None and str(user.get("enable", 1)) == "0":
            raise Denied(
                f"the user {tenant.user} is disabled",
                where=f"tenant {tenant.name}",
                hint="Enable it, or remove the tenant",
            )
        token = self._token(tenant, user) if user is not None else None
        secret = self._store.get(tenant.name) if tenant.state == "present" and token is not None else None
        return TenantActual(
            name=tenant.name,
            pool=tenant.pool in pools,
            user=user is not None,
            token=token is not None,
            separate=token is not None and str(token.get("privsep", 1)) == "1",
            secret=secret is not None and self._works(tenant.user, tenant.token, secret),
            user_grants=grants_of(rows, tenant.user),
            token_grants=grants_of(rows, tenant.token_id),
            roles=roles,
            members=self._members(tenant) if tenant.state == "absent" and tenant.pool in pools else (),
            place=self._place(tenant),
        )

    def _token(self, tenant: TenantDesired, user: Mapping[str, Any]) -> Mapping[str, Any] | None:
        tokens = user.get("tokens")
        if not isinstance(tokens, list):
            tokens = self._client.get(f"/access/users/{_quoted(tenant.user)}/token")
        return next((token for token in tokens if token.get("tokenid") == tenant.token), None)

    def _members(self, tenant: TenantDesired) -> tuple[str, ...]:
        members = [row for pool in self._client.get("/pools", poolid=tenant.pool) for row in pool.get("members") or ()]
        return tuple(sorted(str(row.get("id") or row.get("vmid") or row.get("storage")) for row in members))

    def _place(self, tenant: TenantDesired) -> Mapping[str, str]:
        if tenant.state == "absent":
            return {}
        return {
            "pool": tenant.pool,
            "user": tenant.user,
            "token": tenant.token,
            **self._store.place(tenant.name),
        }

    # comparing

    def _change_of(self, tenant: TenantDesired, actual: TenantActual | None) -> Change[TenantDesired, TenantActual]:
        before = {} if actual is None else shown(tenant, actual)
        after: dict[str, Any] = {}
        if tenant.state == "present":
            renewed = tenant.rotate and tenant.name not in self._rotated and actual is not None and actual.secret
            wanted = TenantActual(
                name=tenant.name,
                pool=True,
                user=True,
                token=True,
                separate=True,
                secret=True,
                user_grants=tenant.grants,
                token_grants=tenant.grants,
                roles=self._roles,
            )
            after = {**shown(tenant, wanted), **({"secret": "a new one, stored"} if renewed else {})}
        if before == after:
            return Change(tenant.name, "unchanged", desired=tenant, actual=actual)
        action: Literal["create", "update", "delete"] = "update"
        if not (before and after):
            action = "create" if after else "delete"
        return Change(tenant.name, action, before, after, tenant, actual)

    # changing

    def _apply_one(self, change: Change[TenantDesired, TenantActual]) -> None:
        """Make the change; after an answer that does not tell what was done, look, and do what is left."""
        tenant = change.desired
        if tenant is None:
            raise BackendError("a change without desired state", where=change.name)
        for delay in REPEAT_DELAYS:
            try:
                return self._make(tenant, change)
            except (Transient, Exists):
                self._client.sleep(delay)
            plan = self.plan([tenant], self.read([tenant]))
            for refusal in plan.refusals:
                raise refusal.error
            change = plan.changes[0]
        return self._make(tenant, change)

    def _make(self, tenant: TenantDesired, change: Change[TenantDesired, TenantActual]) -> None:
        actual = change.actual or TenantActual(tenant.name)
        if change.action == "delete":
            self._delete(tenant, actual)
        elif change.action != "unchanged":
            self._set_roles()
            if not actual.pool:
                self._client.post("/pools", poolid=tenant.pool, comment=tenant.mark)
            if not actual.user:
                self._client.post("/access/users", userid=tenant.user, comment=tenant.mark)
            renew = tenant.rotate and tenant.name not in self._rotated
            if not actual.secret or renew:
                self._renew_token(tenant, actual)
                actual = TenantActual(tenant.name, user_grants=actual.user_grants)
            elif not actual.separate:
                self._client.put(_token_path(tenant), privsep=True)
            self._grant(tenant, actual)

    def _set_roles(self) -> None:
        """Roles belong to all tenants; whoever is changed first brings them into shape."""
        present = {
            str(row["roleid"]): set(filter(None, str(row.get("privs") or "").split(",")))
            for row in self._client.get("/access/roles")
        }
        for role, privileges in self._roles.items():
            privs = ",".join(sorted(privileges))
            if role not in present:
                self._client.post("/access/roles", roleid=role, privs=privs)
            elif present[role] != privileges:
                self._client.put(f"/access/roles/{role}", privs=privs)

    def _renew_token(self, tenant: TenantDesired, actual: TenantActual) -> None:
        """A new token under the same name, its secret stored at once.

        A crash before that leaves a token whose secret nobody has; the next run finds that no stored secret works.
        """
        if actual.token:
            self._client.delete(_token_path(tenant))
        made = self._client.post(_token_path(tenant), privsep=True, comment=tenant.mark)
        if not isinstance(made, dict) or not made.get("value"):
            raise BackendError("the server gave no secret", where=f"tenant {tenant.name}", hint="Run again")
        self._store.put(tenant.name, tenant.user, tenant.token, str(made["value"]))
        self._rotated.add(tenant.name)

    def _grant(self, tenant: TenantDesired, actual: TenantActual) -> None:
        """Exactly the wanted entries of user and token; deleting a token also deleted its entries."""
        sides = (("users", tenant.user, actual.user_grants), ("tokens", tenant.token_id, actual.token_grants))
        missing: dict[tuple[str, str], dict[str, str]] = {}
        for kind, subject, present in sides:
            for grant in tenant.grants - present:
                missing.setdefault(grant, {})[kind] = subject
            for path, role in present - tenant.grants:
                bare = path.removesuffix(" only")
                if (bare, role) not in tenant.grants:
                    self._client.put("/access/acl", path=bare, roles=role, delete=True, **{kind: subject})
        for (path, role), subjects in sorted(missing.items()):
            self._client.put("/access/acl", path=path, roles=role, propagate=True, **subjects)

    def _delete(self, tenant: TenantDesired, actual: TenantActual) -> None:
        """The pool first: the server refuses that as long as there is anything in it."""
        if actual.pool:
            _gone(lambda: self._client.delete("/pools", poolid=tenant.pool))
        if actual.user:
            _gone(lambda: self._client.delete(f"/access/users/{_quoted(tenant.user)}"))
        self._store.forget(tenant.name)


def _gone(call: Callable[[], Any]) -> None:
    try:
        call()
    except NotFound:
        return


def _quoted(user: str) -> str:
    return quote(user, safe="@")


def _token_path(tenant: TenantDesired) -> str:
    return f"/access/users/{_quoted(tenant.user)}/token/{quote(tenant.token)}"


def _comment(user: Mapping[str, Any] | None) -> str | None:
    return None if user is None else str(user.get("comment") or "")
