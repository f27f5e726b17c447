# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose virtual machine is it: rows of ``/cluster/resources`` matched with machines, and what a token may see.

Pure functions. A VM is ours by its tag, which is fresh in these rows at once; name and status are up to 10 s old.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    HostingError,
    InvalidInput,
    NotOwned,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.names import OWNER_TAG, machine_tag
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import parse_tags
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import VmDesired


@dataclass(frozen=True)
class Row:
    """One guest in ``/cluster/resources``; ``status`` is missing or ``unknown`` while the statistics are young.

    :param name: of the virtual machine, up to 10 s old; missing while the statistics are young.
    :param ha: under high availability.
    :param unfinished: a clone that does not carry our tags yet; the ones here are those that it is to get.
    """

    vmid: int
    node: str
    kind: str
    tags: frozenset[str] = frozenset()
    status: str | None = None
    pool: str | None = None
    lock: str | None = None
    template: bool = False
    name: str | None = None
    ha: bool = False
    unfinished: bool = False

    @property
    def being_made(self) -> bool:
        """A VM that is being created shows no tags until the task ends; one that is being cloned has the source's."""
        return self.lock == "clone" or (self.lock == "create" and not self.tags)

    @property
    def young(self) -> bool:
        """No statistics are known, nor is the name."""
        return self.name is None and self.status in (None, "unknown")

    @property
    def was_finished(self) -> bool:
        """It is no clone that was left as the server made it."""
        return self.status == "running" or self.template or self.ha


def parse_rows(rows: Iterable[Mapping[str, Any]]) -> tuple[Row, ...]:
    """The virtual machines and containers of the answer; both share the VMIDs."""
    return tuple(
        Row(
            vmid=int(row["vmid"]),
            node=str(row.get("node", "")),
            kind=str(row["type"]),
            tags=parse_tags(str(row.get("tags") or "")),
            status=row.get("status"),
            pool=row.get("pool"),
            lock=row.get("lock"),
            template=str(row.get("template") or "0") == "1",
            name=row.get("name"),
            ha=bool(row.get("hastate")),
        )
        for row in rows
        if "vmid" in row
    )


def marked(machine: str, rows: Iterable[Row]) -> list[Row]:
    """The rows that carry the machine's tag."""
    return [row for row in rows if machine_tag(machine) in row.tags]


def find(desired: VmDesired, rows: Sequence[Row]) -> Row | None:
    """The row of the machine's VM, or None if there is none.

    :raises NotOwned: the wanted VMID belongs to somebody else, or our tag is on something that is no machine.
    :raises BackendError: two VMs carry the machine's tag.
    :raises InvalidInput: the machine has another VMID already.
    """
    where = f"VM {desired.name}"
    tag = machine_tag(desired.name)
    ours = marked(desired.name, rows)
    if len(ours) > 1:
        ids = ", ".join(str(row.vmid) for row in sorted(ours, key=lambda row: row.vmid))
        raise BackendError(
            f"the VMs {ids} all carry the tag {tag}",
            where=where,
            hint="Remove the tag from those that are not this machine",
        )
    if not ours:
        taken = [row for row in rows if row.vmid == desired.vmid]
        if taken and taken[0].being_made:
            raise NotOwned(
                f"VMID {desired.vmid} is held by a guest that is not finished (lock: {taken[0].lock})",
                where=f"{where}, vmid",
                hint=f"Run again when it is. {rest_hint(taken[0])}",
            )
        if taken:
            raise NotOwned(
                f"VMID {desired.vmid} belongs to a guest on node {taken[0].node} that is not ours",
                where=f"{where}, vmid",
                hint=f"Choose another VMID, or give that VM the tag {tag} if it is this machine",
            )
        return None
    row = ours[0]
    if row.kind != "qemu":
        raise NotOwned(
            f"the tag {tag} is on guest {row.vmid}, which is a container", where=where, hint="Remove the tag there"
        )
    if desired.vmid is not None and desired.vmid != row.vmid:
        raise InvalidInput(
            f"the machine is VM {row.vmid} and a VMID cannot change",
            where=f"{where}, vmid",
            hint=f"Use {row.vmid} or leave vmid out",
        )
    return row


def rest_hint(row: Row) -> str:
    """What to do about a guest whose worker may have died while making it; only root may pass over its lock."""
    return (
        f"If no task makes it, the worker that did has died: on the node {row.node} run qm unlock {row.vmid} and then "
        f"qm destroy {row.vmid} --purge --destroy-unreferenced-disks"
    )


def machines(rows: Iterable[Row]) -> dict[str, Row]:
    """All VMs of ours by machine name, whether somebody desires them or not."""
    prefix = machine_tag("")
    return {
        tag.removeprefix(prefix): row
        for row in rows
        if OWNER_TAG in row.tags
        for tag in row.tags
        if tag.startswith(prefix)
    }


Permissions: TypeAlias = "Mapping[str, Mapping[str, Any]]"
"""GET ``/access/permissions``: path to privilege to whether it reaches the paths below."""


def allowed(permissions: Permissions, privilege: str, above: Iterable[str], path: str | None = None) -> bool:
    """Whether the privilege is granted on *path* itself, or reaches it from one of the paths *above* it."""
    here = permissions.get(path, {}) if path is not None else {}
    return privilege in here or any(int(permissions.get(place, {}).get(privilege, 0)) for place in above)


def allowed_in_pool(permissions: Permissions, privilege: str, pool: str) -> bool:
    """Whether the privilege reaches the members of the pool; pools nest with ``/``."""
    parts = pool.split("/")
    above = ["/", "/pool", *("/pool/" + "/".join(parts[:end]) for end in range(1, len(parts)))]
    return allowed(permissions, privilege, above, f"/pool/{pool}")


def sees_tasks(permissions: Permissions, node: str) -> bool:
    """Whether the tasks of others on the node are listed."""
    return allowed(permissions, "Sys.Audit", ("/", "/nodes"), f"/nodes/{node}")


def sees_more(desired: VmDesired, rows: Iterable[Row], identity: str) -> bool:
    """Whether the machine would be among the rows, as far as they and the identity tell.

    Rows name a pool only to those who may audit it, so a guest in the wanted one was shown by a right on the pool. A
    guest outside of pools proves nothing: it may be the only one that is shown.
    """
    if identity == "root@pam":
        return True
    return desired.pool is not None and any(row.pool == desired.pool for row in rows)


def blind(desired: VmDesired, permissions: Permissions, identity: str) -> HostingError | None:
    """Why the machine may exist without *identity* seeing it: then it must be neither created nor taken for absent."""
    own = None if desired.vmid is None else f"/vms/{desired.vmid}"
    if allowed(permissions, "VM.Audit", ("/", "/vms"), own):
        return None
    if desired.pool is not None and allowed_in_pool(permissions, "VM.Audit", desired.pool):
        return None
    return Denied(
        f"{identity} lacks VM.Audit, so the virtual machine may exist without being seen",
        where=f"VM {desired.name}",
        hint="Give the user and its token a role with VM.Audit on the pool, and name that pool here",
    )
