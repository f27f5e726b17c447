# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The high-availability manager of the simulator: what it is told, and what it does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from lab.proxmox.faults import Rule
from lab.proxmox.guests import NoGuests
from proxmox_harness import Simulator, Start

VM = "/nodes/pve1/qemu/100"
RESOURCES, RULES = "/cluster/ha/resources", "/cluster/ha/rules"


class _Obedient(NoGuests):
    """Guests that power off as soon as they are asked to."""

    def shutdown(self, name: str) -> None:
        self.stop(name)


@pytest.fixture
def simulator(start: Start) -> Simulator:
    """With a stopped virtual machine 100 on pve1."""
    simulator = start(hosts=_Obedient())
    assert simulator.run("POST", "/nodes/pve1/qemu", vmid=100, name="web") == "OK"
    return simulator


def _until(look: Callable[[], Any], wanted: Any) -> None:
    for _unused in range(500):
        if (found := look()) == wanted:
            return
        threading.Event().wait(0.02)
    raise AssertionError(f"{found!r} does not become {wanted!r}")


def _row(simulator: Simulator, vmid: int = 100) -> dict[str, Any]:
    rows = simulator.data("GET", "/cluster/resources", type="vm")
    return next(row for row in rows if row["vmid"] == vmid)


def _state(simulator: Simulator, vmid: int = 100) -> tuple[Any, str]:
    row = _row(simulator, vmid)
    return row.get("hastate"), row["status"]


def _refusal(simulator: Simulator, method: str, path: str, **params: Any) -> str:
    answer = simulator.send(method, path, **params)
    assert answer.status_code >= 400, answer.text
    return str(answer.json()["message"]).strip()


def test_a_resource_is_kept_as_given(simulator: Simulator) -> None:
    simulator.data("POST", RESOURCES, sid="100", state="ignored", max_restart=3, comment="web")
    [row] = simulator.data("GET", RESOURCES)
    digest = row.pop("digest")
    assert row == {"sid": "vm:100", "type": "vm", "state": "ignored", "max_restart": 3, "comment": "web"}
    simulator.data("PUT", f"{RESOURCES}/vm:100", delete="comment", max_relocate=2, digest=digest)
    row = simulator.data("GET", f"{RESOURCES}/vm:100")
    assert (row.get("comment"), row["max_relocate"], row["digest"] != digest) == (None, 2, True)
    text = _refusal(simulator, "PUT", f"{RESOURCES}/vm:100", comment="x", digest=digest)
    assert text.startswith("update resources config failed: detected modified configuration")
    simulator.data("DELETE", f"{RESOURCES}/vm:100")
    assert simulator.data("GET", RESOURCES) == []


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"sid": "vm:999"}, "resource 'vm:999' does not exist in cluster"),
        ({"sid": "999"}, "unable to detect SID from VMID - VM/CT 999 does not exist"),
        ({"sid": "vm:100", "group": "g1"}, "invalid parameter 'group': ha groups have been migrated to rules"),
        ({"sid": "vm:100", "type": "ct"}, "types does not match"),
    ],
)
def test_refused_resources(simulator: Simulator, params: dict[str, str], text: str) -> None:
    assert _refusal(simulator, "POST", RESOURCES, **params) == text


def test_the_manager_starts_and_stops(simulator: Simulator) -> None:
    simulator.data("POST", RESOURCES, sid="vm:100", state="started")
    _until(lambda: _state(simulator), ("started", "running"))
    assert simulator.data("GET", f"{VM}/status/current")["ha"] == {"managed": 1, "state": "started"}
    simulator.data("PUT", f"{RESOURCES}/vm:100", state="stopped")
    _until(lambda: _state(simulator), ("stopped", "stopped"))
    simulator.data("DELETE", f"{RESOURCES}/vm:100")
    _until(lambda: _state(simulator), (None, "stopped"))
    assert simulator.data("GET", f"{VM}/status/current")["ha"] == {"managed": 0}


