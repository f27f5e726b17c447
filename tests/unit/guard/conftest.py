# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sandbox as a fixture, once per shell that a machine may have as sh."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from guard_sandbox import FAKES, Sandbox


@pytest.fixture(params=["sh", "bash"])
def sandbox(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    shell = shutil.which(request.param)
    if shell is None:
        pytest.skip(f"{request.param} is not installed")
    for name in (
        "run",
        "boot/loader/entries",
        "fake/bin",
        "fake/units",
        "nix/var/nix/profiles",
        "nix/var/nix/gcroots",
        "etc",
        "var/lib",
    ):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "fake/bin/sh").symlink_to(shell)
    machine = Sandbox(tmp_path, shell)
    machine.program("ssh-keyscan", "echo key")
    machine.program("ip", 'case $1 in -o) echo "eth0 inet 192.0.2.1/24" ;; route) echo "$3 dev eth0" ;; esac')
    old = machine.system("old")
    (tmp_path / "etc/NIXOS").touch()
    (tmp_path / "run/current-system").symlink_to(old)
    (tmp_path / "run/booted-system").symlink_to(old)
    profile = tmp_path / "nix/var/nix/profiles/system"
    profile.with_name("system-7-link").symlink_to(old)
    profile.symlink_to("system-7-link")
    subprocess.run(["sh", FAKES / "install-boot-loader", old], env=machine.environment, check=True, timeout=60)
    yield machine
    machine.kill_units()
