# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""proxmox_info: one list, tolerant of what the server does not know at the moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.info import (
    HIDDEN,
    Filters,
    guests,
    nodes,
    parse_config,
    read,
    storages,
)
from conftest import Simulator
from proxmox_script import Exchange, Script, failed

ROWS: list[dict[str, Any]] = [
    {"id": "node/pve2", "type": "node", "node": "pve2", "status": "offline"},
    {"id": "node/pve1", "type": "node", "node": "pve1", "status": "online", "maxmem": 100, "mem": 10, "maxcpu": 4},
    {"id": "storage/pve1/local", "type": "storage", "storage": "local", "node": "pve1", "status": "available"}
    | {"content": "iso,import,images", "shared": 0, "plugintype": "dir", "maxdisk": 50, "disk": 5},
    {"id": "qemu/101", "type": "qemu", "vmid": 101, "node": "pve1", "name": "web", "status": "running"}
    | {"tags": "fediversity;fediversity-machine-web", "pool": "alice", "template": 0, "maxmem": 1},
    # somebody else's of the same name
    {"id": "qemu/100", "type": "qemu", "vmid": 100, "node": "pve1", "name": "web", "status": "stopped", "template": 1},
    # made a moment ago, or on a node that is down
    {"id": "qemu/102", "type": "qemu", "vmid": 102, "node": "pve2", "tags": "fediversity;fediversity-machine-db"},
    {"id": "lxc/200", "type": "lxc", "vmid": 200, "node": "pve1", "name": "ct", "status": "running", "tags": " "},
    {"id": "sdn/pve1/localnetwork", "type": "sdn", "sdn": "localnetwork", "node": "pve1", "status": "ok"},
]


def test_guests_are_sorted_and_may_lack_anything() -> None:
    found = guests(ROWS)
    assert [guest["vmid"] for guest in found] == [100, 101, 102, 200]
    assert [guest["name"] for guest in found] == ["web", "web", None, "ct"]
    assert [guest["status"] for guest in found] == ["stopped", "running", "unknown", "running"]
    assert [guest["machine"] for guest in found] == [None, "web", "db", None]
    assert [guest["template"] for guest in found] == [True, False, False, False]
    assert found[3]["tags"] == []


def test_nodes_and_storages() -> None:
    assert [(node["node"], node["online"], node["maxmem"]) for node in nodes(ROWS)] == [
        ("pve1", True, 100),
        ("pve2", False, None),
    ]
    (storage,) = storages(ROWS)
    assert (storage["storage"], storage["available"], storage["shared"]) == ("local", True, False)
    assert storage["content"] == ["images", "import", "iso"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), [100, 101, 102, 200]),
        (Filters(names=frozenset({"web"})), [100, 101]),
        (Filters(names=frozenset({"db"})), [102]),
        (Filters(vmids=frozenset({100, 200})), [100, 200]),
        (Filters(tags=frozenset({"fediversity"})), [101, 102]),
        (Filters(pools=frozenset({"alice"})), [101]),
        (Filters(nodes=frozenset({"pve2"})), [102]),
        (Filters(names=frozenset({"web"}), tags=frozenset({"fediversity"})), [101]),
        (Filters(names=frozenset({"nobody"})), []),
    ],
)
def test_filters(filters: Filters, expected: list[int]) -> None:
    script = Script([Exchange("GET", "/cluster/resources", ROWS, {})])
    found = read(script.client, filters, with_config=False, parallel=4)
    assert [guest["vmid"] for guest in found["guests"]] == expected
    assert "config" not in str(found["guests"])
    script.finished()


def test_an_error_stays_with_its_guest() -> None:
    script = Script(
        [
            Exchange("GET", "/cluster/resources", ROWS, {}),
            Exchange("GET", "/nodes/pve1/qemu/101/config", {"cores": 2}),
            Exchange("GET", "/nodes/pve2/qemu/102/config", failed("VM 102 is on strike")),
        ]
    )
    found = read(script.client, Filters(tags=frozenset({"fediversity"})), with_config=True, parallel=1)
    first, second = found["guests"]
    assert (first["config"], first["config_error"]) == ({"cores": "2"}, "")
    assert second["config"] is None
    assert "VM 102 is on strike" in second["config_error"]
    script.finished()


