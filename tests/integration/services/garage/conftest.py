# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from garage_place import Place, chosen, from_environment, used
from support.garage_server import garage_server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The cluster of the environment, or a private server that ends with the tests."""
    directory = tmp_path_factory.mktemp("services-garage")
    if chosen():
        yield from_environment(os.environ, directory)
        return
    with garage_server() as server:
        yield from_environment(server.environment(), directory, server)


@pytest.fixture
def place(cluster: Place) -> Iterator[Place]:
    """Names of the test's own, removed at its end; what others have must be the same then."""
    with used(cluster) as made:
        yield made


@pytest.fixture
def private(place: Place) -> Place:
    """A place on a server that the test may stop and whose log it may read."""
    if place.private is None:
        pytest.skip("needs control of the server, and the one of the environment has others to serve")
    return place
