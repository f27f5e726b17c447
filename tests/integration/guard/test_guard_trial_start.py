# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A system that can only be booted is started once, on trial, and the old one stays the boot default."""

from __future__ import annotations

import pytest
from guard_lab import IN_LOADER, GuardedHost

pytestmark = pytest.mark.lab

TRIAL = {"reboot": "if_needed", "reboot_timeout": 20}


@pytest.mark.parametrize("name", ["kernel", "needs-reboot"])
def test_trial_that_succeeds(machine: GuardedHost, name: str) -> None:
    result = machine.deploy(name, **TRIAL)
    assert (result["failed"], result["phase"]) == (False, "committed"), result
    machine.assert_ended(name, "committed")
    assert machine.shell("readlink -f /run/booted-system").strip() == machine.systems[name]
    machine.power("reset")
    machine.wait_for("systemctl is-active ssh.service")
    machine.assert_clean(name)
    assert machine.deploy(machine.spare, **TRIAL)["phase"] == "committed"
    machine.assert_ended(machine.spare, "committed")


def test_trial_that_nobody_can_reach(machine: GuardedHost) -> None:
    result = machine.deploy("kernel-without-network", **TRIAL)
    assert result["failed"], result
    assert "no confirmation within" in result["msg"]
    assert (result["phase"], result["rollback"]["method"]) == ("rolled-back", "reboot")
    machine.assert_ended(machine.old, "rolled-back")


def test_trial_whose_health_check_fails(machine: GuardedHost) -> None:
    result = machine.deploy("kernel", health_checks={"units": ["no-such.service"]}, **TRIAL)
    assert result["failed"], result
    assert "unit no-such.service is not active" in result["msg"]
    assert (result["phase"], result["rollback"]["method"]) == ("rolled-back", "reboot")
    machine.assert_ended(machine.old, "rolled-back")


def test_power_cut_during_the_trial(machine: GuardedHost) -> None:
    run = machine.begin("kernel", health_checks={"commands": ["sleep 20"]}, **TRIAL)
    machine.wait_for("ls /run/fediversity-guard/contact-*")
    machine.power("reset")
    result = run.result()
    assert (result["failed"], result["phase"]) == (True, "rolled-back"), result
    machine.assert_ended(machine.old, "rolled-back")


def test_power_cut_before_the_trial(machine: GuardedHost) -> None:
    new = machine.systems["kernel"]
    with machine.program("/usr/bin/sync", IN_LOADER):
        run = machine.begin("kernel", **TRIAL)
        machine.wait_for("pgrep -f '^sleep 20$'")
        assert machine.shell("readlink -f /nix/var/nix/profiles/system-profiles/candidate").strip() == new
        machine.power("reset")
    result = run.result()
    assert (result["failed"], result["phase"]) == (True, "rolled-back"), result
    machine.assert_ended(machine.old, "rolled-back")
