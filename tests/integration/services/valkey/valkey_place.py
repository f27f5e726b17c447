# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the suite works: users with a mark of their own on one server, and valkey_users as a user starts it.

VALKEY_HOST, VALKEY_PORT, VALKEY_SOCKET        the server, Valkey or Redis
VALKEY_USER, VALKEY_PASSWORD                   a user that may do everything, because the tests also look around
VALKEY_TLS, VALKEY_CA_PATH                     as for the module

Without VALKEY_HOST and VALKEY_SOCKET the same tests run on a private server.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import redis
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.fediversity.hosting.plugins.module_utils.valkey.client import Server, facts
from support.cutting_proxy import Proxy
from support.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[4]
MODULE = ROOT / "plugins" / "modules" / "valkey_users.py"
# of all places; other workers of the same suite may use the same server
STEM = "it-valkey-"
TOLD = ("name", "action", "changed", "failed")

Result = dict[str, Any]
User = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Users whose names begin with ``mark``; nobody else on the server has such.

    :param private: the server itself, if it is ours.
    """

    server: Server
    private: RedisServer | None = None
    mark: str = field(default_factory=lambda: f"{STEM}{secrets.token_hex(4)}")

    def name(self, what: str) -> str:
        return f"{self.mark}-{what}"

    def tenant(self, what: str, *passwords: str, **fields: Any) -> User:
        """A user with a prefix of its name; *passwords* as :func:`password` takes them."""
        name = self.name(what)
        return {"name": name, "prefix": name, "passwords": [password(each) for each in passwords], **fields}

    def gone(self, what: str) -> User:
        return {"name": self.name(what), "state": "absent"}

    def client(self, what: str | None = None, opener: str = "") -> redis.Redis:
        """A new connection: of one of our users, or of the administrator; replies as the server sends them."""
        if what is None:
            return self.server.connect()
        return replace(self.server, user=self.name(what), password=password(opener)).connect()

    def opens(self, what: str, opener: str) -> bool:
        """Whether a password of one of our users is accepted."""
        with self.client(what, opener) as client:
            try:
                return client.execute_command("ACL", "WHOAMI") == self.name(what)
            except redis.AuthenticationError:
                return False
            except redis.exceptions.NoPermissionError:
                return True

    def lines(self) -> dict[str, str]:
        """What the server has of every user, by name."""
        with self.client() as admin:
            return {line.split(" ")[1]: line for line in admin.execute_command("ACL", "LIST")}

    def knows_selectors(self) -> bool:
        with self.client() as admin:
            return facts(admin, "test").table.selectors

    def others(self) -> dict[str, str]:
        """What the server has of users that no test has made."""
        return {name: line for name, line in self.lines().items() if not name.startswith(STEM)}

    def through(self, proxy: Proxy) -> Place:
        """The same place, reached through a proxy."""
        return replace(self, server=replace(self.server, host=proxy.host, port=proxy.port, socket=None))

    def saving(self, what: str) -> bytes:
        """What a request contains that changes one of our users."""
        name = self.name(what)
        return f"SETUSER\r\n${len(name)}\r\n{name}\r\n".encode()

    def environment(self) -> dict[str, str]:
        server = self.server
        values = {
            "VALKEY_HOST": server.host,
            "VALKEY_PORT": str(server.port),
            "VALKEY_SOCKET": server.socket,
            "VALKEY_USER": server.user,
            "VALKEY_PASSWORD": server.password,
            "VALKEY_TLS": str(server.tls),
            "VALKEY_CA_PATH": server.ca_path,
        }
        taken = ("ANSIBLE_", "VALKEY_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(taken)}
        return {**kept, **{name: value for name, value in values.items() if value is not None}}

    def start(self, *users: User, **options: Any) -> subprocess.Popen[str]:
        """Start the module as Ansible does; :func:`finished` waits for it."""
        process = subprocess.Popen(
            [sys.executable, str(MODULE)],
            env={**self.environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if process.stdin is not None:
            process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {"users": users, **options}}))
            process.stdin.close()
            process.stdin = None
        return process

    def run(self, *users: User, **options: Any) -> Result:
        """One run; it may fail."""
        return finished(self.start(*users, **options))

    def change(self, *users: User) -> Result:
        """Check mode, the real thing and once more in one play: the first is right, the last finds nothing to do."""
        predicted, result, again = self.play({"users": users}, {"users": users}, {"users": users})
        assert not result["failed"], result["msg"]
        assert [[item[key] for key in TOLD] for item in predicted["results"]] == [
            [item[key] for key in TOLD] for item in result["results"]
        ]
        assert predicted["diff"] == result["diff"]
        assert not predicted["persistence"]["saved"]
        assert result["changed"], result["msg"]
        assert (again["changed"], again["failed"]) == (False, False), (again["msg"], again["diff"])
        assert not any("probe" in name for name in self.lines())
        return result

    def play(self, check: Mapping[str, Any], *runs: Mapping[str, Any]) -> list[Result]:
        """valkey_users with each of the arguments, the first in check mode, by ansible-playbook."""
        names = [f"result_{number}" for number in range(1 + len(runs))]
        steps: list[dict[str, Any]] = [
            {
                "fediversity.hosting.valkey_users": dict(arguments),
                "check_mode": number == 0,
                "register": name,
                "ignore_errors": True,
            }
            for number, (name, arguments) in enumerate(zip(names, (check, *runs), strict=True))
        ]
        with tempfile.TemporaryDirectory(prefix="valkey-") as directory:
            output, playbook = Path(directory, "results.json"), Path(directory, "play.yml")
            kept = "{{ [" + ", ".join(names) + "] | to_json }}"
            steps.append({"ansible.builtin.copy": {"content": kept, "dest": str(output), "mode": "0600"}})
            play = {"hosts": "localhost", "gather_facts": False, "tasks": steps}
            playbook.write_text(json.dumps([play]), encoding="utf-8")
            done = subprocess.run(
                [
                    *(str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,"),
                    *("-e", f"ansible_python_interpreter={sys.executable}", "-e", "ansible_connection=local"),
                    str(playbook),
                ],
                env={
                    **self.environment(),
                    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                    "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
                    "ANSIBLE_HOME": str(Path(directory, "home")),
                    "ANSIBLE_NOCOLOR": "1",
                },
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            results: list[Result] = json.loads(output.read_text(encoding="utf-8"))
        return [{"failed": False, **result} for result in results]

    def clear(self) -> None:
        """Delete what tests have made, whatever it is."""
        names = [name for name in self.lines() if name.startswith(self.mark)]
        with self.client() as admin:
            if names:
                admin.execute_command("ACL", "DELUSER", *names)
            cursor = "0"
            while True:
                cursor, keys = admin.execute_command("SCAN", cursor, "MATCH", f"{self.mark}*", "COUNT", "1000")
                if keys:
                    admin.execute_command("UNLINK", *keys)
                if cursor == "0":
                    return


def password(what: str) -> str:
    """A password of the tests; Ansible hides it wherever it is part of a text, so that it must be unusual."""
    return f"{what}-0f5e62d1"


def finished(process: subprocess.Popen[str]) -> Result:
    """The result of a module that was started."""
    output, errors = process.communicate(timeout=120)
    result: Result = json.loads(output or json.dumps({"failed": True, "msg": errors}))
    return {"failed": False, **result}


def by_name(result: Result) -> dict[str, Result]:
    return {item["name"]: item for item in result["results"]}


def chosen() -> bool:
    """Whether the environment names a server."""
    return any(os.environ.get(name) for name in ("VALKEY_HOST", "VALKEY_SOCKET"))


def from_environment(environment: Mapping[str, str]) -> Place:
    server = Server(
        host=environment.get("VALKEY_HOST", "localhost"),
        port=int(environment.get("VALKEY_PORT", "6379")),
        socket=environment.get("VALKEY_SOCKET"),
        user=environment.get("VALKEY_USER"),
        password=environment.get("VALKEY_PASSWORD"),
        tls=boolean(environment.get("VALKEY_TLS", "no")),
        ca_path=environment.get("VALKEY_CA_PATH"),
    )
    return Place(server)


def ours(running: RedisServer) -> Place:
    return Place(Server(running.host, running.port, user=running.user, password=running.password), running)
