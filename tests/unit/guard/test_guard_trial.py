# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard's shell in a sandbox: held transactions, unit policies, a start on trial, what is checked before."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.report import Record, Report
from guard_sandbox import FAKES, Sandbox


def old(sandbox: Sandbox) -> str:
    return str(sandbox.root / "nix/store/old")


def record_of(report: Report) -> Record:
    assert report.record is not None
    return report.record


def start_boot_unit(sandbox: Sandbox) -> None:
    """What systemd does at every start with nix/modules/guard.nix."""
    payload = next((sandbox.root / "var/lib/fediversity-guard").glob("guard-*"))
    subprocess.run([sandbox.shell, payload, "booted"], env=sandbox.environment, check=True, timeout=60)


def wait_for_restart(sandbox: Sandbox, number: int) -> None:
    for _look in range(200):
        reboots = sandbox.root / "fake/reboots"
        if reboots.exists() and len(reboots.read_text(encoding="utf-8").splitlines()) == number:
            sandbox.kill_units()
            return
        subprocess.run(["sleep", "0.1"], check=True)
    raise AssertionError("no restart")


# --- held transactions


def test_a_held_transaction_waits_for_its_decision(sandbox: Sandbox) -> None:
    new = sandbox.system("new")
    sandbox.begin(new)
    assert record_of(sandbox.confirm(hold=True)).phase == "checked"
    assert (sandbox.current, sandbox.profile, sandbox.boot_default) == (new, old(sandbox), old(sandbox))
    assert record_of(sandbox.run(["commit", "t0"])).phase == "checked"
    assert record_of(sandbox.run(["commit", "t1"])).phase == "committed"
    assert record_of(sandbox.run(["commit", "t1"])).phase == "committed"
    sandbox.assert_clean(new)


