# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ACL users: what is wanted, what the server has, and which of it is ours."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput, NotOwned
from ansible_collections.fediversity.hosting.plugins.module_utils.names import OWNER_TAG
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.rules import (
    ALL_KEYS,
    Access,
    Commands,
    Scope,
    access,
    check_commands,
    tenant_commands,
)

DEFAULT_USER = "default"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@/+-]{0,127}\Z")
# no glob character, and no colon: the keys of tenant `a` must not hold those of tenant `a:b`
PREFIX = re.compile(r"[A-Za-z0-9{][A-Za-z0-9_.@{}-]{0,127}\Z")
# no blanks, quotes, parentheses or characters beyond ASCII: the server writes patterns into its files unquoted
KEY_PATTERN = re.compile(r"(%(R|W|RW|WR))?~[!#$%&*-~]+\Z", re.IGNORECASE)
CHANNEL_PATTERN = re.compile(r"&[!#$%&*-~]+\Z")
COMMAND_RULE = re.compile(r"[+-](@[a-z0-9_.-]+|[a-z0-9_.-]+(\|[!#$%&*-{}~]+)?)\Z", re.IGNORECASE)
HASH = re.compile(r"[0-9a-f]{64}\Z")
MARK_PREFIX = f"{OWNER_TAG}:"


@dataclass(frozen=True)
class Rules:
    """Key patterns, channel patterns and commands as ACL SETUSER spells them."""

    keys: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    def words(self) -> tuple[str, ...]:
        """From nothing: the server may give new users and selectors all channels (acl-pubsub-default)."""
        return ("resetchannels", *self.keys, *self.channels, *self.commands)


@dataclass(frozen=True)
class DesiredUser:
    """One user.

    :param mark: whose it is, for example an application instance; recorded in the user (:func:`mark_rule`).
    :param hashes: SHA-256 of the passwords that are valid, hexadecimal; ``None`` leaves those of the server.
    :param prefix: tenant whose keys and channels (``prefix:*``) the user may use, with the commands of a tenant.
    :param adopt: take over a user that carries no mark.
    """

    name: str
    mark: str
    hashes: tuple[str, ...] | None = field(default=None, repr=False)
    enabled: bool = True
    prefix: str | None = None
    rules: Rules = Rules()
    selectors: tuple[Rules, ...] = ()
    adopt: bool = False
    state: Literal["present", "absent"] = "present"


@dataclass(frozen=True)
class ActualUser:
    """One line of ACL LIST; *line* holds the hashes."""

    name: str
    line: str = field(repr=False)
    enabled: bool
    no_password: bool
    hashes: frozenset[str] = field(repr=False)
    rules: tuple[str, ...]


def from_options(options: Sequence[Mapping[str, Any]]) -> list[DesiredUser]:
    """The module option ``users``; clear passwords become hashes here."""
    return [
        DesiredUser(
            name=item["name"],
            mark=item["mark"] or item["name"],
            hashes=_hashes(item["passwords"], item["password_hashes"]),
            enabled=item["enabled"],
            prefix=item["prefix"],
            rules=_rules(item),
            selectors=tuple(_rules(selector) for selector in item["selectors"]),
            adopt=item["adopt"],
            state=item["state"],
        )
        for item in options
    ]


def _rules(item: Mapping[str, Any]) -> Rules:
    return Rules(tuple(dict.fromkeys(item["keys"])), tuple(dict.fromkeys(item["channels"])), tuple(item["commands"]))


def _hashes(passwords: Sequence[str] | None, hashes: Sequence[str] | None) -> tuple[str, ...] | None:
    if passwords is None and hashes is None:
        return None
    # an empty password has no hash that could be valid: `check` refuses it
    made = [hashlib.sha256(password.encode()).hexdigest() if password else "" for password in passwords or ()]
    return tuple(sorted({*made, *(value.lower() for value in hashes or ())}))


