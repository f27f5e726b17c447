# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Zones and servers that are found, and secondaries that are waited for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.request import wait_for_secondaries
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.secondaries import parse_secondary
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput, NotFound
from dns_calls import actions, failed, known, messages, named, record_set, request, run, zone
from support.dns.process import free_port
from support.dns_server import DnsServer, bind_server, knot_server, nsd_secondary


@pytest.fixture(scope="module")
def upper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServer]:
    with knot_server(tmp_path_factory.mktemp("upper"), ("fedi.test", "deep.sub.fedi.test")) as server:
        yield server


@pytest.fixture(scope="module")
def lower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServer]:
    with bind_server(tmp_path_factory.mktemp("lower"), ("other.test", "sub.fedi.test"), full_key="lower.") as server:
        yield server


def test_names_find_their_zones_and_servers(upper: DnsServer, lower: DnsServer) -> None:
    records = [
        named("a.fedi.test", "A", "192.0.2.1"),
        named("a.sub.fedi.test.", "A", "192.0.2.2"),
        named("a.b.deep.sub.fedi.test", "A", "192.0.2.3"),
        named("OTHER.test", "TXT", "x"),
        named("a.elsewhere.test", "A", "192.0.2.4"),
    ]
    for servers in (
        [known(upper, "fedi.test", "deep.sub.fedi.test"), known(lower, "sub.fedi.test", "other.test")],
        [known(upper), known(lower)],
    ):
        result = run(None, record_sets=records, servers=servers)
        assert failed(result) == {"a.elsewhere.test A"}
        assert "authority" in messages(result)["a.elsewhere.test A"]
        zones = {item["name"]: item["zone"] for item in result["results"] if not item["failed"]}
        assert zones == {
            "a.fedi.test A": "fedi.test",
            "a.sub.fedi.test A": "sub.fedi.test",
            "a.b.deep.sub.fedi.test A": "deep.sub.fedi.test",
            "other.test TXT": "other.test",
        }
    assert ("a.sub.fedi.test.", "A") in lower.content("sub.fedi.test")


def test_a_zone_finds_its_server(upper: DnsServer, lower: DnsServer) -> None:
    zones = [
        zone(record_set("z", "A", "192.0.2.1")),
        zone(record_set("z", "A", "192.0.2.1"), name="other.test"),
        zone(record_set("z", "A", "192.0.2.1"), name="nowhere.test"),
        zone(record_set("z", "A", "192.0.2.1"), name="x.other.test"),
    ]
    asked = request(None, *zones, servers=[known(upper), known(lower)])
    assert {entry["name"]: entry["server"].rpartition(":")[2] for entry in asked.report()} == {
        "fedi.test": str(upper.port),
        "other.test": str(lower.port),
    }
    result = run(None, *zones, servers=[known(upper), known(lower)])
    assert failed(result) == {"z.nowhere.test A", "z.x.other.test A"}
    assert "the zone other.test, not this one" in messages(result)["z.x.other.test A"]


def test_an_alias_does_not_hide_its_zone(upper: DnsServer, lower: DnsServer) -> None:
    servers = [known(lower), known(upper)]
    run(None, record_sets=[named("www.fedi.test", "CNAME", "a.fedi.test")], servers=servers)
    result = run(None, record_sets=[named("www.fedi.test", "CNAME", "b.fedi.test")], servers=servers)
    assert actions(result) == {"www.fedi.test CNAME": "update"}
    assert not result["failed"], result["msg"]


def test_one_server_with_two_keys(upper: DnsServer) -> None:
    servers = [known(upper, "fedi.test"), known(upper, "deep.sub.fedi.test", tsig_name="nobody.")]
    records = [named("k.fedi.test", "A", "192.0.2.1"), named("k.deep.sub.fedi.test", "A", "192.0.2.1")]
    result = run(None, record_sets=records, servers=servers)
    assert failed(result) == {"k.deep.sub.fedi.test A"}
    assert "BADKEY" in messages(result)["k.deep.sub.fedi.test A"]
    with pytest.raises(InvalidInput, match="no server"):
        run(None, record_sets=records)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DnsServer, DnsServer]]:
    port = free_port()
    with (
        knot_server(tmp_path_factory.mktemp("primary"), ("fedi.test",), notify=[port]) as primary,
        nsd_secondary(tmp_path_factory.mktemp("secondary"), primary, port, ("fedi.test",)) as secondary,
    ):
        yield primary, secondary


