# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses, ports and names in firewall rules (PVE/Firewall.pm `parse_address_list`, `parse_port_name_...`; Net::IP).

Every check returns None when the value is good, else the server's text.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

NAME = r"[A-Za-z][A-Za-z0-9\-_]+"
WITH_PORTS = frozenset(("udp", "17", "udplite", "136", "tcp", "6", "dccp", "33", "sctp", "132"))
ICMP = ("icmp", "icmpv6", "ipv6-icmp")
MAX_NAME = 64
NO_NETWORK = "value does not look like a valid IP address or CIDR network\n"


@cache
def names(kind: str) -> tuple[str, ...]:
    """The macros, services, protocols, icmp or icmpv6 types that rules may name."""
    tables = tomllib.loads((Path(__file__).with_name("tables") / "firewall.toml").read_text(encoding="utf-8"))
    return tuple(tables["names"][kind].split())


def version_of(address: str) -> int:
    """4 or 6 for an address, network or range."""
    return 6 if ":" in address else 4


def _quads(text: str) -> str:
    """What Net::IP says of a wrong address."""
    if not re.fullmatch(r"[\d.]+", text):
        return f"Invalid chars in IP {text}"
    parts = text.split(".")
    wrong = next((part for part in parts if part and int(part) > 255), "")
    if wrong:
        return f"Invalid quad in IP address {text} - {wrong}"
    return f"Empty quad in IP address {text}" if "" in parts else f"Invalid IP address {text}"


def _network(text: str) -> str:
    """ "" or what is wrong with an address, a network without host bits, or a range."""
    low, dash, high = text.partition("-")
    if dash:
        return _network(low) or _network(high)
    address, slash, length = text.partition("/")
    try:
        own = ipaddress.ip_address(address)
    except ValueError:
        return _quads(address)
    if not slash:
        return ""
    if not length.isdigit() or int(length) > own.max_prefixlen:
        return f"Prefix length {length} is longer than IP address ({own.max_prefixlen})"
    rest = f"{int(own):0{own.max_prefixlen}b}"[int(length) :]
    return f"Invalid prefix {rest}" if "1" in rest else ""


def address_list(value: str) -> str | None:
    """A set (+name), an alias, or addresses, networks and ranges of one IP version."""
    if re.fullmatch(r"\+\S+", value):
        return "ipset name too long\n" if len(value) > MAX_NAME + 1 else None
    if re.fullmatch(rf"(?:dc/|guest/)?{NAME}", value):
        return "alias name too long\n" if len(value) > MAX_NAME else None
    elements = value.split(",") if value else []
    if value.endswith(","):
        return "extraneous commas in list\n"
    for element in elements:
        if problem := _network(element):
            return f"invalid IP address: {problem}\n"
    if len({version_of(element) for element in elements}) > 1:
        return f"detected mixed ipv4/ipv6 addresses in address list '{value}'\n"
    return "you can't use a range in a list\n" if len(elements) > 1 and "-" in value else None


def ports(value: str) -> str | None:
    """Port numbers, ranges low:high and service names; ICMP types too, as they once were kept in dport."""
    count = 0
    icmp = False
    elements = value.split(",") if value else []
    if value.endswith(","):
        return "extraneous commas in list\n"
    for item in elements:
        numbers = [int(number) for number in item.split(":")] if re.fullmatch(r"\d+(?::\d+)?", item) else []
        count += len(numbers)
        for number in numbers:
            if number > 65535:
                return f"invalid port '{number}'\n"
        if len(numbers) == 2 and numbers[0] > numbers[1]:
            low, high = numbers
            return f"backwards range '{low}:{high}' not allowed, did you mean '{high}:{low}'?\n"
        if not numbers and item in (*names("icmp"), *names("icmpv6")):
            icmp = True
        elif not numbers and item not in names("services"):
            return f"invalid port '{item}'\n"
    if icmp and count:
        return "ICMP ports not allowed in port range\n"
    return "too many entries in port list (> 15 numbers)\n" if count > 15 else None


def protocol(value: str) -> str | None:
    known = value in names("protocols") or (value.isdigit() and int(value) < 256)
    return None if known or not value else f"unknown protocol '{value}'\n"


def icmp_type(value: str) -> str | None:
    known = value in (*names("icmp"), *names("icmpv6"))
    return None if known or not value else f"invalid icmp-type value '{value}'\n"


def interface(value: str) -> str | None:
    good = re.fullmatch(r"(?i:[a-z][a-z0-9_]{1,20})(?:[:.]\d+)?", value)
    return None if good else f"invalid network interface name '{value}'\n"


def ip_or_cidr(value: str) -> str | None:
    """An address or a network; host bits are allowed."""
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        return NO_NETWORK
    return None


def ip_or_cidr_or_alias(value: str) -> str | None:
    return None if re.fullmatch(rf"(?:dc/|guest/)?{NAME}", value) else ip_or_cidr(value)


FIREWALL: Mapping[str, Callable[[str], str | None]] = {
    "fw-address": address_list,
    "fw-port": ports,
    "fw-protocol": protocol,
    "fw-icmp-type": icmp_type,
    "iface": interface,
    "IPorCIDR": ip_or_cidr,
    "IPorCIDRorAlias": ip_or_cidr_or_alias,
}
