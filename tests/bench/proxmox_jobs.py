# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs of bench-proxmox as Ansible tasks, as a user of either collection writes them."""

from __future__ import annotations

from typing import Any

from support.simulated_proxmox import IMAGE

Task = dict[str, Any]
TEMPLATE = 900
FIRST = 101
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILs6/eDXVr7LO7criwTcJSGs3XkG7rn8qsRKLJFFEITI ops@example"


def ours(vms: list[dict[str, Any]]) -> Task:
    return {"name": "Machines", "fediversity.hosting.proxmox_vms": {"vms": vms}}


def wanted(number: int) -> dict[str, Any]:
    """Machine *number* (from 0) without its disk."""
    return {
        "name": f"vm-{number}",
        "vmid": FIRST + number,
        "node": "pve1",
        "cores": 2,
        "memory": 2048,
        "networks": [{"bridge": "vmbr0"}],
        "cloud_init": {"user": "root", "ssh_keys": [KEY], "addresses": [address(number)], "gateway": "10.99.0.1"},
    }


def address(number: int) -> str:
    return f"10.99.1.{number + 1}/16"


def created(number: int) -> list[dict[str, Any]]:
    return [{**wanted(vm), "disk": {"storage": "local", "import_from": IMAGE}} for vm in range(number)]


def cloned() -> list[dict[str, Any]]:
    disk = {"storage": "local", "size": 8}
    return [{**wanted(0), "clone": {"vmid": TEMPLATE, "full": True}, "disk": disk}]


def peer_cloned() -> list[Task]:
    resize = {"vmid": FIRST, "disk": "scsi0", "size": "8G", "state": "resized"}
    clone, configure, start = peer_same(1)
    return [clone, configure, {"name": "Disk", "community.proxmox.proxmox_disk": resize}, start]


def peer_same(number: int) -> list[Task]:
    """Clone, configure and start, which is what a playbook for these machines says at every run."""
    item = {"node": "pve1", "name": "vm-{{ item }}"}
    clone = {**item, "clone": "template", "vmid": TEMPLATE, "newid": f"{{{{ {FIRST} + item }}}}", "storage": "local"}
    configure = {
        **item,
        "vmid": f"{{{{ {FIRST} + item }}}}",
        "update": True,
        "cores": 2,
        "memory": 2048,
        "ciuser": "root",
        "sshkeys": KEY,
        "ipconfig": {"ipconfig0": "ip=10.99.1.{{ item + 1 }}/16,gw=10.99.0.1"},
    }
    start = {**item, "vmid": f"{{{{ {FIRST} + item }}}}", "state": "started"}
    tasks = (("Clone", {**clone, "full": True}), ("Configure", configure), ("Start", start))
    return [
        {"name": name, "community.proxmox.proxmox_kvm": arguments, "loop": list(range(number))}
        for name, arguments in tasks
    ]


def peer_start(timeout: int) -> list[Task]:
    """*timeout* in seconds."""
    arguments = {"vmid": FIRST, "node": "pve1", "state": "started", "timeout": timeout}
    return [{"name": "Start", "community.proxmox.proxmox_kvm": arguments}]


def info() -> Task:
    return {"name": "Machines", "fediversity.hosting.proxmox_info": {}}


PEER_INVENTORY = {"plugin": "community.proxmox.proxmox", "validate_certs": True, "want_facts": True}
