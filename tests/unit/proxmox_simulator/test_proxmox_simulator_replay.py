# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recorded conversations with the real server, replayed (proxmox-transcripts.json is our own recording)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab.proxmox.store import Timing
from lab.proxmox.world import Image
from proxmox_harness import PASSWORD, SECRET, Start
from proxmox_replay import Replay

DOCUMENT: dict[str, Any] = json.loads(Path(__file__).with_name("proxmox-transcripts.json").read_text(encoding="utf-8"))
SCENARIOS = {scenario["name"]: scenario for scenario in DOCUMENT["scenarios"]}
TIMING = Timing(refused_login=0, statistics=1, agent=0.2, lock=0.5, image_copy=0.3, power_on=0.2, shutdown=5)
IMAGE = Image("local:import/base.qcow2", size=1600 << 20, used=197001216, nodes=("pve1",))

# Exchanges that differ, and why. A call that is not simulated answers 501.
NOT_SIMULATED = "clone, snapshot, move_disk, migrate and firewall are not simulated"
KNOWN: dict[str, dict[int, str]] = {
    "auth-and-version": {},
    "privsep-token-sees-nothing": {24: NOT_SIMULATED},
    "nextid-and-minimal-create": {},
    "create-import-cloudinit-start": {},
    "create-wrong-parameters": {},
    "create-vmid-exists": dict.fromkeys((4, 5, 6, 7, 8), NOT_SIMULATED),
    "vm-not-found": dict.fromkeys((3, 4, 20, 26, 27, 28), NOT_SIMULATED),
    "config-readback-normalisation": {},
    "config-put-post-digest": {},
    "pending-on-running-vm": {},
    "resend-net0-scsi0": {},
    "resize": {},
    "power-states": {},
    "lock-refusal": dict.fromkeys((18, 19, 20, 21, 23, 24), NOT_SIMULATED),
    "cluster-resources-freshness": {},
    "pools": {},
    "access": {33: NOT_SIMULATED},
}


@pytest.mark.parametrize("name", KNOWN)
def test_recorded_scenario(name: str, start: Start) -> None:
    accounts = {
        "users": {"root@pam": {"password": PASSWORD}},
        "tokens": {"root@pam!lab": {"secret": SECRET, "privsep": 0}},
    }
    simulator = start(timing=TIMING, images=(IMAGE,), accounts=accounts)
    replay = Replay(simulator.url, PASSWORD, SECRET, settle=2.2)
    replay.setup(DOCUMENT["world"]["setup"])
    found = {number: differences for number, differences in replay.scenario(SCENARIOS[name]) if differences}
    unexpected = {number: text for number, text in found.items() if number not in KNOWN[name]}
    assert not unexpected, json.dumps(unexpected, indent=1)
    assert set(KNOWN[name]) == set(found), "an exchange that is listed as different is equal: strike it from the list"
