# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that are network addresses."""

from __future__ import annotations

import ipaddress
from typing import Literal

from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.check import Check
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import IpConfig

# dhcp and auto are the server's words (pve-qm-ipconfig); dhcp6 tells DHCPv6 from DHCPv4 in one list
DYNAMIC_IPV4 = ("dhcp",)
DYNAMIC_IPV6 = ("dhcp6", "auto")


def desired_addresses(check: Check) -> IpConfig | None:
    """``addresses``, ``gateway`` and ``gateway6`` of one device; None if no addresses are given.

    :raises InvalidInput: a value is no address, or a gateway is not in the network of its address.
    """
    values = check.values.get("addresses")
    found: dict[str, str] = {}
    for text in values or ():
        family, value = _interface(check, text)
        if family in found:
            raise check.refused("addresses", values, "at most one IPv4 and one IPv6 address")
        found[family] = value
    for family, option in (("ipv4", "gateway"), ("ipv6", "gateway6")):
        gateway = check.values.get(option)
        if gateway is None:
            continue
        if "/" not in found.get(family, ""):
            raise check.refused(option, gateway, "a gateway only with a fixed address of the same family in addresses")
        address = plain_address(check, option, gateway)
        if ipaddress.ip_address(address) not in ipaddress.ip_interface(found[family]).network:
            raise check.refused(option, gateway, f"an address inside the network of {found[family]}")
        found[option] = address
    if values is None:
        return None
    return IpConfig(found.get("ipv4"), found.get("gateway"), found.get("ipv6"), found.get("gateway6"))


def _interface(check: Check, text: str) -> tuple[Literal["ipv4", "ipv6"], str]:
    if text in DYNAMIC_IPV4:
        return "ipv4", text
    if text in DYNAMIC_IPV6:
        return "ipv6", text
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        interface = None
    # without a prefix length Python would take a single address for a network of its own
    if interface is None or "/" not in text or "%" in text:
        raise check.refused(
            "addresses", text, "an address with prefix length, such as 10.0.0.5/24, or dhcp, dhcp6, auto"
        )
    return ("ipv4" if interface.version == 4 else "ipv6"), str(interface)


def plain_address(check: Check, field_name: str, text: str) -> str:
    """The address in its shortest form. :raises InvalidInput: it is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise check.refused(field_name, text, "an IP address") from None
