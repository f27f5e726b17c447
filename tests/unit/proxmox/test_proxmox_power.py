# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The reset of a machine: only of its own VM, and so that it boots whatever state it is in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.power import carry_out, plan_reset
from conftest import Simulator
from proxmox_script import Exchange, Script, done, failed, upid

TAGS = "fediversity;fediversity-machine-web"
ROW = {"id": "qemu/100", "type": "qemu", "vmid": 100, "node": "pve1", "tags": TAGS, "status": "running", "name": "web"}
# somebody else's, with the very name that we look for
NAMESAKE = {"id": "qemu/9000", "type": "qemu", "vmid": 9000, "node": "pve1", "tags": "", "name": "web"}
STATUS = "/nodes/pve1/qemu/100/status"


def looks(status: dict[str, Any], *rows: dict[str, Any]) -> list[Exchange]:
    return [
        Exchange("GET", "/cluster/resources", [NAMESAKE, *(rows or [ROW])], {"type": "vm"}),
        Exchange("GET", f"{STATUS}/current", status, {}),
    ]


@pytest.mark.parametrize(
    ("status", "requests"),
    [
        ({"status": "running", "qmpstatus": "running"}, ["reset"]),
        ({"status": "running"}, ["reset"]),
        ({"status": "running", "qmpstatus": "paused"}, ["stop", "start"]),
        ({"status": "running", "qmpstatus": "internal-error"}, ["stop", "start"]),
        ({"status": "stopped", "qmpstatus": "stopped"}, ["start"]),
    ],
)
def test_every_state_ends_in_a_boot(status: dict[str, Any], requests: list[str]) -> None:
    sent = [
        exchange
        for name in requests
        for exchange in (Exchange("POST", f"{STATUS}/{name}", upid(f"qm{name}"), {}), done(f"qm{name}"))
    ]
    script = Script([*looks(status), *sent])
    reset = plan_reset(script.client(), "web", 100)
    assert (reset.vmid, reset.node, list(reset.requests)) == (100, "pve1", requests)
    carry_out(script.client(), reset, budget=60)
    script.finished()


@pytest.mark.parametrize(
    ("rows", "vmid", "message"),
    [
        ([NAMESAKE], 9000, "VMID 9000 belongs to a guest on node pve1 that is not ours"),
        ([NAMESAKE], None, "no virtual machine carries the machine's tag"),
        ([ROW], 101, "the machine is VM 100"),
        ([ROW, {**ROW, "vmid": 102}], 100, "the VMs 100, 102 all carry the tag"),
        ([{**ROW, "type": "lxc"}], 100, "which is a container"),
    ],
)
def test_nothing_is_sent_to_what_may_be_another_machine(
    rows: list[dict[str, Any]], vmid: int | None, message: str
) -> None:
    script = Script([Exchange("GET", "/cluster/resources", rows, {"type": "vm"})])
    with pytest.raises(HostingError, match=message):
        plan_reset(script.client(), "web", vmid)
    script.finished()


def test_a_stop_that_fails_is_told_and_nothing_is_started() -> None:
    script = Script(
        [
            *looks({"status": "running", "qmpstatus": "paused"}),
            Exchange("POST", f"{STATUS}/stop", failed("VM quit/powerdown failed"), {}),
        ]
    )
    reset = plan_reset(script.client(), "web", 100)
    with pytest.raises(BackendError, match="VM quit/powerdown failed"):
        carry_out(script.client(), reset, budget=60)
    script.finished()


def make(simulator: Simulator, *then: str) -> int:
    """A virtual machine of ours in the simulated cluster, started, and what else is done to it."""
    client = simulator.client()
    vmid = int(client.get("/cluster/nextid"))
    tasks.wait(client, client.post("/nodes/pve1/qemu", vmid=vmid, name="renamed", tags=TAGS), budget=60)
    for action in ("start", *then):
        tasks.wait(client, client.post(f"/nodes/pve1/qemu/{vmid}/status/{action}"), budget=60)
    return vmid


def module(simulator: Simulator, *options: str, **arguments: Any) -> dict[str, Any]:
    """Run the module as Ansible does."""
    connection = simulator.connection()
    given = {
        "api_host": connection.host,
        "api_port": connection.port,
        "api_user": connection.user,
        "api_token_id": connection.token_id,
        "api_token_secret": connection.token_secret,
        "ca_path": connection.ca_path,
        **arguments,
    }
    path = Path(__file__).parents[3] / "plugins" / "modules" / "proxmox_power.py"
    ended = subprocess.run(
        [sys.executable, str(path)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**given, **dict.fromkeys(options, True)}}),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return dict(json.loads(ended.stdout))


@pytest.mark.parametrize(
    ("then", "requests"), [([], ["reset"]), (["suspend"], ["stop", "start"]), (["stop"], ["start"])]
)
def test_the_simulated_cluster_takes_these_requests(simulator: Simulator, then: list[str], requests: list[str]) -> None:
    vmid = make(simulator, *then)
    predicted = module(simulator, "_ansible_check_mode", name="web", vmid=vmid)
    assert (predicted["changed"], predicted["requests"]) == (True, requests)
    simulator.requests()
    result = module(simulator, name="web", vmid=vmid)
    assert (result["changed"], result["requests"], result["node"]) == (True, requests, "pve1")
    posts = [request for request in simulator.requests() if request.startswith("POST")]
    assert [request.rpartition("/")[2] for request in posts] == requests
    status = simulator.client().get(f"/nodes/pve1/qemu/{vmid}/status/current")
    assert (status["status"], status["qmpstatus"]) == ("running", "running")


def test_the_module_names_what_is_wrong_and_sends_nothing(simulator: Simulator) -> None:
    vmid = make(simulator)
    simulator.requests()
    refused = module(simulator, name="web", vmid=vmid + 1)
    assert refused["failed"]
    assert f"the machine is VM {vmid}" in refused["msg"]
    assert not [request for request in simulator.requests() if request.startswith("POST")]
