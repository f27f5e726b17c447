# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's own hosts: what runs on db1, dns1 and existing1, and how to tell that it answers."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.disk import File
from lab.hosts import HostSpec
from lab.identity import Secrets
from lab.image import want

CONTROLLER = "10.99.0.1"
NETWORK = "10.99.0.0/16"
DATABASE, NAMESERVER, EXISTING = "10.99.0.10", "10.99.0.11", "10.99.0.20"
FURTHER = tuple(f"10.99.0.{number}" for number in range(21, 255))  # of `lab host add`
ZONES = ("fedi.test", "lab.test")
DATABASE_USER = "fediversity"
TSIG_NAME = "fediversity."

PROXMOX_PORT = 8006
GARAGE_S3_PORT, GARAGE_RPC_PORT, GARAGE_WEB_PORT, GARAGE_ADMIN_PORT = 3900, 3901, 3902, 3903
GARAGE_REGION = "garage"


@dataclass(frozen=True)
class Service:
    """A host that is not a virtual machine; `answers` raises OSError until what it is for can be used."""

    spec: HostSpec
    purpose: str
    files: Sequence[File]
    answers: Callable[[], None]


def services(secrets: Secrets, authorized_key: str, image: Path) -> list[Service]:
    """The hosts that every lab starts with."""
    database, nameserver = _spec("db1", DATABASE, authorized_key), _spec("dns1", NAMESERVER, authorized_key)
    return [
        Service(database, "PostgreSQL, Redis", database_files(secrets, image), _database_answers),
        Service(nameserver, "DNS (Knot)", nameserver_files(secrets), _nameserver_answers),
        existing_machine("existing1", EXISTING, authorized_key),
    ]


def existing_machine(name: str, address: str, authorized_key: str) -> Service:
    """A host with nothing on it."""
    spec = _spec(name, address, authorized_key)
    return Service(spec, "a machine that is there already", [], lambda: tcp_answers(address, 22))


def _spec(name: str, address: str, authorized_key: str) -> HostSpec:
    mac = "02:fe:d1:" + ":".join(f"{int(part):02x}" for part in address.split(".")[1:])
    return HostSpec(name, name, mac, (f"{address}/16",), CONTROLLER, (NAMESERVER,), (authorized_key,))


def database_files(secrets: Secrets, image: Path) -> list[File]:
    """PostgreSQL for the whole lab network with a superuser of the provisioner; Redis."""
    version = max((image / "etc/postgresql").iterdir(), key=lambda path: int(path.name)).name
    folder = f"/etc/postgresql/{version}/main"
    role = f"CREATE ROLE {DATABASE_USER} SUPERUSER LOGIN PASSWORD '{secrets.postgresql_password}'"
    # tenants have no business in the maintenance databases
    closed = "REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC"
    # In single-user mode, before the server listens: whoever reaches the port can log in.
    first_boot = (
        "#!/bin/sh\n[ -e /var/lib/postgresql/.lab ] && exit\n"
        f"printf '%s\\n' \"{role}\" '{closed}' |"
        f" runuser -u postgres -- /usr/lib/postgresql/{version}/bin/postgres --single"
        f" -D /var/lib/postgresql/{version}/main -c config_file={folder}/postgresql.conf postgres || exit\n"
        "touch /var/lib/postgresql/.lab\n"
    )
    unit = (
        "[Unit]\nDescription=The provisioner's database role\nBefore=postgresql.service\n"
        f"Before=postgresql@{version}-main.service\n\n[Service]\nType=oneshot\nExecStart=/usr/local/sbin/lab-database-role\n"
    )
    redis = f'bind 127.0.0.1 {DATABASE}\nprotected-mode no\nsupervised systemd\ndir /var/lib/redis\nlogfile ""\n'
    return [
        File(f"{folder}/conf.d/lab.conf", "listen_addresses = '*'\nfsync = off\n", owner="postgres"),
        File(
            f"{folder}/pg_hba.conf",
            f"local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all {NETWORK} scram-sha-256\n",
            0o640,
            "postgres",
        ),
        File("/usr/local/sbin/lab-database-role", first_boot, 0o700),
        File("/usr/lib/systemd/system/lab-database-role.service", unit),
        File("/etc/redis/redis.conf", redis, 0o640, "redis"),
        # Its address must be there before it can be bound.
        File("/etc/systemd/system/redis-server.service.d/lab.conf", "[Unit]\nAfter=lab-network.service\n"),
        *want("lab-database-role.service", "postgresql.service", "redis-server.service"),
    ]


def nameserver_files(secrets: Secrets) -> list[File]:
    """Knot, primary for the lab's zones; updates and transfers with the TSIG key, queries for everybody."""
    zones = "".join(f"  - domain: {zone}\n    acl: fediversity\n" for zone in ZONES)
    names = {"dns1": NAMESERVER, "db1": DATABASE, "existing1": EXISTING, "pve1": CONTROLLER, "garage": CONTROLLER}
    soa = "@ 300 SOA dns1.lab.test. hostmaster.lab.test. 1 3600 600 86400 60\n@ 300 NS dns1.lab.test.\n"
    contents = {
        "fedi.test": soa,
        "lab.test": soa + "".join(f"{name} 300 A {address}\n" for name, address in names.items()),
    }
    configuration = f"""\
server:
  listen: [ "0.0.0.0@53", "::@53" ]
  rundir: /run/knot
  user: knot:knot
log:
  - target: syslog
    any: info
database:
  storage: /var/lib/knot
key:
  - id: {TSIG_NAME}
    algorithm: hmac-sha256
    secret: {secrets.tsig_secret}
acl:
  - id: fediversity
    address: {NETWORK}
    key: {TSIG_NAME}
    action: [ update, transfer ]
template:
  - id: default
    storage: /var/lib/knot
    file: "%s.zone"
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
zone:
{zones}"""
    return [
        File("/etc/knot/knot.conf", configuration, 0o640, "knot"),
        *(File(f"/var/lib/knot/{zone}.zone", contents[zone], 0o640, "knot") for zone in ZONES),
        *want("knot.service"),
    ]


def tcp_answers(address: str, port: int) -> None:
    socket.create_connection((address, port), timeout=1).close()


def _database_answers() -> None:
    """PostgreSQL asks our user to authenticate (protocol 3.0: StartupMessage, AuthenticationSASL) and Redis listens."""
    body = struct.pack("!i", 196608) + f"user\0{DATABASE_USER}\0\0".encode()
    with socket.create_connection((DATABASE, 5432), timeout=1) as connection:
        connection.sendall(struct.pack("!i", len(body) + 4) + body)
        if connection.recv(1) != b"R":
            raise ConnectionError("PostgreSQL is starting up")
    tcp_answers(DATABASE, 6379)
    tcp_answers(DATABASE, 22)


def _nameserver_answers() -> None:
    """Knot answers with authority for every zone (RFC 1035 §4.1: header, one SOA question)."""
    for zone in ZONES:
        labels = b"".join(bytes([len(label)]) + label.encode() for label in zone.split("."))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            client.connect((NAMESERVER, 53))
            client.send(struct.pack("!6H", 1, 0, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 6, 1))
            flags, _unused, answers = struct.unpack("!2xHHH", client.recv(512)[:8])
        if flags & 0xF or not answers:
            raise ConnectionError(f"the name server does not serve {zone} yet")
    tcp_answers(NAMESERVER, 22)
