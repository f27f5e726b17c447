# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the other servers of a zone have got what was written to the primary one."""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

try:
    import dns.name
    import dns.rdatatype
    import dns.serial
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.names import shown_name
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    HostingError,
    InvalidInput,
    NotFound,
)

# HOST or HOST:PORT; ADDRESS of IPv6; [ADDRESS] or [ADDRESS]:PORT
WRITTEN = re.compile(
    r"([^:\[\]\s]+)(?::([0-9]{1,5}))?|(?=[^:]*:[^:]*:)([0-9A-Fa-f:.]+)|\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?"
)
PAUSE_SECONDS = 0.2
ANSWER_SECONDS = 3


@dataclass(frozen=True)
class Secondary:
    """A server of a zone that is asked without a key; *name* is what people know it by."""

    name: str
    server: Server


@dataclass(frozen=True)
class Lagging:
    """A server that does not have the zone as it is now.

    :param serial: that it has, ``None`` if it gave no answer.
    """

    name: str
    serial: int | None
    reason: str


def parse_secondary(text: str) -> Secondary:
    """A server written as ``192.0.2.1``, ``2001:db8::1``, ``ns2.example.org``, ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``.

    :raises InvalidInput: it is none of these.
    :raises NotFound: the host has no address.
    """
    found = WRITTEN.fullmatch(text)
    host = found and (found[1] or found[3] or found[4])
    port = int((found and (found[2] or found[5])) or 53)
    if not host or not 0 < port < 65536:
        raise InvalidInput(
            f"{text!r} is no server", where="secondaries", hint="Write ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT"
        )
    return Secondary(text, Server(_addresses(host)[0], port, timeout=ANSWER_SECONDS))


def servers_of(primary: Server, zone: dns.name.Name) -> list[Secondary]:
    """All servers that the zone's NS records name, at all their addresses.

    :raises HostingError: the primary server or the system's resolver does not know an address.
    """
    found = []
    for rrset in primary.query(zone, zone, "NS"):
        for value in rrset:
            name = value.target
            inside = name.is_subdomain(zone) and _inside(primary, zone, name)
            for address in inside or _addresses(name.to_text(omit_final_dot=True)):
                found.append(Secondary(f"{shown_name(name)} ({address})", Server(address, timeout=ANSWER_SECONDS)))
    return found


def _inside(primary: Server, zone: dns.name.Name, name: dns.name.Name) -> list[str]:
    """Addresses of a name in the zone itself."""
    answers = primary.queries(zone, [(name, "A"), (name, "AAAA")])
    return [
        value.to_text()
        for answer in answers
        for rrset in answer
        if rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)
        for value in rrset
    ]


def _addresses(host: str) -> list[str]:
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
    except (OSError, UnicodeError) as error:
        raise NotFound(
            f"{host!r} has no address: {error}", where="secondaries", hint="List the servers to ask"
        ) from None


def wait(zone: dns.name.Name, serial: int, secondaries: Iterable[Secondary], deadline: float) -> list[Lagging]:
    """Ask until all *secondaries* have *serial* or a newer one, and return those that have not at *deadline*.

    :param deadline: of :func:`time.monotonic`.
    """
    waiting = list(secondaries)
    while True:
        lagging = [found for found in (_lagging(zone, serial, one) for one in waiting) if found is not None]
        if not lagging or time.monotonic() >= deadline:
            return lagging
        names = {one.name for one in lagging}
        waiting = [one for one in waiting if one.name in names]
        time.sleep(PAUSE_SECONDS)


def _lagging(zone: dns.name.Name, serial: int, secondary: Secondary) -> Lagging | None:
    try:
        found = secondary.server.soa(zone)
    except HostingError as error:
        return Lagging(secondary.name, None, error.what)
    if found is None or found[0] != zone:
        return Lagging(secondary.name, None, "it does not serve the zone")
    has = found[1].serial
    # RFC 1982: serials are compared in a circle
    if dns.serial.Serial(has) >= dns.serial.Serial(serial):
        return None
    return Lagging(secondary.name, has, f"it has serial {has}, not {serial}")


def serial_of(primary: Server, zone: dns.name.Name) -> int:
    """The serial that the primary server has.

    :raises NotFound: it does not serve the zone.
    """
    found = primary.soa(zone)
    if found is None or found[0] != zone:
        raise NotFound("the server does not serve the zone", where=f"zone {shown_name(zone)}")
    return int(found[1].serial)
