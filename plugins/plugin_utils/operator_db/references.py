# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""References of secrets inside of plain data. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def references(structure: Any) -> list[str]:
    """All references ``{"secret": "<reference>"}`` in *structure*, in its order, each once."""
    return list(dict.fromkeys(_references(structure)))


def resolve(structure: Any, values: Mapping[str, str]) -> Any:
    """A copy of *structure* with the values in place of the references."""
    ref = _reference(structure)
    if ref is not None:
        return values[ref]
    if isinstance(structure, Mapping):
        return {key: resolve(value, values) for key, value in structure.items()}
    if _is_list(structure):
        return [resolve(item, values) for item in structure]
    return structure


def _references(structure: Any) -> list[str]:
    ref = _reference(structure)
    if ref is not None:
        return [ref]
    if isinstance(structure, Mapping):
        return [ref for value in structure.values() for ref in _references(value)]
    if _is_list(structure):
        return [ref for item in structure for ref in _references(item)]
    return []


def _reference(structure: Any) -> str | None:
    is_reference = isinstance(structure, Mapping) and list(structure) == ["secret"]
    return str(structure["secret"]) if is_reference and isinstance(structure["secret"], str) else None


def _is_list(structure: Any) -> bool:
    return isinstance(structure, Sequence) and not isinstance(structure, str | bytes)