def reached(primary: DnsServer, secondaries: list[str], seconds: int, *zones: dict[str, Any]) -> dict[str, Any]:
    result = run(primary, *zones)
    assert not result["failed"], result["msg"]
    given = [parse_secondary(text) for text in secondaries]
    return wait_for_secondaries(request(primary, *zones), given, seconds, result)


def test_secondaries_are_waited_for(pair: tuple[DnsServer, DnsServer]) -> None:
    primary, secondary = pair
    at = f"127.0.0.1:{secondary.port}"
    for number in range(3):
        result = reached(
            primary, [at, f"[127.0.0.1]:{primary.port}"], 20, zone(record_set("a", "A", f"192.0.2.{number}"))
        )
        assert not result["failed"], result["msg"]
        (entry,) = result["zones"]
        assert (entry["name"], entry["lagging"]) == ("fedi.test", [])
        assert entry["serial"] == primary.serial("fedi.test") == secondary.serial("fedi.test")


def test_who_lags_is_named(pair: tuple[DnsServer, DnsServer], lower: DnsServer) -> None:
    primary, secondary = pair
    asked = [f"127.0.0.1:{port}" for port in (secondary.port, lower.port, free_port())]
    lag = zone(record_set("lag", "A", "192.0.2.1"))
    assert not reached(primary, asked[:1], 20, lag)["failed"]
    result = reached(primary, asked, 1, lag)
    assert result["failed"]
    assert "after 1 seconds not all servers have the zones" in result["msg"]
    (entry,) = result["zones"]
    assert [item["server"] for item in entry["lagging"]] == asked[1:]
    assert "does not serve the zone" in result["msg"]
    assert "no answer" in result["msg"]
    # the name servers of the zone: ns1 is 127.0.0.1, where nothing listens at port 53
    named_servers = reached(primary, [], 0, lag)
    assert "ns1.fedi.test (127.0.0.1)" in named_servers["msg"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *((text, "is no server") for text in ("", " ", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:65536", ":53")),
        *((text, "is no server") for text in ("[::1", "[::1]x", "[::1]:", "ns1:53:x", "127.0.0.1:" + "1" * 5000)),
        *((text, "no address") for text in ("no-such-host.invalid", "a..b", "a" * 64, "1:2:3")),
    ],
)
def test_a_malformed_secondary_is_refused(text: str, said: str) -> None:
    with pytest.raises((InvalidInput, NotFound), match=f"^secondaries: .*{said}"):
        parse_secondary(text)


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.1", "192.0.2.1", 53),
        ("192.0.2.1:5353", "192.0.2.1", 5353),
        ("2001:db8::1", "2001:db8::1", 53),
        ("[2001:db8::1]", "2001:db8::1", 53),
        ("[2001:db8::1]:5353", "2001:db8::1", 5353),
    ],
)
def test_how_secondaries_are_written(text: str, address: str, port: int) -> None:
    server = parse_secondary(text).server
    assert (server.address, server.port) == (address, port)


def test_an_older_serial_lags(pair: tuple[DnsServer, DnsServer]) -> None:
    primary, secondary = pair
    old = replace(primary, port=secondary.port)
    result = reached(primary, [f"127.0.0.1:{old.port}"], 20, zone(record_set("b", "A", "192.0.2.1")))
    assert not result["failed"], result["msg"]
    assert secondary.process is not None
    secondary.process.stop()
    try:
        late = reached(primary, [f"127.0.0.1:{old.port}"], 0, zone(record_set("b", "A", "192.0.2.2")))
    finally:
        secondary.process.start()
    assert late["failed"]
    assert not reached(primary, [f"127.0.0.1:{old.port}"], 20, zone())["failed"]
