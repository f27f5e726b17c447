# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the guard itself relies on: disks, its watchdog, systemd and the clock."""

from __future__ import annotations

import pytest
from guard_lab import GuardedHost

pytestmark = pytest.mark.lab

STATE = "/var/lib/fediversity-guard"
# every other call is a year ahead
JUMPING = """if mkdir /run/lab-jump 2>/dev/null; then exec /run/lab-real -d '+1 year' "$@"; fi
rmdir /run/lab-jump; exec /run/lab-real "$@\""""


def uptimes(machine: GuardedHost, txn: str) -> dict[str, int]:
    """Seconds of the machine's uptime at which the phases of a transaction were entered."""
    lines = [line.split(" ", 4) for line in machine.journal().splitlines()]
    return {phase: int(uptime) for _time, uptime, name, phase, _text in reversed(lines) if name == txn}


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "path"), [("nix", "/nix/store"), ("var", "/var/lib"), ("boot", "/boot")])
def test_disk_that_is_full_before(machine: GuardedHost, part: str, path: str) -> None:
    journal = machine.journal()
    machine.lab("fill", machine.name, part)
    result = machine.deploy("next")
    machine.lab("unfill", machine.name, part)
    assert result["failed"], result
    assert f"only 0 MiB are free on {path}" in result["msg"]
    machine.assert_clean(machine.old)
    assert machine.journal() == journal


@pytest.mark.parametrize("part", ["nix", "var", "boot"])
def test_disk_that_fills_up_during_the_switch(machine: GuardedHost, part: str) -> None:
    run = machine.begin("slow")
    machine.wait_for_phase("activating")
    machine.lab("fill", machine.name, part)
    result = run.result()
    machine.lab("unfill", machine.name, part)
    assert result["phase"] in {"committed", "rolled-back"}, result
    machine.assert_ended("slow" if result["phase"] == "committed" else machine.old, result["phase"])


# --- watchdog, systemd, clock -----------------------------------------------------------------------------------------


def test_watchdog_killed(machine: GuardedHost) -> None:
    run = machine.begin("key-removed")
    machine.wait_for_phase("activated")
    pid = machine.shell("systemctl show -p MainPID --value fediversity-guard.service").strip()
    machine.shell(f"kill -9 {pid}")
    result = run.result()
    assert "no confirmation within" in result["msg"]
    assert result["phase"] == "rolled-back"
    machine.assert_ended(machine.old, "rolled-back")


def test_backstop_ends_what_the_watchdog_does_not(machine: GuardedHost) -> None:
    run = machine.begin("next", health_checks={"commands": ["sleep 8"]})
    machine.wait_for("ls /run/fediversity-guard/contact-*")
    machine.shell(
        "systemctl stop fediversity-guard.service; systemctl start --no-block fediversity-guard-backstop.service"
    )
    result = run.result()
    assert (result["phase"], result["rollback"]["reason"]) == ("rolled-back", "backstop")
    machine.assert_ended(machine.old, "rolled-back")


def test_next_run_ends_what_nobody_else_does(machine: GuardedHost) -> None:
    run = machine.begin("slow", confirm_timeout=1)
    machine.wait_for_phase("activating")
    run.kill()
    machine.shell("systemctl stop fediversity-guard.service fediversity-guard-backstop.timer")
    machine.wait_for_phase("activated")
    result = machine.deploy("slow")
    assert (result["failed"], result["phase"]) == (False, "committed"), result
    assert "its watchdog is gone" in machine.journal()
    machine.assert_ended("slow", "committed")


def test_stale_watchdog_of_an_earlier_run(machine: GuardedHost) -> None:
    result = machine.deploy("next")
    payload = machine.shell(f"echo {STATE}/guard-*").strip()
    run = machine.begin("slow")
    machine.wait_for_phase("activating")
    machine.shell(f"sh {payload} rollback {result['txn']} backstop; sh {payload} watchdog {result['txn']}")
    assert run.result()["phase"] == "committed"
    machine.assert_ended("slow", "committed")


def test_systemd_executed_again_during_the_activation(machine: GuardedHost) -> None:
    run = machine.begin("slow")
    machine.wait_for_phase("activating")
    machine.shell("for _ in 1 2 3 4; do systemctl daemon-reexec; systemctl daemon-reload; sleep 1; done")
    assert run.result()["phase"] == "committed"
    machine.assert_ended("slow", "committed")


def test_deadlines_do_not_slide(machine: GuardedHost) -> None:
    run = machine.begin("key-removed")
    machine.wait_for_phase("activated")
    show = "systemctl show -p NextElapseUSecMonotonic --value fediversity-guard-backstop.timer"
    before = machine.shell(show)
    assert before.strip()
    machine.shell("for _ in 1 2 3; do systemctl daemon-reexec; systemctl daemon-reload; sleep 0.5; done")
    assert machine.shell(show) == before
    machine.shell("for _ in 1 2 3 4; do systemctl daemon-reexec; systemctl daemon-reload; sleep 0.5; done")
    result = run.result()
    assert "no confirmation within" in result["msg"]
    machine.assert_ended(machine.old, "rolled-back")
    at = uptimes(machine, result["txn"])
    assert 5 <= at["rolling-back"] - at["activated"] <= 8


def test_clock_that_jumps(machine: GuardedHost) -> None:
    """A host of the lab has the machine's own clock, so `date`, the only clock of the guard that can be set, jumps."""
    with machine.program("/usr/bin/date", JUMPING):
        assert machine.deploy("next")["phase"] == "committed"
        machine.assert_ended("next", "committed")
        result = machine.deploy("key-removed")
        machine.assert_ended("next", "rolled-back")
    assert "no confirmation within" in result["msg"]
    at = uptimes(machine, result["txn"])
    assert 5 <= at["rolling-back"] - at["activated"] <= 8
    years = [line[:4] for line in machine.journal().splitlines() if result["txn"] in line]
    assert len(set(years)) == 2
