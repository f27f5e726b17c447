# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many machines: a canary first, all or none, one that does not answer, back by hand, a reset as the last resort."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lab.story import ROOT, Run, application, operators, with_title

pytestmark = pytest.mark.lab

INVENTORY = ROOT / "inventories" / "lab"
ALICE, DORA = "http://social.alice.fedi.test/", "http://gallery.dora.fedi.test/"
BOB = "http://videos.bob.fedi.test/"
FAILS = {"ExecStart": "/bin/false"}
ADDRESSES = {"vm-mastodon": "10.99.1.10", "vm-shared": "10.99.1.11", "existing1": "10.99.0.20"}
# nothing on the machine is left that could end the switch
SILENCE = (
    "systemctl kill --signal=KILL fediversity-guard.service;"
    " systemctl stop fediversity-guard.service fediversity-guard-backstop.timer; ip link set eth0 down"
)
MUTE = {"Type": "oneshot", "RemainAfterExit": True, "ExecStart": f"/bin/sh -c '{SILENCE}'"}
SLOW = {"Type": "oneshot", "RemainAfterExit": True, "ExecStart": "/bin/sleep 14"}
# the network goes when the machine has passed its checks, while SLOW still keeps another one
GONE_SOON = {"Type": "simple", "RemainAfterExit": True, "ExecStart": "/bin/sh -c 'sleep 8; ip link set eth0 down'"}


@pytest.fixture(scope="module")
def settled(converged: Any) -> Any:
    """The converged estate; each test imports wishes of its own, and the lab's own come back at the end."""
    yield converged.estate
    converged.estate.import_operators()
    run = converged.estate.site("-e", "fediversity_release=all")
    assert run.code == 0, run.output


def retitled(title: str) -> dict[str, Any]:
    """A change on all three machines."""
    document = with_title(operators(), "alice", "social", title)
    return with_title(with_title(document, "bob", "videos", title), "dora", "gallery", title)


def with_service(document: dict[str, Any], operator: str, deployment: str, service: Mapping[str, Any]) -> None:
    """Add a unit to the machine of the deployment that is started when the machine is switched."""
    unit = {"wantedBy": ["multi-user.target"], "serviceConfig": dict(service)}
    application(document, operator, deployment)["nixos_options"] = {"systemd": {"services": {"added": unit}}}


def titles(estate: Any) -> dict[str, str]:
    return {url: page["content"]["instance"]["settings"]["title"] for url, page in estate.pages().items()}


def variables(**values: Any) -> tuple[str, str]:
    return "-e", json.dumps({f"fediversity_{name}": value for name, value in values.items()})


def rollback(estate: Any, *arguments: str) -> Run:
    run: Run = estate.execute("ansible-playbook", "playbooks/rollback.yml", *arguments)
    return run


def armed(estate: Any) -> list[str]:
    """What is left of the guard on the machine where it is easy to look; one unit of it is there at every boot."""
    run: Run = estate.command(
        "run", "existing1", "--", "systemctl", "list-units", "--plain", "--no-legend", "fediversity-guard*"
    )
    return [line for line in run.output.splitlines() if not line.startswith("fediversity-guard-boot.service")]


def failed(run: Run) -> set[str]:
    return {host for host, numbers in run.recap.items() if numbers["failed"]}


def built(estate: Any, machine: str) -> str:
    """The system that the last run built for the machine."""
    return str(estate.execute("sh", "-c", f'readlink "$FEDIVERSITY_STATE_DIR/gcroots/{machine}"').output.strip())


def example(estate: Any, name: str, systems: Mapping[str, str]) -> Run:
    """Run a playbook of docs/examples on these machines, in this order, without the operator database."""
    hosts = {
        machine: {"ansible_host": ADDRESSES[machine], "ansible_user": "root", "nixos_machine_system": system}
        for machine, system in systems.items()
    }
    inventory = estate.lab.state / "web.yml"
    timeouts = {"nixos_machine_confirm_timeout": 10, "nixos_machine_activation_timeout": 60}
    inventory.write_text(json.dumps({"web": {"hosts": hosts, "vars": timeouts}}), encoding="utf-8")
    static = ("env", "ANSIBLE_INVENTORY_ENABLED=ansible.builtin.yaml", "ansible-playbook", "-i", str(inventory))
    run: Run = estate.execute(*static, f"docs/examples/{name}.yml")
    return run


