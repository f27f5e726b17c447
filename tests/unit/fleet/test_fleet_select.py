# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.plan import Need
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.select import (
    Selection,
    rejected_systems,
    released_systems,
    select,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import KnownSystem, Rejection

NEEDS = {
    "vm1": [Need("vms", "vm1"), Need("databases", "alice")],
    "vm2": [Need("vms", "vm2"), Need("databases", "bob")],
    "existing1": [Need("databases", "dora")],
}
BUILT = {"systems": {"vm1": "/new1", "vm2": "/new2", "existing1": "/new3"}, "results": []}
OLD = {"vm1": "/old1", "vm2": "/new2", "existing1": None}


def chosen(*arguments: Any, **rejections: Any) -> Selection:
    return select(*arguments, **{"rejected": {}, "released": {}, **rejections})


def done(*items: tuple[str, bool]) -> dict[str, Any]:
    return {
        "failed": any(failed for _name, failed in items),
        "results": [
            {"name": name, "failed": failed, "msg": f"{name} broke" if failed else ""} for name, failed in items
        ],
    }


def test_machines_change_when_their_system_is_not_the_committed_one() -> None:
    assert chosen(NEEDS, {}, BUILT, OLD, {}) == Selection(
        switch={"vm1": "/new1", "existing1": "/new3"}, blocked={}, unchanged=("vm2",)
    )


def test_a_failed_item_holds_back_the_machines_that_need_it() -> None:
    selection = chosen(NEEDS, {"databases": done(("alice", True), ("bob", False), ("dora", False))}, BUILT, OLD, {})
    assert selection.blocked == {"vm1": "alice broke"}
    assert selection.switch == {"existing1": "/new3"}


def test_a_backend_that_failed_as_a_whole_holds_back_all_that_need_it() -> None:
    results = {"vms": {"failed": True, "msg": "Proxmox does not answer", "results": []}}
    selection = chosen(NEEDS, results, BUILT, OLD, {})
    assert selection.blocked == {"vm1": "Proxmox does not answer", "vm2": "Proxmox does not answer"}
    assert selection.switch == {"existing1": "/new3"}


def test_a_skipped_batch_holds_back_nobody() -> None:
    assert chosen(NEEDS, {"vms": {"skipped": True, "changed": False}}, BUILT, OLD, {}).blocked == {}


def test_a_system_that_was_not_built_holds_back_its_machine() -> None:
    build = {
        "failed": True,
        "systems": {"vm2": "/new2", "existing1": "/new3"},
        "results": [{"name": "vm1", "failed": True, "msg": "error: undefined variable"}],
    }
    assert chosen(NEEDS, {}, build, OLD, {}).blocked == {"vm1": "error: undefined variable"}


def test_a_machine_that_could_not_be_planned_stays_as_it_is() -> None:
    selection = chosen({}, {}, {"systems": {}}, {}, {"vm1": "settings.title: 5 is not text"})
    assert selection == Selection(switch={}, blocked={"vm1": "settings.title: 5 is not text"}, unchanged=())


JANE = Rejection("jane@controller", "2026-11-20T23:47:16Z", "too slow")


def test_a_system_that_was_rolled_back_by_hand_is_held_on_its_machine_alone() -> None:
    rejected = {"vm1": {"/new1": JANE}, "existing1": {"/other": JANE}}
    selection = chosen(NEEDS, {}, BUILT, OLD, {}, rejected=rejected)
    assert selection.switch == {"existing1": "/new3"}
    assert selection.unchanged == ("vm2",)
    (message,) = selection.held.values()
    for part in ("held: jane@controller", "/new1", JANE.at, "too slow", "fediversity_release=vm1"):
        assert part in message


def test_a_held_machine_that_lacks_something_is_blocked() -> None:
    results = {"databases": done(("alice", True))}
    selection = chosen(NEEDS, results, BUILT, OLD, {}, rejected={"vm1": {"/new1": JANE}})
    assert (selection.blocked, selection.held) == ({"vm1": "alice broke"}, {})


@pytest.mark.parametrize(
    ("names", "released"),
    [
        ([], {}),
        (["vm1"], {"vm1": "/new1"}),
        (["existing1"], {}),
        (["all"], {"vm1": "/new1", "vm2": "/new2"}),
    ],
)
def test_a_release_gives_the_named_machines_their_wanted_system(names: list[str], released: dict[str, str]) -> None:
    rejected = {"vm1": {"/new1": JANE, "/old": JANE}, "vm2": {"/new2": JANE}, "existing1": {"/other": JANE}}
    assert released_systems(rejected, names, BUILT["systems"]) == released
    selection = chosen(NEEDS, {}, BUILT, {}, {}, rejected=rejected, released=released)
    assert selection.held.keys() == {"vm1", "vm2"} - released.keys()
    assert selection.switch.items() >= released.items()


def test_only_rejected_systems_are_looked_up() -> None:
    systems = {"vm1": (KnownSystem("/a", 1, "2026", None), KnownSystem("/b", 2, "2026", JANE)), "vm2": ()}
    assert rejected_systems(systems) == {"vm1": {"/b": JANE}, "vm2": {}}
