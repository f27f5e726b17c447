# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running virtual machine takes at once, and what waits for a power cycle.

Source: PVE/QemuServer.pm `vmconfig_hotplug_pending`, `vmconfig_update_net`, `vmconfig_update_disk`, `vm_deviceunplug`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .cloudinit import OPTIONS as CLOUDINIT
from .config import DRIVE, NET, boot_devices, parse_drive, property_keys
from .formats import split_list
from .store import Option

# options that never wait
IMMEDIATE = frozenset(
    (
        *("description", "hookscript", "lock", "migrate_downtime", "migrate_speed", "name", "onboot", "protection"),
        *("shares", "startup", "tags", "vmstatestorage", *CLOUDINIT, *(f"ipconfig{number}" for number in range(32))),
    )
)
_WITHOUT_PLUG = IMMEDIATE | {"cpuunits", "cpulimit"}
_FEATURE_OF = {"tablet": "usb", "vcpus": "cpu", "memory": "memory"}
DEFAULT_FEATURES = frozenset(("network", "disk", "usb"))
_NOT_ONLINE = ("aio", "discard", "iothread", "queues", "product", "cache", "ssd", "vendor", "ro")  # of a disk
_REPLUG = ("model", "macaddr", "queues", "mtu")  # of a NIC: another device


@dataclass(frozen=True)
class Step:
    """How a change reaches a running guest: `now`, after the device `unplug` was given up by the guest, or not at all.

    `problem` says what the server answers instead (400), while the change waits.
    """

    now: bool
    unplug: str = ""
    problem: str = ""


WAIT, NOW = Step(now=False), Step(now=True)


def features(config: Mapping[str, Option]) -> frozenset[str]:
    """What the option `hotplug` allows."""
    value = str(config.get("hotplug", "1"))
    return frozenset() if value == "0" else DEFAULT_FEATURES if value == "1" else frozenset(split_list(value))


def _usb_possible(config: Mapping[str, Option]) -> bool:
    return "usb" in features(config) and config.get("ostype") in ("l26", "win8", "win10", "win11")


def _unplugged(config: Mapping[str, Option], device: str) -> Step:
    bootable = [name for name in boot_devices(config.get("boot", "")) if DRIVE.fullmatch(name)]
    if device in bootable:
        return Step(now=False, problem=f"can't unplug bootdisk '{device}'")
    return Step(now=True, unplug=device)


def deletion(config: Mapping[str, Option], name: str) -> Step:
    """What happens when a running virtual machine loses an option."""
    allowed = features(config)
    if NET.fullmatch(name):
        return _unplugged(config, name) if "network" in allowed else WAIT
    if DRIVE.fullmatch(name) and not re.match("efidisk|ide|sata|tpmstate", name):
        return _unplugged(config, name) if "disk" in allowed else WAIT
    if re.fullmatch(r"usb\d+", name):
        return _unplugged(config, name) if _usb_possible(config) else WAIT
    at_once = name in _WITHOUT_PLUG or _FEATURE_OF.get(name) in allowed
    at_once |= name == "hotplug" and not allowed & {"cpu", "memory"}
    return NOW if at_once or (name == "balloon" and config.get("balloon") != 0) else WAIT


def change(config: Mapping[str, Option], name: str, value: Option) -> Step:
    """What happens when an option of a running virtual machine gets a value."""
    allowed = features(config)
    if NET.fullmatch(name):
        return _net(config, name, str(value))
    if DRIVE.fullmatch(name):
        return _disk(config, name, str(value))
    at_once = name in _WITHOUT_PLUG or _FEATURE_OF.get(name) in allowed
    at_once |= name == "hotplug" and not (allowed | features({"hotplug": value})) & {"cpu", "memory"}
    at_once |= name == "balloon" and bool(config.get("balloon", 1)) == bool(value)
    at_once |= name == "agent" and _same_agent(config, str(value))
    at_once |= bool(re.fullmatch(r"usb\d+", name)) and _usb_possible(config)
    return NOW if at_once else WAIT


def _same_agent(config: Mapping[str, Option], value: str) -> bool:
    """Whether nothing changes but what is no device of the guest."""
    old, new = (property_keys("agent", str(text)) for text in (config.get("agent", "0"), value))
    for keys in (old, new):
        keys.pop("fstrim_cloned_disks", None)
    return "agent" in config and old == new


def _net(config: Mapping[str, Option], name: str, value: str) -> Step:
    pluggable = "network" in features(config)
    if name not in config:
        return NOW if pluggable else WAIT
    old, new = property_keys("net", str(config[name])), property_keys("net", value)
    same = all(old.get(key) == new.get(key) for key in _REPLUG) and "bridge" in old and "bridge" in new
    if same:
        return NOW
    return _unplugged(config, name) if pluggable else WAIT


def _disk(config: Mapping[str, Option], name: str, value: str) -> Step:
    pluggable = "disk" in features(config) and not re.match("ide|sata", name)
    if name in ("efidisk0", "tpmstate0"):
        return WAIT
    if name not in config:
        return NOW if pluggable else WAIT
    old, new = parse_drive(name, str(config[name])), parse_drive(name, value)
    if old.keys.get("media", "disk") != new.keys.get("media", "disk"):
        return Step(now=False, problem="unable to change media type")
    if not old.cdrom and old.file != new.file:
        return _unplugged(config, name) if pluggable else WAIT
    waits = not old.cdrom and any(old.keys.get(key) != new.keys.get(key) for key in _NOT_ONLINE)
    return WAIT if waits else NOW
