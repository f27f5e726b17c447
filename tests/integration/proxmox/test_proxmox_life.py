# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of virtual machines: what the modules say and what the server then has, every change checked three times."""

from __future__ import annotations

import pytest
from proxmox_api import path, properties
from proxmox_estate import Estate

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILs6/eDXVr7LO7criwTcJSGs3XkG7rn8qsRKLJFFEITI ops@example"
GIB = 1 << 30


def test_from_image_to_deletion(estate: Estate) -> None:
    api, server = estate.server.api, estate.server
    before = api.volumes(server.node, [server.storage])
    network = {"bridge": server.bridge}
    cloud_init = {
        "user": "root",
        "ssh_keys": [KEY],
        "addresses": ["192.0.2.10/24"],
        "gateway": "192.0.2.1",
        "nameservers": ["192.0.2.53"],
        "search_domains": ["example.org"],
    }
    web = estate.machine(
        "web",
        networks=[network],
        cloud_init=cloud_init,
        tags=["shop"],
        description="Web shop",
        onboot=False,
        agent=True,
    )
    (created,) = estate.machines(web)
    first, last = map(int, server.ids.split("-"))
    assert created["action"] == "create"
    assert first <= created["vmid"] <= last
    assert (created["node"], created["status"], created["address"]) == (server.node, "started", "192.0.2.10")
    config = api.config(created)
    assert config["name"] == web["name"]
    assert {"shop", "fediversity", f"fediversity-machine-{web['name']}"} == set(config["tags"].split(";"))
    assert (config["ciuser"], config["searchdomain"], config["description"].strip()) == (
        "root",
        "example.org",
        "Web shop",
    )
    assert [row["vmid"] for row in api.vms(server.pool) if row["vmid"] == created["vmid"]] == [created["vmid"]]
    mac = properties(config["net0"])["virtio"]

    cloud_init = {**cloud_init, "nameservers": ["192.0.2.54"], "addresses": ["192.0.2.11/24", "2001:db8::11/64"]}
    web |= {"cloud_init": cloud_init, "tags": ["shop", "blue"], "memory": 320, "description": "Shop"}
    (updated,) = estate.machines(web)
    assert (updated["action"], updated["reboot_required"]) == ("update", True)
    assert "memory" in updated["pending"]
    assert updated["vmid"] == created["vmid"]

    web |= {"networks": [network, {**network, "firewall": True}]}
    estate.machines(web)
    config = api.config(created)
    assert properties(config["net0"])["virtio"] == mac
    assert "net1" in config

    api.settle(created)
    web |= {"power": "stopped"}
    (stopped,) = estate.machines(web)
    assert (stopped["status"], stopped["pending"], stopped["reboot_required"]) == ("stopped", [], False)

    web |= {"networks": [network]}
    estate.machines(web)
    config = api.config(created)
    assert properties(config["net0"])["virtio"] == mac
    assert "net1" not in config

    (deleted,) = estate.machines({"name": web["name"], "state": "absent", "pool": server.pool})
    assert deleted["action"] == "delete"
    assert created["vmid"] not in [row["vmid"] for row in api.vms(server.pool)]
    assert api.volumes(server.node, [server.storage]) == before


def test_disks_grow_come_and_go(estate: Estate) -> None:
    api, server = estate.server.api, estate.server
    (made,) = estate.machines(estate.machine("disks", power="stopped"))
    size = next(
        int(row["size"])
        for row in api("GET", f"/nodes/{server.node}/storage/{server.storage}/content", content="images")
        if row["volid"] == properties(api.config(made)["scsi0"])[""]
    )
    machine = estate.machine("disks", power="stopped")
    grown = size // GIB + 1
    machine["disk"] = {**machine["disk"], "size": grown}
    data = {"slot": "scsi1", "storage": server.storage, "size": 1, "format": server.disk_format, "discard": True}
    machine["disks"] = [data]
    estate.machines(machine)
    config = api.config(made)
    assert properties(config["scsi0"])["size"] == f"{grown}G"
    assert properties(config["scsi1"])["size"] == "1G"
    volume = properties(config["scsi1"])[""]

    machine["disks"] = [{**data, "size": 2}]
    estate.machines(machine)
    assert properties(api.config(made)["scsi1"]) | {"": volume, "size": "2G"} == properties(api.config(made)["scsi1"])

    refused = estate.run("proxmox_vms", estate.vms({**machine, "disks": [data]}))
    assert refused["failed"]
    assert machine["name"] in refused["msg"]

    machine["disks"] = [{"slot": "scsi1", "state": "absent"}]
    estate.machines(machine)
    config = api.config(made)
    assert "scsi1" not in config
    assert not [key for key in config if key.startswith("unused")]
    assert volume not in api.volumes(server.node, [server.storage])


def test_a_disk_moves_to_another_storage(estate: Estate) -> None:
    server = estate.server
    if not server.second_storage:
        pytest.skip("PROXMOX_SECOND_STORAGE names no second storage")
    machine = estate.machine("mover", power="stopped")
    (made,) = estate.machines(machine)
    machine["disk"] = {**machine["disk"], "storage": server.second_storage, "move": True}
    estate.machines(machine)
    config = server.api.config(made)
    assert properties(config["scsi0"])[""].startswith(f"{server.second_storage}:")
    assert not [key for key in config if key.startswith("unused")]


def test_clones_of_a_template(estate: Estate) -> None:
    api, server = estate.server.api, estate.server
    template = estate.machine("template", power="stopped", template=True, networks=[{"bridge": server.bridge}])
    (made,) = estate.machines(template)
    assert int(api.config(made)["template"]) == 1
    clone = {
        **{key: value for key, value in template.items() if key not in ("template", "disk")},
        "name": estate.name("clone"),
        "clone": {"vmid": made["vmid"], "full": True},
        "memory": 384,
        "cloud_init": {"user": "root", "addresses": ["192.0.2.20/24"]},
        "power": "started",
    }
    (cloned,) = estate.machines(clone)
    config, source = api.config(cloned), api.config(made)
    assert (cloned["action"], cloned["status"], cloned["pending"]) == ("create", "started", [])
    assert (int(config["memory"]), config["name"], config["ciuser"]) == (384, clone["name"], "root")
    assert properties(config["net0"])["virtio"] != properties(source["net0"])["virtio"]
    assert "template" not in config


def test_power(estate: Estate) -> None:
    api = estate.server.api
    machine = estate.machine("power", power="unmanaged")
    (made,) = estate.machines(machine)
    assert made["status"] == "stopped"
    # the cluster's list does not tell a paused machine from a running one, so "started" would leave it paused
    for power, state in (("started", "running"), ("paused", "paused"), ("stopped", "stopped"), ("started", "running")):
        estate.machines({**machine, "power": power})
        api.settle(made)
        status = api("GET", f"{path(made)}/status/current")
        assert status.get("qmpstatus", status["status"]) == state


def test_a_machine_migrates(estate: Estate) -> None:
    server = estate.server
    if not server.second_node:
        pytest.skip("PROXMOX_SECOND_NODE names no second node")
    machine = estate.machine("migrant", power="stopped")
    (made,) = estate.machines(machine)
    left = estate.run("proxmox_vms", estate.vms({**machine, "node": server.second_node}))
    assert (left["failed"], left["changed"], left["results"][0]["node"]) == (False, False, server.node)
    (moved,) = estate.machines({**machine, "node": server.second_node, "migrate": True})
    assert (moved["node"], moved["vmid"]) == (server.second_node, made["vmid"])
    estate.machines({"name": machine["name"], "state": "absent", "pool": server.pool})
