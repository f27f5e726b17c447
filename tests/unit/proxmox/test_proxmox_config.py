# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox notation to typed values and back; comparison; plans that end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    Denied,
    HostingError,
    InvalidInput,
    NotOwned,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import clones, compare, config, create, fields
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.desired import desired_machine
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import (
    GIB,
    NIC_MODELS,
    IpConfig,
    Network,
    VmActual,
    VmDesired,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.order import Send, moves, steps
from hypothesis import given
from hypothesis import strategies as st
from proxmox_server_model import IMAGE_SIZE, actual, after, rows, set_keys

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILs6/eDXVr7LO7criwTcJSGs3XkG7rn8qsRKLJFFEITI ops@lab"

# recorded: GET pending of a VM made by import, as the server ordered and typed it
RECORDED: dict[str, Any] = {
    "description": "managed",
    "kvm": 0,
    "onboot": 1,
    "searchdomain": "lab.test",
    "digest": "45e626060c775ca5aa517542a3da68c07e2d07d7",
    "tags": "fediversity;fediversity-machine-web;op1",
    "scsi0": "local:334/vm-334-disk-0.qcow2,discard=on,size=1600M",
    "ide2": "local:334/vm-334-cloudinit.qcow2,media=cdrom",
    "memory": "640",
    "cores": 1,
    "sshkeys": "ssh-ed25519%20AAAAC3NzaC1lZDI1NTE5AAAAILs6%2FeDXVr7LO7criwTcJSGs3XkG7rn8qsRKLJFFEITI%20ops%40lab",
    "net0": "virtio=BC:24:11:B3:51:9A,bridge=vmbr0",
    "nameserver": "10.98.0.1",
    "name": "web",
    "agent": "enabled=1,fstrim_cloned_disks=1",
    "ciuser": "ops",
    "ipconfig0": "gw=10.98.0.1,ip=10.98.0.90/24",
}


def optional(**strategies: Any) -> Any:
    return st.fixed_dictionaries({}, optional=strategies)


macs = st.lists(st.integers(0, 255), min_size=6, max_size=6).map(
    lambda octets: ":".join(f"{octet:02X}" for octet in [octets[0] & 0xFE, *octets[1:]])
)
bridges = st.from_regex(r"vmbr[0-9]{1,3}", fullmatch=True)
devices = st.builds(
    Network,
    bridge=bridges,
    model=st.sampled_from(NIC_MODELS),
    tag=st.none() | st.integers(1, 4094),
    firewall=st.booleans(),
    mac=macs,
    others=st.sampled_from([(), (("mtu", "1"),), (("mtu", "1400"), ("queues", "2"))]),
)
networks = st.builds(
    lambda bridge, rest: {"bridge": bridge, **rest},
    bridges,
    optional(
        model=st.sampled_from(NIC_MODELS),
        tag=st.integers(1, 4094),
        firewall=st.booleans(),
        mac=macs,
        trunks=st.lists(st.integers(1, 4094), max_size=3),
        mtu=st.sampled_from([1, 1400]),
        queues=st.integers(0, 8),
        rate=st.sampled_from([0.5, 10.0, 12.25]),
        link_down=st.booleans(),
    ),
)
interfaces = st.ip_addresses(v=4).map(lambda one: f"{one}/24")
interfaces6 = st.ip_addresses(v=6).map(lambda one: f"{one}/64")
ips = st.builds(
    IpConfig,
    ipv4=st.none() | st.just("dhcp") | interfaces,
    gateway4=st.none() | st.ip_addresses(v=4).map(str),
    ipv6=st.none() | st.sampled_from(["dhcp6", "auto"]) | interfaces6,
    gateway6=st.none() | st.ip_addresses(v=6).map(str),
)
addresses = st.builds(
    lambda *found: [one for one in found if one],
    st.none() | st.just("dhcp") | interfaces,
    st.none() | st.sampled_from(["dhcp6", "auto"]) | interfaces6,
)
words = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
keys = st.lists(st.sampled_from([KEY, "ssh-rsa AAAA+/= b c", "ssh-ed25519 CCCC d;e&f=g"]), unique=True)
clouds = optional(
    user=words,
    ssh_keys=keys,
    addresses=addresses,
    nameservers=st.lists(st.ip_addresses().map(str), max_size=3),
    search_domains=st.lists(words, max_size=3),
    upgrade=st.booleans(),
)
disk_options = {
    "cache": st.sampled_from(["none", "writeback"]),
    "discard": st.booleans(),
    "ssd": st.booleans(),
    "iothread": st.booleans(),
    "backup": st.booleans(),
    "readonly": st.booleans(),
    "options": st.sampled_from([{}, {"iops_rd": 100}]),
}
disks = st.builds(
    lambda state, rest: {"storage": "local", "size": 8, **state, **rest},
    st.sampled_from([{}, {"move": True, "storage": "second"}, {"state": "absent"}, {"import_from": "local:import/x"}]),
    optional(**disk_options),
)
texts = st.text(max_size=60).map(lambda text: text.rstrip("\n"))
ITEM: dict[str, Any] = {
    "power": st.sampled_from(["started", "stopped", "paused", "unmanaged"]),
    "cores": st.integers(1, 64),
    "sockets": st.integers(1, 4),
    "cpu": st.sampled_from(["host", "kvm64"]),
    "cpu_limit": st.floats(0, 128),
    "cpu_units": st.integers(1, 1000),
    "numa": st.booleans(),
    "memory": st.integers(16, 100_000),
    "balloon": st.integers(0, 1000),
    "shares": st.integers(0, 1000),
    "machine": st.sampled_from(["q35", "pc"]),
    "bios": st.sampled_from(["seabios", "ovmf"]),
    "efi_disk": st.just({"storage": "local", "type": "4m", "pre_enrolled_keys": True}),
    "tpm": st.just({"storage": "local", "version": "v2.0"}),
    "scsi_controller": st.sampled_from(["lsi", "virtio-scsi-single"]),
    "os_type": st.sampled_from(["l26", "other"]),
    "vga": st.sampled_from(["std", "serial0"]),
    "boot_order": st.sampled_from([[], ["scsi0"], ["net0", "scsi0"]]),
    "hotplug": st.lists(st.sampled_from(["network", "disk", "cpu", "memory", "usb"]), unique=True),
    "protection": st.booleans(),
    "startup": optional(order=st.integers(0, 9), up=st.integers(0, 9), down=st.integers(0, 9)),
    "networks": st.lists(networks, max_size=3),
    "cloud_init": clouds,
    "disk": st.builds(lambda size, rest: {**size, **rest}, optional(size=st.just(40)), optional(**disk_options)),
    "disks": st.dictionaries(st.sampled_from(["scsi1", "virtio0", "sata0"]), disks).map(
        lambda found: [{"slot": slot, **disk} for slot, disk in found.items()]
    ),
    "tags": st.lists(words, max_size=3),
    "pool": words,
    "description": texts,
    "onboot": st.booleans(),
    "agent": st.booleans(),
    "options": st.sampled_from(
        [
            *({}, {"hostpci0": "0000:01:00.0,pcie=1"}, {"args": "-device x,a=b"}, {"kvm": None}, {"ide1": None}),
            *({"virtiofs0": "data,cache=always"}, {"affinity": "0,5"}, {"ide0": "local:iso/x.iso,media=cdrom"}),
        ]
    ),
}
items = optional(**ITEM).map(lambda found: {"name": "web", **found})
machines = items.map(desired_machine)
stores = st.builds(
    lambda parts: {**RECORDED, **{key: value for part in parts for key, value in part.items()}},
    st.lists(
        st.sampled_from(
            [
                {"scsi1": "local:334/vm-334-disk-1.qcow2,cache=writeback,iops_wr=7,size=2G"},
                {"virtio0": "second:334/vm-334-disk-2.raw,size=8G"},
                {"net0": "e1000=BC:24:11:B3:51:9A,bridge=vmbr7,mtu=1400,tag=7", "net1": "virtio=BC:24:11:00:00:FF"},
                {"cpu": "x86-64-v2-AES,flags=+aes", "machine": "pc-i440fx-9.0,viommu=virtio"},
                {"startup": "order=3,up=9", "boot": "order=scsi0;net0", "hotplug": "0"},
                {"hostpci0": "0000:02:00.0", "args": "-device x", "tags": " ", "ciuser": " "},
                {"protection": 1, "unused0": "local:334/vm-334-disk-9.qcow2"},
                {"ipconfig1": "ip=10.5.0.1/24", "ipconfig3": "ip6=auto", "affinity": "1,5"},
                {"ide0": "none,media=cdrom", "ide1": "local:iso/y.iso,media=cdrom,size=4M", "virtiofs0": "home"},
                {"net0": "virtio=BC:24:11:B3:51:9A,bridge=vmbr0,tag=none,trunks=1;2", "cores": "many", "memory": "all"},
            ]
        ),
        max_size=4,
    ),
)


@given(devices)
def test_network_round_trip(network: Network) -> None:
    assert config.parse_network(config.format_network(network)) == network


@given(ips)
def test_ip_config_round_trip(ip: IpConfig) -> None:
    assert config.parse_ip_config(config.format_ip_config(ip)) == ip


@given(keys)
def test_ssh_keys_round_trip(some: list[str]) -> None:
    encoded = config.format_ssh_keys(some)
    assert config.parse_ssh_keys(encoded) == set(some)
    # the server refuses a plus sign for a blank and anything that is not encoded
    assert not set(encoded) & set(" +\n/=;&")


@given(st.integers(1, 1 << 50))
def test_size_round_trip(size: int) -> None:
    assert config.parse_size(config.format_size(size)) == size


@given(machines, st.sampled_from(["", "enabled=0,type=isa", "x86-64-v2-AES,flags=+aes", "order=3,up=9"]))
def test_every_field_reads_what_it_writes(desired: VmDesired, present: str) -> None:
    for option, value in desired.settings.items():
        field = fields.field_of(option)
        text = field.format(value, present if field.key in ("agent", "cpu", "startup") else "")
        read = field.of({field.key: text} if text else {})
        assert read == value or (not text and read == field.default), option


@pytest.mark.parametrize(
    ("text", "size"),
    [("3584M", 3584 * 1024**2), ("3G", 3 * GIB), ("1T", 1024 * GIB), ("528K", 528 * 1024), ("512", 512), ("", None)],
)
def test_sizes_as_the_server_writes_them(text: str, size: int | None) -> None:
    assert config.parse_size(text) == size


@given(stores, machines)
def test_a_change_leaves_nothing_to_change(stored: dict[str, Any], desired: VmDesired) -> None:
    present = actual(stored)
    try:
        compare.difference(desired, present)
    except HostingError:
        return  # refused, so nothing is sent
    _stored, changed = after(stored, desired, present)
    again = compare.difference(desired, changed)
    assert (again.before, again.after) == ({}, {})


@given(stores, machines)
def test_what_is_shown_is_what_is_sent(stored: dict[str, Any], desired: VmDesired) -> None:
    present = actual(stored)
    try:
        found = compare.difference(desired, present)
    except HostingError:
        return
    assert bool(found.after) == bool(moves(present, found) or steps(desired, present, found))
    assert found.before.keys() == found.after.keys()
    assert all(found.before[key] != found.after[key] for key in found.after)


@given(machines)
def test_a_creation_leaves_nothing_to_change(desired: VmDesired) -> None:
    item = {"name": "web", "disk": {"storage": "local", "import_from": "local:import/n.qcow2"}}
    further = tuple(disk for disk in desired.disks if disk.slot != "scsi0")
    desired = replace(desired, disks=(*desired_machine(item).disks, *further))
    images = {"local:import/n.qcow2": IMAGE_SIZE, "local:import/x": IMAGE_SIZE}
    sent = create.create_parameters(desired, 334, "pve1", images)
    predicted = create.as_created(desired, "pve1", sent, images)
    kept = set_keys({}, {key: value for key, value in sent.items() if key not in create.ORDERS})
    made = replace(actual(kept), power="stopped", pool=desired.pool)
    # what is left to do is the same for the prediction and for what the server has
    left = steps(desired, made, compare.difference(desired, made))
    assert steps(desired, predicted, compare.difference(desired, predicted)) == left
    _stored, done = after(kept, desired, made)
    again = compare.difference(desired, done)
    assert (again.before, again.after) == ({}, {})


@given(stores, machines)
def test_a_clone_leaves_nothing_to_change(stored: dict[str, Any], desired: VmDesired) -> None:
    source = VmActual("", 9000, "pve1", config={**config.target_config(rows(stored))[0], "description": "template"})
    clone = desired_machine({"name": "web", "clone": {"vmid": 9000}}).clone
    desired = replace(desired, clone=clone)
    made = clones.as_cloned(desired, source, 334, "pve1")
    try:
        compare.difference(desired, made)
    except HostingError:
        return
    _stored, changed = after(made.config, desired, made)
    again = compare.difference(desired, changed)
    assert (again.before, again.after) == ({}, {})
    if "description" not in desired.settings:
        assert changed.config["description"] == "template"
    assert "fediversity-machine-web" in changed.config["tags"]


@given(stores, machines)
def test_change_keeps_mac_addresses_volumes_and_unknown_options(stored: dict[str, Any], desired: VmDesired) -> None:
    present = actual(stored)
    try:
        stored_after, _vm = after(stored, desired, present)
    except HostingError:
        return
    if desired.networks and desired.networks[0].mac is None:
        before, kept = config.parse_network(stored["net0"]), config.parse_network(stored_after["net0"])
        assert kept.mac == before.mac
        # an empty text takes a key away, and a tag that is none is not kept
        gone = {"tag", *(key for key, value in desired.networks[0].others if not value)}
        assert set(dict(before.others)) - gone <= set(dict(kept.others))
    assert "fstrim_cloned_disks=1" in stored_after["agent"]
    assert stored_after["ide2"] == RECORDED["ide2"]
    assert stored_after["scsi0"].startswith("local:334/vm-334-disk-0.qcow2,")
    wanted = {disk.slot: disk for disk in desired.disks}
    for slot, drive in config.drives(config.target_config(rows(stored))[0]).items():
        if slot in wanted and (wanted[slot].move or wanted[slot].state == "absent"):
            continue
        assert stored_after[slot].startswith(drive.volume)
        if ("iops_wr", "7") in drive.options:
            assert "iops_wr=7" in stored_after[slot]


def test_only_given_options_are_compared() -> None:
    found = compare.difference(desired_machine({"name": "web"}), actual(RECORDED))
    assert found.after == {}


def test_pending_values_count_and_are_named() -> None:
    # recorded: change of memory, cores and ostype on a running VM
    answer = [
        {"key": "ostype", "value": "l26", "delete": 1},
        {"key": "cores", "value": 1, "pending": 2},
        {"key": "memory", "value": "64", "pending": "128"},
        {"key": "onboot", "value": 1},
    ]
    assert config.target_config(answer) == (
        {"cores": "2", "memory": "128", "onboot": "1"},
        ("cores", "memory", "ostype"),
    )


def plan(item: dict[str, Any], stored: dict[str, Any] | None = None, **fields_: Any) -> list[Send]:
    desired, present = desired_machine({"name": "web", **item}), actual(RECORDED if stored is None else stored)
    present = replace(present, **fields_)
    return [step for step in steps(desired, present, compare.difference(desired, present)) if isinstance(step, Send)]


DIGEST = RECORDED["digest"]


def test_emptied_values_are_deleted_not_sent_empty() -> None:
    item = {"cloud_init": {"nameservers": [], "search_domains": []}, "description": ""}
    sent = {"delete": "description,nameserver,searchdomain", "force": None, "digest": DIGEST}
    assert plan(item) == [Send("PUT", "/config", sent, task=False)]


def test_a_network_that_is_not_listed_is_removed() -> None:
    stored = {**RECORDED, "net3": "e1000=BC:24:11:B3:51:9B,bridge=vmbr1"}
    sent = {"delete": "net3", "force": None, "digest": DIGEST}
    assert plan({"networks": [{"bridge": "vmbr0"}]}, stored) == [Send("POST", "/config", sent)]


def test_a_disk_is_moved_without_what_waits_for_it() -> None:
    desired = desired_machine({"name": "web", "disk": {"storage": "second", "move": True}})
    present = replace(actual(RECORDED), pending=("memory", "scsi0"))
    assert moves(present, compare.difference(desired, present)) == (
        Send("PUT", "/config", {"revert": "scsi0"}, task=False),
        Send(
            "POST",
            "/move_disk",
            {"disk": "scsi0", "storage": "second", "format": None, "delete": True},
            forgives=("same storage with same format",),
        ),
    )


def test_disks_are_made_grown_and_removed_in_one_go() -> None:
    stored = {
        **RECORDED,
        "scsi2": "local:334/vm-334-disk-2.qcow2,iops_wr=7,size=4G",
        "sata0": "local:334/vm-334-disk-3.qcow2,size=4G",
    }
    disks_ = [
        {"slot": "scsi1", "storage": "second", "size": 8, "ssd": True, "format": "raw"},
        {"slot": "scsi2", "storage": "second", "move": True, "size": 5, "cache": "writeback"},
        {"slot": "sata0", "state": "absent"},
    ]
    assert plan({"disks": disks_}, stored) == [
        Send(
            "POST",
            "/config",
            {
                "scsi1": "second:8,format=raw,ssd=1",
                "scsi2": "local:334/vm-334-disk-2.qcow2,cache=writeback,iops_wr=7,size=4G",
                "delete": "sata0",
                "force": True,
                "digest": DIGEST,
            },
        ),
        Send("PUT", "/resize", {"disk": "scsi2", "size": "5G"}),
    ]


def test_the_protection_is_lifted_before_a_disk_goes() -> None:
    stored = {**RECORDED, "protection": 1, "sata0": "local:334/vm-334-disk-3.qcow2,size=4G"}
    sent = plan({"protection": False, "disks": [{"slot": "sata0", "state": "absent"}]}, stored)
    assert [dict(step.parameters) for step in sent] == [
        {"protection": "0", "digest": DIGEST},
        {"delete": "sata0", "force": True, "digest": None},
    ]


@pytest.mark.parametrize(
    ("disk", "message"),
    [
        ({"disk": {"size": 1}}, "VM web, disk.size: the disk has 1600M and cannot shrink to 1G"),
        ({"disks": [{"slot": "scsi3", "storage": "local"}]}, "VM web, disk scsi3: the disk does not exist"),
        ({"disks": [{"slot": "scsi3", "size": 8}]}, "VM web, disk scsi3: the disk does not exist"),
        ({"disks": [{"slot": "ide3", "size": 8, "storage": "local"}]}, "VM web, disk ide3: the slot holds a CD drive"),
        ({"disks": [{"slot": "ide2", "size": 8, "storage": "local"}]}, "VM web, disks[0], slot: 'ide2' is refused"),
    ],
)
def test_disks_that_cannot_be_are_refused(disk: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        plan(disk, {**RECORDED, "ide3": "none,media=cdrom"})
    assert str(caught.value).startswith(message)


def test_firmware_that_cannot_change_is_refused() -> None:
    stored = {**RECORDED, "efidisk0": "local:334/vm-334-disk-1.qcow2,efitype=4m,size=528K"}
    assert plan({"efi_disk": {"storage": "local", "type": "4m"}}, stored) == []
    with pytest.raises(InvalidInput, match="VM web, efidisk0: efidisk0 has efitype=4m, which cannot change to 2m"):
        plan({"efi_disk": {"storage": "local", "type": "2m"}}, stored)


@pytest.mark.parametrize(
    ("have", "want", "sent"),
    [
        ("stopped", "started", ["/status/start"]),
        ("stopped", "paused", ["/status/start", "/status/suspend"]),
        ("started", "paused", ["/status/suspend"]),
        ("started", "stopped", ["/status/shutdown"]),
        ("paused", "started", ["/status/resume"]),
        ("paused", "stopped", ["/status/stop"]),
        ("started", "unmanaged", []),
        ("paused", "paused", []),
    ],
)
def test_ways_between_power_states(have: Any, want: str, sent: list[str]) -> None:
    assert [step.path for step in plan({"power": want}, power=have)] == sent


def test_high_availability_has_the_power() -> None:
    assert plan({"power": "started", "ha": {"state": "started"}}, power="stopped") == []
    assert [step.path for step in plan({"power": "started", "ha": {"state": "ignored"}}, power="stopped")] == [
        "/status/start"
    ]


def test_raw_options_are_compared_by_meaning() -> None:
    stored = {**RECORDED, "hostpci0": "0000:01:00.0,pcie=1"}
    assert plan({"options": {"hostpci0": "pcie=1,host=0000:01:00.0"}}, stored) == []
    assert plan({"options": {"hostpci0": None, "args": ""}}, stored)[0].parameters["delete"] == "hostpci0"


@pytest.mark.parametrize(
    ("key", "there", "same", "other"),
    [
        ("virtiofs0", "data,cache=always", "cache=always,dirid=data", "home,cache=always"),
        ("amd-sev", "snp,no-debug=1", "type=snp,no-debug=1", "es,no-debug=1"),
        ("intel-tdx", "tdx,quote=1", "quote=1,type=tdx", "no,quote=1"),
        ("affinity", "0,5", "0,5", "1,5"),
        ("rng0", "/dev/urandom", "source=/dev/urandom", "/dev/hwrng"),
        ("future0", "a,b=c", "a,b=c", "d,b=c"),
        ("ide0", "local:iso/a.iso,media=cdrom,size=4M", "media=cdrom,file=local:iso/a.iso", "none,media=cdrom"),
    ],
)
def test_the_first_entry_of_a_raw_option_counts(key: str, there: str, same: str, other: str) -> None:
    stored = {**RECORDED, key: there}
    assert plan({"options": {key: same}}, stored) == []
    assert plan({"options": {key: other}}, stored)[0].parameters[key] == other


@pytest.mark.parametrize("text", [None, "local:iso/a.iso,media=cdrom"])
def test_a_raw_cd_drive_does_not_take_the_place_of_a_disk(text: str | None) -> None:
    stored = {**RECORDED, "ide0": "local:334/vm-334-disk-1.qcow2,size=2G"}
    with pytest.raises(InvalidInput, match="VM web, options, ide0: the slot holds a disk"):
        plan({"options": {"ide0": text}}, stored)


def test_a_clone_of_a_disk_in_the_slot_of_cloud_init_is_refused() -> None:
    source = {**RECORDED, "ide2": "local:334/vm-334-disk-1.qcow2,size=2G"}
    with pytest.raises(InvalidInput, match="VM web, clone: the source has a disk in the slot ide2"):
        plan({"cloud_init": {"user": "ops"}}, source, unfinished=True)


@pytest.mark.parametrize(
    ("wanted", "pinned", "another"),
    [("q35", "pc-q35-10.0+pve0", "pc-i440fx-10.0+pve0"), ("pc", "pc-i440fx-9.2+pve1", "pc-q35-9.2")],
)
def test_a_machine_type_is_equal_to_its_pinned_versions(wanted: str, pinned: str, another: str) -> None:
    assert plan({"machine": wanted}, {**RECORDED, "machine": f"{pinned},viommu=virtio"}) == []
    assert plan({"machine": pinned}, {**RECORDED, "machine": wanted})[0].parameters["machine"] == pinned
    assert plan({"machine": wanted}, {**RECORDED, "machine": another})[0].parameters["machine"] == wanted


def test_addresses_go_with_their_device_and_others_stay() -> None:
    stored = {
        **RECORDED,
        "net1": "virtio=BC:24:11:00:00:FF,bridge=vmbr1",
        "ipconfig1": "ip=dhcp",
        "ipconfig4": "ip6=auto",
    }
    sent = plan({"networks": [{"bridge": "vmbr0"}]}, stored)
    assert [step.parameters["delete"] for step in sent] == ["net1,ipconfig1,ipconfig4"]
    assert plan({"cores": 1}, stored) == []
    kept = plan({"networks": [], "cloud_init": {"addresses": ["10.98.0.90/24"], "gateway": "10.98.0.1"}})
    assert [step.parameters["delete"] for step in kept] == ["net0"]


def test_what_cannot_be_read_is_replaced_where_it_is_managed() -> None:
    odd = {**RECORDED, "cores": "many", "cpulimit": "lots", "net0": "virtio=BC:24:11:B3:51:9A,bridge=vmbr0,tag=x"}
    assert plan({}, odd) == []
    sent = plan({"cores": 2, "cpu_limit": 1.5, "networks": [{"bridge": "vmbr0", "tag": 5}]}, odd)
    values = {key: sent[0].parameters[key] for key in ("cores", "cpulimit", "net0")}
    assert values == {"cores": "2", "cpulimit": "1.5", "net0": "virtio=BC:24:11:B3:51:9A,bridge=vmbr0,tag=5"}


def test_a_protected_machine_keeps_its_disks() -> None:
    stored = {**RECORDED, "protection": 1, "scsi1": "local:334/vm-334-disk-1.qcow2,size=2G"}
    for more in ({}, {"protection": True}):
        with pytest.raises(Denied, match=r"VM web, disk scsi1: .*protected.*Say protection: false"):
            plan({"disks": [{"slot": "scsi1", "state": "absent"}], **more}, stored)


def test_a_template_is_deleted_only_as_one() -> None:
    present = actual({**RECORDED, "template": 1})
    item = {"name": "web", "state": "absent"}
    with pytest.raises(NotOwned, match=r"VM web, template: .*Say template: true"):
        compare.deletion(desired_machine(item), present)
    assert compare.deletion(desired_machine({**item, "template": True}), present) == {"vmid": 334, "node": "pve1"}


def test_a_protected_machine_is_not_deleted() -> None:
    stored = {**RECORDED, "protection": 1}
    with pytest.raises(Denied, match=r"VM web, protection: VM 334 is protected.*Say protection: false"):
        compare.deletion(desired_machine({"name": "web", "state": "absent"}), actual(stored))
    lifted = desired_machine({"name": "web", "state": "absent", "protection": False})
    assert compare.deletion(lifted, actual(stored)) == {"vmid": 334, "node": "pve1"}


@pytest.mark.parametrize("missing", ["node", "disk"])
def test_creation_needs_node_and_disk(missing: str) -> None:
    item = {"name": "web", "node": "pve1", "disk": {"storage": "local", "import_from": "local:import/n.qcow2"}}
    create.check_creation(desired_machine(item), {})
    with pytest.raises(InvalidInput, match=f"VM web, {missing}"):
        create.check_creation(desired_machine({**item, missing: None}), {})


def test_an_image_larger_than_the_disk_is_refused() -> None:
    disk = {"storage": "local", "import_from": "local:import/n.qcow2", "size": 1}
    desired = desired_machine({"name": "web", "node": "pve1", "disk": disk})
    with pytest.raises(InvalidInput, match=r"VM web, disk.size: the image has 1600M and cannot shrink to 1G"):
        create.check_creation(desired, {"local:import/n.qcow2": IMAGE_SIZE})
