# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What diff mode shows of ACL users: no password and no hash."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.valkey import model
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.model import ActualUser, DesiredUser
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.rules import Commands, Scope, access, scope


def shown_wish(item: DesiredUser, table: Commands) -> dict[str, Any]:
    """The user as it is wanted."""
    rules = model.wanted_rules(item, table)
    return {
        "enabled": item.enabled,
        "passwords": "not managed" if item.hashes is None else "as wanted",
        **_shown_scope(scope(rules.words(), table), _command_rules(rules.words())),
        "selectors": sorted(" ".join(selector.words()[1:]) for selector in item.selectors),
        "mark": item.mark,
    }


def shown(item: DesiredUser, user: ActualUser, table: Commands) -> dict[str, Any]:
    """The user as the server has it, in the words of the wish where they mean the same."""
    wish = shown_wish(item, table)
    wanted = model.wanted_access(item, table)
    actual = access(user.rules, table)
    same_commands = _commands(actual.main) == _commands(wanted.main)
    # the owner mark is shown by itself
    keys = frozenset(key for key in actual.main.keys if not key[0].startswith(model.MARK_PREFIX))
    return {
        "enabled": user.enabled,
        "passwords": _shown_passwords(item, user),
        **_shown_scope(
            replace(actual.main, keys=keys), wish["commands"] if same_commands else _command_rules(user.rules)
        ),
        "selectors": wish["selectors"] if actual.selectors == wanted.selectors else _shown_selectors(user),
        "mark": model.mark_of(user, table),
    }


def _shown_scope(only: Scope, commands: Sequence[str]) -> dict[str, Any]:
    return {
        "keys": sorted(_key_rule(*key) for key in only.keys),
        "channels": sorted(f"&{channel}" for channel in only.channels),
        "commands": list(commands),
        **({"other": sorted(only.unknown)} if only.unknown else {}),
    }


def _shown_selectors(user: ActualUser) -> list[str]:
    selectors = (rule[1:-1] for rule in user.rules if rule.startswith("("))
    return sorted(text for text in selectors if not text.startswith(f"~{model.MARK_PREFIX}"))


def _shown_passwords(item: DesiredUser, user: ActualUser) -> str:
    if user.no_password:
        return "any password is accepted"
    if item.hashes is None:
        return "not managed"
    return "as wanted" if user.hashes == frozenset(item.hashes) else "differs"


def _command_rules(rules: Iterable[str]) -> list[str]:
    return [rule for rule in rules if rule.startswith(("+", "-"))]


def _commands(only: Scope) -> tuple[frozenset[str], frozenset[str], bool]:
    return only.commands, only.first_arguments, only.future


def _key_rule(pattern: str, permission: str) -> str:
    return f"~{pattern}" if permission == "RW" else f"%{permission}~{pattern}"
