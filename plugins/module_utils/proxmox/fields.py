# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of options that are one key of the configuration: key, the server's default, parser and formatter.

Pure functions. Types and defaults: schema of ``/nodes/{node}/qemu``; property strings: its formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import (
    DISK_KEY,
    format_ip_config,
    format_properties,
    format_ssh_keys,
    parse_address,
    parse_bool,
    parse_ip_config,
    parse_properties,
    parse_ssh_keys,
    parse_words,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import IpConfig

Plain = Any
"""A value as diff mode shows it: text, number, truth, list or dictionary of these."""


def _as_wanted(want: Plain, have: Plain) -> Plain:
    return want


@dataclass(frozen=True)
class Field:
    """One option and its key.

    :param default: what the server takes where the key is absent; None where that depends on other things.
    :param parse: text to plain value.
    :param format: plain value and present text to new text; an empty text deletes the key.
    :param merge: wanted and present value to the value to reach.
    :param risky: a safety snapshot is worth it.
    """

    option: str
    key: str
    default: Plain
    parse: Callable[[str], Plain]
    format: Callable[[Plain, str], str]
    merge: Callable[[Plain, Plain], Plain] = _as_wanted
    risky: bool = False

    def of(self, config: Mapping[str, str]) -> Plain:
        """The present value; the text itself where it is none that the server would take, so that it is replaced."""
        if self.key not in config:
            return self.default
        try:
            return self.parse(config[self.key])
        except ValueError:
            return config[self.key]


def _text(value: Plain, _present: str) -> str:
    return str(value)


def _flag_text(value: Plain, _present: str) -> str:
    return str(int(value))


def _decimal_text(value: Plain, _present: str) -> str:
    return f"{value:g}"


def _stripped(text: str) -> str:
    # an empty value reads back as a blank
    return text.strip()


def _word(option: str, key: str, default: str | None, *, risky: bool = False) -> Field:
    return Field(option, key, default, _stripped, _text, risky=risky)


def _number(option: str, key: str, default: int | None) -> Field:
    return Field(option, key, default, int, _text)


def _flag(option: str, key: str, default: bool) -> Field:
    return Field(option, key, default, parse_bool, _flag_text)


def _property(
    option: str,
    key: str,
    name: str,
    default: Plain,
    *,
    convert: Callable[[str], Plain] = str,
    merge: Callable[[Plain, Plain], Plain] = _as_wanted,
    risky: bool = False,
) -> Field:
    """An option that is the default entry *name* of a property string; its other entries are kept."""

    def parse(text: str) -> Plain:
        values = parse_properties(text, name)
        return convert(values[name]) if name in values else default

    def form(value: Plain, present: str) -> str:
        others = parse_properties(present, name)
        others.pop(name, None)
        return ",".join([str(value), *filter(None, [format_properties(others.items())])])

    return Field(option, key, default, parse, form, merge, risky)


def _or_pinned(want: Plain, have: Plain) -> Plain:
    """The machine type that is there, if it is the wanted one with the version that the server chose for the guest."""
    kinds = {"pc": "pc-i440fx", "q35": "pc-q35", "virt": "virt"}
    return have if want in kinds and have.startswith(f"{kinds[want]}-") else want


def _named_agent(value: Plain, present: str) -> str:
    others = parse_properties(present, "enabled")
    return format_properties({**others, "enabled": str(int(value))}.items())


def _parse_agent(text: str) -> bool:
    return parse_bool(parse_properties(text, "enabled").get("enabled", "0"))


def _parse_boot(text: str) -> list[str]:
    values = parse_properties(text, "legacy")
    return [device for device in values.get("order", "").split(";") if device.strip()]


def _format_boot(value: Plain, _present: str) -> str:
    return f"order={';'.join(value)}" if value else ""


HOTPLUG = ["disk", "network", "usb"]


def _parse_hotplug(text: str) -> list[str]:
    return {"0": [], "1": HOTPLUG}.get(text, sorted(parse_words(text)))


def _format_hotplug(value: Plain, _present: str) -> str:
    return ",".join(value) or "0"


def _parse_startup(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in parse_properties(text, "order").items() if value.isdecimal()}


def _format_startup(value: Plain, _present: str) -> str:
    return format_properties((key, str(value[key])) for key in ("order", "up", "down") if key in value)


def _merge_dict(want: Plain, have: Plain) -> Plain:
    return {**have, **want}


def _parse_addresses(text: str) -> list[str]:
    ip = parse_ip_config(text)
    pairs = ((ip.ipv4, ip.gateway4), (ip.ipv6, ip.gateway6))
    return [f"{address} via {gateway}" if gateway else address for address, gateway in pairs if address]


def _format_addresses(value: Plain, _present: str) -> str:
    found: dict[str, str | None] = {}
    for text in value:
        address, _via, gateway = text.partition(" via ")
        family = "6" if ":" in address or address in {"auto", "dhcp6"} else "4"
        found[f"ipv{family}"], found[f"gateway{family}"] = address, gateway or None
    return format_ip_config(IpConfig(**found))


def shown_addresses(ip: IpConfig) -> list[str]:
    """``10.0.0.5/24 via 10.0.0.1`` for each family."""
    return _parse_addresses(format_ip_config(ip))


def address_field(number: int) -> Field:
    """The addresses of network device *number*."""
    return Field(f"addresses{number or ''}", f"ipconfig{number}", [], _parse_addresses, _format_addresses)


def _join_words(value: Plain, _present: str) -> str:
    return " ".join(value)


# entry that may leave out its key, in the property strings that have no option of their own
DEFAULT_ENTRIES = {
    "amd-sev": "type",
    "audio": "device",
    "hostpci": "host",
    "ide": "file",
    "intel-tdx": "type",
    "rng": "source",
    "usb": "host",
    "virtiofs": "dirid",
    "watchdog": "model",
}
# stands for that key where it is not known
FIRST_ENTRY = "(first)"
CD_VOLUME = re.compile(r"none|cdrom|[A-Za-z][A-Za-z0-9_.-]*:iso/[^\s,;=]+")


def parse_raw(key: str, text: str | None) -> Plain:
    """A raw key: a property string as a dictionary, any other text as it is; None where it is absent."""
    if text is None or not text.strip():
        return None
    kind = key.rstrip("0123456789")
    if " " in text or ("=" not in text and kind not in DEFAULT_ENTRIES):
        return text
    values = parse_properties(text, DEFAULT_ENTRIES.get(kind, FIRST_ENTRY))
    if DISK_KEY.match(key):
        # the server adds that of the image
        values.pop("size", None)
    return values


def is_cd(text: str) -> bool:
    """Whether the text of a drive is a CD drive, empty or with an image: one for which no volume is made."""
    values = parse_properties(text, "file")
    return values.get("media") == "cdrom" and bool(CD_VOLUME.fullmatch(values.get("file", "")))


# fmt: off
FIELDS: tuple[Field, ...] = (
    _word("name", "name", ""),
    _number("cores", "cores", 1),
    _number("sockets", "sockets", 1),
    _property("cpu", "cpu", "cputype", "kvm64"),
    _number("vcpus", "vcpus", 0),
    Field("cpu_limit", "cpulimit", 0.0, float, _decimal_text),
    _number("cpu_units", "cpuunits", None),
    _flag("numa", "numa", False),
    _property("memory", "memory", "current", 512, convert=int),
    _number("balloon", "balloon", None),
    _number("shares", "shares", 1000),
    _property("machine", "machine", "type", "", merge=_or_pinned, risky=True),
    _word("bios", "bios", "seabios", risky=True),
    _word("scsi_controller", "scsihw", "lsi"),
    _word("os_type", "ostype", "other"),
    _property("vga", "vga", "type", ""),
    Field("boot_order", "boot", [], _parse_boot, _format_boot),
    Field("hotplug", "hotplug", HOTPLUG, _parse_hotplug, _format_hotplug),
    _flag("protection", "protection", False),
    Field("startup", "startup", {}, _parse_startup, _format_startup, _merge_dict),
    Field("description", "description", "", lambda text: text.rstrip("\n"), _text),
    _flag("onboot", "onboot", False),
    Field("agent", "agent", False, _parse_agent, _named_agent),
    _word("user", "ciuser", ""),
    Field("ssh_keys", "sshkeys", [], lambda text: sorted(parse_ssh_keys(text)), lambda v, _: format_ssh_keys(v)),
    address_field(0),
    Field("nameservers", "nameserver", [], lambda t: [parse_address(w) for w in parse_words(t)], _join_words),
    Field("search_domains", "searchdomain", [], lambda text: list(parse_words(text)), _join_words),
    _flag("upgrade", "ciupgrade", True),
)
# fmt: on
BY_OPTION: Mapping[str, Field] = {field.option: field for field in FIELDS}
CLOUD_INIT_OPTIONS = frozenset({"user", "ssh_keys", "addresses", "nameservers", "search_domains", "upgrade"})
# what options of their own set, what only the module may set, and parameters that are no configuration; cdrom is ide2
RESERVED = re.compile(
    "("
    + "|".join(sorted(field.key for field in FIELDS))
    + r"|(net|ipconfig|scsi|virtio|sata|unused)\d+|ide2|cdrom|efidisk0|tpmstate0|tags|template|pool|vmid"
    r"|lock|digest|delete|revert|force|skiplock|start|archive|storage|bwlimit|unique|vmgenid|cipassword|vmstate|parent|snaptime|meta|node"
    r"|background_delay|ha-managed|import-working-storage|live-restore)\Z"
)


def field_of(option: str) -> Field:
    """The field of an option, and of ``addressesN``."""
    return BY_OPTION[option] if option in BY_OPTION else address_field(int(option.removeprefix("addresses")))