def test_calls_on_a_managed_machine_are_requests(simulator: Simulator) -> None:
    simulator.data("POST", RESOURCES, sid="vm:100", state="stopped")
    _until(lambda: _state(simulator), ("stopped", "stopped"))
    upid = simulator.data("POST", f"{VM}/status/start")
    assert upid.split(":")[5:7] == ["hastart", "100"]
    assert simulator.wait(upid) == "OK"
    assert simulator.data("GET", f"{RESOURCES}/vm:100")["state"] == "started"
    _until(lambda: _state(simulator), ("started", "running"))
    upid = simulator.data("POST", f"{VM}/status/shutdown")
    assert upid.split(":")[5] == "hastop"
    _until(lambda: _state(simulator), ("stopped", "stopped"))
    assert simulator.data("GET", f"{RESOURCES}/vm:100")["state"] == "stopped"


def test_an_ignored_resource_is_nobodys(simulator: Simulator) -> None:
    simulator.data("POST", RESOURCES, sid="vm:100", state="ignored")
    upid = simulator.data("POST", f"{VM}/status/start")
    assert upid.split(":")[5] == "qmstart"
    assert simulator.wait(upid) == "OK"
    assert _state(simulator) == ("ignored", "running")


def test_a_managed_machine_goes_only_with_purge(simulator: Simulator) -> None:
    simulator.data("POST", RESOURCES, sid="vm:100", state="stopped")
    simulator.data("POST", RULES, rule="r1", type="node-affinity", resources="vm:100", nodes="pve1")
    text = "unable to remove VM 100 - used in HA resources and purge parameter not set."
    assert _refusal(simulator, "DELETE", VM) == text
    assert simulator.run("DELETE", f"{VM}?purge=1") == "OK"
    assert simulator.data("GET", RESOURCES) == []
    assert simulator.data("GET", RULES) == []


def test_migration_is_the_managers_work(simulator: Simulator) -> None:
    simulator.data("POST", RESOURCES, sid="vm:100", state="stopped")
    _until(lambda: _state(simulator), ("stopped", "stopped"))
    upid = simulator.data("POST", f"{VM}/migrate", target="pve2")
    assert upid.split(":")[5] == "hamigrate"
    _until(lambda: _row(simulator)["node"], "pve2")
    asked = simulator.data("POST", f"{RESOURCES}/vm:100/migrate", node="pve1")
    assert asked == {"sid": "vm:100", "requested-node": "pve1"}
    _until(lambda: _row(simulator)["node"], "pve1")


def test_a_rule_moves_a_started_resource(simulator: Simulator) -> None:
    simulator.data("POST", RESOURCES, sid="vm:100", state="stopped")
    simulator.data("POST", RULES, rule="r1", type="node-affinity", resources="vm:100", nodes="pve2:2,pve1:1")
    simulator.data("PUT", f"{RESOURCES}/vm:100", state="started")
    _until(lambda: (_row(simulator)["node"], *_state(simulator)), ("pve2", "started", "running"))
    simulator.data("PUT", f"{RULES}/r1", type="node-affinity", nodes="pve1", strict=1)
    _until(lambda: (_row(simulator)["node"], *_state(simulator)), ("pve1", "started", "running"))
    [rule] = simulator.data("GET", RULES)
    rule.pop("digest")
    assert rule == {"rule": "r1", "type": "node-affinity", "resources": "vm:100", "nodes": "pve1", "strict": 1,
                    "order": 1}  # fmt: skip


