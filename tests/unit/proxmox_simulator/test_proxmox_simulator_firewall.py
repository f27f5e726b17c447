# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Firewall rules, sets and groups beyond the recorded conversation."""

from __future__ import annotations

from typing import Any

import pytest
from lab.proxmox.fwformats import address_list, ports
from proxmox_harness import Simulator

FIREWALL = "/nodes/pve1/qemu/100/firewall"
RULES = f"{FIREWALL}/rules"


def _errors(simulator: Simulator, path: str, **params: Any) -> dict[str, str]:
    answer = simulator.send("POST", path, **params)
    assert answer.status_code == 400, answer.text
    return dict(answer.json()["errors"])


def _comments(simulator: Simulator) -> list[str]:
    return [row["comment"] for row in simulator.data("GET", RULES)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("10.0.0.1,10.0.1.0/24", None),
        ("10.0.0.1-10.0.0.9", None),
        ("fd00::/8", None),
        ("+set", None),
        ("dc/alias", None),
        ("10.0.0.300", "invalid IP address: Invalid quad in IP address 10.0.0.300 - 300\n"),
        ("10.0.0.1/24", "invalid IP address: Invalid prefix 00000001\n"),
        ("10.0.0.1,", "extraneous commas in list\n"),
        ("10.0.0.1,::1", "detected mixed ipv4/ipv6 addresses in address list '10.0.0.1,::1'\n"),
        ("10.0.0.1-10.0.0.9,10.0.0.20", "you can't use a range in a list\n"),
    ],
)
def test_addresses(value: str, text: str | None) -> None:
    assert address_list(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("22", None),
        ("80,443,8000:8100", None),
        ("https", None),
        ("echo-request", None),
        ("70000", "invalid port '70000'\n"),
        ("90:80", "backwards range '90:80' not allowed, did you mean '80:90'?\n"),
        ("nosuch", "invalid port 'nosuch'\n"),
        (",".join("1" * 16), "too many entries in port list (> 15 numbers)\n"),
    ],
)
def test_ports(value: str, text: str | None) -> None:
    assert ports(value) == text


@pytest.mark.parametrize(
    ("params", "errors"),
    [
        ({"action": "LOG"}, {"action": "unknown action 'LOG'"}),
        ({"type": "forward"}, {"type": "invalid rule type 'forward' for rule_env 'vm'"}),
        ({"iface": "eth0"}, {"iface": "value does not match the regex pattern 'net\\d+'"}),
        ({"source": "+nosuch"}, {"source": "no such ipset 'nosuch'"}),
        ({"dest": "nosuch"}, {"dest": "no such alias 'nosuch'"}),
        ({"proto": "icmp", "dport": "22", "icmp-type": "any"},
         {"icmp-type": "'icmp-type' cannot be specified together with 'dport'"}),
        ({"proto": "gre", "dport": "22"}, {"dport": "protocol 'gre' does not support ports"}),
        ({"source": "10.0.0.1", "dest": "fd00::1"}, {"dest": "detected mixed ipv4/ipv6 addresses in rule"}),
    ],
)  # fmt: skip
def test_refused_rules(simulator: Simulator, params: dict[str, str], errors: dict[str, str]) -> None:
    assert _errors(simulator, RULES, **({"type": "in", "action": "ACCEPT"} | params)) == errors
    assert simulator.data("GET", RULES) == []


def test_rules_are_moved_as_on_the_real_server(simulator: Simulator) -> None:
    for comment in "dcba":
        simulator.data("POST", RULES, type="in", action="DROP", comment=comment)
    assert _comments(simulator) == list("abcd")
    for position, target, order in ((0, 2, "bacd"), (3, 0, "dbac"), (0, 9, "bacd"), (1, 2, "bacd")):
        simulator.data("PUT", f"{RULES}/{position}", moveto=target)
        assert _comments(simulator) == list(order)


def test_values_of_a_rule_are_deleted(simulator: Simulator) -> None:
    simulator.data("POST", RULES, type="in", action="ACCEPT", macro="ssh", source="10.0.0.0/8", log="info")
    simulator.data("PUT", f"{RULES}/0", delete="log", source="", enable=5)
    [rule] = simulator.data("GET", RULES)
    rule.pop("digest")
    assert rule == {"pos": 0, "type": "in", "action": "ACCEPT", "macro": "SSH", "enable": 1}
    answer = simulator.send("PUT", f"{RULES}/0", delete="action")
    assert answer.json()["errors"] == {"delete": "unable to delete required property 'action'"}


def test_sets_and_aliases_are_what_rules_name(simulator: Simulator) -> None:
    simulator.data("POST", f"{FIREWALL}/aliases", name="Office", cidr="fd00::1/128", comment="c")
    simulator.data("POST", f"{FIREWALL}/ipset", name="friends", comment="of ours")
    simulator.data("POST", f"{FIREWALL}/ipset/friends", cidr="10.1.2.3/16", nomatch=1)
    simulator.data("POST", RULES, type="in", action="ACCEPT", source="office", dest="+friends")
    [rule] = simulator.data("GET", RULES)
    assert rule["ipversion"] == 6
    [entry] = simulator.data("GET", f"{FIREWALL}/ipset/friends")
    assert (entry["cidr"], entry["nomatch"]) == ("10.1.0.0/16", 1)
    assert {row["ref"] for row in simulator.data("GET", f"{FIREWALL}/refs")} == {"+guest/friends", "guest/Office"}
    simulator.data("PUT", f"{FIREWALL}/aliases/office", cidr="10.0.0.1", rename="hq")
    assert [row["name"] for row in simulator.data("GET", f"{FIREWALL}/aliases")] == ["hq"]
    assert simulator.send("DELETE", f"{FIREWALL}/ipset/friends").reason == "IPSet 'friends' is not empty"
    simulator.data("DELETE", f"{FIREWALL}/ipset/friends", force=1)
    assert simulator.data("GET", f"{FIREWALL}/ipset") == []


def test_security_groups(simulator: Simulator) -> None:
    groups = "/cluster/firewall/groups"
    simulator.data("POST", groups, group="web", comment="open")
    assert _errors(simulator, groups, group="web") == {"group": "Security group 'web' already exists"}
    simulator.data("POST", f"{groups}/web", type="in", action="ACCEPT", macro="HTTPS", enable=1)
    assert _errors(simulator, f"{groups}/web", type="group", action="web")["type"].startswith("invalid rule type")
    simulator.data("POST", RULES, type="group", action="web", enable=1)
    assert simulator.send("DELETE", f"{groups}/web").reason == "Security group 'web' is not empty"
    simulator.data("POST", groups, group="www", rename="web")
    assert [row["action"] for row in simulator.data("GET", RULES)] == ["www"]
    simulator.data("DELETE", f"{groups}/www/0")
    simulator.data("DELETE", f"{groups}/www")
    assert simulator.data("GET", groups) == []
    assert simulator.send("GET", f"{groups}/www").reason == "no such security group 'www'"


def test_the_firewall_goes_with_its_machine(simulator: Simulator) -> None:
    assert simulator.run("POST", "/nodes/pve1/qemu", vmid=100) == "OK"
    simulator.data("PUT", f"{FIREWALL}/options", enable=1)
    assert simulator.run("DELETE", "/nodes/pve1/qemu/100") == "OK"
    assert set(simulator.data("GET", f"{FIREWALL}/options")) == {"digest"}
