# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The wire to one DNS server: zone transfer (RFC 5936), queries and UPDATE (RFC 2136), over TCP, signed (RFC 8945)."""

from __future__ import annotations

import base64
import contextlib
import queue
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

try:
    import dns.exception
    import dns.flags
    import dns.message
    import dns.name
    import dns.query
    import dns.rcode
    import dns.rdatatype
    import dns.rrset
    import dns.tsig
    import dns.update
    import dns.xfr
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns.transfer import Content, read_transfer
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    HostingError,
    InvalidInput,
    Unreachable,
)

TIMEOUT_SECONDS = 30
# PowerDNS takes 9 s to delete the record sets that one message holds
UPDATE_SECONDS = 300
HEADER_BYTES = 12
NO_RECORDS = b"\0\0"
UNSIGNED = (
    "Servers answer so to a zone that they do not know, PowerDNS and newer Knot also to a wrong key, secret or clock:"
    " check tsig_name, tsig_secret, tsig_algorithm, the time of both sides and what the server allows this key"
)


@dataclass(frozen=True)
class Server:
    """A server of zones, by address; *key* signs everything that is sent, *timeout* is in seconds."""

    address: str
    port: int = 53
    key: dns.tsig.Key | None = field(default=None, repr=False)
    timeout: float = TIMEOUT_SECONDS

    def content(self, zone: dns.name.Name) -> Content:
        """All record sets of *zone*, as they came.

        :raises Denied: the server does not let this key transfer the zone, or knows no such zone.
        """
        query = dns.message.make_query(zone, "AXFR", flags=0)
        if self.key is not None:
            query.use_tsig(self.key)
        with self._translated(zone), self._connection() as connection:
            dns.query.send_tcp(connection, query.to_wire())
            return read_transfer(zone, query, _messages(connection))

    def query(self, zone: dns.name.Name, owner: dns.name.Name, rdtype: str) -> list[dns.rrset.RRset]:
        """The record sets of the answer, empty if there is none.

        :raises BackendError: the server has no authority for the name.
        """
        return next(self.queries(zone, [(owner, rdtype)]))

    def queries(
        self, zone: dns.name.Name, places: Iterable[tuple[dns.name.Name, str]]
    ) -> Iterator[list[dns.rrset.RRset]]:
        """The record sets of one answer after the other, asked over one connection.

        :raises BackendError: the server has no authority for a name.
        """
        with self._translated(zone), self._connection() as connection:
            for owner, rdtype in places:
                response = self._exchange(zone, dns.message.make_query(owner, rdtype, flags=0), connection)
                known = response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
                if not known or not response.flags & dns.flags.AA:
                    raise BackendError(
                        f"the server gives no authoritative answer for {owner} {rdtype} ({_rcode(response.rcode())})",
                        where=self._where(zone),
                        hint="Check that it is a primary server of the zone; below a delegation a transfer is needed",
                    )
                yield response.answer

    def soa(self, name: dns.name.Name) -> tuple[dns.name.Name, Any] | None:
        """Name and SOA data of the zone that *name* is in, ``None`` if this server has no authority for it."""
        with self._translated(name):
            response = self._exchange(name, dns.message.make_query(name, "SOA", flags=0))
        if not response.flags & dns.flags.AA:
            return None
        for rrset in (*response.answer, *response.authority):
            if rrset.rdtype == dns.rdatatype.SOA and name.is_subdomain(rrset.name):
                return rrset.name.canonicalize(), rrset[0]
        # an alias hides the zone (RFC 1034 section 3.6.2), the name above it is in the same or a higher zone
        return self.soa(name.parent()) if response.answer and len(name.labels) > 1 else None

    def update(self, zone: dns.name.Name, message: dns.update.UpdateMessage) -> dns.rcode.Rcode:
        """Send an UPDATE and return what the server said; that says nothing about what it did."""
        with self._translated(zone):
            return self._exchange(zone, message, timeout=UPDATE_SECONDS).rcode()

    def _exchange(
        self,
        zone: dns.name.Name,
        message: dns.message.Message,
        connection: socket.socket | None = None,
        timeout: float | None = None,
    ) -> dns.message.Message:
        if self.key is not None:
            message.use_tsig(self.key)
        wire = message.to_wire()
        with contextlib.nullcontext(connection) if connection else self._connection() as used:
            used.settimeout(timeout or self.timeout)
            dns.query.send_tcp(used, wire)
            answer = _receive(used)
        if self.key is not None and answer[10:12] == NO_RECORDS:
            raise self._unsigned(zone, answer[3] & 15)
        response = dns.message.from_wire(answer, keyring=self.key, request_mac=message.mac)
        if not message.is_response(response):
            raise BackendError("the server answers another question", where=self._where(zone))
        if self.key is not None and not response.had_tsig:
            raise self._unsigned(zone, response.rcode())
        return response

    def _connection(self) -> socket.socket:
        return socket.create_connection((self.address, self.port), self.timeout)

    def _unsigned(self, zone: dns.name.Name, rcode: int) -> HostingError:
        """For an unsigned answer to a signed message, which must not be believed (RFC 8945 section 5.3)."""
        return BackendError(
            f"the server's answer is not signed ({_rcode(rcode)})", where=self._where(zone), hint=UNSIGNED
        )

    def _where(self, zone: dns.name.Name) -> str:
        return f"zone {zone.to_text(omit_final_dot=True)} on {self.address}:{self.port}"

    @contextlib.contextmanager
    def _translated(self, zone: dns.name.Name) -> Iterator[None]:
        try:
            yield
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise _translate(error, self._where(zone)) from None


