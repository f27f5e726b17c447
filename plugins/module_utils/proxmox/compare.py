# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What differs between a desired VM and the one that is there, and the parameters that change it.

Pure functions. Both sides are shown as plain values by field; only fields that the desired state names are compared,
and the same values are what diff mode shows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import (
    CLOUD_INIT_DRIVE,
    SYSTEM_DISK,
    format_ip_config,
    format_network,
    format_properties,
    format_size,
    format_ssh_keys,
    format_tags,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import (
    CloudInit,
    IpConfig,
    Network,
    VmActual,
    VmDesired,
    own_tags,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Change

# changed by requests of their own, everything else by one change of the configuration
APART = ("disk_size", "pool", "power")


@dataclass(frozen=True)
class Parameters:
    """Parameters of a configuration change: what to set, which keys to delete."""

    values: Mapping[str, str | int | bool] = field(default_factory=dict)
    deleted: tuple[str, ...] = ()


def change_of(desired: VmDesired, actual: VmActual | None) -> Change[VmDesired, VmActual]:
    """What is to be done for one machine.

    :raises InvalidInput: its desired state cannot be reached: parts missing for creation, or a disk would shrink.
    """
    if desired.state == "absent":
        before = {"vmid": actual.vmid, "node": actual.node} if actual else {}
        return Change(desired.name, "delete" if actual else "unchanged", before, {}, desired, actual)
    if actual is None:
        _check_creation(desired)
        return Change(desired.name, "create", {}, wanted(desired, None), desired, None)
    _check_disk(desired, actual)
    want, have = wanted(desired, actual), shown(actual)
    keys = [key for key in want if want[key] != have[key]]
    before, after = {key: have[key] for key in keys}, {key: want[key] for key in keys}
    return Change(desired.name, "update" if keys else "unchanged", before, after, desired, actual)


def _check_creation(desired: VmDesired) -> None:
    for name, value in (("node", desired.node), ("disk", desired.disk)):
        if value is None:
            raise InvalidInput(
                "the virtual machine does not exist and cannot be created without this field",
                where=f"VM {desired.name}, {name}",
                hint="Give node, disk.storage and disk.import_from",
            )


def _check_disk(desired: VmDesired, actual: VmActual) -> None:
    size = desired.disk.size if desired.disk else None
    if size is None:
        return
    where = f"VM {desired.name}, disk.size"
    if actual.disk_size is None:
        raise InvalidInput(
            f"VM {actual.vmid} has no disk {SYSTEM_DISK} with a size", where=where, hint="Leave disk.size out"
        )
    if size < actual.disk_size:
        raise InvalidInput(
            f"the disk has {format_size(actual.disk_size)} and cannot shrink to {format_size(size)}",
            where=where,
            hint="Ask for at least the present size",
        )


def wanted(desired: VmDesired, actual: VmActual | None) -> dict[str, Any]:
    """The fields that the desired state names, as plain values; what it leaves open comes from *actual*."""
    cloud_init = desired.cloud_init
    networks = None if desired.networks is None else merged_networks(desired, actual)
    values = {
        "name": desired.name,
        "cores": desired.cores,
        "memory": desired.memory,
        "disk_size": desired.disk.size if desired.disk else None,
        "networks": None if networks is None else _networks(networks),
        **_cloud_init(cloud_init),
        "tags": sorted(wanted_tags(desired, actual)),
        "pool": desired.pool,
        "description": desired.description,
        "onboot": desired.onboot,
        "agent": desired.agent,
        "power": desired.power,
    }
    return {key: value for key, value in values.items() if value is not None}


def shown(actual: VmActual) -> dict[str, Any]:
    """All fields of the VM that is there, as plain values."""
    return {
        "name": actual.name,
        "cores": actual.cores,
        "memory": actual.memory,
        "disk_size": actual.disk_size,
        "networks": _networks(dict(actual.networks)),
        **_cloud_init(actual.cloud_init),
        "tags": sorted(actual.tags),
        "pool": actual.pool,
        "description": actual.description,
        "onboot": actual.onboot,
        "agent": actual.agent,
        "power": actual.power,
    }


def _cloud_init(cloud_init: CloudInit) -> dict[str, Any]:
    return {
        "user": cloud_init.user,
        "ssh_keys": None if cloud_init.ssh_keys is None else sorted(cloud_init.ssh_keys),
        "addresses": None if cloud_init.ip is None else _addresses(cloud_init.ip),
        "nameservers": None if cloud_init.nameservers is None else list(cloud_init.nameservers),
        "search_domains": None if cloud_init.search_domains is None else list(cloud_init.search_domains),
    }


def _addresses(ip: IpConfig) -> list[str]:
    pairs = ((ip.ipv4, ip.gateway4), (ip.ipv6, ip.gateway6))
    return [f"{address} via {gateway}" if gateway else address for address, gateway in pairs if address]


def _networks(networks: Mapping[int, Network]) -> dict[str, dict[str, Any]]:
    return {
        f"net{number}": {
            "bridge": network.bridge,
            "model": network.model,
            "tag": network.tag,
            "firewall": network.firewall,
            "mac": network.mac,
        }
        for number, network in sorted(networks.items())
    }


def wanted_tags(desired: VmDesired, actual: VmActual | None) -> frozenset[str]:
    """The desired tags, or the present ones; ours are always among them."""
    return own_tags(desired.name) | (desired.tags if desired.tags is not None else actual.tags if actual else set())


def merged_networks(desired: VmDesired, actual: VmActual | None) -> dict[int, Network]:
    """The desired network devices with the MAC address and the further keys of the present ones."""
    present = actual.networks if actual else {}
    return {
        number: replace(network, mac=network.mac or present[number].mac, others=present[number].others)
        if number in present
        else network
        for number, network in enumerate(desired.networks or ())
    }


def config_parameters(desired: VmDesired, actual: VmActual | None, keys: Collection[str]) -> Parameters:
    """What to send to make the fields *keys* of the configuration equal to the desired state."""
    cloud_init = desired.cloud_init
    candidates: dict[str, tuple[str, str | int | bool | None]] = {
        "name": ("name", desired.name),
        "cores": ("cores", desired.cores),
        "memory": ("memory", desired.memory),
        "onboot": ("onboot", desired.onboot),
        "agent": ("agent", _agent(desired, actual)),
        "description": ("description", desired.description),
        "tags": ("tags", format_tags(wanted_tags(desired, actual))),
        "user": ("ciuser", cloud_init.user),
        "ssh_keys": ("sshkeys", format_ssh_keys(cloud_init.ssh_keys or ())),
        "addresses": ("ipconfig0", format_ip_config(cloud_init.ip or IpConfig())),
        "nameservers": ("nameserver", " ".join(cloud_init.nameservers or ())),
        "search_domains": ("searchdomain", " ".join(cloud_init.search_domains or ())),
    }
    values = {name: value for key, (name, value) in candidates.items() if key in keys and value is not None}
    # an empty value would read back as a blank
    deleted = [name for name, value in values.items() if value == ""]
    if "networks" in keys:
        present = actual.networks if actual else {}
        networks = merged_networks(desired, actual)
        for number, network in networks.items():
            if network != present.get(number):
                values[f"net{number}"] = format_network(network)
        deleted += [f"net{number}" for number in sorted(present) if number not in networks]
    return Parameters({name: value for name, value in values.items() if value != ""}, tuple(deleted))


def _agent(desired: VmDesired, actual: VmActual | None) -> str | None:
    if desired.agent is None:
        return None
    options = actual.agent_options if actual else ()
    return format_properties([("enabled", str(int(desired.agent))), *options])


def create_parameters(desired: VmDesired, vmid: int) -> dict[str, str | int | bool]:
    """Parameters of ``POST /nodes/{node}/qemu``: the image is imported and everything set in one request.

    A disk that is to be larger than the image grows before the first boot, when the guest grows its file system;
    otherwise the server starts the VM itself.
    """
    disk = desired.disk
    if disk is None:
        raise InvalidInput("a disk is needed", where=f"VM {desired.name}, disk")
    return {
        "vmid": vmid,
        "ostype": "l26",
        "scsihw": "virtio-scsi-single",
        SYSTEM_DISK: f"{disk.storage}:0,import-from={disk.import_from},discard=on",
        CLOUD_INIT_DRIVE: f"{disk.storage}:cloudinit",
        "boot": f"order={SYSTEM_DISK}",
        "serial0": "socket",
        # on by default; the system is updated by its configuration, never by cloud-init
        "ciupgrade": False,
        **config_parameters(desired, None, wanted(desired, None)).values,
        **({"pool": desired.pool} if desired.pool else {}),
        **({"start": True} if starts_itself(desired) else {}),
    }


def starts_itself(desired: VmDesired) -> bool:
    """Whether the server starts the new VM, or we do after its disk has grown."""
    return desired.power == "started" and desired.disk is not None and desired.disk.size is None
