# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`./lab proxmox` and tests/lab/replay.py as commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests
from lab.paths import CHECKOUT

TRANSCRIPTS = CHECKOUT / "tests/unit/proxmox_simulator/proxmox-transcripts.json"
COMMAND = [sys.executable, "-m", "lab", "proxmox", "--listen", "127.0.0.1:0", "--guests", "none"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CHECKOUT / "tests")}


class Served:
    """A running `./lab proxmox`: what it printed, by label."""

    def __init__(self, process: subprocess.Popen[str], state: Path) -> None:
        self.process, self.state = process, state
        self.told: dict[str, str] = {}
        assert process.stdout
        for line in process.stdout:
            label, _unused, value = line.strip().partition("  ")
            if label == "ready":
                return
            self.told[label] = value.strip()
        raise AssertionError(f"ended: {process.wait()}")

    def get(self, node: str, path: str) -> requests.Response:
        return requests.get(
            f"{self.told[node]}/api2/json{path}",
            headers={"Authorization": f"PVEAPIToken={self.told['token']}"},
            verify=self.told["CA"],
            timeout=30,
        )

    def post(self, node: str, path: str, **params: str) -> requests.Response:
        return requests.post(
            f"{self.told[node]}/api2/json{path}",
            data=params,
            headers={"Authorization": f"PVEAPIToken={self.told['token']}"},
            verify=self.told["CA"],
            timeout=30,
        )


@contextmanager
def served(state: Path, *options: str) -> Iterator[Served]:
    """Ended with SIGTERM, which must be a clean end."""
    command = [*COMMAND, "--state", str(state), *options]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Served(process, state)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_a_fresh_cluster_has_nothing_but_what_an_installation_has(tmp_path: Path) -> None:
    with served(tmp_path / "state") as cluster:
        rows = {node: cluster.get(node, "/cluster/resources").json()["data"] for node in ("pve1", "pve2")}
        assert {row["id"] for row in rows["pve1"]} == {
            *("node/pve1", "node/pve2", "storage/pve1/local", "storage/pve2/local"),
            *("network/pve1/zone/localnetwork", "network/pve2/zone/localnetwork"),
        }
        assert {row["id"] for row in rows["pve2"]} == {row["id"] for row in rows["pve1"]}
        assert [row["iface"] for row in cluster.get("pve1", "/nodes/pve2/network").json()["data"]] == ["vmbr0"]
        assert cluster.get("pve1", "/nodes/pve1/storage/local/content").json()["data"] == []
        login = {"username": "root@pam", "password": cluster.told["password"]}
        assert cluster.post("pve2", "/access/ticket", **login).status_code == 200


def test_each_node_is_an_entry_point_of_its_own(tmp_path: Path) -> None:
    with served(tmp_path / "state", "--nodes", "left,right", "--cluster", "oak") as cluster:
        assert cluster.post("left", "/nodes/right/qemu", vmid="150").status_code == 200
        local = {
            node: [row["name"] for row in cluster.get(node, "/cluster/status").json()["data"] if row.get("local")]
            for node in ("left", "right")
        }
        assert local == {"left": ["left"], "right": ["right"]}
        path = "/nodes/right/storage/local/upload"
        for node, status in (("left", 501), ("right", 200)):
            answer = requests.post(
                f"{cluster.told[node]}/api2/json{path}", data={"content": "iso"},
                files={"filename": ("x.iso", b"x" * 4096)}, verify=cluster.told["CA"], timeout=30,
                headers={"Authorization": f"PVEAPIToken={cluster.told['token']}"},
            )  # fmt: skip
            assert answer.status_code == status, answer.reason
        logs = [(cluster.state / f"access{node}.log").read_text(encoding="utf-8") for node in ("", ".left", ".right")]
        assert [log.count("\n") for log in logs] == [5, 3, 2]
        assert logs[0].splitlines()[0] == "POST /api2/json/nodes/right/qemu 200"


def test_the_state_outlives_the_process(tmp_path: Path) -> None:
    with served(tmp_path / "state") as cluster:
        before = cluster.told
        assert cluster.post("pve1", "/nodes/pve1/qemu", vmid="150", name="kept", start="1").status_code == 200
        while cluster.get("pve1", "/nodes/pve1/qemu/150/status/current").json()["data"]["status"] != "running":
            threading.Event().wait(0.05)
    with served(tmp_path / "state") as cluster:
        assert {key: cluster.told[key] for key in ("password", "token")} == {
            key: before[key] for key in ("password", "token")
        }
        row = cluster.get("pve2", "/nodes/pve1/qemu/150/status/current").json()["data"]
        assert (row["name"], row["status"]) == ("kept", "running")


def test_two_servers_run_beside_each_other_but_not_on_one_state(tmp_path: Path) -> None:
    with ExitStack() as stack:
        one = stack.enter_context(served(tmp_path / "one"))
        other = stack.enter_context(served(tmp_path / "two"))
        assert one.post("pve1", "/nodes/pve1/qemu", vmid="150").status_code == 200
        assert other.get("pve1", "/nodes/pve1/qemu").json()["data"] == []
        again = subprocess.run(
            [*COMMAND, "--state", str(tmp_path / "one")], env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert again.returncode == 1
        assert "another server uses this state directory" in again.stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--listen", "nonsense"), "is no ADDRESS:PORT"),
        (("--faults", "nonsense=1"), "no such kind"),
        (("--network", "10.0.0.0/33"), "does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_options_that_cannot_be(options: tuple[str, ...], text: str, tmp_path: Path) -> None:
    command = [*COMMAND, "--state", str(tmp_path), *options]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert text in result.stderr


def test_the_replay_finds_what_is_equal_and_what_is_not(tmp_path: Path) -> None:
    """With nothing but the password; the base world is made by upload, and made twice."""
    document = json.loads(TRANSCRIPTS.read_text(encoding="utf-8"))
    changed = tmp_path / "changed.json"
    pools = next(scenario for scenario in document["scenarios"] if scenario["name"] == "pools")
    pools["exchanges"][1]["response"]["body"]["data"] = "something else"
    changed.write_text(json.dumps(document), encoding="utf-8")
    with served(tmp_path / "state", "--plain") as cluster:

        def replay(file: Path) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, str(CHECKOUT / "tests/lab/replay.py"), str(file), "--only", "pools", "--quiet"]
            command += ["--url", cluster.told["pve1"], "--url2", cluster.told["pve2"]]
            environment = {**ENVIRONMENT, "PROXMOX_PASSWORD": cluster.told["password"]}
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

        good, bad = replay(TRANSCRIPTS), replay(changed)
        assert (good.returncode, good.stdout.splitlines()[-1]) == (0, "26 equal, 0 different"), good
        assert (bad.returncode, bad.stdout.splitlines()[-1]) == (1, "25 equal, 1 different"), bad
        assert any(line.split()[:2] == ["1", "different"] for line in bad.stdout.splitlines())
