# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API over HTTP: login, envelopes, ids, tasks, state, guests."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from lab.proxmox.guests import GuestSpec, NoGuests, PowerState
from lab.proxmox.store import Timing
from proxmox_harness import PASSWORD, QUICK, SECRET, Simulator, Start
from proxmoxer import ProxmoxAPI
from proxmoxer.core import ResourceException
from proxmoxer.tools import Tasks

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILs6/eDXVr7LO7criwTcJSGs3XkG7rn8qsRKLJFFEITI ops@lab"
GUEST = {
    "name": "web",
    "scsi0": "local:0,import-from=local:import/nixos.qcow2",
    "ide2": "local:cloudinit",
    "net0": "virtio,bridge=vmbr0",
    "ciuser": "root",
    "sshkeys": quote(KEY, safe=""),
    "ipconfig0": "ip=10.99.1.10/16,gw=10.99.0.1",
    "nameserver": "10.99.0.11",
    "agent": "1",
}


class PaperGuests(NoGuests):
    """A host driver that writes down what it was told; its guests obey ACPI."""

    def __init__(self, sockets: Path) -> None:
        super().__init__()
        self.specs: list[GuestSpec] = []
        self.calls: list[str] = []
        self._sockets = sockets

    def define(self, spec: GuestSpec) -> None:
        super().define(spec)
        self.specs.append(spec)

    def start(self, name: str) -> None:
        super().start(name)
        self.calls.append(f"start {name}")

    def shutdown(self, name: str) -> None:
        super().stop(name)
        self.calls.append(f"shutdown {name}")

    def stop(self, name: str) -> None:
        super().stop(name)
        self.calls.append(f"stop {name}")

    def remove(self, name: str) -> None:
        super().remove(name)
        self.calls.append(f"remove {name}")

    def state(self, name: str) -> PowerState:
        return self._states[name]  # a driver refuses names that it was never told

    def agent_socket(self, name: str) -> Path:
        return self._sockets / f"{name}.sock"


@contextmanager
def guest_agent(path: Path, answers: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """A qemu-ga on a socket: guest-sync works, other commands answer as told; yields what was asked."""
    asked: list[dict[str, Any]] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _unused = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rw", encoding="utf-8") as stream:
                for line in stream:
                    request = json.loads(line)
                    if request["execute"] == "guest-sync":
                        answer = {"return": request["arguments"]["id"]}
                    else:
                        asked.append(request)
                        answer = answers[request["execute"]]
                    stream.write(json.dumps(answer) + "\n")
                    stream.flush()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_an_error_has_its_text_in_the_reason_phrase_and_closes_the_connection(simulator: Simulator) -> None:
    answer = simulator.send("GET", "/nodes/pve1/qemu/999/config")
    text = "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist"
    assert (answer.status_code, answer.reason, answer.headers["Connection"]) == (500, text, "close")
    assert answer.json() == {"data": None, "message": f"{text}\n"}


def test_a_reason_phrase_is_one_line(simulator: Simulator) -> None:
    simulator.run("POST", "/nodes/pve1/qemu", vmid=100)
    answer = simulator.send("PUT", "/nodes/pve1/qemu/100/config", args="-S\nX")
    assert (answer.status_code, answer.reason) == (500, "only root can set 'args' config")


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "No ticket"),
        ({"Authorization": "PVEAPIToken=nonsense"}, "Authentication failed!"),
        ({"Authorization": f"PVEAPIToken=root@pam!lab={SECRET[:-1]}0"}, "Authentication failed!"),
        ({"Cookie": "PVEAuthCookie=PVE:root@pam:made-up"}, "permission denied - invalid PVE ticket"),
    ],
)
def test_an_unknown_caller_is_told_nothing(simulator: Simulator, headers: dict[str, str], reason: str) -> None:
    answer = requests.get(f"{simulator.url}/api2/json/version", headers=headers, timeout=10)
    assert (answer.status_code, answer.reason, answer.text) == (401, reason, "")


