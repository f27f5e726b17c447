# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the registrar, or the holder of the zone above, has to be told so that a zone is found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

try:
    import dns.name
    import dns.rdatatype
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.model import WantedZone, name_text
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError

POLL_SECONDS = 0.2
# RFC 8078 section 4: the holder asks for the removal of DNSSEC
DELETE_DS = "0 0 0 00"


def delegation(server: Server, item: WantedZone) -> dict[str, Any]:
    """What *server* serves of a zone, and the delegation that follows; what is wanted where it serves nothing."""
    try:
        names = sorted(_values(server, item.zone, item.zone, "NS"))
        ds = sorted(value for value in _values(server, item.zone, item.zone, "CDS") if value != DELETE_DS)
        addresses = {name: _addresses(server, item.zone, name) for name in names}
    except HostingError:
        return expected(item)
    return _delegation(item.name, True, [name_text(dns.name.from_text(name)) for name in names], addresses, ds)


def expected(item: WantedZone) -> dict[str, Any]:
    """The delegation of a zone that is not served yet."""
    addresses = {f"{name}.": list(values) for name, values in item.first.addresses}
    return _delegation(item.name, False, sorted(item.first.nameservers), addresses, [])


def wait_until_served(server: Server, zones: Sequence[WantedZone], seconds: int) -> list[str]:
    """The names of the zones that *server* does not serve within so many seconds, all together."""
    deadline = time.monotonic() + seconds
    waiting = list(zones)
    while waiting := [item for item in waiting if not serves(server, item)]:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    return [item.name for item in waiting]


def serves(server: Server, item: WantedZone) -> bool:
    """Whether *server* has authority for the zone itself, not only for one above it."""
    try:
        return bool(_values(server, item.zone, item.zone, "SOA"))
    except HostingError:
        return False


def _delegation(
    name: str, served: bool, nameservers: list[str], addresses: dict[str, list[str]], ds: list[str]
) -> dict[str, Any]:
    glue = {key.removesuffix("."): values for key, values in addresses.items() if values}
    lines = [f"{name}. NS {server}." for server in nameservers]
    lines += [
        f"{server}. {'AAAA' if ':' in value else 'A'} {value}" for server, values in glue.items() for value in values
    ]
    lines += [f"{name}. DS {value}" for value in ds]
    return {"served": served, "nameservers": nameservers, "glue": glue, "ds": ds, "delegation": lines}


def _addresses(server: Server, zone: dns.name.Name, name: str) -> list[str]:
    """The addresses of a name server inside the zone: without glue nobody finds it."""
    if not dns.name.from_text(name).is_subdomain(zone):
        return []
    owner = dns.name.from_text(name)
    return sorted(value for rdtype in ("A", "AAAA") for value in _values(server, zone, owner, rdtype))


def _values(server: Server, zone: dns.name.Name, owner: dns.name.Name, rdtype: str) -> list[str]:
    wanted = dns.rdatatype.from_text(rdtype)
    return [
        value.to_text()
        for rrset in server.query(zone, owner, rdtype)
        if rrset.rdtype == wanted and rrset.name == owner
        for value in rrset
    ]
