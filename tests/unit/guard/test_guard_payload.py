# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard's shell in a sandbox: every end of a transaction, by what is really left behind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import (
    HealthChecks,
    HttpCheck,
    Request,
    begin_words,
    confirm_words,
    seen,
)
from guard_sandbox import Sandbox


def old(sandbox: Sandbox) -> str:
    return str(sandbox.root / "nix/store/old")


def test_status_changes_nothing(sandbox: Sandbox) -> None:
    report = sandbox.run(["status", old(sandbox)])
    assert (report.nixos, report.valid, report.current, report.generation) == (True, True, old(sandbox), 7)
    assert not (sandbox.root / "var/lib/fediversity-guard").exists()
    assert not (sandbox.root / "run/fediversity-guard").exists()


def test_clean_switch_commits_after_a_contact(sandbox: Sandbox) -> None:
    new = sandbox.system("new")
    assert sandbox.begin(new).result == "started"
    report = sandbox.confirm()
    assert report.record is not None
    assert (report.record.phase, report.record.rc, report.generation) == ("committed", 0, 1)
    assert sandbox.calls == ["new test", "new boot"]
    assert "new test" in report.log
    sandbox.assert_clean(new)


def test_no_commit_before_a_contact(sandbox: Sandbox) -> None:
    new = sandbox.system("new")
    sandbox.begin(new)
    report = sandbox.wait_for("activated")
    assert (sandbox.current, sandbox.profile, sandbox.boot_default) == (new, old(sandbox), old(sandbox))
    assert report.watchdog
    assert report.record is not None
    assert report.record.remaining is not None


def test_session_from_before_the_switch_proves_nothing(sandbox: Sandbox) -> None:
    new = sandbox.system("new", test="sleep 1")
    sandbox.begin(new)
    for _look in range(2):  # the second login begins after the activation, but its controller did not know that
        report = sandbox.run(confirm_words("t1", 10, "-", HealthChecks(), hold=False))
        assert seen(report) == "activated"
    report = sandbox.run(confirm_words("t1", 10, "activated", HealthChecks(), hold=False))
    assert report.current == report.profile == new


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ("exit 1", "switch-to-configuration failed"),
        ("exit 2", "the activation script failed"),
        ("echo Failed to run activate script; exit 4", "the activation script failed"),
        ("ln -sfn $ROOT/nix/store/new $ROOT/run/current-system; exit 101", "ended with code 101"),
    ],
)
def test_failed_activation_rolls_back(sandbox: Sandbox, test: str, reason: str) -> None:
    sandbox.begin(sandbox.system("new", test=test))
    report = sandbox.confirm()
    assert report.record is not None
    assert reason in report.record.reason
    assert (report.record.phase, report.record.method) == ("rolled-back", "reactivate")
    assert sandbox.calls[-1] == "old test"
    sandbox.assert_clean(old(sandbox))


def test_hanging_activation_is_killed_and_its_lists_are_cleared(sandbox: Sandbox) -> None:
    new = sandbox.system(
        "new", test="mkdir -p $ROOT/run/nixos; touch $ROOT/run/nixos/start-list; trap '' TERM; sleep 60"
    )
    sandbox.begin(new, activation_limit=1)
    report = sandbox.confirm()
    assert report.record is not None
    assert "took longer than 1 s" in report.record.reason
    assert not (sandbox.root / "run/nixos/start-list").exists()
    sandbox.assert_clean(old(sandbox))


def test_new_failed_unit_rolls_back(sandbox: Sandbox) -> None:
    sandbox.fake("failed", "was.service loaded failed failed\n")
    test = 'echo "new.service loaded failed failed" >>$ROOT/fake/failed; exit 4'
    sandbox.begin(sandbox.system("new", test=test))
    sandbox.wait_for("rolling-back")
    sandbox.fake("failed", "was.service loaded failed failed\n")
    report = sandbox.confirm()
    assert report.record is not None
    assert report.record.reason.strip() == "failed units: new.service"
    assert report.record.failed_before == ("was.service",)


