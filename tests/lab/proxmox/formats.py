# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The named formats of string parameters: one function each, None when the value is good, else the server's text.

Source: PVE/JSONSchema.pm, PVE/QemuServer*.pm and PVE/AccessControl.pm (formats); texts as measured.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from . import cpumodels
from .fwformats import FIREWALL
from .privileges import PRIVILEGES

Check = Callable[[str], str | None]

LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?"
VOLUME = re.compile(r"([a-zA-Z][a-zA-Z0-9\-_.]*[a-zA-Z0-9]):(\S+)")
NEW_DISK = re.compile(r"([a-zA-Z][a-zA-Z0-9\-_.]*[a-zA-Z0-9]):(\d+(?:\.\d+)?)")
DISK = r"(?:ide[0-3]|sata[0-5]|scsi(?:[12]?\d|30)|virtio(?:\d|1[0-5])|efidisk0|tpmstate0)"


def split_list(text: str) -> list[str]:
    """The items of a list parameter: comma, semicolon, NUL and white space separate."""
    return [item for item in re.split(r"[\0,;\s]+", text.strip()) if item]


def _matches(pattern: str, text: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: None if compiled.fullmatch(value) else text.format(value=value)


def _address(version: int) -> Callable[[str], bool]:
    kind = {4: ipaddress.IPv4Address, 6: ipaddress.IPv6Address}[version]

    def check(value: str) -> bool:
        try:
            kind(value)
        except ValueError:
            return False
        return True

    return check


def _network(version: int) -> Callable[[str], bool]:
    kind = {4: ipaddress.IPv4Interface, 6: ipaddress.IPv6Interface}[version]

    def check(value: str) -> bool:
        try:
            kind(value)
        except ValueError:
            return False
        return re.search(r"/\d+$", value) is not None

    return check


ipv4, ipv6, network4, network6 = _address(4), _address(6), _network(4), _network(6)
_dns_name = _matches(rf"{LABEL}(?:\.{LABEL})*", "value does not look like a valid DNS name\n")


def _says(good: Callable[[str], bool], text: str) -> Check:
    return lambda value: None if good(value) else text.format(value=value)


def _each(check: Check) -> Check:
    def of_list(value: str) -> str | None:
        return next((text for text in map(check, split_list(value)) if text), None)

    return of_list


def _unicast_mac(value: str) -> bool:
    return bool(re.fullmatch(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}", value)) and not int(value[1], 16) & 1


def _startup(value: str) -> bool:
    return all(re.fullmatch(r"(?:(?:order|up|down)=)?\d+", part) for part in value.split(","))


def _hotplug(value: str) -> str | None:
    known = ("network", "disk", "cpu", "memory", "usb", "cloudinit")
    wrong = [] if value in ("0", "1") else [feature for feature in split_list(value) if feature not in known]
    return f"invalid hotplug feature '{wrong[0]}'\n" if wrong else None


def _drive_file(value: str) -> str | None:
    if value in ("none", "cdrom") or value.startswith("/"):
        return None
    return _volume_id(value)


_volume_id = _matches(VOLUME.pattern, "unable to parse volume ID '{value}'\n")
_configid = _matches(r"(?i:[a-z][a-z0-9_-]+)", "invalid configuration ID '{value}'\n")
_storage = _matches(r"(?i:[a-z][a-z0-9\-_.]*[a-z0-9])", "storage ID '{value}' contains illegal characters\n")
_vmid = _matches(r"[1-9]\d{2,8}", "value does not look like a valid VM ID\n")
_pool = _matches(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+){0,2}", "pool name '{value}' contains invalid characters\n")
_role = _matches(r"[A-Za-z0-9.\-_]+", "role name '{value}' contains invalid characters\n")
_group = _matches(r"[A-Za-z0-9.\-_]+", "group name '{value}' contains invalid characters\n")
_user = _matches(r"[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+", "value '{value}' does not look like a valid user name\n")
_token = _matches(
    r"[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+![A-Za-z][A-Za-z0-9.\-_]+",
    "value '{value}' does not look like a valid token ID\n",
)
_tag = _matches(r"(?i:[a-z0-9_][a-z0-9_\-+.]*)", "invalid characters in tag\n")
_content = _matches(r"images|rootdir|iso|vztmpl|backup|snippets|import|none", "invalid content type '{value}'\n")


def _anything(value: str) -> None:
    """A format that belongs to parts of the real server that the simulator accepts and ignores."""


_ha_resource = _matches(r"[a-z]+:\S+", "value does not look like a valid ha resource id\n")
_ha_node = _matches(rf"{LABEL}(?::\d+)?", "value does not look like a valid ha node\n")


CHECKS: dict[str, Check] = {
    **FIREWALL,
    "cpu-model": cpumodels.check,
    "phys-bits": cpumodels.check_bits,
    "ha-resource-id-list": _each(_ha_resource),
    "ha-resource-or-vm-id": _matches(r"[a-z]+:\S+|\d+", "value does not look like a valid ha resource id\n"),
    "ha-node-list": _each(_ha_node),
    "vmid": _vmid,
    "vmid-list": _each(_vmid),
    "node": _matches(LABEL, "value does not look like a valid node name\n"),
    "node-list": _each(_matches(LABEL, "value does not look like a valid node name\n")),
    "dns-name": _dns_name,
    "address-list": _each(
        _says(
            lambda value: ipv4(value) or ipv6(value) or _dns_name(value) is None,
            "value does not look like a valid address: {value}\n",
        )
    ),
    "configid": _configid,
    "configid-list": _each(_configid),
    "storage-id": _storage,
    "storage-id-list": _each(_storage),
    "storage-content": _content,
    "storage-content-list": _each(_content),
    "storage-path": _says(lambda value: value.startswith("/"), "value '{value}' is no absolute path\n"),
    "bridge-id": _matches(r"[-_.\w]+", "(invalid bridge ID) '{value}'\n"),
    "mac-addr": _says(_unicast_mac, "value does not look like a valid unicast MAC address\n"),
    "ipv4": _says(ipv4, "value does not look like a valid IPv4 address\n"),
    "ipv6": _says(ipv6, "value does not look like a valid IPv6 address\n"),
    "ipv4-config": _says(
        lambda value: value == "dhcp" or network4(value),
        "value does not look like a valid ipv4 network configuration\n",
    ),
    "ipv6-config": _says(
        lambda value: value in ("auto", "dhcp") or network6(value),
        "value does not look like a valid ipv6 network configuration\n",
    ),
    "CIDR": _says(lambda value: network4(value) or network6(value), "value does not look like a valid CIDR network\n"),
    "disk-size": _matches(r"\d+(?:\.\d+)?[KMGT]?", "value does not look like a valid disk size: {value}\n"),
    "urlencoded": _matches(r"[-%a-zA-Z0-9_.!~*'()]*", "invalid urlencoded string: {value}\n"),
    "tag-list": _each(_tag),
    "volume-id": _volume_id,
    "volume-id-or-absolute-path": _says(
        lambda value: value.startswith("/") or _volume_id(value) is None, "unable to parse volume ID '{value}'\n"
    ),
    "volume-id-or-qm-path": _drive_file,
    "startup-order": _says(_startup, "unable to parse startup options\n"),
    "hotplug-features": _hotplug,
    "bootdisk": _matches(r"(?:ide|sata|scsi|virtio)\d+", "invalid boot disk '{value}'\n"),
    "bootdev-list": _each(_matches(rf"{DISK}|net\d+|usb\d+|hostpci\d+", "invalid boot device '{value}'\n")),
    "userid": _user,
    "userid-list": _each(_user),
    "tokenid-list": _each(_token),
    "roleid": _role,
    "roleid-list": _each(_role),
    "groupid-list": _each(_group),
    "priv-list": _each(_says(lambda value: value in PRIVILEGES, "invalid privilege '{value}'\n")),
    "poolid": _pool,
    "realm": _matches(r"[A-Za-z][A-Za-z0-9.\-_]+", "value does not look like a valid realm\n"),
    "email-opt": _matches(r"|[^@\s]+@[^@\s]+", "value does not look like a valid email address\n"),
    "task-status-type-list": _each(_matches(r"ok|error|warning|unknown", "value '{value}' is no task status type\n")),
    "cpuset": _matches(r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*", "unable to parse CPU set '{value}'\n"),
    **dict.fromkeys(
        (
            "dir-override-list",
            "storage-options",
            "storage-pair-list",
            "storage-portal-dns",
            "storage-portal-dns-list",
            "storage-server",
            "storage-vgname",
        ),
        _anything,
    ),
}
