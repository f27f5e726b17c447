# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts: real machines as far as a deployment can tell, and powerless towards the machine that carries them."""

from __future__ import annotations

import json

import pytest
from lab.launch import FIRST_ID
from lab_command import Lab, until

pytestmark = pytest.mark.lab

EXISTING = "root@10.99.0.20"


def test_a_host_runs_systemd_and_knows_its_names(lab: Lab) -> None:
    until(lambda: "running" in lab("run", "existing1", "--", "sh", "-c", "systemctl is-system-running || true"))
    assert lab("run", "existing1", "--", "cat", "/proc/1/comm") == "systemd\n"
    assert lab.sh(f"$ssh {EXISTING} 'hostname; getent hosts db1.lab.test'").split() == [
        "existing1", "10.99.0.10", "db1.lab.test",
    ]  # fmt: skip


def test_a_reboot_keeps_the_disk_and_loses_the_rest(lab: Lab, existing: str) -> None:
    lab.sh(f"$ssh {EXISTING} 'touch /root/disk /run/memory'")
    init = lab.ask("init", name=existing)
    lab.sh(f"$ssh {EXISTING} reboot; true")
    until(lambda: lab.ask("init", name=existing) != init)
    lab.sh(f"until $ssh {EXISTING} true; do sleep 0.1; done")
    assert lab.sh(f"$ssh {EXISTING} 'ls /root/disk /run/memory 2>/dev/null; true'") == "/root/disk\n"


def test_power_verbs(lab: Lab, existing: str) -> None:
    lab("power", existing, "suspend")
    assert lab.host(existing)["state"] == "paused"
    lab.sh(f"timeout 2 $ssh {EXISTING} true", fails=True)
    lab("power", existing, "reset")
    assert lab.host(existing)["state"] == "running"
    lab.sh(f"until $ssh {EXISTING} true; do sleep 0.1; done")
    lab("power", existing, "shutdown")
    until(lambda: lab.host(existing)["state"] == "stopped")
    lab("run", existing, "--", "true", fails=True)
    lab("power", existing, "start")
    lab("power", existing, "stop")
    assert lab.host(existing)["state"] == "stopped"


def test_a_host_that_halts_itself_is_stopped_and_one_that_crashes_comes_back(lab: Lab, existing: str) -> None:
    init = lab.ask("init", name=existing)
    lab.attempt("run", existing, "--", "reboot", "-ff")
    until(lambda: lab.host(existing)["state"] == "running" and lab.ask("init", name=existing) != init)
    lab.attempt("run", existing, "--", "poweroff", "-ff")
    until(lambda: lab.host(existing)["state"] == "stopped")


def test_a_cut_cable_stays_cut_over_a_reset(lab: Lab, existing: str) -> None:
    lab("cut", existing)
    assert lab.host(existing)["cut"]
    lab.sh(f"$ssh {EXISTING} true", fails=True)
    lab("power", existing, "reset")
    lab.sh(f"$ssh {EXISTING} true", fails=True)
    assert lab("run", existing, "--", "hostname") == "existing1\n"
    lab("uncut", existing)
    lab.sh(f"until $ssh {EXISTING} true; do sleep 0.1; done")