def test_a_canary_that_fails_holds_back_the_machines_behind_it_if_there_is_a_limit(
    settled: Any, tmp_path: Path
) -> None:
    before = titles(settled)
    document = retitled("Canary")
    with_service(document, "alice", "social", FAILS)
    settled.import_operators(document)
    # as the inventory's variables of all hosts
    inventory = shutil.copytree(INVENTORY, tmp_path / "inventory")
    canary = {"fediversity_canaries": ["vm-mastodon"], "fediversity_serial": [1, "50%", "100%"]}
    limited = {**canary, "fediversity_max_fail_percentage": 0}
    (inventory / "group_vars" / "all.yml").write_text(json.dumps(limited), encoding="utf-8")
    run = settled.site("-i", str(inventory / "lab.operator_db.yml"))
    assert run.code != 0
    assert titles(settled) == before
    assert failed(run) == {"vm-mastodon", "vm-shared", "existing1"}
    assert "PLAY [Report]" in run.output
    states = settled.states()
    assert states["alice/social"][0] == "rolled-back"
    for deployment in ("bob/videos", "dora/gallery"):
        assert states[deployment][0] == "blocked"
        assert states[deployment][1].startswith("held back: 1 of 1 in the batches before failed, more than 0 %")

    unlimited = settled.site(*variables(canaries=["vm-mastodon"], serial="1,50%,100%"))
    assert failed(unlimited) == {"vm-mastodon"}
    assert titles(settled) == {**before, BOB: "Canary", DORA: "Canary"}


@pytest.mark.parametrize("wrong", [{"serial": "1,many"}, {"serial": 0}, {"max_fail_percentage": 101}])
def test_batches_that_are_none_are_refused_before_anything_is_done(converged: Any, wrong: dict[str, Any]) -> None:
    run = converged.estate.site(*variables(**wrong))
    assert run.code != 0
    assert "fediversity_serial must be" in run.output
    assert "Plan the fleet]" not in run.output


def test_machines_that_change_together_all_return_when_one_fails(settled: Any) -> None:
    before = titles(settled)
    document = retitled("Together")
    with_service(document, "alice", "social", FAILS)
    settled.import_operators(document)
    run = settled.site(*variables(together=True))
    assert failed(run) == {"vm-mastodon", "vm-shared", "existing1"}
    assert titles(settled) == before
    states = settled.states()
    assert states["alice/social"][0] == "rolled-back"
    for deployment in ("bob/videos", "dora/gallery"):
        assert states[deployment][0] == "rolled-back"
        assert "vm-mastodon failed, and these machines change together" in states[deployment][1]
    assert armed(settled) == []

    # the same systems by Ansible's own serial and max_fail_percentage, in playbooks that have no operator database
    systems = {machine: built(settled, machine) for machine in ("vm-mastodon", "existing1", "vm-shared")}
    canary = example(settled, "canary", systems)
    assert canary.code != 0
    assert titles(settled) == before
    assert "existing1" not in canary.recap

    together = example(settled, "together", systems)
    assert failed(together) == set(systems)
    assert titles(settled) == before

    good = {machine: system for machine, system in systems.items() if machine != "vm-mastodon"}
    assert example(settled, "together", good).code == 0
    assert titles(settled) == {**before, BOB: "Together", DORA: "Together"}
    assert example(settled, "canary", good).changed == 0
    assert armed(settled) == []


def test_a_machine_that_does_not_answer_drops_out_before_anything_is_armed(settled: Any) -> None:
    before = titles(settled)
    settled.import_operators(retitled("Without one"))
    settled.command("cut", "existing1")
    try:
        run = settled.site(*variables(together=True), "-e", "nixos_machine_connect_timeout=5")
    finally:
        settled.command("uncut", "existing1")
    assert failed(run) == {"existing1"}
    assert titles(settled) == {**before, ALICE: "Without one", BOB: "Without one"}
    assert settled.states()["dora/gallery"][0] == "failed"


def test_a_machine_that_is_lost_while_it_is_held_returns_and_the_others_commit_within_the_limit(settled: Any) -> None:
    before = titles(settled)
    document = retitled("Lost")
    with_service(document, "alice", "social", GONE_SOON)
    with_service(document, "bob", "videos", SLOW)
    settled.import_operators(document)
    short = ("-e", json.dumps({"nixos_machine_hold_timeout": 40, "nixos_machine_decision_timeout": 8}))
    run = settled.site(*variables(together=True, max_fail_percentage=50), *short)
    assert failed(run) == {"vm-mastodon"}
    served = settled.pages()
    assert [served[url]["content"]["instance"]["settings"]["title"] for url in (BOB, DORA)] == ["Lost", "Lost"]
    state, message = settled.states()["alice/social"]
    assert state == "silent"
    assert message.startswith("lost while it held the new system")

    settled.import_operators(retitled("Found"))
    fixed = settled.site(*variables(together=True))
    assert fixed.code == 0, fixed.output
    assert "Close the switch in which the machine fell silent" in fixed.output
    assert titles(settled) == {**before, ALICE: "Found", BOB: "Found", DORA: "Found"}


