# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulator as an HTTP server: admin API v2 of one Garage node, state on disk, one log line per request."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from aiohttp import web

from lab.garage.api import Request, answer
from lab.garage.store import Store

STORE = web.AppKey("store", Store)
BODY_MAX = 16 * 2**20


async def serve_garage(*, state: Path, host: str, port: int, admin_token: str, access_log: Path) -> web.AppRunner:
    """Serve until the caller awaits ``cleanup()`` of the returned runner.

    :param state: JSON file with the tables (:mod:`lab.garage.store`); made when it is missing.
    :param port: 0 takes a free one; ``runner.addresses`` tells which.
    :param admin_token: the ``admin_token`` of Garage's configuration file.
    :param access_log: text file to append to: time, client, method, path with query, status, bytes. No token is in it.
    :raises OSError: the address is taken, or a file cannot be used.
    """
    store = Store(state)
    access_log.parent.mkdir(parents=True, exist_ok=True)
    # lives as long as the server, closed in on_cleanup
    log = access_log.open("a", encoding="utf-8", buffering=1)

    async def handle(request: web.Request) -> web.Response:
        path, _mark, query = request.raw_path.partition("?")
        body = await request.read()
        token = request.headers.get("Authorization")
        reply = answer(store, admin_token, Request(request.method, path, query, token, body))
        headers = {"Access-Control-Allow-Origin": "*"} if reply.status == 200 else {}
        if reply.content_type:
            headers["Content-Type"] = reply.content_type
        _log(log, request, reply.status, len(reply.body.encode()))
        return web.Response(status=reply.status, body=reply.body.encode(), headers=headers)

    async def close_log(_app: web.Application) -> None:
        log.close()

    application = web.Application(client_max_size=BODY_MAX)
    application[STORE] = store
    application.router.add_route("*", "/{path:.*}", handle)
    application.on_cleanup.append(close_log)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


def _log(log: TextIO, request: web.Request, status: int, size: int) -> None:
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    log.write(f"{time} {request.remote or '-'} {request.method} {request.raw_path} {status} {size}\n")
