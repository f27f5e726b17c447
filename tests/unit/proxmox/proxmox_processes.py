# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules of the collection as processes of their own, and what they left in the cluster."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, Connection, connect
from support.simulated_proxmox import IMAGE, NODES, TOKEN, USER, Cluster

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]


@dataclass(frozen=True)
class Modules:
    """Starts module processes (proxmox_module_server)."""

    path: Path

    def run(self, module: str, arguments: Mapping[str, Any], started: Callable[[int], None] | None = None) -> Any:
        """The module's result, or None if the process was killed; *started* gets its process id before it begins."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(120)
            connection.connect(str(self.path))
            with connection.makefile("rwb") as stream:
                stream.write(json.dumps({"module": module, "arguments": arguments}).encode() + b"\n")
                stream.flush()
                pid = int(stream.readline())
                if started is not None:
                    started(pid)
                stream.write(b"\n")
                stream.flush()
                try:
                    printed = stream.read()
                except ConnectionError:
                    return None
        return json.loads(printed) if printed else None


@contextlib.contextmanager
def module_server() -> Iterator[Modules]:
    """The process that forks the modules; it is ended by its id, and with it the modules that still run."""
    with tempfile.TemporaryDirectory(prefix="modules-") as directory:
        path = Path(directory, "socket")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PROXMOX_")}
        server = subprocess.Popen(
            [sys.executable, str(HERE / "proxmox_module_server.py"), str(path)],
            env={**environment, "PYTHONPATH": str(ROOT / "collections")},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            if server.stdout is None or server.stdout.readline() != "ready\n":
                raise RuntimeError("the module server did not start")
            yield Modules(path)
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.communicate()


def client_of(cluster: Cluster) -> Client:
    """A client of the test itself, for looking at the cluster and preparing it."""
    return connect(
        Connection(
            "127.0.0.1",
            USER,
            port=cluster.port,
            token_id=TOKEN,
            token_secret=cluster.secrets[TOKEN],
            ca_path=str(cluster.authority),
        )
    )


def rows(client: Client) -> list[Mapping[str, Any]]:
    """The VMs of the cluster, by name of their configuration where the list is late."""
    return [row for row in client.get("/cluster/resources") if row["type"] == "qemu"]


def volumes(client: Client) -> set[tuple[str, str]]:
    """(node, volume) of every disk on the storage local."""
    return {
        (node, row["volid"])
        for node in NODES
        for row in client.get(f"/nodes/{node}/storage/local/content", content="images")
    }


def configs(client: Client) -> dict[tuple[str, int], Mapping[str, Any]]:
    """(node, VMID) to configuration of every VM."""
    return {
        (row["node"], row["vmid"]): client.get(f"/nodes/{row['node']}/qemu/{row['vmid']}/config")
        for row in rows(client)
    }


def names(client: Client) -> list[str]:
    """The names of all VMs, sorted; a name that is there twice is a duplicate VM."""
    return sorted(str(config["name"]) for config in configs(client).values())


def orphans(client: Client) -> set[tuple[str, str]]:
    """Disks that no VM uses: in no configuration at all, or there only as ``unusedN``."""
    used = {
        (node, str(value).partition(",")[0])
        for (node, _vmid), config in configs(client).items()
        for key, value in config.items()
        if not key.startswith("unused")
    }
    return volumes(client) - used


def make_template(client: Client, vmid: int) -> None:
    """A template that is not ours, with a disk of 4 GiB, a cloud-init drive and a network device."""
    made = client.post(
        "/nodes/pve1/qemu",
        vmid=vmid,
        name="source",
        memory=512,
        scsi0=f"local:0,import-from={IMAGE}",
        ide2="local:cloudinit",
        net0="virtio,bridge=vmbr0",
        boot="order=scsi0",
    )
    tasks.wait(client, made, budget=30)
    tasks.wait(client, client.post(f"/nodes/pve1/qemu/{vmid}/template"), budget=30)
