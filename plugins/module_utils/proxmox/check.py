# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at the module's options: every refusal names the VM and the field."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput

# qemu-server: schema of POST /nodes/{node}/qemu
VMID_RANGE = range(100, 1_000_000_000)
NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\Z")
STORAGE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*\Z")
# one value inside a property string, a blank-separated list or a path
WORD = re.compile(r"[^\s,;=/]+\Z")
VOLUME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*:[^\s,;=]+\Z")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Check:
    """Looks at the fields of one option dictionary.

    :param where: the VM and the way to the dictionary, such as ``VM web, disk``.
    """

    where: str
    values: Mapping[str, Any]

    def refused(self, field_name: str, value: object, wanted: str) -> InvalidInput:
        return InvalidInput(f"{value!r} is refused", where=f"{self.where}, {field_name}", hint=f"Use {wanted}")

    def number(self, field_name: str, allowed: range) -> int | None:
        """The number *field_name*, None if it is not given."""
        value = self.values.get(field_name)
        if value is not None and value not in allowed:
            raise self.refused(field_name, value, f"a number from {allowed[0]} to {allowed[-1]}")
        return value

    def text(self, field_name: str, pattern: re.Pattern[str], wanted: str) -> str | None:
        """The text *field_name*, None if it is not given; *wanted* says in words what *pattern* matches."""
        value = self.values.get(field_name)
        if value is not None and not pattern.match(value):
            raise self.refused(field_name, value, wanted)
        return value

    def required(self, field_name: str, pattern: re.Pattern[str], wanted: str) -> str:
        value = self.text(field_name, pattern, wanted)
        if value is None:
            raise self.refused(field_name, value, wanted)
        return value

    def one_of(self, field_name: str, allowed: Collection[str]) -> str | None:
        """The word *field_name*, None if it is not given."""
        value = self.values.get(field_name)
        if value is not None and value not in allowed:
            raise self.refused(field_name, value, f"one of {', '.join(allowed)}")
        return value

    def inside(self, field_name: str, values: Mapping[str, Any]) -> Check:
        """The same for the dictionary *values* that the field holds."""
        return Check(f"{self.where}, {field_name}", values)

    def each(self, field_name: str, parse: Callable[[Check], Item]) -> tuple[Item, ...] | None:
        """The list of dictionaries *field_name*, parsed one by one; None if it is not given."""
        values = self.values.get(field_name)
        if values is None:
            return None
        return tuple(parse(self.inside(f"{field_name}[{number}]", value)) for number, value in enumerate(values))