def test_a_cut_network_is_silent_and_the_host_sees_nothing_of_it(lab: Lab, existing: str) -> None:
    lab.sh(f"$ssh -f -N -M -S /run/master {EXISTING} 2>/dev/null")
    lab("network", existing, "cut")
    assert "network cut" in lab("status")
    lab.sh(f"timeout -s KILL 2 $ssh -S /run/master {EXISTING} 'touch /root/heard' >/dev/null 2>&1", fails=True)
    assert "timed out" in lab.attempt("exec", "--", "ssh", "-o", "ConnectTimeout=1", EXISTING, "true").stderr
    look = "ip neigh flush dev eth0; ssh-keyscan -T 1 10.99.0.1; ip route get 10.99.0.1; ip neigh show 10.99.0.1"
    seen = lab("run", existing, "--", "sh", "-c", f"cat /sys/class/net/eth0/carrier; {look} 2>/dev/null; ls /root")
    assert seen.startswith("1\n")
    assert "REACHABLE" in seen
    assert "heard" not in seen
    assert "#" in lab("run", existing, "--", "sh", "-c", "ssh-keyscan -T 2 10.99.0.11 2>&1")
    lab("power", existing, "reset")
    until(lambda: "active" in lab("run", existing, "--", "sh", "-c", "systemctl is-active ssh || true"))
    lab.sh(f"timeout 2 $ssh {EXISTING} true", fails=True)
    lab("network", existing, "restore")
    assert lab.sh(f"$ssh {EXISTING} hostname") == "existing1\n"
    assert "network cut" not in lab("status")


def test_a_full_file_system_has_no_free_block_and_keeps_what_was_written_before(lab: Lab, existing: str) -> None:
    switch = "/nix/var/nix/profiles/system/bin/switch-to-configuration boot"
    for part in ("nix", "var", "boot"):
        lab("fill", existing, part)
    script = (
        "for path in /nix /var/lib /boot; do head -c 5000 /dev/zero > $path/big || echo full; rm $path/big; done; "
        f"ln -s kept /nix/link; nix-store --add /etc/hostname || echo no store; {switch} || echo no loader; true"
    )
    assert lab("run", existing, "--", "sh", "-c", script).split("\n") == [*["full"] * 3, "no store", "no loader", ""]
    lab("unfill", existing, "boot")
    lab("run", existing, "--", "sh", "-c", f"rm /boot/loader/loader.tmp; {switch}")
    lab("fill", existing, "nix", "--leave", "300")
    lab("run", existing, "--", "sh", "-c", "nix-store --add /etc/hostname")
    lab("power", existing, "reset")
    lab.sh(f"until $ssh {EXISTING} true; do sleep 0.1; done")
    after = "readlink /nix/link; nix-store --verify --check-contents; ls /boot/loader; findmnt -no FSTYPE -T /boot"
    assert lab("run", existing, "--", "sh", "-c", after).split() == ["kept", "entries", "loader.conf", "overlay"]
    lab("run", existing, "--", "rm", "/nix/link")


def test_added_hosts_are_like_existing1(lab: Lab) -> None:
    names = ["further1", "further2", "further3"]
    try:
        lab("host", "add", *names[:2])
        lab("host", "add", "further1", fails=True)
        lab("host", "add", "db1", fails=True)
        lab("host", "add", names[2])
        assert (
            lab.sh("for n in 21 22 23; do $ssh -o StrictHostKeyChecking=yes root@10.99.0.$n hostname; done").split()
            == names
        )
        lab("host", "remove", "further1")
        lab("host", "remove", "existing1", fails=True)
        lab("host", "add", "further1")
        assert lab.sh("$ssh -o StrictHostKeyChecking=yes root@10.99.0.21 hostname") == "further1\n"
        runs = [lab.start("power", name, "reset") for name in names]
        assert [run.wait(60) for run in runs] == [0] * 3
        lab.sh("for n in 21 22 23; do until $ssh root@10.99.0.$n true; do sleep 0.1; done; done")
    finally:
        lab("host", "remove", *(name for name in names if name in lab("status")))


def test_the_boot_loader_starts_the_entry_asked_for_once(lab: Lab, existing: str) -> None:
    script = (
        "set -e; old=$(readlink -f /run/current-system); profiles=/nix/var/nix/profiles/system-profiles; "
        "cp -r $old /tmp/candidate; chmod -R u+w /tmp/candidate; echo candidate > /tmp/candidate/nixos-version; "
        "new=$(nix-store --add /tmp/candidate); mkdir -p $profiles; nix-env -p $profiles/candidate --set $new; "
        "$old/bin/switch-to-configuration boot; bootctl set-oneshot nixos-candidate-generation-1.conf; echo $old $new"
    )
    before, candidate = lab("run", existing, "--", "sh", "-c", script).split()
    for expected in (candidate, before):
        lab("power", existing, "reset")
        lab.sh(f"until $ssh {EXISTING} true; do sleep 0.1; done")
        assert lab("run", existing, "--", "readlink", "/run/booted-system") == f"{expected}\n"


