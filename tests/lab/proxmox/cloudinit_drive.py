# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/N/qemu/ID/cloudinit: what the cloud-init drive says, and making it anew (PVE/API2/Qemu.pm)."""

from __future__ import annotations

from .checks import check_lock
from .cloudinit import OPTIONS, meta_data, network_data, user_data
from .config import shown
from .routes import Call, endpoint
from .store import Option
from .tasks import vm_lock


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/cloudinit")
async def cloudinit_values(call: Call) -> object:
    """What the cloud-init drive says, and what it will say once it is made anew."""
    vm = call.vm()
    added = [name for name, old in vm.cloudinit.items() if old == "" and name in vm.config]
    rows: list[dict[str, Option]] = [{"key": name, "pending": shown(name, vm.config[name])} for name in added]
    for name in OPTIONS:
        if name in vm.config and name not in added:
            changed = {"pending": shown(name, vm.config[name])} if name in vm.cloudinit else {}
            rows.append({"key": name, "value": shown(name, vm.cloudinit.get(name, vm.config[name]))} | changed)
    return [*rows, *({"key": name, "delete": 1} for name in vm.cloudinit if name not in vm.config)]


@endpoint("PUT", "/nodes/{node}/qemu/{vmid}/cloudinit")
async def cloudinit_update(call: Call) -> object:
    """The drive is made anew; the guest finds it when it looks."""
    async with vm_lock(call.cluster, call.params["vmid"]):
        vm = call.vm()
        check_lock(vm)
        vm.cloudinit = {}
        call.cluster.save_vm(vm)
    return None


@endpoint("GET", "/nodes/{node}/qemu/{vmid}/cloudinit/dump")
async def cloudinit_dump(call: Call) -> object:
    vm = call.vm()
    if call.params["type"] == "network":
        return network_data(vm.config)
    dump = user_data if call.params["type"] == "user" else meta_data
    return dump(vm.vmid, vm.config)
