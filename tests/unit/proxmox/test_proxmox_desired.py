# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options are refused with the machine and the field, one item at a time."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.arguments import VM
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.desired import (
    desired_machine,
    desired_machines,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import GIB, Disk, VmDesired

DISK = {"storage": "local", "import_from": "local:import/nixos.qcow2"}


def refused(**fields: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        desired_machine({"name": "web", **fields})
    return str(caught.value)


@pytest.mark.parametrize("name", ["Web", "a.b", "-a", "a" * 64, "", "a b", "ü", "web\n"])
def test_a_name_must_be_a_dns_label(name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        desired_machine({"name": name})


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"cores": 0}, "cores"),
        ({"memory": -1}, "memory"),
        ({"memory": 8}, "memory"),
        ({"vmid": 99}, "vmid"),
        ({"node": "../pve1"}, "node"),
        ({"node": ".."}, "node"),
        ({"pool": "a b"}, "pool"),
        ({"tags": ["Upper"]}, "tags"),
        ({"tags": ["a;b"]}, "tags"),
        ({"tags": ["fediversity-machine-other"]}, "tags"),
        ({"description": "x" * 8193}, "description"),
        ({"disk": {**DISK, "size": 0}}, "disk, size"),
        ({"disk": {**DISK, "import_from": "/etc/shadow"}}, "disk, import_from"),
        ({"disk": {**DISK, "storage": "local,format=raw"}}, "disk, storage"),
        ({"networks": [{"bridge": "vmbr0"}, {"bridge": "vmbr0,mac=x"}]}, r"networks\[1\], bridge"),
        ({"networks": [{"bridge": "vmbr0", "tag": 4095}]}, r"networks\[0\], tag"),
        ({"networks": [{"bridge": "vmbr0", "model": "ne9000"}]}, r"networks\[0\], model"),
        ({"networks": [{"bridge": "vmbr0", "mac": "01:24:11:00:00:00"}]}, r"networks\[0\], mac"),
        ({"cloud_init": {"user": "a b"}}, "cloud_init, user"),
        ({"cloud_init": {"ssh_keys": ["ssh-ed25519 AAAA\nssh-rsa BBBB"]}}, "cloud_init, ssh_keys"),
        ({"cloud_init": {"ssh_keys": ["# none"]}}, "cloud_init, ssh_keys"),
        ({"cloud_init": {"addresses": ["10.0.0.5"]}}, "cloud_init, addresses"),
        ({"cloud_init": {"addresses": ["10.0.0.5/33"]}}, "cloud_init, addresses"),
        ({"cloud_init": {"addresses": ["10.0.0.5/24", "dhcp"]}}, "cloud_init, addresses"),
        ({"cloud_init": {"addresses": ["dhcp"], "gateway": "10.0.0.1"}}, "cloud_init, gateway"),
        ({"cloud_init": {"gateway": "10.0.0.1"}}, "cloud_init, gateway"),
        ({"cloud_init": {"addresses": ["10.0.0.5/24"], "gateway": "10.0.1.1"}}, "cloud_init, gateway"),
        ({"cloud_init": {"addresses": ["10.0.0.5/24"], "gateway6": "fd00::1"}}, "cloud_init, gateway6"),
        ({"cloud_init": {"nameservers": ["dns.example.org"]}}, "cloud_init, nameservers"),
        ({"cloud_init": {"search_domains": ["a b"]}}, "cloud_init, search_domains"),
        ({"cloud_init": {"password_hash": "secret"}}, "cloud_init, password_hash"),
        ({"template": True}, "power"),
        ({"power": "reset"}, "power"),
        ({"clone": {"vmid": 5}}, "clone, vmid"),
        ({"clone": {"vmid": 100}, "disk": DISK}, "clone"),
        ({"cpu": "host,flags=+aes"}, "cpu"),
        ({"cpu_limit": 129.0}, "cpu_limit"),
        ({"scsi_controller": "nvme"}, "scsi_controller"),
        ({"boot_order": ["scsi0;net0"]}, "boot_order"),
        ({"hotplug": ["everything"]}, "hotplug"),
        ({"startup": {"order": -1}}, "startup, order"),
        ({"disks": [{"slot": "scsi31", "size": 1}]}, r"disks\[0\], slot"),
        ({"disks": [{"slot": "scsi1"}, {"slot": "scsi1"}]}, "disks"),
        ({"disk": DISK, "disks": [{"slot": "scsi0"}]}, "disks"),
        ({"disks": [{"slot": "scsi1", "options": {"file": "local:1/x"}}]}, r"disks\[0\], options"),
        ({"disks": [{"slot": "scsi1", "options": {"serial": "a,b=c"}}]}, r"disks\[0\], options"),
        ({"efi_disk": {"storage": "a b"}}, "efi_disk, storage"),
        ({"networks": [{"bridge": "vmbr0", "trunks": [0]}]}, r"networks\[0\], trunks"),
        ({"networks": [{"bridge": "vmbr0", "rate": -1.0}]}, r"networks\[0\], rate"),
        (
            {
                "networks": [{"bridge": "vmbr0", "addresses": ["dhcp"]}],
                "cloud_init": {"addresses": ["10.0.0.5/24"]},
            },
            "cloud_init, addresses",
        ),
        ({"options": {"memory": "512"}}, "options"),
        ({"options": {"scsi3": "local:1"}}, "options"),
        ({"options": {"vmgenid": "0"}}, "options"),
        ({"options": {"A=b": "c"}}, "options"),
        ({"options": {"ide0": "local:1"}}, "options, ide0"),
        ({"options": {"ide0": "local:1,media=cdrom"}}, "options, ide0"),
        ({"options": {"ide0": "local:cloudinit,media=cdrom"}}, "options, ide0"),
        ({"options": {"ide2": "none,media=cdrom"}}, "options"),
        ({"options": {"cdrom": "local:iso/x.iso"}}, "options"),
        ({"disks": [{"slot": "ide2", "storage": "local", "size": 1}]}, r"disks\[0\], slot"),
        ({"rollback": "a b"}, "rollback"),
        ({"placement": {"nodes": []}}, "placement, nodes"),
    ],
)
def test_a_bad_value_is_refused_with_machine_and_field(fields: dict[str, Any], place: str) -> None:
    import re

    assert re.search(f"^VM web, {place}: ", refused(**fields))


