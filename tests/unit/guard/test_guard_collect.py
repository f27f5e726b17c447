# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Generations on the machine's side: what is really left behind, in a sandbox."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Locked
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import generations
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.generations import (
    DAY,
    Listing,
    Retention,
    doomed,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.scripts import guard_script
from guard_sandbox import FAKES, Sandbox


@pytest.fixture
def machine(sandbox: Sandbox) -> Sandbox:
    """Generations 3 to 7; 7 (`old`) is the profile's, and runs, 5 is booted. Each day one, until now."""
    sandbox.program(
        "nix-env",
        f'[ "$3" = --delete-generations ] || exec {FAKES}/nix-env "$@"\n'
        'echo "nix-env $*" >>"$GUARD_ROOT/fake/calls"\n[ ! -e "$GUARD_ROOT/fake/profile-broken" ] || exit 1\n'
        'profile=$2\nshift 3\nfor number; do rm -f "$profile-$number-link"; done',
    )
    sandbox.program(
        "nix-collect-garbage", 'echo garbage >>"$GUARD_ROOT/fake/calls"\necho "3 store paths deleted, 1.00 MiB freed"'
    )
    profile = sandbox.root / "nix/var/nix/profiles/system"
    for number in range(3, 7):
        path = sandbox.system(f"gen{number}")
        (sandbox.root / "nix/store" / f"gen{number}" / "nixos-version").write_text(f"25.{number}", encoding="utf-8")
        profile.with_name(f"system-{number}-link").symlink_to(path)
    clock = int(subprocess.run(["date", "+%s"], capture_output=True, text=True, check=True).stdout)
    for number in range(3, 8):
        made = clock - (7 - number) * DAY
        os.utime(profile.with_name(f"system-{number}-link"), (made, made), follow_symlinks=False)
    (sandbox.root / "nix/var/nix/profiles/system-profiles").mkdir()
    booted = sandbox.root / "run/booted-system"
    booted.unlink()
    booted.symlink_to(sandbox.root / "nix/store/gen5")
    install_boot_loader(sandbox, "old")
    return sandbox


def install_boot_loader(machine: Sandbox, name: str) -> None:
    """The system becomes the boot default, if it is a generation's."""
    command = ["sh", FAKES / "install-boot-loader", machine.root / "nix/store" / name]
    subprocess.run(command, env=machine.environment, check=True, timeout=60)


def menu(machine: Sandbox) -> set[str]:
    return {file.name for file in (machine.root / "boot/loader/entries").iterdir()}


def seen(machine: Sandbox) -> Listing:
    return generations.parse_listing(machine.say(["generations"]))


def numbers(machine: Sandbox) -> list[int]:
    return [entry.number for entry in seen(machine).entries]


def collect(machine: Sandbox, *chosen: int, garbage: str = "no") -> generations.Collected:
    return generations.parse_collected(machine.say(["collect", "somebody", garbage, *map(str, chosen)]))


def test_list(machine: Sandbox) -> None:
    found = generations.describe(seen(machine))
    assert [item["number"] for item in found] == [3, 4, 5, 6, 7]
    assert [item["version"] for item in found] == ["25.3", "25.4", "25.5", "25.6", None]
    marks = {key: [item["number"] for item in found if item[key]] for key in ("current", "booted", "profile")}
    assert marks == {"current": [7], "booted": [5], "profile": [7]}
    assert found[0]["path"] == str(machine.root / "nix/store/gen3")
    assert found[0]["date"].endswith("Z")
    assert not (machine.root / "run/fediversity-guard").exists()
    assert not (machine.root / "var/lib/fediversity-guard").exists()


def test_the_boot_default_is_marked(machine: Sandbox) -> None:
    install_boot_loader(machine, "gen4")
    assert [item["number"] for item in generations.describe(seen(machine)) if item["default"]] == [4]


def test_collect_by_age_and_number(machine: Sandbox) -> None:
    found = seen(machine)
    chosen = doomed(found.entries, generations.in_use(found.report), found.clock, Retention(keep=1, keep_days=3))
    assert chosen == (3, 4)
    done = collect(machine, *chosen)
    assert (done.deleted, done.kept, done.error, done.freed_bytes) == ((3, 4), (), None, 0)
    assert numbers(machine) == [5, 6, 7]
    assert machine.calls[-1] == "old boot"
    assert "collected generations 3 4 by somebody" in machine.journal
    found = seen(machine)
    assert doomed(found.entries, generations.in_use(found.report), found.clock, Retention(1, 3)) == ()


def test_the_machine_keeps_what_is_in_use_whatever_it_is_told(machine: Sandbox) -> None:
    install_boot_loader(machine, "gen4")
    running = machine.root / "run/current-system"
    running.unlink()
    running.symlink_to(machine.root / "nix/store/gen6")
    done = collect(machine, 3, 4, 5, 6, 7, 99)
    assert (done.deleted, done.kept) == ((3,), (4, 5, 6, 7))
    assert numbers(machine) == [4, 5, 6, 7]
    assert machine.calls[-1] == "gen4 boot"
    assert machine.boot_default == str(machine.root / "nix/store/gen4")
    assert menu(machine) == {f"nixos-generation-{number}.conf" for number in (4, 5, 6, 7)}


def test_a_boot_default_that_is_no_generation_is_replaced_by_the_profiles(machine: Sandbox) -> None:
    link = machine.root / "nix/var/nix/profiles/system-2-link"
    link.symlink_to(machine.system("stray"))
    install_boot_loader(machine, "stray")
    link.unlink()
    assert collect(machine, 3).error is None
    assert machine.boot_default == str(machine.root / "nix/store/old")


def test_garbage_goes_last_and_is_counted(machine: Sandbox) -> None:
    done = collect(machine, 3, garbage="yes")
    assert (done.deleted, done.freed_paths, done.freed_bytes) == ((3,), 3, 1048576)
    assert machine.calls[-2:] == ["old boot", "garbage"]


def test_nothing_to_delete_leaves_the_menu_alone(machine: Sandbox) -> None:
    done = collect(machine, 99)
    assert (done.deleted, done.error, machine.calls) == ((), None, [])
    assert not (machine.root / "var/lib/fediversity-guard/journal").exists()


def test_failed_menu_is_told_and_made_up_for(machine: Sandbox) -> None:
    script = machine.root / "nix/store/old/bin/switch-to-configuration"
    good = script.read_text(encoding="utf-8")
    script.write_text("#!/bin/sh\necho no space on /boot\nexit 1\n", encoding="utf-8")
    done = collect(machine, 3, garbage="yes")
    assert done.deleted == (3,)
    assert "the boot menu could not be made anew" in str(done.error)
    assert "no space on /boot" in done.log
    assert "garbage" not in machine.calls  # a menu entry may still need it
    assert seen(machine).menu_stale
    script.write_text(good, encoding="utf-8")
    done = collect(machine)
    assert (done.deleted, done.error) == ((), None)
    assert machine.calls[-1] == "old boot"
    assert not seen(machine).menu_stale


def test_a_collection_that_is_killed_is_made_up_for(machine: Sandbox) -> None:
    script = machine.root / "nix/store/old/bin/switch-to-configuration"
    good = script.read_text(encoding="utf-8")
    script.write_text('#!/bin/sh\ntouch "$GUARD_ROOT/fake/menu"\nsleep 2\n', encoding="utf-8")
    command = [machine.shell, "-c", 'eval "$(cat)"']
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=machine.environment, start_new_session=True) as process:
        assert process.stdin is not None
        process.stdin.write(guard_script(["collect", "somebody", "no", "3"]))
        process.stdin.close()
        machine.wait_for_file("menu")
        os.killpg(process.pid, signal.SIGKILL)
    assert numbers(machine) == [4, 5, 6, 7]
    assert seen(machine).menu_stale
    script.write_text(good, encoding="utf-8")
    assert collect(machine).error is None
    assert not seen(machine).menu_stale
    assert menu(machine) == {f"nixos-generation-{number}.conf" for number in (4, 5, 6, 7)}


