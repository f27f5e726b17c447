# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The new system's network cuts the controller off: the machine returns to the old one by itself."""

from __future__ import annotations

import pytest
from guard_lab import GuardedHost, assert_cut_off

pytestmark = pytest.mark.lab

# a controller that the machine reaches through its gateway only
AWAY = "10.98.0.1"
FROM_AWAY = f"--ssh-extra-args=-b {AWAY}"


@pytest.mark.parametrize("name", ["link-down", "addresses-flushed", "wrong-address", "firewall"])
def test_network_that_the_old_system_restores(machine: GuardedHost, name: str) -> None:
    assert_cut_off(machine, name, "reactivate")


def test_network_that_only_a_restart_restores(machine: GuardedHost) -> None:
    assert_cut_off(machine, "no-way-back", "reboot")


def test_wrong_gateway(machine: GuardedHost) -> None:
    machine.controller(f"ip address add {AWAY}/32 dev lo")
    try:
        assert_cut_off(machine, "wrong-gateway", "reactivate", FROM_AWAY)
    finally:
        machine.controller(f"ip address del {AWAY}/32 dev lo")


def test_controller_that_is_gone_is_no_reason_to_restart(machine: GuardedHost) -> None:
    machine.controller(f"ip address add {AWAY}/32 dev lo")
    machine.shell("touch /run/lab-not-restarted")
    limits = {"confirm_timeout": 1, "activation_timeout": 20, "connect_timeout": 60}
    try:
        run = machine.start("nixos_rebuild", {"system": machine.systems["slow"], **limits}, FROM_AWAY)
        machine.wait_for_phase("activating")
    finally:
        machine.controller(f"ip address del {AWAY}/32 dev lo")
    machine.wait_for_phase("rolled-back")
    machine.assert_ended(machine.old, "rolled-back")
    assert "no contact, but address, route and SSH server are in order" in machine.journal()
    machine.shell("test -e /run/lab-not-restarted")
    machine.controller(f"ip address add {AWAY}/32 dev lo")
    result = run.result()
    machine.controller(f"ip address del {AWAY}/32 dev lo")
    assert (result["failed"], result["phase"]) == (True, "rolled-back"), result
