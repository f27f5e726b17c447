# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replays scenarios against a server (proxmox-transcripts.md, "Replay")."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .accounts import Accounts, failed
from .compare import TASK_STATUS, Comparison, Pairs, volatile_keys
from .history import late_setup, without_strangers
from .wire import Answer, EntryPoint, make_upload, send, upload

PATIENCE = 120.0  # seconds for a task, and for an `until` that the recording reached sooner
INTERVAL = 0.1  # between two looks at a task
LATER = re.compile(r"(\d+) s later")
ALL_TASKS = {"limit": "1000000", "source": "all"}
ROOT_PASSWORD = "<root-password>"  # what the recording has in its place


class SetupError(Exception):
    """The preconditions of a scenario could not be made."""


class RefusedError(SetupError):
    """A request of the preconditions was refused at once."""


@dataclass(frozen=True)
class Compared:
    """An exchange and what was different; numbers count from 0 within the scenario."""

    number: int
    request: str
    differences: tuple[str, ...]


@dataclass(frozen=True)
class Servers:
    """The entry points by the name in `via`; the first node's is ""."""

    first: EntryPoint
    others: Mapping[str, EntryPoint]

    def of(self, via: str) -> EntryPoint:
        if via and via not in self.others:
            raise SetupError(f"the entry point of {via} is needed (--url2)")
        return self.others[via] if via else self.first


