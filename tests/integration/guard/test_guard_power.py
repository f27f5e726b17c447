# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Power cuts and restarts of the machine, and the end of the controller, at every phase of a switch."""

from __future__ import annotations

from typing import Any

import pytest
from guard_lab import IN_LOADER, GuardedHost

pytestmark = pytest.mark.lab


def assert_restarted(machine: GuardedHost, result: dict[str, Any]) -> None:
    assert result["failed"], result
    assert (result["phase"], result["rollback"]["method"]) == ("rolled-back", "reboot")
    assert "restarted before the new system was committed" in result["msg"]
    machine.assert_ended(machine.old, "rolled-back")


@pytest.mark.parametrize("phase", ["activating", "activated"])
@pytest.mark.parametrize("how", ["cut", "systemctl reboot", "systemctl reboot --force --force"])
def test_restart_before_the_commit(machine: GuardedHost, phase: str, how: str) -> None:
    run = machine.begin("slow", health_checks={"commands": ["sleep 20"]})
    machine.wait_for_phase(phase)
    if how == "cut":
        machine.power("reset")
    else:
        machine.try_shell(how)
    assert_restarted(machine, run.result())


@pytest.mark.parametrize("name", ["crash", "restarts"])
def test_activation_that_restarts_the_machine(machine: GuardedHost, name: str) -> None:
    assert_restarted(machine, machine.deploy(name))


def test_power_cut_between_profile_and_boot_loader(machine: GuardedHost) -> None:
    run = machine.begin("slow-loader")
    machine.wait_for_phase("committing")
    new = machine.systems["slow-loader"]
    machine.wait_for(f'[ "$(readlink -f /nix/var/nix/profiles/system)" = {new} ]')
    machine.power("reset")
    assert_restarted(machine, run.result())


def test_power_cut_after_the_boot_loader(machine: GuardedHost) -> None:
    with machine.program("/usr/bin/sync", IN_LOADER):
        run = machine.begin("next")
        machine.wait_for_phase("committing")
        machine.wait_for("pgrep -f '^sleep 20$'")
        machine.power("reset")
    result = run.result()
    assert (result["failed"], result["phase"]) == (False, "committed"), result
    machine.assert_ended("next", "committed")


def test_power_cut_after_the_boot_loader_without_a_controller(machine: GuardedHost) -> None:
    with machine.program("/usr/bin/sync", IN_LOADER):
        run = machine.begin("next")
        machine.wait_for_phase("committing")
        machine.wait_for("pgrep -f '^sleep 20$'")
        run.kill()
        machine.power("reset")
    result = machine.deploy("next")  # its first look closes the interrupted transaction
    assert (result["failed"], result["phase"]) == (False, "unchanged"), result
    machine.assert_ended("next", "committed")


def test_machine_that_is_off_and_comes_back(machine: GuardedHost) -> None:
    machine.power("stop")
    result = machine.deploy("next", connect_timeout=1)
    assert result["failed"]
    assert not result.get("unreachable")
    assert "the machine did not answer within 1 s" in result["msg"]
    run = machine.begin("next")
    while "waiting for SSH" not in run.output.read_text(encoding="utf-8"):
        assert run.process.poll() is None
    machine.power("start")
    assert run.result()["phase"] == "committed"
    machine.assert_ended("next", "committed")


SLOW = {"activating": "slow", "activated": "slow", "committing": "slow-loader"}
CHECKS = {"activated": {"commands": ["sleep 3"]}}


@pytest.mark.parametrize("phase", ["activating", "activated", "committing"])
def test_controller_killed_and_run_again(machine: GuardedHost, phase: str) -> None:
    name = SLOW[phase]
    run = machine.begin(name, health_checks=CHECKS.get(phase, {}))
    machine.wait_for_phase(phase)
    run.kill()
    result = machine.deploy(name)
    assert not result["failed"], result
    assert result["phase"] in {"committed", "unchanged"}
    machine.assert_ended(name, "committed")


@pytest.mark.parametrize(
    ("phase", "end"), [("activating", "rolled-back"), ("activated", "committed"), ("committing", "committed")]
)
def test_controller_killed_and_never_back(machine: GuardedHost, phase: str, end: str) -> None:
    """The machine needs it for the contact only: with that it goes on by itself."""
    name = SLOW[phase]
    run = machine.begin(name, confirm_timeout=2, health_checks=CHECKS.get(phase, {}))
    machine.wait_for_phase(phase)
    if phase == "activated":
        machine.wait_for("ls /run/fediversity-guard/contact-*")
    run.kill()
    machine.wait_for_phase(end)
    machine.assert_ended(name if end == "committed" else machine.old, end)
