# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input is refused before anything is written, and the message names the machine and the field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from proxmox_processes import Modules, client_of, names
from support.simulated_proxmox import BLIND, IMAGE, Cluster, Loop, served

WEB: dict[str, Any] = {
    "name": "web",
    "node": "pve1",
    "memory": 512,
    "disk": {"storage": "local", "import_from": IMAGE, "size": 8},
    "networks": [{"bridge": "vmbr0"}],
}
DISK = WEB["disk"]
NEW = {**WEB, "name": "new"}

# machine, words of the message
BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown node": ({**NEW, "node": "pve9"}, ("VM new", "node", "pve9")),
    "unknown storage": ({**NEW, "disk": {**DISK, "storage": "nostore"}}, ("VM new", "storage", "nostore")),
    "unknown image": (
        {**NEW, "disk": {**DISK, "import_from": "local:import/none.qcow2"}},
        ("VM new", "import_from", "none.qcow2"),
    ),
    "image in an unknown storage": (
        {**NEW, "disk": {**DISK, "import_from": "nostore:import/nixos.qcow2"}},
        ("VM new", "import_from", "nostore"),
    ),
    "unknown bridge": ({**NEW, "networks": [{"bridge": "vmbr9"}]}, ("VM new", "bridge", "vmbr9")),
    "smaller than the image": ({**NEW, "disk": {**DISK, "size": 2}}, ("VM new", "size", "2")),
    "no DNS label": ({**NEW, "name": "no_label"}, ("no_label", "name")),
    "upper case": ({**NEW, "name": "Web"}, ("Web", "name")),
    "name that is too long": ({**NEW, "name": "x" * 64}, ("x" * 64, "name")),
    "foreign VMID": ({**NEW, "vmid": 150}, ("VM new", "vmid", "150")),
    "VMID of another machine of ours": ({**NEW, "vmid": 100}, ("VM new", "vmid", "100")),
    "VMID below 100": ({**NEW, "vmid": 99}, ("VM new", "vmid", "99")),
    "tag in upper case": ({**NEW, "tags": ["Shop"]}, ("VM new", "tags", "Shop")),
    "tag with a separator": ({**NEW, "tags": ["a;b"]}, ("VM new", "tags", "a;b")),
    "tag of another machine": ({**NEW, "tags": ["fediversity-machine-web"]}, ("VM new", "tags")),
    "template that is not there": (
        {**{key: NEW[key] for key in NEW if key != "disk"}, "clone": {"vmid": 777}},
        ("VM new", "clone", "777"),
    ),
    "plain password": ({**NEW, "cloud_init": {"password_hash": "secret"}}, ("VM new", "password_hash")),
    "raw key with an option of its own": ({**NEW, "options": {"memory": "1024"}}, ("VM new", "options", "memory")),
    "shrunk disk": ({**WEB, "disk": {**DISK, "size": 7}}, ("VM web", "size", "7")),
    "new disk on an unknown storage": (
        {**WEB, "disks": [{"slot": "scsi1", "storage": "nostore", "size": 1}]},
        ("VM web", "storage", "nostore"),
    ),
    "another VMID": ({**WEB, "vmid": 200}, ("VM web", "vmid", "100")),
}


@pytest.fixture(scope="module")
def cluster(loop: Loop, modules: Modules) -> Iterator[Cluster]:
    """With our machine web (100) and a foreign VM of the id 150; no test changes anything."""
    with served(loop) as found:
        result = modules.run("proxmox_vms", {**found.arguments(), "vms": [{**WEB, "vmid": 100}]})
        assert not result.get("failed"), result["msg"]
        client_of(found).post("/nodes/pve1/qemu", vmid=150, name="foreign", memory=64)
        yield found


@pytest.mark.parametrize(("item", "words"), BAD.values(), ids=BAD.keys())
def test_refused_before_any_write(
    cluster: Cluster, modules: Modules, item: dict[str, Any], words: tuple[str, ...]
) -> None:
    cluster.requests()
    result = modules.run("proxmox_vms", {**cluster.arguments(), "vms": [item]})
    assert result["failed"], result
    assert [request for request in cluster.requests() if not request.startswith("GET ")] == []
    assert [word for word in words if word not in result["msg"]] == [], result["msg"]
    assert "secret" not in result["msg"].replace("password_hash", "")
    assert names(client_of(cluster)) == ["foreign", "web"]


def test_one_bad_item_does_not_keep_the_others_from_being_done(loop: Loop, modules: Modules) -> None:
    with served(loop) as cluster:
        items = [WEB, {**NEW, "node": "pve9"}]
        result = modules.run("proxmox_vms", {**cluster.arguments(), "vms": items})
        assert [(one["name"], one["failed"]) for one in result["results"]] == [("new", True), ("web", False)]
        assert names(client_of(cluster)) == ["web"]


def test_an_unknown_pool_is_refused_by_the_server(cluster: Cluster, modules: Modules) -> None:
    result = modules.run("proxmox_vms", {**cluster.arguments(), "vms": [{**NEW, "pool": "nopool"}]})
    assert "pool 'nopool' does not exist" in result["msg"]
    assert names(client_of(cluster)) == ["foreign", "web"]


@pytest.mark.parametrize("pool", [None, "op1"])
def test_a_token_that_sees_nothing_refuses_to_create(loop: Loop, modules: Modules, pool: str | None) -> None:
    with served(loop) as cluster:
        client_of(cluster).post("/pools", poolid="op1")
        modules.run("proxmox_vms", {**cluster.arguments(), "vms": [{**WEB, "pool": pool}]})
        cluster.requests()
        result = modules.run("proxmox_vms", {**cluster.arguments(BLIND), "vms": [{**WEB, "pool": pool}]})
        assert result["failed"]
        assert "VM.Audit" in result["msg"]
        assert [request for request in cluster.requests() if not request.startswith("GET ")] == []
        assert names(client_of(cluster)) == ["web"]
