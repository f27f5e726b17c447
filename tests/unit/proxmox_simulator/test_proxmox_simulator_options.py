# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What options become, who may set them, and what a running virtual machine takes at once."""

from __future__ import annotations

from typing import Any

import pytest
from lab.proxmox.store import Timing
from proxmox_harness import QUICK, SECRET, Simulator, Start

VM = "/nodes/pve1/qemu/100"
BOOTED = {"scsi0": "local:0,import-from=local:import/nixos.qcow2", "boot": "order=scsi0", "ostype": "l26"}


def _create(simulator: Simulator, **params: Any) -> dict[str, Any]:
    assert simulator.run("POST", "/nodes/pve1/qemu", vmid=100, **params) == "OK"
    return dict(simulator.data("GET", f"{VM}/config"))


def test_firmware_and_tpm_get_volumes_of_their_own_size(simulator: Simulator) -> None:
    config = _create(
        simulator,
        bios="ovmf",
        machine="q35",
        efidisk0="local:1,efitype=4m,pre-enrolled-keys=1",
        tpmstate0="local:1,version=v2.0",
        scsi0="local:8",
    )
    assert config["efidisk0"] == "local:100/vm-100-disk-0.raw,efitype=4m,ms-cert=2023k,pre-enrolled-keys=1,size=528K"
    assert config["scsi0"] == "local:100/vm-100-disk-1.raw,size=8G"
    assert config["tpmstate0"] == "local:100/vm-100-disk-2.raw,size=4M,version=v2.0"
    assert config["boot"] == "order=scsi0"
    small = "local:100/vm-100-disk-3.raw,size=128K"
    simulator.data("PUT", f"{VM}/config", efidisk0="local:1")
    assert simulator.data("GET", f"{VM}/config")["efidisk0"] == small
    refused = simulator.send("PUT", f"{VM}/config", tpmstate0="local:100/vm-100-disk-2.raw,version=v1.2")
    assert refused.reason == "cannot change TPM state version after creation"


def test_every_option_that_a_client_may_send_reads_back(simulator: Simulator) -> None:
    given = {
        "sockets": 2, "cores": 4, "vcpus": 3, "cpu": "x86-64-v2-AES,flags=+aes", "cpulimit": "1.5", "cpuunits": 200000,
        "numa": 1, "memory": "2048", "balloon": 1024, "shares": 500, "scsihw": "virtio-scsi-single", "vga": "std",
        "hotplug": "network,disk,cpu,memory", "protection": 0, "startup": "order=2,up=5,down=10", "citype": "nocloud",
        "cicustom": "vendor=local:snippets/a.yml", "ipconfig31": "ip6=auto", "smbios1": "uuid=" + SECRET,
        "scsi30": "local:1,cache=writeback,discard=on,ssd=on,iothread=1,aio=threads,backup=0,replicate=0,ro=1",
        "virtio15": "local:1,iothread=yes", "sata5": "local:1", "ide3": "none,media=cdrom",
        "net31": "bridge=vmbr0,model=virtio,mtu=1400,queues=4,rate=12.5,link_down=1,trunks=2;4-6",
    }  # fmt: skip
    config = _create(simulator, **given)
    same = ("sockets", "cores", "vcpus", "cpu", "cpulimit", "memory", "balloon", "shares", "startup", "smbios1")
    assert {name: config[name] for name in same} == {name: given[name] for name in same}
    assert config["cpuunits"] == 10000
    keys = "aio=threads,backup=0,cache=writeback,discard=on,iothread=1,replicate=0,ro=1,size=1G,ssd=1"
    assert config["scsi30"].partition(",")[2] == keys
    assert config["virtio15"].endswith(",iothread=1,size=1G")
    model, _unused, rest = config["net31"].partition(",")
    assert model.startswith("virtio=BC:24:11:")
    assert rest == "bridge=vmbr0,link_down=1,mtu=1400,queues=4,rate=12.5,trunks=2;4-6"