def test_unit_that_had_failed_before_does_not_roll_back(sandbox: Sandbox) -> None:
    sandbox.fake("failed", "was.service loaded failed failed\n")
    new = sandbox.system("new", test="ln -sfn $ROOT/nix/store/new $ROOT/run/current-system; exit 4")
    sandbox.begin(new)
    report = sandbox.confirm()
    assert report.record is not None
    assert (report.record.phase, report.record.rc) == ("committed", 4)


def test_watched_unit_rolls_back_even_if_it_had_failed_before(sandbox: Sandbox) -> None:
    sandbox.fake("failed", "was.service loaded failed failed\n")
    new = sandbox.system("new", test="ln -sfn $ROOT/nix/store/new $ROOT/run/current-system; exit 4")
    sandbox.begin(new, watch="was.service")
    report = sandbox.confirm()
    assert report.record is not None
    assert (report.record.phase, report.record.reason.strip()) == ("rolled-back", "failed units: was.service")


def test_init_interface_needs_a_reboot(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new", test="exit 100"))
    report = sandbox.confirm()
    assert report.record is not None
    assert (report.record.phase, report.record.rc) == ("needs-reboot", 100)
    assert sandbox.calls == ["new test"]
    sandbox.assert_clean(old(sandbox))


def test_busy_switch_is_tried_again(sandbox: Sandbox) -> None:
    test = "if [ ! -e $ROOT/fake/once ]; then touch $ROOT/fake/once; exit 11; fi"
    new = sandbox.system("new", test=test)
    sandbox.begin(new)
    assert sandbox.confirm().current == new
    assert sandbox.calls == ["new test", "new test", "new boot"]


def test_silence_rolls_back_and_a_late_contact_finds_it(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new"), confirm_limit=1, contact_limit=20)
    report = sandbox.wait_for("rolling-back")
    assert report.record is not None
    assert "no confirmation" in report.record.reason
    assert sandbox.confirm().current == old(sandbox)
    assert sandbox.calls == ["new test", "old test"]
    sandbox.assert_clean(old(sandbox))


def test_silence_after_the_rollback_restarts_the_machine(sandbox: Sandbox) -> None:
    sandbox.program("ip", "exit 2")
    sandbox.begin(sandbox.system("new"), confirm_limit=1)
    report = sandbox.wait_for("reboot-rollback")
    assert report.record is not None
    assert report.record.method == "reboot"
    report = sandbox.confirm()
    assert report.record is not None
    assert (report.record.phase, report.record.method) == ("rolled-back", "reboot")
    assert (sandbox.root / "fake/reboots").exists()
    sandbox.kill_units()
    (sandbox.root / "fake/units/fediversity-guard-backstop.timer").unlink(missing_ok=True)
    sandbox.assert_clean(old(sandbox))


def test_rollback_that_fails_restarts_the_machine(sandbox: Sandbox) -> None:
    broken = sandbox.system("broken", test="[ -e $ROOT/fake/fine ] || exit 1")
    (sandbox.root / "run/current-system").unlink()
    (sandbox.root / "run/current-system").symlink_to(broken)
    sandbox.begin(sandbox.system("new", test="exit 2"))
    report = sandbox.wait_for("reboot-rollback")
    assert report.record is not None
    assert report.record.system_old == broken


def test_failed_health_check_rolls_back(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new"))
    report = sandbox.confirm(commands=("true", "echo checked; false"))
    assert report.record is not None
    assert report.record.reason == "health command failed: echo checked; false"
    assert "checked" in report.log
    sandbox.assert_clean(old(sandbox))


def test_health_checks_pass(sandbox: Sandbox) -> None:
    sandbox.program("curl", "printf 204")
    sandbox.fake("active", "web.service\n")
    new = sandbox.system("new")
    sandbox.begin(new)
    http = (HttpCheck("http://localhost/?a=b&c='d", 204),)
    report = sandbox.confirm(units=("web.service",), unit_stable=1, commands=("test 'a b' = 'a b'",), http=http)
    assert report.record is not None
    assert report.record.phase == "committed"
    sandbox.assert_clean(new)


@pytest.mark.parametrize(
    ("prepare", "health", "reason"),
    [
        (lambda s: None, {"units": ("web.service",)}, "unit web.service is not active"),
        (lambda s: s.fake("failed", "x.service loaded failed failed\n"), {}, "failed units: x.service"),
        (lambda s: s.fake("active", ""), {"http": (HttpCheck("http://localhost/"),)}, "HTTP health check"),
    ],
)
def test_what_health_checks_notice(
    sandbox: Sandbox, prepare: Callable[[Sandbox], None], health: dict[str, object], reason: str
) -> None:
    sandbox.program("curl", "printf 500")
    sandbox.begin(sandbox.system("new"))
    sandbox.wait_for("activated")
    prepare(sandbox)
    report = sandbox.confirm(**health)
    assert report.record is not None
    assert reason in report.record.reason


def test_broken_boot_loader_rolls_the_profile_back(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new", boot="exit 1"))
    report = sandbox.confirm()
    assert report.record is not None
    assert report.record.reason == "the profile or the boot default could not be set"
    assert sandbox.calls == ["new test", "new boot", "old test"]
    assert not (sandbox.root / "nix/var/nix/profiles/system-1-link").exists()
    sandbox.assert_clean(old(sandbox))


def test_test_action_leaves_profile_and_boot_default(sandbox: Sandbox) -> None:
    new = sandbox.system("new")
    sandbox.begin(new, action="test")
    report = sandbox.confirm()
    assert report.record is not None
    assert report.record.phase == "tested"
    assert (sandbox.current, sandbox.profile, sandbox.boot_default) == (new, old(sandbox), old(sandbox))
    assert sandbox.live_units() == []


def test_boot_action_activates_nothing(sandbox: Sandbox) -> None:
    new = sandbox.system("new")
    report = sandbox.begin(new, action="boot")
    assert report.record is not None
    assert report.record.phase == "committed"
    assert (sandbox.current, sandbox.profile, sandbox.boot_default) == (old(sandbox), new, new)
    assert sandbox.live_units() == []


def test_boot_action_that_fails_changes_nothing(sandbox: Sandbox) -> None:
    report = sandbox.begin(sandbox.system("new", boot="exit 1"), action="boot")
    assert report.record is not None
    assert (report.record.phase, report.record.method) == ("rolled-back", "loader")
    sandbox.assert_clean(old(sandbox))


def test_without_rollback_a_failure_stays(sandbox: Sandbox) -> None:
    test = "ln -sfn $ROOT/nix/store/new $ROOT/run/current-system; exit 2"
    sandbox.begin(sandbox.system("new", test=test), rollback="no")
    report = sandbox.confirm()
    assert report.record is not None
    assert (report.record.phase, report.current) == ("failed", str(sandbox.root / "nix/store/new"))
    assert sandbox.calls == ["new test"]


def test_second_deployer_is_told_who_holds_the_lock(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new", test="sleep 1"))
    report = sandbox.begin(sandbox.system("other"), txn="t2")
    assert report.result == "locked"
    assert report.record is not None
    assert (report.record.txn, report.record.owner) == ("t1", "somebody")
    sandbox.confirm()
    sandbox.assert_clean(str(sandbox.root / "nix/store/new"))


def test_stale_watchdog_of_an_earlier_run_does_nothing(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("first"))
    sandbox.confirm()
    payload = next((sandbox.root / "var/lib/fediversity-guard").glob("guard-*"))
    assert payload.stat().st_mode & 0o777 == 0o600
    new = sandbox.system("new")
    sandbox.begin(new, txn="t2")
    sandbox.say(["rollback", "t1", "deadline"])
    sandbox.say(["rollback", "t1", "backstop"])
    assert sandbox.confirm("t2").current == new
    sandbox.assert_clean(new)


def test_rollback_is_idempotent_and_never_undoes_a_commit(sandbox: Sandbox) -> None:
    new = sandbox.system("new")
    sandbox.begin(new)
    sandbox.confirm()
    sandbox.say(["rollback", "t1", "backstop"])
    assert sandbox.calls == ["new test", "new boot"]
    sandbox.assert_clean(new)


def test_dead_watchdog_is_noticed_by_the_next_run(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new"))
    sandbox.wait_for("activated")
    sandbox.kill_units()
    report = sandbox.begin(sandbox.system("other"), txn="t2")
    assert report.result == "locked"
    report = sandbox.confirm()
    assert report.record is not None
    assert report.record.reason == "its watchdog is gone"
    sandbox.run(["abort", "t1", "nothing"])
    assert sandbox.begin(str(sandbox.root / "nix/store/other"), txn="t3").result == "started"
    sandbox.confirm("t3")
    sandbox.assert_clean(str(sandbox.root / "nix/store/other"))


def test_backstop_rolls_back_when_the_watchdog_is_dead(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new"))
    sandbox.wait_for("activated")
    sandbox.kill_units()
    sandbox.say(["rollback", "t1", "backstop"])
    sandbox.assert_clean(old(sandbox))


def test_a_repeated_begin_begins_nothing_twice(sandbox: Sandbox) -> None:
    new = sandbox.system("new", test="exit 2")
    sandbox.begin(new)
    assert sandbox.begin(new).result == "known"
    sandbox.confirm()
    report = sandbox.begin(new)
    assert report.result == "known"
    assert report.record is not None
    assert report.record.phase == "rolled-back"
    assert sandbox.calls == ["new test", "old test"]


def test_abort_rolls_back_at_once(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new"))
    sandbox.wait_for("activated")
    sandbox.run(["abort", "t1", "the operator's page is down"])
    report = sandbox.confirm()
    assert report.record is not None
    assert report.record.reason == "the operator's page is down"
    sandbox.assert_clean(old(sandbox))


@pytest.mark.parametrize("phase", ["armed", "activated"])
def test_power_cut_before_the_commit_is_a_rollback(sandbox: Sandbox, phase: str) -> None:
    sandbox.begin(sandbox.system("new", test="sleep 60" if phase == "armed" else ""))
    if phase == "activated":
        sandbox.wait_for("activated")
    sandbox.forget_boot()
    report = sandbox.run(["settle"])
    assert report.record is not None
    assert (report.record.phase, report.record.method) == ("rolled-back", "reboot")
    (sandbox.root / "fake/units/fediversity-guard-backstop.timer").unlink(missing_ok=True)
    sandbox.assert_clean(old(sandbox))


def test_power_cut_between_profile_and_boot_default(sandbox: Sandbox) -> None:
    new = sandbox.system("new", boot="touch $ROOT/fake/here; sleep 60")
    sandbox.begin(new)
    sandbox.wait_for("activated")
    sandbox.say_in_background(["confirm", "t1", "5", "activated", "commit"])
    sandbox.wait_for_file("here")
    assert (sandbox.profile, sandbox.boot_default) == (new, old(sandbox))
    sandbox.forget_boot()
    later = sandbox.system("later")
    assert sandbox.begin(later, txn="t2").result == "started"
    assert "t1 rolled-back" in sandbox.journal
    sandbox.confirm("t2")
    sandbox.assert_clean(later)


def test_interrupted_commit_is_rolled_back_by_the_watchdog(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new", boot="touch $ROOT/fake/here; sleep 60"))
    sandbox.wait_for("activated")
    sandbox.say_in_background(["confirm", "t1", "5", "activated", "commit"])
    sandbox.wait_for_file("here")
    subprocess.run(["systemctl", "stop", "background.service"], env=sandbox.environment, check=True)
    report = sandbox.confirm()
    assert report.record is not None
    assert (report.record.phase, report.record.reason) == ("rolled-back", "the commit was interrupted")
    sandbox.assert_clean(old(sandbox))


def test_power_cut_after_the_boot_default_finishes_the_commit(sandbox: Sandbox) -> None:
    new = sandbox.system("new")
    sandbox.begin(new)
    sandbox.wait_for("activated")
    sandbox.kill_units()
    record = sandbox.root / "var/lib/fediversity-guard/transaction"
    text = record.read_text(encoding="utf-8").replace("phase=activated", "phase=committing")
    record.write_text(text.replace("stage=activated", "stage=committing"), encoding="utf-8")
    profile = sandbox.root / "nix/var/nix/profiles/system"
    profile.with_name("system-8-link").symlink_to(new)
    profile.unlink()
    profile.symlink_to("system-8-link")
    subprocess.run([f"{new}/bin/switch-to-configuration", "boot"], env=sandbox.environment, check=True)
    sandbox.forget_boot()
    report = sandbox.run(["settle"])
    assert report.record is not None
    assert report.record.phase == "committed"
    (sandbox.root / "fake/units/fediversity-guard-backstop.timer").unlink(missing_ok=True)
    sandbox.assert_clean(new)


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (lambda s: (s.root / "nix/store/new/bin/switch-to-configuration").unlink(), "not a NixOS system"),
        (lambda s: (s.root / "nix/store/new").rename(s.root / "gone"), "not in the machine's Nix store"),
        (lambda s: (s.root / "run/current-system").unlink(), "nothing to roll back to"),
        (lambda s: (s.root / "var/lib/fediversity-guard").write_text("", encoding="utf-8"), "cannot write"),
    ],
)
def test_refusals_arm_nothing(sandbox: Sandbox, prepare: Callable[[Sandbox], object], error: str) -> None:
    new = sandbox.system("new")
    prepare(sandbox)
    report = sandbox.begin(new)
    assert report.result == ("missing" if "Nix store" in error else "refused")
    assert error in report.error
    assert sandbox.live_units() == []
    assert not (sandbox.root / "nix/var/nix/gcroots/fediversity-guard").exists()


def test_systemd_that_starts_nothing_is_a_refusal(sandbox: Sandbox) -> None:
    new = sandbox.system("new")
    sandbox.fake("no-units", "")
    report = sandbox.begin(new)
    assert (report.result, report.error) == ("refused", "systemd did not start the watchdog")
    sandbox.assert_clean(old(sandbox))


def test_first_deployment_without_a_profile(sandbox: Sandbox) -> None:
    (sandbox.root / "nix/var/nix/profiles/system").unlink()
    (sandbox.root / "nix/var/nix/profiles/system-7-link").unlink()
    sandbox.begin(sandbox.system("bad", boot="exit 1"))
    report = sandbox.confirm()
    assert report.record is not None
    assert report.record.phase == "rolled-back"
    assert list((sandbox.root / "nix/var/nix/profiles").iterdir()) == []
    new = sandbox.system("new")
    sandbox.begin(new, txn="t2")
    sandbox.confirm("t2")
    sandbox.assert_clean(new)


def test_somebody_elses_generation_is_never_removed(sandbox: Sandbox) -> None:
    new = sandbox.system("new", boot="ln -sfn $ROOT/nix/store/foreign $ROOT/nix/var/nix/profiles/system; exit 1")
    sandbox.system("foreign")
    sandbox.begin(new)
    sandbox.confirm()
    assert sandbox.profile == str(sandbox.root / "nix/store/foreign")


def test_hostile_words_stay_words(sandbox: Sandbox) -> None:
    new = sandbox.system("new")
    hostile = "$(touch pwned) `touch pwned` ' \" ; touch pwned"
    words = begin_words(Request(txn="t1", owner=hostile, system=new))
    report = sandbox.run(words)
    assert report.record is not None
    assert report.record.owner == hostile
    assert "pwned" not in {file.name for file in sandbox.root.rglob("*")}
    sandbox.confirm()