def test_configuration_is_taken_apart() -> None:
    config = parse_config(
        {
            "agent": "1,fstrim_cloned_disks=1",
            "boot": "order=scsi0;net0",
            "cipassword": "in clear by mistake",
            "cores": 2,
            "ipconfig0": "ip=10.0.0.5/24,gw=10.0.0.1",
            "memory": "512",
            "nameserver": "10.0.0.1 10.0.0.2",
            "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=5",
            "scsi0": "local:100/vm-100-disk-0.qcow2,discard=on,size=3584M",
            "sshkeys": "ssh-ed25519%20AAAA%20b%0Assh-ed25519%20AAAA%20a%0A",
            "tags": "b;a",
        }
    )
    assert config["agent"] == {"enabled": "1", "fstrim_cloned_disks": "1"}
    assert config["boot"] == {"order": ["scsi0", "net0"]}
    assert config["cipassword"] == HIDDEN
    assert (config["cores"], config["memory"]) == ("2", "512")
    assert config["ipconfig0"] == {"ip": "10.0.0.5/24", "gw": "10.0.0.1"}
    assert config["nameserver"] == ["10.0.0.1", "10.0.0.2"]
    assert config["net0"] == {"virtio": "BC:24:11:00:00:01", "bridge": "vmbr0", "tag": "5"}
    assert config["scsi0"]["bytes"] == 3584 << 20
    assert config["sshkeys"] == ["ssh-ed25519 AAAA a", "ssh-ed25519 AAAA b"]
    assert config["tags"] == ["a", "b"]


def test_requests_against_the_cluster(simulator: Simulator) -> None:
    client = simulator.client()
    for vmid in range(100, 106):
        made = client.post("/nodes/pve1/qemu", vmid=vmid, name="twin", tags="fediversity", cores=1)
        tasks.wait(client, made, budget=60)
    simulator.requests()
    found = read(simulator.client, Filters(), with_config=False, parallel=4)
    assert simulator.requests() == ["GET /cluster/resources"]
    assert [guest["vmid"] for guest in found["guests"]] == list(range(100, 106))
    assert {storage["storage"] for storage in found["storages"]} == {"local"}
    assert [node["node"] for node in found["nodes"]] == ["pve1", "pve2"]
    found = read(simulator.client, Filters(), with_config=True, parallel=3)
    assert len(simulator.requests()) == 7
    assert {guest["config"]["cores"] for guest in found["guests"]} == {"1"}
    blind = read(lambda: simulator.client("fediversity@pve!blind"), Filters(), with_config=True, parallel=3)
    assert blind["guests"] == []


def module(simulator: Simulator, variables: dict[str, str], **arguments: Any) -> dict[str, Any]:
    """Run the module as Ansible does, with the connection from the environment."""
    path = Path(__file__).parents[3] / "plugins" / "modules" / "proxmox_info.py"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PROXMOX_TOKEN_ID": "lab",
        "PROXMOX_TOKEN_SECRET": simulator.secrets["fediversity@pve!lab"],
        "PROXMOX_CA_PATH": str(simulator.authority),
        **variables,
    }
    ended = subprocess.run(
        [sys.executable, str(path)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return dict(json.loads(ended.stdout))


@pytest.mark.parametrize(
    "names",
    [
        {"host": "PROXMOX_HOST", "user": "PROXMOX_USER"},
        {"host": "PROXMOX_URL", "user": "PROXMOX_USERNAME"},
        {"host": "PROXMOX_VE_ENDPOINT", "user": "PROXMOX_VE_USERNAME"},
    ],
)
def test_the_environment_as_other_tools_write_it(simulator: Simulator, names: dict[str, str]) -> None:
    base = {names["host"]: f"https://127.0.0.1:{simulator.port}/", names["user"]: "fediversity@pve"}
    for mode in (False, True):
        result = module(simulator, base, _ansible_check_mode=mode, config=True)
        assert (result.get("changed"), result["guests"]) == (False, []), result
        assert [node["node"] for node in result["nodes"]] == ["pve1", "pve2"]
    # a token is preferred to a password
    assert "guests" in module(simulator, {**base, "PROXMOX_PASSWORD": "wrong"})


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"PROXMOX_TIMEOUT": "5"}, "api_timeout: 5 s is too short"),
        ({"PROXMOX_FINGERPRINT": ":".join(["00"] * 32) + ",zz"}, "fingerprint: 'zz' is no SHA-256"),
        ({"PROXMOX_FINGERPRINT": ":".join(["00"] * 32)}, "certificate is not accepted"),
        ({"PROXMOX_TOKEN_SECRET": "11111111-2222-3333-4444-555555555555"}, "the server refuses fediversity@pve!lab"),
        ({"PROXMOX_HOST": "127.0.0.1:1"}, "cannot connect"),
        ({"PROXMOX_HOST": "pve1/x"}, "is no address of an API"),
    ],
)
def test_what_is_wrong_with_the_connection_is_told(simulator: Simulator, variables: dict[str, str], text: str) -> None:
    base = {"PROXMOX_HOST": f"127.0.0.1:{simulator.port}", "PROXMOX_USER": "fediversity@pve"}
    result = module(simulator, {**base, **variables})
    assert result["failed"]
    assert text in result["msg"]
    assert simulator.secrets["fediversity@pve!lab"] not in json.dumps(result)
