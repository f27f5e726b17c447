# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replays recorded exchanges (proxmox-transcripts.json) against a server and names every difference."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import requests

MADE_UP = re.compile(  # values that every server makes up: compared by place, not by value
    r"UPID:[\w-]+:[0-9A-F]{8}:[0-9A-F]{8,9}:[0-9A-F]{8}:\w*:[^:]*:[^:]+:|\b[0-9a-f]{40}\b|\bBC:24:11(?::[0-9A-F]{2}){3}\b"
    r"|\bbc:24:11(?::[0-9a-f]{2}){3}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
)
ROW_KEYS = ("upid", "id", "vmid", "key", "volid", "storage", "roleid", "userid", "poolid", "subdir", "realm")
FRESH = ("id", "type", "node", "vmid", "tags", "lock", "pool")  # of /cluster/resources right after a change
VOLATILE = frozenset(
    (
        *("pid", "pstart", "starttime", "endtime", "smbios1", "vmgenid", "meta", "ctime", "cpu", "mem", "memhost"),
        *("disk", "diskread", "diskwrite", "netin", "netout", "nics", "uptime", "used", "avail", "total", "ip"),
        *("used_fraction", "loadavg", "statistics", "ssl_fingerprint", "running-qemu", "running-machine"),
        *("proxmox-support", "repoid", "ticket", "CSRFPreventionToken"),
    )
)
NODE_SIZES = frozenset(("maxcpu", "maxmem", "maxdisk"))