def test_a_ticket_needs_its_csrf_header_for_writes(simulator: Simulator) -> None:
    url = f"{simulator.url}/api2/json"
    login = {"username": "root", "realm": "pam", "password": PASSWORD}
    ticket = requests.post(f"{url}/access/ticket", data=login, timeout=10).json()["data"]
    cookie = {"Cookie": f"PVEAuthCookie={ticket['ticket']}"}
    assert requests.get(f"{url}/pools", headers=cookie, timeout=10).json() == {"data": []}
    refused = requests.post(f"{url}/pools", headers=cookie, data={"poolid": "p"}, timeout=10)
    assert (refused.status_code, refused.reason) == (401, "Permission denied - invalid csrf token")
    cookie["CSRFPreventionToken"] = ticket["CSRFPreventionToken"]
    assert requests.post(f"{url}/pools", headers=cookie, data={"poolid": "p"}, timeout=10).status_code == 200


def test_what_the_server_does_not_read(simulator: Simulator) -> None:
    url = f"{simulator.url}/api2/json/pools"
    headers = {"Authorization": f"PVEAPIToken=root@pam!lab={SECRET}"}
    assert requests.head(url, headers=headers, timeout=10).status_code == 501
    assert requests.delete(url, headers=headers, data={"poolid": "p"}, timeout=10).status_code == 501
    assert requests.post(url, headers=headers, data=iter([b"poolid=p"]), timeout=10).status_code == 501
    assert requests.post(url, headers=headers, json={"poolid": None}, timeout=10).status_code == 500
    assert requests.post(url, headers=headers, json={"poolid": "p"}, timeout=10).status_code == 200


def test_an_unknown_path_and_an_unknown_node(simulator: Simulator) -> None:
    answer = simulator.send("GET", "/nodes/pve1/nosuch")
    assert (answer.status_code, answer.reason) == (501, "Method 'GET /nodes/pve1/nosuch' not implemented")
    assert "hostname lookup 'pve9' failed" in simulator.send("GET", "/nodes/pve9/qemu").reason


def test_of_many_creates_with_one_id_exactly_one_wins(simulator: Simulator) -> None:
    def create(number: int) -> requests.Response:
        return simulator.send("POST", f"/nodes/pve{number % 2 + 1}/qemu", vmid=100, name=f"vm{number}")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(create, range(8)))
    won = [answer for answer in answers if answer.status_code == 200]
    assert len(won) == 1
    node = won[0].json()["data"].split(":")[1]
    texts = {answer.reason for answer in answers if answer.status_code != 200}
    assert all(text.startswith("unable to create VM 100 - ") for text in texts)
    assert simulator.wait(won[0].json()["data"]) == "OK"
    late = simulator.send("POST", "/nodes/pve2/qemu", vmid=100)
    assert late.reason == f"unable to create VM 100 - VM 100 already exists on node '{node}'"


def test_nextid_reserves_nothing(simulator: Simulator) -> None:
    assert [simulator.data("GET", "/cluster/nextid") for _unused in range(2)] == ["100", "100"]
    simulator.run("POST", "/nodes/pve2/qemu", vmid=100)
    assert simulator.data("GET", "/cluster/nextid") == "101"


def test_resources_are_late_but_tags_are_not(start: Start) -> None:
    simulator = start(timing=Timing(refused_login=0, statistics=3600, image_copy=0))
    simulator.run("POST", "/nodes/pve1/qemu", vmid=100, name="web", tags="b;a")
    row = simulator.data("GET", "/cluster/resources", type="vm")[0]
    expected = {"id": "qemu/100", "type": "qemu", "node": "pve1", "vmid": 100, "status": "unknown", "tags": "a;b"}
    assert row == expected
    assert simulator.data("GET", "/nodes/pve1/qemu")[0]["name"] == "web"


def test_a_check_inside_the_task_fails_later(simulator: Simulator) -> None:
    upid = simulator.data("POST", "/nodes/pve1/qemu/100/status/start")
    assert simulator.wait(upid) == "Configuration file 'nodes/pve1/qemu-server/100.conf' does not exist"
    log = simulator.data("GET", f"/nodes/pve1/tasks/{quote(upid, safe='')}/log")
    assert log[-1]["t"] == "TASK ERROR: Configuration file 'nodes/pve1/qemu-server/100.conf' does not exist"


