# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure half: what is made of the options of a virtual machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.proxmox import cloudinit, config
from lab.proxmox.server import decode_form
from lab.proxmox.store import Option, VirtualMachine

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILs6/eDXVr7LO7criwTcJSGs3XkG7rn8qsRKLJFFEITI ops@lab"
ENCODED = "ssh-ed25519%20AAAAC3NzaC1lZDI1NTE5AAAAILs6%2FeDXVr7LO7criwTcJSGs3XkG7rn8qsRKLJFFEITI%20ops%40lab%0A"


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_size_survives_its_text(size: int) -> None:
    assert config.parse_size(config.format_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"), [(3584 << 20, "3584M"), (2 << 30, "2G"), (1 << 40, "1T"), (1536, "1536"), (0, "0")]
)
def test_the_largest_whole_unit(size: int, text: str) -> None:
    assert config.format_size(size) == text


@given(st.lists(st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_+.-]{0,8}", fullmatch=True)))
def test_tags_are_a_sorted_set_and_stay_so(tags: list[str]) -> None:
    once = config.normalise_tags(",".join(tags))
    assert once.split(";") == (sorted({tag.lower() for tag in tags}) or [""])
    assert config.normalise_tags(once) == once


def test_what_reads_back_differs_from_what_was_sent() -> None:
    assert config.stored("tags", "web,op1 b;web") == "b;op1;web"
    assert config.stored("tags", "") == " "
    assert config.stored("description", "one line\n") == "one line"
    assert config.stored("cores", 2) == 2


def test_only_a_missing_mac_is_added() -> None:
    mac = "BC:24:11:00:00:01"
    assert config.with_mac("bridge=vmbr0,model=virtio,firewall=1", mac) == f"virtio={mac},bridge=vmbr0,firewall=1"
    given_one = "virtio=bc:24:11:aa:bb:cc,bridge=vmbr0,tag=5"
    assert config.with_mac(given_one, mac) == given_one


def test_a_drive_is_the_volume_and_then_its_keys_in_order() -> None:
    drive = config.parse_drive("scsi0", "ssd=1,file=local:100/vm-100-disk-0.qcow2,discard=on")
    assert drive.text() == "local:100/vm-100-disk-0.qcow2,discard=on,ssd=1"
    assert config.parse_drive("ide2", "local:cloudinit").cloudinit
    assert config.parse_drive("ide2", "local:100/vm-100-cloudinit.qcow2,media=cdrom").cloudinit


def test_the_boot_order_of_create_is_disk_cdrom_net() -> None:
    ci = "local:100/vm-100-cloudinit.qcow2,media=cdrom"
    assert config.default_boot({"net0": "virtio", "ide2": ci, "scsi0": "local:100/vm-100-disk-0.raw"}) == (
        "order=scsi0;ide2;net0"
    )
    assert config.default_boot({}) == " "
    assert config.without_device("order=scsi0;net0", "net0") == "order=scsi0"


def test_the_digest_sees_every_part_of_a_configuration() -> None:
    vm = {"memory": "512"}
    digests = {
        config.digest(VirtualMachine(100, "pve1", vm)),
        config.digest(VirtualMachine(100, "pve1", {"memory": "513"})),
        config.digest(VirtualMachine(100, "pve1", vm, pending={"memory": "513"})),
        config.digest(VirtualMachine(100, "pve1", vm, deleted={"memory": 1})),
        config.digest(VirtualMachine(100, "pve1", vm, snapshots={"before": {"memory": "512"}})),
    }
    assert len(digests) == 5


@pytest.mark.parametrize("line", ["# a comment", "ssh-ed25519 AAAA test", "ssh-rsa+AAAA", "nonsense"])
def test_text_that_is_no_public_key(line: str) -> None:
    assert not cloudinit.valid_key(line)


def test_the_guest_is_told_who_it_is() -> None:
    told: dict[str, Option] = {
        "name": "web",
        "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0",
        "ide2": "local:100/vm-100-cloudinit.qcow2,media=cdrom",
        "ciuser": "root",
        "sshkeys": ENCODED,
        "ipconfig0": "ip=10.99.1.10/16,gw=10.99.0.1,ip6=fd99::10/64",
        "nameserver": "10.99.0.11 10.99.0.12",
    }
    assert cloudinit.valid_key(KEY)
    spec = cloudinit.guest_spec("vm-100", 100, told)
    assert spec.hostname == "web"
    assert spec.mac == "bc:24:11:00:00:01"
    assert spec.addresses == ("10.99.1.10/16", "fd99::10/64")
    assert spec.gateway == "10.99.0.1"
    assert spec.nameservers == ("10.99.0.11", "10.99.0.12")
    assert spec.authorized_keys == (KEY,)


def test_without_a_cloudinit_drive_or_as_another_user_root_gets_no_key() -> None:
    told: dict[str, Option] = {"ciuser": "root", "sshkeys": ENCODED, "ipconfig0": "ip=10.99.1.10/16"}
    assert cloudinit.guest_spec("vm-100", 100, told).authorized_keys == ()
    assert cloudinit.guest_spec("vm-100", 100, told).addresses == ()
    other = told | {"ciuser": "ops", "ide2": "local:100/vm-100-cloudinit.qcow2,media=cdrom"}
    assert cloudinit.guest_spec("vm-100", 100, other).authorized_keys == ()


def test_a_form_is_cut_at_raw_equal_signs_and_semicolons() -> None:
    assert decode_form("vmid=101&net0=virtio,bridge=vmbr0") == {"vmid": "101", "net0": "virtio,bridge"}
    assert decode_form("tags=a;b&tags=c+d%3Be&x=") == {"tags": ["a", "c d;e"], "x": ""}
