# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the real server keeps of the requests that the module sends, as a pure function of one configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import config
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.compare import difference
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import GIB, VmActual, VmDesired
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.order import Send, moves, steps

IMAGE_SIZE = 1600 * 1024**2
ALLOCATES = re.compile(r"([a-z]+):(\d+)\Z")
INTEGERS = ("cores", "sockets", "onboot", "ciupgrade", "numa", "protection", "balloon", "shares", "vcpus", "cpuunits")


def rows(stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The answer of GET ``pending``."""
    return [{"key": key, "value": value} for key, value in stored.items()]


def actual(stored: Mapping[str, Any], **fields: Any) -> VmActual:
    found, pending = config.target_config(rows(stored))
    return VmActual("web", 334, "pve1", "started", config=found, pending=pending, **fields)


def set_keys(stored: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """POST config: deleted keys go, a MAC is made when there is none, tags are sorted, volumes are made."""
    deleted = str(values.get("delete") or "").split(",")
    kept = {key: value for key, value in stored.items() if key not in deleted}
    for key, value in values.items():
        if key in ("delete", "digest", "force", "revert") or value is None:
            continue
        kept[key] = _stored(key, str(value))
    return kept


def _stored(key: str, text: str) -> Any:
    if key in INTEGERS:
        return int(text)
    if key == "tags":
        return ";".join(sorted(set(text.lower().split(";"))))
    if re.match(r"net\d", key) and "=" not in text.partition(",")[0]:
        model, _comma, rest = text.partition(",")
        return f"{model}=BC:24:11:00:00:0{key[3:]},{rest}"
    if re.match(r"(scsi|virtio|sata|ide|efidisk|tpmstate)\d", key):
        return _volume(key, text)
    return text


def _volume(key: str, text: str) -> str:
    values = config.parse_properties(text, "file")
    volume = values.pop("file")
    if volume.endswith(":cloudinit"):
        return f"{volume.partition(':')[0]}:334/vm-334-cloudinit.qcow2,media=cdrom"
    made = ALLOCATES.match(volume)
    if made:
        suffix = values.pop("format", "qcow2")
        size = IMAGE_SIZE if values.pop("import-from", None) else int(made[2]) * GIB
        volume, values["size"] = f"{made[1]}:334/vm-334-{key}.{suffix}", config.format_size(size)
    return ",".join([volume, *(f"{name}={value}" for name, value in sorted(values.items()))])


def serve(stored: Mapping[str, Any], step: Send) -> dict[str, Any]:
    """The configuration after one request."""
    if step.path == "/config":
        return set_keys(stored, step.parameters)
    if step.path == "/resize":
        slot, size = str(step.parameters["disk"]), str(step.parameters["size"])
        return {**stored, slot: re.sub(r",size=[^,]*", "", str(stored[slot])) + f",size={size}"}
    if step.path == "/move_disk":
        slot, target = str(step.parameters["disk"]), step.parameters["storage"]
        moved = re.sub(r"^[^:]*:", f"{target}:", str(stored[slot]))
        suffix = step.parameters.get("format")
        return {**stored, slot: re.sub(r"\.(raw|qcow2|vmdk)", f".{suffix}", moved) if suffix else moved}
    return dict(stored)


def after(stored: Mapping[str, Any], desired: VmDesired, present: VmActual) -> tuple[dict[str, Any], VmActual]:
    """Configuration and VM after everything that the plan sends."""
    changed = dict(stored)
    for step in moves(present, difference(desired, present)):
        if isinstance(step, Send):
            changed = serve(changed, step)
    moved = replace(present, config=actual(changed).config)
    found = difference(desired, moved)
    for step in steps(desired, moved, found):
        if isinstance(step, Send):
            changed = serve(changed, step)
    power = found.power if found.power in ("started", "stopped", "paused") else present.power
    return changed, replace(actual(changed), power=power, pool=found.pool or present.pool)
