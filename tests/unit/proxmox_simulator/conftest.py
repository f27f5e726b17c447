# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulator on loopback for every test that asks for one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lab.proxmox.faults import Faults
from lab.proxmox.guests import NoGuests
from lab.proxmox.store import Timing, World
from lab.proxmox.world import Image
from proxmox_harness import ACCOUNTS, IMAGE, QUICK, Simulator, Start, simulator_on


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts simulators over one state directory: start(timing=..., hosts=..., images=..., accounts=...)."""
    with ExitStack() as stack:

        def starter(
            *,
            timing: Timing = QUICK,
            hosts: Any = None,
            images: tuple[Image, ...] = (IMAGE,),
            accounts: dict[str, Any] | None = None,
            faults: Faults | None = None,
            entries: int = 1,
            world: World | None = None,
        ) -> Simulator:
            state = tmp_path
            (state / "accounts.json").write_text(json.dumps(accounts or ACCOUNTS), encoding="utf-8")
            return stack.enter_context(
                simulator_on(state, timing, hosts or NoGuests(), images, faults, entries=entries, world=world)
            )

        yield starter


@pytest.fixture
def simulator(start: Start) -> Simulator:
    return start()
