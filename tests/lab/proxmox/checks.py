# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that many calls make of a virtual machine before they touch it."""

from __future__ import annotations

from .config import digest
from .errors import ApiError, invalid
from .routes import Call
from .store import Cluster, Option, VirtualMachine


def check_lock(vm: VirtualMachine) -> None:
    if lock := vm.config.get("lock"):
        raise ApiError(f"VM is locked ({lock})")


def check_digest(call: Call, vm: VirtualMachine) -> None:
    if call.params.get("digest", digest(vm)) != digest(vm):
        raise ApiError("checksum mismatch (file change by other user?)")


def check_skiplock(call: Call) -> None:
    if call.params.get("skiplock") and not call.who.root_itself:
        raise invalid({"skiplock": "Only root may use this option."})


def check_protection(vm: VirtualMachine, what: str) -> None:
    if vm.config.get("protection"):
        raise ApiError(f"{what} - protection mode enabled")


def check_known(cluster: Cluster, node: str, vmid: int) -> None:
    """Calls that look at the power first name a missing configuration in another way."""
    vm = cluster.vms.get(vmid)
    if vm is None or vm.node != node:
        raise ApiError(f"unable to find configuration file for VM {vmid} on node '{node}'")


def check_node_exists(cluster: Cluster, node: str) -> None:
    """A node that a parameter names."""
    if node not in cluster.nodes:
        raise ApiError(f"no such cluster node '{node}'")


def find_snapshot(vm: VirtualMachine, name: str) -> dict[str, Option]:
    """What a snapshot holds; 500 when there is none of that name."""
    if name not in vm.snapshots:
        raise ApiError(f"snapshot '{name}' does not exist")
    return vm.snapshots[name]
