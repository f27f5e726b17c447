# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TSIG keys, and the secrets of the providers that octoDNS writes to."""

from __future__ import annotations

import base64
from pathlib import Path

import dns.query
import dns.update
from services_leaks import USUAL, outcomes, played, runs
from support.dns_server import DnsServer, knot_server

LOGIN = {"server": "127.0.0.1", "port": "{{ port }}", "tsig_name": "{{ name }}", "tsig_secret": "{{ secret }}"}
WRONG = base64.b64encode(b"sentinel-wrong-key-3a90-0123456789").decode()
BROKEN = "sentinel-broken-key-3a90?"


# in place of the login
FAILING = [{"tsig_secret": "{{ wrong }}"}, {"tsig_secret": "{{ broken }}"}, {"port": 1}]
CATALOG = "other.test"


def given(server: DnsServer) -> dict[str, str]:
    """Variables; those that hold secrets are in :func:`secrets`."""
    return {**secrets(server), "port": str(server.port), "name": server.key}


def secrets(server: DnsServer) -> dict[str, str]:
    return {"secret": server.secret, "wrong": WRONG, "broken": BROKEN}


def everything(server: DnsServer) -> dict[str, str]:
    """The keys as they are written and as they are."""
    written = secrets(server)
    decoded = {f"decoded {name}": base64.b64decode(written[name]).decode() for name in ("secret", "wrong")}
    return {**written, **decoded}


def test_dns_records(tmp_path: Path) -> None:
    directory = tmp_path / "knot"
    directory.mkdir()
    wanted = {"prefix": "leaks", "type": "A", "value": ["192.0.2.1"]}
    refused = {"prefix": "foreign", "type": "A", "value": ["192.0.2.1"]}
    arguments = {**LOGIN, "zones": [{"name": "fedi.test", "record_sets": [wanted]}]}
    failing = [{"zones": [{"name": "fedi.test", "record_sets": [refused]}]}, *FAILING]
    with knot_server(directory) as server:
        seen = played(tmp_path, runs("dns_records", arguments, *failing), given(server))
        log = (directory / "server.log").read_text(encoding="utf-8")
    assert outcomes(seen) == [*USUAL, *[(False, True)] * 4]
    assert seen.traces(everything(server), log=log) == []


def test_dns_zones(tmp_path: Path) -> None:
    directory = tmp_path / "knot"
    directory.mkdir()
    member = {"name": "alice.example", "operator": "alice"}
    arguments = {**LOGIN, "method": "catalog", "catalog": CATALOG, "zones": [member]}
    failing = [{"zones": [{"name": "a..b"}]}, *FAILING]
    with knot_server(directory) as server:
        version = dns.update.UpdateMessage(CATALOG, keyring=server.tsig())
        version.add("version", 3600, "TXT", '"2"')
        dns.query.tcp(version, server.address, timeout=30, port=server.port)
        seen = played(tmp_path, runs("dns_zones", arguments, *failing), given(server))
        log = (directory / "server.log").read_text(encoding="utf-8")
    assert outcomes(seen) == [*USUAL, *[(False, True)] * 4]
    assert seen.traces(everything(server), log=log) == []


def test_octodns_export(tmp_path: Path) -> None:
    variables = {"clear": "sentinel-provider-token-71cd"}
    zones = [{"name": "fedi.test", "record_sets": [{"prefix": "www", "type": "A", "value": ["192.0.2.1"]}]}]
    provider = {"class": "octodns_cloudflare.CloudflareProvider", "settings": {"token": "env/CLOUDFLARE_TOKEN"}}
    arguments = {"dest": str(tmp_path / "left" / "octodns"), "provider": provider, "zones": zones}
    failing = [{"provider": {**provider, "settings": {"token": "{{ clear }}"}}}]
    seen = played(tmp_path, runs("octodns_export", arguments, *failing), variables)
    assert outcomes(seen) == [*USUAL, (False, True)]
    assert any(place.startswith("left/octodns/") for place in seen.places)
    assert seen.traces(variables) == []
