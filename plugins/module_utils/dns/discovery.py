# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which zone a name is in, and which of the given servers holds it. No resolver is asked: its answers are old."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

try:
    import dns.name
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import Server, make_server
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.names import parse_name, shown_name
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput, NotFound


@dataclass(frozen=True)
class KnownServer:
    """A server of the module options.

    :param host: as it is written there.
    :param zones: whose names it is known to hold, unless a longer one of another server fits.
    """

    host: str
    server: Server
    zones: tuple[dns.name.Name, ...] = ()


def known_servers(params: Mapping[str, Any]) -> list[KnownServer]:
    """The servers of the module options ``server`` and ``servers``.

    :raises InvalidInput: a key or a zone name is malformed, or there is no server.
    :raises Unreachable: a server has no address.
    """
    found = [_known(params)] if params["server"] else []
    found += [_known(option, option["zones"]) for option in params["servers"]]
    if not found:
        raise InvalidInput("there is no server", where="server", hint="Set server or servers")
    return found


def _known(option: Mapping[str, Any], zones: Iterable[str] = ()) -> KnownServer:
    host = option["server"]
    server = make_server(host, option["port"], option["tsig_name"], option["tsig_secret"], option["tsig_algorithm"])
    return KnownServer(host, server, tuple(parse_name(zone, f"servers, {host}, zones") for zone in zones))


class Discovery:
    """Finds zones and servers, and remembers what it has found.

    :param zones: that are known without asking.
    """

    def __init__(self, servers: Sequence[KnownServer], zones: Iterable[dns.name.Name] = ()) -> None:
        self._servers = servers
        self._configured = {zone: known.server for known in servers for zone in known.zones}
        self._zones = {*zones, *self._configured}
        self._found: dict[dns.name.Name, tuple[dns.name.Name, Server]] = {}

    def server(self, zone: dns.name.Name) -> Server:
        """The server of *zone*: that of the longest configured suffix, the only one, or the one that has authority.

        :raises HostingError: no server has authority for the zone.
        """
        known = _longest_suffix(zone, self._configured)
        if known is not None:
            return self._configured[known]
        if len(self._servers) == 1:
            return self._servers[0].server
        found, server = self._ask(zone)
        if found != zone:
            raise NotFound(
                f"the servers know the zone {shown_name(found)}, not this one", where=f"zone {shown_name(zone)}"
            )
        return server

    def zone(self, name: dns.name.Name) -> dns.name.Name:
        """The zone that *name* is in: the longest known suffix, else what the servers say.

        :raises HostingError: no server has authority for the name.
        """
        return _longest_suffix(name, self._zones) or self._ask(name)[0]

    def _ask(self, name: dns.name.Name) -> tuple[dns.name.Name, Server]:
        """Zone and server of *name*: the one that the zone's SOA names, else the first that has authority."""
        if name in self._found:
            return self._found[name]
        answers: list[tuple[dns.name.Name, Server]] = []
        problems: list[HostingError] = []
        for known in self._servers:
            try:
                answer = known.server.soa(name)
            except HostingError as error:
                problems.append(error)
                continue
            if answer is None:
                continue
            zone, soa = answer
            answers.append((zone, known.server))
            if soa.mname.to_text(omit_final_dot=True).lower() == known.host.rstrip(".").lower():
                answers = answers[-1:]
                break
        if not answers:
            said = "".join(f"; {problem.where}: {problem.what}" for problem in problems)
            raise NotFound(
                f"none of the servers has authority for this name{said}",
                where=shown_name(name),
                hint="List a server of its zone in servers, and check its key",
            )
        self._found[name] = max(answers, key=lambda found: len(found[0].labels))
        return self._found[name]


def _longest_suffix(name: dns.name.Name, zones: Iterable[dns.name.Name]) -> dns.name.Name | None:
    fitting = [zone for zone in zones if name.is_subdomain(zone)]
    return max(fitting, key=lambda zone: len(zone.labels), default=None)
