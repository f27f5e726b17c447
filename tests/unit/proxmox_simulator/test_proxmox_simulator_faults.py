# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Injected faults do what their rules say: no more, no less, and the same for the same seed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from lab.proxmox.faults import ERRORS, KINDS, Faults, Rule, from_option, parse_file, parse_words, transient
from proxmox_harness import Simulator, Start

CREATE = "^POST /nodes/[^/]+/qemu$"


def _create(simulator: Simulator, vmid: int = 100) -> requests.Response:
    return simulator.send("POST", "/nodes/pve1/qemu", vmid=vmid, name=f"vm{vmid}")


def _exists(simulator: Simulator, vmid: int = 100) -> bool:
    simulator.faults.replace([])
    rows = simulator.data("GET", "/cluster/resources", type="vm")
    return vmid in [row["vmid"] for row in rows]


def _pattern(faults: Faults) -> list[bool]:
    return [faults.strike(f"POST /{number}", ("lock",)) is not None for number in range(200)]


def test_the_same_seed_strikes_the_same_requests() -> None:
    first, again, other = (_pattern(Faults([Rule("lock", rate=0.2)], seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert 20 < sum(first) < 60


def test_skip_limit_and_match_bound_a_rule() -> None:
    faults = Faults([Rule("lock", match="^POST", skip=2, limit=3)])
    assert faults.strike("GET /x", ("lock",)) is None
    assert [faults.strike("POST /x", ("lock",)) is not None for _unused in range(7)] == [False] * 2 + [True] * 3 + [
        False
    ] * 2


@pytest.mark.parametrize("kind", sorted(ERRORS))
@pytest.mark.parametrize("after", [False, True])
def test_an_error_comes_before_or_after_the_work(simulator: Simulator, kind: str, after: bool) -> None:
    simulator.faults.replace([Rule(kind, match=CREATE, after=after, limit=1)])
    answer = _create(simulator)
    status, text = ERRORS[kind]
    assert answer.status_code == status
    assert answer.reason == text.format(vmid=100, storage="local")
    assert answer.text == "" if status > 500 else answer.json()["message"] == f"{answer.reason}\n"
    assert _exists(simulator) == after


@pytest.mark.parametrize(
    ("kind", "after", "made"), [("cut-unread", False, False), ("cut", False, False), ("cut", True, True)]
)
def test_a_cut_connection_has_no_answer(simulator: Simulator, kind: str, after: bool, made: bool) -> None:
    simulator.faults.replace([Rule(kind, match=CREATE, after=after)])
    with pytest.raises(requests.ConnectionError):
        _create(simulator)
    assert simulator.access_log[-1] == "POST /api2/json/nodes/pve1/qemu 0"
    assert _exists(simulator) == made


def test_a_body_that_is_cut_off(simulator: Simulator) -> None:
    simulator.faults.replace([Rule("cut-body", match=CREATE, after=True)])
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError, ValueError)):
        _create(simulator).json()
    assert _exists(simulator)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("task-fails", "command 'worker' failed: exit code 1"),
        ("task-half", "command 'worker' failed: got timeout"),
        ("task-lock", "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout"),
        ("task-lost", "unexpected status"),
    ],
)
def test_a_task_that_goes_wrong(simulator: Simulator, kind: str, status: str) -> None:
    simulator.faults.replace([Rule(kind, match="^qmstart:100$")])
    assert simulator.run("POST", "/nodes/pve1/qemu", vmid=100) == "OK"
    assert simulator.run("POST", "/nodes/pve1/qemu/100/status/start") == status
    simulator.faults.replace([])
    if kind in ("task-fails", "task-lock"):
        assert simulator.data("GET", "/nodes/pve1/qemu/100/status/current")["status"] == "stopped"


def test_a_task_that_vanishes(simulator: Simulator) -> None:
    simulator.faults.replace([Rule("task-vanishes", match="^qmcreate:")])
    upid = _create(simulator).json()["data"]
    path = f"/nodes/pve1/tasks/{requests.utils.quote(upid, safe='')}/status"
    while (answer := simulator.send("GET", path)).status_code == 200:
        assert answer.json()["data"]["status"] == "running"
    assert answer.status_code == 400
    assert answer.json()["errors"] == {"upid": "no such task"}


