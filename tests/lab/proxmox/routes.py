# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a call reaches its handler: the registry, what a handler gets, and the permission check."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from .errors import ApiError, denied
from .permissions import Identity, privileges
from .schema import Endpoint, schema
from .store import Cluster, VirtualMachine
from .tasks import Tasks, Worker


@dataclass(frozen=True)
class Call:
    """One authenticated call with typed parameters; those of the path are among them."""

    cluster: Cluster
    tasks: Tasks
    entry: str  # the node whose server was asked
    who: Identity
    params: Mapping[str, Any]

    @property
    def node(self) -> str:
        return str(self.params["node"])

    def vm(self) -> VirtualMachine:
        """The virtual machine of the path; 500 when it is not on that node."""
        return find_vm(self.cluster, self.node, self.params["vmid"])

    def start(self, kind: str, worker: Worker, identifier: object = None) -> str:
        """A task on the node of the path, named after the virtual machine of the path."""
        name = self.params["vmid"] if identifier is None else identifier
        return self.tasks.start(self.node, kind, str(name), self.who.full, worker)

    def may(self, path: str, *names: str) -> bool:
        """Whether one of the privileges is held on the path."""
        held = privileges(self.cluster, self.who, path)
        return any(name in held for name in names)

    def require(self, path: str, *names: str) -> None:
        """403 unless one of the privileges is held on the path."""
        if not self.may(path, *names):
            raise denied(f"{path}, {'|'.join(names)}")

    def require_root(self, option: str) -> None:
        """Some options are for the user root@pam itself; a token of it is refused too."""
        if not self.who.root_itself:
            raise ApiError(f"only root can set '{option}' config")


@dataclass(frozen=True)
class Page:
    """A paged list: `total` stands beside `data` in the answer."""

    data: list[dict[str, Any]]
    total: int


Handler = Callable[[Call], Awaitable[object]]
HANDLERS: dict[tuple[str, str], Handler] = {}


def endpoint(method: str, path: str) -> Callable[[Handler], Handler]:
    """Registers the handler of one call of the tables."""

    def register(handler: Handler) -> Handler:
        HANDLERS[method, path] = handler
        return handler

    return register


def find_vm(cluster: Cluster, node: str, vmid: int) -> VirtualMachine:
    vm = cluster.vms.get(vmid)
    if vm is None or vm.node != node:
        raise ApiError(f"Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist")
    return vm


def find_endpoint(method: str, path: str) -> tuple[Endpoint, dict[str, str]] | None:
    """The call and the parameters in its path; `path` as sent, percent-encoded. Literal segments win."""
    given = path.strip("/").split("/")
    found = []
    for (verb, template), entry in schema().endpoints.items():
        wanted = template.strip("/").split("/")
        if verb != method or len(wanted) != len(given):
            continue
        values = {want[1:-1]: unquote(have) for want, have in zip(wanted, given, strict=True) if want.startswith("{")}
        if all(want.startswith("{") or want == have for want, have in zip(wanted, given, strict=True)):
            found.append((len(values), entry, values))
    if not found:
        return None
    _unused, entry, values = min(found, key=lambda row: row[0])
    return entry, values


def check_permission(cluster: Cluster, who: Identity, entry: Endpoint, given: Mapping[str, object]) -> None:
    """The permission that the tables name, before any parameter is looked at."""
    if entry.check is None:
        return
    template, names = entry.check
    path = re.sub(r"{(\w+)}", lambda match: str(given.get(match[1], "")), template)
    if not re.fullmatch(r"[A-Za-z0-9.\-_/]+", path):
        path = ""
    held = privileges(cluster, who, path)
    if not path or not any(name in held for name in names):
        raise denied(f"{path}, {'|'.join(names)}")
