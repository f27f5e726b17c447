# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares a recorded answer with one of this server (proxmox-transcripts.md, "Replay", rules 2 to 5).

Values that every server makes up itself (UPIDs, digests, generated MACs, uuids) are compared by place: the first time
one is seen it is mapped to this server's, from then on it must stay the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

MADE_UP = re.compile(
    r"\bpveupload-[0-9a-f]{32}\b|UPID:[\w-]+:[0-9A-F]{8}:[0-9A-F]{8,9}:[0-9A-F]{8}:\w*:[^:]*:[^:\s]+:|\b[0-9a-f]{40}\b"
    r"|\bBC:24:11(?::[0-9A-F]{2}){3}\b|\bbc:24:11(?::[0-9a-f]{2}){3}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
)
SALTED = re.compile(r"\$[0-9a-z]+\$[^\s\"']+")
PLACEHOLDER = re.compile(r"<[a-zA-Z][\w@!.-]*>")
RESOLVER = re.compile(r"(hostname lookup '.*' failed - failed to get address info for: [^:]*:).*", re.DOTALL)
ROW_KEYS = ("id", "vmid", "key", "volid", "storage", "roleid", "userid", "tokenid", "poolid", "subdir", "realm", "node")
FRESH = ("id", "type", "node", "vmid", "tags", "lock", "pool")  # of a guest in /cluster/resources right after a change
# Besides what the file itself calls volatile, in words or by key.
VOLATILE = frozenset(
    (
        *("ip", "nics", "ticket", "CSRFPreventionToken", "total", "used", "avail", "salted", "keyid"),
        *("pid", "pstart", "starttime", "endtime", "digest", "smbios1", "vmgenid", "meta", "ctime", "uptime"),
    )
)
SIZES = frozenset(("maxcpu", "maxmem", "maxdisk"))  # of nodes and storages: the machine's own
TASK_LIST = re.compile(r"/cluster/tasks|/nodes/[^/]+/tasks")
TASK_LOG = re.compile(r"/nodes/[^/]+/tasks/[^/]+/log")
TASK_STATUS = re.compile(r"/nodes/[^/]+/tasks/[^/]+/status")
NODE_STATUS = re.compile(r"/nodes/[^/]+/status")


def volatile_keys(document: Mapping[str, Any]) -> frozenset[str]:
    """The keys that a transcript file calls volatile; its prose entries are in the rules of this module."""
    return VOLATILE | {text for text in document.get("volatile", ()) if re.fullmatch(r"[\w-]+", text)}


class Pairs:
    """Recorded value -> value of this server."""

    def __init__(self) -> None:
        self._own: dict[str, str] = {}

    def own(self, value: Any) -> Any:
        """A recorded value as this server must get it; in paths the values are percent-encoded."""
        if isinstance(value, str):
            for recorded, own in self._own.items():
                if recorded != own:
                    value = value.replace(recorded, own).replace(quote(recorded, safe=""), quote(own, safe=""))
            return value
        if isinstance(value, dict):
            return {key: self.own(item) for key, item in value.items()}
        return [self.own(item) for item in value] if isinstance(value, list) else value

    def add(self, recorded: str, own: str) -> bool:
        """Whether the pair agrees with what was seen before."""
        if recorded not in self._own and recorded.upper().startswith("BC:24:11"):
            for case in (str.upper, str.lower):
                self._own[case(recorded)] = case(own)
        return self._own.setdefault(recorded, own) == own

    def copy(self) -> Pairs:
        """For a look that may be undone."""
        other = Pairs()
        other._own = dict(self._own)
        return other

    def given(self, request: Mapping[str, Any]) -> None:
        """What a client made up itself stays as it is."""
        for value in MADE_UP.findall(json.dumps(request.get("params"))):
            self._own.setdefault(value, value)


class Comparison:
    """The differences of the exchanges of one scenario."""

    def __init__(self, pairs: Pairs, volatile: frozenset[str]) -> None:
        self._pairs, self._volatile = pairs, volatile

    def differences(
        self, exchange: Mapping[str, Any], status: int, reason: str, body: Any, earlier: Callable[[str], bool]
    ) -> list[str]:
        """`earlier` tells whether a task of this server is older than the scenario."""
        return list(self._differences(exchange, status, reason, body, earlier))

    def _differences(
        self, exchange: Mapping[str, Any], status: int, reason: str, body: Any, earlier: Callable[[str], bool]
    ) -> Iterator[str]:
        recorded = exchange["response"]
        if recorded["status"] != status or (status and list(self._text("", recorded["reason"], reason, strict=True))):
            yield f"{recorded['status']} {recorded['reason']} != {status} {reason}"
        want, have = recorded["body"], body
        if recorded["status"] == status == 200 and exchange["request"]["method"] == "GET":
            want, have = _comparable(exchange, want, have, earlier)
        yield from self._value("", want, have, "")

    def _value(self, where: str, want: Any, have: Any, name: str) -> Iterator[str]:
        if name in self._volatile or name.startswith("pressure"):
            if isinstance(want, str) and isinstance(have, str):
                list(self._text(where, want, have, strict=False))
            return
        if isinstance(want, str) and isinstance(have, str):
            if name in ("content", "privs"):
                want, have = (",".join(sorted(text.split(","))) for text in (want, have))
            yield from self._text(where, want, have, strict=True)
        elif isinstance(want, dict) and isinstance(have, dict):
            yield from self._object(where, want, have)
        elif isinstance(want, list) and isinstance(have, list):
            want, have = _rows(want), _rows(have)
            yield from self._object(where, want, have)
        elif want != have or (type(want) is not type(have) and not _numbers(want, have)):
            yield f"{where}: {_short(want)} != {_short(have)}"

    def _object(self, where: str, want: Mapping[str, Any], have: Mapping[str, Any]) -> Iterator[str]:
        missing, extra = sorted(want.keys() - have.keys()), sorted(have.keys() - want.keys())
        if missing or extra:
            yield f"{where or '/'}:" + "".join(
                f" {label} {', '.join(keys)}" for label, keys in (("missing", missing), ("extra", extra)) if keys
            )
        machine = want.get("type") in ("node", "storage") or ("plugintype" in want) or "ssl_fingerprint" in want
        option = str(want.get("key", ""))
        for key in want:
            if key in have and not (machine and key in SIZES):
                name = option if key in ("value", "pending") and option else key
                yield from self._value(f"{where}/{key}", want[key], have[key], name)

    def _text(self, where: str, want: str, have: str, *, strict: bool) -> Iterator[str]:
        recorded, own = MADE_UP.findall(want), MADE_UP.findall(have)
        if PLACEHOLDER.search(want) and _matches(want, have):
            return
        if len(recorded) == len(own) and _mask(want) == _mask(have):
            for old, new in zip(recorded, own, strict=True):
                if not self._pairs.add(old, new) and strict:
                    yield f"{where}: {self._pairs.own(old)} expected, is {new}"
        elif strict and self._pairs.own(want) != have:
            yield f"{where}: {_short(self._pairs.own(want))} != {_short(have)}"