def test_without_quorum_reads_work_and_writes_do_not(simulator: Simulator) -> None:
    simulator.run("POST", "/nodes/pve1/qemu", vmid=100)
    simulator.faults.replace([Rule("quorum")])
    assert simulator.data("GET", "/nodes/pve1/qemu/100/config")
    assert simulator.data("GET", "/cluster/status")[0]["quorate"] == 0
    assert _create(simulator, 101).reason == "cluster not ready - no quorum?"
    answer = simulator.send("PUT", "/nodes/pve1/qemu/100/config", cores=2)
    assert answer.reason.startswith("unable to open file '/etc/pve/nodes/pve1/qemu-server/100.conf.tmp.")
    assert answer.reason.endswith("' - Permission denied")
    assert not _exists(simulator, 101)


def test_quorum_that_comes_back(simulator: Simulator) -> None:
    simulator.faults.replace([Rule("quorum", limit=1)])
    assert _create(simulator).reason == "cluster not ready - no quorum?"
    assert simulator.data("GET", "/cluster/status")[0]["quorate"] == 1
    assert _create(simulator).status_code == 200


def test_a_node_that_is_down(simulator: Simulator) -> None:
    simulator.run("POST", "/nodes/pve2/qemu", vmid=100, name="there")
    simulator.faults.replace([Rule("offline", node="pve2")])
    answer = simulator.send("GET", "/nodes/pve2/qemu/100/config")
    assert (answer.status_code, answer.text) == (595, "")
    rows = {row["id"]: row for row in simulator.data("GET", "/cluster/resources")}
    assert rows["node/pve2"]["status"] == "offline"
    assert rows["qemu/100"]["node"] == "pve2"
    assert "name" not in rows["qemu/100"]


def test_new_rows_come_late(simulator: Simulator) -> None:
    simulator.run("POST", "/nodes/pve1/qemu", vmid=100)
    simulator.faults.replace([Rule("late-rows", count=2)])

    def rows() -> list[int]:
        return [row["vmid"] for row in simulator.data("GET", "/cluster/resources", type="vm")]

    assert rows() == [100]
    simulator.run("POST", "/nodes/pve1/qemu", vmid=101)
    assert [rows(), rows(), sorted(rows())] == [[100], [100], [100, 101]]


def test_statistics_come_late(simulator: Simulator) -> None:
    simulator.faults.replace([Rule("late-statistics", limit=1)])
    simulator.run("POST", "/nodes/pve1/qemu", vmid=100, name="web")
    names = [simulator.data("GET", "/cluster/resources", type="vm")[0].get("name") for _unused in range(2)]
    assert names == [None, "web"]


def test_the_hook_sees_every_request_before_and_after_its_work(start: Start) -> None:
    seen: list[tuple[int, str, str]] = []
    hook: Callable[[int, str, str], None] = lambda number, moment, what: seen.append((number, moment, what))  # noqa: E731
    simulator = start(faults=Faults(hook=hook))
    simulator.data("GET", "/version")
    _create(simulator)
    assert seen == [
        (1, "before", "GET /version"),
        (1, "after", "GET /version"),
        (2, "before", "POST /nodes/pve1/qemu"),
        (2, "after", "POST /nodes/pve1/qemu"),
    ]


def test_the_file_in_the_state_directory_is_read_at_run_time(start: Start, tmp_path: Path) -> None:
    simulator = start(faults=from_option("", tmp_path))
    assert simulator.send("GET", "/version").status_code == 200
    file = tmp_path / "faults.toml"
    file.write_text('[[rule]]\nkind = "timeout"\nmatch = "^GET /version$"\n', encoding="utf-8")
    assert simulator.send("GET", "/version").status_code == 596
    file.write_text('[[rule]]\nkind = "no such kind"\n', encoding="utf-8")
    assert simulator.send("GET", "/version").status_code == 596
    file.unlink()
    assert simulator.send("GET", "/version").status_code == 200


