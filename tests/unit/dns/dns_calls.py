# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calls as the module makes them, without starting a process for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dns.query
import dns.rcode
import dns.update
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.request import Request, from_params
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Limits, reconcile
from support.dns_server import DnsServer

NO_LIMITS = Limits(100, 100)
Edit = Callable[[dns.update.UpdateMessage], Any]


def record_set(prefix: str | None, rdtype: str, *values: str, **fields: Any) -> dict[str, Any]:
    defaults = {"record": None, "prefix": prefix, "ttl": 300, "state": "present", "adopt": False}
    return {**defaults, "type": rdtype, "value": list(values), **fields}


def named(record: str, rdtype: str, *values: str, **fields: Any) -> dict[str, Any]:
    """An item of the option record_sets of the module itself."""
    return record_set(None, rdtype, *values, record=record, **fields)


def zone(*record_sets: dict[str, Any], **fields: Any) -> dict[str, Any]:
    defaults = {"name": "fedi.test", "owner": "fediversity", "purge": False, "adopt": False, "records": ""}
    return {**defaults, **fields, "record_sets": list(record_sets)}


def known(server: DnsServer, *zones: str, **fields: Any) -> dict[str, Any]:
    """An item of the option servers."""
    key = {"tsig_name": server.key, "tsig_secret": server.secret, "tsig_algorithm": server.algorithm}
    return {"server": server.address, "port": server.port, **key, "zones": list(zones), **fields}


def request(server: DnsServer | None, *zones: dict[str, Any], **options: Any) -> Request:
    reach = {"server": None} if server is None else known(server)
    defaults = {"record_sets": [], "servers": [], "owner": "fediversity", "ttl_override": None, "allow_apex_ns": False}
    return from_params({**defaults, **reach, "zones": list(zones), **options})


def run(
    server: DnsServer | None, *zones: dict[str, Any], check: bool = False, limits: Limits = NO_LIMITS, **options: Any
) -> dict[str, Any]:
    asked = request(server, *zones, **options)
    provider = asked.provider()
    return reconcile(provider, asked.items, check=check, limits=limits, shares=provider.shares)


def content(server: DnsServer, name: str = "fedi.test") -> dict[tuple[str, str], tuple[int, frozenset[str]]]:
    """What the zone has, without the record that changes with every update."""
    found = server.content(name)
    found.pop((f"_registry.{name}.", "TXT"), None)
    return found


def actions(result: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["action"] for item in result["results"]}


def messages(result: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["msg"] for item in result["results"]}


def failed(result: dict[str, Any]) -> set[str]:
    return {item["name"] for item in result["results"] if item["failed"]}


def change(server: DnsServer, zone: str, edit: Edit) -> None:
    message = dns.update.UpdateMessage(f"{zone}.", keyring=server.tsig())
    edit(message)
    response = dns.query.tcp(message, server.address, timeout=30, port=server.port)
    if response.rcode() != dns.rcode.NOERROR:
        raise RuntimeError(dns.rcode.to_text(response.rcode()))


def restore(server: DnsServer, pristine: dict[str, dict[tuple[str, str], tuple[int, frozenset[str]]]]) -> None:
    for zone, wanted in pristine.items():
        found = server.content(zone)

        def edit(message: dns.update.UpdateMessage, zone=zone, found=found, wanted=wanted) -> None:
            for place in {**found, **wanted}:
                if found.get(place) == wanted.get(place):
                    continue
                ttl, values = wanted.get(place, (0, frozenset()))
                name_servers = place == (f"{zone}.", "NS")
                if not name_servers:
                    message.delete(*place)
                if values:
                    message.add(place[0], ttl, place[1], *values)
                # the zone keeps all of them when they are deleted at once
                for value in found[place][1] - values if name_servers else ():
                    message.delete(*place, value)

        if found != wanted:
            change(server, zone, edit)