def _receive(connection: socket.socket) -> bytes:
    """One message."""
    with connection.makefile("rb") as stream:
        size = stream.read(2)
        message = stream.read(int.from_bytes(size, "big"))
    if len(size) < 2 or len(message) < HEADER_BYTES or len(message) < int.from_bytes(size, "big"):
        raise EOFError("the server closed the connection")
    return message


def _messages(connection: socket.socket) -> Iterator[bytes]:
    """What the server sends, received in a thread: Knot drops a client that lets it wait for half a second."""
    arrived: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def receive() -> None:
        try:
            with connection.makefile("rb") as stream:
                while len(size := stream.read(2)) == 2:
                    arrived.put(stream.read(int.from_bytes(size, "big")))
            arrived.put(EOFError("the server closed the connection"))
        except OSError as error:
            arrived.put(error)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    try:
        while isinstance(message := arrived.get(), bytes):
            yield message
        raise message
    finally:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        thread.join()


def make_server(host: str, port: int, name: str | None, secret: str | None, algorithm: str) -> Server:
    """The server of the module options; *secret* is base64.

    :raises InvalidInput: the port or the key is malformed.
    :raises Unreachable: *host* has no address.
    """
    if not 0 < port < 65536:
        raise InvalidInput(f"the port is {port}", where="port", hint="Use 1 to 65535")
    try:
        address = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    # the latter by a label that is empty or too long
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{host!r} has no address: {error}", where="server", hint="Check the option server") from None
    if name is None or secret is None:
        return Server(address, port)
    try:
        return Server(address, port, dns.tsig.Key(name, base64.b64decode(secret, validate=True), algorithm))
    except dns.exception.DNSException as error:
        raise InvalidInput(f"{name!r} is no key name: {error}", where="tsig_name") from None
    except ValueError:
        raise InvalidInput("the secret is not base64", where="tsig_secret", hint="Copy it from the key file") from None


def refused(rcode: dns.rcode.Rcode) -> HostingError:
    """The error for an UPDATE that was answered with *rcode*."""
    if rcode == dns.rcode.REFUSED:
        return Denied(
            "the server refuses this change (REFUSED)",
            hint="Check its update policy; BIND also refuses an MX whose target in the zone has no address",
        )
    if rcode in (dns.rcode.NOTAUTH, dns.rcode.NOTIMP):
        return Denied(
            f"the server takes no updates of this zone ({_rcode(rcode)})",
            hint="Use a primary server of the zone and a key that it allows",
        )
    return BackendError(f"the server answered {_rcode(rcode)}", hint="Look at the server's log and run again")


def _translate(error: Exception, where: str) -> HostingError:
    if isinstance(error, dns.xfr.TransferError):
        return Denied(
            f"the server refuses to transfer the zone ({_rcode(error.rcode)})",
            where=where,
            hint="Check that it is a primary server of the zone, and tsig_name, tsig_secret and tsig_algorithm:"
            " it has to know this key and to let it transfer the zone",
        )
    text = str(error) or type(error).__name__
    for kinds, kind, what, hint in _explanations(text):
        if isinstance(error, kinds):
            return kind(what, where=where, hint=hint)
    return BackendError(text, where=where)


def _explanations(text: str) -> tuple[tuple[tuple[type[Exception], ...], type[HostingError], str, str], ...]:
    """What each exception means and what to do about it; the first that fits counts."""
    tsig = dns.tsig
    key_hint = "Check tsig_name, tsig_algorithm and what the server allows this key"
    return (
        # Knot also says BADKEY when its access control list has no entry for the key and the operation
        (
            (tsig.PeerBadKey,),
            Denied,
            "the server does not know this TSIG key or does not allow it this (BADKEY)",
            key_hint,
        ),
        (
            (tsig.PeerBadSignature, tsig.BadSignature),
            Denied,
            "server and controller have different secrets for this TSIG key (BADSIG)",
            "Check tsig_secret and tsig_algorithm",
        ),
        (
            (tsig.PeerBadTime, tsig.BadTime),
            Denied,
            "the clocks of server and controller differ by more than 5 minutes (BADTIME)",
            "Set both by NTP",
        ),
        (
            (tsig.PeerError, tsig.BadKey, tsig.BadAlgorithm, dns.message.UnknownTSIGKey),
            Denied,
            f"the TSIG signatures do not match: {text}",
            key_hint,
        ),
        (
            (dns.exception.TooBig,),
            InvalidInput,
            "the record set is too big for one DNS message",
            "Use fewer values",
        ),
        (
            (dns.exception.FormError,),
            BackendError,
            f"the server's answer is malformed or not signed ({text})",
            UNSIGNED,
        ),
        (
            (dns.exception.Timeout, OSError, EOFError),
            Unreachable,
            f"no answer: {text}",
            "Check server and port and that it runs",
        ),
    )


def _rcode(rcode: int) -> str:
    return dns.rcode.to_text(dns.rcode.Rcode(rcode))
