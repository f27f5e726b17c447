# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the UPIDs of a recorded scenario tell about the order of things, where the file itself does not.

Two faults of recordings are repaired: a setup entry that was really sent between two exchanges (its task is younger
than the first exchange's), and rows of task lists that an earlier scenario left (their tasks are older than the first).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

UPID = re.compile(r"UPID:([\w-]+):[0-9A-F]{8}:([0-9A-F]{8,9}):[0-9A-F]{8}:(\w*):([^:]*):[^:\s]+:")
VERB = re.compile(r"/nodes/(?P<node>[^/]+)/qemu/(?P<vmid>\d+)/(?:status/)?(?P<verb>\w+)")


def without_strangers(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """The scenario without rows of task lists that are older than its first task."""
    ids = {match["vmid"] for entry in scenario["setup"] if (match := VERB.fullmatch(entry["path"]))}
    ids |= {str(entry["params"]["vmid"]) for entry in scenario["setup"] if "vmid" in entry["params"]}
    returned = _returned(scenario)
    first = min((_started(upid) for upid in _listed(scenario) if upid in returned or _kind(upid)[2] in ids), default=0)
    exchanges = [_filtered(exchange, first) for exchange in scenario["exchanges"]]
    return {**scenario, "exchanges": exchanges}


def late_setup(scenario: Mapping[str, Any]) -> dict[int, int]:
    """Setup entries that belong between exchanges: index of the entry -> number of the exchange it precedes."""
    returned = _returned(scenario)
    if not returned:
        return {}
    first = min(map(_started, returned))
    found: dict[int, int] = {}
    for index, entry in enumerate(scenario["setup"]):
        match = VERB.fullmatch(entry["path"])
        if entry["method"] != "POST" or not match:
            continue
        wanted = (match["node"], f"qm{match['verb']}", match["vmid"])
        for number, exchange in enumerate(scenario["exchanges"]):
            younger = [
                upid
                for upid in _upids(exchange["response"]["body"])
                if upid not in returned and _kind(upid) == wanted and _started(upid) > first
            ]
            if younger:
                found[index] = number
                break
    return found


def _kind(upid: str) -> tuple[str, str, str]:
    match = UPID.fullmatch(upid)
    return (match[1], match[3], match[4]) if match else ("", "", "")


def _started(upid: str) -> int:
    """When a task was started, in hundredths of a second since its node's boot."""
    match = UPID.fullmatch(upid)
    return int(match[2], 16) if match else 0


def _upids(value: Any) -> Iterator[str]:
    return (match[0] for match in UPID.finditer(json.dumps(value)))


def _listed(scenario: Mapping[str, Any]) -> set[str]:
    return {upid for exchange in scenario["exchanges"] for upid in _upids(exchange["response"]["body"])}


def _returned(scenario: Mapping[str, Any]) -> set[str]:
    """The tasks that the exchanges themselves started."""
    bodies = [exchange["response"]["body"] for exchange in scenario["exchanges"]]
    data = [body.get("data") for body in bodies if isinstance(body, dict)]
    return {text for text in data if isinstance(text, str) and UPID.fullmatch(text)}


def _filtered(exchange: Mapping[str, Any], first: int) -> Mapping[str, Any]:
    response = exchange["response"]
    rows = response["body"].get("data") if isinstance(response["body"], dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "upid" in row for row in rows):
        return exchange
    kept = [row for row in rows if _started(row["upid"]) >= first]
    return {**exchange, "response": {**response, "body": {**response["body"], "data": kept}}}
