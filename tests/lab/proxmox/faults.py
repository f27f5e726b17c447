# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong, and when: rules that a seed makes repeatable.

A rule counts what it matches: `METHOD /path` (below /api2/json) for an exchange, `type:id` (qmcreate:100) for a task,
`agent:100` for a question to a guest agent, `statistics` for a round of pvestatd. Whether its n-th match is struck
depends on seed, rule and n alone. `offline` and `late-rows` hold as long as their rule is there.
File form (TOML, every key but `kind` optional):

    seed = 7
    [[rule]]
    kind = "lock"          # see KINDS
    rate = 0.2             # share of the matches that is struck
    match = "^POST /nodes/[^/]+/qemu$"
    after = true           # the work is done first, then the fault instead of the answer
    skip = 0               # so many matches are spared first
    limit = 3              # struck at most so often; 0 = no end
    seconds = 0.5          # latency
    node = "pve2"          # offline
    count = 2              # half-done tasks: at which pause of the work; late-rows: reads that lack a new row
"""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any

from .errors import ApiError

LOGGER = logging.getLogger(__name__)
Worker = Callable[[Any], Awaitable[None]]

# error kinds: status and text as the real server says them; {vmid} and {storage} come from the path
ERRORS: Mapping[str, tuple[int, str]] = {
    "lock": (500, "can't lock file '/var/lock/qemu-server/lock-{vmid}.conf' - got timeout"),
    "storage-lock": (500, "cfs-lock 'storage-{storage}' error: got lock request timeout"),
    "no-worker": (500, "got no worker upid - start worker failed"),
    "refused": (595, "Connection refused"),
    "unreachable": (595, "Network is unreachable"),
    "timeout": (596, "Connection timed out"),
    "redirections": (599, "Too many redirections"),
}
CUT = ("cut", "cut-unread", "cut-body")  # connections that end without an answer, before it was read, inside of it
TASK_ERRORS: Mapping[str, str] = {
    "task-lock": "can't lock file '/var/lock/qemu-server/lock-{id}.conf' - got timeout",
    "task-fails": "command 'worker' failed: exit code 1",  # nothing was done
    "task-half": "command 'worker' failed: got timeout",  # in the middle; the worker cleans up as it does on errors
    "task-lost": "unexpected status",  # killed in the middle: nobody cleans up
    "task-vanishes": "",  # killed in the middle, and nobody knows the task afterwards
}
KINDS = (
    *("latency", "quorum", "offline", "agent", "late-statistics", "late-rows"),
    *ERRORS,
    *CUT,
    *TASK_ERRORS,
)
TRANSIENT = ("lock", "storage-lock", "no-worker", "refused", "timeout", "cut", "cut-unread", "cut-body")


@dataclass(frozen=True)
class Rule:
    """One kind of fault; the module docstring says what the fields mean. `seconds` is a duration."""

    kind: str
    rate: float = 1.0
    match: str = ""
    after: bool = False
    skip: int = 0
    limit: int = 0
    seconds: float = 0.1
    node: str = ""
    count: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"faults: no such kind {self.kind!r}; there are {', '.join(KINDS)}")
        re.compile(self.match)


class Faults:
    """The rules in force.

    `hook(number, moment, exchange)` is called twice for the n-th exchange (from 1): `before` its work, and `after` it,
    before the answer. Both block the server, so that a test can kill its client there.

    `file` is read again whenever it changes; it replaces the rules, and counting begins anew.
    """

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        *,
        seed: int = 0,
        hook: Callable[[int, str, str], None] | None = None,
        file: Path | None = None,
    ) -> None:
        self.hook, self.file = hook, file
        self.exchanges = 0
        self._stamp: object = None
        self.replace(rules, seed)

    def replace(self, rules: Iterable[Rule], seed: int = 0) -> None:
        """Other rules from now on; an empty list ends all faults."""
        self._rules, self._seed = tuple(rules), seed
        self._seen = [0] * len(self._rules)
        self._struck = [0] * len(self._rules)
        self._rows: dict[int, int] | None = None

    def refresh(self) -> None:
        """Reads the file if it changed; one that is wrong changes nothing."""
        if self.file is None:
            return
        try:
            status = self.file.stat()
        except FileNotFoundError:
            status = None
        stamp = status and (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.replace(*(parse_file(self.file.read_text(encoding="utf-8")) if status else ((), 0)))
        except ValueError as error:
            LOGGER.error("%s: %s", self.file, error)

    def arrive(self, exchange: str) -> int:
        """The number of this exchange, from 1."""
        self.refresh()
        self.exchanges += 1
        self.tell(self.exchanges, "before", exchange)
        return self.exchanges

    def tell(self, number: int, moment: str, exchange: str) -> None:
        if self.hook:
            self.hook(number, moment, exchange)

    def strike(self, what: str, kinds: Collection[str]) -> Rule | None:
        """The first rule of these kinds that strikes `what`; every rule that matches has counted it."""
        found = None
        for number, rule in enumerate(self._rules):
            if rule.kind not in kinds or not re.search(rule.match, what):
                continue
            self._seen[number] += 1
            if self._seen[number] <= rule.skip or 0 < rule.limit <= self._struck[number]:
                continue
            if Random(f"{self._seed}:{number}:{self._seen[number]}").random() < rule.rate and found is None:
                self._struck[number] += 1
                found = rule
        return found

    @property
    def offline(self) -> frozenset[str]:
        """Nodes that are down."""
        return frozenset(rule.node for rule in self._rules if rule.kind == "offline")

    @property
    def quorate(self) -> bool:
        """Whether no rule about quorum is left to strike."""
        return not any(
            rule.kind == "quorum" and not 0 < rule.limit <= struck
            for rule, struck in zip(self._rules, self._struck, strict=True)
        )

    def late_rows(self, vmids: Collection[int]) -> frozenset[int]:
        """Virtual machines that this read of /cluster/resources does not show yet.

        Those that the first read finds under a rule are old; each later one is missing from `count` reads.
        """
        rule = next((rule for rule in self._rules if rule.kind == "late-rows"), None)
        if rule is None:
            return frozenset()
        if self._rows is None:
            self._rows = dict.fromkeys(vmids, rule.count)
        self._rows = {vmid: self._rows.get(vmid, 0) + 1 for vmid in vmids}
        return frozenset(vmid for vmid, reads in self._rows.items() if reads <= rule.count)


def parse_file(text: str) -> tuple[tuple[Rule, ...], int]:
    """(rules, seed) of the TOML form; ValueError names what is wrong."""
    content = tomllib.loads(text)
    known = {field.name for field in fields(Rule)}
    rules = []
    for row in content.get("rule", []):
        if wrong := set(row) - known:
            raise ValueError(f"faults: no such key: {', '.join(sorted(wrong))}")
        if "kind" not in row:
            raise ValueError("faults: a rule needs a kind")
        rules.append(Rule(**row))
    return tuple(rules), int(content.get("seed", 0))


def parse_words(text: str) -> tuple[tuple[Rule, ...], int]:
    """(rules, seed) of the short form `seed=7,lock=0.2,cut=0.1`: kind=rate; `transient` stands for all of TRANSIENT."""
    seed, rules = 0, []
    for word in filter(None, text.split(",")):
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"faults: {word!r} is not KIND=RATE")
        if name == "seed":
            seed = int(value)
        elif name == "transient":
            rules += transient(float(value))
        else:
            rules.append(Rule(name, rate=float(value)))
    return tuple(rules), seed


def from_option(text: str, state: Path) -> Faults:
    """What `--faults` says: a file, or the short form. <state>/faults.toml replaces it once it exists."""
    file = Path(text)
    rules, seed = parse_file(file.read_text(encoding="utf-8")) if text and file.is_file() else parse_words(text)
    return Faults(rules, seed=seed, file=state / "faults.toml")


def transient(rate: float, match: str = "", kinds: Collection[str] = TRANSIENT) -> list[Rule]:
    """Rules that together strike about `rate` of the exchanges, half of them after the work was done."""
    moments = [(kind, after) for kind in kinds for after in (False, True) if not (after and kind == "cut-unread")]
    return [Rule(kind, rate=rate / len(moments), match=match, after=after) for kind, after in moments]


class Killed(BaseException):
    """A worker was killed: no `except Exception` of it runs, as after SIGKILL; the task ends in `unexpected status`."""


class Vanished(Killed):
    """A worker was killed and its task is forgotten."""


class _Interrupted:
    """Work that gets an exception at its n-th pause; work with fewer pauses gets it at its end."""

    def __init__(self, work: Awaitable[None], pauses: int, error: BaseException) -> None:
        self._work, self._pauses, self._error = work, pauses, error

    def __await__(self) -> Any:
        steps: Any = self._work.__await__()
        try:
            for _unused in range(self._pauses - 1):
                yield next(steps)
            next(steps)
        except StopIteration:
            raise self._error from None
        try:
            pause = steps.throw(self._error)
        except StopIteration:
            return  # the worker dealt with it
        yield pause  # it waits for something while it cleans up
        yield from steps


def broken_worker(faults: Faults, kind: str, identifier: str, worker: Worker) -> Worker:
    """The worker of a task, or what the rules make of it; asked once per task that starts."""
    rule = faults.strike(f"{kind}:{identifier}", TASK_ERRORS)
    if rule is None:
        return worker
    text = TASK_ERRORS[rule.kind].format(id=identifier)

    async def broken(task: Any) -> None:
        if rule.kind in ("task-lock", "task-fails"):
            raise ApiError(text)
        errors = {"task-half": ApiError(text), "task-lost": Killed(text), "task-vanishes": Vanished(text)}
        await _Interrupted(worker(task), rule.count, errors[rule.kind])

    return broken
