# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private Knot, BIND, PowerDNS and NSD servers for tests: real, on loopback, gone afterwards."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dns.message
import dns.query
import dns.rdatatype
import dns.tsig
import dns.xfr
import dns.zone

from support.dns import configurations
from support.dns.process import Process, free_port, program

ZONES = ("fedi.test", "other.test")
TIMEOUT_SECONDS = 30
# may transfer and update; may update only
FULL_KEY = "fediversity."
UPDATE_KEY = "update-only."
SECRET = "c2VudGluZWwtdHNpZy1zZWNyZXQtMDEyMzQ1Njc4OWFi"
# the name that BIND's update policy keeps from everybody
DENIED = "denied.fedi.test"
POWERDNS_SCHEMA = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")


@dataclass(frozen=True)
class DnsServer:
    """How to reach the server, and what its administrator would do with it."""

    software: str
    address: str
    port: int
    key: str = FULL_KEY
    secret: str = field(default=SECRET, repr=False)
    algorithm: str = "hmac-sha256"
    # of a private server
    process: Process | None = field(default=None, repr=False, compare=False)

    def tsig(self) -> dns.tsig.Key:
        return dns.tsig.Key(self.key, self.secret, self.algorithm)

    def content(self, zone: str) -> dict[tuple[str, str], tuple[int, frozenset[str]]]:
        """TTL and values of every record set by lower-case name and type; the serial of the SOA is left out."""
        found = dns.zone.Zone(zone, relativize=False)
        query, _serial = dns.xfr.make_query(found, keyring=self.tsig())
        dns.query.inbound_xfr(self.address, found, query, port=self.port, lifetime=TIMEOUT_SECONDS)
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
        answer = dns.query.tcp(query, self.address, timeout=TIMEOUT_SECONDS, port=self.port).answer
        serial: int = answer[0][0].serial  # type: ignore[attr-defined]
        return serial


@contextmanager
def knot_server(
    directory: Path,
    zones: Sequence[str] = ZONES,
    *,
    full_key: str = FULL_KEY,
    notify: Sequence[int] = (),
    settings: str = "",
) -> Iterator[DnsServer]:
    """Runs Knot DNS while the block runs; *directory* receives its files and its log (server.log).

    *notify*: ports of secondaries on loopback; *settings*: further lines of its template for zones.
    """
    (directory / "db").mkdir()
    _write_zones(directory, zones)
    port = free_port()
    names = [f"secondary{secondary}" for secondary in notify]
    remotes = "".join(configurations.KNOT_SECONDARY.format(port=secondary) for secondary in notify)
    text = configurations.KNOT.format(
        port=port,
        directory=directory,
        user="    user: root:root" if os.geteuid() == 0 else "",
        full=full_key,
        update=UPDATE_KEY,
        secret=SECRET,
        secondaries=f"remote:\n{remotes}" if remotes else "",
        notify=f"    notify: [{', '.join(names)}]" if names else "",
        settings=settings,
        zones="".join(configurations.KNOT_ZONE.format(zone=zone) for zone in zones),
    )
    file = _written(directory / "knot.conf", text)
    with _running(Process(directory, port, [program("knotd", "knot"), "-c", file], zones)) as process:
        yield DnsServer("knot", "127.0.0.1", port, full_key, process=process)


@contextmanager
def bind_server(
    directory: Path,
    zones: Sequence[str] = ZONES,
    *,
    full_key: str = FULL_KEY,
    notify: Sequence[int] = (),
    settings: str = "",
) -> Iterator[DnsServer]:
    """Runs BIND while the block runs; *directory* receives its files and its log (server.log).

    *notify*: ports of secondaries on loopback; *settings*: further statements of its zones.
    """
    _write_zones(directory, zones)
    port = free_port()
    fields = {"directory": directory, "full": full_key, "update": UPDATE_KEY}
    text = configurations.BIND.format(
        port=port,
        secret=SECRET,
        notify=" ".join(f"127.0.0.1 port {secondary};" for secondary in notify),
        zones="".join(
            configurations.BIND_ZONE.format(zone=zone, denied=DENIED, settings=settings, **fields) for zone in zones
        ),
        **fields,
    )
    user = ["-u", "root"] if os.geteuid() == 0 else []
    command = [program("named", "bind9"), "-g", "-n", "1", *user, "-c", _written(directory / "named.conf", text)]
    with _running(Process(directory, port, command, zones)) as process:
        yield DnsServer("bind", "127.0.0.1", port, full_key, process=process)


