# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One lab host and what a controller does with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
HOST = "existing1"
ADDRESS = "10.99.0.20"
LOOK = r"""
readlink -f /run/current-system /nix/var/nix/profiles/system /run/booted-system
entry=$(sed -n 's/^default //p' /boot/loader/loader.conf)
sed -n 's|^options init=\([^ ]*\)/init.*|\1|p' "/boot/loader/entries/$entry"
systemctl list-units --all --plain --no-legend 'fediversity-guard*' |
    awk '$1 != "fediversity-guard-boot.service" || $3 == "activating" { print $1 }' # the system's own, done
ls /run/fediversity-guard/ | grep -v '^lock$'
ls -d /nix/var/nix/gcroots/fediversity-guard 2>/dev/null
true
"""


@dataclass(frozen=True)
class GuardedHost:
    """`systems` maps the names of systems.nix to store paths; `scratch` is ours."""

    environment: dict[str, str]
    scratch: Path
    systems: dict[str, str]

    def start(self, module: str, arguments: dict[str, Any], *options: str) -> Deployment:
        """Run one task of the collection on the host; the result is read by `Deployment.result`."""
        tree = self.scratch / f"results-{time.monotonic_ns()}"
        command = [
            *(
                str(ROOT / "lab"),
                "exec",
                "--",
                "ansible",
                "all",
                "-i",
                f"{ADDRESS},",
                "-u",
                "root",
                "--tree",
                str(tree),
            ),
            *("-m", f"fediversity.hosting.{module}", "-a", json.dumps(arguments), *options),
        ]
        output = tree.with_suffix(".txt")
        with output.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command, env=self.environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, cwd=ROOT
            )
        return Deployment(process, tree / ADDRESS, output)

    def begin(self, name: str, **options: Any) -> Deployment:
        limits = {"confirm_timeout": 5, "activation_timeout": 20, "connect_timeout": 60}
        return self.start("nixos_rebuild", {"system": self.systems[name], **limits, **options})

    def deploy(self, name: str, **options: Any) -> dict[str, Any]:
        return self.begin(name, **options).result()

    def shell(self, script: str) -> str:
        """Run as root of the host, without its network."""
        command = [str(ROOT / "lab"), "run", HOST, "--", "sh", "-c", script]
        return subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60
        ).stdout

    def power(self, verb: str) -> None:
        subprocess.run([str(ROOT / "lab"), "power", HOST, verb], env=self.environment, check=True, timeout=60)

    def wait_for_phase(self, phase: str) -> None:
        """Until the record has this phase."""
        for _look in range(200):
            if f"\nphase={phase}\n" in self.shell("cat /var/lib/fediversity-guard/transaction 2>/dev/null || true"):
                return
            time.sleep(0.1)
        raise AssertionError(f"phase {phase} never came")

    def make_reachable(self) -> None:
        """A host that a failed test left without a network or with an armed guard is restarted."""
        if self.shell("ip -o -4 address show dev eth0; systemctl is-active ssh; true").count("active") != 1:
            self.power("reset")

    def journal(self) -> str:
        return self.shell("cat /var/lib/fediversity-guard/journal")

    def assert_clean(self, name: str) -> None:
        """Running, committed and default are the named system, and nothing is armed."""
        wanted = self.systems[name]
        for _look in range(20):
            running, profile, _booted, default, *left = self.shell(LOOK).split()
            if not left:
                break
            time.sleep(0.2)
        assert (running, profile, default, left) == (wanted, wanted, wanted, [])

    def handshakes(self) -> int:
        """SSH authentications that the host has seen."""
        return int(self.shell("journalctl -u ssh.service | grep -c 'Accepted publickey' || true"))


@dataclass(frozen=True)
class Deployment:
    """A run of Ansible that may still be under way."""

    process: subprocess.Popen[bytes]
    path: Path
    output: Path

    def result(self) -> dict[str, Any]:
        """Wait for the end and return the task's result."""
        try:
            self.process.wait(timeout=300)
        finally:
            if self.process.poll() is None:
                self.kill()
        if not self.path.exists():
            raise AssertionError(self.output.read_text(encoding="utf-8"))
        result = dict(json.loads(self.path.read_text(encoding="utf-8")))
        return {**result, "failed": self.process.returncode != 0}  # --tree leaves that key out

    def kill(self) -> None:
        """kill -9 of the controller: Ansible, its workers (sessions of their own) and their ssh."""
        for pid in _descendants(self.process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(timeout=30)


def _descendants(root: int) -> list[int]:
    """The process and all that it has started, parents first."""
    table = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True, check=True).stdout
    parents = [tuple(map(int, line.split())) for line in table.splitlines()]
    found = [root]
    for pid in found:
        found += [child for child, parent in parents if parent == pid]
    return found
