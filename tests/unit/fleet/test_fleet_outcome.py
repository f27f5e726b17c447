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
    ],
)
def test_after_a_switch_the_system_is_what_the_machine_said(
    engine: Engine, result: dict[str, Any], system: str | None
) -> None:
    record_selection(engine, Selection({"vm-shared": "/nix/store/b"}, {}, ()))
    record_outcomes(engine, {"vm-shared": outcome_of(result)})
    assert record(engine).system == system
