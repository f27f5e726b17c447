# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests and seconds of community.proxmox and of this collection for the same jobs on the same simulated cluster.

Both run under one Ansible, on one Python, each against a fresh cluster with the delays of a real one. Requests are
counted in the cluster's access log, looks at tasks (polls) apart. Prints one table; ends with 1 if a bar is missed.

Environment: BENCH_VENV, the virtual environment of tests/bench/requirements.txt; SIZES, numbers of machines for the
jobs that have N of them (default "1 10 50").
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, cast

import proxmox_jobs as jobs
import requests
from lab.proxmox.faults import Rule, transient
from lab.proxmox.routes import Call, endpoint
from lab.proxmox.schema import Endpoint, parse_spec, schema
from lab.proxmox.store import Timing
from support.simulated_proxmox import IMAGE, NODES, TOKEN, USER, Cluster, event_loop, served
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[2]
FLEET, CROWD, FAULT_RATE = 226, 50, 0.2
REAL = Timing()
HEADERS = ("job", "theirs", "polls", "ours", "polls", "bar", "theirs s", "ours s", "ratio", "")


@dataclass(frozen=True)
class Cost:
    """Requests, looks at tasks among them apart, seconds of wall clock, and what Ansible printed."""

    requests: int
    polls: int
    seconds: float
    output: str
    late: float = 0.0

    @property
    def changed(self) -> bool:
        return "changed=0" not in self.output


@dataclass(frozen=True)
class Row:
    """One job; `most` is the largest number of requests that ours may have, `missed` what else is not right."""

    job: str
    theirs: Cost | None
    ours: Cost
    most: int | None
    remark: str = ""
    missed: str = ""

    @property
    def failure(self) -> str:
        over = self.most is not None and self.ours.requests > self.most
        return f"{self.ours.requests} requests, {self.most} allowed" if over else self.missed


@dataclass(frozen=True)
class Bench:
    """One cluster, and the Ansible that both sides use."""

    cluster: Cluster
    scratch: Path
    venv: Path

    def play(self, tasks: Sequence[Mapping[str, Any]], *, fails: bool = False) -> Cost:
        """What a play with these tasks costs."""
        secret = {"api_token_secret": self.cluster.secrets[TOKEN], "validate_certs": True}
        connection = {"api_host": "127.0.0.1", "api_port": self.cluster.port, "api_user": USER, "api_token_id": TOKEN}
        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {
                "ansible_connection": "local",
                "ansible_python_interpreter": str(self.venv / "bin" / "python"),
            },
            "module_defaults": {"group/community.proxmox.proxmox": {**connection, **secret}},
            "tasks": list(tasks),
        }
        return self._run("ansible-playbook", self._file("play.yml", [play]), fails=fails)

    def inventory(self, content: Mapping[str, Any]) -> Cost:
        return self._run("ansible-inventory", "--list", "-i", self._file("fleet.proxmox.yml", content), fails=False)

    def _file(self, name: str, content: object) -> str:
        (self.scratch / name).write_text(json.dumps(content), encoding="utf-8")
        return str(self.scratch / name)

    def _run(self, program: str, *arguments: str, fails: bool) -> Cost:
        taken = ("ANSIBLE_", "PROXMOX_", "PYTHONPATH")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(taken)},
            "ANSIBLE_CONFIG": str(self.scratch / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_HOME": str(self.scratch / "home"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_INVENTORY_ENABLED": "community.proxmox.proxmox,host_list",
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            "REQUESTS_CA_BUNDLE": str(self.cluster.authority),
            "PROXMOX_URL": f"https://127.0.0.1:{self.cluster.port}",
            **self.cluster.environment(),
        }
        started: list[float] = []

        def hook(_number: int, moment: str, exchange: str) -> None:
            if moment == "after" and exchange.endswith("/status/start"):
                started.append(time.monotonic())

        self.cluster.requests()
        self.cluster.faults.hook = hook
        began = time.monotonic()
        done = subprocess.run(
            [self.venv / "bin" / program, *arguments],
            env=environment,
            cwd=self.scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        ended = time.monotonic()
        if (done.returncode != 0) != fails:
            raise SystemExit(f"{program} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-6000:]}")
        sent = self.cluster.requests()
        polls = sum("/tasks" in request for request in sent)
        late = ended - started[-1] if started else 0.0
        return Cost(len(sent) - polls, polls, ended - began, done.stdout + done.stderr, late)

    def api(self, method: str, path: str, /, **parameters: str | int) -> Any:
        """A request of the bench itself; runs count from their own beginning."""
        identity = f"PVEAPIToken={USER}!{TOKEN}={self.cluster.secrets[TOKEN]}"
        answer = requests.request(
            method,
            f"https://127.0.0.1:{self.cluster.port}/api2/json{path}",
            data=parameters or None,
            headers={"Authorization": identity},
            verify=str(self.cluster.authority),
            timeout=40,
        )
        if answer.status_code >= 400:
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.reason}")
        return answer.json()["data"]

    def done(self, upid: str) -> None:
        """Wait for a task."""
        path = f"/nodes/{upid.split(':')[1]}/tasks/{requests.utils.quote(upid, safe='')}/status"
        while self.api("GET", path)["status"] != "stopped":
            time.sleep(0.05)

    def make_template(self) -> None:
        disk = f"local:0,import-from={IMAGE}"
        self.done(
            self.api(
                "POST", "/nodes/pve1/qemu", vmid=jobs.TEMPLATE, name="template", scsi0=disk, boot="order=scsi0",
                ide2="local:cloudinit", net0="virtio,bridge=vmbr0",
            )
        )  # fmt: skip
        self.done(self.api("POST", f"/nodes/pve1/qemu/{jobs.TEMPLATE}/template"))
        self.settle()

    def settle(self) -> None:
        """Until the cluster's list, which is late, shows what was just done."""
        time.sleep(REAL.statistics + 1)


