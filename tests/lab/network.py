# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's network as the world has it: the bridge, and faults of the way between the controller and a host."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.launch import BRIDGE

# Fixed: after `lab down` and `up` nobody keeps an address of the last bridge.
_BRIDGE_MAC = "02:fe:d1:00:00:01"
_NOBODY = "02:fe:d1:00:00:00"

# the rules of `cut` have to come before the one that delivers packets to this machine
_MAKE_PLACE = ("rule add pref 100 lookup local", "rule del pref 0")


def make_bridge(address: str) -> None:
    """The bridge without uplink, with the controller's IPv4 address (CIDR)."""
    _ip(
        "-4",
        "link set lo up",
        f"link add {BRIDGE} address {_BRIDGE_MAC} type bridge forward_delay 0",
        f"addr add {address} dev {BRIDGE}",
        f"link set {BRIDGE} up",
        *_MAKE_PLACE,
    )
    if Path("/proc/net/if_inet6").exists():
        _ip("-6", f"addr add fd99::1/64 dev {BRIDGE} nodad", *_MAKE_PLACE)


def cut(addresses: Sequence[str]) -> None:
    """Lose, without a word, what the controller sends to these addresses and their TCP; neighbours still find it."""
    for address in addresses:
        neighbour = f"neigh replace {address} lladdr {_NOBODY} dev {BRIDGE} nud permanent"
        _ip(_family(address), neighbour, f"rule add {_from(address)}")


def restore(addresses: Sequence[str]) -> None:
    """Undo `cut`."""
    for address in addresses:
        _ip(_family(address), f"rule del {_from(address)}", f"neigh del {address} dev {BRIDGE}")


def _family(address: str) -> str:
    return "-6" if ":" in address else "-4"


def _from(address: str) -> str:
    return f"pref 1 from {address} iif {BRIDGE} ipproto tcp blackhole"


def _ip(family: str, *commands: str) -> None:
    subprocess.run(["ip", family, "-batch", "-"], input="\n".join(commands), text=True, check=True)
