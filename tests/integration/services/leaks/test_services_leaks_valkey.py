# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords of ACL users, with MONITOR, the slow log and the log of the server."""

from __future__ import annotations

import json
from pathlib import Path

from services_leaks import USUAL, outcomes, played, runs
from support.redis_server import redis_server

SECRETS = {name: f"sentinel-{name}-c2f7" for name in ("first", "second", "hashed", "refused", "login", "unreachable")}


def test_valkey_users(tmp_path: Path) -> None:
    arguments = {
        "login_host": "127.0.0.1",
        "login_port": "{{ port }}",
        "login_user": "admin",
        "login_password": "{{ admin }}",
        "users": [
            {"name": "carol", "prefix": "carol", "passwords": ["{{ first }}", "{{ second }}"]},
            {"name": "dora", "prefix": "dora", "password_hashes": ["{{ hashed | hash('sha256') }}"]},
        ],
    }
    refused = [
        {"name": "carol", "mark": "somebody", "passwords": ["{{ refused }}"]},
        {"name": "two words", "passwords": ["{{ refused }}"]},
        {"name": "dora", "prefix": "dora", "password_hashes": ["{{ refused }}"]},
        {"name": "eve", "commands": ["+nosuch"], "passwords": ["{{ refused }}"]},
    ]
    failing = [
        {"users": refused},
        {"login_password": "{{ login }}"},
        {"login_port": 1, "login_password": "{{ unreachable }}"},
    ]
    with redis_server("slowlog-log-slower-than 0", "slowlog-max-len 10000", "loglevel debug") as server:
        with server.client() as monitoring, server.client() as admin, monitoring.monitor() as monitor:
            variables = {**SECRETS, "port": server.port, "admin": server.password}
            seen = played(tmp_path, runs("valkey_users", arguments, *failing), variables)
            admin.echo("the end")
            heard = []
            while "the end" not in str(heard[-1:]):
                heard.append(monitor.next_command())
            slow = admin.execute_command("SLOWLOG", "GET", "10000")
            denied = admin.execute_command("ACL", "LOG")
        server_log = server.log
    assert outcomes(seen) == [*USUAL, *[(False, True)] * 3]
    servers = {
        "MONITOR": json.dumps(heard, default=str),
        "the slow log": json.dumps(slow, default=str),
        "the ACL log": json.dumps(denied, default=str),
        "the server's log": server_log,
    }
    assert "ACL" in servers["the slow log"]
    assert "refuses the login" in seen.results[4]["msg"]
    assert seen.traces({**SECRETS, "admin": server.password}, **servers) == []