def test_an_unknown_task_is_400_but_its_log_is_a_line(simulator: Simulator) -> None:
    path = "/nodes/pve1/tasks/UPID%3Apve1%3A00000001%3A00000001%3A65000000%3Aqmstart%3A1%3Aroot%40pam%3A"
    answer = simulator.send("GET", f"{path}/status")
    assert (answer.status_code, answer.json()["errors"]) == (400, {"upid": "no such task"})
    assert simulator.data("GET", f"{path}/log") == [{"n": 1, "t": "unable to open file - No such file or directory"}]


def test_a_failed_import_leaves_nothing(simulator: Simulator) -> None:
    disks = {"scsi0": "local:1", "scsi1": "local:0,import-from=local:import/none.qcow2"}
    text = "unable to create VM 100 - failed to stat '/var/lib/vz/import/none.qcow2'"
    assert simulator.run("POST", "/nodes/pve1/qemu", vmid=100, **disks) == text
    assert simulator.data("GET", "/nodes/pve1/qemu") == []
    assert [row["content"] for row in simulator.data("GET", "/nodes/pve1/storage/local/content")] == ["import"]


def test_the_state_survives_a_restart(start: Start, tmp_path: Path) -> None:
    first = start()
    first.run("POST", "/nodes/pve1/qemu", vmid=100, name="web", scsi0="local:1", tags="a")
    first.data("POST", "/pools", poolid="op1", comment="x")
    first.data("PUT", "/pools", poolid="op1", vms="100")
    upid = first.data("PUT", "/nodes/pve1/qemu/100/resize", disk="scsi0", size="2G")
    assert first.wait(upid) == "OK"
    second = start()
    for path in ("/nodes/pve1/qemu/100/config", "/pools?poolid=op1", "/nodes/pve1/storage/local/content"):
        assert second.data("GET", path) == first.data("GET", path)
    assert second.wait(upid) == "OK"


def test_the_access_log_counts_requests(simulator: Simulator) -> None:
    simulator.data("GET", "/version")
    simulator.send("GET", "/nodes/pve1/qemu/999/config", current=1)
    assert simulator.access_log == ["GET /api2/json/version 200", "GET /api2/json/nodes/pve1/qemu/999/config 500"]


def test_an_imported_disk_boots_a_guest_with_the_identity_of_its_cloudinit(start: Start, tmp_path: Path) -> None:
    hosts = PaperGuests(tmp_path)
    simulator = start(hosts=hosts)
    simulator.run("POST", "/nodes/pve1/qemu", vmid=100, start=1, **GUEST)
    _until_started(simulator, 100)
    assert hosts.calls == ["start vm-100"]
    spec = hosts.specs[-1]
    assert (spec.name, spec.hostname, spec.addresses) == ("vm-100", "web", ("10.99.1.10/16",))
    assert spec.authorized_keys == (KEY,)
    assert spec.mac.startswith("bc:24:11:")
    changed = "ip=10.99.1.11/16,gw=10.99.0.1"
    simulator.data("PUT", "/nodes/pve1/qemu/100/config", ipconfig0=changed, name="other")
    assert simulator.data("GET", "/nodes/pve1/qemu/100/config", current=1)["ipconfig0"] == changed
    assert hosts.specs[-1].addresses == ("10.99.1.10/16",)  # the drive is made anew at the next start
    assert simulator.run("POST", "/nodes/pve1/qemu/100/status/reboot") == "OK"
    assert (hosts.specs[-1].addresses, hosts.specs[-1].hostname) == (("10.99.1.11/16",), "other")
    assert simulator.run("POST", "/nodes/pve1/qemu/100/status/stop") == "OK"
    assert simulator.run("DELETE", "/nodes/pve1/qemu/100", purge=1) == "OK"
    assert hosts.calls == ["start vm-100", "shutdown vm-100", "start vm-100", "stop vm-100", "remove vm-100"]


