# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual machines as typed values: what is desired, what there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.names import OWNER_TAG, machine_tag

GIB = 1024**3

NIC_MODELS = (
    "e1000",
    "e1000-82540em",
    "e1000-82544gc",
    "e1000-82545em",
    "e1000e",
    "i82551",
    "i82557b",
    "i82559er",
    "ne2k_isa",
    "ne2k_pci",
    "pcnet",
    "rtl8139",
    "virtio",
    "vmxnet3",
)
Power = Literal["started", "stopped"]


@dataclass(frozen=True)
class Network:
    """One network device.

    :param mac: upper case; None in a desired state keeps the present address or lets the server make one.
    :param others: further keys of the server's property string (mtu, queues ...), which we keep.
    """

    bridge: str
    model: str = "virtio"
    tag: int | None = None
    firewall: bool = False
    mac: str | None = None
    others: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Disk:
    """The system disk; storage and image matter at creation only. ``size`` in bytes, None is the image's own."""

    storage: str
    import_from: str
    size: int | None = None


@dataclass(frozen=True)
class IpConfig:
    """Addresses of the first network device: at most one IPv4 and one IPv6 interface (CIDR) or dynamic word each."""

    ipv4: str | None = None
    gateway4: str | None = None
    ipv6: str | None = None
    gateway6: str | None = None


@dataclass(frozen=True)
class CloudInit:
    """What the guest is told at its first boot; None is not managed."""

    user: str | None = None
    ssh_keys: frozenset[str] | None = None
    ip: IpConfig | None = None
    nameservers: tuple[str, ...] | None = None
    search_domains: tuple[str, ...] | None = None


@dataclass(frozen=True)
class VmDesired:
    """The desired state of one machine's VM; None is not managed.

    :param memory: MiB.
    :param tags: with our two tags; None keeps what is there and adds ours.
    :param problem: why this item cannot be used; it is then refused and everything else of it is meaningless.
    """

    name: str
    state: Literal["present", "absent"] = "present"
    vmid: int | None = None
    node: str | None = None
    power: Power = "started"
    cores: int | None = None
    memory: int | None = None
    disk: Disk | None = None
    networks: tuple[Network, ...] | None = None
    cloud_init: CloudInit = field(default_factory=CloudInit)
    tags: frozenset[str] | None = None
    pool: str | None = None
    description: str | None = None
    onboot: bool | None = None
    agent: bool | None = None
    problem: HostingError | None = None


@dataclass(frozen=True)
class VmActual:
    """One VM as the cluster has it, pending changes applied.

    :param machine: name of the machine that our tag gives.
    :param name: name of the VM.
    :param memory: MiB.
    :param disk_size: bytes; None without a disk scsi0.
    :param networks: by number of the device (0 is net0).
    :param agent_options: further keys of the agent's property string, which we keep.
    :param pending: keys whose change waits for a stop and start.
    :param incarnation: changes when the VM is made anew, restored or rolled back to a snapshot (the generation id; the
        SMBIOS id where there is none).
    :param digest: of the configuration, to notice that somebody else changed it.
    :param problem: why this VM is not touched; the rest of it is then not read.
    """

    machine: str
    vmid: int = 0
    node: str = ""
    power: Power = "stopped"
    name: str = ""
    cores: int = 1
    memory: int = 512
    disk_size: int | None = None
    networks: Mapping[int, Network] = field(default_factory=dict)
    cloud_init: CloudInit = field(default_factory=CloudInit)
    tags: frozenset[str] = frozenset()
    pool: str | None = None
    description: str = ""
    onboot: bool = False
    agent: bool = False
    agent_options: tuple[tuple[str, str], ...] = ()
    pending: tuple[str, ...] = ()
    incarnation: str = ""
    digest: str | None = None
    problem: HostingError | None = None


def own_tags(machine: str) -> frozenset[str]:
    """The tags by which the VM of *machine* is ours."""
    return frozenset({OWNER_TAG, machine_tag(machine)})