def test_a_profile_that_cannot_be_changed(machine: Sandbox) -> None:
    machine.fake("profile-broken", "")
    done = collect(machine, 3, 4, garbage="yes")
    assert done.deleted == ()
    assert "nix-env could not delete the generations 3 4" in str(done.error)
    assert "garbage" not in machine.calls
    assert numbers(machine) == [3, 4, 5, 6, 7]


def test_garbage_that_cannot_be_collected(machine: Sandbox) -> None:
    machine.program("nix-collect-garbage", "echo error: disk; exit 1")
    done = collect(machine, garbage="yes")
    assert "nix-collect-garbage: error: disk failed with code 1" in str(done.error)


@pytest.mark.parametrize("phase", ["activating", "activated"])
def test_a_live_transaction_is_left_alone(machine: Sandbox, phase: str) -> None:
    machine.begin(machine.system("new", test="sleep 2" if phase == "activating" else ""))
    machine.wait_for(phase)
    with pytest.raises(Locked, match=f"a deployment of somebody is under way .*{phase}"):
        collect(machine, 3, garbage="yes")
    assert machine.confirm().profile == str(machine.root / "nix/store/new")
    assert collect(machine, 3).deleted == (3,)


def test_a_transaction_that_a_restart_interrupted_is_not_ours_to_end(machine: Sandbox) -> None:
    machine.begin(machine.system("new"))
    machine.wait_for("activated")
    machine.forget_boot()
    with pytest.raises(Locked):
        collect(machine, 3)
    machine.run(["settle"])
    assert collect(machine, 3).deleted == (3,)