def test_a_virtual_machine_from_definition_to_removal(lab: Lab) -> None:
    name, key = "vm-900", lab.state.ssh_key.with_suffix(".pub").read_text(encoding="utf-8")
    spec = {
        "name": name, "hostname": "fresh", "mac": "02:00:00:00:09:00",
        "addresses": ["10.99.1.200/16", "fd99::1:200/64"], "gateway": "10.99.0.1", "nameservers": ["10.99.0.11"],
        "authorized_keys": [key],
    }  # fmt: skip
    lab.ask("define", spec=spec)
    assert lab.host(name)["state"] == "stopped"
    lab.ask("power", name=name, action="start")
    lab.sh("until $ssh root@fd99::1:200 true; do sleep 0.1; done")
    assert lab.sh("$ssh root@10.99.1.200 'hostname; cat /sys/class/net/eth0/address'") == f"fresh\n{spec['mac']}\n"
    ping = (
        "import json, socket\n"
        "agent = socket.socket(socket.AF_UNIX)\n"
        f"agent.connect('/run/lab/share/{name}/agent.sock')\n"
        "agent.sendall(json.dumps({'execute': 'guest-get-host-name'}).encode())\n"
        "print(json.loads(agent.makefile().readline())['return']['host-name'])\n"
    )
    assert lab("exec", "--", "python", "-c", ping) == "fresh\n"
    lab.ask("remove", name=name)
    assert name not in lab("status")
    assert not (lab.state.hosts / name).exists()
    lab("power", name, "start", fails=True)


def test_root_of_a_host_has_no_power_over_the_machine(lab: Lab) -> None:
    attempts = {
        "make a device": "mknod /root/disk b 254 0",
        "set the clock": "date -s 2020-01-01",
        "read the log of the kernel": "dmesg",
        "change a kernel setting": "echo 1 > /proc/sys/vm/drop_caches",
        "mount a disk": "mount -t ext4 /dev/vda /mnt",
    }
    script = "\n".join(f"if ({command}) >/dev/null 2>&1; then echo '{name}'; fi" for name, command in attempts.items())
    assert lab("run", "existing1", "--", "sh", "-c", script) == ""
    ids = lab("run", "existing1", "--", "cat", "/proc/self/uid_map").split()
    assert ids == ["0", str(FIRST_ID), "65536"]
    mounts = lab("run", "existing1", "--", "cat", "/proc/self/mountinfo")
    assert {line.split()[4] for line in mounts.splitlines() if " - ext4 " in line} == set()


def test_ten_hosts_beside_the_services(lab: Lab) -> None:
    names = [f"vm-{number}" for number in range(910, 920)]
    try:
        for number, name in enumerate(names):
            spec = {
                "name": name, "hostname": name, "mac": f"02:00:00:00:0a:{number:02x}",
                "addresses": [f"10.99.2.{10 + number}/16"], "gateway": None, "nameservers": [], "authorized_keys": [],
            }  # fmt: skip
            lab.ask("define", spec=spec)
            lab.ask("power", name=name, action="start")
        states = {row["name"]: row["state"] for row in json.loads(lab("status", "--json"))["hosts"]}
        assert [states[name] for name in names] == ["running"] * 10
        for number in range(10):
            lab.sh(f"until bash -c '</dev/tcp/10.99.2.{10 + number}/22' 2>/dev/null; do sleep 0.1; done")
    finally:
        for name in names:
            lab.ask("remove", name=name)
