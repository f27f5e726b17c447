# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard's shell in a sandbox: interruptions at the worst places."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path

from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import guard
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Record, Report, parse_report
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import (
    FreeSpace,
    HealthChecks,
    Request,
    begin_words,
    confirm_words,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.scripts import guard_text
from guard_sandbox import FAKES, Sandbox


def old(sandbox: Sandbox) -> str:
    return str(sandbox.root / "nix/store/old")


def record_of(report: Report) -> Record:
    assert report.record is not None
    return report.record


def boot_unit(sandbox: Sandbox) -> None:
    payload = next((sandbox.root / "var/lib/fediversity-guard").glob("guard-*"))
    subprocess.run([sandbox.shell, payload, "booted"], env=sandbox.environment, check=False, timeout=60)


def without_patience(sandbox: Sandbox) -> None:
    """A restart happens at once: nobody waits for it."""
    sandbox.program("sleep", 'case $1 in 60) exit 0 ;; *) exec /bin/sleep "$@" ;; esac')


def another_version(sandbox: Sandbox, words: list[str]) -> Report:
    """The same call by a controller whose guard is a newer one."""
    script = (
        f"set -- {shlex.join(words)}\nGUARD_HASH=0123456789abcdef\n"
        f'GUARD_TEXT={shlex.quote(guard_text() + "# newer")}\neval "$GUARD_TEXT"\n'
    )
    command = [sandbox.shell, "-c", 'eval "$(cat)"']
    done = subprocess.run(
        command, input=script, env=sandbox.environment, capture_output=True, text=True, check=True, timeout=60
    )
    return parse_report(done.stdout)


def test_power_cut_between_the_boot_loader_and_the_record_of_a_trial(sandbox: Sandbox) -> None:
    new = sandbox.watched(sandbox.system("new"))
    sandbox.program("bootctl", f'{FAKES}/bootctl "$@"; touch $GUARD_ROOT/fake/set; sleep 30')
    sandbox.begin(new, reboot="always")
    sandbox.wait_for_file("set")
    (sandbox.root / "fake/bin/bootctl").unlink()
    sandbox.forget_boot()
    assert sandbox.current == new
    boot_unit(sandbox)
    report = sandbox.run(["status"])
    assert (record_of(report).phase, report.watchdog) == ("activated", True)
    assert record_of(sandbox.confirm()).phase == "committed"
    sandbox.assert_clean(new)


def test_a_trial_that_is_given_up_while_the_machine_goes_down(sandbox: Sandbox) -> None:
    new = sandbox.watched(sandbox.system("new"))
    sandbox.program(
        "systemctl",
        'if [ "$1" = reboot ] && [ ! -e $GUARD_ROOT/fake/really ]; then'
        f' touch $GUARD_ROOT/fake/no-units $GUARD_ROOT/fake/down; exit 0; fi; exec {FAKES}/systemctl "$@"',
    )
    sandbox.begin(new, reboot="always")
    sandbox.wait_for_file("down")
    subprocess.run(["systemctl", "stop", "fediversity-guard.service"], env=sandbox.environment, check=True)
    sandbox.run(["abort", "t1", "by hand"])
    sandbox.fake("really", "")
    (sandbox.root / "fake/no-units").unlink()
    without_patience(sandbox)
    sandbox.forget_boot()
    assert sandbox.current == new
    boot_unit(sandbox)  # restarts: the loader has the old system again
    boot_unit(sandbox)
    record = record_of(sandbox.run(["status"]))
    assert (record.phase, record.reason) == ("rolled-back", "by hand")
    sandbox.kill_units()
    sandbox.assert_clean(old(sandbox))


def test_a_commit_that_cannot_be_finished_after_a_power_cut(sandbox: Sandbox) -> None:
    boot = (
        "[ ! -e $ROOT/fake/full ] || exit 1\n"
        f"if [ ! -e $ROOT/fake/cut ]; then sh {FAKES}/install-boot-loader $ROOT/nix/store/new;"
        " touch $ROOT/fake/cut; sleep 30; fi"
    )
    new = sandbox.system("new", boot=boot)
    sandbox.begin(new)
    sandbox.wait_for("activated")
    sandbox.say_in_background(confirm_words("t1", 10, "activated", HealthChecks(), hold=False))
    sandbox.wait_for_file("cut")
    sandbox.forget_boot()
    assert sandbox.current == new
    sandbox.fake("full", "")
    without_patience(sandbox)
    boot_unit(sandbox)
    boot_unit(sandbox)
    assert record_of(sandbox.run(["status"])).phase == "rolled-back"
    sandbox.kill_units()
    sandbox.assert_clean(old(sandbox))


def test_a_boot_loader_that_does_not_obey_makes_no_circle(sandbox: Sandbox) -> None:
    new = sandbox.watched(sandbox.system("new"))
    sandbox.begin(new, reboot="always", reboot_limit=1)
    for _look in range(100):
        if (sandbox.root / "fake/reboots").exists():
            break
        time.sleep(0.1)
    without_patience(sandbox)
    sandbox.fake("stubborn", new)
    boot_unit(sandbox)
    for _look in range(100):
        boot_unit(sandbox)
        record = record_of(sandbox.run(["status"]))
        if not record.live:
            break
        time.sleep(0.2)
    assert record.phase == "failed"
    assert "although it was given up" in record.reason


def test_the_boot_unit_does_not_wait_for_a_rollback_that_waits_for_it(sandbox: Sandbox) -> None:
    script = Path(old(sandbox), "bin/switch-to-configuration")
    text = script.read_text(encoding="utf-8")
    script.write_text(
        text.replace("test)\n", "test)\nsh $ROOT/var/lib/fediversity-guard/guard-* booted\n"), encoding="utf-8"
    )
    sandbox.begin(sandbox.system("new"), rollback_limit=5)
    sandbox.wait_for("activated")
    sandbox.run(["abort", "t1", "enough"])
    assert record_of(sandbox.confirm()).method == "reactivate"
    assert not (sandbox.root / "fake/reboots").exists()
    sandbox.assert_clean(old(sandbox))


def test_nothing_is_activated_when_that_cannot_be_recorded(sandbox: Sandbox) -> None:
    sandbox.program(
        "mv",
        'if grep -qs ^phase=activating "$2" || [ -e $GUARD_ROOT/fake/ro ]; then touch $GUARD_ROOT/fake/ro; exit 1; fi;'
        ' exec /bin/mv "$@"',
    )
    sandbox.begin(sandbox.system("new"), activation_limit=3)
    sandbox.wait_for_file("ro")
    assert sandbox.live_units() in ([], ["fediversity-guard-backstop.timer"])
    (sandbox.root / "fake/bin/mv").unlink()
    record = record_of(sandbox.run(["settle"]))  # as the next run does; nothing is armed any more
    assert (record.phase, sandbox.calls) == ("rolled-back", [])
    sandbox.assert_clean(old(sandbox))


def test_a_slow_check_never_commits_a_later_transaction(sandbox: Sandbox) -> None:
    one, two = sandbox.system("one"), sandbox.system("two")
    sandbox.begin(one, check_limit=1)
    sandbox.wait_for("activated")
    slow = HealthChecks(commands=("touch $GUARD_ROOT/fake/checking; sleep 6; touch $GUARD_ROOT/fake/checked",))
    sandbox.say_in_background(confirm_words("t1", 10, "activated", slow, hold=False))
    sandbox.wait_for_file("checking")
    assert "the health checks took longer than 1 s" in record_of(sandbox.wait_for("rolled-back")).reason
    sandbox.begin(two, txn="t2")
    sandbox.wait_for("activated")
    sandbox.wait_for_file("checked")
    time.sleep(1)
    assert record_of(sandbox.run(["status"])).phase == "activated"
    sandbox.confirm("t2")
    sandbox.assert_clean(two)


def test_a_newer_controller_ends_what_an_older_one_began(sandbox: Sandbox) -> None:
    new = sandbox.system("new")
    sandbox.begin(new)
    sandbox.wait_for("activated")
    subprocess.run(["systemctl", "stop", "fediversity-guard.service"], env=sandbox.environment, check=True)
    request = Request(txn="t2", owner="x", system=new, minimum_free=FreeSpace(0, 0, 0))
    assert another_version(sandbox, begin_words(request)).result == "locked"
    assert record_of(sandbox.confirm()).reason == "its watchdog is gone"
    assert another_version(sandbox, begin_words(request)).result == "started"
    assert record_of(sandbox.confirm("t2")).phase == "committed"
    sandbox.assert_clean(new)


def test_a_failed_check_counts_even_if_it_cannot_be_recorded(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new"))
    sandbox.wait_for("activated")
    sandbox.program("mv", "exit 1")
    sandbox.run(["confirm", "t1", "1", "activated", "commit", "patience=0", "unit=none.service"])
    for _look in range(100):
        if sandbox.current == old(sandbox):
            break
        time.sleep(0.1)
    assert sandbox.current == old(sandbox)
    (sandbox.root / "fake/bin/mv").unlink()
    sandbox.confirm()
    sandbox.assert_clean(old(sandbox))


def test_a_commit_that_fails_without_rollback_is_put_back_and_not_unchanged(sandbox: Sandbox) -> None:
    new = sandbox.system("new", boot="exit 1")
    sandbox.begin(new, rollback="no")
    assert record_of(sandbox.confirm()).phase == "failed"
    assert (sandbox.current, sandbox.profile, sandbox.boot_default) == (new, old(sandbox), old(sandbox))
    report = sandbox.run(["status", new])
    assert guard.preflight(report, Request(txn="t2", owner="x", system=new)) is guard.Preflight.DEPLOY


def test_a_reason_of_several_lines_is_one_line_of_the_record(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new"))
    sandbox.wait_for("activated")
    sandbox.run(["abort", "t1", "it said:\nphase=committed\r\nsystem_old=/x"])
    record = record_of(sandbox.confirm())
    assert (record.phase, record.system_old) == ("rolled-back", old(sandbox))
    assert record.reason == "it said: phase=committed  system_old=/x"


def test_the_connection_is_known_under_sudo_too(sandbox: Sandbox) -> None:
    """sudo removes SSH_CONNECTION; the process above it still has it."""
    new = sandbox.system("new")
    environment = {**sandbox.environment, "SSH_CONNECTION": ""}
    sudo = [
        "env",
        "SSH_CONNECTION=192.0.2.7 1 192.0.2.1 2222",
        "sh",
        "-c",
        "env SSH_CONNECTION= sh -c 'eval \"$(cat)\"'; :",
    ]
    words = begin_words(Request(txn="t1", owner="x", system=new, minimum_free=FreeSpace(0, 0, 0)))
    script = f'set -- {shlex.join(words)}\nGUARD_HASH=x\nGUARD_TEXT={shlex.quote(guard_text())}\neval "$GUARD_TEXT"\n'
    done = subprocess.run(sudo, input=script, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert "@record_port=2222\n" in done.stdout
    assert "@record_peer=192.0.2.7\n" in done.stdout
    sandbox.confirm()
