# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Firewall of a VM: which rules are equal, the shortest way from one list to another, the exact requests."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.check import Check
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Answer, Client, Outdated
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.firewall import (
    FIREWALL,
    FirewallActual,
    FirewallDesired,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.firewall_positions import plan
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.firewall_rules import (
    addresses,
    digest,
    parse_rule,
    ports,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Place
from hypothesis import given, settings
from hypothesis import strategies as st
from proxmox_script import IDENTITY, Exchange, Script

PLACE = Place("web", 100, "pve1", running=False)
PATH = "/nodes/pve1/qemu/100/firewall"
EMPTY = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
CHANGED = "detected modified configuration - file changed by other user? Try again."


@dataclass
class Server:
    """The server's list of rules: inserts at 0, addresses by position, refuses a stale digest."""

    rules: list[dict[str, Any]]
    sent: list[str] = field(default_factory=list)
    meanwhile: list[dict[str, Any]] = field(default_factory=list)
    macros: Mapping[str, str] = field(default_factory=lambda: {"https": "HTTPS", "ssh": "SSH"})

    def digest(self) -> str:
        text = "".join(f"{key}:{rule[key]}\n" for rule in self.rules for key in sorted(rule))
        return hashlib.sha1(text.encode()).hexdigest()

    def __call__(self, method: str, path: str, params: Mapping[str, str]) -> Answer:
        self.sent.append(f"{method} {path.removeprefix(PATH)}")
        if method == "GET":
            told = self.digest()
            return Answer(
                200, "OK", [{**rule, "pos": number, "digest": told} for number, rule in enumerate(self.rules)]
            )
        if self.meanwhile:
            self.rules.insert(0, self.meanwhile.pop())
        if "digest" in params and params["digest"] != self.digest():
            return Answer(500, CHANGED)
        position = int(path.rpartition("/")[2]) if method != "POST" else 0
        content = self.content(params)
        if method == "POST":
            self.rules = [{"enable": 0, **content}, *self.rules]
        elif method == "DELETE":
            self.rules.pop(position)
        elif "moveto" in params:
            self.move(position, int(params["moveto"]))
        else:
            kept = {key: value for key, value in self.rules[position].items() if key != "ipversion"}
            gone = params.get("delete", "").split(",")
            self.rules[position] = self.content(
                {**{key: str(value) for key, value in kept.items() if key not in gone}, **params}
            )
        return Answer(200, "OK")

    def content(self, params: Mapping[str, str]) -> dict[str, Any]:
        rule: dict[str, Any] = {
            key: value for key, value in params.items() if key not in {"digest", "delete", "moveto"}
        }
        if "enable" in rule:
            rule["enable"] = int(rule["enable"])
        if "macro" in rule:
            rule["macro"] = self.macros[rule["macro"].lower()]
        for key in ("source", "dest"):
            if key in rule:
                rule["ipversion"] = 6 if ":" in rule[key] else 4
        return rule

    def move(self, position: int, target: int) -> None:
        """As update_rule does it: before the one at the target; at the end beyond."""
        rule = self.rules[position]
        rest: list[dict[str, Any]] = []
        for number, other in enumerate(self.rules):
            if number == position:
                continue
            if number == target:
                rest.append(rule)
            rest.append(other)
        if target >= len(self.rules):
            rest.append(rule)
        self.rules = rest


def desired(**value: Any) -> FirewallDesired:
    return FIREWALL.desired(Check("VM web", {}), value)


def client(server: Server) -> Client:
    return Client(server, "pve1:8006", IDENTITY, sleep=lambda _s: None, clock=lambda: 0.0)


def bring(server: Server, wanted: FirewallDesired) -> list[str]:
    """Read, apply; the requests that were sent for it."""
    one = client(server)
    actual = FIREWALL.read(one, PLACE, wanted)
    server.sent.clear()
    FIREWALL.apply(one, PLACE, wanted, actual, 60)
    return list(server.sent)


def own(server: Server) -> list[str]:
    return [rule.name for rule in map(parse_rule, server.rules) if rule is not None]


def foreign(server: Server) -> list[dict[str, Any]]:
    return [rule for rule in server.rules if parse_rule(rule) is None]


NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f"])
CONTENTS = st.sampled_from(
    [
        {"action": "ACCEPT", "protocol": "tcp", "dport": "22"},
        {"action": "DROP", "source": "10.0.0.0/8", "enabled": False},
        {"action": "ACCEPT", "macro": "https", "log": "info"},
        {"action": "REJECT", "type": "out", "destination": "2001:db8::1"},
        {"action": "grp", "type": "group", "interface": "net0"},
    ]
)
RULES = st.lists(
    st.builds(lambda name, content: {"name": name, **content}, NAMES, CONTENTS), unique_by=lambda r: r["name"]
)
FOREIGN = st.sampled_from(
    [
        {"type": "in", "action": "ACCEPT", "enable": 1, "comment": "ssh"},
        {"type": "in", "action": "DROP", "enable": 0},
        {"type": "out", "action": "ACCEPT", "enable": 1, "comment": "fediversity", "proto": "udp"},
        {"type": "group", "action": "base", "enable": 1, "comment": "see fediversity: a"},
    ]
)


@st.composite
def lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rules of ours and of others, mixed."""
    server = Server([])
    bring(server, desired(rules=draw(RULES)))
    for rule in draw(st.lists(FOREIGN, max_size=4)):
        server.rules.insert(draw(st.integers(0, len(server.rules))), dict(rule))
    return server.rules


@settings(max_examples=150)
@given(lists(), RULES, st.booleans())
def test_ours_are_exactly_the_desired_ones_and_foreign_ones_stay(
    present: list[dict[str, Any]], rules: list[dict[str, Any]], foreseeable: bool
) -> None:
    server = Server([dict(rule) for rule in present])
    if not foreseeable:
        # a key that this version does not know and that the server forgets when a rule changes
        server.digest = lambda: hashlib.sha1(repr(server.rules).encode()).hexdigest()  # type: ignore[method-assign]
    before = foreign(server)
    wanted = desired(rules=rules)
    bring(server, wanted)
    assert own(server) == [rule["name"] for rule in rules]
    assert foreign(server) == before
    actual = FIREWALL.read(client(server), PLACE, wanted)
    told = FIREWALL.compare(wanted, actual)
    assert told[0] == told[1]
    assert bring(server, wanted) == []


def fewest(start: Sequence[str], alphabet: Sequence[str], longest: int) -> dict[tuple[str, ...], int]:
    """Number of steps to every list that is not longer than *longest*: all sequences of steps are tried."""
    known = {tuple(start): 0}
    queue = deque(known)
    while queue:
        here = queue.popleft()
        for there in neighbours(here, alphabet):
            if len(there) <= longest and there not in known:
                known[there] = known[here] + 1
                queue.append(there)
    return known


def neighbours(here: tuple[str, ...], alphabet: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for letter in alphabet:
        yield (letter, *here)
        for number in range(len(here)):
            yield (*here[:number], letter, *here[number + 1 :])
    for number in range(len(here)):
        rest = (*here[:number], *here[number + 1 :])
        yield rest
        for place in range(len(rest) + 1):
            yield (*rest[:place], here[number], *rest[place:])


def test_no_shorter_plan_exists_for_lists_of_up_to_three() -> None:
    compared = 0
    for start in ("", "a", "ab", "abc"):
        steps = fewest(start, "abcxyz", 4)
        for length in range(4):
            for wanted in permutations("abcxyz", length):
                assert len(plan(list(start), wanted)) == steps[wanted], (start, wanted)
                compared += 1
    assert compared == 4 * 157


@pytest.mark.parametrize(
    ("present", "wanted", "requests"),
    [
        ("abc", "abc", []),
        ("", "abc", ["POST /rules", "POST /rules", "POST /rules"]),
        ("abc", "xabc", ["POST /rules"]),
        ("abc", "ac", ["DELETE /rules/1"]),
        ("abc", "cab", ["PUT /rules/2"]),
        ("abcd", "bcda", ["PUT /rules/0"]),
        ("abc", "axc", ["PUT /rules/1"]),
        ("abc", "abxc", ["POST /rules", "PUT /rules/0"]),
        ("abc", "", ["DELETE /rules/2", "DELETE /rules/1", "DELETE /rules/0"]),
    ],
)
def test_usual_changes_take_one_request_each(present: str, wanted: str, requests: list[str]) -> None:
    def rules(names: str) -> list[dict[str, Any]]:
        return [{"name": name, "action": "ACCEPT"} for name in names]

    server = Server([])
    bring(server, desired(rules=rules(present)))
    assert bring(server, desired(rules=rules(wanted))) == requests
    assert own(server) == list(wanted)


def test_a_rule_that_somebody_inserts_meanwhile_is_kept() -> None:
    server = Server([])
    bring(server, desired(rules=[{"name": name, "action": "ACCEPT"} for name in "abc"]))
    server.meanwhile = [{"type": "in", "action": "DROP", "enable": 1, "comment": "theirs"}]
    sent = bring(server, desired(rules=[{"name": name, "action": "ACCEPT"} for name in "ca"]))
    assert own(server) == ["c", "a"]
    assert [rule["comment"] for rule in foreign(server)] == ["theirs"]
    assert sent.count("GET /rules") == 1


def test_somebody_who_never_stops_is_reported() -> None:
    server = Server([])
    bring(server, desired(rules=[{"name": "a", "action": "ACCEPT"}]))
    server.meanwhile = [{"type": "in", "action": "DROP", "enable": 1} for _number in range(100)]
    with pytest.raises(Outdated):
        bring(server, desired(rules=[]))
    assert own(server) == ["a"]


def test_the_digest_is_that_of_the_real_server() -> None:
    # recorded: three rules after a change, in the order of the answer
    rows = [
        {"action": "ACCEPT", "enable": 1, "type": "in", "comment": "https", "dport": "443", "pos": 0, "proto": "tcp"},
        {"comment": "changed", "macro": "HTTP", "pos": 1, "type": "in", "action": "ACCEPT", "enable": 0},
        {"comment": "ssh", "enable": 1, "action": "ACCEPT", "type": "in", "dport": "22", "proto": "tcp", "pos": 2},
    ]
    assert digest(rows) == "fec947f8b37eb96527fd6d48a8ec36803ab7fcd9"
    assert digest([]) == EMPTY


def test_requests_of_a_new_firewall() -> None:
    wanted = desired(
        enabled=True,
        policy_in="DROP",
        log_level_in="nolog",
        rules=[{"name": "web", "action": "ACCEPT", "protocol": "tcp", "dport": "443,80", "source": "10.0.0.0/8"}],
    )
    script = Script(
        [
            Exchange("GET", f"{PATH}/options", {"digest": EMPTY}, {}),
            Exchange("GET", f"{PATH}/rules", [], {}),
            Exchange(
                "POST",
                f"{PATH}/rules",
                None,
                {
                    "type": "in",
                    "action": "ACCEPT",
                    "enable": "1",
                    "proto": "tcp",
                    "dport": "80,443",
                    "source": "10.0.0.0/8",
                    "comment": "fediversity: web",
                },
            ),
            # policy_in and log_level_in have these defaults already
            Exchange("PUT", f"{PATH}/options", None, {"enable": "1", "digest": EMPTY}),
        ]
    )
    one = script.client()
    actual = FIREWALL.read(one, PLACE, wanted)
    before, after = FIREWALL.compare(wanted, actual)
    assert before == {"enabled": False, "policy_in": "DROP", "log_level_in": "nolog", "rules": []}
    assert isinstance(after, dict)
    assert after["rules"] == [
        {
            "name": "web",
            "type": "in",
            "action": "ACCEPT",
            "enabled": True,
            "protocol": "tcp",
            "dport": "80,443",
            "source": "10.0.0.0/8",
        }
    ]
    FIREWALL.apply(one, PLACE, wanted, actual, 60)
    script.finished()


def test_only_what_is_given_is_read_and_compared() -> None:
    script = Script([Exchange("GET", f"{PATH}/options", {"digest": EMPTY, "enable": 1, "policy_in": "ACCEPT"}, {})])
    wanted = desired(enabled=True)
    actual = FIREWALL.read(script.client(), PLACE, wanted)
    assert FIREWALL.compare(wanted, actual) == ({"enabled": True}, {"enabled": True})
    script.finished()
    assert FIREWALL.compare(desired(rules=[]), None) == ({"rules": []}, {"rules": []})
    assert FIREWALL.compare(desired(macfilter=False), FirewallActual({"macfilter": True}))[0] == {"macfilter": True}


def test_a_key_that_is_no_longer_wanted_is_deleted() -> None:
    server = Server([])
    bring(server, desired(rules=[{"name": "a", "action": "ACCEPT", "protocol": "tcp", "dport": "22", "log": "info"}]))
    assert bring(server, desired(rules=[{"name": "a", "action": "DROP"}])) == ["PUT /rules/0"]
    assert server.rules == [{"type": "in", "action": "DROP", "enable": 1, "comment": "fediversity: a"}]


EQUAL = [
    ({"proto": "6"}, {"protocol": "tcp"}),
    ({"proto": "ipv6-icmp"}, {"protocol": "icmpv6"}),
    ({"proto": "tcp", "dport": "443,80:80,1024:2048"}, {"protocol": "tcp", "dport": "80,443,1024:2048"}),
    ({"source": "10.0.0.1/32,10.1.0.0/16"}, {"source": "10.1.0.0/16,10.0.0.1"}),
    ({"dest": "2001:DB8:0::1"}, {"destination": "2001:db8::1"}),
    ({"source": "dc/Office"}, {"source": "dc/office"}),
    ({"macro": "HTTPS"}, {"macro": "https"}),
    ({"log": "nolog"}, {}),
    ({}, {"log": "nolog"}),
    ({"source": "10.0.0.1-10.0.0.9"}, {"source": "10.0.0.1 - 10.0.0.9"}),
]
DIFFERENT = [
    ({"enable": 0}, {}),
    ({}, {"enabled": False}),
    ({"action": "DROP"}, {}),
    ({"type": "out"}, {}),
    ({"source": "+Office"}, {"source": "+office"}),
    ({"proto": "tcp", "dport": "80:443"}, {"protocol": "tcp", "dport": "80,443"}),
    ({"iface": "net0"}, {"interface": "net1"}),
    ({"proto": "icmp", "icmp-type": "echo-request"}, {"protocol": "icmp"}),
    ({"log": "info"}, {}),
]
ROW = {"type": "in", "action": "ACCEPT", "enable": 1, "comment": "fediversity: a"}


def same(row: dict[str, Any], rule: dict[str, Any]) -> bool:
    wanted = desired(rules=[{"name": "a", "action": "ACCEPT", **rule}])
    before, after = FIREWALL.compare(wanted, FirewallActual({}, None, ({**ROW, **row},)))
    return before == after


@pytest.mark.parametrize(("row", "rule"), EQUAL)
def test_equal_by_meaning(row: dict[str, Any], rule: dict[str, Any]) -> None:
    assert same(row, rule)


@pytest.mark.parametrize(("row", "rule"), DIFFERENT)
def test_different_by_meaning(row: dict[str, Any], rule: dict[str, Any]) -> None:
    assert not same(row, rule)


@pytest.mark.parametrize(
    "comment",
    ["fediversity", "fediversity:a", "fediversity: ", " fediversity: a", "fediversity: a b", "x fediversity: a"],
)
def test_other_comments_are_not_ours(comment: str) -> None:
    assert parse_rule({**ROW, "comment": comment}) is None


@pytest.mark.parametrize(
    ("rule", "field_name"),
    [
        ({"action": "accept"}, "action"),
        ({"name": "a b"}, "name"),
        ({"name": "a#b"}, "name"),
        ({"dport": "22"}, "protocol"),
        ({"protocol": "icmp", "sport": "22"}, "protocol"),
        ({"protocol": "tcp", "dport": "http nope"}, "dport"),
        ({"protocol": "tcp", "dport": "2048:1024"}, "dport"),
        ({"protocol": "tcp", "dport": "70000"}, "dport"),
        ({"protocol": "tcp", "dport": ",".join(str(port) for port in range(16))}, "dport"),
        ({"source": "nonsense!"}, "source"),
        ({"source": "10.0.0.5/24"}, "source"),
        ({"source": "10.0.0.1,fe80::1"}, "source"),
        ({"destination": "10.0.0.9-10.0.0.1"}, "destination"),
        ({"interface": "eth0"}, "interface"),
        ({"protocol": "tcp", "icmp_type": "any"}, "icmp_type"),
        ({"type": "group", "action": "g"}, "action"),
        ({"type": "group", "action": "grp", "macro": "SSH"}, "macro"),
        ({"macro": "a(b)"}, "macro"),
    ],
)
def test_refused_rules_name_the_field(rule: dict[str, Any], field_name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        desired(rules=[{"name": "ok", "action": "ACCEPT"}, {"name": "a", "action": "ACCEPT", **rule}])
    assert caught.value.where == f"VM web, firewall, rules[1], {field_name}"


def test_a_name_stands_for_one_rule() -> None:
    with pytest.raises(InvalidInput, match="every name once"):
        desired(rules=[{"name": "a", "action": "ACCEPT"}, {"name": "a", "action": "DROP"}])


@given(st.text(max_size=30))
def test_any_text_has_one_spelling_or_none(text: str) -> None:
    for parse in (addresses, ports):
        try:
            once = parse(text)
        except ValueError:
            continue
        assert parse(once) == once


def test_on_the_simulator_without_reading_twice(simulator: Any) -> None:
    one = simulator.client()
    tasks.wait(one, one.post("/nodes/pve1/qemu", vmid=100, name="web"), budget=30)
    theirs = {"type": "in", "action": "ACCEPT", "macro": "Ping", "enable": 1, "comment": "theirs"}
    for names in ("", "abc", "ca", "xcya", ""):
        one.post(f"{PATH}/rules", **theirs)
        rules = [
            {"name": name, "action": "ACCEPT", "protocol": "tcp", "dport": "443,80", "source": "10.0.0.1/32"}
            for name in names
        ]
        wanted = desired(enabled=bool(names), policy_in="REJECT", dhcp=True, rules=rules)
        actual = FIREWALL.read(one, PLACE, wanted)
        simulator.requests()
        FIREWALL.apply(one, PLACE, wanted, actual, 60)
        assert not [request for request in simulator.requests() if request.startswith("GET")]
        before, after = FIREWALL.compare(wanted, FIREWALL.read(one, PLACE, wanted))
        assert before == after
        simulator.requests()
    comments = [row.get("comment") for row in one.get(f"{PATH}/rules")]
    assert comments == ["theirs"] * 5
