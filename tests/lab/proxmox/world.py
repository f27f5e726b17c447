# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cluster holds when its state directory is empty: accounts, storages, and the lab's image."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import volumes
from .access import new_user
from .guests import NoGuests
from .permissions import ROOT
from .store import Cluster, World, read_json

CONTENT = "images,import,iso,vztmpl,snippets,backup"


@dataclass(frozen=True)
class Image:
    """An image that is there from the start; sizes in bytes: of the disk, and of the file; no nodes = all."""

    volid: str
    size: int
    used: int
    nodes: tuple[str, ...] = ()


LAB_IMAGE = Image("local:import/nixos.qcow2", size=4 << 30, used=600 << 20)


def seed(cluster: Cluster, images: tuple[Image, ...]) -> None:
    """Makes an empty cluster usable; what an earlier run left is kept, accounts.json is read every time."""
    cluster.storages.setdefault(
        "local", {"type": "dir", "path": "/var/lib/vz", "content": CONTENT, "prune-backups": "keep-all=1"}
    )
    for node in cluster.nodes:
        for image in images:
            if image.volid not in cluster.volumes[node] and node in (image.nodes or cluster.nodes):
                volumes.add_image(cluster, node, image.volid, size=image.size, used=image.used)
    file = cluster.state / "accounts.json"
    add_accounts(cluster, read_json(file) if file.exists() else {})
    cluster.save()


def add_accounts(cluster: Cluster, accounts: Mapping[str, Any]) -> None:
    """{"users": {"name@realm": {"password", "role"?}}, "tokens": {"name@realm!id": {"secret", "privsep"?}}}

    Every account but root@pam gets its role (Administrator unless said) on /. Without a password for root@pam it
    gets a random one.
    """
    for name, account in accounts.get("users", {}).items():
        user = cluster.users.setdefault(name, new_user())
        user["password"] = account.get("password", "")
    for name, account in accounts.get("tokens", {}).items():
        owner, _unused, token = name.partition("!")
        tokens = cluster.users.setdefault(owner, new_user())["tokens"]
        tokens[token] = {"expire": 0, "privsep": account.get("privsep", 1), "secret": account["secret"]}
    for name in {owner.partition("!")[0] for kind in ("users", "tokens") for owner in accounts.get(kind, {})} - {ROOT}:
        role = accounts.get("users", {}).get(name, {}).get("role", "Administrator")
        row = {"path": "/", "type": "user", "ugid": name, "roleid": role, "propagate": 1}
        if row not in cluster.acl:
            cluster.acl.append(row)
    root = cluster.users.setdefault(ROOT, new_user())
    root["password"] = root["password"] or secrets.token_urlsafe(24)


def new_cluster(state: Path, world: World, **fields: Any) -> Cluster:
    """An empty cluster over a state directory."""
    return Cluster(state=state, world=world, blank=NoGuests(state / "blank.json"), **fields)
