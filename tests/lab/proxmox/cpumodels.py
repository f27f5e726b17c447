# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processors a virtual machine may have (PVE/QemuServer/CPUConfig.pm `validate_vm_cpu_conf`)."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

BUILT_IN = ("x86-64-v2", "x86-64-v2-AES", "x86-64-v3", "x86-64-v4")
FLAGS = (
    *("nested-virt", "md-clear", "pcid", "spec-ctrl", "ssbd", "ibpb", "virt-ssbd", "amd-ssbd", "amd-no-ssb"),
    *("pdpe1gb", "hv-tlbflush", "hv-evmcs", "aes"),
)


@cache
def models() -> frozenset[str]:
    """The models of QEMU, which the property string names as those that may be reported, and Proxmox VE's own."""
    text = Path(__file__).with_name("tables").joinpath("formats.toml").read_text(encoding="utf-8")
    specification: str = tomllib.loads(text)["formats"]["cpu"]["reported-model"]
    return frozenset((*specification.partition("in=")[2].split(","), *BUILT_IN))


def check(value: str) -> str | None:
    """None for a processor that exists, else the server's text."""
    keys: dict[str, str] = {}
    for part in filter(None, value.split(",")):
        name, equals, text = part.partition("=")
        keys[name if equals else "cputype"] = text if equals else part
    model = keys.get("cputype", "kvm64")
    if model.startswith("custom-"):
        return f"Custom cputype '{model.removeprefix('custom-')}' not found\n"
    if model not in models():
        return f"Built-in cputype '{model}' is not defined (missing 'custom-' prefix?)\n"
    flags = re.findall(r"[+-]([^;]+)", keys.get("flags", ""))
    if any(flag not in FLAGS for flag in flags):
        return f"VM-specific CPU flags must be a subset of: {', '.join(sorted(FLAGS))}\n"
    if "reported-model" in keys:
        return "Property 'reported-model' not allowed in VM-specific CPU config.\n"
    return None


def check_bits(value: str) -> str | None:
    """`phys-bits`: as many as the host has, or a number."""
    good = value == "host" or (re.fullmatch(r"\d{1,2}", value) and 8 <= int(value) <= 64)
    return None if good else "value must be an integer between 8 and 64 or 'host'\n"