def test_a_hold_that_is_too_short_is_reported_and_commits_nowhere(settled: Any) -> None:
    before = titles(settled)
    document = retitled("Too short")
    with_service(document, "bob", "videos", SLOW)
    settled.import_operators(document)
    run = settled.site(*variables(together=True), "-e", "nixos_machine_hold_timeout=3")
    assert run.code != 0
    assert titles(settled) == before
    assert "no decision within 3 s" in settled.states()["dora/gallery"][1]
    assert armed(settled) == []


def test_a_rollback_by_hand_is_held_until_it_is_released(settled: Any) -> None:
    settled.import_operators()
    assert settled.site().code == 0
    before = settled.pages()
    document = with_title(operators(), "alice", "social", "Rejected")
    settled.import_operators(with_title(document, "carol", "photos", "Rejected too"))
    assert settled.site().code == 0
    after = settled.pages()

    of_alice = {"operator": "alice", "deployment": "social"}
    predicted = rollback(settled, *variables(**of_alice), "--check", "--diff")
    assert predicted.code == 0, predicted.output
    assert before[ALICE]["content"]["system"] in predicted.output
    assert {host for host, numbers in predicted.recap.items() if numbers["changed"]} == {"vm-mastodon"}
    assert settled.pages() == after

    back = rollback(settled, *variables(**of_alice, reason="the logo\nis gone"))
    assert back.code == 0, back.output
    assert settled.pages() == {**after, ALICE: before[ALICE]}
    state, message = settled.states()["alice/social"]
    assert state == "held"
    assert after[ALICE]["content"]["system"] in message
    assert "the logo is gone" in message

    refused = rollback(settled, *variables(operator="bob"))
    assert refused.code != 0
    assert "vm-shared also carries carol/photos" in refused.output
    assert settled.pages()[BOB] == after[BOB]
    shared = rollback(settled, *variables(operator="bob", rollback_shared=True))
    assert shared.code == 0, shared.output
    assert settled.pages() == before

    scheduled = settled.site()
    assert (scheduled.code, scheduled.changed) == (0, 0)
    status = settled.execute("ansible-playbook", "playbooks/status.yml")
    for run in (scheduled, status):
        assert "vm-mastodon: held: " in run.output
        assert "vm-shared: held: " in run.output
    assert settled.pages() == before

    released = settled.site("-e", "fediversity_release=vm-mastodon")
    assert released.code == 0, released.output
    assert settled.pages() == {**before, ALICE: after[ALICE]}
    assert settled.states()["alice/social"] == ("running", "")
    assert settled.states()["carol/photos"][0] == "held"


def test_a_rollback_of_nobody_in_particular_is_refused(converged: Any) -> None:
    before = converged.estate.states()
    run = rollback(converged.estate)
    assert run.code != 0
    assert "fediversity_operator=NAME" in run.output
    assert converged.estate.states() == before


def test_a_machine_that_is_silent_past_every_deadline_is_reset_if_that_is_wanted(settled: Any) -> None:
    before = settled.pages()
    document = with_title(operators(), "alice", "social", "Silent")
    with_service(document, "alice", "social", MUTE)
    settled.import_operators(document)
    limits = {"activation_timeout": 10, "confirm_timeout": 3, "connect_timeout": 10}
    short = ("-e", json.dumps({f"nixos_machine_{name}": value for name, value in limits.items()}))
    silent = settled.site(*short)
    assert failed(silent) == {"vm-mastodon"}
    state, message = settled.states()["alice/social"]
    assert state == "silent"
    assert "run again with fediversity_rescue=true" in message

    rescued = settled.site(*short, *variables(rescue=True))
    assert failed(rescued) == {"vm-mastodon"}
    state, message = settled.states()["alice/social"]
    assert state == "rolled-back"
    assert message.startswith("rolled back by a power reset")
    assert settled.pages()[ALICE] == before[ALICE]

    settled.import_operators(with_title(operators(), "alice", "social", "Heard again"))
    assert settled.site().code == 0
    assert titles(settled)[ALICE] == "Heard again"
