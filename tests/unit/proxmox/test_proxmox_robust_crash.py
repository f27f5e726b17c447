# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``kill -9`` of the module process at every request, then a second run: what was wanted, once, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Connection, connect
from lab.transcripts.qcow2 import make
from proxmox_processes import Modules, client_of, make_template, names, orphans
from support.simulated_proxmox import IMAGE, Cluster, Loop, served

DISK = {"storage": "local", "import_from": IMAGE, "size": 8}
WEB: dict[str, Any] = {
    "name": "web",
    "node": "pve1",
    "cores": 2,
    "memory": 512,
    "disk": DISK,
    "networks": [{"bridge": "vmbr0"}],
    "cloud_init": {"user": "root", "addresses": ["10.99.1.10/16"], "gateway": "10.99.0.1"},
    "tags": ["op1"],
}
TEMPLATE = 900
CHANGED = {**WEB, "memory": 1024, "disk": {**DISK, "size": 9}, "networks": [{"bridge": "vmbr0", "tag": 5}]}


@dataclass(frozen=True)
class Story:
    """What is asked for, what our machines are before, and the names of all VMs at the end."""

    asked: dict[str, Any]
    before: tuple[dict[str, Any], ...] = ()
    names: tuple[str, ...] = ("source", "web")


STORIES = {
    "create": Story(WEB),
    "clone": Story({**{key: WEB[key] for key in WEB if key != "disk"}, "clone": {"vmid": TEMPLATE}}),
    "update": Story(CHANGED, (WEB,)),
    "add a disk": Story({**WEB, "disks": [{"slot": "scsi1", "storage": "local", "size": 2}]}, (WEB,)),
    "delete": Story({"name": "web", "state": "absent"}, (WEB,), ("source",)),
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_machines(loop: Loop, modules: Modules, story: Story) -> None:
    def attempt(cluster: Cluster, number: int) -> bool:
        client = client_of(cluster)
        make_template(client, TEMPLATE)
        before = modules.run("proxmox_vms", {**cluster.arguments(), "vms": list(story.before)})
        assert not before.get("failed"), before["msg"]
        sent, finished = kill(cluster, modules, "proxmox_vms", {"vms": [story.asked]}, (number, "after"))
        assert names(client) == sorted(story.names), sent
        assert orphans(client) == set(), sent
        return finished

    at_every_request(loop, attempt)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_image_upload(loop: Loop, modules: Modules, tmp_path: Path, moment: str) -> None:
    """Also in the middle of the upload: the server has the head of the request and not the file."""
    file = tmp_path / "nixos.qcow2"
    make(file, virtual_size=1 << 30, file_size=2 << 20)

    def attempt(cluster: Cluster, number: int) -> bool:
        address = {"node_addresses": {"pve1": f"127.0.0.1:{cluster.port}"}}
        image = {"name": "own", "storage": "local", "nodes": ["pve1"], "src": str(file)}
        sent, finished = kill(cluster, modules, "proxmox_images", {**address, "images": [image]}, (number, moment))
        content = client_of(cluster).get("/nodes/pve1/storage/local/content", content="import")
        ours = [row for row in content if row["volid"] != IMAGE]
        assert [row["size"] for row in ours] == [file.stat().st_size], sent
        assert ours[0]["volid"].startswith("local:import/fediversity-own-")
        return finished

    at_every_request(loop, attempt)


def test_tenants(loop: Loop, modules: Modules, tmp_path: Path) -> None:
    """The secret of a token is told once; one that was lost with the process is replaced."""
    password = tmp_path / "password"
    password.write_text("vault", encoding="utf-8")

    def attempt(cluster: Cluster, number: int) -> bool:
        tokens = tmp_path / f"tokens-{number}"
        tenant = {"name": "alice", "storages": ["local"], "networks": ["localnetwork"]}
        arguments = {"token_directory": str(tokens), "vault_password_file": str(password), "tenants": [tenant]}
        sent, finished = kill(cluster, modules, "proxmox_tenants", arguments, (number, "after"))
        client = client_of(cluster)
        users = [user["userid"] for user in client.get("/access/users", full=True) if "alice" in user["userid"]]
        assert len(users) == 1, sent
        assert len(client.get(f"/access/users/{users[0]}/token")) == 1
        assert [pool["poolid"] for pool in client.get("/pools")] == ["alice"]
        vault = VaultLib([("default", VaultSecret(b"vault"))])
        (stored,) = tokens.glob("*.yml")
        token = yaml.safe_load(vault.decrypt(stored.read_bytes()))
        own = Connection(
            "127.0.0.1",
            token["api_user"],
            port=cluster.port,
            token_id=token["api_token_id"],
            token_secret=token["api_token_secret"],
            ca_path=str(cluster.authority),
        )
        assert connect(own).get("/cluster/resources", type="vm") == []
        return finished

    at_every_request(loop, attempt)


def at_every_request(loop: Loop, attempt: Callable[[Cluster, int], bool]) -> None:
    """Call *attempt* on fresh clusters with the number of the deadly request, until it says that there are no more."""
    for number in itertools.count(1):
        with served(loop) as cluster:
            if attempt(cluster, number):
                break
    assert number > 3


def kill(
    cluster: Cluster, modules: Modules, module: str, asked: dict[str, Any], deadly: tuple[int, str]
) -> tuple[list[str], bool]:
    """Kill the module at a request (number, moment), run it again, and once more, which must find nothing to do.

    :returns: the requests until then, and whether the first run had fewer.
    """
    arguments = {**cluster.arguments(), **asked}
    first = modules.run(module, arguments, lambda pid: cluster.killer.aim(pid, *deadly))
    sent = list(cluster.killer.seen)
    cluster.killer.victim = 0
    second = modules.run(module, arguments)
    assert not second.get("failed"), (sent, second["msg"])
    third = modules.run(module, arguments)
    assert (third.get("failed", False), third["changed"]) == (False, False), (sent, third["msg"])
    return sent, first is not None
