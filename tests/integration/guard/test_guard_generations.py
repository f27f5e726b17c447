# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Generations of a lab host: listed, returned to under the guard, and deleted without harm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from guard_lab import Deployment, GuardedHost

pytestmark = pytest.mark.lab
PROFILE = "/nix/var/nix/profiles/system"


def begin(host: GuardedHost, *options: str, **arguments: Any) -> Deployment:
    limits = {"confirm_timeout": 5, "activation_timeout": 20, "connect_timeout": 60}
    return host.start("nixos_generations", {**limits, **arguments}, *options)


def generations(host: GuardedHost, *options: str, **arguments: Any) -> dict[str, Any]:
    result = begin(host, *options, **arguments).result()
    assert not result["failed"], result
    return result


def numbers(result: dict[str, Any], mark: str = "number") -> list[int]:
    return [item["number"] for item in result["generations"] if item[mark]]


def menu(host: GuardedHost) -> set[int]:
    """Generations that the boot menu offers."""
    names = host.shell("cd /boot/loader/entries && ls nixos-generation-*.conf").split()
    return {int(name.removeprefix("nixos-generation-").removesuffix(".conf")) for name in names}


def make_generation(host: GuardedHost, name: str) -> int:
    """A generation with this system that was never activated, behind the guard's back; the profile stays."""
    run = host.start("nixos_rebuild", {"system": host.systems[name], "action": "dry_activate"})
    assert not run.result()["failed"]
    before = host.shell(f"readlink {PROFILE}").strip().removeprefix("system-").removesuffix("-link")
    host.shell(f"nix-env -p {PROFILE} --set {host.systems[name]}")
    made = host.shell(f"readlink {PROFILE}").strip().removeprefix("system-").removesuffix("-link")
    host.shell(f"nix-env -p {PROFILE} --switch-generation {before}")
    assert made != before
    return int(made)


def test_list_after_two_deployments(host: GuardedHost) -> None:
    for name in ("next", "other"):
        assert not host.deploy(name)["failed"]
    before = host.handshakes()
    result = generations(host)
    assert host.handshakes() - before == 1
    assert not result["changed"]
    found = result["generations"]
    assert numbers(result) == sorted(numbers(result))
    assert [item["path"] for item in found[-2:]] == [host.systems["next"], host.systems["other"]]
    newest = found[-1]
    assert (newest["current"], newest["default"], newest["profile"]) == (True, True, True)
    assert newest["version"] == "lab"
    age = datetime.now(UTC) - datetime.fromisoformat(newest["date"])
    assert timedelta(seconds=-5) < age < timedelta(hours=1)
    booted = host.shell("readlink -f /run/booted-system").strip()
    assert {item["path"] for item in found if item["booted"]} == {booted}
    assert set(numbers(result)) == menu(host)


def test_return_to_the_previous_one_and_to_a_number(host: GuardedHost) -> None:
    host.deploy("next")
    host.deploy("other")
    before = generations(host)
    last = numbers(before, "profile")[0]
    result = generations(host, generation="previous", health_checks={"units": ["web.service"]})
    assert (result["changed"], result["phase"], result["rc"]) == (True, "committed", 0)
    assert (result["old"], result["new"]) == (host.systems["other"], host.systems["next"])
    host.assert_clean("next")
    assert numbers(result) == numbers(before)  # no new one
    assert result["generation"] == numbers(result, "profile")[0] == last - 1
    assert {item["path"] for item in result["generations"] if item["default"]} == {host.systems["next"]}
    again = generations(host, generation=str(last - 1))
    assert (again["changed"], again["phase"]) == (False, "unchanged")
    result = generations(host, generation=str(last))
    assert (result["phase"], result["generation"]) == ("committed", last)
    host.assert_clean("other")
    result = generations(host, system=host.systems["next"])
    assert (result["phase"], result["generation"], numbers(result)) == ("committed", last - 1, numbers(before))
    host.assert_clean("next")


def test_a_system_that_no_generation_has(host: GuardedHost) -> None:
    host.start("nixos_rebuild", {"system": host.systems["other"], "action": "dry_activate"}).result()
    before = generations(host, keep=1)
    result = generations(host, system=host.systems["other"])
    assert (result["phase"], len(numbers(result))) == ("committed", len(numbers(before)) + 1)
    host.assert_clean("other")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wrong-address", "no confirmation within"),
        ("activation-fails", "the activation script failed"),
        ("bootloader-fails", "the profile or the boot default could not be set"),
    ],
)
def test_return_to_a_bad_generation_is_rolled_back(host: GuardedHost, name: str, reason: str) -> None:
    before = numbers(generations(host), "profile")
    bad = make_generation(host, name)
    result = begin(host, generation=str(bad)).result()
    assert result["failed"], result
    assert reason in result["msg"]
    assert result["phase"] == "rolled-back"
    assert numbers(result, "profile") == before
    assert bad in numbers(result)  # it was there before, so it is not this transaction's to delete
    host.assert_clean("base")


