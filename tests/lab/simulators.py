# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the Proxmox VE and Garage simulators inside the supervisor."""

from __future__ import annotations

from aiohttp import web

from lab.certificates import write_certificates
from lab.garage.server import serve_garage
from lab.hosts import Hosts
from lab.identity import Secrets
from lab.paths import State
from lab.proxmox.server import serve_proxmox
from lab.services import CONTROLLER, GARAGE_ADMIN_PORT, PROXMOX_PORT

_SERVER_NAMES = ("pve1.lab.test", "garage.lab.test")


async def serve(state: State, hosts: Hosts, secrets: Secrets) -> list[web.AppRunner]:
    """Both simulators, listening; they live as long as the event loop."""
    certificate, key = state.root / "server.pem", state.root / "server.key"
    write_certificates(state.ca, certificate, key, names=_SERVER_NAMES, addresses=(CONTROLLER,))
    return [
        await serve_proxmox(
            hosts=hosts, state=state.proxmox, host=CONTROLLER, port=PROXMOX_PORT,
            certificate=certificate, key=key, access_log=state.proxmox / "access.log",
        ),
        await serve_garage(
            state=state.garage / "tables.json", host=CONTROLLER, port=GARAGE_ADMIN_PORT,
            admin_token=secrets.garage_admin_token, access_log=state.garage / "access.log",
        ),
    ]  # fmt: skip
