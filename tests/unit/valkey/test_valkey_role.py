# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role, run by ansible-playbook with an inventory and without an operator database."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from support.redis_server import RedisServer

ROOT = Path(__file__).parents[3]
PLAYBOOK = ROOT / "docs" / "examples" / "valkey.yml"
SENTINEL = "sentinel-83b1-password"
DIGEST = hashlib.sha256(SENTINEL.encode()).hexdigest()


def play(directory: Path, running: RedisServer, variables: dict[str, Any], *options: str) -> str:
    inventory = directory / "hosts.yml"
    known = {
        "valkey_login_host": running.host,
        "valkey_login_port": running.port,
        "valkey_login_user": running.user,
        "valkey_login_password": running.password,
        **variables,
    }
    inventory.write_text(json.dumps({"valkey": {"hosts": {"cache1": {}}, "vars": known}}), encoding="utf-8")
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", inventory, "-vvv", "--diff", *options, PLAYBOOK],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.yaml", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout + done.stderr
    assert SENTINEL not in text
    assert DIGEST not in text
    assert running.password not in text
    assert done.returncode == 0, text
    return text


def test_the_role_makes_tenants_and_closes_the_default_user(tmp_path: Path, own_server: RedisServer) -> None:
    with own_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "default", "on", "nopass", "~*", "&*", "+@all")
        variables = {
            "valkey_close_default_user": True,
            "valkey_users": [
                {"name": "alice", "prefix": "alice", "passwords": [SENTINEL]},
                {"name": "bob", "prefix": "bob", "password_hashes": ["{{ '" + SENTINEL + "' | hash('sha256') }}"]},
            ],
        }
        users = admin.execute_command("ACL", "LIST")
        assert "changed=1" in play(tmp_path, own_server, variables, "--check")
        assert admin.execute_command("ACL", "LIST") == users
        first = play(tmp_path, own_server, variables)
        assert "changed=1" in first
        assert "mark: alice" in first
        assert "changed=0" in play(tmp_path, own_server, variables)
        gone = {"valkey_users": [{"name": "bob", "state": "absent"}]}
        assert "changed=1" in play(tmp_path, own_server, gone)
    with own_server.client("alice", SENTINEL) as alice:
        assert alice.set("alice:x", "1")
    for user in ("bob", "default"):
        with own_server.client(user, SENTINEL) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
