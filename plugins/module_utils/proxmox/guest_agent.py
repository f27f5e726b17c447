# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the guest agent tells; it may be silent for long and is never relied upon."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import networks

# seconds between two questions; the server itself waits 3 s for a silent agent
PAUSE = 2.0


def addresses(links: Iterable[Mapping[str, Any]], config: Mapping[str, str]) -> tuple[str, ...]:
    """The addresses of the VM's own network devices in their order, without those that reach no farther than a link.

    :param links: ``result`` of ``network-get-interfaces``; a link without address has no list of them.
    """
    order = {network.mac: number for number, network in networks(config).items()}
    own = [link for link in links if str(link.get("hardware-address", "")).upper() in order]
    own.sort(key=lambda link: order[str(link["hardware-address"]).upper()])
    found = [str(one.get("ip-address", "")) for link in own for one in link.get("ip-addresses") or ()]
    return tuple(text for text in found if _is_far(text))


def _is_far(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local)


def ask(client: Client, path: str, config: Mapping[str, str]) -> tuple[str, ...] | None:
    """The guest's addresses, None while the agent does not answer."""
    try:
        answer = client.get(f"{path}/agent/network-get-interfaces")
    except HostingError:
        return None
    return addresses(answer.get("result") or (), config)


def wait(client: Client, path: str, config: Mapping[str, str], budget: float) -> tuple[str, ...] | None:
    """The same after at most *budget* seconds."""
    end = client.clock() + budget
    while True:
        found = ask(client, path, config)
        if found or client.clock() >= end:
            return found
        client.sleep(PAUSE)
