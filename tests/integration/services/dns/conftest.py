# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dns_place import PRIVATE, VERSION, Place, chosen, from_environment
from support.dns_server import ZONES, DnsServer


@pytest.fixture(scope="session", params=["environment"] if chosen() else [*PRIVATE])
def reached(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[DnsServer, str]]:
    """A server and a zone: of the environment, or private ones that end with the tests."""
    if request.param == "environment":
        server, zone = from_environment(os.environ)
        version = (f"{VERSION}.{zone}.", "TXT")
        known = version in server.content(zone)
        yield server, zone
        if not known:
            Place(server, zone).edit(lambda message: message.delete(VERSION, "TXT"))
    else:
        with PRIVATE[request.param](tmp_path_factory.mktemp(request.param)) as server:
            yield server, ZONES[0]


@pytest.fixture
def place(reached: tuple[DnsServer, str]) -> Iterator[Place]:
    """Names of the test's own, removed at its end; what others have in the zone must be as it was."""
    made = Place(*reached)
    with contextlib.nullcontext() if made.server.process is not None else turn(made.zone):
        before = made.others()
        try:
            yield made
            assert made.others() == before
        finally:
            made.clear()


@contextlib.contextmanager
def turn(zone: str) -> Iterator[None]:
    """One test after the other, also of parallel test processes: they look at the serial of the same zone."""
    with (Path(tempfile.gettempdir()) / f"fediversity-test-{zone}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def private(place: Place) -> Place:
    """A place on a server that the test may stop, and in a zone that nobody else has."""
    if place.server.process is None:
        pytest.skip("needs control of the server, and the one of the environment has others to serve")
    return place