def test_a_guest_is_stopped_until_its_driver_knows_it(start: Start, tmp_path: Path) -> None:
    simulator = start(hosts=PaperGuests(tmp_path), timing=Timing(**{**vars(QUICK), "power_on": 0.5}))
    simulator.run("POST", "/nodes/pve1/qemu", vmid=100, **GUEST)
    upid = simulator.data("POST", "/nodes/pve1/qemu/100/status/start")
    assert simulator.data("GET", "/nodes/pve1/qemu/100/status/current")["status"] == "stopped"
    assert simulator.wait(upid) == "OK"
    assert simulator.data("GET", "/nodes/pve1/qemu/100/status/current")["status"] == "running"


def test_another_boot_disk_is_another_guest(start: Start, tmp_path: Path) -> None:
    hosts = PaperGuests(tmp_path)
    simulator = start(hosts=hosts)
    simulator.run("POST", "/nodes/pve1/qemu", vmid=100, **GUEST)
    simulator.run("POST", "/nodes/pve1/qemu/100/status/start")
    simulator.run("POST", "/nodes/pve1/qemu/100/status/stop")
    simulator.data("PUT", "/nodes/pve1/qemu/100/config", scsi0=GUEST["scsi0"])
    simulator.run("POST", "/nodes/pve1/qemu/100/status/start")
    assert hosts.calls == ["start vm-100", "stop vm-100", "remove vm-100", "start vm-100"]


def _until_started(simulator: Simulator, vmid: int) -> None:
    rows = simulator.data("GET", "/nodes/pve1/tasks", vmid=vmid, typefilter="qmstart", source="all")
    assert simulator.wait(rows[0]["upid"]) == "OK"


def test_a_blank_disk_has_power_but_no_guest(start: Start, tmp_path: Path) -> None:
    hosts = PaperGuests(tmp_path)
    simulator = start(hosts=hosts)
    simulator.run("POST", "/nodes/pve1/qemu", vmid=100, scsi0="local:1")
    assert simulator.run("POST", "/nodes/pve1/qemu/100/status/start") == "OK"
    assert simulator.data("GET", "/nodes/pve1/qemu/100/status/current")["status"] == "running"
    shutdown = simulator.run("POST", "/nodes/pve1/qemu/100/status/shutdown", timeout=0)
    assert shutdown == "VM quit/powerdown failed - got timeout"
    assert hosts.calls == []


def test_agent_commands_reach_the_guest(start: Start, tmp_path: Path) -> None:
    hosts = PaperGuests(tmp_path)
    simulator = start(hosts=hosts)
    simulator.run("POST", "/nodes/pve1/qemu", vmid=100, start=1, **GUEST)
    _until_started(simulator, 100)
    path = "/nodes/pve1/qemu/100/agent"
    silent = simulator.send("GET", f"{path}/network-get-interfaces")
    assert (silent.status_code, silent.reason) == (500, "QEMU guest agent is not running")
    interfaces = [{"name": "eth0", "hardware-address": "bc:24:11:00:00:01"}]
    answers = {
        "guest-network-get-interfaces": {"return": interfaces},
        "guest-ping": {"return": {}},
        "guest-exec": {"return": {"pid": 7}},
        "guest-exec-status": {"return": {"exited": True, "exitcode": 0, "out-data": "aGkK", "out-truncated": False}},
        "guest-file-open": {"error": {"class": "GenericError", "desc": "no such file"}},
    }
    with guest_agent(tmp_path / "vm-100.sock", answers) as asked:
        assert simulator.data("GET", f"{path}/network-get-interfaces") == {"result": interfaces}
        assert simulator.data("POST", f"{path}/ping") == {"result": {}}
        assert simulator.data("POST", f"{path}/exec", command=["echo", "hi"]) == {"pid": 7}
        status = simulator.data("GET", f"{path}/exec-status", pid=7)
        assert status == {"exited": 1, "exitcode": 0, "out-data": "hi\n", "out-truncated": 0}
        assert simulator.send("GET", f"{path}/file-read", file="/x").reason == "Agent error: no such file"
    assert asked[2]["arguments"] == {"path": "echo", "arg": ["hi"], "capture-output": True}


