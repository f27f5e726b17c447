# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall files of virtual machines and of the cluster, and what a rule may say (PVE/Firewall.pm).

The file of a virtual machine's firewall is independent of the machine: it can be read and written without one.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import ApiError, invalid
from .fwformats import ICMP, NAME, WITH_PORTS, names, version_of
from .routes import Call
from .store import Cluster

MODIFIED = "detected modified configuration - file changed by other user? Try again."
Config = dict[str, Any]  # options, aliases (by lower-case name), ipset, ipset_comments, rules; of the cluster: groups


def config_of(cluster: Cluster, vmid: int) -> Config:
    """The firewall file of a virtual machine, to read or to change; `save` keeps it."""
    return filled(cluster.firewall.setdefault(str(vmid), {}))


def filled(config: Config) -> Config:
    for key in ("options", "aliases", "ipset", "ipset_comments", "groups", "group_comments"):
        config.setdefault(key, {})
    config.setdefault("rules", [])
    return config


def cluster_config(cluster: Cluster) -> Config:
    return filled(cluster.firewall.setdefault("cluster", {}))


def forget(cluster: Cluster, vmid: int) -> None:
    """A virtual machine is destroyed; the caller saves."""
    cluster.firewall.pop(str(vmid), None)


def clone(cluster: Cluster, source: int, target: int) -> None:
    """A clone gets the file of its source."""
    if str(source) in cluster.firewall:
        cluster.firewall[str(target)] = copy.deepcopy(cluster.firewall[str(source)])
        cluster.save()


def digest_of(rows: Iterable[Mapping[str, Any]]) -> str:
    sha = hashlib.sha1(usedforsecurity=False)
    for row in rows:
        for key in sorted(row):
            sha.update(f"{key}:{row[key]}\n".encode())
    return sha.hexdigest()


def with_digest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    digest = digest_of(rows)
    return [row | {"digest": digest} for row in rows]


def assert_unchanged(call: Call, rows: Iterable[Mapping[str, Any]]) -> None:
    given = call.params.get("digest")
    if given and given != digest_of(rows):
        raise ApiError(MODIFIED)


def aliases_of(config: Config) -> list[dict[str, Any]]:
    return [config["aliases"][name] for name in sorted(config["aliases"])]


def named(config: Config, kind: str, key: str) -> list[dict[str, Any]]:
    """Sets or groups as rows."""
    comments = config[f"{kind}_comments"]
    found = config["ipset"] if kind == "ipset" else config["groups"]
    return [{key: name} | ({"comment": comments[name]} if comments.get(name) else {}) for name in sorted(found)]


def verify(rule: dict[str, Any], scopes: tuple[Config, ...], kind: str) -> dict[str, Any]:
    """The rule as it is kept; 400 for the first thing that is wrong. `kind` is vm or group."""

    def wrong(name: str, text: str) -> ApiError:
        return invalid({name: text})

    directions = ("in", "out", "group") if kind == "vm" else ("in", "out", "forward")
    if rule["type"] not in directions:
        raise wrong("type", f"invalid rule type '{rule['type']}' for rule_env '{kind}'")
    if rule["type"] == "forward" and rule["action"] == "REJECT":
        raise wrong("action", "cannot define REJECT rules on forward chain")
    if rule["type"] != "group" and rule["action"] not in ("ACCEPT", "DROP", "REJECT"):
        raise wrong("action", f"unknown action '{rule['action']}'")
    if "iface" in rule and kind == "group":
        raise wrong("type", "parameter -i not allowed for this rule type")
    if "iface" in rule and not re.fullmatch(r"net\d+", rule["iface"]):
        raise wrong("iface", "value does not match the regex pattern 'net\\d+'")
    if macro := rule.get("macro"):
        rule["macro"] = next((name for name in names("macros") if name.lower() == macro.lower()), "")
        if not rule["macro"]:
            raise wrong("macro", f"unknown macro '{macro}'")
    if problem := _wrong_ports(rule):
        raise wrong(*problem)
    versions = {4 if rule["proto"] == "icmp" else 6} if rule.get("proto") in ICMP else set()
    for name in ("source", "dest"):
        if value := rule.get(name):
            found, text = resolve(value, scopes)
            if text:
                raise wrong(name, text)
            versions |= found
            if len(versions) > 1:
                raise wrong(name, "detected mixed ipv4/ipv6 addresses in rule")
    rule.pop("ipversion", None)
    return rule | ({"ipversion": versions.pop()} if versions else {})


def _wrong_ports(rule: Mapping[str, Any]) -> tuple[str, str] | None:
    proto = rule.get("proto", "")
    for name in ("dport", "icmp-type", "sport"):
        if name not in rule:
            continue
        if not proto or (name == "icmp-type" and proto not in ICMP):
            return "proto", f"missing property - '{name}' requires this property"
        if name == "icmp-type":
            if "dport" in rule:
                return name, "'icmp-type' cannot be specified together with 'dport'"
            if rule[name] not in names("icmp" if proto == "icmp" else "icmpv6"):
                return name, f"invalid icmp-type '{rule[name]}' for proto '{proto}'"
        elif proto not in WITH_PORTS and not (name == "dport" and proto in ICMP):
            return name, f"protocol '{proto}' does not support ports"
    return None


def resolve(value: str, scopes: tuple[Config, ...]) -> tuple[set[int], str]:
    """(IP versions, "" or what is wrong) of a source or destination."""
    if value.startswith("+"):
        match = re.fullmatch(rf"\+(?:guest/|dc/|sdn/)?({NAME})", value)
        if not match:
            return set(), f"invalid ipset name '{value}'"
        known = any(match[1] in scope["ipset"] for scope in scopes)
        return set(), "" if known else f"no such ipset '{match[1]}'"
    if match := re.fullmatch(rf"(?:guest/|dc/)?({NAME})", value):
        found = [scope["aliases"][match[1].lower()] for scope in scopes if match[1].lower() in scope["aliases"]]
        return ({found[0]["ipversion"]}, "") if found else (set(), f"no such alias '{value}'")
    return {version_of(value)}, ""


def rename(found: dict[str, Any], comments: dict[str, str], old: str, new: str, label: tuple[str, str]) -> None:
    """Moves an entry and its comment; `label` is the parameter and the word for it."""
    if old not in found:
        raise invalid({label[0]: f"{label[1]} '{old}' does not exist"})
    if new in found and new != old:
        raise invalid({label[0]: f"{label[1]} '{new}' does already exist"})
    found[new] = found.pop(old)
    if old in comments:
        comments[new] = comments.pop(old)
