# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guarded switch on a lab host when nothing breaks, several deployers at once, and the files of secrets."""

from __future__ import annotations

import pytest
from guard_lab import GuardedHost

pytestmark = pytest.mark.lab


def test_clean_switch_and_again(machine: GuardedHost) -> None:
    before = machine.handshakes()
    result = machine.deploy("next")
    assert (result["changed"], result["phase"], result["rc"]) == (True, "committed", 0)
    assert (result["old"], result["new"]) == (machine.systems[machine.old], machine.systems["next"])
    assert "activating the configuration..." in result["log"]
    machine.assert_ended("next", "committed")
    assert machine.handshakes() - before <= 4
    before = machine.handshakes()
    journal = machine.journal()
    result = machine.deploy("next")
    assert (result["changed"], result["phase"]) == (False, "unchanged")
    assert machine.handshakes() - before == 1
    assert machine.journal() == journal


def test_health_checks_on_the_host(machine: GuardedHost) -> None:
    checks = {
        "units": ["web.service"],
        "unit_stable": 1,
        "commands": ["grep -q next /etc/guard-test"],
        "http": [{"url": "http://127.0.0.1:8099/"}, {"url": "http://127.0.0.1:8099/none", "status": 404}],
    }
    assert machine.deploy("next", health_checks=checks)["phase"] == "committed"
    machine.assert_ended("next", "committed")


def test_check_mode_changes_nothing(machine: GuardedHost) -> None:
    journal = machine.journal()
    run = machine.start("nixos_rebuild", {"system": machine.systems["next"]}, "--check", "--diff")
    result = run.result()
    assert (result["changed"], result["phase"]) == (True, "planned")
    assert f"+++ {machine.systems['next']}" in run.output.read_text(encoding="utf-8")
    assert machine.journal() == journal
    machine.assert_clean(machine.old)


# --- several deployers ------------------------------------------------------------------------------------------------


def test_second_deployer_is_told_about_the_first(machine: GuardedHost) -> None:
    first = machine.begin("slow")
    machine.wait_for_phase("activating")
    second = machine.deploy("next")
    assert second["failed"]
    assert "locked by" in second["msg"]
    assert not first.result()["failed"]
    machine.assert_ended("slow", "committed")


@pytest.mark.parametrize("names", [["next", "slow"], ["next", "slow", "slow-loader", "spare"]])
def test_deployers_of_different_systems_at_once(machine: GuardedHost, names: list[str]) -> None:
    names = [machine.spare if name == "spare" else name for name in names]
    runs = {name: machine.begin(name) for name in names}
    results = {name: run.result() for name, run in runs.items()}
    winners = [name for name, result in results.items() if not result["failed"]]
    assert winners
    for name in set(names) - set(winners):
        assert "locked by" in results[name]["msg"]
    running = machine.shell("cat /etc/guard-test").strip()
    assert running in winners
    machine.assert_ended(running, "committed")


@pytest.mark.parametrize("number", [2, 4])
def test_deployers_of_the_same_system_at_once(machine: GuardedHost, number: int) -> None:
    results = [run.result() for run in [machine.begin("slow") for _number in range(number)]]
    assert {result["phase"] for result in results} <= {"committed", "unchanged"}
    assert len({result["txn"] for result in results} - {""}) == 1
    machine.assert_ended("slow", "committed")


# --- another module over the same connection --------------------------------------------------------------------------


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