def test_both_written_forms_of_rules() -> None:
    rules, seed = parse_file('seed = 3\n[[rule]]\nkind = "lock"\nrate = 0.5\nafter = true\n')
    assert (rules, seed) == ((Rule("lock", rate=0.5, after=True),), 3)
    assert parse_words("seed=3,lock=0.5") == ((Rule("lock", rate=0.5),), 3)
    assert list(parse_words("transient=0.3")[0]) == transient(0.3)
    for wrong in ("lock", "nothing=1"):
        with pytest.raises(ValueError, match="faults:"):
            parse_words(wrong)


def test_transient_faults_strike_as_often_as_asked() -> None:
    faults = Faults(transient(0.2), seed=4)
    struck = sum(faults.strike(f"GET /{number}", KINDS) is not None for number in range(2000))
    assert 300 < struck < 500


@pytest.mark.parametrize(
    ("kind", "status", "left"),
    [
        ("task-lost", "unexpected status", {"lock": "create"}),
        ("task-half", "command 'worker' failed: got timeout", None),
    ],
)
def test_half_a_creation(simulator: Simulator, kind: str, status: str, left: dict[str, str] | None) -> None:
    simulator.faults.replace([Rule(kind, match="^qmcreate:100$")])
    disk = "local:0,import-from=local:import/nixos.qcow2"
    assert simulator.run("POST", "/nodes/pve1/qemu", vmid=100, scsi0=disk).endswith(status)
    simulator.faults.replace([])
    answer = simulator.send("GET", "/nodes/pve1/qemu/100/config")
    if left is None:  # the worker cleaned up behind itself
        assert answer.status_code == 500
        assert [row["content"] for row in simulator.data("GET", "/nodes/pve1/storage/local/content")] == ["import"]
    else:
        assert answer.json()["data"].items() >= left.items()
        assert simulator.run("DELETE", "/nodes/pve1/qemu/100") == "VM is locked (create)"


def test_a_clone_whose_worker_is_killed_stays_locked(simulator: Simulator) -> None:
    assert simulator.run("POST", "/nodes/pve1/qemu", vmid=100, scsi0="local:1") == "OK"
    simulator.faults.replace([Rule("task-lost", match="^qmclone:100$")])
    assert simulator.run("POST", "/nodes/pve1/qemu/100/clone", newid=101, full=1) == "unexpected status"
    simulator.faults.replace([])
    assert simulator.data("GET", "/nodes/pve1/qemu/101/config")["lock"] == "clone"
    assert simulator.run("POST", "/nodes/pve1/qemu/100/clone", newid=102, full=1) == "OK"  # its file lock is gone


def test_an_agent_that_never_answers(simulator: Simulator) -> None:
    assert simulator.run("POST", "/nodes/pve1/qemu", vmid=100, agent=1) == "OK"
    assert simulator.run("POST", "/nodes/pve1/qemu/100/status/start") == "OK"
    simulator.faults.replace([Rule("agent", match="^agent:100$")])
    assert simulator.send("POST", "/nodes/pve1/qemu/100/agent/ping").reason == "QEMU guest agent is not running"


def test_everything_at_once_leaves_a_usable_cluster(simulator: Simulator) -> None:
    simulator.faults.replace([*transient(0.5), Rule("task-half", rate=0.3), Rule("task-lost", rate=0.2)], seed=5)
    for vmid in range(100, 130):
        with contextlib.suppress(requests.RequestException):
            _create(simulator, vmid)
    simulator.faults.replace([])
    rows = simulator.data("GET", "/nodes/pve1/qemu")
    assert 0 < len(rows) < 30
    for row in rows:
        config = simulator.data("GET", f"/nodes/pve1/qemu/{row['vmid']}/config")
        assert config.get("lock") in (None, "create")
    assert simulator.run("POST", "/nodes/pve1/qemu", vmid=200) == "OK"
