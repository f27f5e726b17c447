# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guarded switch costs: seconds and SSH handshakes of fediversity.hosting.nixos_rebuild on lab hosts, beside
the plain sequence of nixos-rebuild (plain.sh) on the same hosts in the same run. Prints a table, judges nothing.

Environment: HOSTS, numbers of hosts (default "1 10 30").
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
CORES = os.cpu_count() or 1
PLAYBOOK = """\
- name: Deploy
  hosts: all
  gather_facts: false
  tasks:
    - name: Guarded switch
      fediversity.hosting.nixos_rebuild:
        system: "{{ system }}"
        replace_unknown: true
"""
IDLE = "- {name: Nothing, hosts: all, gather_facts: false, tasks: [{name: Nothing, ansible.builtin.meta: noop}]}\n"


@dataclass(frozen=True)
class Cost:
    """Of one run over all hosts: seconds of wall clock and of CPU on this machine, most handshakes of a host."""

    seconds: float
    cpu: float
    handshakes: int


@dataclass(frozen=True)
class Row:
    hosts: int
    what: str
    forks: int
    guarded: Cost
    plain: Cost


@dataclass(frozen=True)
class Bench:
    """A lab in `scratch`."""

    scratch: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "LAB_STATE": str(self.scratch / "lab"), "ANSIBLE_INVENTORY_ENABLED": "yaml"}

    def lab(self, *arguments: str, stdin: str = "") -> str:
        """Run ./lab; its standard output, an error with everything it said if it fails."""
        done = subprocess.run(
            [ROOT / "lab", *arguments], env=self.environment, input=stdin, text=True, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(f"lab {' '.join(arguments)}:\n{(done.stdout + done.stderr)[-4000:]}")
        return done.stdout

    def build(self, hosts: dict[str, str], version: str) -> dict[str, str]:
        """Store path of each host's system."""
        script = (
            'set -- tests/bench/systems.nix --arg nixpkgs "$FEDIVERSITY_NIXPKGS" --argstr hosts "$0" '
            '--argstr key "$(cat "$FEDIVERSITY_AUTHORIZED_KEYS_FILE")" --argstr version "$1"; '
            'nix-build --no-out-link "$@" >/dev/null && nix-instantiate --eval --strict --json "$@"'
        )
        return dict(json.loads(self.lab("exec", "--", "sh", "-c", script, json.dumps(hosts), version)))

    def guarded(self, hosts: dict[str, str], systems: dict[str, str], forks: int) -> Cost:
        variables = {
            name: {"ansible_host": address, "ansible_user": "root", "system": systems[name]}
            for name, address in hosts.items()
        }
        return self.playbook(PLAYBOOK, variables, forks)

    def playbook(self, text: str, variables: dict[str, dict[str, str]], forks: int) -> Cost:
        number = time.monotonic_ns()  # sockets of its own: no connection of an earlier run
        playbook, inventory = self.scratch / f"{number}.yml", self.scratch / f"hosts-{number}.yml"
        playbook.write_text(text, encoding="utf-8")
        inventory.write_text(json.dumps({"all": {"hosts": variables}}), encoding="utf-8")
        script = 'ANSIBLE_SSH_CONTROL_PATH_DIR=$0 exec ansible-playbook "$@"'
        words = ("exec", "--", "sh", "-c", script, f"/run/cp{number % 10**9}", "-i", str(inventory), "-f", str(forks))
        return self.measure(list(variables), lambda: self.lab(*words, str(playbook)))

    def plain(self, hosts: dict[str, str], systems: dict[str, str], forks: int) -> Cost:
        lines = "".join(f"{address} {systems[name]}\n" for name, address in hosts.items())
        words = ("exec", "--", "xargs", "-P", str(forks), "-n", "2", "sh", str(ROOT / "tests/bench/plain.sh"))
        return self.measure(list(hosts), lambda: self.lab(*words, stdin=lines))

    def measure(self, names: Sequence[str], run: Callable[[], object]) -> Cost:
        before, cpu, began = self.handshakes(names), self.cpu(), time.monotonic()
        run()
        seconds, cpu = time.monotonic() - began, self.cpu() - cpu
        return Cost(seconds, cpu, max(after - old for after, old in zip(self.handshakes(names), before, strict=True)))

    def handshakes(self, names: Sequence[str]) -> list[int]:
        """SSH authentications that the hosts have seen."""
        count = "journalctl -q -u ssh.service -o cat | grep -c '^Accepted publickey' || true"
        with ThreadPoolExecutor(CORES) as pool:
            return list(pool.map(lambda name: int(self.lab("run", name, "--", "sh", "-c", count)), names))

    def cpu(self) -> float:
        """CPU seconds of the lab's hosts (their control groups) and of our commands so far."""
        lab = json.loads(self.lab("status", "--json"))["id"]
        root = next(Path("/sys/fs/cgroup").glob(f"**/fediversity-lab-{lab}"))
        micro = int((root / "cpu.stat").read_text(encoding="ascii").split()[1])
        ours = resource.getrusage(resource.RUSAGE_CHILDREN)
        return micro / 1e6 + ours.ru_utime + ours.ru_stime


@contextmanager
def started() -> Iterator[Bench]:
    """A lab that is ended whatever happens."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        bench = Bench(Path(directory))
        try:
            bench.lab("up", "--no-services")
            yield bench
        finally:
            bench.lab("down")


def measure(bench: Bench, sizes: Sequence[int]) -> tuple[list[Row], float]:
    """All rows, and the seconds that Ansible itself needs."""
    rows: list[Row] = []
    hosts: dict[str, str] = {}
    start = 0.0
    for size in sizes:
        new = {f"bench{number}": f"10.99.0.{20 + number}" for number in range(len(hosts) + 1, size + 1)}
        bench.lab("host", "add", *new)
        hosts |= new
        say(f"{size} hosts are up")
        bench.guarded(hosts, bench.build(hosts, f"{size}-first"), min(size, 4 * CORES))
        start = start or bench.playbook(IDLE, {name: {} for name in hosts}, 1).seconds
        for forks in sorted({1, size}):
            costs: dict[tuple[str, str], Cost] = {}
            for way, deploy in (("guarded", bench.guarded), ("plain", bench.plain)):
                systems = bench.build(hosts, f"{size}-{forks}-{way}")
                for what in ("deployment", "no-op"):
                    costs[what, way] = deploy(hosts, systems, forks)
            for what in ("deployment", "no-op"):
                rows.append(Row(size, what, forks, costs[what, "guarded"], costs[what, "plain"]))
                say(line(rows[-1]))
    return rows, start


def line(row: Row) -> str:
    way = "serial" if row.forks == 1 else "parallel"
    return (
        f"{row.hosts:5}  {row.what:10}  {way:8}  {row.guarded.seconds:9.2f}  {row.guarded.handshakes:10}  "
        f"{row.plain.seconds:7.2f}  {row.plain.handshakes:10}  {row.guarded.seconds / row.plain.seconds:6.2f}"
    )


def summary(rows: Sequence[Row], start: float) -> list[str]:
    """The aims, and what this run says about them."""
    deployments = [row for row in rows if row.what == "deployment"]
    most = {what: max(row.guarded.handshakes for row in rows if row.what == what) for what in ("no-op", "deployment")}
    lines = [
        f"Ansible itself, without any task: {start:.2f} s (in every guarded number, not in the plain ones)",
        f"handshakes per host, at most: no-op {most['no-op']} (aim: 1), deployment {most['deployment']} (aim: 4)",
    ]
    for row in deployments:
        if row.forks == 1:
            extra = (row.guarded.seconds - row.plain.seconds) / row.hosts
            without = (row.guarded.seconds - start - row.plain.seconds) / row.hosts
            lines.append(
                f"overhead of the guard per deployment, {row.hosts} host(s) one by one: {extra:.2f} s, "
                f"without Ansible's start {without:.2f} s (aim: at most 1.5 s)"
            )
    alone = next((row.guarded for row in deployments if row.hosts == 1), None)
    last = deployments[-1]
    if alone and last.hosts > 1:
        allowed = max(alone.seconds, last.hosts * alone.cpu / CORES)
        lines.append(
            f"{last.hosts} hosts in parallel: {last.guarded.seconds:.1f} s; one host alone takes {alone.seconds:.1f} s "
            f"and {alone.cpu:.1f} s of CPU, so {CORES} cores allow {allowed:.1f} s: factor "
            f"{last.guarded.seconds / allowed:.2f} (aim: at most 3)"
        )
    return lines


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def interrupted(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    signal.signal(signal.SIGTERM, interrupted)
    sizes = sorted({int(size) for size in os.environ.get("HOSTS", "1 10 30").split()})
    load = os.getloadavg()[0]
    with started() as bench:
        rows, start = measure(bench, sizes)
    print(f"{CORES} cores, load before the run {load:.1f}; handshakes: the most of any host; seconds: wall clock")
    print("hosts  what        way       guarded s  handshakes  plain s  handshakes   ratio")
    for text in [*map(line, rows), "", *summary(rows, start)]:
        print(text)


if __name__ == "__main__":
    main()