def without_containers() -> None:
    """The peer also asks for containers, which the simulated cluster does not know."""
    path = "/nodes/{node}/lxc"
    parameters = {"node": parse_spec("str")}
    endpoints = cast("dict[tuple[str, str], Endpoint]", schema().endpoints)
    endpoints["GET", path] = Endpoint("GET", path, parameters, False, None)

    @endpoint("GET", path)
    async def index(_call: Call) -> object:
        return []


def on_fresh(job: Callable[[Bench], Cost], *rules: Rule) -> Cost:
    """What *job* costs on a cluster of its own, which is ended whatever happens."""
    venv = Path(os.environ.get("BENCH_VENV", ROOT / ".cache" / "bench"))
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, event_loop() as loop:
        Path(directory, "ansible.cfg").touch()
        with served(loop, *rules, seed=7, timing=REAL) as cluster:
            return job(Bench(cluster, Path(directory), venv))


def create() -> Row:
    """In a pool that shows another machine, with a VMID: the sight of it proves that ours would be seen."""

    def ours(bench: Bench) -> Cost:
        bench.api("POST", "/pools", poolid="pool-0")
        bench.done(bench.api("POST", "/nodes/pve1/qemu", vmid=800, name="neighbour", pool="pool-0"))
        bench.settle()
        return bench.play([jobs.ours([{**vm, "pool": "pool-0"} for vm in jobs.created(1)])])

    return Row("create in a pool from image, cloud-init, start", None, on_fresh(ours), 4, "theirs: not in one task")


def create_anywhere() -> Row:
    """Without pool and VMID ours also asks for its rights and for an id."""

    def ours(bench: Bench) -> Cost:
        bench.make_template()
        return bench.play([jobs.ours([{**vm, "vmid": None} for vm in jobs.created(1)])])

    return Row("the same without pool and VMID", None, on_fresh(ours), None, "two over the bar of 4: rights and an id")


def clone() -> Row:
    def run(tasks: Sequence[Mapping[str, Any]]) -> Callable[[Bench], Cost]:
        def job(bench: Bench) -> Cost:
            bench.make_template()
            return bench.play(tasks)

        return job

    theirs, ours = on_fresh(run(jobs.peer_cloned())), on_fresh(run([jobs.ours(jobs.cloned())]))
    return Row("clone, cloud-init, resize, start", theirs, ours, 9, "theirs: 4 tasks")


def same(number: int) -> Row:
    """Machines that are as wanted, made by ours for both sides."""

    def run(tasks: Sequence[Mapping[str, Any]]) -> Callable[[Bench], Cost]:
        def job(bench: Bench) -> Cost:
            bench.make_template()
            bench.play([jobs.ours(jobs.created(number))])
            bench.settle()
            return bench.play(tasks)

        return job

    theirs, ours = on_fresh(run(jobs.peer_same(number))), on_fresh(run([jobs.ours(jobs.created(number))]))
    told = f"changed: theirs {'yes' if theirs.changed else 'no'}, ours {'yes' if ours.changed else 'no'}"
    return Row(
        f"no change, {number} VM{'s'[: number - 1]}", theirs, ours, 1 + number, told,
        "reports changed" if ours.changed else "",
    )  # fmt: skip


