# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration of a VM in Proxmox VE's own notation, to and from typed values.

Pure functions. Property strings are comma lists whose first entry may leave out its key; the server reorders and
completes them, so nothing here compares their text. Formats: qemu-server, schema of ``/nodes/{node}/qemu``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote

from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import (
    NIC_MODELS,
    Drive,
    IpConfig,
    Network,
)

UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
SIZE = re.compile(r"(\d+)([KMGT]?)\Z")
NETWORK_KEY = re.compile(r"net(\d+)\Z")
IP_CONFIG_KEY = re.compile(r"ipconfig(\d+)\Z")
DISK_KEY = re.compile(r"(scsi|virtio|sata|ide)\d+\Z")
SEPARATORS = re.compile(r"[\s,;]+")


def parse_properties(text: str, default_key: str) -> dict[str, str]:
    """``a,b=c`` as {default_key: a, b: c}; a key without value has the value ``""``."""
    found: dict[str, str] = {}
    for number, part in enumerate(text.split(",")):
        key, equals, value = part.strip().partition("=")
        if not equals and number == 0:
            key, value = default_key, key
        if key and (value or key != default_key):
            found[key] = value
    return found


def format_properties(values: Iterable[tuple[str, str]]) -> str:
    """The comma list of ``key=value``."""
    return ",".join(f"{key}={value}" for key, value in values)


def parse_size(text: str) -> int | None:
    """Bytes of a size such as ``1600M`` (units of 1024); None if it is no size."""
    match = SIZE.match(text)
    return int(match[1]) * UNITS[match[2]] if match else None


def format_size(size: int) -> str:
    """A size in bytes in the largest unit that gives a whole number, as the server writes it."""
    for unit in ("T", "G", "M", "K"):
        if size and size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]}{unit}"
    return str(size)


def parse_bool(text: str) -> bool:
    return text in {"1", "on", "yes", "true"}


def parse_words(text: str) -> tuple[str, ...]:
    """A list that is separated by blanks, commas or semicolons; an empty one reads back as a blank."""
    return tuple(word for word in SEPARATORS.split(text) if word)


def parse_network(text: str) -> Network:
    """``virtio=BC:24:11:..,bridge=vmbr0,..``, in any order; also ``model=virtio,macaddr=..``.

    A VLAN tag that is no number stays among the further keys.
    """
    values = parse_properties(text, "model")
    model, mac = values.pop("model", "virtio"), values.pop("macaddr", None)
    for name in NIC_MODELS:
        if name in values:
            model, mac = name, values.pop(name)
    tag = values.pop("tag", "")
    if tag and not tag.isdecimal():
        values["tag"] = tag
    return Network(
        bridge=values.pop("bridge", ""),
        model=model,
        tag=int(tag) if tag.isdecimal() else None,
        firewall=parse_bool(values.pop("firewall", "0")),
        mac=mac.upper() if mac else None,
        others=tuple(sorted(values.items())),
    )


def format_network(network: Network) -> str:
    model = f"{network.model}={network.mac}" if network.mac else network.model
    values = [("bridge", network.bridge)] if network.bridge else []
    if network.tag is not None:
        values.append(("tag", str(network.tag)))
    if network.firewall:
        values.append(("firewall", "1"))
    return ",".join(filter(None, [model, format_properties([*values, *network.others])]))


def networks(config: Mapping[str, str]) -> dict[int, Network]:
    """The network devices by number (0 is net0)."""
    return {int(match[1]): parse_network(text) for key, text in config.items() if (match := NETWORK_KEY.match(key))}


def parse_drive(text: str) -> Drive:
    """``local:100/vm-100-disk-0.qcow2,discard=on,size=1600M``, in any order."""
    values = parse_properties(text, "file")
    volume = values.pop("file", values.pop("volume", ""))
    size = parse_size(values.pop("size", ""))
    return Drive(volume, size, tuple(sorted(values.items())))


