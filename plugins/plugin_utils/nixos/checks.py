# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Health checks that the controller makes itself: what the machine's users would see."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from urllib.error import HTTPError

from ansible.module_utils.urls import open_url
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.remote import Clock
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import (
    PATIENCE,
    ControllerChecks,
    HttpCheck,
    TcpCheck,
)

TIMEOUT = 10
"""Seconds for one try."""


def first_problem(checks: ControllerChecks, address: str, clock: Clock) -> str:
    """Try every check until it is good, for PATIENCE seconds altogether.

    :param address: where TCP checks without a host go.
    :returns: the first problem, empty when all is well.
    """
    limit = clock.now() + PATIENCE
    tries: list[Callable[[], str]] = [
        *(partial(tcp_problem, check, address) for check in checks.tcp),
        *(partial(http_problem, check) for check in checks.http),
    ]
    for attempt in tries:
        while problem := attempt():
            if clock.now() >= limit:
                return f"seen from the controller: {problem}"
            clock.sleep(1)
    return ""


def tcp_problem(check: TcpCheck, address: str) -> str:
    """Why the port does not accept a connection, empty when it does."""
    host = check.host or address
    try:
        socket.create_connection((host, check.port), timeout=TIMEOUT).close()
    except OSError as error:
        return f"no connection to {host} port {check.port} ({error})"
    return ""


def http_problem(check: HttpCheck) -> str:
    """Why the address does not answer as it should, empty when it does. Redirections are not followed."""
    try:
        response = open_url(
            check.url,
            timeout=TIMEOUT,
            validate_certs=check.validate_certs,
            follow_redirects="none",
            http_agent="fediversity.hosting",
        )
        status = response.getcode()
        response.close()
    except HTTPError as error:
        status = error.code
    except (OSError, HTTPException, ValueError, ssl.SSLError) as error:
        return f"{check.url}: {error}"
    return "" if status == check.status else f"{check.url} answered {status}, not {check.status}"
