# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run may still believe of what former runs have recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.outcome import (
    Outcome,
    made_anew,
    outcome_of,
    record_outcomes,
    record_selection,
    record_vms,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.select import Selection
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.history import load_systems
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.importer import import_operators
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import MachineRecord
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import load_fleet
from sqlalchemy import Engine

LAB = Path(__file__).parents[3] / "inventories" / "lab" / "operators.yml"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """The lab's operators; vm-shared has committed a system as the first VM 101."""
    made = connect(f"sqlite:///{tmp_path}/operator.db")
    import_operators(made, LAB, load_catalogue())
    record_vms(made, vms("create", "first"), ["vm-shared"])
    record_outcomes(made, {"vm-shared": Outcome("running", "", "/nix/store/a", 2)})
    yield made
    made.dispose()


def vms(action: str, incarnation: str, failed: bool = False) -> dict[str, Any]:
    item = {"name": "vm-shared", "action": action, "failed": failed, "vmid": 101, "node": "pve1"}
    return {"results": [{**item, "incarnation": incarnation}]}


def record(engine: Engine) -> MachineRecord:
    return load_fleet(engine).machines["vm-shared"].record


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (vms("unchanged", "first"), set()),
        (vms("update", "first"), set()),
        # deleted and made again by this run; by somebody else, or by a run that was killed then
        (vms("create", "second"), {"vm-shared"}),
        (vms("unchanged", "second"), {"vm-shared"}),
        (vms("create", "", failed=True), set()),
        ({"skipped": True}, set()),
        ({"results": [{"name": "nobody", "action": "create", "failed": False}]}, set()),
    ],
)
def test_a_virtual_machine_that_is_not_the_recorded_one_is_new(
    engine: Engine, result: dict[str, Any], expected: set[str]
) -> None:
    assert made_anew(load_fleet(engine), result) == expected


def test_a_database_of_an_earlier_version_makes_no_machine_new(engine: Engine) -> None:
    record_vms(engine, vms("unchanged", ""), [])
    assert record(engine).incarnation is None
    assert made_anew(load_fleet(engine), vms("unchanged", "first")) == set()


def test_what_a_former_virtual_machine_committed_is_forgotten_even_if_the_run_ends_here(engine: Engine) -> None:
    record_vms(engine, vms("unchanged", "second"), ["vm-shared"])
    assert (record(engine).system, record(engine).generation, record(engine).incarnation) == (None, None, "second")
    # the next run still knows that it never met this one
    assert made_anew(load_fleet(engine), vms("unchanged", "second")) == {"vm-shared"}


def test_nobody_knows_the_system_of_a_machine_whose_switch_has_begun(engine: Engine) -> None:
    record_selection(engine, Selection({"vm-shared": "/nix/store/b"}, {}, ()))
    assert (record(engine).state, record(engine).system) == ("switching", None)
    assert load_fleet(engine).deployments["carol_photos"].record.state == "switching"


@pytest.mark.parametrize(
    ("result", "system"),
    [
        ({"new": "/nix/store/b", "generation": 3}, "/nix/store/b"),
        ({"failed": True, "phase": "rolled-back", "msg": "no network", "old": "/nix/store/a"}, "/nix/store/a"),
        ({"failed": True, "msg": "no contact since the switch began"}, None),
        ({"failed": False, "phase": "rolled-back", "old": "/nix/store/a", "reason": "aborted"}, "/nix/store/a"),
        ({"failed": True, "phase": "held-back", "msg": "held back", "old": "/nix/store/a"}, "/nix/store/a"),
    ],
)
def test_after_a_switch_the_system_is_what_the_machine_said(
    engine: Engine, result: dict[str, Any], system: str | None
) -> None:
    record_selection(engine, Selection({"vm-shared": "/nix/store/b"}, {}, ()))
    record_outcomes(engine, {"vm-shared": outcome_of(result)})
    assert record(engine).system == system


@pytest.mark.parametrize(
    ("result", "state"),
    [
        ({"new": "/nix/store/b"}, "running"),
        ({"failed": False, "phase": "committed", "new": "/nix/store/b"}, "running"),
        ({"failed": False, "phase": "rolled-back", "old": "/nix/store/a", "msg": "not all"}, "rolled-back"),
        ({"failed": True, "phase": "held-back", "msg": "held back: 1 of 1"}, "blocked"),
        ({"failed": True, "silent": True, "msg": "no contact"}, "silent"),
        ({"failed": True, "silent": False, "lost": True, "phase": "checked", "msg": "lost"}, "silent"),
        ({"failed": True, "silent": False, "lost": False, "msg": "locked"}, "failed"),
        ({"unreachable": True, "msg": "no route"}, "failed"),
    ],
)
def test_the_state_of_a_machine_after_each_kind_of_result(result: dict[str, Any], state: str) -> None:
    assert outcome_of(result).state == state


def test_what_was_committed_is_kept_and_what_was_rolled_back_is_not(engine: Engine) -> None:
    record_outcomes(engine, {"vm-shared": Outcome("rolled-back", "no network", "/nix/store/a")})
    record_outcomes(engine, {"vm-shared": Outcome("running", "", "/nix/store/b", 3)})
    assert [known.system for known in load_systems(engine)["vm-shared"]] == ["/nix/store/b", "/nix/store/a"]
    record_vms(engine, vms("unchanged", "second"), ["vm-shared"])
    assert load_systems(engine) == {}


def test_a_held_machine_is_recorded_as_such(engine: Engine) -> None:
    record_selection(engine, Selection({}, {}, (), {"vm-shared": "held: jane"}))
    assert (record(engine).state, record(engine).message, record(engine).system) == (
        "held",
        "held: jane",
        "/nix/store/a",
    )
