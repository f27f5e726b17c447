# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The provider and the module against the simulated cluster: whole lives, races, lost answers, sudden ends."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Denied
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import (
    Answer,
    Client,
    LostAnswer,
)
from conftest import Simulator
from proxmox_runs import WEB, change, run, vms, volumes


def test_a_whole_life(simulator: Simulator) -> None:
    client = simulator.client()
    created = change(client, WEB)["results"][0]
    assert (created["action"], created["address"], created["status"]) == ("create", "10.99.1.10", "started")
    vmid = created["vmid"]
    before = client.get(f"/nodes/pve1/qemu/{vmid}/config")
    assert before["description"] == WEB["description"]

    updated = change(client, {**WEB, "memory": 1024, "tags": ["op1"]})["results"][0]
    assert (updated["action"], updated["pending"], updated["reboot_required"]) == ("update", ["memory"], True)

    grown = {**WEB, "memory": 1024, "disk": {**WEB["disk"], "size": 8}}
    assert change(client, grown)["diff"] == {
        "before": {"web": {"disks": {"scsi0": {"size": 4 << 30}}}},
        "after": {"web": {"disks": {"scsi0": {"size": 8 << 30}}}},
    }
    shrunk = run(client, {**grown, "disk": {**WEB["disk"], "size": 7}})
    assert shrunk["failed"]
    assert "cannot shrink to 7G" in shrunk["msg"]

    stopped = change(client, {**grown, "power": "stopped"})["results"][0]
    assert (stopped["status"], stopped["pending"]) == ("stopped", [])

    moved = {**grown, "power": "stopped", "networks": [{"bridge": "vmbr0", "tag": 7}, {"bridge": "vmbr0"}]}
    change(client, moved)
    after = client.get(f"/nodes/pve1/qemu/{vmid}/config")
    assert after["net0"].split(",")[0] == before["net0"].split(",")[0]
    assert after["scsi0"].split(",")[0] == before["scsi0"].split(",")[0]
    assert after["tags"] == "fediversity;fediversity-machine-web;op1"

    assert change(client, {"name": "web", "state": "absent"})["results"][0]["action"] == "delete"
    assert vms(client) == []
    assert volumes(client) == []


def test_request_counts(simulator: Simulator) -> None:
    client = simulator.client()
    simulator.requests()
    run(client, WEB)
    sent = [request for request in simulator.requests() if "/tasks" not in request]
    assert sent == [
        "GET /cluster/resources",
        # nothing proves that guests are seen
        "GET /access/permissions",
        "GET /nodes/pve1/storage/local/content/local%3Aimport%2Fnixos.qcow2",
        "GET /nodes/pve1/network",
        "GET /cluster/nextid",
        "POST /nodes/pve1/qemu",
    ]
    # the status in the list is late by one round of statistics; asked for exactly until then
    run(client, WEB)
    assert set(simulator.requests()) == {
        "GET /cluster/resources",
        "GET /nodes/pve1/qemu/100/status/current",
        "GET /nodes/pve1/qemu/100/pending",
    }
    run(client, {**WEB, "name": "other", "vmid": 200})
    sent = [request for request in simulator.requests() if "/tasks" not in request]
    assert sent == [
        "GET /cluster/resources",
        # the sight of one guest is no proof
        "GET /access/permissions",
        "GET /nodes/pve1/storage/local/content/local%3Aimport%2Fnixos.qcow2",
        "GET /nodes/pve1/network",
        "POST /nodes/pve1/qemu",
    ]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"node": "pve9"}, "VM web, node: there is no node pve9. Did you mean pve2 or pve1?"),
        (
            {"disk": {"storage": "nostore", "import_from": "local:import/nixos.qcow2"}},
            "VM web, disk.storage: there is no storage nostore. There is: local",
        ),
        (
            {"disk": {"storage": "local", "import_from": "local:import/none.qcow2"}},
            "VM web, disk.import_from: there is no image local:import/none.qcow2 on the node pve1",
        ),
        ({"networks": [{"bridge": "vmbr7"}]}, "networks[0].bridge: there is no bridge or virtual network vmbr7"),
        ({"disk": {**WEB["disk"], "size": 1}}, "VM web, disk.size: the image local:import/nixos.qcow2 has 4G, and"),
        ({"pool": "nopool"}, "pool 'nopool' does not exist"),
    ],
)
def test_what_the_server_does_not_have_is_said(simulator: Simulator, fields: dict[str, Any], text: str) -> None:
    client = simulator.client()
    result = run(client, {**WEB, **fields})
    assert text in result["results"][0]["msg"]
    assert vms(client) == []


