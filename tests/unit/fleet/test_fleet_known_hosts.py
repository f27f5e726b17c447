# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.known_hosts import forget, known_in
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.copy import ssh_target

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFr5K/vHqt9m2itb0iR5rD3UNPpUQcxJADpWB/Jjh30G"

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs the OpenSSH client")


def known_after_forgetting(path: Path, arguments: str, **option: object) -> str:
    target = ssh_target(
        {"host": "10.99.1.10", "ssh_common_args": f"-F none -o 'UserKnownHostsFile={path}' {arguments}", **option},
        "",
        compress=False,
    )
    for file, entry in known_in(target):
        forget(file, entry)
    assert known_in(target) == []
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("entry", "arguments", "option"),
    [
        ("10.99.1.10", "", {}),
        ("[10.99.1.10]:2222", "", {"port": 2222}),
        ("vm-mastodon", "-o HostKeyAlias=vm-mastodon", {"port": 2222}),
    ],
)
def test_only_the_keys_of_the_machine_are_forgotten(
    tmp_path: Path, entry: str, arguments: str, option: dict[str, object]
) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"10.99.1.11 {KEY}\n{entry} {KEY}\n", encoding="utf-8")
    assert known_after_forgetting(path, arguments, **option) == f"10.99.1.11 {KEY}\n"


def test_a_hashed_entry_is_found_too(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"10.99.1.10 {KEY}\n", encoding="utf-8")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    assert "10.99.1.10" not in path.read_text(encoding="utf-8")
    assert known_after_forgetting(path, "") == ""


def test_a_file_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    target = ssh_target(
        {"host": "10.99.1.10", "ssh_common_args": f"-F none -o UserKnownHostsFile={tmp_path}/none"}, "", compress=False
    )
    assert known_in(target) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=f"{tmp_path}/gone/known_hosts: .*10.99.1.10"):
        forget(tmp_path / "gone" / "known_hosts", "10.99.1.10")
