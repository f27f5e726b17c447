# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module as Ansible starts it: arguments in, JSON out."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.certificate import make_certificate
from support.redis_server import RedisServer, redis_server

MODULE = Path(__file__).parents[3] / "plugins" / "modules" / "valkey_users.py"
SENTINEL = "sentinel-5d20-password"
DIGEST = hashlib.sha256(SENTINEL.encode()).hexdigest()
WITHOUT_LIBRARY = "import runpy, sys; sys.modules['redis'] = None; runpy.run_path(sys.argv.pop(), {}, '__main__')"


def start(arguments: dict[str, Any], *python: str, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *python, str(MODULE)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    # Ansible itself replaces the arguments that hide secrets
    shown = json.dumps({name: value for name, value in result.items() if name != "invocation"}) + done.stderr
    assert SENTINEL not in done.stdout + done.stderr
    assert DIGEST not in shown
    return result


def reach(running: RedisServer) -> dict[str, str]:
    return {
        "VALKEY_HOST": running.host,
        "VALKEY_PORT": str(running.port),
        "VALKEY_USER": running.user,
        "VALKEY_PASSWORD": running.password,
    }


def test_server_and_login_come_from_the_environment(running: RedisServer) -> None:
    environment = reach(running)
    arguments = {"users": [{"name": "by_module", "prefix": "by_module", "passwords": [SENTINEL]}]}
    predicted = start({**arguments, "_ansible_check_mode": True}, **environment)
    assert (predicted["changed"], predicted["results"][0]["action"]) == (True, "create")
    assert predicted["persistence"] == {"method": "aclfile", "saved": False}
    done = start(arguments, **environment)
    assert done["diff"] == predicted["diff"]
    assert (done["changed"], done.get("failed", False)) == (True, False)
    assert done["persistence"] == {"method": "aclfile", "saved": True}
    assert "by_module" in running.acl_file.read_text(encoding="utf-8")
    hashed = {"users": [{"name": "by_module", "prefix": "by_module", "password_hashes": [DIGEST.upper()]}]}
    again = start(hashed, **environment)
    assert (again["changed"], again["results"][0]["enabled"]) == (False, True)
    assert DIGEST.upper() not in json.dumps(again)
    denied = start(arguments, **{**environment, "VALKEY_PASSWORD": SENTINEL})
    assert "login_password" in denied["msg"]


def test_the_socket(running: RedisServer) -> None:
    done = start({"users": [], "login_socket": str(running.directory / "socket")}, **reach(running))
    assert not done.get("failed", False), done


def test_empty_passwords_are_refused(running: RedisServer) -> None:
    done = start({"users": [{"name": "empty", "passwords": ["", "good"]}]}, **reach(running))
    assert done["failed"]
    assert done["results"][0]["action"] == "refused"


def test_users_that_cannot_be_saved_fail_the_module(own_server: RedisServer) -> None:
    os.chmod(own_server.directory, 0o555)
    try:
        done = start({"users": [{"name": "kept"}]}, **reach(own_server))
    finally:
        os.chmod(own_server.directory, 0o755)
    assert (done["failed"], done["changed"]) == (True, True)
    assert done["results"][0]["action"] == "create"
    assert done["persistence"] == {"method": "aclfile", "saved": False}
    assert "not saved" in done["msg"]
    again = start({"users": [{"name": "kept"}]}, **reach(own_server))
    assert (again["changed"], again["persistence"]["saved"]) == (False, True)


def test_a_server_that_forgets_and_a_replica_are_warned_of(running: RedisServer) -> None:
    with redis_server(f"replicaof {running.host} {running.port}", acl_file=False, config_file=False) as replica:
        done = start({"users": [{"name": "lost"}]}, **reach(replica))
        text = " ".join(str(warning) for warning in done["warnings"])
        assert "a restart loses its users" in text
        assert "not replicated" in text
        assert done["persistence"] == {"method": "none", "saved": False}


def test_tls(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    for path in (certificate, key):
        path.chmod(0o644)
    settings = [f"tls-cert-file {certificate}", f"tls-key-file {key}", "tls-auth-clients no"]
    with redis_server(*settings) as running:
        with running.client() as admin:
            admin.config_set("port", "0")
            admin.config_set("tls-port", running.port)
        encrypted = {"users": [], "tls": True}
        good = start({**encrypted, "ca_path": str(certificate)}, **reach(running))
        assert not good.get("failed", False), good
        unknown = start(encrypted, **reach(running))
        assert "certificate" in unknown["msg"].lower()
        name = start({**encrypted, "ca_path": str(certificate), "login_host": "localhost"}, **reach(running))
        assert "certificate" in name["msg"].lower()
        unchecked = start({**encrypted, "validate_certs": False}, **reach(running))
        assert not unchecked.get("failed", False), unchecked


def test_a_missing_library_is_named() -> None:
    done = start({"users": []}, "-c", WITHOUT_LIBRARY)
    assert done["failed"]
    assert "redis" in done["msg"]


def test_the_module_writes_nothing_in_check_mode(running: RedisServer) -> None:
    before = running.acl_file.stat()
    with running.client() as admin:
        users = admin.execute_command("ACL", "LIST")
        start({"users": [{"name": "unwritten"}], "_ansible_check_mode": True}, **reach(running))
        assert admin.execute_command("ACL", "LIST") == users
    assert running.acl_file.stat() == before
