# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One lab host and what a controller does with it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
HOST, ADDRESS = "existing1", "10.99.0.20"
SYSTEMS = ROOT / "tests/integration/guard/systems.nix"
LOOK = r"""
readlink -f /run/current-system /nix/var/nix/profiles/system /run/booted-system
entry=$(sed -n 's/^default //p' /boot/loader/loader.conf)
sed -n 's|^options init=\([^ ]*\)/init.*|\1|p' "/boot/loader/entries/$entry"
systemctl list-units --all --plain --no-legend 'fediversity-guard*' |
    awk '$1 !~ /^fediversity-guard-boot/ || $3 == "activating" || $4 == "running" { print $1 }' # the system's own, done
ls /run/fediversity-guard/ | grep -v '^lock$'
ls -d /nix/var/nix/gcroots/fediversity-guard 2>/dev/null
true
"""
STORY = "cat /var/lib/fediversity-guard/transaction; tail -n 20 /var/lib/fediversity-guard/journal"
ENDED = """
sed -n 's/^phase=//p' /var/lib/fediversity-guard/transaction
tail -n 1 /var/lib/fediversity-guard/journal | cut -d' ' -f4
[ ! -e /run/fediversity-guard/lock ] || flock -n /run/fediversity-guard/lock true || echo locked
"""

# for `program`: /usr/bin/sync that stops the installer of the lab's boot loader when it has written everything
IN_LOADER = '[ "$*" != \'-f /nix/store\' ] || sleep 20\nexec /run/lab-real "$@"'


def start_lab(directory: Path, *names: str) -> list[GuardedHost]:
    """A lab of our own in `directory`, with existing1 and hosts of these names, each running its system `base`."""
    environment = {**os.environ, "LAB_STATE": str(directory / "lab")}
    environment.pop("LAB_KEEP", None)
    lab = str(ROOT / "lab")
    subprocess.run([lab, "up"], env=environment, check=True, timeout=600, stdout=subprocess.DEVNULL)
    if names:
        subprocess.run([lab, "host", "add", *names], env=environment, check=True, timeout=120)
    status = subprocess.run([lab, "status", "--json"], env=environment, check=True, timeout=60, stdout=subprocess.PIPE)
    hosts = []
    for host in json.loads(status.stdout)["hosts"]:
        if host["name"] in (HOST, *names):
            address = host["addresses"][0].partition("/")[0]
            systems = build_systems(environment, host["name"], address)
            hosts.append(GuardedHost(environment, directory, systems, host["name"], address))
    for run in [host.begin("base", activation_timeout=60, replace_unknown=True) for host in hosts]:
        result = run.result()
        assert not result["failed"], result
    return hosts


def stop_lab(directory: Path) -> None:
    environment = {**os.environ, "LAB_STATE": str(directory / "lab")}
    subprocess.run([ROOT / "lab", "down"], env=environment, check=True, timeout=120)


