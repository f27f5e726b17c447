# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""POST /nodes/N/qemu/ID/template: a stopped virtual machine becomes a template (PVE/API2/Qemu.pm `template`)."""

from __future__ import annotations

from . import volumes
from .checks import check_lock
from .config import Drive, drives
from .errors import ApiError
from .routes import Call, endpoint
from .store import Cluster, VirtualMachine
from .tasks import Task, vm_lock


def make_bases(cluster: Cluster, vm: VirtualMachine, only: str = "") -> None:
    """The disks, or one of them, become base-ID-disk-N, which linked clones can stand on."""
    for name, drive in drives(vm.config).items():
        volume = None if drive.cdrom else volumes.find(cluster, vm.node, drive.file)
        if volume and only in ("", name) and volumes.has_feature(volume, "template"):
            vm.config[name] = Drive(volumes.make_base(cluster, vm.node, drive.file), drive.keys).text()


@endpoint("POST", "/nodes/{node}/qemu/{vmid}/template")
async def template(call: Call) -> object:
    cluster, disk = call.cluster, call.params.get("disk", "")

    def checked() -> VirtualMachine:
        vm = call.vm()
        check_lock(vm)
        if vm.snapshots:
            raise ApiError("unable to create template, because VM contains snapshots")
        if vm.config.get("template") and not disk:
            raise ApiError("you can't convert a template to a template")
        if cluster.power(vm) != "stopped":
            raise ApiError("you can't convert a VM to template if VM is running")
        return vm

    checked()

    async def worker(task: Task) -> None:
        async with vm_lock(cluster, call.params["vmid"], task):
            vm = checked()
            vm.config["template"] = 1
            make_bases(cluster, vm, disk)
            cluster.save_vm(vm)

    return call.start("qmtemplate", worker)