def test_a_foreign_vm_is_never_touched(simulator: Simulator) -> None:
    client = simulator.client()
    client.post("/nodes/pve1/qemu", vmid=150, name="web", memory=64)
    result = run(client, {**WEB, "vmid": 150}, {"name": "web2", "vmid": 150 + 1, "state": "absent"})
    assert "VMID 150 belongs to a guest on node pve1 that is not ours" in result["msg"]
    assert client.get("/nodes/pve1/qemu/150/config")["memory"] == "64"


def test_a_token_that_sees_nothing_creates_nothing(simulator: Simulator) -> None:
    client = simulator.client()
    run(client, WEB)
    blind = run(simulator.client("fediversity@pve!blind"), WEB)
    assert "fediversity@pve!blind lacks VM.Audit" in blind["msg"]
    assert len(vms(client)) == 1


# docs/proxmox.md gives the same lists
ON_POOL = (
    "VM.Allocate VM.Audit VM.PowerMgmt VM.Config.CPU VM.Config.Memory VM.Config.Disk VM.Config.CDROM VM.Config.Network"
    " VM.Config.Cloudinit VM.Config.HWType VM.Config.Options Pool.Audit"
)
ON_STORAGE = "Datastore.AllocateSpace Datastore.Audit"


def test_the_documented_role_is_enough_and_confined(simulator: Simulator) -> None:
    client = simulator.client()
    for pool in ("op1", "op2"):
        client.post("/pools", poolid=pool)
    client.post("/access/users", userid="op1@pve")
    simulator.secrets["op1@pve!lab"] = client.post("/access/users/op1@pve/token/lab", privsep=False)["value"]
    grants = {"Vms": (ON_POOL, "/pool/op1"), "Disks": (ON_STORAGE, "/storage/local"), "Net": ("SDN.Use", "/sdn/zones")}
    for role, (privileges, path) in grants.items():
        client.post("/access/roles", roleid=role, privs=privileges)
        client.put("/access/acl", path=path, users="op1@pve", roles=role)
    item = {**WEB, "pool": "op1"}
    tenant = simulator.client("op1@pve!lab")
    change(tenant, {**item, "disk": {**WEB["disk"], "size": 8}})
    change(tenant, {**item, "memory": 1024, "networks": [{"bridge": "vmbr0", "tag": 7}], "power": "stopped"})
    elsewhere = run(tenant, {**WEB, "name": "other", "pool": "op2"})
    assert "op1@pve!lab lacks VM.Audit" in elsewhere["msg"]
    change(tenant, {"name": "web", "state": "absent", "pool": "op1"})
    assert volumes(client) == []


def test_a_machine_is_found_on_another_node(simulator: Simulator) -> None:
    client = simulator.client()
    vmid = run(client, {**WEB, "node": "pve2"})["results"][0]["vmid"]
    again = run(client, WEB)
    assert (again["changed"], again["results"][0]["node"], again["results"][0]["vmid"]) == (False, "pve2", vmid)


def test_parallel_runs_get_distinct_ids(simulator: Simulator) -> None:
    names = [f"web-{number}" for number in range(4)]
    barrier = threading.Barrier(len(names))
    results: dict[str, dict[str, Any]] = {}

    def one(name: str) -> None:
        client = simulator.client()
        wait_once = [barrier]

        def transport(method: str, path: str, params: Mapping[str, str]) -> Answer:
            answer = client.transport(method, path, params)
            if path == "/cluster/nextid" and wait_once:
                # all have been told the same id before anybody uses it
                wait_once.pop().wait(30)
            return answer

        results[name] = run(replace(client, transport=transport), {**WEB, "name": name})

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[name]["failed"] for name in names] == [False] * 4, results
    assert len({results[name]["results"][0]["vmid"] for name in names}) == 4
    assert len(vms(simulator.client())) == 4