@contextmanager
def powerdns_server(
    directory: Path, zones: Sequence[str] = ZONES, *, full_key: str = FULL_KEY, notify: Sequence[int] = ()
) -> Iterator[DnsServer]:
    """Runs PowerDNS with SQLite while the block runs; *directory* receives its files and its log (server.log).

    *notify*: ports of secondaries on loopback.
    """
    _write_zones(directory, zones)
    port = free_port()
    text = configurations.POWERDNS.format(
        port=port, directory=directory, notify=",".join(f"127.0.0.1:{secondary}" for secondary in notify)
    )
    _written(directory / "pdns.conf", text)
    with sqlite3.connect(directory / "pdns.sqlite3") as database:
        database.executescript(POWERDNS_SCHEMA.read_text(encoding="utf-8"))
        database.executemany(
            "INSERT INTO tsigkeys (name, algorithm, secret) VALUES (?, 'hmac-sha256', ?)",
            [(key.rstrip("."), SECRET) for key in (full_key, UPDATE_KEY)],
        )
    database.close()
    for zone in zones:
        _pdnsutil(directory, "load-zone", zone, str(directory / f"{zone}.zone"))
        _pdnsutil(directory, "set-kind", zone, "primary")
        _pdnsutil(directory, "set-meta", zone, "TSIG-ALLOW-AXFR", full_key.rstrip("."))
        _pdnsutil(directory, "set-meta", zone, "TSIG-ALLOW-DNSUPDATE", full_key.rstrip("."), UPDATE_KEY.rstrip("."))
        _pdnsutil(directory, "set-meta", zone, "SOA-EDIT-DNSUPDATE", "INCREASE")
        _pdnsutil(directory, "set-meta", zone, "NOTIFY-DNSUPDATE", "1")
    # else the server writes it when it starts, and updates at that moment are SERVFAIL
    with sqlite3.connect(directory / "pdns.sqlite3") as database:
        database.execute("UPDATE domains SET notified_serial = ?", (configurations.FIRST_SERIAL,))
    database.close()
    command = [program("pdns_server", "pdns-server"), f"--config-dir={directory}"]
    with _running(Process(directory, port, command, zones)) as process:
        yield DnsServer("powerdns", "127.0.0.1", port, full_key, process=process)


@contextmanager
def nsd_secondary(directory: Path, primary: DnsServer, port: int, zones: Sequence[str] = ZONES) -> Iterator[DnsServer]:
    """Runs NSD on *port* as secondary of *primary* while the block runs."""
    text = configurations.NSD.format(
        port=port,
        directory=directory,
        key=primary.key.rstrip("."),
        secret=primary.secret,
        zones="".join(
            configurations.NSD_ZONE.format(zone=zone, primary=primary.port, key=primary.key.rstrip("."))
            for zone in zones
        ),
    )
    command = [program("nsd", "nsd"), "-d", "-c", _written(directory / "nsd.conf", text)]
    with _running(Process(directory, port, command, zones)) as process:
        yield DnsServer("nsd", "127.0.0.1", port, process=process)


@contextmanager
def _running(process: Process) -> Iterator[Process]:
    try:
        process.start()
        yield process
    finally:
        process.stop()


def _pdnsutil(directory: Path, *arguments: str) -> None:
    command = [program("pdnsutil", "pdns-server"), f"--config-dir={directory}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(f"pdnsutil {arguments[0]} failed:\n{done.stdout}{done.stderr}")


def _write_zones(directory: Path, zones: Sequence[str]) -> None:
    for zone in zones:
        _written(directory / f"{zone}.zone", configurations.ZONE_FILE.format(zone=zone))


def _written(file: Path, text: str) -> str:
    file.write_text(text, encoding="utf-8")
    return str(file)