def test_a_held_transaction_is_aborted(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new"))
    sandbox.confirm(hold=True)
    sandbox.run(["abort", "t1", "another machine of the group failed"])
    record = record_of(sandbox.confirm())
    assert (record.phase, record.reason) == ("rolled-back", "another machine of the group failed")
    assert record_of(sandbox.run(["commit", "t1"])).phase == "rolled-back"
    sandbox.assert_clean(old(sandbox))


def test_a_held_transaction_without_a_decision_is_rolled_back(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new"), hold_limit=1)
    sandbox.confirm(hold=True)
    assert "no decision within" in record_of(sandbox.wait_for("rolled-back")).reason
    sandbox.assert_clean(old(sandbox))


def test_commit_before_the_checks_does_nothing(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new"))
    sandbox.wait_for("activated")
    assert record_of(sandbox.run(["commit", "t1"])).phase == "activated"
    sandbox.run(["abort", "t1", "enough"])
    sandbox.confirm()
    sandbox.assert_clean(old(sandbox))


# --- unit policies


@pytest.mark.parametrize(
    ("policy", "watch", "phase"),
    [
        ("new", "", "committed"),
        ("new", "was.service", "rolled-back"),
        ("watched", "", "committed"),
        ("watched", "was.service", "rolled-back"),
        ("any", "", "rolled-back"),
        ("ignore", "was.service", "committed"),
    ],
)
def test_a_unit_that_had_failed_before(sandbox: Sandbox, policy: str, watch: str, phase: str) -> None:
    sandbox.fake("failed", "was.service loaded failed failed\n")
    new = sandbox.system("new", test="ln -sfn $ROOT/nix/store/new $ROOT/run/current-system; exit 4")
    sandbox.begin(new, policy=policy, watch=watch)
    assert record_of(sandbox.confirm()).phase == phase


@pytest.mark.parametrize(
    ("policy", "phase"), [("new", "rolled-back"), ("watched", "committed"), ("ignore", "committed")]
)
def test_a_unit_that_fails_newly(sandbox: Sandbox, policy: str, phase: str) -> None:
    text = 'ln -sfn $ROOT/nix/store/new $ROOT/run/current-system; echo "n.service x failed" >$ROOT/fake/failed; exit 4'
    sandbox.begin(sandbox.system("new", test=text), policy=policy)
    sandbox.wait_for("rolling-back" if phase == "rolled-back" else "activated")
    if phase == "rolled-back":
        sandbox.fake("failed", "")
    assert record_of(sandbox.confirm()).phase == phase


# --- a start on trial


def kernel(system: str) -> str:
    Path(system, "kernel").write_text("two", encoding="utf-8")
    return system


def test_another_kernel_starts_on_trial_and_is_committed(sandbox: Sandbox) -> None:
    new = sandbox.watched(kernel(sandbox.system("new")))
    sandbox.begin(new, reboot="if_needed")
    wait_for_restart(sandbox, 1)
    assert (sandbox.current, sandbox.profile, sandbox.boot_default) == (new, old(sandbox), old(sandbox))
    assert record_of(sandbox.run(["status"])).phase == "booting"
    start_boot_unit(sandbox)
    report = sandbox.run(["status"])
    assert (record_of(report).phase, report.watchdog) == ("activated", True)
    assert record_of(sandbox.confirm()).phase == "committed"
    assert sandbox.calls == ["old boot", "new boot"]
    assert not list((sandbox.root / "nix/var/nix/profiles/system-profiles").iterdir())
    sandbox.assert_clean(new)
    start_boot_unit(sandbox)
    sandbox.assert_clean(new)


def test_the_candidates_entry_is_found_by_its_system(sandbox: Sandbox) -> None:
    """Newer installers name entries by a digest, with the tries that are left."""
    new = sandbox.watched(sandbox.system("new"))
    Path(old(sandbox), "bin/switch-to-configuration").write_text(
        f"#!/bin/sh\ncd {sandbox.root}/nix/var/nix/profiles\n[ ! -L system-profiles/candidate ]"
        f" || echo 'options init={new}/init x' >{sandbox.root}/boot/loader/entries/nixos-0123456789+3.conf\n",
        encoding="utf-8",
    )
    sandbox.program("bootctl", 'echo "$2" >>$GUARD_ROOT/fake/asked; rm -f $GUARD_ROOT/fake/oneshot')
    sandbox.begin(new, reboot="always")
    wait_for_restart(sandbox, 1)
    assert (sandbox.root / "fake/asked").read_text(encoding="utf-8") == "nixos-0123456789.conf\n"


def test_a_contact_before_the_boot_unit_waits_for_it(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.watched(sandbox.system("new")), reboot="always")
    wait_for_restart(sandbox, 1)
    sandbox.say_in_background(["confirm", "t1", "10", "-", "commit"])
    assert record_of(sandbox.run(["status"])).phase == "booting"
    start_boot_unit(sandbox)
    assert record_of(sandbox.confirm()).phase == "committed"


def test_a_trial_without_contact_restarts_into_the_old_system(sandbox: Sandbox) -> None:
    new = sandbox.watched(sandbox.system("new"))
    sandbox.begin(new, reboot="always", reboot_limit=1)
    wait_for_restart(sandbox, 1)
    start_boot_unit(sandbox)
    wait_for_restart(sandbox, 2)
    assert sandbox.current == old(sandbox)
    start_boot_unit(sandbox)
    record = record_of(sandbox.run(["status"]))
    assert (record.phase, record.method) == ("rolled-back", "reboot")
    assert "no confirmation within" in record.reason
    assert not list((sandbox.root / "boot/loader/entries").glob("*candidate*"))
    sandbox.assert_clean(old(sandbox))


def test_a_power_cut_during_the_trial_is_a_rollback(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.watched(sandbox.system("new")), reboot="always")
    wait_for_restart(sandbox, 1)
    start_boot_unit(sandbox)
    sandbox.forget_boot()
    assert record_of(sandbox.run(["settle"])).phase == "rolled-back"
    sandbox.assert_clean(old(sandbox))


def test_a_boot_loader_that_starts_something_else_is_told(sandbox: Sandbox) -> None:
    sandbox.program("bootctl", "exit 0")
    new = sandbox.watched(sandbox.system("new"))
    sandbox.begin(new, reboot="always")
    wait_for_restart(sandbox, 1)
    record = record_of(sandbox.run(["settle"]))
    assert (record.phase, record.reason) == ("rolled-back", f"the machine did not start with {new}")
    sandbox.assert_clean(old(sandbox))


def test_a_boot_loader_that_cannot_start_once_changes_nothing(sandbox: Sandbox) -> None:
    sandbox.fake("no-efi", "")
    sandbox.begin(sandbox.watched(sandbox.system("new")), reboot="always")
    record = record_of(sandbox.confirm())
    assert (record.phase, record.method) == ("rolled-back", "loader")
    assert not (sandbox.root / "fake/reboots").exists()
    assert not list((sandbox.root / "boot/loader/entries").glob("*candidate*"))
    sandbox.assert_clean(old(sandbox))


def test_a_system_without_the_boot_unit_is_not_tried(sandbox: Sandbox) -> None:
    report = sandbox.begin(sandbox.system("new"), reboot="always")
    assert report.result == "refused"
    assert "import nix/modules/guard.nix" in report.error
    sandbox.assert_clean(old(sandbox))


def test_grub_gets_a_one_time_entry(sandbox: Sandbox) -> None:
    (sandbox.root / "boot/loader/loader.conf").unlink()
    (sandbox.root / "boot/grub").mkdir()
    menu = sandbox.root / "boot/grub/grub.cfg"
    text = 'if [ "${next_entry}" ]; then\nmenuentry "NixOS - Default" {\n  linux ($drive1)/x init=%s/init quiet\n}\n'
    menu.write_text(text % old(sandbox), encoding="utf-8")
    new = sandbox.watched(
        sandbox.system("new", boot=f"sed -i 's,init=[^ ]*,init={sandbox.root}/nix/store/new/init,' {menu}")
    )
    sandbox.program("findmnt", "echo ext4")
    sandbox.program("grub-editenv", 'echo "$3" >>$GUARD_ROOT/fake/grubenv')
    sandbox.program(
        "systemctl",
        f'if [ "$1" = reboot ]; then echo >>$GUARD_ROOT/fake/reboots; else exec {FAKES}/systemctl "$@"; fi',
    )
    assert sandbox.run(["status"]).default == old(sandbox)
    sandbox.begin(new, reboot="always")
    wait_for_restart(sandbox, 1)
    assert (sandbox.root / "fake/grubenv").read_text(encoding="utf-8") == "next_entry=NixOS - Profile 'candidate'>0\n"
    sandbox.program("findmnt", "echo btrfs")
    (sandbox.root / "var/lib/fediversity-guard/transaction").unlink()
    assert "GRUB cannot write" in sandbox.begin(new, txn="t2", reboot="always").error


def test_another_init_interface_is_booted_when_that_is_allowed(sandbox: Sandbox) -> None:
    new = sandbox.watched(sandbox.system("new", test="exit 100"))
    Path(new, "init-interface-version").write_text("2", encoding="utf-8")
    sandbox.begin(new, reboot="if_needed")
    wait_for_restart(sandbox, 1)
    start_boot_unit(sandbox)
    assert record_of(sandbox.confirm()).phase == "committed"
    assert "new test" not in sandbox.calls
    sandbox.assert_clean(new)


# --- boot default, space, checks before, generations


def test_an_installer_that_succeeds_without_effect_is_noticed(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new", boot="exit 0"))
    record = record_of(sandbox.confirm())
    assert (record.phase, record.reason) == ("rolled-back", "the profile or the boot default could not be set")
    sandbox.assert_clean(old(sandbox))


def test_a_stale_file_of_the_installer_is_in_nobodys_way(sandbox: Sandbox) -> None:
    new = sandbox.system("new")
    (sandbox.root / "boot/loader/loader.tmp").touch()
    sandbox.begin(new)
    assert record_of(sandbox.confirm()).phase == "committed"
    sandbox.assert_clean(new)


def test_an_entry_with_a_boot_counter_is_read(sandbox: Sandbox) -> None:
    entries = sandbox.root / "boot/loader/entries"
    (entries / "nixos-generation-7.conf").rename(entries / "nixos-generation-7+2-1.conf")
    assert sandbox.run(["status"]).default == old(sandbox)


def test_a_pattern_as_default_tells_nothing_and_a_preferred_entry_wins(sandbox: Sandbox) -> None:
    conf = sandbox.root / "boot/loader/loader.conf"
    conf.write_text("timeout 5\ndefault nixos-*\n", encoding="utf-8")
    assert sandbox.run(["status"]).default == ""
    conf.write_text("preferred nixos-generation-7.conf\ndefault nixos-*\n", encoding="utf-8")
    assert sandbox.run(["status"]).default == old(sandbox)


@pytest.mark.parametrize("field", ["free_nix", "free_boot", "free_state"])
def test_too_little_space_is_a_refusal(sandbox: Sandbox, field: str) -> None:
    report = sandbox.begin(sandbox.system("new"), **{field: 10**9})
    assert report.result == "refused"
    assert "1000000000 MiB are asked for" in report.error
    sandbox.assert_clean(old(sandbox))


def test_a_failed_pre_switch_check_arms_nothing(sandbox: Sandbox) -> None:
    report = sandbox.begin(sandbox.system("new", check="echo 'secrets are missing'; exit 1"))
    assert report.result == "refused"
    assert "secrets are missing" in report.error
    assert sandbox.calls == []
    sandbox.assert_clean(old(sandbox))


def test_a_system_that_does_not_know_the_check_is_deployed(sandbox: Sandbox) -> None:
    new = sandbox.system("new", check="echo 'Usage: switch|boot|test'; exit 1")
    sandbox.begin(new)
    assert record_of(sandbox.confirm()).phase == "committed"


def test_an_older_generation_becomes_the_profiles_again(sandbox: Sandbox) -> None:
    new = sandbox.system("new")
    sandbox.begin(new)
    sandbox.confirm()
    profiles = sandbox.root / "nix/var/nix/profiles"
    sandbox.begin(old(sandbox), txn="t2", number=7)
    report = sandbox.confirm("t2")
    assert (record_of(report).phase, report.generation) == ("committed", 7)
    assert sorted(path.name for path in profiles.glob("system-*-link")) == ["system-1-link", "system-7-link"]
    sandbox.assert_clean(old(sandbox))


def test_an_older_generation_that_cannot_be_committed_is_kept(sandbox: Sandbox) -> None:
    bad = sandbox.system("bad", boot="exit 1")
    profiles = sandbox.root / "nix/var/nix/profiles"
    (profiles / "system-3-link").symlink_to(bad)
    sandbox.begin(bad, number=3)
    assert record_of(sandbox.confirm()).phase == "rolled-back"
    assert (profiles / "system-3-link").is_symlink()
    sandbox.assert_clean(old(sandbox))


def test_a_generation_that_is_another_one_by_now_is_refused(sandbox: Sandbox) -> None:
    assert "is not" in sandbox.begin(sandbox.system("new"), number=7).error
    sandbox.assert_clean(old(sandbox))


def test_tcp_checks(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new"))
    sandbox.wait_for("activated")
    words = ["confirm", "t1", "5", "activated", "commit", "patience=0", "tcp=127.0.0.1 1"]
    sandbox.run(words)
    assert "no connection to 127.0.0.1 port 1" in record_of(sandbox.confirm()).reason


def test_a_record_is_written_from_the_reserve(sandbox: Sandbox) -> None:
    sandbox.begin(sandbox.system("new"))
    sandbox.wait_for("activated")
    reserve = sandbox.root / "var/lib/fediversity-guard/reserve"
    assert reserve.stat().st_size == 64 * 1024
    # no space until the reserve is gone
    sandbox.program(
        "mv", 'if [ -e "$GUARD_ROOT/var/lib/fediversity-guard/reserve" ]; then exit 1; fi; exec /bin/mv "$@"'
    )
    sandbox.run(["abort", "t1", "enough"])
    assert not reserve.exists()
    (sandbox.root / "fake/bin/mv").unlink()
    sandbox.confirm()
    sandbox.assert_clean(old(sandbox))
