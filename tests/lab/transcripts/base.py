# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base world of a transcript file on a server, and how a scenario's remains are removed.

Only what a scenario made is ever removed: what the server held before stays as it is.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import qcow2
from .accounts import Accounts, failed
from .conversation import Conversation, Servers, SetupError
from .wire import Answer, Upload, size_of, upload

IMAGE = re.compile(
    r"image (?P<storage>[\w.-]+):import/(?P<name>[\w.-]+) on (?P<node>[\w-]+)[^(]*"
    r"\(\w+, (?P<bytes>\d+) bytes, virtual size (?P<virtual>\d+ \w+)"
)
STORAGE = re.compile(r"(?P<storage>[\w.-]+) \(dir,[^)]*?content (?P<content>[\w, ]+)")
EXISTS = re.compile(r"already (exists|defined)|convert a template to a template")


def ensure(conversation: Conversation, servers: Servers, accounts: Accounts, document: Mapping[str, Any]) -> None:
    """Everything that `world` of the file says and the server lacks."""
    accounts.require_token()
    world = document["world"]
    prose = world.get("prose", "")
    for entry in world["setup"]:
        if re.fullmatch(r"/access/users/[^/]+/token/[^/]+", entry["path"]):
            conversation.ask("DELETE", entry["path"])  # the secret of one that exists cannot be asked for
        conversation.set_up([entry], _exists)
    for match in STORAGE.finditer(prose):
        _ensure_content(conversation, match["storage"], {part.strip() for part in match["content"].split(",")})
    for match in IMAGE.finditer(prose):
        _ensure_image(conversation, servers, accounts, match)


def _exists(answer: Answer) -> bool:
    return EXISTS.search(failed(answer)) is not None


def _ensure_content(conversation: Conversation, name: str, wanted: set[str]) -> None:
    """A fresh server's storage may not take every kind of content."""
    answer = conversation.ask("GET", f"/storage/{name}")
    if answer.status != 200:
        raise SetupError(f"storage {name}: {failed(answer)}")
    if missing := wanted - set(str(answer.data.get("content", "")).split(",")):
        answer = conversation.ask("PUT", f"/storage/{name}", {"content": ",".join(sorted(wanted))})
        if answer.status != 200:
            raise SetupError(f"storage {name} does not take {', '.join(sorted(missing))}: {failed(answer)}")


def _ensure_image(conversation: Conversation, servers: Servers, accounts: Accounts, match: re.Match[str]) -> None:
    folder = f"/nodes/{match['node']}/storage/{match['storage']}"
    volid = f"{match['storage']}:import/{match['name']}"
    rows = conversation.ask("GET", f"{folder}/content", {"content": "import"}).data or []
    if any(row["volid"] == volid for row in rows):
        return
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "image"
        qcow2.make(file, virtual_size=size_of(match["virtual"]), file_size=int(match["bytes"]))
        part = Upload("filename", match["name"], file)
        headers = accounts.headers("token")
        answer = upload(servers.first, f"{folder}/upload", headers, {"content": "import"}, part)
    if answer.status != 200:
        raise SetupError(f"image {volid}: {failed(answer)}")
    if (status := conversation.wait(answer.data)) != "OK":
        raise SetupError(f"image {volid}: {status}")


@dataclass(frozen=True)
class Inventory:
    """What a server holds; everything that a scenario can make."""

    guests: Mapping[int, str]  # id -> node
    pools: frozenset[str]
    users: frozenset[str]
    roles: frozenset[str]
    grants: frozenset[tuple[str, str, str, str]]  # path, kind, who, role
    storages: frozenset[str]
    volumes: frozenset[tuple[str, str, str]]  # node, storage, volume id


