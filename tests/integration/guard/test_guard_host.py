# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong on the machine itself: activation, units, boot loader, health checks, the rollback."""

from __future__ import annotations

import pytest
from guard_lab import GuardedHost

pytestmark = pytest.mark.lab

LOCK = "/run/nixos/switch-to-configuration.lock"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("activation-fails", "the activation script failed"),
        ("activation-hangs", "the activation took longer than 4 s"),
        ("unit-fails", "failed units: lab-fault.service"),
        ("bootloader-fails", "the profile or the boot default could not be set"),
    ],
)
def test_switch_that_fails(machine: GuardedHost, name: str, reason: str) -> None:
    result = machine.deploy(name, activation_timeout=4 if name == "activation-hangs" else 20)
    assert result["failed"], result
    assert reason in result["msg"]
    assert (result["phase"], result["rollback"]["method"]) == ("rolled-back", "reactivate")
    machine.assert_ended(machine.old, "rolled-back")


def test_pre_switch_check_refuses_before_anything_is_armed(machine: GuardedHost) -> None:
    journal = machine.journal()
    result = machine.deploy("pre-switch-fails")
    assert result["failed"], result
    assert "refused by lab.fault" in result["msg"]
    machine.assert_clean(machine.old)
    assert machine.journal() == journal


def test_unit_that_had_failed_before(machine: GuardedHost) -> None:
    assert machine.deploy("unit-fails", action="boot")["phase"] == "committed"
    machine.power("reset")
    machine.wait_for("systemctl is-failed lab-fault.service")
    run = machine.begin("unit-fails-still")
    result = run.result()
    assert (result["failed"], result["phase"], result["rc"]) == (False, "committed", 4), result
    assert result["failed_units"]["before"] == ["lab-fault.service"]
    assert "WARNING" in run.output.read_text(encoding="utf-8")
    machine.assert_ended("unit-fails-still", "committed")


def test_unit_that_dies_after_the_switch(machine: GuardedHost) -> None:
    result = machine.deploy("unit-dies", health_checks={"units": ["dies.service"], "unit_stable": 4})
    assert result["failed"]
    assert "dies.service" in result["rollback"]["reason"]
    machine.assert_ended(machine.old, "rolled-back")


def test_new_init_interface_is_told_apart(machine: GuardedHost) -> None:
    result = machine.deploy("needs-reboot")
    assert (result["failed"], result["needs_reboot"], result["rc"]) == (True, True, 100), result
    machine.assert_ended(machine.old, "needs-reboot")


def test_another_switch_that_ends(machine: GuardedHost) -> None:
    machine.shell(f"mkdir -p /run/nixos && systemd-run --quiet --collect flock {LOCK} sleep 4")
    result = machine.deploy("next")
    assert (result["failed"], result["phase"]) == (False, "committed"), result
    assert "Could not acquire lock" in result["log"]
    machine.assert_ended("next", "committed")


def test_another_switch_that_does_not_end(machine: GuardedHost) -> None:
    machine.shell("touch /run/lab-not-restarted")
    machine.shell(f"mkdir -p /run/nixos && systemd-run --quiet --collect --unit=holder flock {LOCK} sleep 300")
    result = machine.deploy("next", activation_timeout=60)
    machine.try_shell("systemctl stop holder.service")
    assert result["failed"], result
    assert "held its lock all the time" in result["msg"]
    machine.assert_ended(machine.old, "rolled-back")
    machine.shell("test -e /run/lab-not-restarted")  # nothing had been activated, and somebody else is at work


@pytest.mark.parametrize(
    ("checks", "reason"),
    [
        ({"commands": ["test -e /none"]}, "health command failed: test -e /none"),
        ({"http": [{"url": "http://127.0.0.1:8099/none"}]}, "answered 404, not 200"),
    ],
)
def test_health_check_that_fails(machine: GuardedHost, checks: dict[str, object], reason: str) -> None:
    result = machine.deploy("next", health_checks=checks)
    assert result["failed"], result
    assert reason in result["msg"]
    machine.assert_ended(machine.old, "rolled-back")


def test_rollback_that_fails_ends_in_a_restart(machine: GuardedHost) -> None:
    assert machine.deploy("fragile")["phase"] == "committed"
    machine.shell("touch /run/lab-refuse; systemctl reset-failed")  # an earlier test may have left the unit failed
    result = machine.deploy("unit-fails")
    assert result["failed"], result
    assert (result["phase"], result["rollback"]["method"]) == ("rolled-back", "reboot")
    machine.assert_ended("fragile", "rolled-back")
