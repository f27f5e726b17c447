# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module's options for virtual machines, checked and typed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.names import LABEL_MAX, check_slug, machine_tag
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import (
    GIB,
    NIC_MODELS,
    CloudInit,
    Disk,
    IpConfig,
    Network,
    VmDesired,
    own_tags,
)

# qemu-server: schema of POST /nodes/{node}/qemu
MIN_MEMORY = 16
MAX_DESCRIPTION = 8192
VMID_RANGE = range(100, 1_000_000_000)
VLAN_RANGE = range(1, 4095)
# what the server stores unchanged: it lowers, sorts and joins everything else
TAG = re.compile(r"[a-z0-9_][a-z0-9_+.-]*\Z")
MAC = re.compile(r"[0-9A-F][02468ACE](:[0-9A-F]{2}){5}\Z")
NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\Z")
# one value inside a property string, a blank-separated list or a path
WORD = re.compile(r"[^\s,;=/]+\Z")
VOLUME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*:[^\s,;=]+\Z")
# dhcp and auto are the server's words (pve-qm-ipconfig); dhcp6 tells DHCPv6 from DHCPv4 in one list
DYNAMIC_IPV4 = ("dhcp",)
DYNAMIC_IPV6 = ("dhcp6", "auto")
Item = TypeVar("Item")


def desired_machines(items: Sequence[Mapping[str, Any]]) -> tuple[VmDesired, ...]:
    """The module's list of VMs, typed; an item that cannot be used carries its problem.

    :raises InvalidInput: two items have one name or one VMID.
    """
    machines = tuple(_tried(item) for item in items)
    _unique([machine.name for machine in machines], "name")
    _unique([machine.vmid for machine in machines if machine.vmid is not None], "vmid")
    return machines


def _tried(item: Mapping[str, Any]) -> VmDesired:
    try:
        return desired_machine(item)
    except HostingError as error:
        return VmDesired(str(item["name"]), problem=error)


def _unique(values: Sequence[object], field_name: str) -> None:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise InvalidInput(
            f"{', '.join(twice)} is there more than once", where=f"vms, {field_name}", hint="Name every machine once"
        )


def desired_machine(item: Mapping[str, Any]) -> VmDesired:
    """One entry of the module's option ``vms``, typed.

    :raises InvalidInput: a value is refused; names the VM and the field.
    """
    name = check_slug(str(item["name"]), f"VM {item['name']!r}, name", LABEL_MAX)
    check = _Check(f"VM {name}", item)
    return VmDesired(
        name=name,
        state=item.get("state") or "present",
        vmid=check.number("vmid", VMID_RANGE),
        node=check.text("node", NODE, "the name of a node"),
        power=item.get("power") or "started",
        cores=check.number("cores", range(1, 8193)),
        memory=check.number("memory", range(MIN_MEMORY, 4178945)),
        disk=_disk(check),
        networks=check.each("networks", _network),
        cloud_init=_cloud_init(check),
        tags=_tags(check, name),
        pool=check.text("pool", re.compile(r"[A-Za-z0-9_./-]+\Z"), "the name of a pool"),
        description=_description(check),
        onboot=item.get("onboot"),
        agent=item.get("agent"),
    )


@dataclass(frozen=True)
class _Check:
    """Looks at the fields of one option dictionary; every refusal names the VM and the field."""

    where: str
    values: Mapping[str, Any]

    def refused(self, field_name: str, value: object, wanted: str) -> InvalidInput:
        return InvalidInput(f"{value!r} is refused", where=f"{self.where}, {field_name}", hint=f"Use {wanted}")

    def number(self, field_name: str, allowed: range) -> int | None:
        value = self.values.get(field_name)
        if value is not None and value not in allowed:
            raise self.refused(field_name, value, f"a number from {allowed[0]} to {allowed[-1]}")
        return value

    def text(self, field_name: str, pattern: re.Pattern[str], wanted: str) -> str | None:
        value = self.values.get(field_name)
        if value is not None and not pattern.match(value):
            raise self.refused(field_name, value, wanted)
        return value

    def required(self, field_name: str, pattern: re.Pattern[str], wanted: str) -> str:
        value = self.text(field_name, pattern, wanted)
        if value is None:
            raise self.refused(field_name, value, wanted)
        return value

    def inside(self, field_name: str, values: Mapping[str, Any]) -> _Check:
        return _Check(f"{self.where}, {field_name}", values)

    def each(self, field_name: str, parse: Callable[[_Check], Item]) -> tuple[Item, ...] | None:
        """The list of dictionaries *field_name*, parsed one by one."""
        values = self.values.get(field_name)
        if values is None:
            return None
        return tuple(parse(self.inside(f"{field_name}[{number}]", value)) for number, value in enumerate(values))


