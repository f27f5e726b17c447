# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which server the suite runs against: the one of the environment variables, or a simulated one.

PROXMOX_HOST, PROXMOX_PORT (8006), PROXMOX_USER, PROXMOX_TOKEN_ID, PROXMOX_TOKEN_SECRET
PROXMOX_VALIDATE_CERTS (true), PROXMOX_CA_PATH
PROXMOX_NODE                 default: the node that answers
PROXMOX_STORAGE              for disks; default: local
PROXMOX_IMAGE                a volume such as local:import/nixos.qcow2, or a file of this machine, which is uploaded;
                             default: an empty disk of 64 MiB, made here
PROXMOX_IMAGE_STORAGE        storage with the content type "import" for uploads; default: PROXMOX_STORAGE
PROXMOX_BRIDGE               default: vmbr0
PROXMOX_VMID_RANGE           ids that the suite may use; default: 9000-9099
PROXMOX_SECOND_NODE, PROXMOX_SECOND_STORAGE   without them migrations and moves of disks are skipped
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.transcripts.qcow2 import make
from proxmox_api import Api
from support.simulated_proxmox import Cluster

FALSE = ("0", "false", "no", "off", "n", "f")
# storages that keep disks as files, where only this format has snapshots
FILES = ("dir", "nfs", "cifs", "btrfs", "cephfs", "glusterfs")


@dataclass(frozen=True)
class Server:
    """Where to test and what may be used there."""

    environment: Mapping[str, str] = field(repr=False)
    api: Api
    address: str
    node: str
    storage: str
    image: str
    image_storage: str
    bridge: str
    ids: str
    second_node: str
    second_storage: str
    simulated: Cluster | None = None
    # what the suite makes carries this, and nothing else does
    mark: str = field(default_factory=lambda: f"it{secrets.token_hex(3)}")

    @property
    def pool(self) -> str:
        return self.mark

    @property
    def disk_format(self) -> str | None:
        """A format with snapshots, where the storage has a choice."""
        storage = self.api("GET", f"/storage/{self.storage}")
        return "qcow2" if storage["type"] in FILES else None

    def takes_images(self) -> bool:
        """Whether images can be uploaded."""
        return "import" in str(self.api("GET", f"/storage/{self.image_storage}").get("content", "")).split(",")


def from_environment(variables: Mapping[str, str], simulated: Cluster | None = None) -> Server:
    """The server that the variables name."""
    host, port = variables["PROXMOX_HOST"].split(",")[0].strip(), variables.get("PROXMOX_PORT", "8006")
    if ":" not in host:
        host = f"{host}:{port}"
    identity = f"{variables['PROXMOX_USER']}!{variables['PROXMOX_TOKEN_ID']}={variables['PROXMOX_TOKEN_SECRET']}"
    verify = variables.get("PROXMOX_VALIDATE_CERTS", "true").lower() not in FALSE
    api = Api(f"https://{host}", f"PVEAPIToken={identity}", verify and variables.get("PROXMOX_CA_PATH", True))
    storage = variables.get("PROXMOX_STORAGE", "local")
    return Server(
        environment={name: value for name, value in variables.items() if name.startswith("PROXMOX_")},
        api=api,
        address=host,
        node=variables.get("PROXMOX_NODE") or entry_node(api),
        storage=storage,
        image=variables.get("PROXMOX_IMAGE", ""),
        image_storage=variables.get("PROXMOX_IMAGE_STORAGE", storage),
        bridge=variables.get("PROXMOX_BRIDGE", "vmbr0"),
        ids=variables.get("PROXMOX_VMID_RANGE", "9000-9099"),
        second_node=variables.get("PROXMOX_SECOND_NODE", ""),
        second_storage=variables.get("PROXMOX_SECOND_STORAGE", ""),
        simulated=simulated,
    )


def entry_node(api: Api) -> str:
    """The node that answers; uploads sent to the server's address reach its storages."""
    return next(str(row["name"]) for row in api("GET", "/cluster/status") if row.get("local"))


def chosen() -> bool:
    """Whether the environment names a server."""
    return bool(os.environ.get("PROXMOX_HOST"))


def image_file(directory: Path) -> Path:
    """An image without any data."""
    file = directory / "empty.qcow2"
    make(file, virtual_size=64 << 20)
    return file
