# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloud-init: what a configuration tells the guest (PVE/QemuServer/Cloudinit.pm)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import unquote

from .config import NET, drives, mac_of
from .guests import GuestSpec
from .schema import parse_property_string
from .store import Option

OPTIONS = ("cicustom", "cipassword", "citype", "ciupgrade", "ciuser", "nameserver", "searchdomain", "sshkeys")


def keys_of(config: Mapping[str, Option]) -> list[str]:
    """The lines of `sshkeys`, decoded."""
    return [line for line in unquote(str(config.get("sshkeys", ""))).splitlines() if line.strip()]


def valid_key(line: str) -> bool:
    """Whether ssh-keygen would read the line as a public key: type, then a blob that names the same type."""
    match = re.match(r"(?:ssh|ecdsa|sk)-\S+", line)
    fields = line.split()
    if not match or len(fields) < 2:
        return False
    try:
        blob = base64.b64decode(fields[1], validate=True)
    except binascii.Error:
        return False
    length = int.from_bytes(blob[:4], "big")
    return blob[4 : 4 + length] == fields[0].encode() and len(blob) > 4 + length


def macs_of(config: Mapping[str, Option]) -> tuple[str, ...]:
    """The MACs of the network cards, in the order of their names."""
    cards = sorted((key for key in config if NET.fullmatch(key)), key=lambda key: int(key.removeprefix("net")))
    return tuple(mac_of(str(config[key])).lower() for key in cards)


def guest_spec(name: str, vmid: int, config: Mapping[str, Option]) -> GuestSpec:
    """The identity that the guest takes from its first NIC and, when it has a cloud-init drive, from the options.

    The image's cloud-init gives the keys to `ciuser`; only root's are of use to a driver.
    """
    nics = macs_of(config)
    told = config if any(drive.cloudinit for drive in drives(config).values()) else {}
    addresses: list[str] = []
    gateway = None
    for key in sorted(key for key in told if key.startswith("ipconfig")):
        values, _unused = parse_property_string("ipconfig", str(told[key]), key)
        addresses += [values[family] for family in ("ip", "ip6") if values.get(family) not in (None, "dhcp", "auto")]
        gateway = gateway or values.get("gw")
    return GuestSpec(
        name=name,
        hostname=str(told.get("name", f"VM{vmid}")) if told else "localhost",
        mac=nics[0] if nics else "",
        addresses=tuple(addresses),
        gateway=gateway,
        nameservers=tuple(str(told.get("nameserver", "")).split()),
        authorized_keys=tuple(keys_of(told)) if told.get("ciuser") == "root" else (),
        nics=nics,
    )


def user_data(vmid: int, config: Mapping[str, Option]) -> str:
    """`cloudinit/dump?type=user`"""
    host = str(config.get("name", f"VM{vmid}"))
    domain = str(config.get("searchdomain", "")).split()
    lines = ["#cloud-config", f"hostname: {host}", "manage_etc_hosts: true"]
    lines += [f"fqdn: {host}.{domain[0]}"] if domain else []
    lines += [f"user: {config['ciuser']}"] if config.get("ciuser") else []
    lines += ["disable_root: False"] if config.get("ciuser") == "root" else []
    lines += [f"password: {config['cipassword']}"] if config.get("cipassword") else []
    lines += ["ssh_authorized_keys:", *(f"  - {key}" for key in keys_of(config))] if keys_of(config) else []
    lines += ["chpasswd:", "  expire: False"]
    lines += ["users:", "  - default"] if config.get("ciuser") != "root" else []
    lines += ["package_upgrade: true"] if config.get("ciupgrade", 1) else []
    return "\n".join(lines) + "\n"


def network_data(config: Mapping[str, Option]) -> str:
    """`cloudinit/dump?type=network`"""
    lines = ["version: 1", "config:"]
    for index, key in enumerate(sorted(key for key in config if NET.fullmatch(key))):
        lines += ["    - type: physical", f"      name: eth{index}"]
        lines += [f"      mac_address: '{mac_of(str(config[key])).lower()}'", "      subnets:"]
        number = key.removeprefix("net")
        values, _unused = parse_property_string("ipconfig", str(config.get(f"ipconfig{number}", "")))
        for family, gateway, suffix in (("ip", "gw", ""), ("ip6", "gw6", "6")):
            address = values.get(family)
            if address in ("dhcp", "auto"):
                lines.append(f"      - type: {'dhcp' + (suffix or '4') if address == 'dhcp' else 'ipv6_slaac'}")
            elif address:
                interface = ipaddress.ip_interface(address)
                lines += [
                    f"      - type: static{suffix}",
                    f"        address: '{interface.ip if not suffix else address}'",
                ]
                lines += [] if suffix else [f"        netmask: '{interface.netmask}'"]
                lines += [f"        gateway: '{values[gateway]}'"] if gateway in values else []
    servers = str(config.get("nameserver", "")).split()
    domains = str(config.get("searchdomain", "")).split()
    if servers or domains:
        lines += ["    - type: nameserver"]
        lines += ["      address:", *(f"      - '{server}'" for server in servers)] if servers else []
        lines += ["      search:", *(f"      - '{domain}'" for domain in domains)] if domains else []
    return "\n".join(lines) + "\n"


def meta_data(vmid: int, config: Mapping[str, Option]) -> str:
    """`cloudinit/dump?type=meta`: the instance id changes with the data."""
    data = user_data(vmid, config) + network_data(config)
    return f"instance-id: {hashlib.sha1(data.encode(), usedforsecurity=False).hexdigest()}\n"