def look(conversation: Conversation) -> Inventory:
    def rows(path: str, **params: str) -> list[dict[str, Any]]:
        return list(conversation.ask("GET", path, params).data or [])

    resources = rows("/cluster/resources")
    places = [(row["node"], row["storage"]) for row in resources if row["type"] == "storage"]
    return Inventory(
        guests={row["vmid"]: row["node"] for row in resources if row["type"] == "qemu"},
        pools=frozenset(row["poolid"] for row in rows("/pools")),
        users=frozenset(row["userid"] for row in rows("/access/users")),
        roles=frozenset(row["roleid"] for row in rows("/access/roles")),
        grants=frozenset((row["path"], row["type"], row["ugid"], row["roleid"]) for row in rows("/access/acl")),
        storages=frozenset(row["storage"] for row in rows("/storage")),
        volumes=frozenset(
            (node, name, row["volid"]) for node, name in places for row in rows(f"/nodes/{node}/storage/{name}/content")
        ),
    )


def remove_new(conversation: Conversation, before: Inventory, tasks_before: frozenset[str]) -> None:
    """Ends the tasks and removes the objects that were not there before."""
    for node in {row["node"] for row in conversation.ask("GET", "/nodes").data or []}:
        active = conversation.ask("GET", f"/nodes/{node}/tasks", {"source": "active"}).data or []
        for row in active:
            if row["upid"] not in tasks_before:
                conversation.ask("DELETE", f"/nodes/{node}/tasks/{quote(row['upid'], safe='')}")
    for _pass in range(3):  # a template goes after its linked clones
        now = look(conversation)
        for vmid in sorted(now.guests.keys() - before.guests.keys(), reverse=True):
            _remove_guest(conversation, now.guests[vmid], vmid)
    now = look(conversation)
    _each(now.volumes - before.volumes, lambda item: _remove_volume(conversation, *item))
    for path, kind, who, role in now.grants - before.grants:
        conversation.ask("PUT", "/access/acl", {"path": path, f"{kind}s": who, "roles": role, "delete": "1"})
    for kind in ("pools", "users", "roles", "storages"):
        where = {"pools": "/pools", "users": "/access/users", "roles": "/access/roles", "storages": "/storage"}[kind]
        for name in getattr(now, kind) - getattr(before, kind):
            _remove_named(conversation, where, name)


def _each(items: frozenset[Any], act: Callable[[Any], None]) -> None:
    for item in sorted(items, reverse=True):
        act(item)


def _remove_guest(conversation: Conversation, node: str, vmid: int) -> None:
    path = f"/nodes/{node}/qemu/{vmid}"
    config = conversation.ask("GET", f"{path}/config").data or {}
    if "lock" in config:
        conversation.ask("PUT", f"{path}/config", {"delete": "lock", "skiplock": "1"}, "ticket")
    if config.get("protection"):
        conversation.ask("PUT", f"{path}/config", {"protection": "0"})
    steps: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("POST", f"{path}/status/stop", {}),
        ("DELETE", path, {"purge": "1", "destroy-unreferenced-disks": "1"}),
    )
    for method, where, params in steps:
        answer = conversation.ask(method, where, params)
        if isinstance(answer.data, str):
            with suppress(SetupError):
                conversation.wait(answer.data)


def _remove_volume(conversation: Conversation, node: str, storage: str, volid: str) -> None:
    answer = conversation.ask("DELETE", f"/nodes/{node}/storage/{storage}/content/{quote(volid, safe=':')}")
    if isinstance(answer.data, str):
        with suppress(SetupError):
            conversation.wait(answer.data)


def _remove_named(conversation: Conversation, where: str, name: str) -> None:
    path = f"{where}/{quote(name, safe='@')}"
    if where == "/pools":
        members = (conversation.ask("GET", path).data or {}).get("members", [])
        guests = [str(row["vmid"]) for row in members if row["type"] == "qemu"]
        storages = [str(row["storage"]) for row in members if row["type"] == "storage"]
        for key, held in (("vms", guests), ("storage", storages)):
            if held:
                conversation.ask("PUT", path, {key: ",".join(held), "delete": "1"})
    conversation.ask("DELETE", path)
