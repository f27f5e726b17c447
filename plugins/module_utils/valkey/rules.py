# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The language of ACL rules: what a list of rules permits, computed as the server does it (src/acl.c).

A server rewrites the rules that it is given: Redis 7.0 derives a new list from its bitmap of commands, Redis 7.2 and
Valkey keep a shortened one. Lists of rules are therefore compared by what they permit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput

# What a tenant has by default. Besides @dangerous, tenants must not have what names keys, channels or scripts of
# others (client tracking in broadcast mode reports the keys that others change), or changes what all of them share.
TENANT_COMMANDS = (
    "+@all",
    "-@admin",
    "-@dangerous",
    "-scan",
    "-randomkey",
    "-dbsize",
    "-clusterscan",
    "-cluster|getkeysinslot",
    "-cluster|countkeysinslot",
    "-client|tracking",
    "-pubsub",
    "-function",
    "-script",
    "+script|exists",
    "+script|load",
    "-memory",
    "+memory|usage",
    "+info",
)
# words of ACL LIST that describe what every fresh user has
DEFAULT_WORDS = frozenset({"sanitize-payload", "resetchannels", "resetkeys", "alldbs"})
ALL_KEYS = "*"


@dataclass(frozen=True)
class Commands:
    """The commands of one server: the full names (``get``, ``config|set``) of every category, from ACL CAT.

    :param selectors: the server knows selectors and read or write permissions of keys (Redis 7.0, all of Valkey).
    """

    categories: Mapping[str, frozenset[str]]
    selectors: bool = True

    @cached_property
    def names(self) -> frozenset[str]:
        """Every command; each is in a category, because each is @fast or @slow."""
        return frozenset().union(*self.categories.values())

    @cached_property
    def parts(self) -> Mapping[str, frozenset[str]]:
        """The subcommands of each command that has some; it stands for them in rules."""
        found: dict[str, set[str]] = {}
        for name in self.names:
            command, divided, _subcommand = name.partition("|")
            if divided:
                found.setdefault(command, set()).add(name)
        return {command: frozenset(subcommands) for command, subcommands in found.items()}

    def expanded(self, names: Iterable[str]) -> frozenset[str]:
        """*names* with the subcommands that they stand for."""
        return frozenset(names).union(*(self.parts.get(name, frozenset()) for name in names))


@dataclass(frozen=True)
class Scope:
    """What the main rules, or one selector, permit.

    :param keys: permissions (``R``, ``W`` or ``RW``) by key pattern, as pairs.
    :param first_arguments: ``command|argument`` of commands that are permitted with these first arguments only.
    :param future: commands of modules that are loaded later are permitted.
    :param unknown: rules that this code does not know.
    """

    keys: frozenset[tuple[str, str]] = frozenset()
    channels: frozenset[str] = frozenset()
    commands: frozenset[str] = frozenset()
    first_arguments: frozenset[str] = frozenset()
    future: bool = False
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Access:
    """What a user may do: the main rules and the selectors, whose order and number do not matter."""

    main: Scope = Scope()
    selectors: frozenset[Scope] = frozenset()


def scope(rules: Sequence[str], table: Commands) -> Scope:
    """What *rules*, read from left to right, permit; every selector is a scope of its own."""
    keys: dict[str, str] = {}
    channels: set[str] = set()
    commands: list[str] = []
    unknown: set[str] = set()
    for rule in rules:
        if rule.startswith(("~", "%")) and "~" in rule:
            permission, _tilde, pattern = rule.partition("~")
            merged = {*keys.get(pattern, ""), *(permission[1:].upper() or "RW")}
            keys[pattern] = "".join(sorted(merged))
        elif rule in ("allkeys", "allchannels"):
            keys |= {ALL_KEYS: "RW"} if rule == "allkeys" else {}
            channels |= {"*"} if rule == "allchannels" else set()
        elif rule.startswith("&"):
            channels.add(rule[1:])
        elif rule.startswith(("+", "-")):
            commands.append(rule.lower())
        elif rule not in DEFAULT_WORDS:
            unknown.add(rule)
    if keys.get(ALL_KEYS) == "RW":
        keys = {ALL_KEYS: "RW"}
    allowed, arguments, future, not_known = _permitted(commands, table)
    return Scope(
        keys=frozenset(keys.items()),
        channels=frozenset({"*"} if "*" in channels else channels),
        commands=allowed,
        first_arguments=arguments,
        future=future,
        unknown=frozenset(unknown | not_known),
    )


def access(rules: Sequence[str], table: Commands) -> Access:
    """What the rules of a user permit; selectors stand in parentheses, one per rule."""
    return Access(
        main=scope([rule for rule in rules if not rule.startswith("(")], table),
        selectors=frozenset(scope(rule[1:-1].split(), table) for rule in rules if rule.startswith("(")),
    )


def _permitted(rules: Iterable[str], table: Commands) -> tuple[frozenset[str], frozenset[str], bool, frozenset[str]]:
    """Permitted commands, permitted first arguments, whether commands of the future are, and unknown rules."""
    allowed: frozenset[str] = frozenset()
    arguments: frozenset[str] = frozenset()
    future = False
    unknown = set()
    for rule in rules:
        adds, name = rule[0] == "+", rule[1:]
        if name == "@all":
            allowed, arguments, future = (table.names if adds else frozenset()), frozenset(), adds
        elif is_first_argument(rule, table):
            arguments |= {name}
        elif (meant := named(name, table)) is not None:
            allowed = allowed | meant if adds else allowed - meant
            arguments = frozenset(argument for argument in arguments if argument.partition("|")[0] not in meant)
        else:
            unknown.add(rule)
    restricted = frozenset(argument for argument in arguments if argument.partition("|")[0] not in allowed)
    return allowed, restricted, future, frozenset(unknown)


def named(name: str, table: Commands) -> frozenset[str] | None:
    """The commands that *name* (a command, or ``@category``) stands for; ``None`` if the server has none such."""
    if name.startswith("@"):
        members = table.categories.get(name[1:])
        return None if members is None else table.expanded(members)
    return table.expanded([name]) if name in table.names else None


def is_first_argument(rule: str, table: Commands) -> bool:
    """Whether *rule* permits a command without subcommands with one first argument only, as ``+select|0`` does."""
    command, divided, argument = rule[1:].partition("|")
    single = bool(divided and argument) and "|" not in argument
    return single and rule[0] == "+" and command in table.names and command not in table.parts


def check_commands(rules: Iterable[str], table: Commands) -> None:
    """Refuse commands and categories that the server does not have.

    :raises InvalidInput: naming the first such rule.
    """
    for rule in rules:
        name = rule[1:].lower()
        if name != "@all" and not is_first_argument(rule.lower(), table) and named(name, table) is None:
            raise InvalidInput(
                f"the server has no command or category {rule[1:]!r}",
                where="commands",
                hint="ACL CAT lists the categories, ACL CAT <category> the commands of one",
            )


def tenant_commands(table: Commands) -> tuple[str, ...]:
    """:data:`TENANT_COMMANDS` as far as the server has them."""

    def known(rule: str) -> bool:
        return rule == "+@all" or is_first_argument(rule, table) or named(rule[1:], table) is not None

    return tuple(rule for rule in TENANT_COMMANDS if known(rule))
