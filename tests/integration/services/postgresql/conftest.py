# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from postgresql_estate import Place, chosen, from_environment, managed, new_mark
from support.postgresql import postgresql_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The server of the environment, or a private one that ends with the tests."""
    directory = tmp_path_factory.mktemp("services-postgresql")
    if chosen():
        yield from_environment(os.environ, directory)
        return
    with postgresql_server(directory, "log_statement=ddl") as running:
        yield from_environment(running.environment(), directory, running)


@pytest.fixture(scope="session")
def provisioner(server: Place) -> Place:
    """The same server without a superuser."""
    return managed(server)


@pytest.fixture(scope="session", params=["server"] if chosen() else ["server", "provisioner"])
def reached(request: pytest.FixtureRequest) -> Place:
    """The server as the module logs in."""
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def place(reached: Place) -> Iterator[Place]:
    """Names of the test's own, removed at its end."""
    made = replace(reached, mark=new_mark())
    try:
        yield made
    finally:
        made.clear()


@pytest.fixture
def private(place: Place) -> Place:
    """A place on a server that the test may stop and whose log it may read."""
    if place.private is None:
        pytest.skip("needs control of the server, and the one of the environment has others to serve")
    return place
