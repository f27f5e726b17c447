# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copying over Ansible's own SSH arguments: the words, and the wrapper that Nix gets instead of ssh."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    InvalidInput,
    MissingCommand,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import copy

SYSTEM = "/nix/store/11111111111111111111111111111111-new"
OPTION: dict[str, Any] = {
    "host": "fd99::20",
    "port": 2222,
    "remote_user": "root",
    "timeout": 10,
    "private_key_file": "/keys/my key",
    "ssh_args": "-C -o ControlMaster=auto",
    "ssh_common_args": '-o ProxyCommand="ssh -W %h:%p bastion"',
    "ssh_extra_args": "",
    "ssh_executable": "ssh",
    "host_key_checking": True,
}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PATH with a recording ssh, and a nix-copy-closure that calls ssh as Nix does."""
    said = tmp_path / "said"
    for name, text in (
        ("ssh", f'printf "%s\\n" "$@" >{said}\n'),
        ("nix-copy-closure", f'echo "$*" >{tmp_path}/copied\nssh fediversity-target -x -- nix-store --serve --write\n'),
    ):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}", encoding="utf-8")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_nix_reaches_the_machine_as_ansible_does(program: Path) -> None:
    target = copy.ssh_target(OPTION, "/run/cp/abc", compress=False)
    copy.copy_closure(SYSTEM, target, copy.copy_options(substitute=True, compress=False))
    assert (program / "copied").read_text(encoding="utf-8") == f"--to --use-substitutes fediversity-target {SYSTEM}\n"
    words = (program / "said").read_text(encoding="utf-8").splitlines()
    assert words[words.index("-x") - 1] == "fd99::20"
    assert words[-5:] == ["-x", "--", "nix-store", "--serve", "--write"]
    for word in (
        "Port=2222",
        "User=root",
        'IdentityFile="/keys/my key"',
        "ProxyCommand=ssh -W %h:%p bastion",
        'ControlPath="/run/cp/abc"',
        "BatchMode=yes",
    ):
        assert words[words.index(word) - 1] == "-o"
    assert "-C" not in words


def test_compression_is_kept_when_it_is_wanted(program: Path) -> None:
    target = copy.ssh_target(OPTION, "", compress=True)
    assert "-C" in target.arguments
    assert copy.copy_options(substitute=False, compress=True) == ["--gzip"]
    assert not any("ControlPath" in word for word in target.arguments)


@pytest.mark.parametrize("host", ["-oProxyCommand=id", "a b", "", "$(id)"])
def test_a_host_that_would_be_an_option_is_refused(program: Path, host: str) -> None:
    with pytest.raises(InvalidInput, match="not a host name"):
        copy.ssh_target({**OPTION, "host": host}, "", compress=False)


def test_failures_carry_what_nix_said(program: Path) -> None:
    (program / "nix-copy-closure").write_text("#!/bin/sh\necho error: no space left >&2\nexit 1\n", encoding="utf-8")
    with pytest.raises(BackendError, match="no space left"):
        copy.copy_closure(SYSTEM, copy.ssh_target(OPTION, "", compress=False), [])


def test_a_controller_without_nix_is_told_so(program: Path) -> None:
    (program / "nix-copy-closure").unlink()
    os.environ["PATH"] = str(program)
    with pytest.raises(MissingCommand, match="nix-copy-closure is not on PATH"):
        copy.copy_closure(SYSTEM, copy.ssh_target(OPTION, "", compress=False), [])


def test_the_wrapper_is_sound_shell() -> None:
    target = copy.SshTarget("/usr/bin/ssh", "h", ("-o", "ProxyCommand=sh -c 'echo \"$1\"; `id`'"))
    done = subprocess.run(["sh", "-n"], input=copy.wrapper_text(target), text=True, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
