# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which host build_on names, and that it is reached with its own variables, the environment and the play's keywords."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.loader import connection_loader, init_plugin_loader
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import places
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.build import CONTROLLER, BuildHost

MACHINE = BuildHost("web1", ("ssh", "10.0.0.1"))
TASK = {"action": "test", "connection": "ssh", "remote_user": "deploy", "timeout": 7}
HOSTVARS: dict[str, dict[str, Any]] = {
    "build1": {
        "inventory_hostname": "build1",
        "ansible_host": "fd99::7",
        "ansible_port": 2222,
        "ansible_user": "builder",
        "ansible_ssh_common_args": "-o 'ProxyCommand=ssh -W %h:%p bastion'",
    },
    "plain": {"inventory_hostname": "plain"},
    "here": {"inventory_hostname": "here", "ansible_connection": "local"},
    "windows": {"inventory_hostname": "windows", "ansible_connection": "winrm"},
    "odd": {"inventory_hostname": "odd", "ansible_host": "-oProxyCommand=id"},
}


@dataclass
class Loaders:
    """The part of Ansible's plugin loaders that is used."""

    connection_loader: Any = connection_loader


@dataclass
class Action:
    """The part of an action plugin that is used."""

    _task: Task = field(default_factory=lambda: Task.load(TASK))
    _play_context: PlayContext = field(default_factory=PlayContext)
    _shared_loader_obj: Loaders = field(default_factory=Loaders)


@pytest.fixture(scope="module", autouse=True)
def _loaders() -> None:
    init_plugin_loader()


def place(name: str) -> BuildHost:
    return places.build_host(Action(), name, MACHINE, {"hostvars": HOSTVARS})


@pytest.mark.parametrize(
    ("name", "expected"),
    [("controller", CONTROLLER), ("target", MACHINE), ("web1", MACHINE), ("here", CONTROLLER)],
)
def test_names(name: str, expected: BuildHost) -> None:
    assert place(name) == expected


def test_another_host_is_reached_by_its_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_PRIVATE_KEY_FILE", "/keys/from the environment")
    words = place("build1").ssh
    assert words[-1] == "fd99::7"
    for word in ("Port=2222", "User=builder", 'IdentityFile="/keys/from the environment"', "BatchMode=yes"):
        assert words[words.index(word) - 1] == "-o"
    assert "ProxyCommand=ssh -W %h:%p bastion" in words
    assert "ConnectTimeout=7" not in words  # that is how long the task may take


def test_a_host_without_variables_is_reached_by_its_name_as_the_play_says() -> None:
    words = place("plain").ssh
    assert words[-1] == "plain"
    assert "User=deploy" in words


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("none", "the inventory has no host 'none'"),
        ("windows", "windows is not reached over SSH"),
        ("odd", "is not a host name or address"),
    ],
)
def test_refusals(name: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        place(name)