def test_good_values_are_typed() -> None:
    vm = desired_machine(
        {
            "name": "web",
            "disk": {**DISK, "size": 20},
            "networks": [{"bridge": "vmbr0", "mac": "bc:24:11:00:00:01"}],
            "cloud_init": {
                "addresses": ["fd00:0:0::5/64", "10.0.0.5/24"],
                "gateway": "10.0.0.1",
                "gateway6": "fd00::1",
            },
            "tags": ["op1"],
            "description": "{{ 7*7 }} '' ${x} \n\n",
        }
    )
    assert vm.disks == (Disk(storage="local", import_from="local:import/nixos.qcow2", size=20 * GIB),)
    assert vm.networks is not None
    assert vm.networks[0].mac == "BC:24:11:00:00:01"
    assert vm.settings["addresses"] == ["10.0.0.5/24 via 10.0.0.1", "fd00::5/64 via fd00::1"]
    assert vm.tags == {"op1", "fediversity", "fediversity-machine-web"}
    assert vm.settings["description"] == "{{ 7*7 }} '' ${x} "


@pytest.mark.parametrize(
    "text", ["none,media=cdrom", "media=cdrom,file=cdrom", "local:iso/a.iso,media=cdrom", None, ""]
)
def test_a_cd_drive_may_be_a_raw_option(text: str | None) -> None:
    assert desired_machine({"name": "web", "options": {"ide0": text}}).raw == {"ide0": text}


def test_what_is_not_given_is_not_managed() -> None:
    bare = VmDesired("web", settings={"name": "web"})
    assert desired_machine({"name": "web"}) == bare
    # as the module gives it, all other options being null
    filled = {key: spec.get("default") for key, spec in VM.items()}
    assert desired_machine({**filled, "name": "web"}) == bare


def test_a_refused_password_is_not_told() -> None:
    assert "hunter2" not in refused(cloud_init={"password_hash": "hunter2"})
    vm = desired_machine({"name": "web", "cloud_init": {"password_hash": "$6$salt$hash"}})
    assert (vm.password_hash, "$6$" in repr(vm)) == ("$6$salt$hash", False)


def test_one_bad_item_does_not_spoil_the_others() -> None:
    bad, good = desired_machines([{"name": "Bad One"}, {"name": "good", "cores": 2}])
    assert (bad.name, type(bad.problem)) == ("Bad One", InvalidInput)
    assert (good.problem, good.settings["cores"]) == (None, 2)


@pytest.mark.parametrize(
    "items", [[{"name": "a"}, {"name": "a"}], [{"name": "a", "vmid": 100}, {"name": "b", "vmid": 100}]]
)
def test_an_ambiguous_list_is_refused_as_a_whole(items: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidInput, match="more than once"):
        desired_machines(items)
