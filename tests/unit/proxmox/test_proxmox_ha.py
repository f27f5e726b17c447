# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""High availability of a VM: resource, node-affinity rule, and who has the power."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, InvalidInput, Locked
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.check import Check
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.desired import desired_machines
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.ha import (
    HA,
    STATES,
    HaActual,
    HaDesired,
    State,
    await_power,
    release,
    rules_power,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Place
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.placement import migrate
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.provider import VirtualMachines
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import reconcile
from proxmox_script import Exchange, Script, failed

PLACE = Place("web", 100, "pve1", running=False)
RESOURCES = "/cluster/ha/resources"
RESOURCE = f"{RESOURCES}/vm:100"
RULES = "/cluster/ha/rules"
RULE = f"{RULES}/fediversity-web"
DIGEST = "0" * 40
PLAIN = {"sid": "vm:100", "type": "vm", "state": "started", "digest": DIGEST}
OURS = {"rule": "fediversity-web", "type": "node-affinity", "resources": "vm:100", "nodes": "pve1:2,pve2", "strict": 1}
RUNNING = Exchange("GET", "/nodes/pve1/qemu/100/status/current", {"status": "running"}, {})
STOPPED = Exchange("GET", "/nodes/pve1/qemu/100/status/current", {"status": "stopped", "ha": {"state": "started"}}, {})


def desired(power: str | None = None, **value: Any) -> HaDesired:
    return HA.desired(Check("VM web", {"power": power}), value)


def resource(answer: dict[str, Any] | None) -> Exchange:
    return Exchange("GET", RESOURCE, failed("no such resource 'vm:100'") if answer is None else answer, {})


def rules(*answer: dict[str, Any]) -> Exchange:
    return Exchange("GET", RULES, list(answer), {"type": "node-affinity"})


def bring(wanted: HaDesired, *exchanges: Exchange) -> tuple[Any, Any]:
    """Read, compare, apply what differs; before and after."""
    script = Script(list(exchanges))
    client = script.client()
    actual = HA.read(client, PLACE, wanted)
    before, after = HA.compare(wanted, actual)
    if before != after:
        HA.apply(client, PLACE, wanted, actual, 60)
    script.finished()
    return before, after


def test_a_new_resource_comes_before_its_rule_and_the_start_is_awaited() -> None:
    wanted = desired(max_restart=3, comment="x", nodes={"pve2": 1, "pve1": 10}, strict=True)
    before, after = bring(
        wanted,
        resource(None),
        rules(),
        Exchange(
            "POST",
            RESOURCES,
            None,
            {"sid": "vm:100", "state": "started", "max_restart": "3", "comment": "x"},
        ),
        Exchange(
            "POST",
            RULES,
            None,
            {
                "rule": "fediversity-web",
                "type": "node-affinity",
                "resources": "vm:100",
                "nodes": "pve1:10,pve2:1",
                "strict": "1",
            },
        ),
        STOPPED,
        RUNNING,
    )
    assert before == {"state": "absent", "nodes": {}}
    assert after == {
        "state": "started",
        "max_restart": 3,
        "comment": "x",
        "nodes": {"pve1": 10, "pve2": 1},
    }


def test_a_new_resource_is_shown_as_created_when_the_machine_does_not_exist() -> None:
    before, after = HA.compare(desired(), None)
    assert before == {"state": "absent"}
    assert after == {"state": "started"}


@pytest.mark.parametrize(
    ("wanted", "answer", "rule"),
    [
        (desired(), PLAIN, None),
        (desired(), {"sid": "vm:100"}, None),
        (desired(), {**PLAIN, "state": "enabled"}, None),
        (desired(max_restart=1, max_relocate=1, comment=""), PLAIN, None),
        (desired(nodes={"pve1": 2, "pve2": None}, strict=True), PLAIN, OURS),
        (desired(nodes={"pve1": 2, "pve2": 0}, strict=True), PLAIN, {**OURS, "nodes": "pve2,pve1:2"}),
        (desired(nodes={}), PLAIN, {**OURS, "rule": "theirs"}),
        (desired(state="absent"), None, None),
    ],
)
def test_nothing_is_sent_for_what_is_equal_by_meaning(
    wanted: HaDesired, answer: dict[str, Any] | None, rule: dict[str, Any] | None
) -> None:
    reading = [resource(answer)]
    if wanted.nodes is not None:
        reading.append(rules(*([rule] if rule else [])))
    before, after = bring(wanted, *reading)
    assert before == after


def test_only_what_differs_is_sent() -> None:
    before, after = bring(
        desired(max_restart=2, comment=""),
        resource({**PLAIN, "max_restart": 1, "comment": "old"}),
        Exchange("PUT", RESOURCE, None, {"max_restart": "2", "delete": "comment"}),
    )
    assert before == {"state": "started", "max_restart": 1, "comment": "old"}
    assert after == {"state": "started", "max_restart": 2, "comment": ""}


@pytest.mark.parametrize(
    ("present", "delete"),
    [
        ({**OURS, "nodes": "pve1"}, {}),
        ({**OURS, "strict": 0}, {}),
        ({**OURS, "resources": "vm:100,vm:200"}, {"delete": "disable"}),
        ({**OURS, "disable": 1}, {"delete": "disable"}),
        ({**OURS, "resources": "vm:300"}, {"delete": "disable"}),
    ],
)
def test_our_rule_is_brought_back(present: dict[str, Any], delete: dict[str, str]) -> None:
    before, after = bring(
        desired(nodes={"pve1": 2, "pve2": 0}, strict=True),
        resource(PLAIN),
        rules(present),
        Exchange(
            "PUT",
            RULE,
            None,
            {"type": "node-affinity", "resources": "vm:100", "nodes": "pve1:2,pve2:0", "strict": "1", **delete},
        ),
    )
    assert before != after


def test_a_rule_goes_when_no_node_is_named() -> None:
    bring(desired(nodes={}), resource(PLAIN), rules(OURS), Exchange("DELETE", RULE, None, {}))


def test_absent_removes_the_resource_and_the_server_its_rule() -> None:
    before, after = bring(desired(state="absent"), resource(PLAIN), Exchange("DELETE", RESOURCE, None, {}))
    assert (before, after) == ({"state": "started"}, {"state": "absent"})


def test_a_resource_that_somebody_else_removed_meanwhile_is_absent() -> None:
    gone = failed("cannot delete service 'vm:100', not HA managed!")
    bring(desired(state="absent"), resource(PLAIN), Exchange("DELETE", RESOURCE, gone, {}))


def test_a_foreign_rule_is_named_before_anything_is_written() -> None:
    foreign = {**OURS, "rule": "keep-on-pve2", "resources": "ct:5,vm:100"}
    with pytest.raises(InvalidInput, match="keep-on-pve2") as caught:
        bring(desired(nodes={"pve1": 1}), resource(PLAIN), rules(foreign))
    assert caught.value.where == "VM web, ha.nodes"
    bring(desired(nodes={}), resource(PLAIN), rules({**foreign, "disable": 1}))


@pytest.mark.parametrize("state", STATES)
def test_the_ha_manager_has_the_power_unless_it_ignores_the_machine(state: State) -> None:
    assert rules_power(state) == (state in {"started", "stopped", "disabled"})


@pytest.mark.parametrize(
    ("power", "given", "state"),
    [
        (None, {}, "started"),
        ("stopped", {}, "stopped"),
        ("unmanaged", {}, "started"),
        ("started", {"state": "ignored"}, "ignored"),
    ],
)
def test_without_a_state_it_follows_the_power(power: str | None, given: dict[str, Any], state: str) -> None:
    assert desired(power, **given).state == state


@pytest.mark.parametrize(
    ("power", "value", "field_name"),
    [
        ("stopped", {"state": "started"}, "state"),
        ("paused", {"state": "stopped"}, "state"),
        ("paused", {"state": "disabled"}, "state"),
        (None, {"max_restart": -1}, "max_restart"),
        (None, {"nodes": {"pve,1": 1}}, "nodes"),
        (None, {"nodes": {"pve1": "high"}}, "nodes"),
        (None, {"nodes": {"pve1": -1}}, "nodes"),
        (None, {"comment": "a\nb"}, "comment"),
    ],
)
def test_refused_values_name_the_field(power: str | None, value: dict[str, Any], field_name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        desired(power, **value)
    assert caught.value.where == f"VM web, ha, {field_name}"


def status(**fields: Any) -> Exchange:
    return Exchange("GET", "/nodes/pve1/qemu/100/status/current", fields, {})


def test_the_ha_manager_is_awaited_at_growing_distances() -> None:
    script = Script([status(status="running"), status(status="running"), status(status="stopped")])
    await_power(script.client(), PLACE, running=False, budget=60)
    script.finished()
    assert script.slept == [1.0, 1.5]


def test_the_error_state_and_an_idle_ha_manager_are_told() -> None:
    given_up = Script([status(status="stopped", ha={"managed": 1, "state": "error"})])
    with pytest.raises(BackendError, match="given up"):
        await_power(given_up.client(), PLACE, running=True, budget=60)
    idle = Script([status(status="stopped", ha={"managed": 1, "state": "queued"})] * 3)
    with pytest.raises(Locked, match="has not started the machine within 2 s"):
        await_power(idle.client(), PLACE, running=True, budget=2)
    idle.finished()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        failed("cannot delete service 'vm:100', not HA managed!"),
        failed("Permission check failed (/, Sys.Console)", 403),
    ],
)
def test_a_machine_is_released_if_that_is_allowed(answer: Any) -> None:
    script = Script([Exchange("DELETE", RESOURCE, answer, {})])
    release(script.client(), PLACE)
    script.finished()