class Killed(BaseException):
    """The process ends here."""


class Lost(LostAnswer):
    def __init__(self) -> None:
        super().__init__("the connection broke")


BASE = {**WEB, "name": "base", "vmid": 9000, "power": "stopped", "template": True}
COPY = {"name": "web", "clone": {"vmid": 9000}, "disk": {"size": 8}, "cloud_init": WEB["cloud_init"], "tags": ["op1"]}
DATA = {"slot": "scsi1", "storage": "local", "size": 2}
RULE = {"name": "ssh", "type": "in", "action": "ACCEPT", "protocol": "tcp", "dport": "22"}
Step = tuple[dict[str, Any], int, int]
# each step with the machines and the volumes that there are after it
LIVES: dict[str, list[Step]] = {
    "image": [
        ({**WEB, "disk": {**WEB["disk"], "size": 8}}, 1, 2),
        (
            {
                **WEB,
                "memory": 1024,
                "disk": {**WEB["disk"], "size": 9},
                "networks": [{"bridge": "vmbr0", "tag": 5}],
            },
            1,
            2,
        ),
        ({"name": "web", "state": "absent"}, 0, 0),
    ],
    "clone": [
        (BASE, 1, 2),
        (COPY, 2, 4),
        ({"name": "web", "state": "absent"}, 1, 2),
        ({"name": "base", "template": True, "power": "stopped", "state": "absent"}, 0, 0),
    ],
    "disks": [
        ({**WEB, "disks": [DATA]}, 1, 3),
        ({**WEB, "disks": [{**DATA, "size": 3, "cache": "writeback"}, {**DATA, "slot": "scsi2"}]}, 1, 4),
        (
            {
                **WEB,
                "disks": [
                    {**DATA, "size": 3, "format": "qcow2", "move": True},
                    {**DATA, "slot": "scsi2", "state": "absent"},
                ],
            },
            1,
            3,
        ),
        ({"name": "web", "state": "absent"}, 0, 0),
    ],
    "sides": [
        ({**WEB, "firewall": {"enabled": True, "rules": [RULE]}, "ha": {"state": "started"}}, 1, 2),
        ({**WEB, "power": "stopped", "firewall": {"rules": []}, "ha": {"state": "absent"}}, 1, 2),
        ({**WEB, "node": "pve2", "migrate": True, "snapshots": [{"name": "s1"}]}, 1, 2),
        ({"name": "web", "state": "absent"}, 0, 0),
    ],
}


def faulty(client: Client, number: int, fault: type[BaseException], arrives: bool) -> tuple[Client, Iterator[int]]:
    """*client* that raises *fault* at request *number* (from 0), after the server did it or instead; the counter."""
    count = itertools.count()

    def transport(method: str, path: str, params: Mapping[str, str]) -> Answer:
        hit = next(count) == number
        if hit and not arrives:
            raise fault()
        answer = client.transport(method, path, params)
        if hit:
            raise fault()
        return answer

    return replace(client, transport=transport), count


def live(client: Client, broken: Client, life: list[Step], number: int) -> None:
    """A whole life through the broken client; where it is killed, a second run completes the step.

    Every life has ids of its own: for one that is used again the list shows the former guest's power for a while.
    """
    ids = range(1000 + 10 * number, 1010 + 10 * number)
    for step, machines, disks in life:
        try:
            result = run(broken, step, vmid_range=ids)
        except Killed:
            result = run(client, step, vmid_range=ids)
        assert not result["failed"], result["msg"]
        there = [volid for node in ("pve1", "pve2") for volid in volumes(client, node)]
        assert (len(vms(client)), len(there)) == (machines, disks), (step, there)
        again = run(client, step, vmid_range=ids)
        assert (again["changed"], again["failed"]) == (False, False), again


FAULTS = {"killed": (Killed, True), "lost after": (Lost, True), "lost before": (Lost, False)}


