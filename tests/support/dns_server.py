# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private Knot and BIND servers for tests: real, on loopback, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rdatatype
import dns.tsig
import dns.xfr
import dns.zone

ZONES = ("fedi.test", "other.test")
START_SECONDS = 30
STOP_SECONDS = 30
# may transfer and update; may update only
FULL_KEY = "fediversity."
UPDATE_KEY = "update-only."
SECRET = "c2VudGluZWwtdHNpZy1zZWNyZXQtMDEyMzQ1Njc4OWFi"
# the name that BIND's update policy keeps from everybody
DENIED = "denied.fedi.test"

ZONE_FILE = """$ORIGIN {zone}.
$TTL 3600
@ SOA ns1 hostmaster 1 3600 600 86400 300
@ NS ns1
ns1 A 127.0.0.1
foreign A 192.0.2.99
foreign TXT "theirs"
"""

KNOT = """
server:
    listen: 127.0.0.1@{port}
    rundir: {directory}
{user}
log:
  - target: stderr
    any: info
database:
    storage: {directory}/db
key:
  - id: "{full}"
    algorithm: hmac-sha256
    secret: "{secret}"
  - id: "{update}"
    algorithm: hmac-sha256
    secret: "{secret}"
acl:
  - id: full
    key: "{full}"
    action: [transfer, update]
  - id: update
    key: "{update}"
    action: [update]
template:
  - id: default
    storage: {directory}
    file: "%s.zone"
    zonefile-sync: -1
    journal-content: changes
    acl: [full, update]
zone:
{zones}
"""

BIND = """
options {{
    directory "{directory}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    pid-file "{directory}/named.pid";
    session-keyfile "{directory}/session.key";
    recursion no;
    dnssec-validation no;
    notify no;
}};
controls {{ }};
key "{full}" {{ algorithm hmac-sha256; secret "{secret}"; }};
key "{update}" {{ algorithm hmac-sha256; secret "{secret}"; }};
{zones}
"""

BIND_ZONE = """
zone "{zone}" {{
    type primary;
    file "{directory}/{zone}.zone";
    allow-transfer {{ key "{full}"; }};
    update-policy {{ deny * name {denied}. ANY; grant {full} zonesub ANY; grant {update} zonesub ANY; }};
}};
"""


@dataclass(frozen=True)
class DnsServer:
    """How to reach the server, and what its administrator would do with it."""

    software: str
    address: str
    port: int
    key: str = FULL_KEY
    secret: str = field(default=SECRET, repr=False)
    algorithm: str = "hmac-sha256"

    def tsig(self) -> dns.tsig.Key:
        return dns.tsig.Key(self.key, self.secret, self.algorithm)

    def content(self, zone: str) -> dict[tuple[str, str], tuple[int, frozenset[str]]]:
        """TTL and values of every record set by lower-case name and type; the serial of the SOA is left out."""
        found = dns.zone.Zone(zone, relativize=False)
        query, _serial = dns.xfr.make_query(found, keyring=self.tsig())
        dns.query.inbound_xfr(self.address, found, query, port=self.port, lifetime=STOP_SECONDS)
        return {
            (name.canonicalize().to_text(), dns.rdatatype.to_text(rdataset.rdtype)): (
                rdataset.ttl,
                frozenset(value.to_text() for value in rdataset),
            )
            for name, rdataset in found.iterate_rdatasets()
            if rdataset.rdtype != dns.rdatatype.SOA
        }

    def serial(self, zone: str) -> int:
        query = dns.message.make_query(zone, "SOA", flags=0)
        answer = dns.query.tcp(query, self.address, timeout=STOP_SECONDS, port=self.port).answer
        serial: int = answer[0][0].serial  # type: ignore[attr-defined]
        return serial


@contextmanager
def knot_server(directory: Path, zones: Sequence[str] = ZONES) -> Iterator[DnsServer]:
    """Runs Knot DNS while the block runs; *directory* receives its files and its log (server.log)."""
    (directory / "db").mkdir()
    blocks = "\n".join(f"  - domain: {zone}" for zone in zones)
    user = "    user: root:root" if os.geteuid() == 0 else ""

    def command(port: int) -> list[str]:
        text = KNOT.format(
            port=port, directory=directory, user=user, full=FULL_KEY, update=UPDATE_KEY, secret=SECRET, zones=blocks
        )
        (directory / "knot.conf").write_text(text, encoding="utf-8")
        return [_program("knotd"), "-c", str(directory / "knot.conf")]

    with _running("knot", directory, zones, command) as server:
        yield server


@contextmanager
def bind_server(directory: Path, zones: Sequence[str] = ZONES) -> Iterator[DnsServer]:
    """Runs BIND while the block runs; *directory* receives its files and its log (server.log)."""
    blocks = "".join(
        BIND_ZONE.format(zone=zone, directory=directory, full=FULL_KEY, update=UPDATE_KEY, denied=DENIED)
        for zone in zones
    )

    def command(port: int) -> list[str]:
        text = BIND.format(
            port=port, directory=directory, full=FULL_KEY, update=UPDATE_KEY, secret=SECRET, zones=blocks
        )
        (directory / "named.conf").write_text(text, encoding="utf-8")
        user = ["-u", "root"] if os.geteuid() == 0 else []
        return [_program("named"), "-g", "-n", "1", *user, "-c", str(directory / "named.conf")]

    with _running("bind", directory, zones, command) as server:
        yield server


@contextmanager
def _running(
    software: str, directory: Path, zones: Sequence[str], command: Callable[[int], list[str]]
) -> Iterator[DnsServer]:
    for zone in zones:
        (directory / f"{zone}.zone").write_text(ZONE_FILE.format(zone=zone), encoding="utf-8")
    port = _free_port()
    log = directory / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command(port)],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        for zone in zones:
            _wait_until_served(process, port, zone, log)
        yield DnsServer(software, "127.0.0.1", port)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)


def _program(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise RuntimeError(f"{name} was not found: install the Debian packages 'knot' and 'bind9'")
    return path


def _free_port() -> int:
    """A port that is free for TCP and UDP."""
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        port: int = tcp.getsockname()[1]
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", port))
    return port


def _wait_until_served(process: subprocess.Popen[bytes], port: int, zone: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _serves(port, zone):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the DNS server did not start:\n{log.read_text(encoding='utf-8')}")
        time.sleep(0.05)


def _serves(port: int, zone: str) -> bool:
    try:
        response = dns.query.tcp(dns.message.make_query(zone, "SOA", flags=0), "127.0.0.1", timeout=2, port=port)
    except (dns.exception.DNSException, OSError, EOFError):
        return False
    return bool(response.answer) and bool(response.flags & dns.flags.AA)
