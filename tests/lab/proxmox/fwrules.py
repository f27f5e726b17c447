# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of firewall rules, of virtual machines and of security groups (PVE/API2/Firewall/{Rules,Groups}.pm)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .errors import ApiError, invalid
from .firewall import Config, assert_unchanged, cluster_config, config_of, filled, named, rename, verify, with_digest
from .formats import split_list
from .routes import Call, endpoint

RULES = "/nodes/{node}/qemu/{vmid}/firewall/rules"
GROUPS = "/cluster/firewall/groups"
# what a rule keeps
RULE = frozenset(
    (
        *("type", "action", "macro", "iface", "source", "dest", "proto", "enable", "log"),
        *("sport", "dport", "icmp-type", "comment"),
    )
)
Found = tuple[list[dict[str, Any]], tuple[Config, ...]]  # rules, and the files whose sets and aliases they may name


def _merge(rule: dict[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The rule with the given values; an empty one or a dash removes."""
    new = rule | {key: value for key, value in params.items() if key in RULE}
    if "enable" in new:
        new["enable"] = int(bool(new["enable"]))
    return {key: value for key, value in new.items() if value not in ("", "-")}


def _kept(rule: dict[str, Any]) -> dict[str, Any]:
    """What the file has room for: a reference to a group has no conditions."""
    if rule["type"] != "group":
        return rule
    return {key: value for key, value in rule.items() if key in ("type", "action", "iface", "enable", "comment")}


def _without(rule: dict[str, Any], names_: Iterable[str]) -> dict[str, Any]:
    for name in names_:
        if name not in RULE | {"pos", "digest"}:
            raise invalid({"delete": f"no such property ('{name}')"})
        if name in ("type", "action"):
            raise invalid({"delete": f"unable to delete required property '{name}'"})
    return {key: value for key, value in rule.items() if key not in set(names_)}


def _at(call: Call, rules: list[dict[str, Any]]) -> int:
    position = int(call.params["pos"])
    if position >= len(rules):
        raise ApiError(f"no rule at position {position}")
    return position


def _register_rules(
    path: str, kind: str, find: Callable[[Call], tuple[list[dict[str, Any]], tuple[Config, ...]]]
) -> None:
    """The calls on a list of rules: `find` gives the list, and the files whose sets and aliases it may name."""

    @endpoint("GET", path)
    async def list_rules(call: Call) -> object:
        return [row | {"pos": number} for number, row in enumerate(with_digest(find(call)[0]))]

    @endpoint("GET", f"{path}/{{pos}}")
    async def get_rule(call: Call) -> object:
        rules = find(call)[0]
        position = _at(call, rules)
        return with_digest(rules)[position] | {"pos": str(position)}

    @endpoint("POST", path)
    async def create_rule(call: Call) -> object:
        """A new rule is the first one, whatever `pos` says; not enabled unless asked."""
        rules, scopes = find(call)
        rules.insert(0, _kept(verify(_merge({"enable": 0}, call.params), scopes, kind)))
        call.cluster.save()
        return None

    @endpoint("PUT", f"{path}/{{pos}}")
    async def update_rule(call: Call) -> object:
        rules, scopes = find(call)
        assert_unchanged(call, rules)
        position = _at(call, rules)
        target = call.params.get("moveto", position)
        if target != position:
            rule = rules.pop(position)
            # counted in the list before the move: the rule comes to stand before the one that was there
            rules.insert(target - 1 if target > position else target, rule)
        else:
            changed = _merge(rules[position], call.params)
            changed = _without(changed, split_list(call.params.get("delete", "")))
            rules[position] = _kept(verify(changed, scopes, kind))
        call.cluster.save()
        return None

    @endpoint("DELETE", f"{path}/{{pos}}")
    async def delete_rule(call: Call) -> object:
        rules = find(call)[0]
        assert_unchanged(call, rules)
        rules.pop(_at(call, rules))
        call.cluster.save()
        return None


def _of_vm(call: Call) -> Found:
    config = config_of(call.cluster, call.params["vmid"])
    return config["rules"], (config, cluster_config(call.cluster))


def _of_group(call: Call) -> Found:
    config = cluster_config(call.cluster)
    name = call.params["group"]
    if name not in config["groups"]:
        raise ApiError(f"no such security group '{name}'")
    return config["groups"][name], (config,)


_register_rules(RULES, "vm", _of_vm)
_register_rules(f"{GROUPS}/{{group}}", "group", _of_group)


@endpoint("GET", GROUPS)
async def list_groups(call: Call) -> object:
    return with_digest(named(cluster_config(call.cluster), "group", "group"))


@endpoint("POST", GROUPS)
async def create_group(call: Call) -> object:
    config, name, old = cluster_config(call.cluster), call.params["group"], call.params.get("rename")
    if old:
        assert_unchanged(call, named(config, "group", "group"))
        rename(config["groups"], config["group_comments"], old, name, ("group", "Security group"))
        every = [rules for each in call.cluster.firewall.values() for rules in [filled(each)["rules"]]]
        for rule in [rule for rules in every for rule in rules if rule["type"] == "group" and rule["action"] == old]:
            rule["action"] = name
    elif name in config["groups"]:
        raise invalid({"group": f"Security group '{name}' already exists"})
    config["groups"].setdefault(name, [])
    if "comment" in call.params:
        config["group_comments"][name] = call.params["comment"]
    call.cluster.save()
    return None


@endpoint("DELETE", f"{GROUPS}/{{group}}")
async def delete_group(call: Call) -> object:
    name = call.params["group"]
    if _of_group(call)[0]:
        raise ApiError(f"Security group '{name}' is not empty")
    config = cluster_config(call.cluster)
    config["groups"].pop(name)
    config["group_comments"].pop(name, None)
    call.cluster.save()
    return None
