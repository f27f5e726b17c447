# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP side: request decoding, login, envelopes (PVE/APIServer/AnyEvent.pm, PVE/HTTPServer.pm).

aiohttp, because Proxmox VE puts its error text into the reason phrase, which ASGI cannot send.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes

from aiohttp import web

from . import (
    access,
    agent,
    clone,
    cloudinit_drive,
    disks,
    edit,
    fwobjects,
    fwrules,
    hacalls,
    migrate,
    pools,
    power,
    qemu,
    snapshot,
    storage,
    tasklist,
    template,
    upload,
)
from .cluster import keep_statistics, require_node, take_statistics
from .emulated import EmulatedGuests
from .errors import ApiError, unauthorized
from .faults import Faults
from .faulty import BASE, bare, cut, exchange
from .guests import Guests
from .hamanager import keep_ha
from .permissions import Identity
from .routes import HANDLERS, Call, Page, check_permission, find_endpoint
from .schema import Endpoint, check_parameters
from .store import Cluster, Timing, World, load
from .tasks import Tasks
from .world import LAB_IMAGE, Image, new_cluster, seed

# imported because each registers its calls in HANDLERS
CALLS = (
    *(access, agent, clone, cloudinit_drive, disks, edit, fwobjects, fwrules, hacalls, migrate, upload),
    *(pools, power, qemu, snapshot, storage, tasklist, template),
)
BODY_LIMIT = 512 << 10  # bytes of a request that is no upload
TOKEN = re.compile(r"PVEAPIToken[= ]([^\s:/]+@[A-Za-z][\w.\-]+)!([A-Za-z][\w.\-]+)[=:]([0-9a-fA-F-]{36})")


def decode_form(text: str) -> dict[str, object]:
    """A query string or form as the real server reads it: `;` separates too, a value ends at the next raw `=`."""
    values: dict[str, object] = {}
    for pair in re.split("[&;]", text):
        key, *rest = pair.split("=")
        if not rest:
            continue
        name, value = (unquote_to_bytes(part.replace("+", " ")).decode("utf-8", "replace") for part in (key, rest[0]))
        old = values.get(name)
        values[name] = value if old is None else [*old, value] if isinstance(old, list) else [old, value]
    return values


def decode_json(text: str) -> dict[str, object]:
    try:
        values = json.loads(text)
    except ValueError:
        raise ApiError("Bad Request", status=400) from None
    if not isinstance(values, dict):
        raise ApiError("Bad Request", status=400)
    for name, value in values.items():
        if value is None:
            raise ApiError(f"unable to parse value of '{name}' - got undefined value")
    return values


def authenticate(cluster: Cluster, headers: Mapping[str, str], cookies: Mapping[str, str], method: str) -> Identity:
    """Who asks: a token, or a ticket with its CSRF header on writes. 401 otherwise."""
    header = headers.get("Authorization", "")
    if header.startswith("PVEAPIToken"):
        match = TOKEN.fullmatch(header)
        user = cluster.users.get(match[1]) if match else None
        token = user["tokens"].get(match[2]) if user and match and user["enable"] else None
        if not match or not token or not hmac.compare_digest(token["secret"].lower(), match[3].lower()):
            raise unauthorized("Authentication failed!")
        return access.identity(cluster, f"{match[1]}!{match[2]}")
    ticket = cookies.get("PVEAuthCookie", "")
    if not ticket:
        raise unauthorized("No ticket")
    name = cluster.tickets.get(ticket) or cluster.tickets.get(unquote_to_bytes(ticket).decode("utf-8", "replace"))
    if name is None:
        raise unauthorized("permission denied - invalid PVE ticket")
    if method != "GET" and not hmac.compare_digest(
        headers.get("CSRFPreventionToken", "").encode(), access.csrf_of(unquote_to_bytes(ticket).decode()).encode()
    ):
        raise unauthorized("Permission denied - invalid csrf token")
    return Identity(name)


async def _parameters(request: web.Request) -> dict[str, object]:
    """The parameters outside of the path; 501 for what the real server does not read."""
    if request.headers.get("Transfer-Encoding"):
        raise ApiError("chunked transfer encoding not supported", status=501)
    length = request.content_length or 0
    if request.method not in ("POST", "PUT"):
        if length:
            raise ApiError(f"Unexpected content for method '{request.method}'", status=501)
        return decode_form(request.raw_path.partition("?")[2])
    if length > BODY_LIMIT:
        raise ApiError("for data too large", status=501)
    text = (await request.read()).decode("utf-8", "replace")
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip()
    if kind == "application/json":
        return decode_json(text)
    if kind not in ("", "application/x-www-form-urlencoded", "application/octet-stream"):
        raise ApiError(f"upload 'Content-Type '{kind}' not implemented", status=506)
    return decode_form(text)


