# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The wire to one DNS server: zone transfer (RFC 5936), queries and UPDATE (RFC 2136), over TCP, signed (RFC 8945)."""

from __future__ import annotations

import base64
import binascii
import contextlib
import queue
import socket
import threading
from collections.abc import Iterator
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
    import dns.zone
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    HostingError,
    InvalidInput,
    Unreachable,
)

TIMEOUT_SECONDS = 30
UNSIGNED = "An unsigned answer mostly means that the server does not know the zone (NOTAUTH)"


@dataclass(frozen=True)
class Server:
    """A primary server of the zones, by address; *key* signs everything that is sent."""

    address: str
    port: int = 53
    key: dns.tsig.Key | None = field(default=None, repr=False)

    def transfer(self, zone: dns.name.Name) -> list[dns.rrset.RRset]:
        """All record sets of *zone*.

        :raises Denied: the server does not let this key transfer the zone, or knows no such zone.
        """
        content = dns.zone.Zone(zone, relativize=False)
        query, _serial = dns.xfr.make_query(content, keyring=self.key)
        with (
            self._translated(zone),
            socket.create_connection((self.address, self.port), TIMEOUT_SECONDS) as connection,
            dns.xfr.Inbound(content) as inbound,
        ):
            dns.query.send_tcp(connection, query.to_wire())
            signing: Any = None
            for wire in _messages(connection):
                message = dns.message.from_wire(
                    wire,
                    keyring=query.keyring,
                    request_mac=query.mac,
                    xfr=True,
                    origin=content.from_wire_origin(),
                    tsig_ctx=signing,
                    multi=True,
                )
                signing = message.tsig_ctx
                if inbound.process_message(message):
                    # the signature of the last message covers those before it
                    self._require_signature(zone, message)
                    break
        return [dns.rrset.from_rdata_list(name, found.ttl, list(found)) for name, found in content.iterate_rdatasets()]

    def query(self, zone: dns.name.Name, owner: dns.name.Name, rdtype: str) -> list[dns.rrset.RRset]:
        """The record sets of the answer, empty if there is none.

        :raises BackendError: the server has no authority for the name.
        """
        query = dns.message.make_query(owner, rdtype, flags=0)
        response = self._exchange(zone, query)
        known = response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
        if not known or not response.flags & dns.flags.AA:
            raise BackendError(
                f"the server gives no authoritative answer for {owner} {rdtype} ({_rcode(response.rcode())})",
                where=self._where(zone),
                hint="Check that it is a primary server of the zone; names below a delegation need a zone transfer",
            )
        return response.answer

    def update(self, zone: dns.name.Name, message: dns.update.UpdateMessage) -> dns.rcode.Rcode:
        """Send an UPDATE and return what the server said; that says nothing about what it did."""
        return self._exchange(zone, message).rcode()

    def _exchange(self, zone: dns.name.Name, message: dns.message.Message) -> dns.message.Message:
        with self._translated(zone):
            if self.key is not None:
                message.use_tsig(self.key)
            response = dns.query.tcp(message, self.address, timeout=TIMEOUT_SECONDS, port=self.port)
            self._require_signature(zone, response)
            return response

    def _require_signature(self, zone: dns.name.Name, response: dns.message.Message) -> None:
        """Refuse an unsigned answer to a signed message, as newer dnspython does by itself (RFC 8945 section 5.3)."""
        if self.key is not None and not response.had_tsig:
            raise BackendError(
                f"the server's answer is not signed ({_rcode(response.rcode())})",
                where=self._where(zone),
                hint=UNSIGNED,
            )

    def _where(self, zone: dns.name.Name) -> str:
        return f"zone {zone.to_text(omit_final_dot=True)} on {self.address}:{self.port}"

    @contextlib.contextmanager
    def _translated(self, zone: dns.name.Name) -> Iterator[None]:
        try:
            yield
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise _translate(error, self._where(zone)) from None


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

    :raises InvalidInput: the key is malformed.
    :raises Unreachable: *host* has no address.
    """
    try:
        address = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise Unreachable(f"{host} has no address: {error}", where="server", hint="Check the option server") from None
    if name is None or secret is None:
        return Server(address, port)
    try:
        return Server(address, port, dns.tsig.Key(name, base64.b64decode(secret, validate=True), algorithm))
    except binascii.Error:
        raise InvalidInput("the secret is not base64", where="tsig_secret", hint="Copy it from the key file") from None
    except dns.exception.DNSException as error:
        raise InvalidInput(f"{name!r} is no key name: {error}", where="tsig_name") from None


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
            hint="Check that it is a primary server of the zone and lets this key transfer it",
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
