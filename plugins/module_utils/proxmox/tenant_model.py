# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a tenant of a cluster is: roles, rights, and the items of the module. Pure.

A tenant can do everything with the virtual machines of its pool and see nothing else. A token has separate privileges:
its rights are those that both the user's and its own entries give, so every right is granted to both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.names import check_slug

ROLE_PREFIX = "Fediversity"
VMS, DISKS, NETWORKS, TEMPLATES = (f"{ROLE_PREFIX}{part}" for part in ("Vms", "Disks", "Networks", "Templates"))
# Pool.Audit lets the tenant see which pool its machines are in
VM_PRIVILEGES = frozenset(
    {
        "Pool.Audit",
        "VM.Allocate",
        "VM.Audit",
        "VM.Config.CDROM",
        "VM.Config.CPU",
        "VM.Config.Cloudinit",
        "VM.Config.Disk",
        "VM.Config.HWType",
        "VM.Config.Memory",
        "VM.Config.Network",
        "VM.Config.Options",
        "VM.GuestAgent.Audit",
        "VM.PowerMgmt",
    }
)
ROLES: Mapping[str, frozenset[str]] = {
    VMS: VM_PRIVILEGES,
    DISKS: frozenset({"Datastore.AllocateSpace", "Datastore.Audit"}),
    NETWORKS: frozenset({"SDN.Use"}),
    TEMPLATES: frozenset({"VM.Audit", "VM.Clone"}),
}
USER = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z][A-Za-z0-9._-]+\Z")
TOKEN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]+\Z")
PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


@dataclass(frozen=True)
class TenantDesired:
    """One operator on the cluster.

    :param user: with realm.
    :param token: the part after the ``!``.
    :param networks: ``zone/network``.
    :param problem: why this item cannot be used; everything else of it is then meaningless.
    """

    name: str
    state: Literal["present", "absent"] = "present"
    pool: str = ""
    user: str = ""
    token: str = ""
    storages: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    templates: tuple[int, ...] = ()
    rotate: bool = False
    problem: HostingError | None = None

    @property
    def mark(self) -> str:
        """Comment by which pool and user are ours."""
        return f"fediversity:operator:{self.name}"

    @property
    def token_id(self) -> str:
        return f"{self.user}!{self.token}"

    @property
    def grants(self) -> frozenset[tuple[str, str]]:
        """(path, role), for the user and for the token."""
        return frozenset(
            {
                (f"/pool/{self.pool}", VMS),
                *((f"/storage/{storage}", DISKS) for storage in self.storages),
                *((f"/sdn/zones/{network}", NETWORKS) for network in self.networks),
                *((f"/vms/{vmid}", TEMPLATES) for vmid in self.templates),
            }
        )


@dataclass(frozen=True)
class TenantActual:
    """What the cluster has of one tenant.

    :param token: whether there is one; ``separate`` whether it has only the rights of its own.
    :param secret: whether the stored secret is that of the token.
    :param user_grants: (path, role) that propagate; an entry that does not is (path + " only", role).
    :param members: what is in the pool, read for tenants that shall go.
    """

    name: str
    pool: bool = False
    user: bool = False
    token: bool = False
    separate: bool = False
    secret: bool = False
    user_grants: frozenset[tuple[str, str]] = frozenset()
    token_grants: frozenset[tuple[str, str]] = frozenset()
    roles: Mapping[str, frozenset[str]] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    place: Mapping[str, str] = field(default_factory=dict)
    problem: HostingError | None = None


def desired_tenants(items: Sequence[Mapping[str, Any]]) -> tuple[TenantDesired, ...]:
    """The items of the module; one that cannot be used keeps its problem.

    :raises InvalidInput: two tenants share a name, a pool or a user.
    """
    found: list[TenantDesired] = []
    for item in items:
        try:
            found.append(_desired(item))
        except HostingError as error:
            found.append(TenantDesired(str(item["name"]), problem=error))
    for option in ("name", "pool", "user"):
        values = [getattr(tenant, option) for tenant in found if getattr(tenant, option)]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise InvalidInput(
                f"two tenants have the {option} {', '.join(twice)}", where="tenants", hint="Give each its own"
            )
    return tuple(found)


def _desired(item: Mapping[str, Any]) -> TenantDesired:
    name = check_slug(item["name"], "tenants, name")
    where = f"tenant {name}"
    user = item.get("user") or f"{name}@pve"
    pool = item.get("pool") or name
    networks = tuple(text if "/" in text else f"localnetwork/{text}" for text in item.get("networks") or ())
    words = {
        "user": (USER, (user,)),
        "token": (TOKEN_NAME, (item["token"],)),
        "pool": (PART, (pool,)),
        "storages": (PART, tuple(item.get("storages") or ())),
        "networks": (PART, tuple(part for network in networks for part in network.split("/"))),
    }
    for option, (pattern, values) in words.items():
        wrong = [value for value in values if not pattern.match(value)]
        if wrong:
            raise InvalidInput(f"{wrong[0]!r} cannot be used", where=f"{where}, {option}")
    return TenantDesired(
        name=name,
        state=item["state"],
        pool=pool,
        user=user,
        token=item["token"],
        storages=tuple(item.get("storages") or ()),
        networks=networks,
        templates=tuple(item.get("templates") or ()),
        rotate=bool(item.get("rotate")),
    )


def grants_of(rows: Sequence[Mapping[str, Any]], subject: str) -> frozenset[tuple[str, str]]:
    """(path, role) of the subject's rows; a path whose entry does not propagate ends in `` only``."""
    return frozenset(
        (str(row["path"]) + ("" if str(row.get("propagate", 1)) == "1" else " only"), str(row["roleid"]))
        for row in rows
        if row.get("ugid") == subject
    )


def shown(tenant: TenantDesired, actual: TenantActual) -> dict[str, Any]:
    """The state as diff mode shows it; only whether there is a secret, never which."""
    token = "separate privileges" if actual.separate else "privileges of the user"
    return {
        "pool": tenant.pool if actual.pool else None,
        "user": tenant.user if actual.user else None,
        "token": f"{tenant.token_id}, {token}" if actual.token else None,
        "secret": "stored" if actual.secret else "missing",
        "user_grants": sorted(" ".join(grant) for grant in actual.user_grants),
        "token_grants": sorted(" ".join(grant) for grant in actual.token_grants),
        "roles": {role: sorted(privileges) for role, privileges in sorted(actual.roles.items())},
    }
