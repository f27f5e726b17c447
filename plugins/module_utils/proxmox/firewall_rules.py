# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of a virtual machine's firewall, and what makes two of them equal.

A rule is ours by its comment ``fediversity: NAME``. What the server stores and compares: pve-firewall, Firewall.pm
(verify_rule, parse_fw_rule, copy_list_with_digest).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.names import OWNER_TAG
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.check import Check

POLICIES = ("ACCEPT", "REJECT", "DROP")
LOG_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug", "nolog")
TYPES = ("in", "out", "group")
# field of a rule: key of the server
FIELDS: Mapping[str, str] = {
    "protocol": "proto",
    "source": "source",
    "destination": "dest",
    "sport": "sport",
    "dport": "dport",
    "icmp_type": "icmp-type",
    "macro": "macro",
    "interface": "iface",
    "log": "log",
}
# what the server tells of a rule beside its content
SHOWN_ONLY = ("pos", "digest", "errors")
COMMENT = re.compile(rf"{OWNER_TAG}: ([A-Za-z0-9][A-Za-z0-9._-]{{0,63}})\Z")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
GROUP = re.compile(r"[A-Za-z][A-Za-z0-9_-]{1,17}\Z")
PROTOCOL = re.compile(r"[a-z0-9][a-z0-9.+-]*\Z")
MACRO = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}\Z")
INTERFACE = re.compile(r"net\d+\Z")
PORT = re.compile(r"(\d+)(?::(\d+))?\Z")
SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*\Z")
# an IP set, or an alias, of the machine, the cluster or the network
REFERENCE = re.compile(r"\+?((dc|guest|sdn)/)?[A-Za-z][A-Za-z0-9_-]+\Z")
MAX_ADDRESSES = 512
MAX_PORTS = 15
PORT_RANGE = range(0, 65536)
# protocols whose rules may name ports, with their numbers in /etc/protocols
WITH_PORTS = ("tcp", "udp", "udplite", "dccp", "sctp")
NUMBERS = {"1": "icmp", "6": "tcp", "17": "udp", "33": "dccp", "58": "icmpv6", "132": "sctp", "136": "udplite"}
ICMP = ("icmp", "icmpv6")


@dataclass(frozen=True)
class Rule:
    """One rule of ours in comparable form; an empty text is not set.

    :param action: ACCEPT, DROP or REJECT; the name of a security group for the type ``group``.
    :param macro: in lower case; ``macro_text`` has the spelling to send, which the server makes its own.
    """

    name: str
    type: str
    action: str
    enabled: bool = True
    protocol: str = ""
    source: str = ""
    destination: str = ""
    sport: str = ""
    dport: str = ""
    icmp_type: str = ""
    macro: str = ""
    interface: str = ""
    log: str = ""
    macro_text: str = field(default="", compare=False)


def parse_rule(row: Mapping[str, Any]) -> Rule | None:
    """A rule as the server shows it; None if it is not ours."""
    match = COMMENT.match(str(row.get("comment") or ""))
    if match is None:
        return None
    values = {name: str(row.get(key) or "") for name, key in FIELDS.items()}
    return _comparable(match[1], str(row.get("type", "")), str(row.get("action", "")), bool(row.get("enable")), values)


def _comparable(name: str, kind: str, action: str, enabled: bool, values: Mapping[str, str]) -> Rule:
    protocol = values["protocol"].lower()
    protocol = NUMBERS.get(protocol, "icmpv6" if protocol == "ipv6-icmp" else protocol)
    return Rule(
        name=name,
        type=kind,
        action=action,
        enabled=enabled,
        protocol=protocol,
        source=_or_text(addresses, values["source"]),
        destination=_or_text(addresses, values["destination"]),
        sport=_or_text(ports, values["sport"]),
        dport=_or_text(ports, values["dport"]),
        icmp_type=values["icmp_type"],
        macro=values["macro"].lower(),
        macro_text=values["macro"],
        interface=values["interface"],
        log="" if values["log"] == "nolog" else values["log"],
    )


def _or_text(parse: Callable[[str], str], text: str) -> str:
    """What the server holds may be beyond us: then it is compared as text."""
    try:
        return parse(text) if text else ""
    except ValueError:
        return text


def addresses(text: str) -> str:
    """A list of addresses and networks, one range, or a reference, in one spelling.

    :raises ValueError: it is none of these.
    """
    if REFERENCE.match(text):
        # the names of aliases are compared in lower case, those of sets are not
        return text if text.startswith("+") else text.lower()
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and "-" in text:
        first, last = (ipaddress.ip_address(part.strip()) for part in text.split("-", 1))
        if first.version != last.version or int(first) > int(last):
            raise ValueError(f"{text!r} is no range of addresses")
        return f"{first}-{last}"
    networks = [ipaddress.ip_network(part) for part in parts]
    if len({network.version for network in networks}) > 1:
        raise ValueError("IPv4 and IPv6 addresses do not go into one rule")
    ordered = sorted({(int(network.network_address), network.prefixlen): network for network in networks}.items())
    return ",".join(
        str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
        for _key, network in ordered
    )


