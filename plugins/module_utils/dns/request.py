# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one call of the module is: servers, zones and items from its options, and the wait for secondaries after it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

try:
    import dns.name
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns import secondaries
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.discovery import Discovery, known_servers
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import Desired, ManagedZone
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.names import ascii_name, shown_name
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.options import (
    Rules,
    check_mark,
    from_options,
    from_record_sets,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.provider import DnsRecords
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.secondaries import Secondary
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError


@dataclass(frozen=True)
class Request:
    """Zones with their servers, or with the reason why they have none, and the items."""

    zones: Sequence[tuple[ManagedZone, Server | HostingError]]
    items: Sequence[Desired]

    def provider(self) -> DnsRecords:
        return DnsRecords(self.zones)

    def report(self) -> list[dict[str, Any]]:
        """Which server each zone is managed on."""
        return [
            {"name": ascii_name(zone.name), "server": f"{server.address}:{server.port}"}
            for zone, server in self.zones
            if isinstance(server, Server)
        ]


def from_params(params: Mapping[str, Any]) -> Request:
    """The module options.

    :raises HostingError: no item can be worked on.
    """
    rules = Rules(params["ttl_override"], params["allow_apex_ns"])
    check_mark(params["owner"], "owner")
    listed, items = from_options(params["zones"], rules)
    discovery = Discovery(known_servers(params), [zone.name for zone in listed])
    zones = {zone.name: zone for zone in listed}

    def find(name: dns.name.Name) -> ManagedZone:
        zone = discovery.zone(name)
        return zones.setdefault(zone, ManagedZone(zone, params["owner"], purge=False))

    items.extend(from_record_sets(params["record_sets"], find, rules))
    return Request([(zone, _server(discovery, zone)) for zone in zones.values()], items)


def _server(discovery: Discovery, zone: ManagedZone) -> Server | HostingError:
    try:
        return discovery.server(zone.name)
    except HostingError as error:
        return error


def wait_for_secondaries(
    request: Request, given: Sequence[Secondary], seconds: int, result: Mapping[str, Any]
) -> dict[str, Any]:
    """*result* with what the secondaries of each zone have; it fails if one lags after *seconds*.

    :param given: the servers to ask; empty for all that the zones' NS records name.
    """
    deadline = time.monotonic() + seconds
    report = []
    lagging: list[str] = []
    for zone, server in request.zones:
        if isinstance(server, HostingError):
            continue
        entry: dict[str, Any] = {"name": ascii_name(zone.name), "server": f"{server.address}:{server.port}"}
        report.append(entry)
        try:
            entry["serial"] = secondaries.serial_of(server, zone.name)
            asked = given or secondaries.servers_of(server, zone.name)
            late = secondaries.wait(zone.name, entry["serial"], asked, deadline)
        except HostingError as error:
            lagging.append(f"zone {shown_name(zone.name)}: {error}")
            continue
        entry["lagging"] = [{"server": one.name, "serial": one.serial, "msg": one.reason} for one in late]
        lagging += [f"zone {shown_name(zone.name)} on {one.name}: {one.reason}" for one in late]
    if not lagging:
        return {**result, "zones": report}
    said = f"after {seconds} seconds not all servers have the zones: {'; '.join(lagging[:5])}"
    hint = "Look at NOTIFY and zone transfers on the servers"
    return {**result, "zones": report, "failed": True, "msg": f"{result['msg']}; {said}. {hint}"}
