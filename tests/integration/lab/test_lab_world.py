# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as a whole: what is in it, what it keeps away from the machine, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import cgroups
from lab.paths import CHECKOUT, State
from lab_command import Lab, until

pytestmark = pytest.mark.lab

DERIVATION = (
    'derivation { name = "x"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo hi > $out" ]; }'
)


def test_everything_answers_and_up_again_changes_nothing(lab: Lab) -> None:
    before = json.loads(lab("status", "--json"))
    assert {host["name"]: host["state"] for host in before["hosts"]} == dict.fromkeys(
        ("db1", "dns1", "existing1"), "running"
    )
    assert lab("exec", "--", "ip", "route") == "10.99.0.0/16 dev br0 proto kernel scope link src 10.99.0.1 \n"
    assert {simulator["state"] for simulator in before["simulators"]} == {"running"}
    lab("up")
    assert json.loads(lab("status", "--json")) == before


def test_the_controller_has_credentials_for_every_service(lab: Lab) -> None:
    proxmox = (
        "curl -sf --cacert $PROXMOX_CA_PATH -H "
        '"Authorization: PVEAPIToken=$PROXMOX_USER!$PROXMOX_TOKEN_ID=$PROXMOX_TOKEN_SECRET" '
        "https://pve1.lab.test:$PROXMOX_PORT/api2/json/nodes"
    )
    assert {row["node"] for row in json.loads(lab.sh(proxmox))["data"]} == {"pve1", "pve2"}
    garage = 'curl -sf -H "Authorization: Bearer $GARAGE_ADMIN_TOKEN" $GARAGE_ADMIN_URL/v2/GetClusterHealth'
    assert json.loads(lab.sh(garage))["status"] == "healthy"
    postgresql = "import psycopg; print(psycopg.connect().execute('SELECT rolsuper FROM pg_roles').fetchone()[0])"
    assert lab("exec", "--", "python", "-c", postgresql) == "True\n"
    update = (
        "import os, dns.query, dns.rcode, dns.tsig, dns.update, socket\n"
        "key = dns.tsig.Key(*(os.environ[f'DNS_TSIG_{name}'] for name in ('NAME', 'SECRET', 'ALGORITHM')))\n"
        "message = dns.update.UpdateMessage('fedi.test', keyring=key)\n"
        "message.replace('new', 60, 'A', '10.99.0.20')\n"
        "print(dns.rcode.to_text(dns.query.tcp(message, os.environ['DNS_SERVER']).rcode()))\n"
        "print(socket.gethostbyname('new.fedi.test'))\n"
    )
    assert lab("exec", "--", "python", "-c", update) == "NOERROR\n10.99.0.20\n"


def test_nix_builds_in_the_worlds_own_store_and_copies_to_a_host(lab: Lab) -> None:
    script = (
        f"path=$(nix-build --no-out-link -E '{DERIVATION}') && "
        'export NIX_SSHOPTS="-i $ANSIBLE_PRIVATE_KEY_FILE $ANSIBLE_SSH_COMMON_ARGS" && '
        "nix copy --to ssh://root@10.99.0.20 $path && echo $path && $ssh root@10.99.0.20 cat $path"
    )
    path, content = lab.sh(script).splitlines()
    assert content == "hi"
    assert (lab.state.nix / path.removeprefix("/nix/")).exists()
    assert not Path(path).exists()


def test_exec_keeps_the_working_directory_and_the_exit_code(lab: Lab, tmp_path: Path) -> None:
    environment = {**os.environ, "LAB_STATE": str(lab.state.root)}
    result = subprocess.run(
        [str(CHECKOUT / "lab"), "exec", "--", "sh", "-c", "pwd; hostname; exit 7"],
        cwd=tmp_path, env=environment, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (7, f"{tmp_path}\ncontroller\n")


def test_a_lab_inside_the_lab_is_the_lab(lab: Lab) -> None:
    assert lab("exec", "--", str(CHECKOUT / "lab"), "run", "db1", "--", "hostname") == "db1\n"
    lab("exec", "--", str(CHECKOUT / "lab"), "down", fails=True)
    assert lab.host("db1")["state"] == "running"


def traces(state: State) -> dict[str, object]:
    """What a lab could leave on the machine, apart from the traces of other labs and processes."""
    place = str(state.root)
    processes = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = entry.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if place.encode() in arguments:
            processes.add(int(entry.parent.name))
    mine = json.loads(state.world.read_text(encoding="utf-8"))["id"] if state.world.exists() else "none"
    return {
        "processes": processes,
        "mounts": [line for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines() if place in line],
        "interfaces": socket.if_nameindex(),
        "control groups": cgroups.lab_directory(mine).exists(),
        "state": state.root.exists(),
        "nix": Path("/nix").exists(),
        "resolver": Path("/etc/resolv.conf").read_text(encoding="utf-8"),
        "routes": Path("/proc/net/route").read_text(encoding="ascii"),
    }


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Lab]:
    """A second lab beside the first, not started yet."""
    made = Lab(State(tmp_path / "other lab, with: marks"))
    try:
        yield made
    finally:
        made("down")


def test_nothing_is_left_after_down(lab: Lab, other: Lab) -> None:
    before = traces(other.state)
    other("up")
    lab_id = json.loads(other.state.world.read_text(encoding="utf-8"))["id"]
    running = traces(other.state)
    assert running["processes"]
    assert running["control groups"]
    for kept in ("interfaces", "mounts", "nix", "resolver", "routes"):
        assert running[kept] == before[kept], f"the running lab changes the machine's {kept}"
    other("exec", "--", "sh", "-c", "setsid sleep 1000 </dev/null >/dev/null 2>&1 &")
    other("down")
    assert traces(other.state) == before
    assert not cgroups.lab_directory(lab_id).exists()
    assert lab.host("db1")["state"] == "running"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_nothing(other: Lab, number: signal.Signals) -> None:
    before = traces(other.state)
    environment = {**os.environ, "LAB_STATE": str(other.state.root)}
    with subprocess.Popen(
        [str(CHECKOUT / "lab"), "up"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        until(other.state.world.exists)
        process.send_signal(number)
        assert process.wait(60) == 130
    assert traces(other.state) == before


def test_a_killed_lab_is_cleaned_up_by_the_next_up(other: Lab) -> None:
    other("up", "--no-services")
    world = json.loads(other.state.world.read_text(encoding="utf-8"))
    dead = cgroups.lab_directory(world["id"])
    os.kill(world["pid"], signal.SIGKILL)
    until(lambda: not Path(f"/proc/{world['pid']}").exists())
    # its control groups are still there now, unless another lab has been started since, which removes them too
    other("status", fails=True)
    other("up", "--no-services")
    assert not dead.exists()
    other("status")
