# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written to a host's disk before it boots."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from lab.disk import Disk, File, identity_files, network_commands, new_machine_files
from lab.identity import Secrets
from lab.launch import FIRST_ID
from lab.services import database_files, nameserver_files

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to the users of a host: root only")

SECRETS = Secrets("pg-password", "dHNpZw==", "garage-token", "proxmox-secret", "root-password")


def test_network_commands_can_be_repeated_and_announce_the_address() -> None:
    assert network_commands(("10.99.1.10/16", "fd99::10/64"), "10.99.0.1").splitlines() == [
        "addr replace 10.99.1.10/16 dev eth0",
        "addr replace fd99::10/64 dev eth0 nodad",
        "link set eth0 up",
        "route replace default via 10.99.0.1 dev eth0",
    ]


def test_a_host_without_gateway_has_no_route() -> None:
    assert "route" not in network_commands(("10.99.1.10/16",), None)


def test_an_ipv6_gateway_is_an_ipv6_route() -> None:
    # in a batch ip(8) takes the family from the address and knows no -6
    assert network_commands((), "fd99::1").splitlines()[-1] == "route replace default via fd99::1 dev eth0"


def test_identity_has_one_authorized_key_per_line() -> None:
    files = {
        file.path: file
        for file in identity_files("web", (), None, ("10.99.0.11",), ("ssh-ed25519 A\n", "ssh-ed25519 B"))
    }
    assert files["/root/.ssh/authorized_keys"].content == "ssh-ed25519 A\nssh-ed25519 B\n"
    assert files["/root/.ssh/authorized_keys"].mode == 0o600
    assert files["/etc/resolv.conf"].content == "nameserver 10.99.0.11\n"


def test_every_machine_has_its_own_host_key_and_machine_id(tmp_path: Path) -> None:
    first, second = (new_machine_files("web", tmp_path) for _unused in range(2))
    assert all(one.content != other.content for one, other in zip(first, second, strict=True))
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_files_get_the_parents_of_the_layers_below(tmp_path: Path) -> None:
    layer, upper = tmp_path / "layer", tmp_path / "upper"
    upper.mkdir()
    (layer / "etc").mkdir(parents=True)
    (layer / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nknot:x:110:115::/:/bin/false\n", encoding="utf-8")
    (layer / "root").mkdir()
    (layer / "root").chmod(0o700)
    os.chown(layer / "root", FIRST_ID, FIRST_ID)
    disk = Disk(upper, (layer,))
    disk.write([File("/root/.ssh/authorized_keys", "key\n", 0o600), File("/etc/knot/knot.conf", "", 0o640, "knot")])
    disk.write([File("/root/.ssh/authorized_keys", "other\n", 0o600)])
    assert (upper / "root").stat().st_mode & 0o777 == 0o700
    assert (upper / "root").stat().st_uid == FIRST_ID
    assert (upper / "root/.ssh").stat().st_uid == FIRST_ID
    assert (upper / "root/.ssh/authorized_keys").read_text(encoding="utf-8") == "other\n"
    assert (upper / "etc/knot/knot.conf").stat().st_uid == FIRST_ID + 110
    assert (upper / "etc/knot/knot.conf").stat().st_gid == FIRST_ID + 115


def test_only_the_database_role_program_has_its_password_and_only_root_reads_it(tmp_path: Path) -> None:
    (tmp_path / "etc/postgresql/15").mkdir(parents=True)
    (tmp_path / "etc/postgresql/9").mkdir()
    files = database_files(SECRETS, tmp_path)
    with_password = [file for file in files if SECRETS.postgresql_password in file.content]
    assert [(file.path, file.mode) for file in with_password] == [("/usr/local/sbin/lab-database-role", 0o700)]
    assert subprocess.run(["sh", "-n"], input=with_password[0].content, text=True, check=False).returncode == 0
    assert any(file.path == "/etc/postgresql/15/main/pg_hba.conf" for file in files)


def test_the_name_server_serves_both_zones_and_its_key_is_not_for_everybody() -> None:
    files = {file.path: file for file in nameserver_files(SECRETS)}
    configuration = files["/etc/knot/knot.conf"]
    assert configuration.content.startswith("server:")
    assert configuration.mode == 0o640
    assert "db1 300 A 10.99.0.10" in files["/var/lib/knot/lab.test.zone"].content
    assert "/var/lib/knot/fedi.test.zone" in files
