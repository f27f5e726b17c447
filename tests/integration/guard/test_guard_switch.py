# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guarded switch on a lab host: every fault ends on the old system, and the next deployment succeeds."""

from __future__ import annotations

import time

import pytest
from guard_lab import GuardedHost

pytestmark = pytest.mark.lab


def test_clean_switch_and_again(host: GuardedHost) -> None:
    before = host.handshakes()
    result = host.deploy("next")
    assert (result["changed"], result["phase"], result["rc"]) == (True, "committed", 0)
    assert (result["old"], result["new"]) == (host.systems["base"], host.systems["next"])
    assert "activating the configuration..." in result["log"]
    host.assert_clean("next")
    assert host.handshakes() - before <= 4
    before = host.handshakes()
    result = host.deploy("next")
    assert (result["changed"], result["phase"]) == (False, "unchanged")
    assert host.handshakes() - before == 1


@pytest.mark.parametrize(
    ("name", "reason", "method"),
    [
        ("activation-fails", "the activation script failed", "reactivate"),
        ("pre-switch-fails", "switch-to-configuration failed", "reactivate"),
        ("unit-fails", "failed units: lab-fault.service", "reactivate"),
        ("bootloader-fails", "the profile or the boot default could not be set", "reactivate"),
        ("activation-hangs", "the activation took longer than 4 s", "reactivate"),
        ("wrong-address", "no confirmation within", "reactivate"),
        ("link-down", "no confirmation within", None),
        ("sshd-stops", "no confirmation within", "reboot"),
        ("key-removed", "no confirmation within", None),
        ("crash", "the machine restarted before the new system was committed", "reboot"),
    ],
)
def test_fault_is_rolled_back(host: GuardedHost, name: str, reason: str, method: str | None) -> None:
    result = host.deploy(name, activation_timeout=4 if name == "activation-hangs" else 20)
    assert result["failed"], result
    assert reason in result["msg"]
    assert result["phase"] == "rolled-back"
    if method is not None:
        assert result["rollback"]["method"] == method
    host.assert_clean("base")
    assert host.shell("cat /etc/guard-test") == "base\n"


def test_new_init_interface_is_told_apart(host: GuardedHost) -> None:
    result = host.deploy("needs-reboot")
    assert (result["failed"], result["needs_reboot"], result["rc"], result["phase"]) == (
        True,
        True,
        100,
        "needs-reboot",
    )
    host.assert_clean("base")


def test_unit_that_dies_after_the_switch(host: GuardedHost) -> None:
    result = host.deploy("unit-dies", health_checks={"units": ["dies.service"], "unit_stable": 4})
    assert result["failed"]
    assert "dies.service" in result["rollback"]["reason"]
    host.assert_clean("base")


def test_health_checks_on_the_host(host: GuardedHost) -> None:
    checks = {
        "units": ["web.service"],
        "unit_stable": 1,
        "commands": ["grep -q next /etc/guard-test"],
        "http": [{"url": "http://127.0.0.1:8099/"}, {"url": "http://127.0.0.1:8099/none", "status": 404}],
    }
    assert host.deploy("next", health_checks=checks)["phase"] == "committed"
    host.assert_clean("next")


@pytest.mark.parametrize("phase", ["activating", "activated"])
def test_controller_killed_and_run_again(host: GuardedHost, phase: str) -> None:
    checks = {"commands": ["sleep 3"]} if phase == "activated" else {}
    run = host.begin("slow", health_checks=checks)
    host.wait_for_phase(phase)
    run.kill()
    result = host.deploy("slow")
    assert (result["failed"], result["phase"]) == (False, "committed"), result
    host.assert_clean("slow")


def test_controller_killed_and_never_back(host: GuardedHost) -> None:
    run = host.begin("slow", confirm_timeout=1)
    host.wait_for_phase("activating")
    run.kill()
    host.wait_for_phase("rolled-back")
    host.assert_clean("base")
    assert "no contact, but address, route and SSH server are in order" in host.journal()


