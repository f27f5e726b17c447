# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The firewall of a virtual machine: its options and our rules.

The given rules are the complete ordered set of ours. Rules of others keep their content and their order; where ours
stand between them is left as it is, and new ones come first. Rules are changed before options, so that a policy never
comes into force without them. Each network device has a firewall flag of its own, without which nothing of this acts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.check import Check
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, Outdated
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.firewall_positions import (
    Insert,
    Move,
    Remove,
    Replace,
    Step,
    after,
    plan,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.firewall_rules import (
    FIELDS,
    LOG_LEVELS,
    POLICIES,
    TYPES,
    Rule,
    desired_rule,
    digest,
    parameters,
    parse_rule,
    shown,
    stored,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Place, Shown

# option of the item: key of the server, and the server's default
OPTIONS: Mapping[str, tuple[str, bool | str]] = {
    "enabled": ("enable", False),
    "policy_in": ("policy_in", "DROP"),
    "policy_out": ("policy_out", "ACCEPT"),
    "log_level_in": ("log_level_in", "nolog"),
    "log_level_out": ("log_level_out", "nolog"),
    "dhcp": ("dhcp", False),
    "macfilter": ("macfilter", True),
    "ipfilter": ("ipfilter", False),
}
# how often the rules are read again because somebody else changes them too
REREADINGS = 5


@dataclass(frozen=True)
class FirewallDesired:
    """What is wanted; ``rules`` of None are not managed, and so is every option that is not there."""

    options: Mapping[str, bool | str] = field(default_factory=dict)
    rules: tuple[Rule, ...] | None = None


@dataclass(frozen=True)
class FirewallActual:
    """What there is: all options, and all rules as the server shows them (in their order, foreign ones too)."""

    options: Mapping[str, bool | str] = field(default_factory=dict)
    options_digest: str | None = None
    rows: tuple[Mapping[str, Any], ...] = ()


class Firewall:
    """The part ``firewall`` of a virtual machine."""

    key: ClassVar[str] = "firewall"
    argument: ClassVar[dict[str, Any]] = {
        "type": "dict",
        "options": {
            "enabled": {"type": "bool"},
            "policy_in": {"type": "str", "choices": list(POLICIES)},
            "policy_out": {"type": "str", "choices": list(POLICIES)},
            "log_level_in": {"type": "str", "choices": list(LOG_LEVELS)},
            "log_level_out": {"type": "str", "choices": list(LOG_LEVELS)},
            "dhcp": {"type": "bool"},
            "macfilter": {"type": "bool"},
            "ipfilter": {"type": "bool"},
            "rules": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "type": {"type": "str", "choices": list(TYPES), "default": "in"},
                    "action": {"type": "str", "required": True},
                    "enabled": {"type": "bool", "default": True},
                    "protocol": {"type": "str"},
                    "source": {"type": "str"},
                    "destination": {"type": "str"},
                    "sport": {"type": "str"},
                    "dport": {"type": "str"},
                    "icmp_type": {"type": "str"},
                    "macro": {"type": "str"},
                    "interface": {"type": "str"},
                    "log": {"type": "str", "choices": list(LOG_LEVELS)},
                },
            },
        },
    }

    def desired(self, check: Check, value: Any) -> FirewallDesired:
        """The option, typed. :raises InvalidInput: a value is refused; names the rule and the field."""
        inner = check.inside(self.key, value)
        rules = inner.each("rules", desired_rule)
        names = [rule.name for rule in rules or ()]
        for name in names:
            if names.count(name) > 1:
                raise inner.refused("rules", name, "every name once")
        return FirewallDesired({key: value[key] for key in OPTIONS if value.get(key) is not None}, rules)

    def read(self, client: Client, place: Place, desired: FirewallDesired) -> FirewallActual:
        """Options and rules, each only where it is wanted: at most two requests."""
        options = client.get(f"{place.path}/firewall/options") if desired.options else {}
        rows = client.get(f"{place.path}/firewall/rules") if desired.rules is not None else ()
        return FirewallActual(parse_options(options), options.get("digest"), tuple(rows))

    def compare(self, desired: FirewallDesired, actual: FirewallActual | None) -> tuple[Shown, Shown]:
        """Plain values of the given options and of our rules in their order."""
        present = actual or FirewallActual(parse_options({}))
        before: dict[str, Any] = {key: present.options[key] for key in desired.options}
        after_: dict[str, Any] = dict(desired.options)
        if desired.rules is not None:
            before["rules"] = [shown(rule) for rule in map(parse_rule, present.rows) if rule is not None]
            after_["rules"] = [shown(rule) for rule in desired.rules]
        return before, after_

    def apply(
        self, client: Client, place: Place, desired: FirewallDesired, actual: FirewallActual, budget: float
    ) -> None:
        """Rules, then options.

        :raises Outdated: somebody else keeps changing them.
        """
        if desired.rules is not None:
            _apply_rules(client, f"{place.path}/firewall/rules", desired.rules, actual.rows)
        values = {OPTIONS[key][0]: value for key, value in desired.options.items() if value != actual.options[key]}
        if values:
            client.put(f"{place.path}/firewall/options", **values, digest=actual.options_digest)


FIREWALL = Firewall()


def parse_options(answer: Mapping[str, Any]) -> dict[str, bool | str]:
    """The options by our names; what is not set has the server's default."""
    found: dict[str, bool | str] = {}
    for key, (name, default) in OPTIONS.items():
        value = answer.get(name)
        if value is None:
            found[key] = default
        else:
            found[key] = bool(int(value)) if isinstance(default, bool) else str(value)
    return found


def _apply_rules(client: Client, path: str, wanted: Sequence[Rule], rows: Sequence[Mapping[str, Any]]) -> None:
    """Send the plan, each step with the digest that the list then has.

    Where the digest cannot be told beforehand (another way to make it, an alias whose family only the server knows),
    the list is read again; and so when somebody else changed it.
    """
    refused = 0
    while steps := plan([parse_rule(row) for row in rows], wanted):
        told = str(rows[0].get("digest")) if rows else digest(())
        foreseen = told == digest(rows)
        try:
            for step in steps if foreseen else steps[:1]:
                _send(client, path, step, rows, digest(rows) if foreseen else told)
                rows = after(rows, _of_rows(step))
        except Outdated:
            refused += 1
            if refused > REREADINGS:
                raise
        else:
            if foreseen:
                return
        rows = client.get(path)


def _of_rows(step: Step[Rule]) -> Step[Mapping[str, Any]]:
    if isinstance(step, Insert):
        return Insert(stored(step.entry))
    if isinstance(step, Replace):
        return Replace(step.position, stored(step.entry))
    return step


def _send(client: Client, path: str, step: Step[Rule], rows: Sequence[Mapping[str, Any]], digest_: str) -> None:
    if isinstance(step, Insert):
        client.post(path, **parameters(step.entry))
    elif isinstance(step, Replace):
        values = parameters(step.entry)
        gone = sorted(key for key in FIELDS.values() if rows[step.position].get(key) and key not in values)
        client.put(f"{path}/{step.position}", **values, delete=",".join(gone) or None, digest=digest_)
    elif isinstance(step, Move):
        client.put(f"{path}/{step.position}", moveto=step.target, digest=digest_)
    elif isinstance(step, Remove):
        client.delete(f"{path}/{step.position}", digest=digest_)
