# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulator in a thread of the calling process, on loopback ports, for tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from lab.garage.api import REGION
from lab.garage.server import S3_RUNNER, STORE, serve_garage
from lab.garage.store import NEWEST, Store

STOP_SECONDS = 30


@dataclass(frozen=True)
class RunningGarage:
    """``store`` is the server's own: change it to make what the API cannot (a crash's remains)."""

    url: str
    s3_endpoint: str
    region: str
    admin_token: str = field(repr=False)
    store: Store
    access_log: Path


@contextmanager
def running_garage(
    directory: Path,
    admin_token: str = "test-admin-token",
    port: int = 0,
    *,
    s3_port: int = 0,
    region: str = REGION,
    version: str = NEWEST,
) -> Iterator[RunningGarage]:
    """Serve while the block runs. State and log are in *directory*, and a second run there finds the state.

    :param port: of the admin API; 0 takes a free one.
    :param s3_port: likewise.
    :param version: of Garage, ``NEWEST`` or ``OLDEST``.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    access_log = directory / "garage-access.log"
    serving = serve_garage(
        state=directory / "garage.json",
        host="127.0.0.1",
        port=port,
        s3_port=s3_port,
        admin_token=admin_token,
        access_log=access_log,
        region=region,
        version=version,
    )
    runner: web.AppRunner | None = None
    try:
        runner = asyncio.run_coroutine_threadsafe(serving, loop).result(STOP_SECONDS)
        urls = ["http://{}:{}".format(*each.addresses[0][:2]) for each in (runner, runner.app[S3_RUNNER])]
        yield RunningGarage(urls[0], urls[1], region, admin_token, runner.app[STORE], access_log)
    finally:
        if runner is not None:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(STOP_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_SECONDS)
        loop.close()
