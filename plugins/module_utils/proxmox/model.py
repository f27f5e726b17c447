# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual machines as typed values: what is desired, what there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.names import OWNER_TAG, machine_tag

GIB = 1024**3
SYSTEM_DISK = "scsi0"
CLOUD_INIT_DRIVE = "ide2"

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
Power = Literal["started", "stopped", "paused"]
WantedPower = Literal["started", "stopped", "paused", "unmanaged"]
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Network:
    """One network device.

    :param mac: upper case; None in a desired state keeps the present address or lets the server make one.
    :param others: further keys of the server's property string (mtu, queues ...); those that a desired state does not
        name are kept.
    """

    bridge: str
    model: str = "virtio"
    tag: int | None = None
    firewall: bool = False
    mac: str | None = None
    others: Pairs = ()


@dataclass(frozen=True)
class Disk:
    """A desired disk.

    :param slot: such as scsi1.
    :param storage: for a new disk; an existing one is moved there only with *move*.
    :param import_from: volume that is copied into a new disk.
    :param size: bytes; None is the size of what is copied, or not managed.
    :param options: the keys of the property string that are managed.
    """

    slot: str = SYSTEM_DISK
    state: Literal["present", "absent"] = "present"
    storage: str | None = None
    import_from: str | None = None
    size: int | None = None
    move: bool = False
    format: str | None = None
    options: Pairs = ()


@dataclass(frozen=True)
class Drive:
    """A disk that is there. :param size: bytes, None where the server does not know it."""

    volume: str
    size: int | None = None
    options: Pairs = ()

    @property
    def storage(self) -> str:
        return self.volume.partition(":")[0]


@dataclass(frozen=True)
class Firmware:
    """A volume for firmware (EFI variables or TPM state), made once and then kept."""

    key: str
    storage: str
    options: Pairs = ()


@dataclass(frozen=True)
class IpConfig:
    """Addresses of one network device: at most one IPv4 and one IPv6 interface (CIDR) or dynamic word each."""

    ipv4: str | None = None
    gateway4: str | None = None
    ipv6: str | None = None
    gateway6: str | None = None


@dataclass(frozen=True)
class Clone:
    """Where a new VM is copied from. :param full: None is the server's default, linked only for templates."""

    vmid: int
    full: bool | None = None
    storage: str | None = None
    format: str | None = None
    snapshot: str | None = None


@dataclass(frozen=True)
class Placement:
    """Which node a new VM gets. :param nodes: None allows all. :param apart_from: machines on other nodes."""

    nodes: frozenset[str] | None = None
    apart_from: frozenset[str] = frozenset()
    strict: bool = False


@dataclass(frozen=True)
class Shutdown:
    """How a running VM is stopped. :param timeout: seconds for the guest. :param force: then it is cut off."""

    timeout: int = 60
    force: bool = True


@dataclass(frozen=True)
class VmDesired:
    """The desired state of one machine's VM; None is not managed.

    :param settings: value of each given option that is one key of the configuration (fields.Field), by option.
    :param raw: given text of raw configuration keys; None deletes the key.
    :param tags: with our two tags; None keeps what is there and adds ours.
    :param password_hash: crypt hash, sent at creation only.
    :param agent_wait: seconds to wait for the guest agent after a start.
    :param parts: value of each given option that has requests of its own (parts.Part), by option.
    :param problem: why this item cannot be used; it is then refused and everything else of it is meaningless.
    """

    name: str
    state: Literal["present", "absent"] = "present"
    vmid: int | None = None
    node: str | None = None
    migrate: bool = False
    placement: Placement | None = None
    power: WantedPower = "started"
    shutdown: Shutdown = field(default_factory=Shutdown)
    reboot_pending: bool = False
    template: bool | None = None
    clone: Clone | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    raw: Mapping[str, str | None] = field(default_factory=dict)
    disks: tuple[Disk, ...] = ()
    firmware: tuple[Firmware, ...] = ()
    networks: tuple[Network, ...] | None = None
    tags: frozenset[str] | None = None
    pool: str | None = None
    password_hash: str | None = field(default=None, repr=False)
    agent_wait: int = 0
    safety_snapshots: int = 0
    rollback: str | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)
    problem: HostingError | None = None


@dataclass(frozen=True)
class VmActual:
    """One VM as the cluster has it, pending changes applied.

    :param machine: name of the machine that our tag gives.
    :param config: its configuration after the next start, text by key; empty while only the list was read.
    :param pending: keys whose change waits for a stop and start.
    :param parts: what the parts of the desired state have read, by option.
    :param unfinished: a clone whose configuration was not begun.
    :param agent: whether the guest agent answered; None if it was not asked.
    :param addresses: that the guest agent told.
    :param snapshots: names of the snapshots that this run took.
    :param problem: why this VM is not touched; the rest of it is then not read.
    :param read_at: when it was read, in seconds of the client's clock.
    """

    machine: str
    vmid: int = 0
    node: str = ""
    power: Power = "stopped"
    pool: str | None = None
    ha: bool = False
    config: Mapping[str, str] = field(default_factory=dict)
    pending: tuple[str, ...] = ()
    parts: Mapping[str, Any] = field(default_factory=dict)
    unfinished: bool = False
    agent: bool | None = None
    addresses: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    problem: HostingError | None = None
    read_at: float = field(default=0.0, compare=False)

    @property
    def path(self) -> str:
        """The path of its requests."""
        return f"/nodes/{self.node}/qemu/{self.vmid}"


def own_tags(machine: str) -> frozenset[str]:
    """The tags by which the VM of *machine* is ours."""
    return frozenset({OWNER_TAG, machine_tag(machine)})
