# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clones: a copy is ours from its first moment, though it gets our tags only when it is configured.

Until then the first line of its description says for which machine it is made, and the source's description follows.
Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import (
    drives,
    format_network,
    networks,
    parse_bool,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import VmActual, VmDesired

MAX_DESCRIPTION = 8192
MARK = re.compile(r"fediversity: unfinished clone for machine (\S+)(\n|\Z)")


def mark(machine: str, description: str) -> str:
    """The description of a clone for *machine* until it is configured."""
    return f"fediversity: unfinished clone for machine {machine}\n{description}"[:MAX_DESCRIPTION]


def marked_machine(config: Mapping[str, Any]) -> str | None:
    """For which machine the guest with this configuration is an unfinished clone, None if it is none.

    It has the machine's name too; a finished one whose description only says so has not.
    """
    found = MARK.match(str(config.get("description", "")))
    return found[1] if found and found[1] == config.get("name") else None


def is_nameless(config: Mapping[str, Any]) -> bool:
    """The guest is being cloned and does not say yet for which machine (PVE/API2/Qemu.pm clone_vm)."""
    return "name" not in config and "qmclone temporary file" in str(config.get("description", ""))


def without_mark(description: str) -> str:
    """The description of the source."""
    return MARK.sub("", description, count=1).rstrip("\n")


def is_linked(desired: VmDesired, source: Mapping[str, str]) -> bool:
    """Whether the copy shares disks with its source; the server's default is so for templates."""
    full = desired.clone.full if desired.clone else None
    return parse_bool(source.get("template", "0")) if full is None else not full


def check_clone(desired: VmDesired, source: Mapping[str, str]) -> None:
    """:raises InvalidInput: the server would refuse the clone."""
    clone = desired.clone
    if clone is None or not is_linked(desired, source):
        return
    where = f"VM {desired.name}, clone"
    if not parse_bool(source.get("template", "0")):
        raise InvalidInput(
            f"VM {clone.vmid} is no template and cannot be cloned linked", where=f"{where}.full", hint="Say full: true"
        )
    for option, value in (("storage", clone.storage), ("format", clone.format)):
        if value is not None:
            raise InvalidInput(
                "a linked clone stays on the storage and in the format of its source",
                where=f"{where}.{option}",
                hint="Say full: true, or leave it out",
            )


def clone_parameters(desired: VmDesired, source: VmActual, vmid: int, node: str) -> dict[str, Any]:
    """Parameters of ``POST /nodes/{source node}/qemu/{source}/clone``."""
    clone = desired.clone
    if clone is None:
        raise InvalidInput("there is no source", where=f"VM {desired.name}, clone")
    return {
        "newid": vmid,
        "name": desired.name,
        "description": mark(desired.name, source.config.get("description", "")),
        "pool": desired.pool,
        "target": node if node != source.node else None,
        "full": clone.full,
        "storage": clone.storage,
        "format": clone.format,
        "snapname": clone.snapshot,
    }


def as_cloned(desired: VmDesired, source: VmActual, vmid: int, node: str) -> VmActual:
    """The copy as the server makes it: new MAC addresses and ids, everything else as the source has it."""
    config = {
        key: value
        for key, value in source.config.items()
        if key not in ("template", "digest", "vmgenid", "smbios1", "parent", "lock") and not key.startswith("unused")
    }
    for number, network in networks(config).items():
        config[f"net{number}"] = format_network(replace(network, mac=None))
    storage = desired.clone.storage if desired.clone else None
    if storage is not None:
        for slot, drive in drives(config).items():
            config[slot] = config[slot].replace(f"{drive.storage}:", f"{storage}:", 1)
    config["name"] = desired.name
    config["description"] = mark(desired.name, source.config.get("description", ""))
    return VmActual(desired.name, vmid, node, "stopped", desired.pool, config=config, unfinished=True)
