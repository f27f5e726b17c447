# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.client import Facts, Server, facts
from support.redis_server import RedisServer, redis_server


@pytest.fixture(scope="session")
def running() -> Iterator[RedisServer]:
    """A server with an ACL file, as Debian's units run it."""
    with redis_server("slowlog-log-slower-than 0", "slowlog-max-len 1000") as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that the test may stop, break and start again."""
    with redis_server() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> Server:
    """The server as the provider is told to reach it."""
    return reach(running)


@pytest.fixture
def admin(running: RedisServer) -> Iterator[redis.Redis]:
    with running.client() as client:
        yield client


@pytest.fixture(scope="session")
def known(running: RedisServer) -> Facts:
    """What the server tells about itself."""
    return facts(reach(running).connect(), "test")


def reach(running: RedisServer) -> Server:
    return Server(running.host, running.port, user=running.user, password=running.password)
