# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox notation to typed values and back; comparison; plans that end."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import compare, config
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import (
    GIB,
    NIC_MODELS,
    CloudInit,
    Disk,
    IpConfig,
    Network,
    VmActual,
    VmDesired,
)
from hypothesis import given
from hypothesis import strategies as st

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

macs = st.lists(st.integers(0, 255), min_size=6, max_size=6).map(
    lambda octets: ":".join(f"{octet:02X}" for octet in [octets[0] & 0xFE, *octets[1:]])
)
networks = st.builds(
    Network,
    bridge=st.from_regex(r"vmbr[0-9]{1,3}", fullmatch=True),
    model=st.sampled_from(NIC_MODELS),
    tag=st.none() | st.integers(1, 4094),
    firewall=st.booleans(),
    mac=macs,
    others=st.sampled_from([(), (("mtu", "1"),), (("mtu", "1400"), ("queues", "2"))]),
)
ipv4 = st.ip_addresses(v=4).map(lambda address: f"{address}/24")
ipv6 = st.ip_addresses(v=6).map(lambda address: f"{address}/64")
ips = st.builds(
    IpConfig,
    ipv4=st.none() | st.just("dhcp") | ipv4,
    gateway4=st.none() | st.ip_addresses(v=4).map(str),
    ipv6=st.none() | st.sampled_from(["dhcp6", "auto"]) | ipv6,
    gateway6=st.none() | st.ip_addresses(v=6).map(str),
)
words = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
keys = st.frozensets(st.sampled_from([KEY, "ssh-rsa AAAA+/= b c", "ssh-ed25519 CCCC d;e&f=g"]))
clouds = st.builds(
    CloudInit,
    user=st.none() | words,
    ssh_keys=st.none() | keys,
    ip=st.none() | ips,
    nameservers=st.none() | st.lists(st.ip_addresses().map(str), max_size=3).map(tuple),
    search_domains=st.none() | st.lists(words, max_size=3).map(tuple),
)
texts = st.text(max_size=60).map(lambda text: text.rstrip("\n"))
machines = st.builds(
    VmDesired,
    name=st.just("web"),
    power=st.sampled_from(["started", "stopped"]),
    node=st.just("pve1"),
    cores=st.none() | st.integers(1, 64),
    memory=st.none() | st.integers(16, 100_000),
    disk=st.builds(Disk, st.just("local"), st.just("local:import/n.qcow2"), st.none() | st.just(40 * GIB)),
    networks=st.none() | st.lists(networks | networks.map(lambda nic: dataclasses.replace(nic, mac=None))).map(tuple),
    cloud_init=clouds,
    tags=st.none()
    | st.frozensets(words, max_size=3).map(lambda tags: tags | {"fediversity", "fediversity-machine-web"}),
    description=st.none() | texts,
    onboot=st.none() | st.booleans(),
    agent=st.none() | st.booleans(),
)


def rows(stored: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in stored.items()]


def actual(stored: dict[str, Any], **fields: Any) -> VmActual:
    return config.parse_config(VmActual("web", 334, "pve1", **fields), rows(stored), "started")


def stored_by_server(stored: dict[str, Any], sent: compare.Parameters | dict[str, Any]) -> dict[str, Any]:
    """What the real server keeps: deleted keys go, a MAC is made when there is none, tags are sorted, text ends cut."""
    values = sent.values if isinstance(sent, compare.Parameters) else sent
    deleted = sent.deleted if isinstance(sent, compare.Parameters) else ()
    kept = {key: value for key, value in stored.items() if key not in deleted}
    for key, value in values.items():
        kept[key] = value
        if key.startswith("net") and key[3:].isdigit() and "=" not in str(value).split(",", maxsplit=1)[0]:
            model, _comma, rest = str(value).partition(",")
            kept[key] = f"{model}=BC:24:11:00:00:0{key[3:]},{rest}"
        if key == "scsi0":
            kept[key] = "local:334/vm-334-disk-0.qcow2,discard=on,size=1600M"
        if key in {"onboot", "ciupgrade"}:
            kept[key] = int(value)
    return kept


def after(stored: dict[str, Any], desired: VmDesired) -> dict[str, Any]:
    """The stored configuration after all that the plan for *desired* sends."""
    present = actual(stored)
    change = compare.change_of(desired, present)
    sent = compare.config_parameters(desired, present, [key for key in change.after if key not in compare.APART])
    changed = stored_by_server(stored, sent)
    if "disk_size" in change.after:
        changed["scsi0"] = f"local:334/vm-334-disk-0.qcow2,size={config.format_size(change.after['disk_size'])}"
    return changed


@given(networks)
def test_network_round_trip(network: Network) -> None:
    assert config.parse_network(config.format_network(network)) == network


@given(ips)
def test_ip_config_round_trip(ip: IpConfig) -> None:
    assert config.parse_ip_config(config.format_ip_config(ip)) == ip


@given(keys)
def test_ssh_keys_round_trip(some: frozenset[str]) -> None:
    encoded = config.format_ssh_keys(some)
    assert config.parse_ssh_keys(encoded) == some
    # the server refuses a plus sign for a blank and anything that is not encoded
    assert not set(encoded) & set(" +\n/=;&")


