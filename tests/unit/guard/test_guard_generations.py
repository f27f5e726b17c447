# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Generations: what goes, as properties; where to return to; what a task may ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.action import nixos_generations
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    InvalidInput,
    Locked,
    NotFound,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import generations
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.generations import (
    DAY,
    Entry,
    Listing,
    Retention,
    doomed,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import FreeSpace
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.transaction import Tools
from hypothesis import given
from hypothesis import strategies as st

NOW = 2_000_000_000
PATHS = tuple(f"/nix/store/{digit * 32}-nixos-system" for digit in "0123456789")

entry_lists = st.lists(
    st.builds(Entry, st.integers(1, 40), st.integers(NOW - 30 * DAY, NOW + DAY), st.sampled_from(PATHS)),
    unique_by=lambda entry: entry.number,
    max_size=20,
)
used_paths = st.frozensets(st.sampled_from(PATHS), max_size=4)
retentions = st.builds(Retention, st.none() | st.integers(1, 20), st.none() | st.integers(1, 35))


# --- what goes -------------------------------------------------------------------------------------------------------


@given(entry_lists, used_paths, retentions)
def test_what_is_in_use_never_goes(entries: list[Entry], used: frozenset[str], retention: Retention) -> None:
    gone = doomed(entries, used, NOW, retention)
    assert not {entry.path for entry in entries if entry.number in gone} & used


@given(entry_lists, used_paths, retentions)
def test_the_newest_and_the_young_stay_and_all_else_goes(
    entries: list[Entry], used: frozenset[str], retention: Retention
) -> None:
    gone = doomed(entries, used, NOW, retention)
    newest_first = sorted((entry.number for entry in entries), reverse=True)
    for entry in entries:
        newest = retention.keep is not None and newest_first.index(entry.number) < retention.keep
        young = retention.keep_days is not None and NOW - entry.made < retention.keep_days * DAY
        unlimited = retention == Retention()
        assert (entry.number not in gone) == (newest or young or unlimited or entry.path in used)


@given(entry_lists, used_paths, retentions)
def test_a_second_run_deletes_nothing(entries: list[Entry], used: frozenset[str], retention: Retention) -> None:
    gone = doomed(entries, used, NOW, retention)
    left = [entry for entry in entries if entry.number not in gone]
    assert doomed(left, used, NOW, retention) == ()


@given(entry_lists, used_paths, retentions, retentions)
def test_more_is_kept_with_both_criteria(
    entries: list[Entry], used: frozenset[str], one: Retention, other: Retention
) -> None:
    both = doomed(entries, used, NOW, Retention(one.keep, other.keep_days))
    for single in (Retention(keep=one.keep), Retention(keep_days=other.keep_days)):
        if single != Retention():
            assert set(both) <= set(doomed(entries, used, NOW, single))


def test_systems_of_a_live_transaction_are_in_use() -> None:
    text = "@current=/c\n@booted=/b\n@default=\n@profile=/c\n@clock=1\n@record_txn=t\n@record_phase={}\n"
    text += "@record_system_old=/o\n@record_system_new=/n\n"
    live, ended = (generations.parse_listing(text.format(phase)).report for phase in ("checked", "committed"))
    assert generations.in_use(live) == {"/c", "/b", "/o", "/n"}
    assert generations.in_use(ended) == {"/c", "/b"}


@pytest.mark.parametrize(
    ("line", "paths", "size"),
    [
        ("12 store paths deleted, 3.50 MiB freed", 12, 3670016),
        ("1204 store paths deleted, 2.1 GiB freed", 1204, 2254857830),
        ("0 store paths deleted, 0.00 MiB freed", 0, 0),
        ("1 store paths deleted, 512 B freed", 1, 512),
        ("", 0, 0),
    ],
)
def test_what_nix_says_it_freed(line: str, paths: int, size: int) -> None:
    assert generations.freed(line) == (paths, size)


@pytest.mark.parametrize("retention", [Retention(keep=0), Retention(keep_days=0), Retention(keep=-1)])
def test_keeping_nothing_is_refused(retention: Retention) -> None:
    with pytest.raises(InvalidInput, match="out of range"):
        generations.check_retention(retention)


# --- where to return to ----------------------------------------------------------------------------------------------


def listing(*paths: str, current: int) -> Listing:
    """Generations 1, 2, … with these systems; `current` is the profile's."""
    text = f"@clock={NOW}\n@generation={current}\n@profile={paths[current - 1]}\n"
    text += "".join(f"@entry={number} {NOW} {path} 25.11\n" for number, path in enumerate(paths, 1))
    return generations.parse_listing(text)


@pytest.mark.parametrize(
    ("paths", "current", "number"),
    [
        (("a", "b", "c"), 3, 2),
        (("a", "b", "c"), 2, 1),
        (("a", "b", "b"), 3, 1),  # the same system twice is no way back
        (("b", "a", "b"), 3, 2),
    ],
)
def test_previous(paths: tuple[str, ...], current: int, number: int) -> None:
    target = generations.by_generation(listing(*paths, current=current), "previous")
    assert (target.number, target.system) == (number, paths[number - 1])


@pytest.mark.parametrize(("paths", "current"), [(("a",), 1), (("a", "a"), 2), (("a", "b"), 1)])
def test_no_previous(paths: tuple[str, ...], current: int) -> None:
    with pytest.raises(NotFound, match="The machine has: 1"):
        generations.by_generation(listing(*paths, current=current), "previous")


def test_a_number_that_is_not_there() -> None:
    with pytest.raises(NotFound, match=r"there is no generation 9\. The machine has: 1, 2"):
        generations.by_generation(listing("a", "b", current=2), "9")


@pytest.mark.parametrize(("system", "number"), [("a", 3), ("b", 2), ("d", None)])
def test_the_generation_of_a_system(system: str, number: int | None) -> None:
    found = listing("a", "b", "a", "c", current=4)
    assert generations.by_system(found, system) == generations.Target(system, number)
    assert generations.by_system(listing("a", "b", "a", current=1), "a").number == 1


@pytest.mark.parametrize("word", ["0", "-1", "last", "07", "1 2", "", "9" * 10])
def test_words_that_are_no_generation(word: str) -> None:
    with pytest.raises(InvalidInput):
        generations.check_generation(word)


# --- what a task may ask for ------------------------------------------------------------------------------------------

NOTHING = {"generation": None, "system": None, "keep": None, "keep_days": None, "collect_garbage": False}


@pytest.mark.parametrize(
    ("asked", "wishes"),
    [
        ({}, []),
        ({"generation": "previous"}, ["generation"]),
        ({"system": "/nix/store/x"}, ["system"]),
        ({"keep": 3, "keep_days": 7, "collect_garbage": True}, ["keep", "keep_days", "collect_garbage"]),
    ],
)
def test_wishes(asked: dict[str, Any], wishes: list[str]) -> None:
    assert nixos_generations._wishes({**NOTHING, **asked}) == wishes


@pytest.mark.parametrize(
    "asked",
    [
        {"generation": "previous", "system": "/nix/store/x"},
        {"generation": "3", "keep": 3},
        {"system": "/nix/store/x", "collect_garbage": True},
        {"generation": ""},
        {"keep": 0},
        {"keep_days": -1},
    ],
)
def test_wishes_that_cannot_be(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        nixos_generations._wishes({**NOTHING, **asked})


def test_a_return_asks_for_no_free_space() -> None:
    assert "minimum_free" not in nixos_generations.ARGUMENTS
    assert vars(FreeSpace(0, 0, 0)) == nixos_generations.NO_SPACE_NEEDED


# --- what the machine is asked, and says ------------------------------------------------------------------------------


@dataclass
class Answers:
    """A machine that gives these answers and knows what it was asked."""

    answers: list[str]
    asked: list[str] = field(default_factory=list)

    def run(self, script: bytes) -> str:
        self.asked.append(script.decode().split("\n", 1)[0])
        return self.answers.pop(0)

    run_over_new_connection = run

    def forget_connection(self) -> None:
        pass


RECORD = "@current=/c\n@clock=1\n@record_txn=t\n@record_phase=activated\n@record_owner=jane\n@same_boot={}\n"


def test_what_a_restart_interrupted_is_settled_first() -> None:
    machine = Answers(["@result=\n", "@result=collected\n@deleted=3\n@kept=4\n"])
    tools = Tools(machine, lambda: None, lambda _text: None, 0)
    found = generations.parse_listing(RECORD.format("no"))
    done = generations.collect(tools, found, [3, 4], "m\ne", garbage=False)
    assert machine.asked == ["set -- settle", "set -- collect 'm?e' no 3 4"]
    result = generations.result(done, garbage=False)
    assert (result["changed"], result["deleted"], result["failed"]) == (True, [3], False)
    assert "4" in result["warnings"][0]


def test_a_live_transaction_is_not_even_asked_about() -> None:
    machine = Answers([])
    tools = Tools(machine, lambda: None, lambda _text: None, 0)
    with pytest.raises(Locked, match="a deployment of jane is under way"):
        generations.collect(tools, generations.parse_listing(RECORD.format("yes")), [3], "me", garbage=False)


def test_an_answer_that_is_none() -> None:
    with pytest.raises(BackendError, match="not understood"):
        generations.parse_listing("Welcome to vm-1\n")
    with pytest.raises(BackendError, match="not understood"):
        generations.parse_collected("Welcome to vm-1\n")