def _disk(check: _Check) -> Disk | None:
    values = check.values.get("disk")
    if values is None:
        return None
    inner = check.inside("disk", values)
    size = inner.number("size", range(1, 1_048_577))
    return Disk(
        storage=inner.required("storage", re.compile(r"[A-Za-z][A-Za-z0-9_.-]*\Z"), "the name of a storage"),
        import_from=inner.required("import_from", VOLUME, "a volume, such as local:import/nixos.qcow2"),
        size=None if size is None else size * GIB,
    )


def _network(check: _Check) -> Network:
    model = str(check.values.get("model") or "virtio")
    if model not in NIC_MODELS:
        raise check.refused("model", model, f"one of {', '.join(NIC_MODELS)}")
    mac = check.values.get("mac")
    if mac is not None and not MAC.match(mac.upper()):
        raise check.refused("mac", mac, "a unicast address, such as BC:24:11:00:00:01")
    return Network(
        bridge=check.required("bridge", WORD, "the name of a bridge"),
        model=model,
        tag=check.number("tag", VLAN_RANGE),
        firewall=bool(check.values.get("firewall")),
        mac=None if mac is None else mac.upper(),
    )


def _cloud_init(check: _Check) -> CloudInit:
    values = check.values.get("cloud_init")
    if values is None:
        return CloudInit()
    inner = check.inside("cloud_init", values)
    keys = values.get("ssh_keys")
    for key in keys or ():
        if len(key.split()) < 2 or len(key.splitlines()) != 1 or key.startswith("#"):
            raise inner.refused("ssh_keys", key, "one public key per entry, such as ssh-ed25519 AAAA... name")
    servers = values.get("nameservers")
    domains = values.get("search_domains")
    for domain in domains or ():
        if not re.match(r"[A-Za-z0-9.-]+\Z", domain):
            raise inner.refused("search_domains", domain, "domain names")
    return CloudInit(
        user=inner.text("user", re.compile(r"[a-z_][a-z0-9_-]*\Z"), "the name of a user"),
        ssh_keys=None if keys is None else frozenset(key.strip() for key in keys),
        ip=_ip_config(inner),
        nameservers=None if servers is None else tuple(_address(inner, "nameservers", server) for server in servers),
        search_domains=None if domains is None else tuple(domains),
    )


def _ip_config(check: _Check) -> IpConfig | None:
    values = check.values.get("addresses")
    found: dict[str, str] = {}
    for text in values or ():
        family, value = _interface(check, text)
        if family in found:
            raise check.refused("addresses", values, "at most one IPv4 and one IPv6 address")
        found[family] = value
    for family, option in (("ipv4", "gateway"), ("ipv6", "gateway6")):
        gateway = check.values.get(option)
        if gateway is None:
            continue
        if "/" not in found.get(family, ""):
            raise check.refused(option, gateway, "a gateway only with a fixed address of the same family in addresses")
        address = _address(check, option, gateway)
        if ipaddress.ip_address(address) not in ipaddress.ip_interface(found[family]).network:
            raise check.refused(option, gateway, f"an address inside the network of {found[family]}")
        found[option] = address
    if values is None:
        return None
    return IpConfig(found.get("ipv4"), found.get("gateway"), found.get("ipv6"), found.get("gateway6"))


def _interface(check: _Check, text: str) -> tuple[Literal["ipv4", "ipv6"], str]:
    if text in DYNAMIC_IPV4:
        return "ipv4", text
    if text in DYNAMIC_IPV6:
        return "ipv6", text
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        interface = None
    # without a prefix length Python would take a single address for a network of its own
    if interface is None or "/" not in text or "%" in text:
        raise check.refused(
            "addresses", text, "an address with prefix length, such as 10.0.0.5/24, or dhcp, dhcp6, auto"
        )
    return ("ipv4" if interface.version == 4 else "ipv6"), str(interface)


def _address(check: _Check, field_name: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise check.refused(field_name, text, "an IP address") from None


def _tags(check: _Check, name: str) -> frozenset[str] | None:
    values = check.values.get("tags")
    if values is None:
        return None
    ours = own_tags(name)
    for tag in values:
        if not TAG.match(tag):
            raise check.refused("tags", tag, "lower-case letters, digits, _, +, . and -")
        if tag.startswith(machine_tag("")) and tag not in ours:
            raise check.refused("tags", tag, "no tag that marks another machine")
    return frozenset(values) | ours


def _description(check: _Check) -> str | None:
    """The server cuts trailing newlines; so do we, to compare equal."""
    value = check.values.get("description")
    if value is None:
        return None
    if len(value) > MAX_DESCRIPTION:
        raise check.refused("description", f"{value[:40]}...", f"at most {MAX_DESCRIPTION} characters")
    return str(value).rstrip("\n")