def format_drive(drive: Drive) -> str:
    """The text of a disk that is there, with its volume and size."""
    size = [] if drive.size is None else [("size", format_size(drive.size))]
    return ",".join(filter(None, [drive.volume, format_properties([*sorted(drive.options), *size])]))


def drives(config: Mapping[str, str]) -> dict[str, Drive]:
    """The disks by slot; CD drives, cloud-init's among them, are none."""
    found = {key: parse_drive(text) for key, text in config.items() if DISK_KEY.match(key)}
    return {key: drive for key, drive in found.items() if ("media", "cdrom") not in drive.options}


def has_cloud_init_drive(config: Mapping[str, str]) -> bool:
    return any(DISK_KEY.match(key) and "cloudinit" in parse_drive(text).volume for key, text in config.items())


def parse_ip_config(text: str) -> IpConfig:
    """``ip=10.0.0.5/24,gw=10.0.0.1,ip6=auto``; addresses in their shortest form."""
    values = parse_properties(text, "")
    ipv6 = values.get("ip6")
    return IpConfig(
        ipv4=_interface(values.get("ip")),
        gateway4=parse_address(values.get("gw")),
        ipv6="dhcp6" if ipv6 == "dhcp" else _interface(ipv6),
        gateway6=parse_address(values.get("gw6")),
    )


def format_ip_config(ip: IpConfig) -> str:
    values = {"ip": ip.ipv4, "gw": ip.gateway4, "ip6": "dhcp" if ip.ipv6 == "dhcp6" else ip.ipv6, "gw6": ip.gateway6}
    return format_properties((key, value) for key, value in values.items() if value)


def _interface(text: str | None) -> str | None:
    try:
        return str(ipaddress.ip_interface(text)) if text else None
    except ValueError:
        return text


def parse_address(text: str | None) -> str | None:
    """An address in its shortest form; what is none is returned as it is."""
    try:
        return str(ipaddress.ip_address(text)) if text else None
    except ValueError:
        return text


def parse_ssh_keys(text: str) -> frozenset[str]:
    """The value is URL-encoded by whoever wrote it and comes back that way."""
    return frozenset(line.strip() for line in unquote(text).splitlines() if line.strip())


def format_ssh_keys(keys: Iterable[str]) -> str:
    return quote("\n".join(sorted(keys)), safe="")


def parse_tags(text: str) -> frozenset[str]:
    return frozenset(parse_words(text))


def format_tags(tags: Iterable[str]) -> str:
    return ";".join(sorted(tags))


def target_config(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Rows of GET ``pending`` as the configuration after the next start, and the keys that wait for it.

    Values become text: the server's types follow the stored configuration, not its schema.
    """
    config: dict[str, str] = {}
    waiting: list[str] = []
    for row in rows:
        key = str(row["key"])
        if "pending" in row or row.get("delete"):
            waiting.append(key)
        value = row.get("pending", None if row.get("delete") else row.get("value"))
        if value is not None:
            config[key] = str(value)
        if "pending" in row and "value" in row and DISK_KEY.match(key):
            config[key] = _with_present_size(str(row["value"]), str(row["pending"]))
    return config, tuple(sorted(waiting))


def _with_present_size(present: str, pending: str) -> str:
    """A disk that waits for new options grows at once: its size is a fact of the volume, not an option that waits."""
    now, later = parse_drive(present), parse_drive(pending)
    return format_drive(replace(later, size=now.size)) if now.volume == later.volume else pending


def incarnation(config: Mapping[str, str]) -> str:
    """What changes when the VM is made anew, restored or rolled back to a snapshot.

    The generation id (``0`` turns it off; Proxmox VE: qm.conf), the SMBIOS id where there is none.
    """
    generation = config.get("vmgenid", "0")
    return generation if generation != "0" else parse_properties(config.get("smbios1", ""), "").get("uuid", "")
