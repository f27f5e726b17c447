# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What machines have committed, and what was rolled back by hand, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import NotFound
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import Application
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db import database
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.history import (
    forget_commits,
    load_systems,
    record_commit,
    record_rejection,
    release_systems,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.importer import import_operators
from sqlalchemy import Engine, text

MACHINE = "vm-shared"


@pytest.fixture
def fleet(empty: Engine, lab: Path, catalogue: dict[str, Application]) -> Engine:
    import_operators(empty, lab, catalogue)
    return empty


def known(engine: Engine) -> list[tuple[str, bool, bool]]:
    """(system, committed, rejected) of the machine, the newest commit first."""
    found = load_systems(engine).get(MACHINE, ())
    return [(one.system, one.committed_at is not None, one.rejection is not None) for one in found]


def test_the_newest_commit_comes_first_also_when_it_is_an_old_system(fleet: Engine) -> None:
    for system in ("/a", "/b", "/c", "/a"):
        record_commit(fleet, MACHINE, system, 1)
    record_commit(fleet, "existing1", "/z", 1)
    assert known(fleet) == [("/a", True, False), ("/c", True, False), ("/b", True, False)]
    assert [one.system for one in load_systems(fleet)["existing1"]] == ["/z"]


def test_a_rejection_says_who_when_and_why_and_ends_with_a_release(fleet: Engine) -> None:
    record_commit(fleet, MACHINE, "/a", 2)
    rejection = record_rejection(fleet, MACHINE, "/a", "jane@controller", "too slow")
    assert load_systems(fleet)[MACHINE][0].rejection == rejection
    assert (rejection.by, rejection.why) == ("jane@controller", "too slow")
    assert rejection.at.endswith("Z")
    release_systems(fleet, {MACHINE: "/other"})
    assert known(fleet) == [("/a", True, True)]
    release_systems(fleet, {MACHINE: "/a"})
    assert known(fleet) == [("/a", True, False)]


def test_a_commit_ends_the_rejection_of_the_same_system_alone(fleet: Engine) -> None:
    record_rejection(fleet, MACHINE, "/a", "jane", "")
    record_rejection(fleet, MACHINE, "/b", "jane", "")
    record_commit(fleet, MACHINE, "/a", 2)
    assert known(fleet) == [("/a", True, False), ("/b", False, True)]


def test_a_machine_made_anew_has_committed_nothing_but_what_was_rejected_stays_so(fleet: Engine) -> None:
    for system in ("/a", "/b"):
        record_commit(fleet, MACHINE, system, 1)
    record_commit(fleet, "existing1", "/z", 1)
    record_rejection(fleet, MACHINE, "/b", "jane", "")
    forget_commits(fleet, [])
    assert len(known(fleet)) == 2
    forget_commits(fleet, [MACHINE])
    assert known(fleet) == [("/b", False, True)]
    assert "existing1" in load_systems(fleet)


def test_an_unknown_machine_is_named(fleet: Engine) -> None:
    with pytest.raises(NotFound, match="vm-nowhere"):
        record_commit(fleet, "vm-nowhere", "/a", 1)


def test_a_database_from_before_knows_what_its_machines_run(
    empty: Engine, lab: Path, catalogue: dict[str, Application]
) -> None:
    import_operators(empty, lab, catalogue)
    with empty.begin() as connection:
        connection.execute(text("DROP TABLE machine_systems"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
        connection.execute(text("UPDATE machines SET system = '/a', generation = 7 WHERE name = 'vm-shared'"))
        connection.execute(text("UPDATE machines SET system = '/image' WHERE name = 'existing1'"))
    database.upgrade(empty)
    assert known(empty) == [("/a", True, False)]
    assert "existing1" not in load_systems(empty)