class Conversation:
    """One scenario against one server. `settle` (seconds) replaces the waits that notes ask for ("15 s later")."""

    def __init__(
        self, servers: Servers, accounts: Accounts, document: Mapping[str, Any], settle: float | None = None
    ) -> None:
        self._servers, self._accounts, self._settle = servers, accounts, settle
        self._pairs = Pairs()
        self._pairs.add(ROOT_PASSWORD, accounts.password)
        self._volatile = volatile_keys(document)
        self._agent_pids: dict[str, str] = {}
        self._refusal = RefusedError()
        self._earlier: frozenset[str] = frozenset()
        self._last_looks: frozenset[int] = frozenset()

    def ask(self, method: str, path: str, params: Mapping[str, Any] | None = None, auth: str = "token") -> Answer:
        """A request of our own."""
        request = {"method": method, "path": path, "params": params or {}}
        return send(self._servers.first, request, self._accounts.headers(auth))

    def wait(self, upid: str) -> str:
        """How a task ended."""
        path = f"/nodes/{upid.split(':')[1]}/tasks/{quote(upid, safe='')}/status"
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            answer = self.ask("GET", path)
            if answer.data and answer.data["status"] == "stopped":
                return str(answer.data["exitstatus"])
            time.sleep(INTERVAL)
        raise SetupError(f"{upid} does not end")

    def set_up(self, entries: Sequence[Mapping[str, Any]], fine: Callable[[Answer], bool]) -> None:
        """Sends requests that must succeed, or be `fine` without, and waits for their tasks."""
        for entry in entries:
            self._pairs.given(entry)
            answer = self._send(entry)
            shown = f"{entry['method']} {entry['path']}"
            if answer.status != 200:
                if fine(answer):
                    continue
                raise RefusedError(f"{shown}: {failed(answer)}")
            self._accounts.remember(answer.data)
            if isinstance(answer.data, str) and answer.data.startswith("UPID:"):
                status = self.wait(answer.data)
                if status != "OK" and not status.startswith("WARNINGS"):
                    raise SetupError(f"{shown}: {status}")

    def tasks(self) -> frozenset[str]:
        """All tasks of the server."""
        nodes = [row["node"] for row in self.ask("GET", "/nodes").data if row.get("status") == "online"]
        rows = [row for node in nodes for row in self.ask("GET", f"/nodes/{node}/tasks", ALL_TASKS).data or []]
        return frozenset(row["upid"] for row in rows)

    def scenario(self, scenario: Mapping[str, Any]) -> Iterator[Compared]:
        """Makes the preconditions, sends the exchanges, and compares; SetupError when it cannot."""
        self._earlier = self.tasks()
        scenario, late = without_strangers(scenario), late_setup(scenario)
        refused = [
            entry for index, entry in enumerate(scenario["setup"]) if index not in late and not self._possible(entry)
        ]
        exchanges = list(enumerate(scenario["exchanges"]))
        looks = {one["request"]["path"]: number for number, one in exchanges if _is_look(one)}
        self._last_looks = frozenset(looks.values())
        for group, members in groupby(exchanges, key=lambda item: item[1].get("parallel_group")):
            if group is None:
                for number, exchange in members:
                    entries = [scenario["setup"][index] for index, before in late.items() if before == number]
                    self.set_up(entries, lambda _answer: False)
                    if exchange["request"]["method"] != "GET":
                        refused = [entry for entry in refused if not self._possible(entry)]
                    yield self._compare(number, exchange, self._one(number, exchange))
            else:
                yield from self._together(list(members))
        if refused:
            raise self._refusal

    def _possible(self, entry: Mapping[str, Any]) -> bool:
        """Whether a setup entry could be sent; one that is refused was really sent between two exchanges."""
        try:
            self.set_up([entry], lambda _answer: False)
        except RefusedError as error:
            self._refusal = error
            return False
        return True

    def _one(self, number: int, exchange: Mapping[str, Any]) -> Answer:
        self._pairs.given(exchange["request"])
        if later := LATER.search(exchange.get("note", "")):
            time.sleep(float(later[1]) if self._settle is None else self._settle)
        until = dict(exchange.get("repeat", {}).get("until", {}))
        recorded = Answer(exchange["response"]["status"], "", exchange["response"]["body"])
        if number in self._last_looks and _at(recorded, "/data/status") == "stopped":
            until["/data/status"] = "stopped"  # of the last look the end is compared
        waited = exchange.get("repeat", {}).get("waited_ms", 0) / 1000
        end = time.monotonic() + max(PATIENCE, 3 * waited)
        while True:
            answer = self._send(exchange["request"])
            reached = all(_at(answer, where) == value for where, value in until.items())
            refused = answer.status >= 400 and "status" not in until
            if reached or refused or time.monotonic() > end:
                self._accounts.remember(answer.data)
                return answer
            time.sleep(INTERVAL)

    def _compare(self, number: int, exchange: Mapping[str, Any], answer: Answer) -> Compared:
        found = self._comparison(self._pairs, exchange, answer)
        self._learn(exchange, answer)
        return Compared(number, _title(exchange), tuple(found))

    def _comparison(self, pairs: Pairs, exchange: Mapping[str, Any], answer: Answer) -> list[str]:
        comparison = Comparison(pairs, self._volatile)
        return comparison.differences(exchange, answer.status, answer.reason, answer.body, self._earlier.__contains__)

    def _learn(self, exchange: Mapping[str, Any], answer: Answer) -> None:
        """Tickets and the process ids of agent commands, which no pattern finds."""
        recorded = exchange["response"]["body"]
        data = recorded.get("data") if isinstance(recorded, dict) else None
        if not isinstance(data, dict) or not isinstance(answer.data, dict):
            return
        for name in ("ticket", "CSRFPreventionToken"):
            if name in data and name in answer.data:
                self._pairs.add(str(data[name]), str(answer.data[name]))
        if "/agent/" in exchange["request"]["path"] and "pid" in data and "pid" in answer.data:
            self._agent_pids[str(data["pid"])] = str(answer.data["pid"])

    def _together(self, members: list[tuple[int, Mapping[str, Any]]]) -> Iterator[Compared]:
        """Sends the exchanges of a group at the same time and compares the answers as a multiset."""
        gate = threading.Barrier(len(members))

        def run(item: tuple[int, Mapping[str, Any]]) -> Answer:
            gate.wait()
            return self._one(*item)

        with ThreadPoolExecutor(len(members)) as pool:
            answers = list(pool.map(run, members))
        for equal in (self._equal, _same_class):
            for item in list(members):
                match = next((answer for answer in answers if equal(item[1], answer)), None)
                if match is not None:
                    answers.remove(match)
                    members.remove(item)
                    self._compare(*item, match)  # for what it makes up
                    yield Compared(item[0], _title(item[1]), ())
        for (number, exchange), answer in zip(members, answers, strict=True):
            yield self._compare(number, exchange, answer)

    def _equal(self, exchange: Mapping[str, Any], answer: Answer) -> bool:
        return not self._comparison(self._pairs.copy(), exchange, answer)

    def _send(self, request: Mapping[str, Any]) -> Answer:
        own = {**request, "path": self._pairs.own(request["path"]), "params": self._own(request)}
        server, headers = self._servers.of(request.get("via", "")), self._accounts.headers(request["auth"])
        if not (form := request.get("multipart")):
            return send(server, own, headers)
        with tempfile.TemporaryDirectory() as folder:
            part = make_upload(form["file"], Path(folder))
            if recorded := form["file"].get("sha256"):
                self._pairs.add(recorded, part.sha256)
            return upload(server, own["path"], headers, self._pairs.own(form["fields"]), part)

    def _own(self, request: Mapping[str, Any]) -> Any:
        params = self._pairs.own(request["params"])
        if isinstance(params, dict) and "/agent/" in request["path"] and str(params.get("pid")) in self._agent_pids:
            params = params | {"pid": self._agent_pids[str(params["pid"])]}
        return params


def _same_class(exchange: Mapping[str, Any], answer: Answer) -> bool:
    """Losers of a race may read differently; that and how they lost is the same."""
    return bool(exchange["response"]["status"] == answer.status >= 400)


def _is_look(exchange: Mapping[str, Any]) -> bool:
    return TASK_STATUS.fullmatch(exchange["request"]["path"]) is not None


def _title(exchange: Mapping[str, Any]) -> str:
    return f"{exchange['request']['method']} {exchange['request']['path']}"


def _at(answer: Answer, where: str) -> object:
    """The value at a JSON pointer, or the status."""
    if where == "status":
        return answer.status
    value = answer.body
    for part in where.strip("/").split("/"):
        if isinstance(value, list):
            value = value[int(part)] if part.isdigit() and int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value
