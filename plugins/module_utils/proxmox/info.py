# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a cluster has: guests, nodes and storages from one list, and on demand the configuration of each guest."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.names import machine_tag
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import (
    DISK_KEY,
    parse_properties,
    parse_size,
    parse_ssh_keys,
    parse_tags,
    parse_words,
)

GUESTS = ("qemu", "lxc")
HIDDEN = "**********"
MACHINE_TAG = machine_tag("")
# keys whose values are property strings, with the key that the first entry may leave out
PROPERTIES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), default)
    for pattern, default in (
        (r"net\d+\Z", "model"),
        (DISK_KEY.pattern + r"|(efidisk0|tpmstate0|unused\d+|rootfs|mp\d+)\Z", "file"),
        (r"ipconfig\d+\Z", "ip"),
        (r"agent\Z", "enabled"),
        (r"boot\Z", "legacy"),
        (r"cpu\Z", "cputype"),
        (r"vga\Z", "type"),
        (r"(hostpci|usb)\d+\Z", "host"),
        (r"(smbios1|startup|meta|cicustom)\Z", "uuid"),
    )
)


@dataclass(frozen=True)
class Filters:
    """Which guests are wanted; an empty filter lets everything pass, several must all hold.

    :param tags: the guest has all of them.
    """

    names: frozenset[str] = frozenset()
    vmids: frozenset[int] = frozenset()
    tags: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()

    def match(self, guest: Mapping[str, Any]) -> bool:
        """A name is the guest's in Proxmox VE or the machine of its tag, which is there also when the name is not."""
        return (
            (not self.names or bool(self.names & {guest["name"], guest["machine"]}))
            and (not self.vmids or guest["vmid"] in self.vmids)
            and self.tags <= set(guest["tags"])
            and (not self.pools or guest["pool"] in self.pools)
            and (not self.nodes or guest["node"] in self.nodes)
        )


def guests(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Virtual machines and containers, sorted by VMID; what the server does not tell at the moment is None."""
    found = [_guest(row) for row in rows if row.get("type") in GUESTS and "vmid" in row]
    return sorted(found, key=lambda guest: int(guest["vmid"]))


def nodes(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Nodes, sorted by name; sizes in bytes, ``cpu`` from 0 to 1."""
    found = [
        {
            "node": str(row.get("node", "")),
            "online": row.get("status") == "online",
            **{key: row.get(key) for key in ("maxcpu", "cpu", "maxmem", "mem", "maxdisk", "disk", "uptime")},
        }
        for row in rows
        if row.get("type") == "node"
    ]
    return sorted(found, key=lambda node: str(node["node"]))


def storages(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Storages, once for each node that has them, sorted by name and node; sizes in bytes."""
    found = [
        {
            "storage": str(row.get("storage", "")),
            "node": str(row.get("node", "")),
            "available": row.get("status") == "available",
            "shared": _number(row.get("shared")) == 1,
            "content": sorted(parse_words(str(row.get("content") or ""))),
            "type": row.get("plugintype"),
            **{key: row.get(key) for key in ("maxdisk", "disk")},
        }
        for row in rows
        if row.get("type") == "storage"
    ]
    return sorted(found, key=lambda storage: (str(storage["storage"]), str(storage["node"])))


def parse_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with its property strings taken apart: dictionaries, lists of tags, keys and devices.

    Disks get ``bytes`` from their size. Values whose types the server gives at random (``"1"`` or 1) become text.
    """
    return {key: _value(key, str(value)) for key, value in sorted(raw.items())}


def read(
    connect: Callable[[], Client], filters: Filters, *, with_config: bool, parallel: int
) -> dict[str, list[dict[str, Any]]]:
    """``guests``, ``nodes`` and ``storages`` with one request, and one more for each guest's configuration.

    :param connect: makes a client; each thread gets its own.
    :raises HostingError: the list cannot be read. Errors of single guests stay with them, as ``config_error``.
    """
    rows = connect().get("/cluster/resources")
    wanted = [guest for guest in guests(rows) if filters.match(guest)]
    if with_config and wanted:
        shares = [wanted[start :: max(1, parallel)] for start in range(min(max(1, parallel), len(wanted)))]
        with ThreadPoolExecutor(len(shares)) as threads:
            list(threads.map(lambda share: _add_configs(connect, share), shares))
    return {"guests": wanted, "nodes": nodes(rows), "storages": storages(rows)}


def _add_configs(connect: Callable[[], Client], share: Sequence[dict[str, Any]]) -> None:
    client: Client | None = None
    for guest in share:
        guest["config"], guest["config_error"] = None, ""
        try:
            client = client or connect()
            raw = client.get(f"/nodes/{guest['node']}/{guest['type']}/{guest['vmid']}/config")
            guest["config"] = parse_config(raw)
        except HostingError as error:
            guest["config_error"] = str(error)


def _guest(row: Mapping[str, Any]) -> dict[str, Any]:
    tags = sorted(parse_tags(str(row.get("tags") or "")))
    machines = [tag.removeprefix(MACHINE_TAG) for tag in tags if tag.startswith(MACHINE_TAG)]
    return {
        "vmid": int(row["vmid"]),
        "name": row.get("name"),
        "machine": machines[0] if len(machines) == 1 else None,
        "type": row["type"],
        "node": str(row.get("node", "")),
        "status": row.get("status") or "unknown",
        "template": _number(row.get("template")) == 1,
        "tags": tags,
        "pool": row.get("pool"),
        "lock": row.get("lock"),
        "hastate": row.get("hastate"),
        **{key: row.get(key) for key in ("maxcpu", "maxmem", "maxdisk", "cpu", "mem", "uptime")},
    }


def _value(key: str, text: str) -> Any:
    if key == "cipassword":
        return HIDDEN
    if key == "tags":
        return sorted(parse_tags(text))
    if key == "sshkeys":
        return sorted(parse_ssh_keys(text))
    if key in ("nameserver", "searchdomain"):
        return list(parse_words(text))
    for pattern, default in PROPERTIES:
        if pattern.match(key):
            return _properties(text, default)
    return text


def _properties(text: str, default: str) -> dict[str, Any]:
    values: dict[str, Any] = dict(parse_properties(text, default))
    if "size" in values and parse_size(values["size"]) is not None:
        values["bytes"] = parse_size(values["size"])
    if "order" in values and not values["order"].isdigit():
        values["order"] = [device for device in values["order"].split(";") if device]
    return values


def _number(value: object) -> int:
    return int(str(value)) if str(value or "0").isdigit() and value else 0