def ports(text: str) -> str:
    """A list of ports, ranges ``FIRST:LAST`` and names of services in one spelling.

    :raises ValueError: it is no such list.
    """
    numbers: set[tuple[int, int]] = set()
    names: set[str] = set()
    for part in (part.strip() for part in text.split(",")):
        match = PORT.match(part)
        if match is None:
            if not SERVICE.match(part):
                raise ValueError(f"{part!r} is no port")
            names.add(part)
            continue
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last not in PORT_RANGE:
            raise ValueError(f"{part!r} is no port or range of ports")
        numbers.add((first, last))
    # the server counts a range as two
    if sum(1 if first == last else 2 for first, last in numbers) > MAX_PORTS:
        raise ValueError(f"more than {MAX_PORTS} ports; a range counts as two")
    return ",".join([*(f"{a}" if a == b else f"{a}:{b}" for a, b in sorted(numbers)), *sorted(names)])


def desired_rule(check: Check) -> Rule:
    """One entry of the option ``rules``, typed. :raises InvalidInput: names the rule's place and the field."""
    kind = check.one_of("type", TYPES) or "in"
    name = check.required("name", NAME, "letters, digits, ., _ and -, at most 64")
    action = str(check.values.get("action") or "")
    if kind == "group":
        check.required("action", GROUP, "the name of a security group")
        given = sorted(key for key in FIELDS if key != "interface" and check.values.get(key))
        if given:
            raise check.refused(given[0], check.values[given[0]], "it in the rules of the security group")
    elif action not in POLICIES:
        raise check.refused("action", action, f"one of {', '.join(POLICIES)}")
    check.text("protocol", PROTOCOL, "the name or number of a protocol, such as tcp")
    check.text("macro", MACRO, "the name of a macro, such as HTTPS")
    check.text("interface", INTERFACE, "a network device of the machine, such as net0")
    check.one_of("log", LOG_LEVELS)
    for key, parse, wanted in (
        ("source", addresses, "addresses, networks, a range, +SET or an alias"),
        ("destination", addresses, "addresses, networks, a range, +SET or an alias"),
        ("sport", ports, "ports, ranges such as 1024:2048, or names of services"),
        ("dport", ports, "ports, ranges such as 1024:2048, or names of services"),
    ):
        text = check.values.get(key)
        try:
            if text and len(parse(text)) > MAX_ADDRESSES:
                raise ValueError(text)
        except ValueError:
            raise check.refused(key, text, wanted) from None
    rule = _comparable(
        name,
        kind,
        action,
        check.values.get("enabled") is not False,
        {key: str(check.values.get(key) or "") for key in FIELDS},
    )
    if (rule.sport and rule.protocol not in WITH_PORTS) or (rule.dport and rule.protocol not in (*WITH_PORTS, *ICMP)):
        raise check.refused("protocol", rule.protocol, f"one of {', '.join(WITH_PORTS)} together with ports")
    if rule.icmp_type and (rule.protocol not in ICMP or rule.dport):
        raise check.refused("icmp_type", rule.icmp_type, "it with the protocol icmp or icmpv6, and without dport")
    return rule


def shown(rule: Rule) -> dict[str, Any]:
    """The rule for people: only what is set."""
    return {key: value for key, value in asdict(rule).items() if value != "" and key != "macro_text"}


def stored(rule: Rule) -> dict[str, Any]:
    """The rule as the server holds it."""
    values = asdict(rule)
    row: dict[str, Any] = {key: values[name] for name, key in FIELDS.items() if values[name]}
    if rule.macro:
        row["macro"] = rule.macro_text
    row |= {"type": rule.type, "action": rule.action, "enable": int(rule.enabled)}
    row["comment"] = f"{OWNER_TAG}: {rule.name}"
    version = 4 if rule.protocol == "icmp" else 6 if rule.protocol == "icmpv6" else None
    for text in (rule.source, rule.destination):
        if text and not REFERENCE.match(text):
            version = 6 if ":" in text else 4
    return row | ({"ipversion": version} if version else {})


def digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """The server's digest of the list of rules (copy_list_with_digest)."""
    sha = hashlib.sha1(usedforsecurity=False)
    for row in rows:
        for key in sorted(row):
            if key not in SHOWN_ONLY and row[key] is not None:
                sha.update(f"{key}:{row[key]}\n".encode())
    return sha.hexdigest()


def parameters(rule: Rule) -> dict[str, str | int]:
    """What is sent to make the rule."""
    return {key: value for key, value in stored(rule).items() if key != "ipversion"}
