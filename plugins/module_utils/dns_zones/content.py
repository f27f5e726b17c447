# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that a zone has, record by record."""

from __future__ import annotations

from typing import TypeAlias

try:
    import dns.name
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import Server

# owner, TTL in seconds, value
Record: TypeAlias = "tuple[dns.name.Name, int, dns.rdata.Rdata]"


def records(server: Server, zone: dns.name.Name) -> list[Record]:
    """All records of *zone* by zone transfer, those that DNSSEC made too.

    :raises HostingError: the server does not let us transfer it.
    """
    return [
        (
            dns.name.Name(labels),
            ttl,
            dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.RdataType(rdtype), wire, 0, len(wire)),
        )
        for (labels, rdtype), (ttl, wires) in server.content(zone).items()
        for wire in wires
    ]
