# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module's options for virtual machines, checked and typed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.names import LABEL_MAX, check_slug, machine_tag
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.addresses import (
    desired_addresses,
    plain_address,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.check import (
    NODE,
    STORAGE,
    VMID_RANGE,
    WORD,
    Check,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import DISK_KEY
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.disks import desired_disks, desired_firmware
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.fields import RESERVED, is_cd, shown_addresses
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import (
    NIC_MODELS,
    Clone,
    Network,
    Placement,
    Shutdown,
    VmDesired,
    own_tags,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.sides import PARTS
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.snapshots import check_name

MAX_DESCRIPTION = 8192
VLAN_RANGE = range(1, 4095)
# what the server stores unchanged: it lowers, sorts and joins everything else
TAG = re.compile(r"[a-z0-9_][a-z0-9_+.-]*\Z")
MAC = re.compile(r"[0-9A-F][02468ACE](:[0-9A-F]{2}){5}\Z")
DEVICE = re.compile(r"(scsi|virtio|sata|ide|net|hostpci|usb)\d+\Z")
USER = re.compile(r"[a-z_][a-z0-9_-]*\Z")
POOL = re.compile(r"[A-Za-z0-9_./-]+\Z")
RAW_KEY = re.compile(r"[a-z][a-z0-9_-]*\Z")
# crypt(5): $id$...; the server also takes plain text, which it stores in clear at creation
CRYPT = re.compile(r"\$[0-9a-z-]+\$[^\s:]+\Z")
# qemu-server: schema of POST /nodes/{node}/qemu
NUMBERS: Mapping[str, range] = {
    "cores": range(1, 8193),
    "sockets": range(1, 129),
    "vcpus": range(1, 8193),
    "cpu_units": range(1, 262_145),
    "memory": range(16, 4_178_945),
    "balloon": range(0, 4_178_945),
    "shares": range(0, 50_001),
}
FLAGS = ("numa", "protection", "onboot", "agent")
CONTROLLERS = ("lsi", "lsi53c810", "virtio-scsi-pci", "virtio-scsi-single", "megasas", "pvscsi")
SYSTEMS = (
    *("other", "wxp", "w2k", "w2k3", "w2k8", "wvista", "win7", "win8", "win10", "win11", "l24", "l26", "solaris"),
)
HOTPLUG_FEATURES = ("network", "disk", "cpu", "memory", "usb", "cloudinit")


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
    check = Check(f"VM {name}", item)
    seconds = range(0, 86_401)
    force = item.get("force_stop")
    safety = item.get("safety_snapshot") == "risky"
    return VmDesired(
        name=name,
        state=item.get("state") or "present",
        vmid=check.number("vmid", VMID_RANGE),
        node=check.text("node", NODE, "the name of a node"),
        migrate=bool(item.get("migrate")),
        placement=_placement(check),
        power=_power(check),
        shutdown=Shutdown(_given(check.number("shutdown_timeout", seconds), 60), force is None or bool(force)),
        reboot_pending=item.get("reboot") == "if_pending",
        template=item.get("template"),
        clone=_clone(check),
        settings={key: value for key, value in _settings(check, name).items() if value is not None},
        raw=_raw(check),
        disks=desired_disks(check),
        firmware=desired_firmware(check),
        networks=check.each("networks", _network),
        tags=_tags(check, name),
        pool=check.text("pool", POOL, "the name of a pool"),
        password_hash=_password_hash(check),
        agent_wait=_given(check.number("agent_wait", seconds), 0),
        safety_snapshots=_given(check.number("safety_snapshots_kept", range(1, 101)), 2) if safety else 0,
        rollback=check_name(check, "rollback"),
        parts={part.key: part.desired(check, item[part.key]) for part in PARTS if item.get(part.key) is not None},
    )


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _power(check: Check) -> Any:
    power = check.one_of("power", ("started", "stopped", "paused", "unmanaged")) or "started"
    stays = check.values.get("state") != "absent"
    if stays and check.values.get("template") and power not in ("stopped", "unmanaged"):
        raise check.refused("power", power, "stopped or unmanaged, because a template never runs")
    return power


def _placement(check: Check) -> Placement | None:
    values = check.values.get("placement")
    if values is None:
        return None
    inner = check.inside("placement", values)
    nodes, machines = values.get("nodes"), values.get("apart_from") or ()
    for node in nodes or ():
        if not NODE.match(node):
            raise inner.refused("nodes", node, "names of nodes")
    if nodes is not None and not nodes:
        raise inner.refused("nodes", nodes, "at least one node, or leave nodes out to allow all")
    return Placement(None if nodes is None else frozenset(nodes), frozenset(machines), bool(values.get("strict")))


def _clone(check: Check) -> Clone | None:
    values = check.values.get("clone")
    if values is None:
        return None
    inner = check.inside("clone", values)
    disk = check.values.get("disk") or {}
    if disk.get("import_from"):
        raise check.refused("clone", values, "either clone or disk.import_from")
    vmid = inner.number("vmid", VMID_RANGE)
    if vmid is None:
        raise inner.refused("vmid", vmid, "the VMID to copy")
    return Clone(
        vmid,
        values.get("full"),
        inner.text("storage", STORAGE, "the name of a storage"),
        inner.one_of("format", ("raw", "qcow2", "vmdk")),
        check_name(inner, "snapshot"),
    )


def _settings(check: Check, name: str) -> dict[str, Any]:
    """Values of the table in fields.py, None where an option is not given."""
    item = check.values
    return {
        "name": name,
        **{option: check.number(option, allowed) for option, allowed in NUMBERS.items()},
        **{option: item.get(option) for option in FLAGS},
        "cpu": check.text("cpu", WORD, "the name of a CPU model, such as host"),
        "cpu_limit": _decimal(check, "cpu_limit", 128),
        "machine": check.text("machine", WORD, "a machine type, such as q35"),
        "bios": check.one_of("bios", ("seabios", "ovmf")),
        "scsi_controller": check.one_of("scsi_controller", CONTROLLERS),
        "os_type": check.one_of("os_type", SYSTEMS),
        "vga": check.text("vga", WORD, "a display type, such as std or serial0"),
        "boot_order": _words(check, "boot_order", DEVICE, "devices, such as scsi0 and net0"),
        "hotplug": _hotplug(check),
        "startup": _startup(check),
        "description": _description(check),
        **_cloud_init(check),
        **_addresses(check),
    }


def _decimal(check: Check, option: str, most: int) -> float | None:
    value = check.values.get(option)
    if value is not None and not 0 <= value <= most:
        raise check.refused(option, value, f"a number from 0 to {most}")
    # as precise as it is sent, to compare equal
    return None if value is None else float(f"{value:g}")


def _words(check: Check, option: str, pattern: re.Pattern[str], wanted: str) -> list[str] | None:
    values = check.values.get(option)
    for value in values or ():
        if not pattern.match(value):
            raise check.refused(option, value, wanted)
    return None if values is None else list(values)


def _hotplug(check: Check) -> list[str] | None:
    values = check.values.get("hotplug")
    for value in values or ():
        if value not in HOTPLUG_FEATURES:
            raise check.refused("hotplug", value, f"some of {', '.join(HOTPLUG_FEATURES)}")
    return None if values is None else sorted(set(values))


def _startup(check: Check) -> dict[str, int] | None:
    values = check.values.get("startup")
    if values is None:
        return None
    inner = check.inside("startup", values)
    numbers = {key: inner.number(key, range(0, 1_000_000)) for key in ("order", "up", "down")}
    return {key: number for key, number in numbers.items() if number is not None}


def _description(check: Check) -> str | None:
    """The server cuts trailing newlines; so do we, to compare equal."""
    value = check.values.get("description")
    if value is None:
        return None
    if len(value) > MAX_DESCRIPTION:
        raise check.refused("description", f"{value[:40]}...", f"at most {MAX_DESCRIPTION} characters")
    return str(value).rstrip("\n")


def _cloud_init(check: Check) -> dict[str, Any]:
    values = check.values.get("cloud_init")
    if values is None:
        return {}
    inner = check.inside("cloud_init", values)
    keys = values.get("ssh_keys")
    for key in keys or ():
        if len(key.split()) < 2 or len(key.splitlines()) != 1 or key.startswith("#"):
            raise inner.refused("ssh_keys", key, "one public key per entry, such as ssh-ed25519 AAAA... name")
    servers = values.get("nameservers")
    return {
        "user": inner.text("user", USER, "the name of a user"),
        "ssh_keys": None if keys is None else sorted({key.strip() for key in keys}),
        "nameservers": None if servers is None else [plain_address(inner, "nameservers", one) for one in servers],
        "search_domains": _words(inner, "search_domains", re.compile(r"[A-Za-z0-9.-]+\Z"), "domain names"),
        "upgrade": values.get("upgrade"),
    }


def _addresses(check: Check) -> dict[str, Any]:
    """Addresses by device: those of cloud_init are those of the first one."""
    found: dict[str, Any] = {}
    for number, values in enumerate(check.values.get("networks") or ()):
        ip = desired_addresses(check.inside(f"networks[{number}]", values))
        if ip is not None:
            found[f"addresses{number or ''}"] = shown_addresses(ip)
    cloud_init = check.values.get("cloud_init")
    ip = desired_addresses(check.inside("cloud_init", cloud_init)) if cloud_init is not None else None
    if ip is None:
        return found
    if "addresses" in found:
        raise check.refused("cloud_init, addresses", shown_addresses(ip), "either these or networks[0].addresses")
    return {**found, "addresses": shown_addresses(ip)}


def _password_hash(check: Check) -> str | None:
    value = (check.values.get("cloud_init") or {}).get("password_hash")
    if value is not None and not CRYPT.match(value):
        # the value is not quoted: it is a secret, perhaps the password itself
        raise InvalidInput(
            "the value is no crypt hash",
            where=f"{check.where}, cloud_init, password_hash",
            hint="Give a hash such as $6$... (mkpasswd -m sha-512), never the password",
        )
    return value


def _network(check: Check) -> Network:
    model = check.one_of("model", NIC_MODELS) or "virtio"
    mac = check.values.get("mac")
    if mac is not None and not MAC.match(mac.upper()):
        raise check.refused("mac", mac, "a unicast address, such as BC:24:11:00:00:01")
    return Network(
        bridge=check.required("bridge", WORD, "the name of a bridge"),
        model=model,
        tag=check.number("tag", VLAN_RANGE),
        firewall=bool(check.values.get("firewall")),
        mac=None if mac is None else mac.upper(),
        others=tuple((key, value) for key, value in _network_others(check).items() if value is not None),
    )


def _network_others(check: Check) -> dict[str, str | None]:
    mtu, queues = check.number("mtu", range(1, 65_521)), check.number("queues", range(0, 65))
    rate, down, trunks = _decimal(check, "rate", 10_240), check.values.get("link_down"), check.values.get("trunks")
    for tag in trunks or ():
        if tag not in VLAN_RANGE:
            raise check.refused("trunks", tag, "VLAN tags from 1 to 4094")
    return {
        "trunks": None if trunks is None else ";".join(str(tag) for tag in sorted(set(trunks))),
        "mtu": None if mtu is None else str(mtu),
        "queues": None if queues is None else str(queues),
        "rate": None if rate is None else f"{rate:g}",
        "link_down": None if down is None else str(int(down)),
    }


def _tags(check: Check, name: str) -> frozenset[str] | None:
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


def _raw(check: Check) -> dict[str, str | None]:
    values = check.values.get("options") or {}
    for key in values:
        if not RAW_KEY.match(key):
            raise check.refused("options", key, "keys of the configuration, such as hostpci0")
        if RESERVED.match(key):
            raise check.refused("options", key, "the module's own option for it, if there is one")
    found = {key: None if value is None else _raw_text(value) for key, value in values.items()}
    for key, text in found.items():
        # a volume would be made at every run
        if text and DISK_KEY.match(key) and not is_cd(text):
            raise check.refused(f"options, {key}", text, "disks for a disk; a CD drive is STORAGE:iso/NAME,media=cdrom")
    return found


def _raw_text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value).strip()