def parse(line: str) -> ActualUser:
    """One line of ACL LIST: ``user NAME on #HASH ~PATTERN &PATTERN +COMMAND (SELECTOR)``."""
    _user, name, *words = line.split(" ")
    rules: list[str] = []
    for word in words:
        # a selector is one rule with blanks in it
        if rules and rules[-1].startswith("(") and not rules[-1].endswith(")"):
            rules[-1] += f" {word}"
        else:
            rules.append(word)
    states = {"on", "off", "nopass"}
    return ActualUser(
        name=name,
        line=line,
        enabled="on" in rules,
        no_password="nopass" in rules,
        hashes=frozenset(rule[1:] for rule in rules if rule.startswith("#")),
        rules=tuple(rule for rule in rules if rule and rule not in states and not rule.startswith("#")),
    )


def mark_rule(mark: str, table: Commands) -> str:
    """The owner mark: a selector with a key pattern and no commands, which permits nothing.

    Redis 6 has no selectors. There the pattern stands in the main rules, so that the user may use that one key too.
    """
    pattern = f"~{MARK_PREFIX}{mark}"
    return f"({pattern} resetchannels -@all)" if table.selectors else pattern


def mark_of(user: ActualUser, table: Commands) -> str | None:
    """Whose *user* is."""
    found = access(user.rules, table)
    scopes = [only for only in found.selectors if _is_mark(only)] if table.selectors else [found.main]
    patterns = sorted(pattern for only in scopes for pattern, _permission in only.keys)
    return next((text.removeprefix(MARK_PREFIX) for text in patterns if text.startswith(MARK_PREFIX)), None)


def _is_mark(selector: Scope) -> bool:
    return len(selector.keys) == 1 and not (selector.commands or selector.first_arguments or selector.channels)


def access_rules(item: DesiredUser, table: Commands) -> tuple[str, ...]:
    """What *item* may do, as arguments of ACL SETUSER for a user that may do nothing yet."""
    wanted = wanted_rules(item, table)
    selectors = [f"({' '.join(rules.words())})" for rules in item.selectors]
    return (*wanted.words(), *selectors, mark_rule(item.mark, table))


def wanted_rules(item: DesiredUser, table: Commands) -> Rules:
    """The main rules, with those that the prefix stands for."""
    rules = item.rules
    if item.prefix is None:
        return rules
    return Rules(
        keys=(f"~{item.prefix}:*", *rules.keys),
        channels=(f"&{item.prefix}:*", *rules.channels),
        commands=(*tenant_commands(table), *rules.commands),
    )


def save_rules(item: DesiredUser, actual: ActualUser | None, table: Commands) -> tuple[str, ...]:
    """All arguments of ACL SETUSER that make *item*; passwords that are not managed stay."""
    hashes = item.hashes if item.hashes is not None else tuple(sorted(actual.hashes)) if actual else ()
    state = "on" if item.enabled else "off"
    return ("reset", state, *(f"#{value}" for value in hashes), *access_rules(item, table))


def wanted_access(item: DesiredUser, table: Commands) -> Access:
    """What *item* may do, computed without the server."""
    return access(access_rules(item, table), table)


def check(item: DesiredUser) -> None:
    """Refuse what the server would refuse, or could not read back from its own files.

    :raises InvalidInput: with the field and the way out.
    """
    for option, value, rule in (("name", item.name, NAME), ("mark", item.mark, NAME)):
        if not rule.match(value):
            raise _invalid(
                item,
                option,
                f"{option} is empty, too long, or holds blanks, quotes or other characters that have no place there",
                "Use 1 to 128 of A-Z a-z 0-9 _ . : @ / + -, with a letter or digit first",
            )
    if item.prefix is not None and not PREFIX.match(item.prefix):
        raise _invalid(
            item,
            "prefix",
            f"{item.prefix!r} is no prefix",
            "Use 1 to 128 of A-Z a-z 0-9 _ . @ { } -, without the colon, which is added",
        )
    if any(not HASH.match(value) for value in item.hashes or ()):
        raise _invalid(
            item,
            "passwords or password_hashes",
            "a password is empty, or a hash is not a SHA-256 in hexadecimal",
            "Make hashes with the filter ansible.builtin.hash('sha256')",
        )
    for rules in (item.rules, *item.selectors):
        _check_rules(item, rules)
    if item.name == DEFAULT_USER and item.state == "absent":
        raise _invalid(item, "state", "the server does not let go of the user default", "Use enabled: false")