class Replay:
    """One conversation: `auth` gives the headers for each name of `world.auth`."""

    def __init__(self, url: str, root_password: str, lab_secret: str, settle: float) -> None:
        self._url = url + "/api2/json"
        self._root_password = root_password
        self._settle = settle  # seconds until late statistics are there
        self._mapped: dict[str, str] = {}
        self._secrets = {"token": f"root@pam!lab={lab_secret}"}
        self._ticket: dict[str, str] = {}

    def setup(self, entries: list[dict[str, Any]]) -> None:
        """Sends requests that must succeed and waits for their tasks."""
        for entry in entries:
            answer = self._send(entry)
            assert answer.status_code == 200, (entry, answer.status_code, answer.reason, answer.text)
            data = answer.json()["data"]
            self._remember_secret(data)
            if isinstance(data, str) and data.startswith("UPID:"):
                status = self._wait(data)
                assert status == "OK", (entry, status)

    def _wait(self, upid: str) -> str:
        path = f"/nodes/{upid.split(':')[1]}/tasks/{quote(upid, safe='')}/status"
        while True:
            data = self._send({"method": "GET", "path": path, "auth": "token", "params": {}}).json()["data"]
            if data["status"] == "stopped":
                return str(data["exitstatus"])
            time.sleep(0.02)

    def _remember_secret(self, data: object) -> None:
        if isinstance(data, dict) and "full-tokenid" in data:
            name = {"audit@pve!ro": "readonly-token", "ops@pve!empty": "privsep-token", "dep@pve!t1": "dep-token"}
            name |= {"dep9@pve!t": "dep9-token"}
            self._secrets[name[data["full-tokenid"]]] = f"{data['full-tokenid']}={data['value']}"

    def _headers(self, auth: str) -> dict[str, str]:
        nobody = "00000000-0000-0000-0000-000000000000"
        wrong = {
            "bad-token": f"root@pam!lab={nobody}",
            "unknown-token": f"root@pam!nosuch={nobody}",
            "unknown-user-token": f"ghost@pve!t={nobody}",
            "malformed-token": "nonsense",
        }
        if auth in wrong or auth in self._secrets:
            return {"Authorization": f"PVEAPIToken={wrong.get(auth) or self._secrets[auth]}"}
        if not auth.startswith("ticket"):
            return {}
        if not self._ticket:
            body = {"username": "root@pam", "password": self._root_password}
            self._ticket = requests.post(f"{self._url}/access/ticket", data=body, timeout=30).json()["data"]
        headers = {"Cookie": f"PVEAuthCookie={quote(self._ticket['ticket'])}"}
        if auth == "ticket":
            headers["CSRFPreventionToken"] = self._ticket["CSRFPreventionToken"]
        if auth == "ticket-bad-csrf":
            headers["CSRFPreventionToken"] = "nonsense"
        return headers

    def _own(self, value: Any) -> Any:
        """A recorded value with everything that this server made up itself."""
        if isinstance(value, str):
            for recorded, own in self._mapped.items():
                value = value.replace(recorded, own).replace(quote(recorded, safe=""), quote(own, safe=""))
            return value.replace("<root-password>", self._root_password)
        if isinstance(value, dict):
            return {key: self._own(item) for key, item in value.items()}
        return value

    def _send(self, request: Mapping[str, Any]) -> requests.Response:
        method, params = request["method"], self._own(request["params"])
        headers = self._headers(request["auth"])
        sent: dict[str, Any] = {"params": params}
        if method in ("POST", "PUT"):
            kind = request.get("encoding")
            headers["Content-Type"] = "application/json" if kind == "json" else "application/x-www-form-urlencoded"
            sent = {"data": json.dumps(params) if kind == "json" else params}
        return requests.request(method, self._url + self._own(request["path"]), headers=headers, timeout=60, **sent)

    def _send_until(self, exchange: Mapping[str, Any]) -> requests.Response:
        until = exchange.get("repeat", {}).get("until", {})
        end = time.monotonic() + 8
        while True:
            answer = self._send(exchange["request"])
            if time.monotonic() > end or all(_at(answer, where) == value for where, value in until.items()):
                return answer
            time.sleep(0.05)

    def scenario(self, scenario: Mapping[str, Any]) -> Iterator[tuple[int, list[str]]]:
        """(number, differences) of every exchange, in order."""
        self.setup(scenario["setup"])
        exchanges = scenario["exchanges"]
        for number, exchange in enumerate(exchanges):
            if exchange.get("parallel_group"):
                raise NotImplementedError("parallel groups")
            if "s later" in exchange.get("note", ""):
                time.sleep(self._settle)
            answer = self._send_until(exchange)
            self._remember_secret(_json(answer).get("data") if isinstance(_json(answer), dict) else None)
            yield number, list(self._differences(exchange, answer))

    def _differences(self, exchange: Mapping[str, Any], answer: requests.Response) -> Iterator[str]:
        recorded = exchange["response"]
        if (recorded["status"], recorded["reason"]) != (answer.status_code, self._unmapped(answer.reason)):
            yield f"{recorded['status']} {recorded['reason']} != {answer.status_code} {answer.reason}"
        have, want = _json(answer), recorded["body"]
        path = exchange["request"]["path"]
        if path.endswith("/log") and answer.status_code == 200 and isinstance(have, dict):
            # The last line is the contract; of a page that ends earlier only that it has lines.
            whole = want["total"] == (want["data"] or [{"n": 0}])[-1]["n"]
            want, have = ([row["t"] if whole else "" for row in body["data"][-1:]] for body in (want, have))
        if path == "/cluster/resources" and "s later" not in exchange.get("note", "") and isinstance(have, dict):
            want, have = ({"data": [_only(row, FRESH) for row in body["data"] or []]} for body in (want, have))
        first_look = "/tasks/" in path and path.endswith("/status") and "repeat" not in exchange
        if first_look and answer.status_code == recorded["status"] == 200 and isinstance(have, dict):
            hidden = ("status", "exitstatus")  # it may come before or after the end
            want, have = (
                {"data": {key: value for key, value in body["data"].items() if key not in hidden}}
                for body in (want, have)
            )
        yield from self._compare("", want, have)

    def _unmapped(self, text: str) -> str:
        for recorded, own in self._mapped.items():
            text = text.replace(own, recorded)
        return text

    def _compare(self, where: str, want: Any, have: Any, name: str = "") -> Iterator[str]:
        if name in VOLATILE or name.startswith("pressure"):
            return
        if isinstance(want, str) and isinstance(have, str):
            if name == "content":
                want, have = (",".join(sorted(text.split(","))) for text in (want, have))
            yield from self._compare_text(where, want, have)
        elif isinstance(want, dict) and isinstance(have, dict):
            if want.keys() != have.keys():
                missing, extra = sorted(want.keys() - have.keys()), sorted(have.keys() - want.keys())
                yield f"{where}: keys missing {missing} extra {extra}"
            node = want.get("type") in ("node", "storage")
            pending = str(want.get("key", ""))
            for key in want.keys() & have.keys():
                if node and key in NODE_SIZES:
                    continue
                yield from self._compare(f"{where}/{key}", want[key], have[key], pending if key == "value" else key)
        elif isinstance(want, list) and isinstance(have, list):
            key = next((key for key in ROW_KEYS if want and isinstance(want[0], dict) and key in want[0]), None)
            if key and key != "upid" and all(isinstance(row, dict) and key in row for row in [*want, *have]):
                want, have = ({str(row[key]): row for row in rows} for rows in (want, have))
            else:
                if len(want) != len(have):
                    yield f"{where}: {len(want)} items != {len(have)}"
                want, have = ({str(n): row for n, row in enumerate(rows)} for rows in (want, have))
            yield from self._compare(where, want, have)
        elif want != have or type(want) is not type(have):
            yield f"{where}: {want!r} != {have!r}"

    def _compare_text(self, where: str, want: str, have: str) -> Iterator[str]:
        recorded, own = MADE_UP.findall(want), MADE_UP.findall(have)
        if len(recorded) == len(own) and MADE_UP.sub("*", want) == MADE_UP.sub("*", have):
            for old, new in zip(recorded, own, strict=True):
                fields, own_fields = old.split(":"), new.split(":")
                if old.startswith("UPID:") and (fields[1], *fields[5:]) != (own_fields[1], *own_fields[5:]):
                    yield f"{where}: {old} != {new}"
                self._mapped[old] = new
        elif self._own(want) != have and not want.startswith("<"):
            yield f"{where}: {want!r} != {have!r}"


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return answer.text


def _at(answer: requests.Response, where: str) -> object:
    if where == "status":
        return answer.status_code
    value = _json(answer)
    for part in where.strip("/").split("/"):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _only(row: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: row[key] for key in keys if key in row}