class Server:
    """The server of one node: an entry point of the cluster, which proxies what belongs to other nodes.

    `access_log` gets the requests to all entry points; beside it every node has a log of its own.
    """

    def __init__(self, cluster: Cluster, tasks: Tasks, entry: str, access_log: Path) -> None:
        self._cluster, self._tasks, self._entry = cluster, tasks, entry
        self._logs = (access_log, access_log.with_suffix(f".{entry}{access_log.suffix}"))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        response = await exchange(self._cluster.faults, self._entry, request, self._answer)
        for file in self._logs:
            with open(file, "a", encoding="utf-8") as log:
                log.write(f"{request.method} {request.raw_path.partition('?')[0]} {response.status}\n")
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if request.method not in ("GET", "POST", "PUT", "DELETE"):
            return bare(501, f"method '{request.method}' not available")
        if path != BASE and not path.startswith(f"{BASE}/"):
            return bare(404, f"no such file '{path}'")
        try:
            given = await self._parameters(request)
        except ApiError as error:
            if not error.status:
                return cut(request)
            return bare(error.status, error.message) if error.status != 500 else _failure(error)
        try:
            return await self._logged_in(request, path.removeprefix(BASE), given)
        finally:
            upload.discard(self._cluster, given)

    async def _parameters(self, request: web.Request) -> dict[str, object]:
        if request.method == "POST" and upload.PATH.fullmatch(request.raw_path.partition("?")[0]):
            if (node := request.raw_path.split("/")[4]) != self._entry and node in self._cluster.nodes:
                raise ApiError("unable to proxy file uploads", status=501)
            return await upload.receive(self._cluster, request)
        return await _parameters(request)

    async def _logged_in(self, request: web.Request, path: str, given: Mapping[str, object]) -> web.Response:
        found = find_endpoint(request.method, path)
        is_open = found is not None and found[0].open
        who = Identity("")
        try:
            if not is_open:
                who = authenticate(self._cluster, request.headers, request.cookies, request.method)
            if found is None:
                text = f"Method '{request.method} {path}' not implemented"
                return _json({"data": None, "message": text}, 501, text)
            return _success(await self._call(who, *found, given))
        except ApiError as error:
            if error.status >= 590:
                return bare(error.status, error.message)
            if error.status != 401:
                return _failure(error)
            await asyncio.sleep(self._cluster.timing.refused_login)
            return _failure(error) if is_open else bare(401, error.message)

    async def _call(
        self, who: Identity, entry: Endpoint, in_path: Mapping[str, str], given: Mapping[str, object]
    ) -> object:
        everything = {**given, **in_path}
        if not entry.open:
            check_permission(self._cluster, who, entry, everything)
        if "node" in in_path:
            require_node(self._cluster, in_path["node"])
        params = check_parameters(entry, everything)
        call = Call(self._cluster, self._tasks, self._entry, who, params)
        return await HANDLERS[entry.method, entry.path](call)


def _json(body: object, status: int, reason: str) -> web.Response:
    response = web.Response(
        body=json.dumps(body).encode(),
        status=status,
        reason=" ".join(reason.split("\n")).strip(),
        headers={"Content-Type": "application/json;charset=UTF-8"},
    )
    if status >= 400:
        response.force_close()
    return response


def _success(data: object) -> web.Response:
    body: dict[str, object] = {"data": data}
    if isinstance(data, Page):
        body = {"data": data.data} | ({"total": data.total} if data.total else {})
    return _json(body, 200, "OK")


def _failure(error: ApiError) -> web.Response:
    body = {"data": None, "message": f"{error.message}\n"} | ({"errors": error.errors} if error.errors else {})
    return _json(body, error.status, error.message)


def make_app(servers: Mapping[int, Server]) -> web.Application:
    """One application for the entry points of all nodes; the port that was asked tells which one it is.

    `servers` may be filled after the application was made: ports can be chosen by the system.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        port: int = request.get_extra_info("sockname")[1]
        return await servers[port].handle(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    return app


async def _run_cluster(cluster: Cluster, tasks: Tasks) -> AsyncIterator[None]:
    """pvestatd and the HA manager while the servers run; at the end of them nothing is left running."""
    take_statistics(cluster)
    daemons = [asyncio.create_task(keep_ha(cluster, tasks))]
    if cluster.timing.statistics:
        daemons.append(asyncio.create_task(keep_statistics(cluster)))
    yield
    for daemon in daemons:
        daemon.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await daemon
    await tasks.close()
    if isinstance(cluster.hosts, EmulatedGuests):
        cluster.hosts.close()


async def serve_proxmox(
    *,
    hosts: Guests,
    state: Path,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    access_log: Path,
    timing: Timing | None = None,
    faults: Faults | None = None,
    images: tuple[Image, ...] = (LAB_IMAGE,),
    world: World | None = None,
    more: Sequence[tuple[str, int]] = (),
) -> web.AppRunner:
    """Serves the API until `cleanup()` of the result; without a certificate as plain HTTP.

    `state` keeps the cluster over restarts and may hold accounts.json (lab.proxmox.world); `port` 0 = any free one
    (`runner.addresses`); `access_log` gets one line `METHOD path status` per request. `host` and `port` are the entry
    point of the first node, `more` those of the next ones, in order; every entry point has a port of its own.
    """
    cluster = new_cluster(
        state,
        world or World(),
        hosts=hosts,
        timing=timing or Timing(),
        faults=faults or Faults(file=state / "faults.toml"),
    )
    load(cluster)
    seed(cluster, images)
    power.reattach(cluster)
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    tasks = Tasks(state, cluster.faults)
    servers: dict[int, Server] = {}
    app = make_app(servers)
    app.cleanup_ctx.append(lambda _app: _run_cluster(cluster, tasks))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        for node, (address, number) in zip(cluster.nodes, ((host, port), *more), strict=False):
            await web.TCPSite(runner, address, number, ssl_context=context, reuse_address=True).start()
            servers[runner.addresses[-1][1]] = Server(cluster, tasks, node, access_log)
    except BaseException:
        await runner.cleanup()
        raise
    return runner
