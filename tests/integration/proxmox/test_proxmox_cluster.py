# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is not one virtual machine: images, lists, tenants, refusals, and the role."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from proxmox_estate import ROOT, Estate
from proxmox_server import image_file


def test_an_image_is_uploaded_once_and_removed(estate: Estate, tmp_path: Path) -> None:
    server = estate.server
    if not server.takes_images():
        pytest.skip(f"the storage {server.image_storage} takes no images")
    image = {"name": estate.name("image"), "storage": server.image_storage, "nodes": [server.node]}
    arguments = {"node_addresses": {server.node: server.address}}
    made = estate.change("proxmox_images", {**arguments, "images": [{**image, "src": str(image_file(tmp_path))}]})
    content = f"/nodes/{server.node}/storage/{server.image_storage}/content"
    volume = made["results"][0]["volid"]
    assert volume in [row["volid"] for row in server.api("GET", content, content="import")]
    estate.change("proxmox_images", {**arguments, "images": [{**image, "state": "absent"}], "max_delete_percent": 100})
    assert volume not in [row["volid"] for row in server.api("GET", content, content="import")]


def test_the_list_has_every_machine(estate: Estate) -> None:
    server = estate.server
    (made,) = estate.machines(estate.machine("listed", power="stopped"))
    listed, configured = estate.tasks(
        {"proxmox_info": {"names": [made["name"]]}}, {"proxmox_info": {"vmids": [made["vmid"]], "config": True}}
    )
    assert [(guest["vmid"], guest["node"]) for guest in listed["guests"]] == [(made["vmid"], server.node)]
    assert str(configured["guests"][0]["config"]["cores"]) == "1"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node", "no-such-node"),
        ("disk", {"storage": "nosuchstore", "import_from": "local:import/none.qcow2"}),
        ("networks", [{"bridge": "nosuchbr0"}]),
        ("memory", 1),
        ("tags", ["Not Lower"]),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(estate: Estate, field: str, value: Any) -> None:
    server = estate.server
    before = len(server.api.vms(server.pool))
    machine = estate.machine("refused", **{field: value})
    result = estate.run("proxmox_vms", estate.vms(machine))
    assert result["failed"]
    assert machine["name"] in result["msg"]
    assert len(server.api.vms(server.pool)) == before


def test_a_tenant_sees_only_its_own(estate: Estate, tmp_path: Path) -> None:
    server, name = estate.server, estate.name("tenant")
    password = tmp_path / "password"
    password.write_text("vault", encoding="utf-8")
    tenant = {"name": name, "pool": name, "user": f"{name}@pve", "storages": [server.storage]}
    arguments = {"token_directory": str(tmp_path / "tokens"), "vault_password_file": str(password)}
    (foreign,) = estate.machines(estate.machine("foreign", power="stopped"))
    estate.change("proxmox_tenants", {**arguments, "tenants": [tenant]})
    token = Path(tmp_path, "tokens", f"{name}.yml")
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [str(token)],
        "tasks": [
            {
                "fediversity.hosting.proxmox_info": {
                    option: f"{{{{ {option} }}}}" for option in ("api_user", "api_token_id", "api_token_secret")
                },
                "register": "seen",
            },
            {
                "ansible.builtin.copy": {
                    "content": "{{ seen.guests | to_json }}",
                    "dest": str(tmp_path / "seen"),
                    "mode": "0600",
                }
            },
        ],
    }
    playbook = tmp_path / "tenant.yml"
    playbook.write_text(json.dumps([play]), encoding="utf-8")
    code, output = estate.ansible("-i", "localhost,", "--vault-password-file", str(password), str(playbook))
    assert code == 0, output
    seen = json.loads(Path(tmp_path, "seen").read_text(encoding="utf-8"))
    assert foreign["vmid"] not in [guest["vmid"] for guest in seen]
    estate.change(
        "proxmox_tenants", {**arguments, "tenants": [{**tenant, "state": "absent"}], "max_delete_percent": 100}
    )
    assert f"{name}@pve" not in [user["userid"] for user in server.api("GET", "/access/users")]
    assert not token.exists()


def test_the_requests_of_the_common_jobs(estate: Estate) -> None:
    """Only a simulated server tells who asked."""
    cluster = estate.server.simulated
    if cluster is None:
        pytest.skip("the requests are counted in the log of a simulated server")
    machine = estate.machine("counted")
    cluster.requests()
    estate.run("proxmox_vms", estate.vms(machine))
    assert len([request for request in cluster.requests() if "/tasks" not in request]) <= 4
    estate.run("proxmox_info", {})
    assert cluster.requests() == ["GET /cluster/resources"]


def test_the_example_of_the_role(estate: Estate, tmp_path: Path) -> None:
    """docs/examples/virtual_machines.yml: check mode, once, and again without any change."""
    server = estate.server
    names = [estate.name(f"role-{number}") for number in (1, 2)]
    hosts = {name: {"proxmox_vm_machine": {"memory": 256 + 64 * number}} for number, name in enumerate(names)}
    shared = {
        key: value for key, value in estate.machine("role", power="stopped").items() if key not in ("name", "memory")
    }
    variables = {"proxmox_vm_defaults": shared, "proxmox_vm_vmid_range": server.ids, "ansible_connection": "local"}
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(
        json.dumps({"all": {"children": {"web": {"hosts": hosts, "vars": variables}}}}), encoding="utf-8"
    )
    command = ("-i", str(inventory), str(ROOT / "docs" / "examples" / "virtual_machines.yml"))
    code, checked = estate.ansible("--check", *command)
    assert code == 0, checked
    assert not [row for row in server.api.vms(server.pool) if row.get("name") in names]
    code, first = estate.ansible(*command)
    assert code == 0, first
    assert "changed=1" in first
    code, second = estate.ansible(*command)
    assert code == 0, second
    assert "changed=1" not in second
    configs = [server.api.config(row) for row in server.api.vms(server.pool)]
    assert sorted(config["name"] for config in configs if config["name"] in names) == names
