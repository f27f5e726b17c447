# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose virtual machine is it: rows of ``/cluster/resources`` matched with machines, and what a token may see.

Pure functions. A VM is ours by its tag, which is fresh in these rows at once; name and status are up to 10 s old.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

    ha: bool = False
    unfinished: bool = False

    @property
    def being_made(self) -> bool:
        """A VM that is being created shows no tags until the task ends; one that is being cloned has the source's."""
        return self.lock == "clone" or (self.lock == "create" and not self.tags)


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


def allowed(permissions: Mapping[str, Mapping[str, Any]], privilege: str, paths: Iterable[str]) -> bool:
    """Whether GET ``/access/permissions`` grants the privilege on one of the paths."""
    return any(privilege in permissions.get(path, {}) for path in paths)


def pool_paths(pool: str) -> list[str]:
    """The paths whose access rights reach the pool; pools nest with ``/``."""
    parts = pool.split("/")
    return ["/", "/pool", *("/pool/" + "/".join(parts[: end + 1]) for end in range(len(parts)))]


def sees_more(desired: VmDesired, rows: Iterable[Row]) -> bool:
    """Whether the rows show another guest where the machine would be: then it would be shown too."""
    return any(row.pool == desired.pool for row in rows)


def blind(desired: VmDesired, permissions: Mapping[str, Mapping[str, Any]], identity: str) -> HostingError | None:
    """Why the machine may exist without *identity* seeing it: then it must be neither created nor taken for absent."""
    paths = ["/", "/vms"]
    if desired.vmid is not None:
        paths.append(f"/vms/{desired.vmid}")
    if desired.pool is not None:
        paths += pool_paths(desired.pool)
    if allowed(permissions, "VM.Audit", paths):
        return None
    return Denied(
        f"{identity} lacks VM.Audit, so the virtual machine may exist without being seen",
        where=f"VM {desired.name}",
        hint="Give the user and its token a role with VM.Audit on the pool, and name that pool here",
    )
