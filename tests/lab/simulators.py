# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the Proxmox VE and Garage simulators inside the supervisor; a real Garage where there is one."""

from __future__ import annotations

import asyncio

from aiohttp import web

from lab.certificates import write_certificates
from lab.garage import real
from lab.garage.server import serve_garage
from lab.hosts import Hosts
from lab.identity import Secrets
from lab.paths import State
from lab.proxmox.server import serve_proxmox
from lab.services import (
    CONTROLLER,
    GARAGE_ADMIN_PORT,
    GARAGE_REGION,
    GARAGE_RPC_PORT,
    GARAGE_S3_PORT,
    GARAGE_WEB_PORT,
    PROXMOX_PORT,
)

_SERVER_NAMES = ("pve1.lab.test", "garage.lab.test")


async def serve(state: State, hosts: Hosts, secrets: Secrets) -> list[web.AppRunner]:
    """The simulators, listening; they live as long as the event loop, and a real Garage as long as the supervisor."""
    certificate, key = state.root / "server.pem", state.root / "server.key"
    write_certificates(state.ca, certificate, key, names=_SERVER_NAMES, addresses=(CONTROLLER,))
    proxmox = await serve_proxmox(
        hosts=hosts, state=state.proxmox, host=CONTROLLER, port=PROXMOX_PORT,
        certificate=certificate, key=key, access_log=state.proxmox / "access.log",
    )  # fmt: skip
    program = real.program()
    if program:
        await asyncio.to_thread(real.start, program, garage_plan(state, secrets))
        return [proxmox]
    garage = await serve_garage(
        state=state.garage / "tables.json", host=CONTROLLER, port=GARAGE_ADMIN_PORT, s3_port=GARAGE_S3_PORT,
        region=GARAGE_REGION, admin_token=secrets.garage_admin_token, access_log=state.garage / "access.log",
    )  # fmt: skip
    return [proxmox, garage]


def garage_plan(state: State, secrets: Secrets) -> real.Plan:
    """Where a real Garage of the lab listens: the ports of the simulator, and Garage's own for the rest."""
    return real.Plan(
        directory=state.garage,
        admin=f"{CONTROLLER}:{GARAGE_ADMIN_PORT}",
        s3=f"{CONTROLLER}:{GARAGE_S3_PORT}",
        web=f"{CONTROLLER}:{GARAGE_WEB_PORT}",
        rpc=f"{CONTROLLER}:{GARAGE_RPC_PORT}",
        region=GARAGE_REGION,
        admin_token=secrets.garage_admin_token,
    )
