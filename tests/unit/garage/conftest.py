# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from garage_support import Cluster, Exchange, Script


@pytest.fixture
def script() -> Iterator[Callable[[Sequence[Exchange]], Script]]:
    scripts: list[Script] = []

    def make(exchanges: Sequence[Exchange]) -> Script:
        scripts.append(Script(list(exchanges)))
        return scripts[-1]

    yield make
    for made in scripts:
        assert made.left == [], "requests that were not made"


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()
