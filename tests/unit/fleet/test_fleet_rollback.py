# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""To which system a machine goes back by hand, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput, NotFound
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.outcome import (
    Outcome,
    facts,
    record_outcomes,
    record_rollback,
    record_selection,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.report import failed_machines, notes
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.rollback import plan_rollback
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.select import Selection
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.history import load_systems
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.importer import import_operators
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import load_fleet
from sqlalchemy import Engine

LAB = Path(__file__).parents[3] / "inventories" / "lab" / "operators.yml"
MACHINES = ("vm-mastodon", "vm-shared", "existing1")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """The lab's operators; every machine has committed /1 and then /2."""
    made = connect(f"sqlite:///{tmp_path}/operator.db")
    import_operators(made, LAB, load_catalogue())
    for generation in (1, 2):
        commit(made, *MACHINES, system=f"/{generation}", generation=generation)
    yield made
    made.dispose()


def commit(engine: Engine, *machines: str, system: str, generation: int = 3) -> None:
    record_outcomes(engine, {name: Outcome("running", "", system, generation) for name in machines})


def plan(engine: Engine, operator: str, deployment: str | None = None, **options: bool) -> dict[str, str]:
    fleet = load_fleet(engine)
    given = {"shared": False, **options}
    return plan_rollback(fleet, load_systems(engine), operator, deployment, machines=fleet.machines, **given)


def go_back(engine: Engine, machine: str, system: str) -> Outcome:
    old = load_fleet(engine).machines[machine].record.system
    return record_rollback(engine, machine, {"old": old, "new": system, "generation": 9}, "jane", "too slow")


def test_every_machine_of_the_deployment_goes_to_what_it_committed_before(engine: Engine) -> None:
    assert plan(engine, "alice", "social") == {"vm-mastodon": "/1"}
    assert plan(engine, "alice") == {"vm-mastodon": "/1"}


def test_what_was_rolled_back_is_never_gone_back_to(engine: Engine) -> None:
    commit(engine, "vm-mastodon", system="/3")
    go_back(engine, "vm-mastodon", "/2")
    # forward to something new and back again: not to the rejected /3
    commit(engine, "vm-mastodon", system="/4")
    assert plan(engine, "alice") == {"vm-mastodon": "/2"}
    go_back(engine, "vm-mastodon", "/2")
    assert plan(engine, "alice") == {"vm-mastodon": "/1"}
    go_back(engine, "vm-mastodon", "/1")
    with pytest.raises(InvalidInput, match="vm-mastodon: it has no earlier system"):
        plan(engine, "alice")


def test_a_machine_whose_switch_did_not_report_back_goes_to_what_it_committed_last(engine: Engine) -> None:
    record_selection(engine, Selection({"vm-mastodon": "/3"}, {}, ()))
    assert plan(engine, "alice") == {"vm-mastodon": "/2"}


@pytest.mark.parametrize(
    ("operator", "deployment", "message"),
    [
        ("eve", None, "operator 'eve' is not.*alice, bob, carol, dora"),
        ("alice", "blog", "operator alice: .*no deployment 'blog'.*social"),
    ],
)
def test_names_that_nobody_has_are_refused(engine: Engine, operator: str, deployment: str, message: str) -> None:
    with pytest.raises(NotFound, match=message):
        plan(engine, operator, deployment)


def test_a_disabled_deployment_and_machines_out_of_the_run_have_nothing_to_go_back(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="deployment archive: no enabled application instance"):
        plan(engine, "bob", "archive")
    fleet = load_fleet(engine)
    with pytest.raises(InvalidInput, match="no enabled application instance"):
        plan_rollback(fleet, load_systems(engine), "alice", None, machines=["existing1"], shared=False)


def test_a_machine_with_other_operators_on_it_is_refused_unless_they_go_back_too(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="vm-shared also carries carol/photos"):
        plan(engine, "bob")
    assert plan(engine, "bob", shared=True) == {"vm-shared": "/1"}


def test_one_machine_without_an_earlier_system_holds_back_all(engine: Engine) -> None:
    fleet, systems = load_fleet(engine), load_systems(engine)
    systems["vm-mastodon"] = systems["vm-mastodon"][:1]
    moved = replace(fleet.instances["dora_gallery_pixelfed"], operator="alice")
    both = replace(fleet, instances={**fleet.instances, "alice_gallery_pixelfed": moved})
    with pytest.raises(InvalidInput, match="nothing was changed: vm-mastodon: it has no earlier system"):
        plan_rollback(both, systems, "alice", None, machines=MACHINES, shared=True)


def test_a_new_machine_has_nothing_to_go_back_to(engine: Engine) -> None:
    fleet = load_fleet(engine)
    vm = fleet.machines["vm-mastodon"]
    machines = {**fleet.machines, vm.name: replace(vm, record=replace(vm.record, system=None))}
    with pytest.raises(InvalidInput, match="vm-mastodon: it has committed no system yet"):
        plan_rollback(replace(fleet, machines=machines), {}, "alice", None, machines=MACHINES, shared=False)


def test_a_rollback_by_hand_is_no_failure_and_is_shown(engine: Engine) -> None:
    outcome = go_back(engine, "vm-mastodon", "/1")
    fleet = load_fleet(engine)
    record = fleet.machines["vm-mastodon"].record
    assert (record.state, record.system, record.generation) == ("held", "/1", 9)
    assert fleet.deployments["alice_social"].record.state == "held"
    assert notes(fleet) == [f"vm-mastodon: {outcome.message}"]
    assert "jane rolled /2 back" in outcome.message
    assert failed_machines(fleet) == {}


def test_a_rollback_that_failed_holds_nothing(engine: Engine) -> None:
    result = {"failed": True, "phase": "rolled-back", "old": "/2", "new": "/1", "msg": "rolled back: a unit failed"}
    assert record_rollback(engine, "vm-mastodon", result, "jane", "").state == "rolled-back"
    assert load_fleet(engine).machines["vm-mastodon"].record.system == "/2"
    assert [known.rejection for known in load_systems(engine)["vm-mastodon"]] == [None, None]


def test_a_machine_that_runs_the_earlier_system_already_is_just_running(engine: Engine) -> None:
    result = {"old": "/1", "new": "/1", "generation": 3, "phase": "unchanged"}
    assert record_rollback(engine, "vm-mastodon", result, "jane", "") == Outcome("running", "", "/1", 3)


def test_what_a_switch_needs_to_know(engine: Engine) -> None:
    record_outcomes(engine, {"vm-shared": Outcome("silent", "no contact")})
    fleet = load_fleet(engine)
    assert facts(fleet, ["vm-shared", "vm-archive"], {"vm-shared": "/2"}) == {
        "committed": {"vm-archive": None, "vm-shared": "/2"},
        "unknown": ["vm-archive"],
        "silent": ["vm-shared"],
        "vmids": {},
    }
    assert failed_machines(fleet) == {"vm-shared": "no contact"}
