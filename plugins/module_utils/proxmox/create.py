# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""New virtual machines from an image: what one request makes, and how the machine is then without being read.

Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.compare import Difference, difference
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import (
    drives,
    format_properties,
    format_size,
    parse_properties,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.disks import check_growth, new_disk, shown_new
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import (
    CLOUD_INIT_DRIVE,
    SYSTEM_DISK,
    Disk,
    VmActual,
    VmDesired,
)

Images = Mapping[str, int]
"""Size in bytes of each volume that may be imported, by its name."""

Parameters = dict[str, "str | int | bool | None"]
# what a new VM has when the item does not say otherwise; a server's own defaults suit old guests
DEFAULTS = {
    "ostype": "l26",
    "scsihw": "virtio-scsi-single",
    "serial0": "socket",
    # on by default; the system is updated by its configuration, never by cloud-init
    "ciupgrade": "0",
}
# parameters of the request that are no configuration
ORDERS = ("vmid", "pool", "start", "cipassword")


def system_disk(desired: VmDesired) -> Disk | None:
    return next((disk for disk in desired.disks if disk.slot == SYSTEM_DISK and disk.state == "present"), None)


def check_creation(desired: VmDesired, images: Images) -> None:
    """:raises InvalidInput: a part is missing, or a disk is to be smaller than its image."""
    where = f"VM {desired.name}"
    if desired.rollback is not None:
        raise InvalidInput("there is nothing to roll back", where=f"{where}, rollback", hint="Leave rollback out")
    if desired.clone is not None:
        return
    for field_name, value in (("node", desired.node or desired.placement), ("disk", system_disk(desired))):
        if value is None:
            raise InvalidInput(
                "the virtual machine does not exist and cannot be created without this field",
                where=f"{where}, {field_name}",
                hint="Give node or placement, and disk.storage with disk.import_from; or clone",
            )
    for disk in desired.disks:
        if disk.state == "present":
            new_disk(disk, where)
            if disk.import_from is not None and disk.import_from in images:
                check_growth(disk, images[disk.import_from], "the image", where)


def creation(desired: VmDesired, node: str) -> Difference:
    """Everything that a new VM is given beside its system disk, compared with a VM that has nothing."""
    disks = tuple(disk for disk in desired.disks if disk.state == "present" and disk.slot != SYSTEM_DISK)
    return difference(replace(desired, disks=disks), VmActual(desired.name, 0, node))


def shown_creation(desired: VmDesired, node: str) -> dict[str, Any]:
    """What diff mode shows of a new VM."""
    clone = {} if desired.clone is None else {"clone": desired.clone.vmid}
    vmid = {} if desired.vmid is None else {"vmid": desired.vmid}
    disks = {disk.slot: shown_new(disk) for disk in desired.disks if disk.state == "present"}
    shown = {**creation(replace(desired, disks=()), node).after, "node": node, **vmid, **clone}
    return {**shown, "disks": disks} if disks else shown


def create_parameters(desired: VmDesired, vmid: int, node: str, images: Images) -> Parameters:
    """Parameters of ``POST /nodes/{node}/qemu``: the image is imported and everything set in one request."""
    disk = system_disk(desired)
    if disk is None:
        raise InvalidInput("a disk is needed", where=f"VM {desired.name}, disk")
    if not any(key == "discard" for key, _value in disk.options):
        # the image is sparse and shall stay so
        disk = replace(disk, options=(*disk.options, ("discard", "on")))
    return {
        "vmid": vmid,
        **DEFAULTS,
        SYSTEM_DISK: new_disk(disk, f"VM {desired.name}"),
        CLOUD_INIT_DRIVE: f"{disk.storage}:cloudinit",
        "boot": f"order={SYSTEM_DISK}",
        **creation(desired, node).values,
        "cipassword": desired.password_hash,
        "pool": desired.pool,
        "start": starts_itself(desired, images) or None,
    }


def growth(desired: VmDesired, images: Images) -> dict[str, int]:
    """The disks that are to be larger than their images, in bytes."""
    return {
        disk.slot: disk.size
        for disk in desired.disks
        if disk.state == "present" and disk.import_from and disk.size and images.get(disk.import_from) != disk.size
    }


def starts_itself(desired: VmDesired, images: Images) -> bool:
    """Whether the server starts the new VM; we do after disks have grown and its firewall is up.

    Guests grow their file system at the first boot. Under high availability its manager starts it.
    """
    return desired.power == "started" and not desired.parts and not growth(desired, images)


def as_created(desired: VmDesired, node: str, parameters: Mapping[str, Any], images: Images) -> VmActual:
    """The new VM, stopped and before its disks have grown, as the request made it."""
    config = {key: str(value) for key, value in parameters.items() if key not in ORDERS and value is not None}
    made = {disk.slot: disk for disk in desired.disks}
    for slot, drive in drives(config).items():
        if slot not in made or (slot == CLOUD_INIT_DRIVE and "cloudinit" in drive.volume):
            continue
        source = made[slot].import_from
        size = images.get(source) if source else made[slot].size
        options = parse_properties(config[slot], "file")
        kept = [(key, value) for key, value in options.items() if key not in ("file", "import-from", "format")]
        known = [] if size is None else [("size", format_size(size))]
        config[slot] = ",".join(filter(None, [f"{drive.storage}:{slot}", format_properties([*kept, *known])]))
    return VmActual(desired.name, int(parameters["vmid"]), node, "stopped", desired.pool, config=config)