@pytest.mark.parametrize("phase", ["activating", "activated"])
def test_power_cut_before_the_commit(host: GuardedHost, phase: str) -> None:
    run = host.begin("slow", health_checks={"commands": ["sleep 20"]})
    host.wait_for_phase(phase)
    host.power("reset")
    result = run.result()
    assert result["failed"]
    assert (result["phase"], result["rollback"]["method"]) == ("rolled-back", "reboot")
    host.assert_clean("base")


def test_two_deployers_at_once(host: GuardedHost) -> None:
    first = host.begin("slow")
    host.wait_for_phase("activating")
    second = host.deploy("other")
    assert second["failed"]
    assert "locked by" in second["msg"]
    assert not first.result()["failed"]
    host.assert_clean("slow")


def test_two_deployers_in_the_same_moment(host: GuardedHost) -> None:
    runs = [host.begin("next"), host.begin("other")]
    results = [run.result() for run in runs]
    winners = [name for name, result in zip(("next", "other"), results, strict=True) if not result["failed"]]
    assert winners
    running = host.shell("cat /etc/guard-test").strip()
    assert running in winners
    host.assert_clean(running)


def test_stale_watchdog_of_an_earlier_run(host: GuardedHost) -> None:
    result = host.deploy("next")
    payload = host.shell("echo /var/lib/fediversity-guard/guard-*").strip()
    run = host.begin("slow")
    host.wait_for_phase("activating")
    host.shell(f"sh {payload} rollback {result['txn']} backstop; sh {payload} watchdog {result['txn']}")
    assert run.result()["phase"] == "committed"
    host.assert_clean("slow")


def test_check_mode_changes_nothing(host: GuardedHost) -> None:
    journal = host.journal()
    run = host.start("nixos_rebuild", {"system": host.systems["next"]}, "--check", "--diff")
    result = run.result()
    assert (result["changed"], result["phase"]) == (True, "planned")
    assert f"+++ {host.systems['next']}" in run.output.read_text(encoding="utf-8")
    assert host.journal() == journal
    host.assert_clean("base")


def test_machine_that_is_off_and_comes_back(host: GuardedHost) -> None:
    host.power("stop")
    result = host.deploy("next", connect_timeout=1)
    assert result["failed"]
    assert not result.get("unreachable")
    assert "the machine did not answer within 1 s" in result["msg"]
    run = host.begin("next")
    time.sleep(3)
    host.power("start")
    assert run.result()["phase"] == "committed"
    host.assert_clean("next")


def test_refusals(host: GuardedHost) -> None:
    path = host.systems["base"].replace("-nixos-system", "-another")
    for system, text in (("/etc", "not a store path"), (path, "could not be copied")):
        result = host.start("nixos_rebuild", {"system": system, "connect_timeout": 5}).result()
        assert result["failed"]
        assert text in result["msg"]
    host.assert_clean("base")


def test_secret_files(host: GuardedHost) -> None:
    sentinel = "sentinel-5e1f'\"$(id)\nsecond line"
    directory = "/var/lib/fediversity/guard-test"
    wanted = {"files": [{"path": f"{directory}/a/key", "content": sentinel}], "directory": directory, "purge": True}
    run = host.start("secret_files", wanted, "-vvv", "--diff")
    result = run.result()
    assert [(item["name"], item["action"]) for item in result["results"]] == [(f"{directory}/a/key", "created")]
    assert "sentinel" not in run.output.read_text(encoding="utf-8")
    assert host.shell(f"cat {directory}/a/key") == sentinel
    assert host.shell(f"stat -c '%a %U' {directory} {directory}/a {directory}/a/key").split() == [
        *("700", "root"),
        *("700", "root"),
        *("400", "root"),
    ]
    before = host.handshakes()
    assert not host.start("secret_files", wanted).result()["changed"]
    assert host.handshakes() - before == 1
    host.shell(f"touch {directory}/a/stray; chmod 0644 {directory}/a/key")
    result = host.start("secret_files", wanted).result()
    assert [(item["action"], item["differs"]) for item in result["results"]] == [("updated", ["mode"]), ("removed", [])]
    assert host.shell(f"find {directory} -type f") == f"{directory}/a/key\n"
    host.shell(f"rm -r {directory}")
