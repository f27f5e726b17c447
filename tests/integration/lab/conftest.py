# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab for the tests of this folder, in a directory of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab.paths import State
from lab_command import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    started = Lab(State(tmp_path_factory.mktemp("lab") / "state"))
    try:
        started("up")
        yield started
    finally:
        started("down")


@pytest.fixture
def existing(lab: Lab) -> Iterator[str]:
    """The host existing1, running and reachable again after the test."""
    try:
        yield "existing1"
    finally:
        lab.ask("uncut", name="existing1")
        lab.ask("restore_network", name="existing1")
        if lab.host("existing1")["state"] == "paused":
            lab.ask("power", name="existing1", action="resume")
        lab.ask("power", name="existing1", action="start")
        lab.sh("until $ssh root@10.99.0.20 true; do sleep 0.1; done")