def test_a_refused_write_is_told() -> None:
    text = "service 'vm:100' in error state, must be disabled and fixed first"
    with pytest.raises(BackendError, match="must be disabled"):
        bring(
            desired(state="stopped"),
            resource(PLAIN),
            Exchange("PUT", RESOURCE, failed(text), {"state": "stopped"}),
        )


def test_what_is_absent_has_the_defaults_of_the_server() -> None:
    assert HaActual("web") == HaActual("web", "absent", 1, 1, "", None, strict=False, whole=True, foreign_rules=())


# on the simulator, with a manager that acts at once


def made(simulator: Any) -> Any:
    """A client, when VM 100 is there with a system that shuts down when it is asked to."""
    client = simulator.client()
    disk = "local:0,import-from=local:import/nixos.qcow2"
    tasks.wait(client, client.post("/nodes/pve1/qemu", vmid=100, name="web", scsi0=disk), budget=30)
    return client


def power(client: Any, place: Place = PLACE) -> str:
    return str(client.get(f"{place.path}/status/current")["status"])


def test_on_the_simulator_the_manager_starts_moves_and_stops(simulator: Any) -> None:
    client = made(simulator)
    steps = (
        (desired(nodes={"pve1": 2, "pve2": 1}, strict=True, comment="x"), "running"),
        (desired(nodes={"pve1": 2}, max_restart=4), "running"),
        (desired(nodes={}), "running"),
        (desired(state="stopped", comment=""), "stopped"),
        (desired(state="ignored"), "stopped"),
        (desired(state="absent"), "stopped"),
    )
    for wanted, status_ in steps:
        HA.apply(client, PLACE, wanted, HA.read(client, PLACE, wanted), 30)
        before, after = HA.compare(wanted, HA.read(client, PLACE, wanted))
        assert before == after
        assert power(client) == status_
    assert client.get(RESOURCES) == []
    assert client.get(RULES) == []