def failed_task() -> Row:
    """A start that fails in its task; it has ended when the server answers the request for it."""

    def run(tasks: Sequence[Mapping[str, Any]]) -> Callable[[Bench], Cost]:
        def job(bench: Bench) -> Cost:
            bench.play([jobs.ours([{**vm, "power": "stopped"} for vm in jobs.created(1)])])
            bench.settle()
            bench.cluster.faults.replace([Rule("task-fails", match="^qmstart:")])
            return bench.play(tasks, fails=True)

        return job

    theirs, ours = on_fresh(run(jobs.peer_start(20))), on_fresh(run([jobs.ours(jobs.created(1))]))
    told = f"play over after the task: theirs {theirs.late:.1f} s, ours {ours.late:.1f} s (bar 2)"
    return Row("failed task", theirs, ours, 4, told, "reported late" if ours.late > 2 else "")


def info() -> Row:
    def fleet(bench: Bench) -> None:
        for pool in ("pool-0", "pool-1"):
            bench.api("POST", "/pools", poolid=pool)
        for number in range(FLEET):
            bench.api(
                "POST", f"/nodes/{NODES[number % 2]}/qemu", vmid=1000 + number, name=f"vm-{number}", agent="1",
                pool=f"pool-{number % 2}", tags="fediversity",
            )  # fmt: skip
        bench.settle()

    def theirs(bench: Bench) -> Cost:
        fleet(bench)
        return bench.inventory(jobs.PEER_INVENTORY)

    def ours(bench: Bench) -> Cost:
        fleet(bench)
        return bench.play([jobs.info()])

    return Row(f"info for {FLEET} VMs", on_fresh(theirs), on_fresh(ours), 1, "theirs: inventory with want_facts")


def crowd() -> Row:
    """Many machines at once while requests fail, half of them after they were done."""
    told: list[str] = []

    def ours(bench: Bench) -> Cost:
        tasks = [jobs.ours([{**vm, "vmid": None} for vm in jobs.created(CROWD)])]
        cost = bench.play(tasks)
        bench.cluster.faults.replace([])
        rows = [row for row in bench.api("GET", "/cluster/resources") if row["type"] == "qemu"]
        configs = [bench.api("GET", f"/nodes/{row['node']}/qemu/{row['vmid']}/config") for row in rows]
        used = {str(value).partition(",")[0] for config in configs for value in config.values()}
        stored = bench.api("GET", "/nodes/pve1/storage/local/content?content=images")
        orphans = sum(row["volid"] not in used for row in stored)
        right = len({config["name"] for config in configs})
        bench.settle()
        again = bench.play(tasks)
        told.append(f"{right} right, {len(rows) - right} twice, {orphans} orphan disks, again: changed {again.changed}")
        return replace(cost, output=cost.output)

    cost = on_fresh(ours, *transient(FAULT_RATE))
    expected = f"{CROWD} right, 0 twice, 0 orphan disks, again: changed False"
    missed = "" if told == [expected] else told[0]
    return Row(f"create {CROWD} VMs, {FAULT_RATE:.0%} of the requests fail", None, cost, None, told[0], missed)


def cells(row: Row) -> list[object]:
    theirs = row.theirs
    numbers = [theirs.requests, theirs.polls] if theirs else ["-", "-"]
    seconds = [f"{theirs.seconds:.1f}"] if theirs else ["-"]
    ratio = f"{theirs.seconds / row.ours.seconds:.1f}" if theirs else "-"
    most = "-" if row.most is None else row.most
    return [row.job, *numbers, row.ours.requests, row.ours.polls, most, *seconds, f"{row.ours.seconds:.1f}", ratio,
            row.remark]  # fmt: skip


def interrupted(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, interrupted)
    sizes = sorted({int(size) for size in os.environ.get("SIZES", "1 10 50").split()})
    without_containers()
    rows: list[Row] = []
    for measure in (
        create,
        create_anywhere,
        clone,
        *(lambda size=size: same(size) for size in sizes),
        failed_task,
        info,
        crowd,
    ):
        rows.append(measure())
        print(f"{rows[-1].job}: {rows[-1].failure or 'ok'}", file=sys.stderr, flush=True)
    print(f"requests without polls, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    sides = ("left", *["right"] * (len(HEADERS) - 2), "left")
    print(tabulate([cells(row) for row in rows], HEADERS, disable_numparse=True, colalign=sides))
    failures = [f"{row.job}: {row.failure}" for row in rows if row.failure]
    print("\n".join(["", "every bar is met"] if not failures else ["", "missed:", *failures]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
