# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection of an action plugin, and what the two action plugins make of bad arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible_collections.fediversity.hosting.plugins.action import nixos_rebuild, nixos_transaction, secret_files
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, Unreachable
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.remote import (
    NEW_CONNECTION,
    WATCHFUL,
    AnsibleMachine,
)


@dataclass
class Connection:
    """The part of a connection plugin that is used."""

    options: dict[str, Any] = field(default_factory=lambda: {"ssh_args": "-o ControlPersist=60s"})
    resets: int = 0

    def has_option(self, name: str) -> bool:
        return name in self.options

    def get_option(self, name: str) -> Any:
        return self.options[name]

    def set_option(self, name: str, value: Any) -> None:
        self.options[name] = value

    def reset(self) -> None:
        self.resets += 1


@dataclass
class Action:
    """The part of an action plugin that is used."""

    answer: dict[str, Any] | Exception
    _connection: Connection = field(default_factory=Connection)
    seen: list[tuple[str, str]] = field(default_factory=list)

    def _low_level_execute_command(self, command: str, in_data: bytes) -> dict[str, Any]:
        self.seen.append((command, str(self._connection.options.get("ssh_args"))))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_new_connections_override_ansibles_options_and_leave_them_as_they_were() -> None:
    action = Action({"rc": 0, "stdout": "@a=b", "stderr": ""})
    machine = AnsibleMachine(action)
    assert machine.run_over_new_connection(b"x") == "@a=b"
    machine.run(b"x")
    assert [arguments for _command, arguments in action.seen] == [
        f"{NEW_CONNECTION} -o ControlPersist=60s",
        f"{WATCHFUL} -o ControlPersist=60s",
    ]
    assert action._connection.options == {"ssh_args": "-o ControlPersist=60s"}
    assert "ControlPath=none" in NEW_CONNECTION


def test_options_come_back_after_a_failure_too() -> None:
    action = Action(AnsibleConnectionFailure("Failed to connect\r\nWarning: Permanently added x\r\nConnection refused"))
    with pytest.raises(Unreachable, match=r"^Failed to connect Connection refused$"):
        AnsibleMachine(action).run_over_new_connection(b"x")
    assert action._connection.options == {"ssh_args": "-o ControlPersist=60s"}


def test_other_connection_plugins_are_reset_instead() -> None:
    action = Action({"rc": 0, "stdout": "@a=b", "stderr": ""}, Connection({}))
    AnsibleMachine(action).run_over_new_connection(b"x")
    assert action._connection.resets == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"rc": 127, "stdout": "", "stderr": "/bin/sh: not found\n"}, r"code 127\): /bin/sh: not found"),
        ({"rc": 1, "stdout": "", "stderr": "sudo: a password is required\n"}, "rights were refused: sudo: a password"),
        (AnsibleError("Incorrect sudo password"), r"Incorrect sudo password\. Give become_password"),
    ],
)
def test_a_payload_that_cannot_run_is_quoted(answer: dict[str, Any] | Exception, said: str) -> None:
    with pytest.raises(BackendError, match=said):
        AnsibleMachine(Action(answer)).run(b"x")


@dataclass
class Task:
    """The part of a task that is used before a connection is."""

    args: dict[str, Any]
    check_mode: bool = False
    diff: bool = True
    async_val: int = 0
    action: str = "test"


@pytest.mark.parametrize(
    "arguments",
    [
        {"files": [{"path": "/a/b", "content": "sentinel", "mode": "999"}]},
        {"files": [{"path": "b", "content": "sentinel"}]},
        {"files": [{"path": "/a/b", "content": "sentinel", "sentinel-option": 1}]},
        {"files": [{"content": "sentinel"}]},
        {"files": ["sentinel"]},
        {"files": {"sentinel": 1}},
        {"files": [{"path": "/a/b", "content": "sentinel"}], "purge": True},
    ],
)
def test_bad_arguments_never_show_a_content(monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]) -> None:
    result = perform(monkeypatch, secret_files, arguments)
    assert result["failed"]
    assert "sentinel" not in str(result).replace("sentinel-option", "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"system": "/etc/passwd"}, "vm-1: system: '/etc/passwd' is not a store path"),
        ({"system": ""}, "vm-1: system: '' is not a store path"),
        (
            {"system": "/nix/store/11111111111111111111111111111111-new", "confirm_timeout": 0},
            "confirm_timeout: 0 is out",
        ),
        ({"flake": ".", "confirm_timeout": 99999}, "confirm_timeout: 99999 is out"),
    ],
)
def test_bad_requests_fail_before_the_machine_is_asked(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], text: str
) -> None:
    result = perform(monkeypatch, nixos_rebuild, arguments)
    assert result["failed"]
    assert text in result["msg"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"flake": "github:a/b", "file": "x"}, "mutually exclusive"),
        ({}, "one of the following is required: system, flake, file"),
    ],
)
def test_one_source_of_the_system_is_required(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(AnsibleActionFail, match=text):
        perform(monkeypatch, nixos_rebuild, arguments)


def test_a_decision_without_a_transaction_fails_before_the_machine_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "vm-1: txn:" in perform(monkeypatch, nixos_transaction, {"decision": "commit"})["msg"]


def perform(monkeypatch: pytest.MonkeyPatch, plugin: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run an action plugin without a connection: it must fail before it needs one."""
    monkeypatch.setattr(plugin.ActionBase, "run", lambda self, tmp, task_vars: {})
    action = plugin.ActionModule.__new__(plugin.ActionModule)
    action._task = Task(arguments)
    action._load_name = "test"
    action._connection = None
    return dict(action.run(None, {"inventory_hostname": "vm-1"}))
