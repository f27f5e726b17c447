# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deleting a virtual machine, and the proof that it is still the one that was read."""

from __future__ import annotations

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.names import machine_tag
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, Transient, Value
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.clones import marked_machine
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import incarnation, parse_tags
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.fields import BY_OPTION
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.ha import await_power, release
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import VmActual
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Place


def check_same(client: Client, actual: VmActual) -> None:
    """One request.

    :raises Transient: the id belongs to another virtual machine since it was read.
    """
    config = {key: str(value) for key, value in client.get(f"{actual.path}/config").items()}
    ours = machine_tag(actual.machine) in parse_tags(config.get("tags", ""))
    if actual.unfinished:
        ours = ours or marked_machine(config) == actual.machine
    # what was read for its power alone has no configuration
    if ours and (not actual.config or incarnation(config) == incarnation(actual.config)):
        return
    raise Transient(
        f"VMID {actual.vmid} belongs to another virtual machine since it was read",
        where=f"VM {actual.machine}",
        hint="Run again",
    )


def remove(client: Client, actual: VmActual, place: Place, budget: float) -> None:
    """Take it out of high availability, stop it, destroy it with all its disks, jobs and rights.

    A deletion that fails leaves the machine protected, if it was, and under high availability.
    """
    check_same(client, actual)
    resource = _resource(client, place) if actual.ha else None
    try:
        if resource is not None:
            release(client, place)
        _destroy(client, actual, place, budget)
    except HostingError:
        _restore(client, actual, place, resource)
        raise


def _destroy(client: Client, actual: VmActual, place: Place, budget: float) -> None:
    # the row's status may be late, and stopping a stopped VM is no error
    tasks.run(client, "POST", f"{actual.path}/status/stop", {}, budget=budget)
    if actual.ha:
        await_power(client, place, running=False, budget=budget)
        check_same(client, actual)
    if BY_OPTION["protection"].of(actual.config):
        client.put(f"{actual.path}/config", protection=False)
    whole: dict[str, Value] = {"purge": True, "destroy-unreferenced-disks": True}
    try:
        tasks.run(client, "DELETE", actual.path, whole, budget=budget)
    except BackendError as error:
        if "is running" not in error.what:
            raise
        # a start that was under way came after the stop
        raise Transient(error.what, where=f"VM {actual.machine}", hint="Run again") from error


def _resource(client: Client, place: Place) -> dict[str, Value] | None:
    """What makes the resource of high availability anew; None where it cannot be read."""
    try:
        found = client.get(f"/cluster/ha/resources/vm:{place.vmid}")
    except HostingError:
        return None
    return {key: found[key] for key in ("state", "max_restart", "max_relocate", "comment") if key in found}


def _restore(client: Client, actual: VmActual, place: Place, resource: dict[str, Value] | None) -> None:
    """As far as possible: the error of the deletion is the one to tell."""
    try:
        if BY_OPTION["protection"].of(actual.config):
            check_same(client, actual)
            client.put(f"{actual.path}/config", protection=True)
        if resource is not None:
            check_same(client, actual)
            client.post("/cluster/ha/resources", sid=f"vm:{place.vmid}", **resource)
    except HostingError:
        return