def _mask(text: str) -> str:
    """The text without made-up parts; of a UPID node, type, id and user stay."""

    def replaced(match: re.Match[str]) -> str:
        fields = match[0].split(":")
        return ":".join((*fields[:2], "*", "*", "*", *fields[5:])) if fields[0] == "UPID" else "*"

    return SALTED.sub("$*", RESOLVER.sub(r"\1*", MADE_UP.sub(replaced, text)))


def _matches(want: str, have: str) -> bool:
    """Whether a text with the stand-ins of the recording, which stand for any text, is the same."""
    pattern = ".*".join(map(re.escape, PLACEHOLDER.split(want)))
    return re.fullmatch(pattern, have, re.DOTALL) is not None


def _numbers(want: object, have: object) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in (want, have))


def _rows(rows: list[Any]) -> dict[str, Any]:
    """A list as an object: rows by their identity where they have one, else by position."""
    if rows and all(isinstance(row, dict) for row in rows):
        if all("upid" in row for row in rows):
            ordered = sorted(rows, key=lambda row: (_mask(str(row["upid"])), str(row.get("status", ""))))
            return _numbered((_mask(str(row["upid"])), row) for row in ordered)
        if all("ugid" in row for row in rows):
            return {" ".join(str(row[key]) for key in ("path", "ugid", "roleid")): row for row in rows}
        for key in ROW_KEYS:
            if all(key in row for row in rows) and len({str(row[key]) for row in rows}) == len(rows):
                return {str(row[key]): row for row in rows}
    return {str(number): row for number, row in enumerate(rows)}


def _numbered(rows: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, row in rows:
        number = sum(1 for known in found if known.startswith(f"{name}#"))
        found[f"{name}#{number}"] = row
    return found


def _comparable(exchange: Mapping[str, Any], want: Any, have: Any, earlier: Callable[[str], bool]) -> tuple[Any, Any]:
    """Both bodies reduced to what the rules 4 and 5 compare."""
    if not (isinstance(want, dict) and isinstance(have, dict)):
        return want, have
    path, data, own = exchange["request"]["path"], want.get("data"), have.get("data")
    if TASK_LOG.fullmatch(path) and isinstance(data, list) and isinstance(own, list):
        # The last line is the contract; of a page that ends earlier only how many lines it has at least.
        whole = bool(data) and want.get("total", data[-1]["n"]) == data[-1]["n"]
        if whole:
            data, own = ([row["t"] for row in rows[-1:]] for rows in (data, own))
        else:
            data, own = bool(data), bool(own)
    elif TASK_STATUS.fullmatch(path) and isinstance(data, dict) and isinstance(own, dict):
        if "repeat" not in exchange and data.get("status") != own.get("status"):
            hidden = ("status", "exitstatus")  # the first look may be before or after the end
            data, own = ({key: value for key, value in row.items() if key not in hidden} for row in (data, own))
    elif TASK_LIST.fullmatch(path) and isinstance(data, list) and isinstance(own, list):
        own = [row for row in own if not earlier(str(row.get("upid", "")))]
    elif NODE_STATUS.fullmatch(path) and isinstance(data, dict) and isinstance(own, dict):
        data, own = ({key: row[key] if key == "pveversion" else _shape(row[key]) for key in row} for row in (data, own))
    elif (path == "/cluster/resources" or path.startswith("/pools")) and "s later" not in exchange.get("note", ""):
        data, own = _fresh(data), _fresh(own)
    else:
        return want, have
    return want | {"data": data}, have | {"data": own}


def _shape(value: object) -> object:
    """Keys without values: of a node's hardware and load nothing else is contract."""
    return {key: _shape(item) for key, item in value.items()} if isinstance(value, dict) else None


def _fresh(value: Any) -> Any:
    """What is immediate in rows of /cluster/resources, also as members of a pool; a pool's sums are as late."""
    if isinstance(value, list):
        return [_fresh(row) for row in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") in ("qemu", "lxc", "pool"):
        return {key: value[key] for key in FRESH if key in value}
    return {key: _fresh(item) for key, item in value.items()}


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return repr(text if len(text) <= 300 else text[:297] + "...") if isinstance(value, str) else text[:300]
