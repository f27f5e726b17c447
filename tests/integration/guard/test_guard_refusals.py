# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input: a clear error before anything is armed, and the machine is as it was."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guard_lab import ROOT, GuardedHost

pytestmark = pytest.mark.lab


@pytest.fixture
def untouched(host: GuardedHost) -> Iterator[GuardedHost]:
    """The host; its journal and its system must stay."""
    journal = host.journal()
    yield host
    assert host.journal() == journal
    host.assert_clean("base")


def refusal(host: GuardedHost, arguments: dict[str, Any], *options: str) -> str:
    result = host.start("nixos_rebuild", {"connect_timeout": 5, **arguments}, *options).result()
    assert result["failed"], result
    assert not result.get("changed")
    return str(result["msg"])


def stored(host: GuardedHost, directory: Path) -> str:
    """Put a directory into the controller's store."""
    command = [ROOT / "lab", "exec", "--", "nix-store", "--add", str(directory)]
    done = subprocess.run(command, env=host.environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_a_path_that_is_no_system(untouched: GuardedHost, tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello/readme").write_text("hello\n", encoding="utf-8")
    system = stored(untouched, tmp_path / "hello")
    assert "is not a NixOS system: it has no bin/switch-to-configuration" in refusal(untouched, {"system": system})


def test_a_system_for_another_architecture(untouched: GuardedHost, tmp_path: Path) -> None:
    (tmp_path / "foreign/bin").mkdir(parents=True)
    (tmp_path / "foreign/bin/switch-to-configuration").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "foreign/system").write_text("sparc-linux", encoding="utf-8")
    system = stored(untouched, tmp_path / "foreign")
    # the lab's controller has a store of its own, which this check must look into too
    assert "is built for sparc-linux, the machine is" in refusal(untouched, {"system": system})


def test_a_target_that_is_not_nixos(untouched: GuardedHost) -> None:
    """The lab's controller is a Debian with Nix."""
    said = refusal(untouched, {"system": untouched.systems["next"]}, "-c", "local")
    assert "the machine does not run NixOS" in said


def test_a_foreign_running_system(untouched: GuardedHost) -> None:
    foreign = "/nix/store/00000000000000000000000000000000-by-hand"
    untouched.shell(
        f"cp -a $(readlink -f /run/current-system) {foreign}; readlink /run/current-system >/run/was;"
        f" ln -sfn {foreign} /run/current-system"
    )
    try:
        said = refusal(untouched, {"system": untouched.systems["next"]})
    finally:
        untouched.shell(f"ln -sfn $(cat /run/was) /run/current-system; rm -rf {foreign} /run/was")
    assert f"the machine runs {foreign}, which was not deployed from here" in said
    assert "replace_unknown: true" in said


def test_no_privilege(untouched: GuardedHost) -> None:
    untouched.shell(
        "id guest >/dev/null 2>&1 || useradd -m -s /bin/sh guest; install -d -o guest -m 700 /home/guest/.ssh;"
        " cat /root/.ssh/authorized_keys /etc/ssh/authorized_keys.d/root 2>/dev/null >/home/guest/.ssh/authorized_keys;"
        " chown guest /home/guest/.ssh/authorized_keys"
    )
    system = untouched.systems["next"]
    said = refusal(untouched, {"system": system}, "-u", "guest")
    assert "the task runs there as user" in said
    assert "set become: true" in said
    assert "rights were refused" in refusal(untouched, {"system": system}, "-u", "guest", "-b", "--become-method", "su")


@pytest.mark.parametrize(
    ("option", "value"),
    [("confirm_timeout", 0), ("activation_timeout", 10**9), ("reboot_timeout", 0), ("hold_timeout", -1)],
)
def test_absurd_timeouts(untouched: GuardedHost, option: str, value: int) -> None:
    assert f"{option}: {value} is out of range" in refusal(
        untouched, {"system": untouched.systems["next"], option: value}
    )


def test_a_start_on_trial_without_its_watchdog(untouched: GuardedHost, tmp_path: Path) -> None:
    (tmp_path / "plain/bin").mkdir(parents=True)
    program = tmp_path / "plain/bin/switch-to-configuration"
    program.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    program.chmod(0o755)
    system = stored(untouched, tmp_path / "plain")
    assert "import nix/modules/guard.nix" in refusal(untouched, {"system": system, "reboot": "always"})