def test_resources_that_exclude_each_other_part(simulator: Simulator) -> None:
    assert simulator.run("POST", "/nodes/pve1/qemu", vmid=101) == "OK"
    for vmid in (100, 101):
        simulator.data("POST", RESOURCES, sid=f"vm:{vmid}", state="stopped")
    simulator.data("POST", RULES, rule="apart", type="resource-affinity", affinity="negative",
                   resources="vm:100,vm:101")  # fmt: skip
    for vmid in (100, 101):
        simulator.data("PUT", f"{RESOURCES}/vm:{vmid}", state="started")
    for vmid in (100, 101):
        _until(lambda vmid=vmid: _state(simulator, vmid), ("started", "running"))
    assert {_row(simulator, vmid)["node"] for vmid in (100, 101)} == {"pve1", "pve2"}


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"type": "node-affinity", "resources": "vm:101", "nodes": "pve1"},
         "create ha rule failed: cannot use unmanaged resource(s) vm:101."),
        ({"type": "node-affinity", "resources": "vm:100", "nodes": "pve9"},
         "create ha rule failed: cannot use non-existent node(s) pve9."),
        ({"type": "node-affinity", "resources": "vm:100"}, "Parameter verification failed."),
        ({"type": "resource-affinity", "resources": "vm:100", "affinity": "negative"},
         "create ha rule failed: 400 Rule 'r1' is invalid.\n"
         "resources: rule is ineffective as there are less than two resources"),
        ({"type": "resource-affinity", "resources": "vm:100", "affinity": "positive", "nodes": "pve1"},
         "Parameter verification failed."),
    ],
)  # fmt: skip
def test_refused_rules(simulator: Simulator, params: dict[str, str], text: str) -> None:
    simulator.data("POST", RESOURCES, sid="vm:100", state="ignored")
    assert _refusal(simulator, "POST", RULES, rule="r1", **params) == text


def test_one_resource_has_one_node_rule(simulator: Simulator) -> None:
    simulator.data("POST", RESOURCES, sid="vm:100", state="ignored")
    simulator.data("POST", RULES, rule="r1", type="node-affinity", resources="vm:100", nodes="pve1")
    again = {"type": "node-affinity", "resources": "vm:100", "nodes": "pve2"}
    assert _refusal(simulator, "POST", RULES, rule="r1", **again) == (
        "create ha rule failed: HA rule 'r1' already defined"
    )
    assert "is already used in another node affinity rule" in _refusal(simulator, "POST", RULES, rule="r2", **again)


def test_the_status_names_manager_nodes_and_services(simulator: Simulator) -> None:
    assert [row["id"] for row in simulator.data("GET", "/cluster/ha/status/current")] == ["quorum", "fencing"]
    simulator.data("POST", RESOURCES, sid="vm:100", state="started")
    _until(lambda: _state(simulator), ("started", "running"))
    rows = {row["id"]: row for row in simulator.data("GET", "/cluster/ha/status/current")}
    assert set(rows) == {"quorum", "master", "fencing", "lrm:pve1", "lrm:pve2", "service:vm:100"}
    service = rows["service:vm:100"]
    assert (service["state"], service["crm_state"], service["request_state"]) == ("started",) * 3
    assert (service["status"], service["node"]) == ("vm:100 (pve1, started)", "pve1")


def test_a_resource_that_cannot_start_is_in_error_until_disabled(simulator: Simulator) -> None:
    simulator.faults.replace([Rule("task-fails", match="^qmstart:100$")])
    simulator.data("POST", RESOURCES, sid="vm:100", state="started", max_restart=1)
    _until(lambda: _state(simulator), ("error", "stopped"))
    text = "service 'vm:100' in error state, must be disabled and fixed first"
    assert _refusal(simulator, "PUT", f"{RESOURCES}/vm:100", state="started") == text
    simulator.faults.replace([])
    simulator.data("PUT", f"{RESOURCES}/vm:100", state="disabled")
    _until(lambda: _state(simulator), ("stopped", "stopped"))
    simulator.data("PUT", f"{RESOURCES}/vm:100", state="started")
    _until(lambda: _state(simulator), ("started", "running"))


def test_without_quorum_the_manager_rests(simulator: Simulator) -> None:
    simulator.data("POST", RESOURCES, sid="vm:100", state="stopped")
    _until(lambda: _state(simulator), ("stopped", "stopped"))
    simulator.faults.replace([Rule("quorum")])
    assert _refusal(simulator, "PUT", f"{RESOURCES}/vm:100", state="started") == "cluster not ready - no quorum?"


def test_resources_outlive_a_restart(start: Start) -> None:
    first = start(hosts=_Obedient())
    first.run("POST", "/nodes/pve1/qemu", vmid=100)
    first.data("POST", RESOURCES, sid="vm:100", state="stopped", comment="kept")
    assert start(hosts=_Obedient()).data("GET", f"{RESOURCES}/vm:100")["comment"] == "kept"
