# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.redis_server import redis_server
from valkey_place import Place, chosen, from_environment, ours


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A server, of the environment or a private one; others' users must be the same in the end, ours are removed."""
    if chosen():
        yield from kept(from_environment(os.environ))
    else:
        with redis_server() as running:
            yield from kept(ours(running))


def kept(place: Place) -> Iterator[Place]:
    before = place.others()
    try:
        yield place
        assert place.others() == before
    finally:
        place.clear()


@pytest.fixture
def private(place: Place) -> Place:
    """A place on a server that the test may stop."""
    if place.private is None:
        pytest.skip("needs control of the server, and the one of the environment has others to serve")
    return place
