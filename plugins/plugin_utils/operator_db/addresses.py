# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses of machines: reading pools and choosing free ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import Environment

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Pool:
    """All addresses from ``first`` to ``last``, both included."""

    first: Address
    last: Address

    def lowest_free(self, taken: Collection[Address]) -> Address | None:
        """The lowest address that is not in *taken*; None if there is none."""
        address = self.first
        while address <= self.last:  # type: ignore[operator]
            if address not in taken:
                return address
            address += 1
        return None


def parse_pool(text: str) -> Pool:
    """Read ``<first>-<last>``.

    :raises ValueError: it is no range of addresses of one family.
    """
    first, hyphen, last = (part.strip() for part in text.partition("-"))
    if not hyphen:
        raise ValueError(f"{text!r} is not <first address>-<last address>")
    pool = Pool(ip_address(first), ip_address(last))
    if pool.first.version != pool.last.version or pool.first > pool.last:  # type: ignore[operator]
        raise ValueError(f"{text!r} does not rise from a first to a last address")
    return pool


def reserved(environment: Environment) -> frozenset[Address]:
    """Addresses of the environment that no machine may get from the pool."""
    subnet = ip_network(environment.network.subnet)
    garage = environment.garage or {}
    hosts = [
        environment.network.gateway,
        *environment.network.nameservers,
        (environment.postgresql or {}).get("host"),
        urlsplit(garage.get("s3_endpoint", "")).hostname,
    ]
    edges = {subnet.network_address, subnet.broadcast_address} if subnet.prefixlen < subnet.max_prefixlen - 1 else set()
    return frozenset({*edges, *_addresses(hosts)})


def _addresses(hosts: Collection[str | None]) -> Iterator[Address]:
    for host in hosts:
        try:
            yield ip_address(host or "")
        except ValueError:
            continue  # a name
