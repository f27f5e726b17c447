# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import proxmox_estate
import pytest
from proxmox_estate import Estate
from proxmox_server import Server, chosen, from_environment, image_file
from support.simulated_proxmox import IMAGE, QUICK, event_loop, served


@contextlib.contextmanager
def simulated() -> Iterator[Server]:
    with event_loop() as loop, served(loop, timing=replace(QUICK, statistics=1)) as cluster:
        second = {"PROXMOX_SECOND_NODE": "pve2", "PROXMOX_SECOND_STORAGE": "second"}
        variables = {**cluster.environment(), "PROXMOX_NODE": "pve1", "PROXMOX_IMAGE": IMAGE, **second}
        server = from_environment(variables, cluster)
        server.api("POST", "/storage", storage="second", type="dir", path="/var/lib/second", content="images")
        yield server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server of the environment, or a simulated one that ends with the tests."""
    with contextlib.nullcontext(from_environment(os.environ)) if chosen() else simulated() as found:
        yield found


@pytest.fixture(scope="session")
def estate(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    """A pool and an image on the server; with everything that tests made they are removed at the end."""
    try:
        made = proxmox_estate.make(server)
        try:
            yield with_image(made, tmp_path_factory.mktemp("image"))
        finally:
            shutil.rmtree(made.directory)
    finally:
        proxmox_estate.remove(server)


def with_image(estate: Estate, directory: Path) -> Estate:
    """The estate with an image on the server, uploaded if the environment names none there."""
    server = estate.server
    if server.image and not Path(server.image).is_file():
        return estate
    file = Path(server.image) if server.image else image_file(directory)
    image = {
        "name": estate.name("disk"),
        "storage": server.image_storage,
        "nodes": [server.node],
        "src": str(file.resolve()),
    }
    result = estate.run("proxmox_images", {"images": [image], "node_addresses": {server.node: server.address}})
    assert not result["failed"], result["msg"]
    return replace(estate, server=replace(server, image=result["results"][0]["volid"]))
