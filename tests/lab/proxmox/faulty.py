# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP exchange under the rules of lab.proxmox.faults."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

from .faults import CUT, ERRORS, Faults, Rule

BASE = "/api2/json"
NO_ANSWER = 0  # status of an exchange whose connection was cut
# what is done without writing to the cluster file system
WITHOUT_QUORUM = re.compile(r"GET .*|POST /access/ticket|\w+ /nodes/[^/]+/qemu/\d+/agent/.*")


class _Gone(web.Response):
    """Stands for an answer that was not sent."""

    def __init__(self) -> None:
        super().__init__()
        self.set_status(NO_ANSWER, "")

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def bare(status: int, reason: str) -> web.Response:
    """An answer without a body, after which the server closes the connection."""
    response = web.Response(status=status, reason=reason)
    response.headers.pop("Content-Type", None)
    response.force_close()
    return response


async def exchange(
    faults: Faults, entry: str, request: web.Request, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What the server of the node `entry` answers, with what the rules do to it; status 0 = the connection was cut."""
    path = request.raw_path.partition("?")[0].removeprefix(BASE)
    what = f"{request.method} {path}"
    number = faults.arrive(what)
    if rule := faults.strike(what, ("latency",)):
        await asyncio.sleep(rule.seconds)
    rule = faults.strike(what, (*ERRORS, *CUT))
    response = _state(faults, entry, request, what)
    if response is None and rule and not rule.after:
        if rule.kind != "cut-unread":
            async for _unused in request.content.iter_any():
                pass
        response = await _struck(rule, request, bare(200, "OK"))
    if response is None:
        response = await answer(request)
        if rule:
            response = await _struck(rule, request, response)
    faults.tell(number, "after", what)
    return response


def _state(faults: Faults, entry: str, request: web.Request, what: str) -> web.StreamResponse | None:
    """What the state of the cluster forbids: a node that is down, no quorum."""
    node = re.match(r"\w+ /nodes/([^/]+)/", what)
    if entry in faults.offline:
        return cut(request)
    if node and node[1] in faults.offline:
        return bare(595, "No route to host")
    if WITHOUT_QUORUM.fullmatch(what) or not faults.strike(what, ("quorum",)):
        return None
    vm = re.fullmatch(r"(?:PUT|POST) (/nodes/[^/]+)/qemu/(\d+)/config", what)
    if vm:
        return _error(f"unable to open file '/etc/pve{vm[1]}/qemu-server/{vm[2]}.conf.tmp.4711' - Permission denied")
    return _error("cluster not ready - no quorum?")


async def _struck(rule: Rule, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    if rule.kind == "cut-body":
        return await _half(request, response)
    if rule.kind in CUT:
        return cut(request)
    status, text = ERRORS[rule.kind]
    vmid = re.search(r"/qemu/(\d+)", request.path)
    storage = re.search(r"/storage/([^/]+)", request.path)
    reason = text.format(vmid=vmid[1] if vmid else 100, storage=storage[1] if storage else "local")
    return _error(reason) if status == 500 else bare(status, reason)


def _error(text: str) -> web.Response:
    body = json.dumps({"data": None, "message": f"{text}\n"}).encode()
    response = web.Response(status=500, reason=text, body=body)
    response.headers["Content-Type"] = "application/json;charset=UTF-8"
    response.force_close()
    return response


def cut(request: web.Request) -> web.StreamResponse:
    """Closes the connection; what stands for the answer."""
    if request.transport:
        request.transport.close()
    return _Gone()


async def _half(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """The head and half of the body."""
    body = response.body if isinstance(response, web.Response) else b""
    content = body if isinstance(body, bytes) else b""
    half = web.StreamResponse(status=response.status, reason=response.reason)
    half.content_type = "application/json"
    half.content_length = max(len(content), 2)
    half.force_close()
    await half.prepare(request)
    await half.write(content[: len(content) // 2] or b"{")
    return cut(request)