def _check_rules(item: DesiredUser, rules: Rules) -> None:
    forms = (
        ("keys", rules.keys, KEY_PATTERN, "~PATTERN, %R~PATTERN or %W~PATTERN"),
        ("channels", rules.channels, CHANNEL_PATTERN, "&PATTERN"),
        ("commands", rules.commands, COMMAND_RULE, "+command, -command, +command|subcommand, +@category or -@category"),
    )
    for option, values, form, spelling in forms:
        wrong = [value for value in values if not form.match(value)]
        if wrong:
            raise _invalid(
                item,
                option,
                f"{wrong[0]!r} is no rule",
                f"Write {spelling}, in ASCII without blanks, quotes and parentheses",
            )
    patterns = [value.partition("~")[2] for value in rules.keys]
    if any(pattern.startswith(MARK_PREFIX) for pattern in patterns):
        raise _invalid(item, "keys", f"patterns with {MARK_PREFIX} are owner marks", "Use other patterns")
    # the server would write a file that it refuses to read: a pattern after one for everything
    for option, everything, count in (
        ("keys", _permits_all_keys(rules.keys), len(rules.keys) + bool(item.prefix)),
        ("channels", "&*" in rules.channels, len(rules.channels) + bool(item.prefix)),
    ):
        if everything and count > 1:
            raise _invalid(item, option, "the pattern * stands beside others", "Keep one of them")


def _permits_all_keys(keys: Sequence[str]) -> bool:
    """Whether *keys* permit to read and to write all keys."""
    permissions = [key.partition("~")[0][1:].upper() or "RW" for key in keys if key.partition("~")[2] == ALL_KEYS]
    return {"R", "W"} <= set("".join(permissions))


def check_table(item: DesiredUser, table: Commands) -> None:
    """Refuse what this server does not know.

    :raises InvalidInput: with the field and the way out.
    """
    uses_selectors = item.selectors or any(key.startswith("%") for key in item.rules.keys)
    if uses_selectors and not table.selectors:
        raise _invalid(item, "selectors or keys", "Redis 6 has no selectors and no %R~ or %W~", "Use a newer server")
    if not table.selectors and _permits_all_keys(item.rules.keys):
        # the mark is a key pattern there
        raise _invalid(item, "keys", "Redis 6 takes no owner mark beside ~*", "Write ~**, which means the same")
    for rules in (item.rules, *item.selectors):
        try:
            check_commands(rules.commands, table)
        except InvalidInput as error:
            raise _invalid(item, error.where, error.what, error.hint) from None


def conflicts(desired: Sequence[DesiredUser]) -> dict[str, InvalidInput]:
    """Items that contradict another one, by name: the same user twice, or one prefix with two marks."""
    found: dict[str, InvalidInput] = {}
    names: set[str] = set()
    marks: dict[str, set[str]] = {}
    for item in desired:
        if item.name in names:
            found[item.name] = _invalid(item, "name", "the user is listed twice", "Keep one of them")
        names.add(item.name)
        if item.prefix is not None:
            marks.setdefault(item.prefix, set()).add(item.mark)
    for item in desired:
        if item.prefix is not None and len(marks[item.prefix]) > 1:
            found[item.name] = _invalid(
                item,
                "prefix",
                f"users with different marks share the prefix {item.prefix!r}",
                "Give users of one tenant the same mark, and tenants different prefixes",
            )
    return found


def check_ownership(item: DesiredUser, actual: ActualUser | None, login_user: str, table: Commands) -> None:
    """Refuse a user that is somebody else's, or that we are logged in as.

    :raises NotOwned: it carries another mark, or none and is not to be adopted.
    :raises InvalidInput: a change of it could lock us out.
    """
    if actual is None:
        return
    if item.name == login_user:
        raise _invalid(item, "name", "this is the user that we are logged in as", "Log in as another one to change it")
    whose = mark_of(actual, table)
    if whose == item.mark or (whose is None and item.adopt):
        return
    raise NotOwned(
        f"the user exists and belongs to {whose!r}" if whose else "the user exists and carries no mark of ours",
        where=f"user {item.name!r}",
        hint="Choose another name" if whose else "Choose another name, or take it over with adopt: true",
    )


def _invalid(item: DesiredUser, option: str, what: str, hint: str) -> InvalidInput:
    return InvalidInput(what, where=f"user {item.name!r}, {option}", hint=hint)