@given(st.integers(1, 1 << 50))
def test_size_round_trip(size: int) -> None:
    assert config.parse_size(config.format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [("3584M", 3584 * 1024**2), ("3G", 3 * GIB), ("1T", 1024 * GIB), ("528K", 528 * 1024), ("512", 512), ("", None)],
)
def test_sizes_as_the_server_writes_them(text: str, size: int | None) -> None:
    assert config.parse_size(text) == size


@given(machines)
def test_a_change_leaves_nothing_to_change(desired: VmDesired) -> None:
    stored = after(RECORDED, desired)
    present = actual(stored)
    again = compare.change_of(dataclasses.replace(desired, power="started"), present)
    assert again.action == "unchanged", (again.before, again.after)


@given(machines)
def test_a_creation_leaves_nothing_to_change(desired: VmDesired) -> None:
    stored = stored_by_server({}, compare.create_parameters(desired, 334))
    present = dataclasses.replace(actual(stored), disk_size=40 * GIB)
    again = compare.change_of(dataclasses.replace(desired, power="started"), present)
    assert again.action == "unchanged", (again.before, again.after)


@given(machines)
def test_change_keeps_mac_addresses_and_unknown_options(desired: VmDesired) -> None:
    stored = {**RECORDED, "net0": "virtio=BC:24:11:B3:51:9A,bridge=vmbr7,mtu=1400,tag=7"}
    stored_after = after(stored, desired)
    if desired.networks and desired.networks[0].mac is None:
        kept = config.parse_network(stored_after["net0"])
        assert kept.mac == "BC:24:11:B3:51:9A"
        assert kept.others == (("mtu", "1400"),)
    assert "fstrim_cloned_disks=1" in stored_after["agent"]
    assert stored_after["ide2"] == RECORDED["ide2"]


@given(machines)
def test_only_given_fields_are_compared(desired: VmDesired) -> None:
    bare = VmDesired("web")
    assert compare.change_of(bare, actual(RECORDED)).action == "unchanged"
    change = compare.change_of(desired, actual(RECORDED))
    given_keys = set(compare.wanted(desired, actual(RECORDED)))
    assert set(change.after) == set(change.before) <= given_keys


def test_recorded_configuration_is_read() -> None:
    vm = actual(RECORDED)
    assert (vm.cores, vm.memory, vm.onboot, vm.agent) == (1, 640, True, True)
    assert vm.disk_size == 1600 * 1024**2
    assert vm.networks == {0: Network("vmbr0", mac="BC:24:11:B3:51:9A")}
    assert vm.cloud_init == CloudInit(
        "ops", frozenset({KEY}), IpConfig("10.98.0.90/24", "10.98.0.1"), ("10.98.0.1",), ("lab.test",)
    )
    assert vm.tags == {"fediversity", "fediversity-machine-web", "op1"}


def test_pending_values_count_and_are_named() -> None:
    # recorded: change of memory, cores and ostype on a running VM
    answer = [
        {"key": "ostype", "value": "l26", "delete": 1},
        {"key": "cores", "value": 1, "pending": 2},
        {"key": "memory", "value": "64", "pending": "128"},
        {"key": "onboot", "value": 1},
        {"key": "digest", "value": "8423646c2116fb4e9abf200c5d43796106803d0b"},
    ]
    vm = config.parse_config(VmActual("web", 100, "pve1"), answer, "started")
    assert (vm.cores, vm.memory, vm.pending) == (2, 128, ("cores", "memory", "ostype"))


def test_emptied_values_are_deleted_not_sent_empty() -> None:
    desired = VmDesired("web", cloud_init=CloudInit(nameservers=(), search_domains=()), description="")
    change = compare.change_of(desired, actual(RECORDED))
    sent = compare.config_parameters(desired, actual(RECORDED), change.after)
    assert sent == compare.Parameters({}, ("description", "nameserver", "searchdomain"))


def test_a_network_that_is_not_listed_is_removed() -> None:
    desired = VmDesired("web", networks=(Network("vmbr0"),))
    stored = {**RECORDED, "net3": "e1000=BC:24:11:B3:51:9B,bridge=vmbr1"}
    change = compare.change_of(desired, actual(stored))
    assert compare.config_parameters(desired, actual(stored), change.after) == compare.Parameters({}, ("net3",))


def test_a_disk_never_shrinks() -> None:
    desired = VmDesired("web", disk=Disk("local", "local:import/n.qcow2", 1 * GIB))
    with pytest.raises(InvalidInput, match=r"VM web, disk.size: the disk has 1600M and cannot shrink to 1G"):
        compare.change_of(desired, actual(RECORDED))


@pytest.mark.parametrize("missing", ["node", "disk"])
def test_creation_needs_node_and_disk(missing: str) -> None:
    complete = VmDesired("web", node="pve1", disk=Disk("local", "local:import/n.qcow2"))
    with pytest.raises(InvalidInput, match=f"VM web, {missing}"):
        compare.change_of(dataclasses.replace(complete, **{missing: None}), None)
