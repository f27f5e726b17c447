# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulator as HTTP servers: admin API v2 and S3 API of one node; state on disk, one log line per request."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from aiohttp import web

from lab.garage.api import REGION, Request, answer
from lab.garage.s3 import api as s3_api
from lab.garage.s3.signature import Request as S3Request
from lab.garage.store import NEWEST, READY, Store

STORE = web.AppKey("store", Store)
# of the S3 API, in the application of the admin API
S3_RUNNER = web.AppKey("s3_runner", web.AppRunner)
BODY_MAX = 2**30
# what proves in a URL who asks
SIGNATURE = re.compile(r"(X-Amz-(?:Signature|Credential)=)[^&]*")
Handler = Callable[[web.Request], Awaitable[web.Response]]


async def serve_garage(
    *,
    state: Path,
    host: str,
    port: int,
    admin_token: str,
    access_log: Path,
    s3_port: int = 0,
    region: str = REGION,
    version: str = NEWEST,
    layout: Mapping[str, Any] = READY,
) -> web.AppRunner:
    """Serve both APIs until the caller awaits ``cleanup()`` of the returned runner, which is the admin API's.

    :param state: JSON file with the tables (:mod:`lab.garage.store`); made when it is missing.
    :param port: of the admin API; 0 takes a free one, ``runner.addresses`` tells which.
    :param s3_port: of the S3 API; ``runner.app[S3_RUNNER].addresses`` tells which.
    :param admin_token: the ``admin_token`` of Garage's configuration file.
    :param access_log: text file to append to: time, client, method, path with query, status, bytes. Neither tokens nor
        signatures are in it.
    :param version: of Garage, ``NEWEST`` or ``OLDEST``.
    :param layout: of the cluster at the first start, ``READY`` or ``NO_LAYOUT``.
    :raises OSError: the address is taken, or a file cannot be used.
    """
    store = Store(state, version=version, layout=layout)

    async def admin(request: web.Request) -> web.Response:
        path, _mark, query = request.raw_path.partition("?")
        body = await request.read()
        token = request.headers.get("Authorization")
        reply = answer(store, admin_token, Request(request.method, path, query, token, body))
        headers = {"Access-Control-Allow-Origin": "*"} if reply.status == 200 else {}
        if reply.content_type:
            headers["Content-Type"] = reply.content_type
        return web.Response(status=reply.status, body=reply.body.encode(), headers=headers)

    async def s3(request: web.Request) -> web.Response:
        path, _mark, query = request.raw_path.partition("?")
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        reply = s3_api.answer(store, region, S3Request(request.method, path, query, headers, body))
        answered = dict(reply.headers)
        if reply.content_type:
            answered["Content-Type"] = reply.content_type
        return web.Response(status=reply.status, body=reply.body, headers=answered)

    s3_application = web.Application(client_max_size=BODY_MAX)
    s3_runner = await _serve(s3_application, s3, host, s3_port, access_log)

    async def close(_app: web.Application) -> None:
        await s3_runner.cleanup()
        store.close()

    application = web.Application(client_max_size=BODY_MAX)
    application[STORE] = store
    application[S3_RUNNER] = s3_runner
    application.on_cleanup.append(close)
    return await _serve(application, admin, host, port, access_log)


async def _serve(
    application: web.Application, handle: Handler, host: str, port: int, access_log: Path
) -> web.AppRunner:
    """Serve *application*; when that fails it is cleaned up."""
    access_log.parent.mkdir(parents=True, exist_ok=True)
    # lives as long as the server, closed in on_cleanup
    log = access_log.open("a", encoding="utf-8", buffering=1)

    async def handle_and_log(request: web.Request) -> web.Response:
        response = await handle(request)
        _log(log, request, response)
        return response

    async def close_log(_app: web.Application) -> None:
        log.close()

    application.router.add_route("*", "/{path:(?s:.*)}", handle_and_log)
    application.on_cleanup.append(close_log)
    # an object that was compressed by its owner stays so
    runner = web.AppRunner(application, access_log=None, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


def _log(log: TextIO, request: web.Request, response: web.Response) -> None:
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    path = SIGNATURE.sub(r"\1-", request.raw_path)
    size = len(response.body) if isinstance(response.body, bytes) else 0
    log.write(f"{time} {request.remote or '-'} {request.method} {path} {response.status} {size}\n")
