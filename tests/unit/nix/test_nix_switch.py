# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""switch-to-configuration of the stand-in: order, exit codes and boot loader, in a private root without a host.

What really starts and stops units is shown on lab hosts by the integration tests.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nix_fleets import fleet, instance, machine

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

Host = Callable[[str], subprocess.CompletedProcess[str]]
Build = Callable[..., str]


@pytest.fixture(scope="module")
def build(nix: Callable[..., subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Store path of a system with Pixelfed, with the given plain options."""

    def run(**options: Any) -> str:
        path = tmp_path_factory.mktemp("fleet") / "fleet.json"
        entry = instance("alice", "pics", "pixelfed", nixosOptions=options)
        path.write_text(json.dumps(fleet(machine("vm", entry))), encoding="utf-8")
        done = nix(
            *("nix-build", "--no-out-link", "-A", "systems.vm", str(ROOT / "nix/fleet.nix")),
            *("--argstr", "nixpkgs", str(ROOT / "tests/lab/nixpkgs"), "--argstr", "fleet", str(path)),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture(scope="module")
def system(build: Build) -> str:
    return build()


@pytest.fixture
def host(nix_environment: dict[str, str], tmp_path: Path) -> Host:
    """Runs a shell script in a private root with the store."""
    root = tmp_path / "root"
    root.mkdir()
    namespaces = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                "unshare",
                *namespaces,
                "sh",
                str(HERE / "chroot.sh"),
                str(root),
                nix_environment["NIX_STORE_DIR"],
                script,
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_wrong_action_is_refused(host: Host, system: str) -> None:
    done = host(f"{system}/bin/switch-to-configuration frobnicate")
    assert done.returncode == 1
    assert "Usage:" in done.stderr


@pytest.mark.parametrize("action", ["switch", "boot", "test", "dry-activate", "check"])
def test_a_held_lock_ends_every_action(host: Host, system: str, action: str) -> None:
    done = host(
        "mkdir /run/nixos; exec 7> /run/nixos/switch-to-configuration.lock; flock 7; "
        f"{system}/bin/switch-to-configuration {action}"
    )
    assert done.returncode == 11
    assert "Could not acquire lock" in done.stderr


@pytest.mark.parametrize("action", ["switch", "boot", "test", "check"])
def test_a_failing_check_ends_it_before_anything_is_done(host: Host, build: Build, action: str) -> None:
    refused = build(lab={"fault": "pre-switch-fails"})
    done = host(f"{refused}/bin/switch-to-configuration {action}; code=$?; ls /boot; exit $code")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Pre-switch checks failed" in done.stderr


def test_checks_get_the_system_and_the_action_and_can_be_skipped(host: Host, build: Build) -> None:
    curious = build(system={"preSwitchChecks": {"show": 'echo "$1 $2"; false'}})
    done = host(f"{curious}/bin/switch-to-configuration check")
    assert (done.returncode, done.stdout) == (1, f"{curious} check\n")
    assert host(f"NIXOS_NO_CHECK=1 {curious}/bin/switch-to-configuration check").returncode == 0


DEFAULT = (
    "cat /boot/loader/entries/$(sed -n 's/^default //p' /boot/loader/loader.conf) 2> /dev/null | "
    "sed -n 's|^options init=||p'; "
)


def generation(number: int, system: str, profile: str = "system") -> str:
    """Script: what nix-env --set does to a profile."""
    profile = f"/nix/var/nix/profiles/{profile}"
    link = f"{profile}-{number}-link"
    return f"mkdir -p {Path(profile).parent}; ln -s {system} {link}; ln -sfn {link} {profile}; "


def test_boot_writes_entries_of_all_profiles_and_the_default_of_the_system_passed(
    host: Host, build: Build, system: str
) -> None:
    other = build(environment={"etc": {"x": {"text": "candidate"}}})
    done = host(
        generation(9, system)
        + generation(10, other)
        + generation(3, other, "system-profiles/candidate")
        + "mkdir -p /boot/loader/entries; echo stale > /boot/loader/entries/nixos-generation-8.conf; "
        f"{system}/bin/switch-to-configuration boot || exit; "
        "cd /boot/loader; grep -rE '^(default|options|title) ' | LC_ALL=C sort; readlink /run/current-system"
    )
    assert done.stdout.splitlines() == [
        f"entries/nixos-candidate-generation-3.conf:options init={other}/init",
        "entries/nixos-candidate-generation-3.conf:title NixOS [candidate]",
        f"entries/nixos-generation-10.conf:options init={other}/init",
        "entries/nixos-generation-10.conf:title NixOS",
        f"entries/nixos-generation-9.conf:options init={system}/init",
        "entries/nixos-generation-9.conf:title NixOS",
        "loader.conf:default nixos-generation-9.conf",
    ]


def test_the_last_entry_of_a_system_is_the_default_and_a_system_without_one_leaves_it(
    host: Host, build: Build, system: str
) -> None:
    other = build(environment={"etc": {"x": {"text": "candidate"}}})
    done = host(
        generation(9, system)
        + generation(10, system)
        + generation(3, system, "system-profiles/candidate")
        + f"show='sed -n s/^default.//p /boot/loader/loader.conf'; {system}/bin/switch-to-configuration boot; $show; "
        f"cd /nix/var/nix/profiles/system-profiles; rm candidate; {system}/bin/switch-to-configuration boot; $show; "
        f"{other}/bin/switch-to-configuration boot; $show; ls /boot/loader/entries"
    )
    assert done.stdout.splitlines() == [
        "nixos-candidate-generation-3.conf",
        *["nixos-generation-10.conf"] * 2,
        *["nixos-generation-10.conf", "nixos-generation-9.conf"],
    ]


def test_another_kernel_has_its_parameters_in_the_entry(host: Host, build: Build) -> None:
    new = build(lab={"kernel": "6.6"})
    done = host(generation(1, new) + f"{new}/bin/switch-to-configuration boot; {DEFAULT} cat {new}/kernel")
    assert done.stdout == f"{new}/init loglevel=4 lab.kernel=6.6\nLinux version 6.6\n"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            "mount -t tmpfs -o size=64k tmpfs /boot; cp -a /saved/. /boot; cat /dev/zero > /boot/ballast",
            "No space left",
        ),
        ("touch /boot/loader/loader.tmp", "loader.tmp"),
    ],
    ids=["full", "interrupted"],
)
def test_a_boot_loader_that_cannot_be_installed_keeps_the_default(
    host: Host, build: Build, system: str, broken: str, message: str
) -> None:
    other = build(environment={"etc": {"x": {"text": "other"}}})
    done = host(
        generation(1, system)
        + f"{system}/bin/switch-to-configuration boot || exit 9; cp -a /boot /saved; {broken}; "
        + generation(2, other)
        + f"{other}/bin/switch-to-configuration switch; code=$?; {DEFAULT} readlink /run/current-system; exit $code"
    )
    assert (done.returncode, done.stdout) == (1, f"{system}/init\n")
    assert message in done.stderr


def test_another_init_interface_needs_a_reboot_and_switch_has_set_the_default(
    host: Host, build: Build, system: str
) -> None:
    new = build(lab={"fault": "needs-reboot"})
    for action, default in (("test", ""), ("switch", f"{new}/init\n")):
        done = host(
            generation(1, new)
            + f"ln -s {system} /run/current-system; {new}/bin/switch-to-configuration {action}; code=$?; "
            f"{DEFAULT} readlink /run/current-system; exit $code"
        )
        assert (done.returncode, done.stdout) == (100, f"{default}{system}\n")


def test_dry_activate_says_what_it_would_do_and_does_nothing(host: Host, build: Build, system: str) -> None:
    new = build(services={"redis": {"servers": {"pixelfed": {"port": 7777}}}})
    done = host(
        f"ln -s {system} /run/current-system; mkdir -p /run/systemd/system; cd /run/systemd/system; "
        f"for unit in {system}/etc/systemd/system/*.service; do "
        # the stand-in takes links into /nix/store for its own
        'ln -s /nix/store/${unit##*/} .; cp $unit /nix/store; echo "${unit##*/} active" >> /run/states; done; '
        f"{new}/bin/switch-to-configuration dry-activate; ls /boot; readlink /run/current-system"
    )
    assert done.stdout.splitlines() == [
        "would stop the following units: redis-pixelfed.service",
        "would activate the configuration...",
        "would start the following units: redis-pixelfed.service ",
        system,
    ]