def test_file_read_follows_the_guest_to_the_end(start: Start, tmp_path: Path) -> None:
    simulator = start(hosts=PaperGuests(tmp_path))
    simulator.run("POST", "/nodes/pve1/qemu", vmid=100, start=1, **GUEST)
    _until_started(simulator, 100)
    answers = {
        "guest-file-open": {"return": 3},
        "guest-file-read": {"return": {"count": 3, "buf-b64": "aGkK", "eof": True}},
        "guest-file-close": {"return": {}},
    }
    with guest_agent(tmp_path / "vm-100.sock", answers) as asked:
        content = simulator.data("GET", "/nodes/pve1/qemu/100/agent/file-read", file="/etc/hostname")
    assert content == {"content": "hi\n", "bytes-read": 3}
    assert [request["execute"] for request in asked] == ["guest-file-open", "guest-file-read", "guest-file-close"]


def test_the_lab_account_may_do_everything_but_what_is_roots_alone(simulator: Simulator) -> None:
    assert simulator.send("GET", "/cluster/status", token="fediversity@pve!lab").status_code == 200
    created = simulator.send("POST", "/nodes/pve1/qemu", token="fediversity@pve!lab", vmid=100, pool="")
    assert created.status_code == 400
    created = simulator.send("POST", "/nodes/pve1/qemu", token="fediversity@pve!lab", vmid=100)
    assert simulator.wait(created.json()["data"]) == "OK"
    locked = simulator.send("PUT", "/nodes/pve1/qemu/100/config", token="fediversity@pve!lab", lock="backup")
    assert locked.reason == "only root can set 'lock' config"


def test_a_held_lock_is_waited_for_and_then_named(start: Start) -> None:
    simulator = start(timing=Timing(**{**vars(QUICK), "image_copy": 1.5, "lock": 0.1}))
    creating = simulator.data("POST", "/nodes/pve1/qemu", vmid=100, scsi0=GUEST["scsi0"])
    text = "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout"
    assert simulator.run("POST", "/nodes/pve1/qemu/100/status/start") == text
    again = simulator.send("POST", "/nodes/pve1/qemu", vmid=100)
    assert again.reason == f"unable to create VM 100 - {text}"
    assert simulator.wait(creating) == "OK"


def test_an_aborted_create_leaves_nothing(start: Start) -> None:
    simulator = start(timing=Timing(**{**vars(QUICK), "image_copy": 60}))
    upid = simulator.data("POST", "/nodes/pve1/qemu", vmid=100, scsi0=GUEST["scsi0"])
    assert simulator.data("GET", "/nodes/pve1/qemu/100/config")["lock"] == "create"
    simulator.data("DELETE", f"/nodes/pve1/tasks/{quote(upid, safe='')}")
    start_of_text = "unable to create VM 100 - cannot import from 'local:import/nixos.qcow2' - copy failed"
    assert simulator.wait(upid).startswith(start_of_text)
    assert simulator.data("GET", "/nodes/pve1/qemu") == []
    assert [row["content"] for row in simulator.data("GET", "/nodes/pve1/storage/local/content")] == ["import"]


def test_proxmoxer_creates_waits_and_reads_errors(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    def over_http(request: requests.PreparedRequest, **options: Any) -> requests.Response:
        request.url = str(request.url).replace("https://", "http://")
        return send(request, **options)

    api = ProxmoxAPI(
        "127.0.0.1", port=simulator.port, user="root@pam", token_name="lab", token_value=SECRET, verify_ssl=False
    )
    session = api._store["session"]
    send = session.send
    monkeypatch.setattr(session, "send", over_http)
    upid = api.nodes("pve1").qemu.post(vmid=100, name="web", tags="a;b", onboot=1, **{"ipconfig0": "ip=10.0.0.1/8"})
    assert Tasks.blocking_status(api, upid)["exitstatus"] == "OK"
    assert api.nodes("pve1").qemu(100).config.get()["tags"] == "a;b"
    with pytest.raises(ResourceException) as caught:
        api.nodes("pve1").qemu(100).config.put(cores=0)
    assert (caught.value.status_code, caught.value.errors) == (400, {"cores": "value must have a minimum value of 1"})
    with pytest.raises(ResourceException, match="VM 100 already exists on node 'pve1'"):
        api.nodes("pve2").qemu.post(vmid=100)
