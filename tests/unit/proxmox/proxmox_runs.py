# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running the provider against a simulated cluster, and looking at what it left there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.desired import desired_machines
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.provider import VirtualMachines
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import reconcile

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILs6/eDXVr7LO7criwTcJSGs3XkG7rn8qsRKLJFFEITI ops@lab"
WEB: dict[str, Any] = {
    "name": "web",
    "node": "pve1",
    "cores": 2,
    "memory": 512,
    "disk": {"storage": "local", "import_from": "local:import/nixos.qcow2"},
    "networks": [{"bridge": "vmbr0"}],
    "cloud_init": {
        "user": "root",
        "ssh_keys": [KEY],
        "addresses": ["10.99.1.10/16"],
        "gateway": "10.99.0.1",
        "nameservers": ["10.99.0.11"],
    },
    "agent": True,
    "onboot": True,
    "description": "{{ lookup('pipe','id') }} '' ${x} '' \n\U0001f388 & a=b;c+d%20",
}
TOLD = ("name", "action", "changed", "failed")


def run(client: Client, *items: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
    return reconcile(VirtualMachines(client, 60, **options), desired_machines(items), check=check)


def change(client: Client, *items: dict[str, Any]) -> dict[str, Any]:
    """Run; check mode before must have said the same, and a second run must find nothing to do."""
    predicted = run(client, *items, check=True)
    result = run(client, *items)
    assert not result["failed"], result["msg"]
    assert predicted["diff"] == result["diff"]
    assert [[item[key] for key in TOLD] for item in predicted["results"]] == [
        [item[key] for key in TOLD] for item in result["results"]
    ]
    again = run(client, *items)
    assert (again["changed"], again["failed"]) == (False, False), again
    return result


def vms(client: Client) -> list[Mapping[str, Any]]:
    return [row for row in client.get("/cluster/resources", type="vm") if row["type"] == "qemu"]


def volumes(client: Client, node: str = "pve1") -> list[str]:
    return [row["volid"] for row in client.get(f"/nodes/{node}/storage/local/content", content="images")]
