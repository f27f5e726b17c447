# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recorded conversations with the real server, replayed (proxmox-transcripts.json is our own recording)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lab.proxmox.emulated import EmulatedGuests
from lab.proxmox.store import Timing, World
from lab.proxmox.world import Image
from lab.transcripts.accounts import Accounts
from lab.transcripts.base import IMAGE as IMAGE_PROSE
from lab.transcripts.base import ensure
from lab.transcripts.conversation import Conversation, Servers
from lab.transcripts.wire import EntryPoint
from proxmox_harness import PASSWORD, SECRET, Start

DOCUMENT: dict[str, Any] = json.loads(Path(__file__).with_name("proxmox-transcripts.json").read_text(encoding="utf-8"))
SCENARIOS = {scenario["name"]: scenario for scenario in DOCUMENT["scenarios"]}
# Shorter than on the real server, in the same proportions: what is slow there is slow here.
TIMING = Timing(
    refused_login=0, statistics=1, agent=0.2, lock=0.5, image_copy=0.2, volume=0.02, migration=0.1, unplug=0.2,
    upload=0.5, power_on=0.2, shutdown=5,
)  # fmt: skip
WORLD = World()
BOOT = 2.0  # seconds; longer than an agent is waited for
SETTLE = 2.2  # seconds until late statistics are there

# Exchanges that differ, and why. Life-cycle scenarios have none.
KNOWN: Mapping[str, Mapping[int, str]] = {
    "guest-agent": {10: "VM 101 was stopped between two exchanges, and the file does not say so: here it still runs"},
}
LIFE_CYCLE = ("create-", "clone-", "config-", "pending-", "resend-", "resize", "power-", "delete-", "pools", "tasks")
LIFE_CYCLE += ("cluster-resources-freshness", "second-node", "nextid-", "guest-shutdown")


@pytest.mark.parametrize("name", SCENARIOS)
def test_recorded_scenario(name: str, start: Start) -> None:
    found = replay(DOCUMENT, SCENARIOS[name], start)
    known = KNOWN.get(name, {})
    assert not known or not name.startswith(LIFE_CYCLE)
    unexpected = {number: texts for number, texts in found.items() if number not in known}
    assert not unexpected, json.dumps(unexpected, indent=1)
    assert set(known) == set(found), "an exchange that is listed as different is equal: strike it from the list"


# The same conversations about other things: nothing in the simulator may know the names of the recording.
OTHER_NAMES = (
    *((r"\bpve1\b", "alpha"), (r"\bpve2\b", "beta-2"), (r"\b9000\b", "7777"), (r"\b(3[1-4]\d)\b", r"5\1")),
    *((r"\bop1\b", "team.9"), (r"\bsecond\b", "fast"), (r"\btmpl-web\b", "golden"), (r"\bbase\.qcow2\b", "os.qcow2")),
    *(
        (r"\b10\.98\.0\.", "172.20.7."),
        (r"\b10\.99\.0\.", "192.0.2."),
        (r"\bmastodon-1\b", "tube"),
        (r"\bdep\b", "dev"),
    ),
    *((r"\baudit@pve\b", "reader@pve"), (r"\bon2\b", "elsewhere"), (r"\bvm(\d{3})\b", r"machine\1")),
)
VARIED = (
    *("create-import-cloudinit-start", "create-vmid-exists", "clone-full", "clone-linked", "lock-refusal", "delete-vm"),
    *("cluster-resources-freshness", "pools", "access", "second-node", "guest-shutdown", "storage"),
)


@pytest.mark.parametrize("name", VARIED)
def test_the_same_about_other_things(name: str, start: Start) -> None:
    text = re.sub("(%[0-9A-F]{2})", "\\1\0", json.dumps(DOCUMENT))  # names begin after an encoded character, too
    for pattern, other in OTHER_NAMES:
        text, number = re.subn(pattern, other, text)
        assert number, f"the recording has no {pattern}"
    document = json.loads(text.replace("\0", ""))
    scenario = document["scenarios"][list(SCENARIOS).index(name)]
    world = World(("alpha", "beta-2"), network="192.0.2.0/24", bridge_network="172.20.7.0/24")
    found = replay(document, scenario, start, world)
    assert not found, json.dumps(found, indent=1)


def replay(
    document: Mapping[str, Any], scenario: Mapping[str, Any], start: Start, world: World = WORLD
) -> dict[int, list[str]]:
    """The differences by number of the exchange."""
    accounts = {
        "users": {"root@pam": {"password": PASSWORD}},
        "tokens": {"root@pam!lab": {"secret": SECRET, "privsep": 0}},
    }
    image = IMAGE_PROSE.search(document["world"]["prose"])
    assert image
    volid = f"{image['storage']}:import/{image['name']}"
    there = Image(volid, size=1600 << 20, used=int(image["bytes"]), nodes=(world.nodes[0],))
    hosts = EmulatedGuests(BOOT)
    simulator = start(timing=TIMING, hosts=hosts, images=(there,), accounts=accounts, entries=2, world=world)
    first, second = (EntryPoint("127.0.0.1", port, None) for port in simulator.ports)
    servers = Servers(first, {world.nodes[1]: second})
    root = Accounts(first, document["world"]["auth"], "root@pam", PASSWORD, {"root@pam!lab": SECRET})
    ensure(Conversation(servers, root, document), servers, root, document)
    conversation = Conversation(servers, root, document, SETTLE)
    compared = list(conversation.scenario(scenario))
    assert [one.number for one in compared] == list(range(len(scenario["exchanges"])))
    return {one.number: [one.request, *one.differences] for one in compared if one.differences}