# killed before a request is the same as killed after the one before it
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_any_request_is_made_good(simulator: Simulator, fault: str) -> None:
    """Killed: by running again. A lost answer: in the same run. Never a second VM or a left disk."""
    client = hasty(simulator)
    for number in itertools.count():
        broken, count = faulty(client, number, *FAULTS[fault])
        live(client, broken, LIVES["image"], number)
        if next(count) <= number:
            break
    assert number > 20


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("life", ["clone", "disks", "sides"])
def test_a_fault_at_some_requests_of_other_lives_is_made_good(simulator: Simulator, life: str, fault: str) -> None:
    client = hasty(simulator)
    whole, count = faulty(client, -1, *FAULTS[fault])
    live(client, whole, LIVES[life], -1)
    requests = next(count)
    for number in random.Random(f"{life} {fault}").sample(range(requests), 6):
        broken, _count = faulty(client, number, *FAULTS[fault])
        live(client, broken, LIVES[life], number)


def hasty(simulator: Simulator) -> Client:
    client = simulator.client()
    return replace(client, sleep=lambda seconds: time.sleep(min(seconds, 0.02)))


def test_login_with_a_password(simulator: Simulator) -> None:
    plain = {"token_id": None, "token_secret": None}
    assert run(simulator.client(password="pa55word", **plain), WEB)["results"][0]["action"] == "create"
    with pytest.raises(Denied, match="refuses the login of fediversity@pve"):
        simulator.client(password="wrong", **plain)


def ansible(simulator: Simulator, tmp_path: Path, *options: str, **variables: str) -> tuple[int, str]:
    """The module as a user calls it, connection from the environment; exit code and everything it printed."""
    root = Path(__file__).resolve().parents[3]
    # what the command line gives is a template, so without the customer's text
    arguments = json.dumps({"vms": [{**WEB, "description": "managed"}]})
    (tmp_path / "ansible.cfg").touch()
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(root / "collections"),
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_LOCAL_TEMP": str(tmp_path),
        "ANSIBLE_NOCOLOR": "1",
        "PROXMOX_HOST": "127.0.0.1",
        "PROXMOX_PORT": str(simulator.port),
        "PROXMOX_USER": "fediversity@pve",
        "PROXMOX_TOKEN_ID": "lab",
        "PROXMOX_TOKEN_SECRET": simulator.secrets["fediversity@pve!lab"],
        "PROXMOX_CA_PATH": str(simulator.authority),
        "PROXMOX_VALIDATE_CERTS": "true",
        **variables,
    }
    command = [
        sys.executable,
        "-m",
        "ansible",
        "adhoc",
        "localhost",
        "-i",
        "localhost,",
        "-c",
        "local",
        "-vvv",
        "--diff",
    ]
    command += ["-m", "fediversity.hosting.proxmox_vms", "-a", arguments, *options]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_module_from_the_command_line(simulator: Simulator, tmp_path: Path) -> None:
    code, output = ansible(simulator, tmp_path, "--check")
    assert code == 0, output
    assert "proxmox_vms: 1 create (check mode)" in output
    assert vms(simulator.client()) == []
    code, output = ansible(simulator, tmp_path)
    assert code == 0, output
    assert "localhost | CHANGED" in output
    secret = simulator.secrets["fediversity@pve!lab"]
    assert secret not in output
    code, output = ansible(simulator, tmp_path)
    assert (code, "localhost | SUCCESS" in output) == (0, True), output


def test_the_module_says_what_is_wrong_with_the_connection(simulator: Simulator, tmp_path: Path) -> None:
    wrong = "11111111-2222-3333-4444-555555555555"
    code, output = ansible(simulator, tmp_path, PROXMOX_TOKEN_SECRET=wrong)
    assert code != 0
    assert f"127.0.0.1:{simulator.port} GET /cluster/resources: the server refuses fediversity@pve!lab" in output
    assert "Check api_user, api_token_id, api_token_secret" in output
    assert wrong not in output
    code, output = ansible(simulator, tmp_path, PROXMOX_PORT="1")
    assert code != 0
    assert "127.0.0.1:1 GET /cluster/resources: cannot connect" in output
    assert "Traceback" not in output
