# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds which privilege where (PVE/AccessControl.pm `roles`, PVE/RPCEnvironment.pm `permissions`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .privileges import BUILT_IN_ROLES, PRIVILEGES
from .store import Cluster

ROOT = "root@pam"


@dataclass(frozen=True)
class Identity:
    """A user, or a token of one; `separate` = the token has only what ACLs give it (privsep)."""

    user: str
    token: str = ""
    separate: bool = False

    @property
    def full(self) -> str:
        return f"{self.user}!{self.token}" if self.token else self.user

    @property
    def root_itself(self) -> bool:
        return self.user == ROOT and not self.token


def role_privileges(cluster: Cluster, role: str) -> frozenset[str]:
    return BUILT_IN_ROLES[role] if role in BUILT_IN_ROLES else frozenset(cluster.roles.get(role, ()))


def _levels(path: str) -> Iterator[str]:
    yield "/"
    parts = path.strip("/").split("/") if path != "/" else []
    for end in range(1, len(parts) + 1):
        yield "/" + "/".join(parts[:end])


def _granted(cluster: Cluster, name: str, path: str) -> dict[str, int]:
    """Privileges of one user or token id by ACL: the deepest entries on the way to the path replace the others."""
    held: dict[str, int] = {}
    for level in _levels(path):
        entries = [row for row in cluster.acl if row["path"] == level and row["ugid"] == name]
        entries = [row for row in entries if row["propagate"] or level == path]
        if entries:
            held = {}
            for row in entries:
                for privilege in role_privileges(cluster, row["roleid"]):
                    held[privilege] = max(held.get(privilege, 0), row["propagate"])
    return held


def _of_subject(cluster: Cluster, name: str, path: str) -> dict[str, int]:
    held = _granted(cluster, name, path)
    match = re.fullmatch(r"/vms/(\d+)", path)
    pool = cluster.pool_of(int(match[1])) if match else ""
    if pool:
        held = dict.fromkeys(_granted(cluster, name, f"/pool/{pool}"), 0) | held
    return held


def privileges(cluster: Cluster, who: Identity, path: str) -> dict[str, int]:
    """Privileges on a path; the value tells whether they propagate."""
    of_user = dict.fromkeys(PRIVILEGES, 1) if who.user == ROOT else _of_subject(cluster, who.user, path)
    if not who.separate:
        return of_user
    of_token = _of_subject(cluster, who.full, path)
    return {name: flag for name, flag in of_token.items() if name in of_user}