def build_systems(environment: dict[str, str], name: str, address: str) -> dict[str, str]:
    """Build every system of systems.nix for a host; name → store path."""
    arguments = (
        f'--arg nixpkgs "$FEDIVERSITY_NIXPKGS" --argstr name {name} --argstr address {address} '
        '--argstr key "$(cat "$FEDIVERSITY_AUTHORIZED_KEYS_FILE")"'
    )
    script = (
        f"nix-build --no-out-link {SYSTEMS} {arguments} >/dev/null && "
        f"nix-instantiate --eval --strict --json {SYSTEMS} {arguments}"
    )
    command = [ROOT / "lab", "exec", "--", "sh", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@dataclass(frozen=True)
class GuardedHost:
    """`systems` maps the names of systems.nix to store paths; `scratch` is ours; `old` is the system that runs."""

    environment: dict[str, str]
    scratch: Path
    systems: dict[str, str]
    name: str
    address: str
    old: str = "base"
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def spare(self) -> str:
        """A good system that does not run."""
        return "other" if self.old == "base" else "base"

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
                f"{self.address},",
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
        return Deployment(process, tree / self.address, output, self.results)

    def begin(self, name: str, **options: Any) -> Deployment:
        limits = {"confirm_timeout": 5, "activation_timeout": 20, "connect_timeout": 60}
        return self.start("nixos_rebuild", {"system": self.systems[name], **limits, **options})

    def deploy(self, name: str, **options: Any) -> dict[str, Any]:
        return self.begin(name, **options).result()

    def shell(self, script: str) -> str:
        """Run as root of the host, without its network."""
        done = self.try_shell(script)
        assert done.returncode == 0, (script, done.stdout)
        return done.stdout

    def try_shell(self, script: str, seconds: int = 120) -> subprocess.CompletedProcess[str]:
        """The same; the script, or the host, may fail, and the host may go down meanwhile."""
        command = [str(ROOT / "lab"), "run", self.name, "--", "sh", "-c", script]
        try:
            return subprocess.run(
                command, env=self.environment, stdout=subprocess.PIPE, text=True, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "")

    def power(self, verb: str) -> None:
        self.lab("power", self.name, verb)

    def lab(self, *words: str) -> None:
        """A command of ./lab."""
        subprocess.run([str(ROOT / "lab"), *words], env=self.environment, check=True, timeout=120)

    def wait_for_phase(self, phase: str) -> None:
        """Until the record has this phase."""
        self.wait_for(f"grep -qx phase={phase} /var/lib/fediversity-guard/transaction 2>/dev/null")

    def wait_for(self, condition: str, seconds: int = 60) -> None:
        """Until a shell command succeeds on the host; a host that is just restarting is asked again."""
        loop = f"for _ in $(seq 20); do {{ {condition}; }} >/dev/null 2>&1 && exit; sleep 0.05; done; exit 1"
        limit = time.monotonic() + seconds
        while self.try_shell(loop, 10).returncode != 0:
            if time.monotonic() > limit:
                raise AssertionError(f"never came true: {condition}\n{self.try_shell(STORY).stdout}")

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

    def assert_ended(self, name: str, phase: str) -> None:
        """The last transaction ended in this phase, in record and journal, on the named system, and let go of all."""
        self.assert_clean(name)
        assert self.shell(ENDED).split() == [phase, phase]

    @contextmanager
    def program(self, path: str, text: str) -> Iterator[None]:
        """Put a shell script in a program's place, until the end or a restart; the program is at /run/lab-real."""
        self.shell(
            f"cp {path} /run/lab-real && printf '#!/bin/sh\n%s\n' {shlex.quote(text)} > /run/lab-fake"
            f" && chmod 0755 /run/lab-fake && mount --bind /run/lab-fake {path}"
        )
        try:
            yield
        finally:
            self.shell(f"umount {path} 2>/dev/null; rm -f /run/lab-real /run/lab-fake")

    def controller(self, command: str) -> None:
        """Run on the lab's controller."""
        self.lab("exec", "--", "sh", "-c", command)

    def handshakes(self) -> int:
        """SSH authentications that the host has seen."""
        return int(self.shell("journalctl -u ssh.service | grep -c 'Accepted publickey' || true"))


@dataclass(frozen=True)
class Deployment:
    """A run of Ansible that may still be under way."""

    process: subprocess.Popen[bytes]
    path: Path
    output: Path
    results: list[dict[str, Any]]

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
        result["failed"] = self.process.returncode != 0  # --tree leaves that key out
        self.results.append(result)
        return result

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


def assert_cut_off(machine: GuardedHost, name: str, method: str, *options: str) -> None:
    """Deploy a system that breaks the contact; it is rolled back by this method."""
    limits = {"confirm_timeout": 4, "activation_timeout": 20, "connect_timeout": 60}
    machine.shell("touch /run/lab-not-restarted")
    run = machine.start("nixos_rebuild", {"system": machine.systems[name], **limits}, *options)
    result = run.result()
    assert result["failed"], result
    assert "no confirmation within" in result["msg"]  # so the fault did cut the contact
    assert (result["phase"], result["rollback"]["method"]) == ("rolled-back", method)
    machine.assert_ended(machine.old, "rolled-back")
    assert machine.shell("cat /etc/guard-test") == f"{machine.old}\n"
    restarted = machine.try_shell("test -e /run/lab-not-restarted").returncode != 0
    assert restarted == (method == "reboot")