def test_two_at_once_delete_each_generation_once(machine: Sandbox) -> None:
    script = machine.root / "nix/store/old/bin/switch-to-configuration"
    script.write_text("#!/bin/sh\nsleep 1\n", encoding="utf-8")
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _run: collect(machine, 3, 4), range(2)))
    assert sorted(one.deleted for one in done) == [(), (3, 4)]
    assert [one.error for one in done] == [None, None]
    assert numbers(machine) == [5, 6, 7]


def test_no_deployment_begins_while_generations_are_deleted(machine: Sandbox) -> None:
    new = machine.system("new")
    script = machine.root / "nix/store/old/bin/switch-to-configuration"
    script.write_text('#!/bin/sh\ntouch "$GUARD_ROOT/fake/menu"\nsleep 1\n', encoding="utf-8")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(collect, machine, 3)
        machine.wait_for_file("menu")
        report = machine.begin(new)
        assert (report.result, report.record) == ("locked", None)
        assert running.result().deleted == (3,)
    assert machine.begin(new).result == "started"


def test_the_lock_is_free_while_garbage_is_collected(machine: Sandbox) -> None:
    machine.program(
        "nix-collect-garbage", 'touch "$GUARD_ROOT/fake/garbage"\nsleep 2\necho "0 store paths deleted, 0.00 MiB freed"'
    )
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(collect, machine, 3, garbage="yes")
        machine.wait_for_file("garbage")
        assert machine.begin(machine.system("new")).result == "started"
        assert running.result().error is None


def test_difference_by_packages_or_else_by_paths(machine: Sandbox) -> None:
    words = ["generations", "difference", str(machine.root / "nix/store/gen3"), str(machine.root / "nix/store/gen4")]
    machine.program("nix", "exit 1")
    by_paths = generations.parse_difference(machine.say(words))
    assert by_paths == f"- {words[2]}\n+ {words[3]}\n"
    machine.program("nix", "printf 'web: \\033[31m1.0\\033[0m → 1.1\\nsystem: 25.3 → 25.4\\n'")
    assert generations.parse_difference(machine.say(words)) == "web: 1.0 → 1.1\nsystem: 25.3 → 25.4\n"


# --- going back ------------------------------------------------------------------------------------------------------


def test_the_commit_puts_the_profile_back_and_makes_nothing_new(machine: Sandbox) -> None:
    gen3 = str(machine.root / "nix/store/gen3")
    assert machine.begin(gen3, number=3).result == "started"
    report = machine.confirm()
    assert report.record is not None
    assert (report.record.phase, report.record.generation_new, report.generation) == ("committed", "3", 3)
    assert numbers(machine) == [3, 4, 5, 6, 7]
    machine.assert_clean(gen3)


def test_a_generation_that_cannot_be_committed_stays_as_it_was(machine: Sandbox) -> None:
    script = machine.root / "nix/store/gen3/bin/switch-to-configuration"
    script.write_text(script.read_text(encoding="utf-8").replace("boot)", "boot) exit 1"), encoding="utf-8")
    machine.begin(str(machine.root / "nix/store/gen3"), number=3)
    report = machine.confirm()
    assert report.record is not None
    assert (report.record.phase, report.generation) == ("rolled-back", 7)
    assert numbers(machine) == [3, 4, 5, 6, 7]
    machine.assert_clean(str(machine.root / "nix/store/old"))


@pytest.mark.parametrize("number", [4, 99])
def test_a_generation_that_is_another_by_now_is_refused(machine: Sandbox, number: int) -> None:
    report = machine.begin(str(machine.root / "nix/store/gen3"), number=number)
    assert report.result == "refused"
    assert f"generation {number} is not" in report.error
    machine.assert_clean(str(machine.root / "nix/store/old"))
