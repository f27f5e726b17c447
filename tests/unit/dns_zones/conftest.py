# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from zones_servers import Estate, bind_estate, knot_estate


@pytest.fixture(scope="module")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    with knot_estate(tmp_path_factory.mktemp("knot") / "server") as running:
        yield running


@pytest.fixture(scope="module", params=["knot", "bind"])
def estate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    directory: Path = tmp_path_factory.mktemp(request.param) / "server"
    with (knot_estate if request.param == "knot" else bind_estate)(directory) as running:
        yield running
