# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What differs between a desired VM and the one that is there, and the parameters that change it.

Pure functions. Both sides are plain values by option; only options that are given are compared, and the same values are
what diff mode shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Denied, InvalidInput, NotOwned
from ansible_collections.fediversity.hosting.plugins.module_utils.names import machine_tag
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.clones import without_mark
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import (
    IP_CONFIG_KEY,
    drives,
    format_network,
    format_tags,
    has_cloud_init_drive,
    networks,
    parse_bool,
    parse_tags,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.disks import (
    DiskChanges,
    disk_changes,
    firmware_changes,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.fields import (
    BY_OPTION,
    CLOUD_INIT_OPTIONS,
    address_field,
    field_of,
    parse_raw,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.ha import rules_power
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import (
    CLOUD_INIT_DRIVE,
    SYSTEM_DISK,
    Network,
    VmActual,
    VmDesired,
    WantedPower,
    own_tags,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.sides import PARTS

NETWORK_DEFAULTS = {"link_down": "0"}


@dataclass(frozen=True)
class Difference:
    """What one VM needs; every member but before and after says how.

    :param values: text by key of the configuration, to set.
    :param deleted: keys to delete; volumes of disks among them are deleted too.
    :param power: the state to reach; None if it is reached or left alone.
    :param risky: a safety snapshot is worth it, and does not stand in the way of the change.
    """

    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    deleted: tuple[str, ...] = ()
    disks: DiskChanges = field(default_factory=DiskChanges)
    target: str | None = None
    pool: str | None = None
    parts: tuple[str, ...] = ()
    power: WantedPower | None = None
    template: bool = False
    reboot: bool = False
    rollback: str | None = None
    risky: bool = False


@dataclass
class _Findings:
    """What was found so far, for one VM."""

    desired: VmDesired
    actual: VmActual
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    risky: bool = False

    def differs(self, key: str, have: Any, want: Any) -> bool:
        if have == want:
            return False
        self.before[key], self.after[key] = have, want
        return True

    def store(self, key: str, text: str) -> None:
        # an empty value would read back as a blank
        if text:
            self.values[key] = text
        elif key in self.actual.config:
            self.deleted.append(key)

    def settings(self) -> None:
        config = self.actual.config
        for option, value in _settings(self.desired, self.actual).items():
            spec = field_of(option)
            have = spec.of(config)
            want = spec.merge(value, have)
            # a new VM is told everything, because it does not begin with the server's defaults
            if self.differs(option, have if self.actual.vmid else None, want):
                self.store(spec.key, spec.format(want, config.get(spec.key, "")))
                self.risky = self.risky or spec.risky
        for key, text in self.desired.raw.items():
            if key in drives(config):
                raise InvalidInput(
                    "the slot holds a disk",
                    where=f"VM {self.desired.name}, options, {key}",
                    hint="Name it in disks, or choose another slot",
                )
            if self.differs(f"options.{key}", parse_raw(key, config.get(key)), parse_raw(key, text)):
                self.store(key, text or "")
                self.risky = True
        tags = wanted_tags(self.desired, self.actual)
        if self.differs("tags", sorted(parse_tags(config.get("tags", ""))), sorted(tags)):
            self.store("tags", format_tags(tags))

    def networks(self) -> None:
        if self.desired.networks is None:
            return
        present = networks(self.actual.config)
        merged = merged_networks(self.desired.networks, present)
        if not self.differs("networks", shown_networks(present), shown_networks(merged)):
            return
        for number, network in merged.items():
            if number not in present or shown_network(network) != shown_network(present[number]):
                self.values[f"net{number}"] = format_network(network)
        self.deleted += [f"net{number}" for number in sorted(present) if number not in merged]

    def addresses_without_device(self) -> None:
        """The list of network devices is complete: a later one must not get the addresses of one that went."""
        if self.desired.networks is None:
            return
        numbers = sorted(int(match[1]) for key in self.actual.config if (match := IP_CONFIG_KEY.match(key)))
        for spec in (address_field(number) for number in numbers if number >= len(self.desired.networks)):
            if spec.option not in self.desired.settings and self.differs(spec.option, spec.of(self.actual.config), []):
                self.deleted.append(spec.key)

    def cloud_init_drive(self) -> None:
        """A clone of a source without one gets it, because cloud-init's settings would otherwise reach nobody."""
        if not self.actual.unfinished or has_cloud_init_drive(self.actual.config):
            return
        wanted = self.desired.settings.keys() & CLOUD_INIT_OPTIONS
        if wanted and CLOUD_INIT_DRIVE in drives(self.actual.config):
            raise InvalidInput(
                f"the source has a disk in the slot {CLOUD_INIT_DRIVE}, which is that of the cloud-init drive",
                where=f"VM {self.desired.name}, clone",
                hint="Attach it elsewhere, or leave cloud_init out",
            )
        if wanted and self.differs("cloud_init_drive", "", CLOUD_INIT_DRIVE):
            self.values[CLOUD_INIT_DRIVE] = f"{_cloud_init_storage(self.desired, self.actual)}:cloudinit"

    def volumes(self) -> DiskChanges:
        where, config = f"VM {self.desired.name}", self.actual.config
        disks = disk_changes(self.desired.disks, config, where)
        protected = BY_OPTION["protection"].of(config) and self.desired.settings.get("protection") is not False
        if disks.deleted and protected:
            raise Denied(
                f"VM {self.actual.vmid} and its disks are protected against deletion",
                where=f"{where}, disk {disks.deleted[0]}",
                hint="Say protection: false, or lift the protection in Proxmox VE",
            )
        if disks.after:
            self.before["disks"], self.after["disks"] = disks.before, disks.after
        before, after, firmware = firmware_changes(self.desired.firmware, config, where)
        self.before.update(before)
        self.after.update(after)
        self.values.update({**firmware, **disks.values})
        self.deleted += disks.deleted
        self.risky = self.risky or bool(firmware or disks.values or disks.deleted or disks.moved)
        return disks

    def parts(self) -> tuple[str, ...]:
        desired, actual = self.desired.parts, self.actual.parts
        return tuple(
            part.key
            for part in PARTS
            if part.key in desired and self.differs(part.key, *part.compare(desired[part.key], actual.get(part.key)))
        )


def difference(desired: VmDesired, actual: VmActual, target: str | None = None) -> Difference:
    """What differs.

    :param target: node to which the VM is to move.
    :raises InvalidInput: the desired state cannot be reached: a disk would shrink, a template would be a VM again.
    """
    if actual.vmid and not actual.config:
        return _power_only(desired, actual)
    found = _Findings(desired, actual)
    found.settings()
    found.networks()
    found.addresses_without_device()
    found.cloud_init_drive()
    disks = found.volumes()
    changes_pool = desired.pool is not None and found.differs("pool", actual.pool, desired.pool)
    moves = target is not None and found.differs("node", actual.node, target)
    parts = found.parts()
    power = power_to_reach(desired, actual)
    if power is not None:
        found.differs("power", actual.power, power)
    template = _template(desired, actual) and found.differs("template", False, True)
    stays_on = actual.power == "started" and power is None
    reboots = desired.reboot_pending and stays_on and found.differs("pending", list(actual.pending), [])
    if template and "parent" in actual.config and "snapshots" not in parts and not actual.unfinished:
        raise InvalidInput(
            "a virtual machine with snapshots cannot become a template",
            where=f"VM {desired.name}, template",
            hint="Delete its snapshots first",
        )
    if desired.rollback is not None:
        found.differs("rollback", "", desired.rollback)
    return Difference(
        before=found.before,
        after=found.after,
        values=found.values,
        deleted=tuple(found.deleted),
        disks=disks,
        target=target if moves else None,
        pool=desired.pool if changes_pool else None,
        parts=parts,
        power=power,
        template=template,
        reboot=reboots,
        rollback=desired.rollback,
        # Proxmox VE does none of these to what a snapshot holds
        risky=found.risky and not (template or moves or disks.moved or disks.deleted),
    )


def _power_only(desired: VmDesired, actual: VmActual) -> Difference:
    """Nothing else was asked for, so nothing else was read."""
    power = power_to_reach(desired, actual)
    if power is None:
        return Difference()
    return Difference({"power": actual.power}, {"power": power}, power=power)


def names_power_only(desired: VmDesired) -> bool:
    """Whether the item asks for nothing but a power state, so that the configuration need not be read."""
    return desired == VmDesired(
        name=desired.name,
        vmid=desired.vmid,
        power=desired.power,
        shutdown=desired.shutdown,
        settings={"name": desired.name},
    )


def _settings(desired: VmDesired, actual: VmActual) -> Mapping[str, Any]:
    """The given settings; a clone that was not finished loses the mark that it carries until then."""
    if not actual.unfinished or "description" in desired.settings:
        return desired.settings
    return {**desired.settings, "description": without_mark(actual.config.get("description", ""))}


def _cloud_init_storage(desired: VmDesired, actual: VmActual) -> str:
    for disk in desired.disks:
        if disk.slot == SYSTEM_DISK and disk.storage:
            return disk.storage
    return actual.config.get(SYSTEM_DISK, "").partition(":")[0]


def power_to_reach(desired: VmDesired, actual: VmActual) -> WantedPower | None:
    """The power to reach by requests of our own; None if there is nothing to do.

    With a high-availability state that says so, its manager starts and stops.
    """
    ha = desired.parts.get("ha")
    if ha is not None and rules_power(ha.state) and desired.power != "paused":
        return None
    return None if desired.power in ("unmanaged", actual.power) else desired.power


def is_template(config: Mapping[str, str]) -> bool:
    return parse_bool(config.get("template", "0"))


def _template(desired: VmDesired, actual: VmActual) -> bool:
    """Whether the VM is to become a template.

    :raises InvalidInput: it runs and shall stay so, or it is one and shall be none.
    """
    where, is_one = f"VM {desired.name}, template", is_template(actual.config)
    if is_one and not desired.template:
        raise NotOwned(
            f"the tag of the machine is on guest {actual.vmid}, which is a template",
            where=where,
            hint="Say template: true if that is wanted, or remove the tag there",
        )
    if not desired.template or is_one:
        return False
    if actual.power != "stopped" and desired.power == "unmanaged":
        raise InvalidInput(
            "a running virtual machine cannot become a template", where=where, hint="Say power: stopped, or stop it"
        )
    return True


def wanted_tags(desired: VmDesired, actual: VmActual) -> frozenset[str]:
    """The desired tags, or the present ones; ours are always among them.

    A clone that was not finished has the tags of its source: those that mark another machine are not kept.
    """
    if desired.tags is not None:
        return desired.tags
    present = parse_tags(actual.config.get("tags", ""))
    if actual.unfinished:
        present = frozenset(tag for tag in present if not tag.startswith(machine_tag("")))
    return present | own_tags(desired.name)


def merged_networks(wanted: tuple[Network, ...], present: Mapping[int, Network]) -> dict[int, Network]:
    """The desired network devices with the MAC address and the further keys of the present ones."""
    return {number: _merged_network(network, present.get(number)) for number, network in enumerate(wanted)}


def _merged_network(network: Network, present: Network | None) -> Network:
    """An empty text of a further key takes the key away, and so does a tag that is none."""
    others = {**dict(present.others if present else ()), **dict(network.others), "tag": ""}
    return replace(
        network,
        mac=network.mac or (present.mac if present else None),
        others=tuple(sorted((key, value) for key, value in others.items() if value)),
    )


def shown_networks(devices: Mapping[int, Network]) -> dict[str, dict[str, Any]]:
    return {f"net{number}": shown_network(network) for number, network in sorted(devices.items())}


def shown_network(network: Network) -> dict[str, Any]:
    """One device as plain values; a key at its default is as good as none."""
    others = {key: value for key, value in network.others if NETWORK_DEFAULTS.get(key) != value}
    return {
        "bridge": network.bridge,
        "model": network.model,
        "tag": network.tag,
        "firewall": network.firewall,
        "mac": network.mac,
        **others,
    }


def deletion(desired: VmDesired, actual: VmActual) -> dict[str, Any]:
    """What diff mode shows of a VM that is to go.

    :raises Denied: it is protected, and nobody asked to lift that.
    :raises NotOwned: it is a template, and nobody said so: the tag of a machine may be on what was made of it.
    """
    if is_template(actual.config) and not desired.template:
        raise NotOwned(
            f"the tag of the machine is on guest {actual.vmid}, which is a template",
            where=f"VM {desired.name}, template",
            hint="Say template: true beside state: absent if it is to go, or remove the tag there",
        )
    protected = BY_OPTION["protection"].of(actual.config)
    if protected and desired.settings.get("protection") is not False:
        raise Denied(
            f"VM {actual.vmid} is protected against deletion",
            where=f"VM {desired.name}, protection",
            hint="Say protection: false beside state: absent, or lift the protection in Proxmox VE",
        )
    return {"vmid": actual.vmid, "node": actual.node}
