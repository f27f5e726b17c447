# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Power of one virtual machine, for the rescue of a machine that nobody can reach."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import NotFound
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.clones import marked_machine
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.identity import find, parse_rows
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import VmDesired


@dataclass(frozen=True)
class Reset:
    """What is sent, in this order, to make the virtual machine boot: requests below ``status/``."""

    vmid: int
    node: str
    requests: tuple[str, ...]


def plan_reset(client: Client, machine: str, vmid: int | None) -> Reset:
    """Find the machine's VM by its tag and see how it is made to boot.

    :param vmid: where the machine is known to be; None takes the VM with the tag.
    :raises NotFound: no VM that this user sees carries the machine's tag.
    :raises HostingError: the VMID is not the machine's, or the VM is none of ours.
    """
    row = find(VmDesired(machine, vmid=vmid), parse_rows(client.get("/cluster/resources", type="vm")))
    if row is None:
        raise NotFound(
            "no virtual machine carries the machine's tag",
            where=f"VM {machine}",
            hint=f"Check that {client.identity} has VM.Audit where it is",
        )
    path = f"/nodes/{row.node}/qemu/{row.vmid}"
    status = client.get(f"{path}/status/current")
    # an unfinished clone has the tags of the machine that it is a copy of, and another name
    if status.get("name", machine) != machine and marked_machine(client.get(f"{path}/config")):
        raise NotFound(f"VM {row.vmid} is only an unfinished clone of the machine", where=f"VM {machine}")
    if status.get("status") != "running":
        return Reset(row.vmid, row.node, ("start",))
    # a paused or panicked guest would stay so after a reset (QEMU's system_reset does not continue it)
    runs = status.get("qmpstatus", "running") == "running"
    return Reset(row.vmid, row.node, ("reset",) if runs else ("stop", "start"))


def carry_out(client: Client, reset: Reset, *, budget: float) -> None:
    """Send the requests and wait for their tasks.

    :param budget: seconds that one task may take.
    :raises HostingError: one of them failed.
    """
    for request in reset.requests:
        upid = client.post(f"/nodes/{reset.node}/qemu/{reset.vmid}/status/{request}")
        tasks.wait(client, upid, budget=budget)
