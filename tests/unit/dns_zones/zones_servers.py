# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers that take zones from a catalog or an include file: real Knot and BIND on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update
import dns.xfr
import dns.zone
from support.dns.process import Process, free_port, program

MODULE = Path(__file__).parents[3] / "plugins" / "modules" / "dns_zones.py"
KEY = "fediversity."
SECRET = "c2VudGluZWwtem9uZXMtc2VjcmV0LTAxMjM0NTY3ODlh"
CATALOG = "catalog.test"
OWN = "own.test"

# what the module gives for options that are not set
ZONE_OPTIONS: dict[str, Any] = {
    "operator": None,
    "state": "present",
    "nameservers": [],
    "addresses": {},
    "hostmaster": None,
    "ttl": 3600,
    "group": None,
    "catalog_zone": None,
    "template": None,
    "acl": [],
    "notify": [],
    "dnssec_policy": None,
    "transfer_keys": [],
    "update_keys": [],
}

ZONE_FILE = "$TTL 300\n@ SOA ns1 hostmaster 1 3600 600 86400 300\n@ NS ns1\nns1 A 192.0.2.1\n"
CATALOG_FILE = '@ 3600 SOA invalid. invalid. 1 3600 600 2147483646 0\n@ 3600 NS invalid.\nversion 0 TXT "2"\n'

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
  - id: "{key}"
    algorithm: hmac-sha256
    secret: "{secret}"
acl:
  - id: full
    key: "{key}"
    action: [transfer, update]
policy:
  - id: ours
    algorithm: ecdsap256sha256
    single-type-signing: on
template:
  - id: default
    storage: {directory}
    file: "%s.zone"
    zonefile-sync: -1
    journal-content: changes
    acl: [full]
  - id: signed
    storage: {directory}
    file: "%s.zone"
    zonefile-sync: -1
    journal-content: changes
    acl: [full]
    dnssec-signing: on
    dnssec-policy: ours
zone:
  - domain: {own}
  - domain: {catalog}
    catalog-role: interpret
    catalog-template: [default, signed]
  - domain: generated.test
    catalog-role: generate
