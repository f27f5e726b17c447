# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changing a list on a server whose entries are addressed by position, with few requests.

Pure functions. Some entries of the list are ours, the others are foreign: they keep their content and their order, but
ours may stand anywhere between them. The server inserts at position 0 only, replaces and moves one entry at a time, and
removes it; each is one request (pve-firewall, API2/Firewall/Rules.pm). Moving is to *before* the entry that stands at
the target position; behind all of them if the position is the length of the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Generic, TypeAlias, TypeVar

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Insert(Generic[Entry]):
    """A new entry at position 0."""

    entry: Entry


@dataclass(frozen=True)
class Replace(Generic[Entry]):
    """Another content for the entry at *position*."""

    position: int
    entry: Entry


@dataclass(frozen=True)
class Move:
    """The entry at *position* to before the one at *target*."""

    position: int
    target: int


@dataclass(frozen=True)
class Remove:
    """The entry at *position* away."""

    position: int


Step: TypeAlias = "Insert[Entry] | Replace[Entry] | Move | Remove"


def after(entries: Sequence[Entry], step: Step[Entry]) -> list[Entry]:
    """The list after the step, as the server does it."""
    rest = list(entries)
    if isinstance(step, Insert):
        return [step.entry, *rest]
    if isinstance(step, Replace):
        rest[step.position] = step.entry
        return rest
    entry = rest.pop(step.position)
    if isinstance(step, Move):
        rest.insert(step.target - (step.target > step.position), entry)
    return rest


def plan(present: Sequence[Entry | None], wanted: Sequence[Entry]) -> list[Step[Entry]]:
    """The steps that make ours equal to *wanted*, in this order.

    How few they are depends on how moves and replacements are combined; the best of a few alignments is taken. Compared
    with all possible sequences, it is never more for lists of up to three, and one more for one in a thousand of four.

    :param present: our entries; None where a foreign one stands.
    """
    own = [entry for entry in present if entry is not None]
    if own == list(wanted):
        return []
    alignments = [
        _align(prices, own, wanted, preference)
        for prices in (_plain(own, wanted), _moving(own, wanted), _keeping(own, wanted))
        for preference in permutations(("pair", "remove", "add"))
    ]
    return min((_steps(present, wanted, pairs) for pairs in alignments), key=len)


@dataclass(frozen=True)
class Prices:
    """What an alignment counts for each way of dealing with an entry; one number per entry for *remove* and *add*."""

    keep: int
    replace: int
    remove: Sequence[int]
    add_before_all: int
    add: Sequence[int]


def _plain(own: Sequence[Entry], wanted: Sequence[Entry]) -> Prices:
    """Nothing is moved: an entry that is missing in the middle is inserted and moved."""
    return Prices(0, 1, [1] * len(own), 1, [2] * len(wanted))


def _moving(own: Sequence[Entry], wanted: Sequence[Entry]) -> Prices:
    """Entries that are there elsewhere are moved."""
    remove = [int(entry not in wanted) for entry in own]
    return Prices(0, 1, remove, 1, [1 if entry in own else 2 for entry in wanted])


def _keeping(own: Sequence[Entry], wanted: Sequence[Entry]) -> Prices:
    """As many as possible stay untouched."""
    return replace(_moving(own, wanted), keep=-4 * (len(own) + len(wanted) + 1))


def _align(
    prices: Prices, own: Sequence[Entry], wanted: Sequence[Entry], preference: tuple[str, ...]
) -> dict[int, int]:
    """Which entry (by number in *wanted*) takes the place of which of ours: the cheapest pairs without crossing.

    :param preference: between choices of the same price.
    """
    rows, columns = len(own), len(wanted)
    # best[paired][i][j]: price of own[i:] against wanted[j:], and the next choice; paired: whether a pair came before
    best: list[list[list[tuple[int, str]]]] = [
        [[(0, "")] * (columns + 1) for _row in range(rows + 1)] for _paired in range(2)
    ]
    for i in range(rows, -1, -1):
        for j in range(columns, -1, -1):
            for paired in (1, 0):
                choices: dict[str, int] = {}
                if i < rows:
                    choices["remove"] = prices.remove[i] + best[paired][i + 1][j][0]
                if j < columns:
                    choices["add"] = (prices.add[j] if paired else prices.add_before_all) + best[paired][i][j + 1][0]
                if i < rows and j < columns:
                    same = own[i] == wanted[j]
                    choices["pair"] = (prices.keep if same else prices.replace) + best[1][i + 1][j + 1][0]
                if choices:
                    cheapest = min(choices.values())
                    best[paired][i][j] = cheapest, next(x for x in preference if choices.get(x) == cheapest)
    pairs: dict[int, int] = {}
    i = j = paired = 0
    while i < rows or j < columns:
        choice = best[paired][i][j][1]
        if choice == "pair":
            pairs[j] = i
            paired = 1
        i += choice in ("pair", "remove")
        j += choice in ("pair", "add")
    return pairs


def _steps(present: Sequence[Entry | None], wanted: Sequence[Entry], pairs: dict[int, int]) -> list[Step[Entry]]:
    """Remove, replace, then put each entry before the one that follows it, from the last to the first."""
    own = [entry for entry in present if entry is not None]
    first = min(pairs, default=len(wanted))
    source = dict(pairs)
    free = [i for i in range(len(own)) if i not in pairs.values()]
    for j in range(len(wanted)):
        same = next((i for i in free if own[i] == wanted[j]), None)
        if j not in source and same is not None:
            source[j] = same
            free.remove(same)
    # what is missing in the middle costs two steps, new or from one that is not needed
    for j in range(len(wanted) - 1, first, -1):
        if j not in source and free:
            source[j] = free.pop()

    # the list holds numbers: of ours, of the new ones after them, None for foreign ones
    numbers = iter(range(len(own)))
    slots = [None if entry is None else next(numbers) for entry in present]
    steps: list[Step[Entry]] = []

    def do(step: Step[Entry], number: int | None = None) -> None:
        nonlocal slots
        steps.append(step)
        if isinstance(step, Insert):
            slots = [number, *slots]
        elif not isinstance(step, Replace):
            slots = after(slots, step)

    for i in sorted(free, reverse=True):
        do(Remove(slots.index(i)))
    for j, i in sorted(source.items()):
        if own[i] != wanted[j]:
            do(Replace(slots.index(i), wanted[j]))
    following: int | None = None
    for j in range(len(wanted) - 1, -1, -1):
        number = source.get(j)
        if number is None:
            number = len(own) + j
            do(Insert(wanted[j]), number)
        position = slots.index(number)
        target = len(slots) if following is None else slots.index(following)
        in_place = j in pairs or (j < first and j not in source)
        if not in_place and target != position + 1:
            do(Move(position, target))
        following = number
    return steps
