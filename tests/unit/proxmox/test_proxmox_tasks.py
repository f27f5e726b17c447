# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks that fail, vanish, lose their worker or meet a lock."""

from __future__ import annotations

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, Exists, Locked
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, LostAnswer, Transient
from proxmox_script import IDENTITY, Exchange, Script, done, failed, task_path, upid

START = "/nodes/pve1/qemu/100/status/start"
LOCK = "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout"


def patient(script: Script, lock_timeout: float = 60) -> Client:
    return Client(
        script,
        "pve1:8006",
        IDENTITY,
        sleep=script.slept.append,
        clock=lambda: sum(script.slept),
        lock_timeout=lock_timeout,
    )


def log(*lines: str) -> Exchange:
    rows = [{"n": number, "t": line} for number, line in enumerate(lines, start=1)]
    return Exchange("GET", f"{task_path('qmstart')}/log", rows)


def start() -> Exchange:
    return Exchange("POST", START, upid("qmstart"))


def test_a_task_that_its_node_forgot_must_be_looked_for() -> None:
    unknown = failed("Parameter verification failed.", 400, {"upid": "no such task"})
    script = Script([Exchange("GET", f"{task_path('qmstart')}/status", unknown)])
    with pytest.raises(LostAnswer, match="the task qmstart vanished from its node"):
        tasks.wait(script.client(), upid("qmstart"), budget=5)


def test_a_task_whose_worker_was_killed_must_be_looked_for() -> None:
    for status in ("unexpected status", ""):
        script = Script([done("qmstart", exit_status=status), log("starting")])
        with pytest.raises(LostAnswer, match="the task qmstart failed: unexpected status"):
            tasks.wait(script.client(), upid("qmstart"), budget=5)
        script.finished()


def test_a_task_that_somebody_stopped_is_not_made_again() -> None:
    script = Script([start(), done("qmstart", exit_status="received interrupt"), log("TASK ERROR: received interrupt")])
    with pytest.raises(BackendError, match="received interrupt"):
        tasks.run(patient(script), "POST", START, {}, budget=5)
    script.finished()


@pytest.mark.parametrize("status", [LOCK, "VM is locked (backup)"])
def test_a_task_that_met_a_lock_is_started_again(status: str) -> None:
    script = Script([start(), done("qmstart", exit_status=status), log(), start(), done("qmstart")])
    tasks.run(patient(script), "POST", START, {}, budget=5)
    assert script.slept == [tasks.LOCK_DELAY]
    script.finished()


def test_a_lock_that_stays_is_told_after_the_lock_timeout() -> None:
    script = Script([start(), done("qmstart", exit_status=LOCK), log("trying to acquire lock...")] * 6)
    with pytest.raises(Transient, match=r"got timeout \(log: trying to acquire lock"):
        tasks.run(patient(script, lock_timeout=10), "POST", START, {}, budget=5)
    assert sum(script.slept) == 10
    script.finished()


def test_a_locked_vm_is_tried_again_within_the_lock_timeout() -> None:
    locked = Exchange("PUT", "/x", failed("VM is locked (backup)"))
    script = Script([locked, locked, locked, Exchange("PUT", "/x", "data")])
    assert patient(script).put("/x") == "data"
    assert script.slept == [0.5, 1.0, 2.0]
    script = Script([locked] * 50)
    with pytest.raises(Locked, match=r"VM is locked \(backup\)"):
        patient(script, lock_timeout=20).put("/x")
    assert 15 < sum(script.slept) <= 20


def test_an_object_that_a_further_try_finds_may_be_ours() -> None:
    exists = Exchange("POST", "/x", failed("unable to create VM 100 - VM 100 already exists on node 'pve1'"))
    with pytest.raises(Exists):
        patient(Script([exists])).post("/x")
    busy = Exchange("POST", "/x", failed("got no worker upid - start worker failed"))
    script = Script([busy, exists])
    with pytest.raises(LostAnswer, match="VM 100 already exists"):
        patient(script).post("/x")
    script.finished()


def test_locks_and_refusals_of_the_moment_have_budgets_of_their_own() -> None:
    locked = Exchange("PUT", "/x", failed("VM is locked (clone)"))
    busy = Exchange("PUT", "/x", failed("cfs-lock 'storage-local' error: got lock request timeout"))
    script = Script([busy, locked, busy, locked, busy, locked, Exchange("PUT", "/x", "data")])
    assert patient(script).put("/x") == "data"
    script.finished()