include: {directory}/fediversity.conf
"""

BIND = """
key "{key}" {{ algorithm hmac-sha256; secret "{secret}"; }};
options {{
    directory "{directory}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    pid-file "{directory}/named.pid";
    session-keyfile "{directory}/session.key";
    recursion no;
    dnssec-validation no;
    {options}
}};
controls {{ inet 127.0.0.1 port {control} allow {{ 127.0.0.1; }} keys {{ "{key}"; }}; }};
{zones}
"""
BIND_PRIMARY = """
zone "{own}" {{ type primary; file "{directory}/{own}.zone"; allow-transfer {{ key "{key}"; }}; }};
zone "{catalog}" {{
    type primary; file "{directory}/{catalog}.zone";
    allow-transfer {{ key "{key}"; }}; update-policy {{ grant "{key}" zonesub ANY; }};
}};
include "{directory}/fediversity.conf";
"""
BIND_SECONDARY = """
zone "{catalog}" {{ type secondary; file "{catalog}.zone"; primaries {{ 127.0.0.1 port {primary} key "{key}"; }}; }};
zone "{own}" {{ type primary; file "{directory}/{own}.zone"; }};
"""
RNDC = 'key "{key}" {{ algorithm hmac-sha256; secret "{secret}"; }};\n'


@dataclass(frozen=True)
class Estate:
    """A running server, and how the module reaches it."""

    software: str
    directory: Path
    port: int
    reload: tuple[str, ...]
    process: Process

    @property
    def include(self) -> Path:
        return self.directory / "fediversity.conf"

    @property
    def config(self) -> Path:
        return self.directory / ("knot.conf" if self.software == "knot" else "named.conf")

    def reach(self) -> dict[str, Any]:
        return {"server": "127.0.0.1", "port": self.port, "tsig_name": KEY, "tsig_secret": SECRET}

    def catalog(self, *zones: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Arguments of the module for the method ``catalog``."""
        return {**self.reach(), "method": "catalog", "catalog": CATALOG, "zones": list(zones), **options}

    def file(self, *zones: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Arguments of the module for the method ``file``."""
        return {
            **self.reach(),
            "method": "file",
            "software": self.software,
            "server_config": str(self.config),
            "include_file": str(self.include),
            "directory": str(self.directory),
            "keep_directory": str(self.kept),
            "reload_command": list(self.reload),
            "zones": list(zones),
            **options,
        }

    @property
    def kept(self) -> Path:
        path = self.directory / "kept"
        path.mkdir(exist_ok=True)
        return path

    def rcode(self, zone: str) -> str:
        query = dns.message.make_query(zone, "SOA", flags=0)
        return dns.rcode.to_text(dns.query.tcp(query, "127.0.0.1", timeout=5, port=self.port).rcode())

    def ask(self, name: str, rdtype: str) -> list[str]:
        query = dns.message.make_query(name, rdtype, flags=0)
        answer = dns.query.tcp(query, "127.0.0.1", timeout=5, port=self.port).answer
        wanted = dns.rdatatype.from_text(rdtype)
        return sorted(value.to_text() for rrset in answer if rrset.rdtype == wanted for value in rrset)

    def content(self, zone: str) -> dict[str, list[str]]:
        """Values by name and type, without the SOA."""
        found = dns.zone.Zone(zone)
        query, _serial = dns.xfr.make_query(found, keyring=self.tsig())
        dns.query.inbound_xfr("127.0.0.1", found, query, port=self.port)
        return {
            f"{name} {dns.rdatatype.to_text(rdataset.rdtype)}": sorted(value.to_text() for value in rdataset)
            for name, rdataset in found.iterate_rdatasets()
            if rdataset.rdtype != dns.rdatatype.SOA
        }

    def update(self, zone: str, change: Callable[[dns.update.UpdateMessage], None]) -> None:
        """What somebody else changes."""
        message = dns.update.UpdateMessage(zone)
        change(message)
        message.use_tsig(self.tsig())
        response = dns.query.tcp(message, "127.0.0.1", timeout=5, port=self.port)
        assert response.rcode() == dns.rcode.NOERROR

    def refresh(self, zone: str) -> None:
        """Have BIND fetch a zone from its primary server, as a NOTIFY would."""
        subprocess.run([program("rndc", "bind9"), *self.reload[1:-1], "refresh", zone], check=True, capture_output=True)

    def tsig(self) -> dns.tsig.Key:
        return dns.tsig.Key(KEY, SECRET, "hmac-sha256")


@contextmanager
def knot_estate(directory: Path) -> Iterator[Estate]:
    (directory / "db").mkdir(parents=True)
    fields = _prepared(directory)
    user = "    user: root:root" if os.geteuid() == 0 else ""
    (directory / "knot.conf").write_text(KNOT.format(user=user, **fields), encoding="utf-8")
    reload = ("knotc", "-c", str(directory / "knot.conf"), "reload")
    with _running(
        "knot", directory, [program("knotd", "knot"), "-c", str(directory / "knot.conf")], fields, reload
    ) as it:
        yield it


@contextmanager
def bind_estate(directory: Path) -> Iterator[Estate]:
    """A primary server."""
    directory.mkdir(parents=True, exist_ok=True)
    fields = _prepared(directory)
    with _bind(directory, fields, "notify no;", BIND_PRIMARY.format(**fields)) as it:
        yield it


@contextmanager
def bind_consumer(directory: Path, primary: Estate) -> Iterator[Estate]:
    """A secondary server of everything in the primary's catalog."""
    directory.mkdir(parents=True, exist_ok=True)
    fields = _prepared(directory)
    catalogs = (
        f'catalog-zones {{ zone "{CATALOG}" default-primaries {{ 127.0.0.1 port {primary.port} key "{KEY}"; }} '
        "min-update-interval 1; };"
    )
    with _bind(directory, fields, catalogs, BIND_SECONDARY.format(primary=primary.port, **fields)) as it:
        yield it


def start(arguments: dict[str, Any], **environment: str) -> dict[str, Any]:
    """The module as Ansible starts it; the sentinel in the secret is in nothing that it says."""
    done = subprocess.run(
        [sys.executable, str(MODULE)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert SECRET not in done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def by_name(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in result["results"]}


def _prepared(directory: Path) -> dict[str, Any]:
    (directory / f"{OWN}.zone").write_text(ZONE_FILE, encoding="utf-8")
    (directory / f"{CATALOG}.zone").write_text(CATALOG_FILE, encoding="utf-8")
    (directory / "fediversity.conf").touch()
    return {
        "directory": directory,
        "port": free_port(),
        "control": free_port(),
        "key": KEY,
        "secret": SECRET,
        "own": OWN,
        "catalog": CATALOG,
    }


def _bind(
    directory: Path, fields: dict[str, Any], options: str, zones: str
) -> contextlib.AbstractContextManager[Estate]:
    text = BIND.format(options=options, zones=zones, **fields)
    (directory / "named.conf").write_text(text, encoding="utf-8")
    (directory / "rndc.key").write_text(RNDC.format(**fields), encoding="utf-8")
    user = ["-u", "root"] if os.geteuid() == 0 else []
    command = [program("named", "bind9"), "-g", "-n", "1", *user, "-c", str(directory / "named.conf")]
    control = ("-s", "127.0.0.1", "-p", str(fields["control"]), "-k", str(directory / "rndc.key"))
    return _running("bind", directory, command, fields, ("rndc", *control, "reconfig"))


@contextmanager
def _running(
    software: str, directory: Path, command: list[str], fields: dict[str, Any], reload: tuple[str, ...]
) -> Iterator[Estate]:
    process = Process(directory, fields["port"], command, [OWN])
    try:
        process.start()
        yield Estate(software, directory, fields["port"], reload, process)
    finally:
        process.stop()