def test_own_generation_id_and_identity_are_kept(simulator: Simulator) -> None:
    simulator.run("POST", "/nodes/pve1/qemu", vmid=100, smbios1=f"uuid={SECRET},serial=QUJD,base64=1")
    assert simulator.as_root("PUT", f"{VM}/config", vmgenid=SECRET).ok
    config = simulator.data("GET", f"{VM}/config")
    assert (config["smbios1"], config["vmgenid"]) == (f"uuid={SECRET},serial=QUJD,base64=1", SECRET)
    assert simulator.run("POST", f"{VM}/clone", newid=101) == "OK"
    copy = simulator.data("GET", "/nodes/pve1/qemu/101/config")
    assert copy["vmgenid"] != SECRET
    assert copy["smbios1"].startswith("base64=1,serial=QUJD,uuid=")
    assert SECRET not in copy["smbios1"]


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"vmgenid": SECRET}, "only root can set 'vmgenid' config"),
        ({"affinity": "0-1"}, "only root can set 'affinity' config"),
        ({"hostpci0": "0000:01:00.0"}, "only root can set 'hostpci0' config for non-mapped devices"),
        ({"usb0": "host=1234:5678"}, "only root can set 'usb0' config for real devices"),
        ({"usb0": "usb3=1"}, "either 'host' or 'mapping' must be set."),
        ({"serial0": "/dev/ttyS0"}, "only root can set 'serial0' config for real devices"),
        ({"ide2": "local:cloudinit", "ide3": "local:cloudinit"}, None),
    ],
)
def test_what_a_token_of_root_may_not_create(simulator: Simulator, params: dict[str, str], reason: str | None) -> None:
    answer = simulator.send("POST", "/nodes/pve1/qemu", vmid=100, **params)
    if reason is None:
        text = "unable to create VM 100 - ide2 - cloud-init drive is already attached at 'ide3'"
        assert simulator.wait(answer.json()["data"]) == text
    else:
        assert (answer.status_code, answer.reason) == (500, reason)
    assert simulator.data("GET", "/nodes/pve1/qemu") == []


def test_mapped_devices_and_spice_are_for_tokens_too(simulator: Simulator) -> None:
    config = _create(simulator, hostpci0="mapping=gpu,pcie=1", usb0="spice", serial0="socket")
    assert (config["hostpci0"], config["usb0"]) == ("mapping=gpu,pcie=1", "spice")
    found = simulator.data("GET", f"{VM}/migrate")
    assert found["not_allowed_nodes"] == {"pve2": {"unavailable-resources": ["hostpci0"]}}


@pytest.mark.parametrize(
    ("cpu", "problem"),
    [
        ("hots", "Built-in cputype 'hots' is not defined (missing 'custom-' prefix?)\n"),
        ("custom-mine", "Custom cputype 'mine' not found\n"),
        ("host,reported-model=kvm64", "Property 'reported-model' not allowed in VM-specific CPU config.\n"),
    ],
)
def test_a_processor_that_nobody_knows(simulator: Simulator, cpu: str, problem: str) -> None:
    answer = simulator.send("POST", "/nodes/pve1/qemu", vmid=100, cpu=cpu)
    assert answer.json()["errors"] == {"cpu": f"invalid format - {problem}"}


def test_windows_gets_the_machine_version_of_the_moment(simulator: Simulator) -> None:
    assert _create(simulator, ostype="win11", machine="q35")["machine"].startswith("pc-q35-")


def test_protection_holds_disks_too(simulator: Simulator) -> None:
    _create(simulator, scsi0="local:1", protection=1)
    refused = simulator.send("PUT", f"{VM}/config", delete="scsi0")
    assert refused.reason == "can't remove drive 'scsi0' - protection mode enabled"


def test_a_drive_is_deleted_with_its_volume_by_force(simulator: Simulator) -> None:
    _create(simulator, scsi0="local:1")
    simulator.data("PUT", f"{VM}/unlink", idlist="scsi0", force=1)
    assert "unused0" not in simulator.data("GET", f"{VM}/config")
    assert simulator.data("GET", "/nodes/pve1/storage/local/content", content="images") == []


# --- running ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(simulator: Simulator) -> Simulator:
    """VM 100 runs and has no operating system: nobody in it gives up a device."""
    _create(simulator, scsi1="local:1", net0="virtio,bridge=vmbr0,tag=5", ide2="local:cloudinit", ciuser="ops")
    assert simulator.run("POST", f"{VM}/status/start") == "OK"
    return simulator