def test_on_the_simulator_a_managed_machine_is_moved_by_its_manager(simulator: Any) -> None:
    client = made(simulator)
    wanted = desired()
    HA.apply(client, PLACE, wanted, HA.read(client, PLACE, wanted), 30)
    moved = migrate(client, PLACE, "pve2", 30)
    assert (moved.node, power(client, moved)) == ("pve2", "running")


def test_on_the_simulator_power_and_high_availability_never_fight(simulator: Any) -> None:
    disk = {"storage": "local", "import_from": "local:import/nixos.qcow2"}
    machine = {"name": "web", "vmid": 100, "node": "pve1", "disk": disk}

    def run(**item: Any) -> tuple[bool, str]:
        result = reconcile(VirtualMachines(simulator.client(), 30), desired_machines([{**machine, **item}]))
        assert not result["failed"], result["msg"]
        return result["changed"], power(simulator.client())

    ha = {"nodes": {"pve1": 1}}
    assert run(ha=ha) == (True, "running")
    assert run(ha=ha) == (False, "running")
    assert run(ha={"state": "stopped"}) == (True, "stopped")
    assert run(ha={"state": "stopped"}) == (False, "stopped")
    # the option is not given: the manager is told what the power is to be, and awaited
    assert run() == (True, "running")
    assert run() == (False, "running")
    assert run(power="stopped") == (True, "stopped")
    assert run(power="stopped", ha={"state": "absent"}) == (True, "stopped")
    assert run(power="started", ha={"state": "started"}) == (True, "running")
    # out of high availability first, then stopped by us
    assert run(power="stopped", ha={"state": "absent"}) == (True, "stopped")
    assert run(power="stopped", ha={"state": "absent"}) == (False, "stopped")


@pytest.mark.parametrize("token", ["fediversity@pve!lab", "fediversity@pve!tenant"])
def test_on_the_simulator_a_managed_machine_is_deleted_with_or_without_rights_on_its_manager(
    simulator: Any, token: str
) -> None:
    client = simulator.client()
    tasks.wait(
        client,
        client.post("/nodes/pve1/qemu", vmid=100, name="web", tags="fediversity;fediversity-machine-web"),
        budget=30,
    )
    client.post(RESOURCES, sid="vm:100", state="started")
    await_power(client, PLACE, running=True, budget=30)
    if token.endswith("tenant"):
        secret = client.post("/access/users/fediversity@pve/token/tenant", privsep=True)["value"]
        client.put("/access/acl", path="/vms", roles="PVEVMAdmin", tokens=token)
        simulator.secrets[token] = secret
    desired_ = desired_machines([{"name": "web", "state": "absent"}])
    result = reconcile(VirtualMachines(simulator.client(token), 30), desired_)
    assert not result["failed"], result["msg"]
    assert not [row for row in client.get("/cluster/resources") if row.get("vmid")]
    assert client.get(RESOURCES) == []