def test_check_mode_changes_nothing(host: GuardedHost) -> None:
    host.deploy("next")
    journal = host.journal()
    run = begin(host, "--check", "--diff", generation="previous")
    result = run.result()
    assert (result["changed"], result["phase"]) == (True, "planned")
    output = run.output.read_text(encoding="utf-8")
    assert f"--- {host.systems['next']}" in output
    assert f"+++ {result['new']}" in output
    assert "would activate the configuration..." in result["log"]
    before = numbers(generations(host))
    result = generations(host, "--check", keep=1)
    assert (result["changed"], numbers(result)) == (True, before)
    assert result["deleted"]
    assert host.journal() == journal
    host.assert_clean("next")


def test_refusals(host: GuardedHost) -> None:
    path = host.systems["base"].replace("-nixos-system", "-another")
    for arguments, text in (
        ({"generation": "999999"}, "there is no generation 999999"),
        ({"generation": "last"}, "is no generation"),
        ({"system": path}, "is not on the machine"),
        ({"system": "/etc"}, "not a store path"),
        ({"keep": 0}, "keep: 0 is out of range"),
        ({"generation": "previous", "keep": 3}, "mutually exclusive"),
    ):
        result = begin(host, **arguments).result()
        assert result["failed"], arguments
        assert text in result["msg"]
        assert not result["changed"]
    host.assert_clean("base")


def test_collect_keeps_what_is_in_use(host: GuardedHost) -> None:
    host.power("reset")
    generations(host)
    host.deploy("next")
    host.deploy("other")
    host.shell(f"for link in {PROFILE}-*-link; do touch -h -d '10 days ago' $link; done")
    before = generations(host)
    assert not generations(host, keep=1, keep_days=11)["changed"]
    result = generations(host, keep=1, keep_days=9, collect_garbage=True)
    assert result["changed"]
    kept = [item for item in before["generations"] if item["booted"] or item["profile"] or item["default"]]
    assert numbers(result) == [item["number"] for item in kept]
    assert host.systems["base"] in {item["path"] for item in kept if item["booted"]}
    assert sorted(result["deleted"] + numbers(result)) == numbers(before)
    assert menu(host) == set(numbers(result))
    assert result["freed_paths"] > 0
    assert result["freed_bytes"] >= 0
    assert host.shell(f"ls -d {host.systems['next']} 2>/dev/null || true") == ""
    host.assert_clean("other")
    again = generations(host, keep=1, keep_days=9, collect_garbage=True)
    assert (again["changed"], again["deleted"], again["freed_paths"]) == (False, [], 0)
    host.power("reset")
    generations(host)
    host.assert_clean("other")


def test_a_menu_that_cannot_be_written_is_told_and_made_up_for(host: GuardedHost) -> None:
    host.deploy("next")
    make_generation(host, "other")
    host.shell("mv /boot/loader/entries /boot/loader/entries.away; touch /boot/loader/entries")
    result = begin(host, keep=1, collect_garbage=True).result()
    host.shell("rm /boot/loader/entries; mv /boot/loader/entries.away /boot/loader/entries")
    assert result["failed"]
    assert result["changed"]
    assert "the boot menu could not be made anew" in result["msg"]
    assert menu(host) - set(numbers(result))
    result = generations(host, keep=1)
    assert result["deleted"] == []
    assert menu(host) == set(numbers(result))
    host.assert_clean("next")


def test_collect_during_a_deployment_is_refused(host: GuardedHost) -> None:
    before = generations(host)
    run = host.begin("slow")
    host.wait_for_phase("activating")
    result = begin(host, keep=1).result()
    assert result["failed"]
    assert "is under way" in result["msg"]
    assert not result["changed"]
    assert run.result()["phase"] == "committed"
    assert set(numbers(before)) < set(numbers(generations(host)))
    host.assert_clean("slow")


def test_two_collections_at_once(host: GuardedHost) -> None:
    host.deploy("next")
    make_generation(host, "other")
    make_generation(host, "slow")
    before = generations(host)
    results = [run.result() for run in [begin(host, keep=1) for _run in range(2)]]
    assert [result["failed"] for result in results] == [False, False], results
    after = numbers(generations(host))
    deleted = [number for result in results for number in result["deleted"]]
    assert sorted(deleted + after) == numbers(before)  # each one once
    assert menu(host) == set(after)
    host.assert_clean("next")


def test_a_collection_while_a_deployment_begins(host: GuardedHost) -> None:
    make_generation(host, "other")
    host.deploy("base")
    run = host.begin("next")
    collection = begin(host, keep=1, collect_garbage=True).result()
    assert not collection["failed"] or "under way" in collection["msg"], collection
    result = run.result()
    if result["failed"]:  # the garbage collection began between the copy and the lock: nothing was armed
        assert "is not in the machine's Nix store" in result["msg"]
        result = host.deploy("next")
    assert (result["failed"], result["phase"]) == (False, "committed"), result
    host.assert_clean("next")
    generations(host, keep=1, collect_garbage=True)
    host.assert_clean("next")