def _pending(simulator: Simulator) -> dict[str, Any]:
    rows = simulator.data("GET", f"{VM}/pending")
    return {row["key"]: row.get("pending", row.get("delete")) for row in rows if "pending" in row or "delete" in row}


def test_a_guest_that_does_not_answer_keeps_its_devices(running: Simulator) -> None:
    answer = running.send("PUT", f"{VM}/config", delete="net0")
    problem = "hotplug problem - error on hot-unplugging device 'net0' - still busy in guest?\n"
    assert (answer.status_code, answer.json()["errors"]) == (400, {"net0": problem})
    assert _pending(running) == {"net0": 1, "boot": "order=scsi1;ide2"}
    refused = running.send("PUT", f"{VM}/config", delete="scsi1")
    assert refused.json()["errors"] == {"scsi1": "hotplug problem - can't unplug bootdisk 'scsi1'"}


@pytest.mark.parametrize(
    ("params", "waits"),
    [
        ({"net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0"}, None),
        ({"cpuunits": 50, "cpulimit": 2, "balloon": 256, "tags": "x"}, False),
        ({"cores": 2, "bios": "ovmf", "agent": 1, "sata0": "none,media=cdrom"}, True),
        ({"scsi2": "local:1", "virtio0": "local:1", "net1": "virtio,bridge=vmbr0"}, False),
    ],
)
def test_what_a_running_virtual_machine_takes_at_once(
    running: Simulator, params: dict[str, Any], waits: bool | None
) -> None:
    answer = running.send("PUT", f"{VM}/config", **params)
    if waits is None:  # another MAC is another device
        assert answer.status_code == 400
        return
    assert answer.status_code == 200
    assert {name: name in _pending(running) for name in params} == dict.fromkeys(params, waits)


def test_a_disk_option_waits_and_a_vlan_does_not(running: Simulator) -> None:
    disk = "local:100/vm-100-disk-0.raw"
    running.data("PUT", f"{VM}/config", scsi1=f"{disk},discard=on")
    assert _pending(running) == {"scsi1": f"{disk},discard=on,size=1G"}
    mac = running.data("GET", f"{VM}/config")["net0"].split(",")[0]
    running.data("PUT", f"{VM}/config", net0=f"{mac},bridge=vmbr0,tag=6", revert="scsi1")
    assert _pending(running) == {}


def test_cloudinit_options_count_at_once_but_the_guest_learns_them_later(running: Simulator) -> None:
    running.data("PUT", f"{VM}/config", ciuser="admin", nameserver="10.99.0.11")
    assert running.data("GET", f"{VM}/config", current=1)["ciuser"] == "admin"
    rows = {row["key"]: row for row in running.data("GET", f"{VM}/cloudinit")}
    assert rows["ciuser"] == {"key": "ciuser", "value": "ops", "pending": "admin"}
    assert rows["nameserver"] == {"key": "nameserver", "pending": "10.99.0.11"}
    running.data("PUT", f"{VM}/cloudinit")
    assert {"key": "ciuser", "value": "admin"} in running.data("GET", f"{VM}/cloudinit")


def test_a_password_is_hashed_by_a_change(running: Simulator) -> None:
    running.data("PUT", f"{VM}/config", cipassword="plain")
    assert "plain" not in running.data("GET", f"{VM}/cloudinit/dump", type="user")
    assert running.data("GET", f"{VM}/config")["cipassword"] == "**********"


def test_a_change_that_takes_too_long_is_answered_596_and_goes_on(start: Start) -> None:
    simulator = start(timing=Timing(**{**vars(QUICK), "proxy": 0.1, "image_copy": 10, "lock": 20}))
    _create(simulator)
    answer = simulator.send("PUT", f"{VM}/config", scsi0=BOOTED["scsi0"])
    assert (answer.status_code, answer.reason, answer.content) == (596, "Connection timed out", b"")
    assert simulator.data("POST", f"{VM}/config", name="later", background_delay=30) is None
    assert simulator.data("GET", f"{VM}/config")["scsi0"] == "local:100/vm-100-disk-0.qcow2,size=2G"
