# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.fediversity.hosting.plugins.plugin_utils.fleet.plan import Need, plan_fleet, zone_of
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import (
    Deployment,
    DeploymentRecord,
    Environment,
    Fleet,
    Instance,
    Machine,
    MachineRecord,
    Network,
    Operator,
)

HOSTILE = "{{ lookup('pipe','id') }} ''${x}'' \"\n🦣"
KEY = "ssh-ed25519 AAAA admin"
NEW = MachineRecord("new", "", None, None, None, None, None, None)


def instance(operator: str, application: str, machine: str, **changes: object) -> Instance:
    made = Instance(
        id=f"{operator}_social_{application}",
        operator=operator,
        deployment="social",
        application=application,
        environment="lab",
        machine=machine,
        domain=f"{application}.{operator}.fedi.test",
        state="enabled",
        module_version="1",
        settings={"title": HOSTILE},
        nixos_options={},
        secrets_revision=1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def fleet_of(*instances: Instance, records: dict[str, MachineRecord] | None = None) -> Fleet:
    records = records or {}
    machines = {
        name: Machine(name, "lab", runtime, address, 22, 2, 2048, 20, records.get(name, NEW))
        for name, runtime, address in (
            ("vm1", "proxmox", "10.99.1.10"),
            ("vm2", "proxmox", "10.99.1.11"),
            ("existing1", "existing", "10.99.0.20"),
        )
    }
    environment = Environment(
        name="lab",
        stage="staging",
        zones=("fedi.test", "carol.fedi.test"),
        network=Network("10.99.0.0/16", "10.99.0.1", ("10.99.0.11",), "10.99.1.10-10.99.1.99"),
        proxmox={"node": "pve1", "storage": "local", "image": "local:import/nixos.qcow2", "bridge": "vmbr0"},
        postgresql={"host": "10.99.0.10", "port": 5432},
        garage={"s3_endpoint": "http://10.99.0.1:3900", "region": "garage"},
    )
    names = {found.operator for found in instances}
    return Fleet(
        uuid="00000000-0000-0000-0000-000000000001",
        environments={"lab": environment},
        machines=machines,
        operators={name: Operator(name, HOSTILE, "") for name in names},
        deployments={
            f"{found.operator}_social": Deployment(
                found.operator, "social", "lab", found.state, "1", DeploymentRecord("new", "", None)
            )
            for found in instances
        },
        instances={found.id: found for found in instances},
        resources=(),
    )


def plan(fleet: Fleet, *machines: str):
    return plan_fleet(fleet, load_catalogue(), machines or tuple(fleet.machines), [KEY])


def test_a_machine_gets_everything_its_instances_need() -> None:
    planned = plan(fleet_of(instance("alice", "mastodon", "vm1")))
    assert [vm["name"] for vm in planned.vms] == ["vm1"]
    assert planned.vms[0]["cloud_init"]["addresses"] == ["10.99.1.10/16"]
    assert [database["name"] for database in planned.databases] == ["alice_social_mastodon"]
    assert [bucket["name"] for bucket in planned.buckets] == ["alice--social--mastodon--media"]
    assert [key["name"] for key in planned.keys] == ["fediversity/alice_social_mastodon"]
    assert planned.zones == (
        {
            "name": "fedi.test",
            "record_sets": [
                {"record": "mastodon.alice.fedi.test", "type": "A", "ttl": 300, "value": ["10.99.1.10"]},
            ],
        },
    )
    assert list(planned.machines) == ["vm1"]
    assert Need("vms", "vm1") in planned.needs["vm1"]
    assert Need("databases", "alice_social_mastodon") in planned.needs["vm1"]


@pytest.mark.parametrize(
    ("proxmox", "expected"),
    [
        ({"node": "pve1"}, {"node": "pve1"}),
        ({"nodes": ["pve1", "pve2"]}, {"placement": {"nodes": ["pve1", "pve2"]}}),
        ({}, {"placement": {}}),
    ],
)
def test_the_environment_says_where_new_machines_are_made(proxmox: dict[str, Any], expected: dict[str, Any]) -> None:
    fleet = fleet_of(instance("alice", "mastodon", "vm1"))
    lab = fleet.environments["lab"]
    rest = {"storage": "ceph", "image": "local:import/nixos.qcow2", "bridge": "vmbr0"}
    fleet = replace(fleet, environments={"lab": replace(lab, proxmox=proxmox | rest)})
    [vm] = plan(fleet).vms
    assert {key: vm[key] for key in ("node", "placement") if key in vm} == expected


def test_secrets_are_references_everywhere_but_never_values() -> None:
    planned = plan(fleet_of(instance("alice", "mastodon", "vm1")))
    assert planned.databases[0]["password"] == {"secret": "alice_social_mastodon/database-password"}
    assert planned.keys[0]["secret_access_key"] == {"secret": "alice_social_mastodon/s3-secret-key"}
    refs = {secret["ref"] for secret in planned.secrets}
    assert {file["content"]["secret"] for file in planned.secret_files["vm1"]} == refs
    assert {file["path"] for file in planned.secret_files["vm1"]} == {
        f"/var/lib/fediversity/secrets/{ref}" for ref in refs
    }


def test_customer_text_is_data_in_the_document_for_nix_and_nowhere_else() -> None:
    planned = plan(fleet_of(instance("alice", "mastodon", "vm1")))
    described = planned.machines["vm1"]["instances"][0]
    assert described["operatorDisplayName"] == HOSTILE
    assert described["settings"] == {"title": HOSTILE}
    elsewhere = [planned.vms, planned.keys, planned.buckets, planned.databases, planned.zones, planned.needs]
    assert "lookup" not in repr([elsewhere, planned.secrets, planned.secret_files, planned.health])


def test_an_existing_machine_gets_no_virtual_machine() -> None:
    planned = plan(fleet_of(instance("dora", "pixelfed", "existing1")))
    assert planned.vms == ()
    assert all(need.kind != "vms" for need in planned.needs["existing1"])


def test_instances_of_one_machine_are_pooled() -> None:
    planned = plan(fleet_of(instance("bob", "peertube", "vm2"), instance("carol", "pixelfed", "vm2")))
    assert [vm["name"] for vm in planned.vms] == ["vm2"]
    assert [found["id"] for found in planned.machines["vm2"]["instances"]] == [
        "bob_social_peertube",
        "carol_social_pixelfed",
    ]
    # the longest zone that holds the domain
    assert {zone["name"]: [r["record"] for r in zone["record_sets"]] for zone in planned.zones} == {
        "fedi.test": ["peertube.bob.fedi.test"],
        "carol.fedi.test": ["pixelfed.carol.fedi.test"],
    }


def test_a_disabled_deployment_needs_nothing() -> None:
    planned = plan(fleet_of(instance("bob", "mastodon", "vm1", state="disabled")))
    assert (planned.vms, planned.databases, planned.machines) == ((), (), {})


def test_the_existing_virtual_machine_of_disabled_deployments_is_stopped() -> None:
    made = replace(NEW, vmid=100)
    planned = plan(fleet_of(instance("bob", "mastodon", "vm1", state="disabled"), records={"vm1": made}))
    assert planned.vms == ({"name": "vm1", "power": "stopped"},)


def test_refused_settings_hold_back_their_machine_only() -> None:
    bad = instance("alice", "mastodon", "vm1", settings={"title": 5})
    planned = plan(fleet_of(bad, instance("carol", "pixelfed", "vm2")))
    assert list(planned.machines) == ["vm2"]
    assert [(problem.machine, problem.operator) for problem in planned.problems] == [("vm1", "alice")]
    assert "operator alice, deployment social, application mastodon: settings.title" in planned.problems[0].msg


def test_an_unknown_application_is_a_problem_that_lists_the_known_ones() -> None:
    planned = plan(fleet_of(instance("alice", "fotografen", "vm1")))
    assert planned.machines == {}
    assert "unknown application. The catalogue has: mastodon, peertube, pixelfed" in planned.problems[0].msg


def test_only_the_named_machines_are_planned() -> None:
    fleet = fleet_of(instance("alice", "mastodon", "vm1"), instance("carol", "pixelfed", "vm2"))
    planned = plan(fleet, "vm2", "not-in-the-database")
    assert list(planned.machines) == ["vm2"]
    assert [vm["name"] for vm in planned.vms] == ["vm2"]
    assert [bucket["name"] for bucket in planned.buckets] == ["carol--social--pixelfed--media"]


def test_the_longest_zone_holds_a_domain() -> None:
    assert zone_of("a.b.c", ("c", "b.c")) == "b.c"
    assert zone_of("b.c", ("c", "b.c")) == "b.c"
    assert zone_of("xb.c", ("b.c",)) is None
