# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The argument_spec of one virtual machine; documented in plugins/modules/proxmox_vms.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.sides import PARTS

Arguments = dict[str, Any]

TEXT: Arguments = {"type": "str"}
NUMBER: Arguments = {"type": "int"}
FLAG: Arguments = {"type": "bool"}
TEXTS: Arguments = {"type": "list", "elements": "str"}


def _choice(*words: str) -> Arguments:
    return {"type": "str", "choices": list(words)}


def _group(options: Mapping[str, Arguments]) -> Arguments:
    return {"type": "dict", "options": dict(options)}


DISK_OPTIONS: dict[str, Arguments] = {
    "storage": TEXT,
    "import_from": TEXT,
    "size": NUMBER,
    "move": {"type": "bool", "default": False},
    "format": _choice("raw", "qcow2", "vmdk"),
    "cache": _choice("none", "writethrough", "writeback", "unsafe", "directsync"),
    "discard": FLAG,
    "ssd": FLAG,
    "iothread": FLAG,
    "aio": _choice("native", "threads", "io_uring"),
    "backup": FLAG,
    "replicate": FLAG,
    "readonly": FLAG,
    "options": {"type": "dict"},
}
FURTHER_DISK: dict[str, Arguments] = {
    "slot": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    **DISK_OPTIONS,
}
NETWORK: dict[str, Arguments] = {
    "bridge": {"type": "str", "required": True},
    "model": {"type": "str", "default": "virtio"},
    "tag": NUMBER,
    "firewall": {"type": "bool", "default": False},
    "mac": TEXT,
    "trunks": {"type": "list", "elements": "int"},
    "mtu": NUMBER,
    "queues": NUMBER,
    "rate": {"type": "float"},
    "link_down": FLAG,
    "addresses": TEXTS,
    "gateway": TEXT,
    "gateway6": TEXT,
}
CLOUD_INIT: dict[str, Arguments] = {
    "user": TEXT,
    "password_hash": {"type": "str", "no_log": True},
    "ssh_keys": {"type": "list", "elements": "str", "no_log": False},
    "addresses": TEXTS,
    "gateway": TEXT,
    "gateway6": TEXT,
    "nameservers": TEXTS,
    "search_domains": TEXTS,
    "upgrade": FLAG,
}
VM: dict[str, Arguments] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "power": {"type": "str", "choices": ["started", "stopped", "paused", "unmanaged"], "default": "started"},
    "shutdown_timeout": {"type": "int", "default": 60},
    "force_stop": {"type": "bool", "default": True},
    "reboot": {"type": "str", "choices": ["never", "if_pending"], "default": "never"},
    "template": FLAG,
    "vmid": NUMBER,
    "node": TEXT,
    "migrate": {"type": "bool", "default": False},
    "clone": _group(
        {
            "vmid": {"type": "int", "required": True},
            "full": FLAG,
            "storage": TEXT,
            "format": _choice("raw", "qcow2", "vmdk"),
            "snapshot": TEXT,
        }
    ),
    "cores": NUMBER,
    "sockets": NUMBER,
    "cpu": TEXT,
    "vcpus": NUMBER,
    "cpu_limit": {"type": "float"},
    "cpu_units": NUMBER,
    "numa": FLAG,
    "memory": NUMBER,
    "balloon": NUMBER,
    "shares": NUMBER,
    "machine": TEXT,
    "bios": _choice("seabios", "ovmf"),
    "efi_disk": _group(
        {"storage": {"type": "str", "required": True}, "type": _choice("2m", "4m"), "pre_enrolled_keys": FLAG}
    ),
    "tpm": _group({"storage": {"type": "str", "required": True}, "version": _choice("v1.2", "v2.0")}),
    "scsi_controller": TEXT,
    "os_type": TEXT,
    "vga": TEXT,
    "boot_order": TEXTS,
    "hotplug": TEXTS,
    "protection": FLAG,
    "startup": _group({"order": NUMBER, "up": NUMBER, "down": NUMBER}),
    "disk": _group(DISK_OPTIONS),
    "disks": {"type": "list", "elements": "dict", "options": FURTHER_DISK},
    "networks": {"type": "list", "elements": "dict", "options": NETWORK},
    "cloud_init": _group(CLOUD_INIT),
    "tags": TEXTS,
    "pool": TEXT,
    "description": TEXT,
    "onboot": FLAG,
    "agent": FLAG,
    "agent_wait": {"type": "int", "default": 0},
    "options": {"type": "dict"},
    "safety_snapshot": {"type": "str", "choices": ["never", "risky"], "default": "never"},
    "safety_snapshots_kept": {"type": "int", "default": 2},
    "rollback": TEXT,
    "placement": _group({"nodes": TEXTS, "apart_from": TEXTS, "strict": {"type": "bool", "default": False}}),
    **{part.key: part.argument for part in PARTS},
}
