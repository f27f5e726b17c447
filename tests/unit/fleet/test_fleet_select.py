# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.plan import Need
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.select import Selection, select

NEEDS = {
    "vm1": [Need("vms", "vm1"), Need("databases", "alice")],
    "vm2": [Need("vms", "vm2"), Need("databases", "bob")],
    "existing1": [Need("databases", "dora")],
}
BUILT = {"systems": {"vm1": "/new1", "vm2": "/new2", "existing1": "/new3"}, "results": []}
OLD = {"vm1": "/old1", "vm2": "/new2", "existing1": None}


def done(*items: tuple[str, bool]) -> dict[str, Any]:
    return {
        "failed": any(failed for _name, failed in items),
        "results": [
            {"name": name, "failed": failed, "msg": f"{name} broke" if failed else ""} for name, failed in items
        ],
    }


def test_machines_change_when_their_system_is_not_the_committed_one() -> None:
    assert select(NEEDS, {}, BUILT, OLD, {}) == Selection(
        switch={"vm1": "/new1", "existing1": "/new3"}, blocked={}, unchanged=("vm2",)
    )


def test_a_failed_item_holds_back_the_machines_that_need_it() -> None:
    selection = select(NEEDS, {"databases": done(("alice", True), ("bob", False), ("dora", False))}, BUILT, OLD, {})
    assert selection.blocked == {"vm1": "alice broke"}
    assert selection.switch == {"existing1": "/new3"}


def test_a_backend_that_failed_as_a_whole_holds_back_all_that_need_it() -> None:
    results = {"vms": {"failed": True, "msg": "Proxmox does not answer", "results": []}}
    selection = select(NEEDS, results, BUILT, OLD, {})
    assert selection.blocked == {"vm1": "Proxmox does not answer", "vm2": "Proxmox does not answer"}
    assert selection.switch == {"existing1": "/new3"}


def test_a_skipped_batch_holds_back_nobody() -> None:
    assert select(NEEDS, {"vms": {"skipped": True, "changed": False}}, BUILT, OLD, {}).blocked == {}


def test_a_system_that_was_not_built_holds_back_its_machine() -> None:
    build = {
        "failed": True,
        "systems": {"vm2": "/new2", "existing1": "/new3"},
        "results": [{"name": "vm1", "failed": True, "msg": "error: undefined variable"}],
    }
    assert select(NEEDS, {}, build, OLD, {}).blocked == {"vm1": "error: undefined variable"}


def test_a_machine_that_could_not_be_planned_stays_as_it_is() -> None:
    selection = select({}, {}, {"systems": {}}, {}, {"vm1": "settings.title: 5 is not text"})
    assert selection == Selection(switch={}, blocked={"vm1": "settings.title: 5 is not text"}, unchanged=())
