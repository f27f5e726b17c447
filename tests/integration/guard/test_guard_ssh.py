# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The new system lets nobody log in: the machine returns to the old one by itself."""

from __future__ import annotations

import pytest
from guard_lab import GuardedHost, assert_cut_off

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("name", ["sshd-refuses", "key-removed"])
def test_logins_that_the_old_system_accepts(machine: GuardedHost, name: str) -> None:
    assert_cut_off(machine, name, "reactivate")


def test_host_key_changed(machine: GuardedHost) -> None:
    machine.shell("rm -f /run/lab-other-key; ssh-keygen -q -t ed25519 -N '' -f /run/lab-other-key")
    assert_cut_off(machine, "host-key-changed", "reactivate")


@pytest.mark.parametrize("name", ["sshd-stops", "sshd-masked", "sshd-broken"])
def test_ssh_server_that_only_a_restart_brings_back(machine: GuardedHost, name: str) -> None:
    assert_cut_off(machine, name, "reboot")
