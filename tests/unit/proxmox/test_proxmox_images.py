# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""proxmox_images: names, comparison, uploads to each node's own entry point, downloads, repair and pruning."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import images, tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, Connection, connect
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.images import (
    ImageDesired,
    Images,
    Stored,
    desired_images,
    surplus,
    target_nodes,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.uploads import Multipart, Uploads
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import reconcile
from lab.proxmox.faults import Faults, Rule, transient
from lab.proxmox.guests import NoGuests
from lab.proxmox.server import serve_proxmox
from lab.proxmox.store import Timing
from lab.transcripts import qcow2
from support.certificate import make_certificate
from support.simulated_proxmox import Loop

ITEM: dict[str, Any] = {"state": "present", "storage": "local", "keep": 2, "validate_url_certs": True}


@dataclass
class Nodes:
    """A cluster with an entry point for each of its two nodes."""

    connection: Connection
    addresses: dict[str, str]
    access_log: Path
    faults: Faults
    told: list[str] = field(default_factory=list)

    def client(self) -> Client:
        return connect(self.connection)

    def provider(self) -> Images:
        return Images(
            self.client(),
            lambda: Uploads(self.connection, self.addresses),
            task_timeout=60,
            report=self.told.append,
        )

    def run(self, *items: dict[str, Any], check: bool = False) -> dict[str, Any]:
        return reconcile(self.provider(), desired_images([{**ITEM, **item} for item in items]), check=check)

    def requests(self) -> list[str]:
        lines = self.access_log.read_text(encoding="utf-8").splitlines() if self.access_log.exists() else []
        self.access_log.write_text("", encoding="utf-8")
        return [line.rpartition(" ")[0].replace("/api2/json", "") for line in lines]

    def stored(self, node: str, storage: str = "local") -> dict[str, int]:
        """Sizes of the images in a storage by file name, without the lab's own."""
        rows = self.client().get(f"/nodes/{node}/storage/{storage}/content", content="import")
        found = {row["volid"].partition("import/")[2]: row["size"] for row in rows}
        return {name: size for name, size in found.items() if name != "nixos.qcow2"}


@contextmanager
def cluster(loop: Loop, directory: Path, *rules: Rule, seed: int = 0) -> Iterator[Nodes]:
    certificate, key = make_certificate(directory)
    state, log = directory / "state", directory / "access.log"
    state.mkdir()
    secret = str(uuid.uuid4())
    accounts = {
        "users": {"fediversity@pve": {"password": "pa55word"}},
        "tokens": {"fediversity@pve!lab": {"secret": secret, "privsep": 0}},
    }
    (state / "accounts.json").write_text(json.dumps(accounts), encoding="utf-8")
    faults = Faults(rules, seed=seed)
    runner = loop(
        serve_proxmox(
            hosts=NoGuests(),
            state=state,
            host="127.0.0.1",
            port=0,
            more=[("127.0.0.1", 0)],
            certificate=certificate,
            key=key,
            access_log=log,
            timing=Timing(refused_login=0, image_copy=0.02),
            faults=faults,
        )
    )
    try:
        first, second = (address[1] for address in runner.addresses)
        connection = Connection(
            "127.0.0.1",
            "fediversity@pve",
            port=first,
            token_id="lab",
            token_secret=secret,
            ca_path=str(certificate),
        )
        yield Nodes(connection, {"pve2": f"127.0.0.1:{second}"}, log, faults)
    finally:
        loop(runner.cleanup())


@pytest.fixture
def nodes(loop: Loop, tmp_path: Path) -> Iterator[Nodes]:
    with cluster(loop, tmp_path) as running:
        yield running


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "nixos.qcow2"
    qcow2.make(path, virtual_size=4 << 30, file_size=3 << 20)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def filename(path: Path, name: str = "nixos", kind: str = "qcow2") -> str:
    return f"fediversity-{name}-{digest(path)[:12]}.{kind}"


# names and options


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("fediversity-nixos-0123456789ab.qcow2", True),
        ("fediversity-nixos-0123456789ab.raw", True),
        ("fediversity-nixos-25-0123456789ab.qcow2", False),
        ("fediversity-nixos-0123456789ab.qcow2.bak", False),
        ("fediversity-nixos-0123456789AB.qcow2", False),
        ("fediversity-nixos.qcow2", False),
        ("nixos-0123456789ab.qcow2", False),
        ("nixos.qcow2", False),
    ],
)
def test_which_files_are_versions_of_an_image(name: str, ours: bool) -> None:
    assert ImageDesired("nixos").is_version(name) is ours


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": "Nix OS", "url": "https://x/y.qcow2"}, "is no name"),
        ({}, "exactly one of src and url"),
        ({"src": "/nonexistent.qcow2"}, "/nonexistent.qcow2 is no file"),
        ({"url": "https://x/y.qcow2"}, "a download needs a checksum"),
        ({"url": "https://x/y.qcow2", "checksum": "md5:" + "0" * 32}, "is no checksum"),
        ({"url": "https://x/y.qcow2", "checksum": "sha256:" + "0" * 63}, "is no checksum"),
        ({"url": "https://x/y", "checksum": "0" * 64}, "does not tell the format"),
        ({"url": "https://x/y.iso", "checksum": "0" * 64}, "does not tell the format"),
        ({"url": "https://x/y.qcow2", "checksum": "0" * 64, "keep": 0}, "at least the wanted version"),
    ],
)
def test_items_that_cannot_be_used(fields: dict[str, Any], text: str) -> None:
    (item,) = desired_images([{"name": "nixos", **ITEM, **fields}])
    assert text in str(item.problem)


def test_an_image_listed_twice() -> None:
    item = {"name": "nixos", **ITEM, "url": "https://x/y.qcow2", "checksum": "0" * 64}
    with pytest.raises(InvalidInput, match="listed twice"):
        desired_images([item, item])


def test_a_checksum_that_is_given_saves_reading_the_file(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checksum = digest(image)
    (computed,) = desired_images([{"name": "nixos", **ITEM, "src": str(image)}])
    monkeypatch.setattr(images.hashlib, "file_digest", None)
    (given,) = desired_images([{"name": "nixos", **ITEM, "src": str(image), "checksum": f"sha256:{checksum.upper()}"}])
    assert given == computed
    assert given.volid == f"local:import/{filename(image)}"


def test_the_newest_versions_and_the_wanted_one_stay() -> None:
    image = ImageDesired("nixos", checksum=("sha256", "a" * 64), keep=2)
    old, older, oldest = (Stored(f"fediversity-nixos-{n * 12}.qcow2", 1, 9 - int(n)) for n in "123")
    wanted = Stored(image.filename, 1, 1)
    assert surplus(image, [old, older, oldest]) == (oldest, older)
    # taken into use again, it is the oldest one
    assert surplus(image, [old, older, oldest, wanted]) == (oldest, older)
    assert surplus(ImageDesired("nixos", state="absent"), [old, older]) == (older, old)


SHARED = [
    {"storage": "nfs", "node": node, "status": status, "shared": 1, "content": "import,images"}
    for node, status in (("pve1", "unknown"), ("pve2", "available"), ("pve3", "available"))
]


def test_a_shared_storage_gets_it_once_from_a_node_that_is_up() -> None:
    assert target_nodes(ImageDesired("nixos", "nfs"), SHARED) == ("pve2",)
    assert target_nodes(ImageDesired("nixos", "nfs", nodes=("pve3",)), SHARED) == ("pve3",)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (ImageDesired("nixos", "nostore"), "no node has the storage nostore"),
        (ImageDesired("nixos", "nfs", nodes=("pve1",)), "not available on pve1"),
        (ImageDesired("nixos", "plain"), "does not take images"),
    ],
)
def test_storages_that_cannot_be_used(image: ImageDesired, text: str) -> None:
    plain = {"storage": "plain", "node": "pve1", "status": "available", "content": "images,iso"}
    with pytest.raises(Exception, match=text):
        target_nodes(image, [*SHARED, plain])


def test_the_form_is_read_in_blocks_and_as_long_as_it_says() -> None:
    content = bytes(range(256)) * 4000
    told: list[tuple[int, int]] = []
    fields = {"content": "import", "checksum-algorithm": "sha256", "checksum": "00"}
    form = Multipart(fields, "x.qcow2", io.BytesIO(content), len(content), lambda sent, size: told.append((sent, size)))
    length = len(form)
    blocks = list(iter(lambda: form.read(16384), b""))
    whole = b"".join(blocks)
    assert (len(whole), max(map(len, blocks))) == (length, 16384)
    assert content in whole
    order = [whole.index(f'name="{name}"'.encode()) for name in (*fields, "filename")]
    assert order == sorted(order)
    assert told[-1] == (len(content), len(content))
    assert 10 <= len(told) <= 11


def test_a_file_that_shrinks_is_refused() -> None:
    form = Multipart({}, "x", io.BytesIO(b"short"), 100)
    with pytest.raises(InvalidInput, match="became shorter"):
        b"".join(form)


# against the cluster


def test_upload_to_every_node_and_nothing_twice(nodes: Nodes, image: Path) -> None:
    item = {"name": "nixos", "src": str(image)}
    checked = nodes.run(item, check=True)
    assert (checked["changed"], nodes.stored("pve1")) == (True, {})
    nodes.requests()
    result = nodes.run(item)
    (one,) = result["results"]
    assert (one["action"], one["changed"], one["failed"]) == ("create", True, False), one
    assert one["volid"] == f"local:import/{filename(image)}"
    assert one["nodes"] == ["pve1", "pve2"]
    assert result["diff"] == checked["diff"]
    size = image.stat().st_size
    assert result["diff"]["after"]["nixos"] == {node: {filename(image): size} for node in ("pve1", "pve2")}
    assert nodes.stored("pve1") == nodes.stored("pve2") == {filename(image): size}
    assert nodes.told
    nodes.requests()
    again = nodes.run(item)
    assert (again["changed"], again["results"][0]["volid"]) == (False, one["volid"])
    contents = [f"GET /nodes/{node}/storage/local/content" for node in ("pve1", "pve2")]
    assert nodes.requests() == ["GET /cluster/resources", *contents]


def test_the_uploaded_image_makes_a_virtual_machine(nodes: Nodes, image: Path) -> None:
    (one,) = nodes.run({"name": "nixos", "src": str(image), "nodes": ["pve1"]})["results"]
    client = nodes.client()
    made = client.post("/nodes/pve1/qemu", vmid=100, scsi0=f"local:0,import-from={one['volid']}")
    tasks.wait(client, made, budget=60)
    assert "size=4G" in client.get("/nodes/pve1/qemu/100/config")["scsi0"]


def test_an_upload_goes_to_the_node_itself(nodes: Nodes, image: Path) -> None:
    nodes.addresses.clear()
    (one,) = nodes.run({"name": "nixos", "src": str(image), "nodes": ["pve1"]})["results"]
    assert not one["failed"], one
    nodes.addresses["pve2"] = f"127.0.0.1:{nodes.connection.port}"
    (one,) = nodes.run({"name": "nixos", "src": str(image), "nodes": ["pve2"]})["results"]
    assert (one["failed"], nodes.stored("pve2")) == (True, {})


def test_the_local_node_is_the_one_that_answers(nodes: Nodes, image: Path) -> None:
    second = int(nodes.addresses.pop("pve2").rpartition(":")[2])
    own = replace(nodes.connection, host=f"127.0.0.1:{second}")
    Uploads(own, {}).send("pve2", "local", image, filename(image), ("sha256", digest(image)), budget=60)
    assert (nodes.stored("pve1"), set(nodes.stored("pve2"))) == ({}, {filename(image)})
    with pytest.raises(HostingError, match="the cluster has no node pve9"):
        Uploads(own, {}).send("pve9", "local", image, filename(image), ("sha256", digest(image)), budget=60)


def test_a_new_version_stands_beside_the_old_one_until_it_is_too_old(nodes: Nodes, tmp_path: Path) -> None:
    nodes.client().get("/version")
    names = []
    for number in range(4):
        path = tmp_path / f"image{number}.raw"
        path.write_bytes(bytes([number]) * 100_000)
        result = nodes.run({"name": "nixos", "src": str(path), "nodes": ["pve1"]})
        assert not result["failed"], result
        names.append(filename(path, kind="raw"))
    assert len(nodes.stored("pve1")) == 2
    assert names[-1] in nodes.stored("pve1")
    # the lab's own image and those of other names are still there
    rows = nodes.client().get("/nodes/pve1/storage/local/content", content="import")
    assert "local:import/nixos.qcow2" in {row["volid"] for row in rows}
    result = nodes.run({"name": "nixos", "state": "absent"})
    assert (result["results"][0]["action"], nodes.stored("pve1")) == ("delete", {})
    assert nodes.run({"name": "nixos", "state": "absent"})["changed"] is False


def test_a_wrong_checksum_leaves_nothing(nodes: Nodes, image: Path) -> None:
    result = nodes.run({"name": "nixos", "src": str(image), "checksum": "0" * 64, "nodes": ["pve1"]})
    assert result["failed"]
    assert "checksum mismatch" in result["msg"]
    assert nodes.stored("pve1") == {}


def test_half_an_image_is_brought_again(nodes: Nodes, image: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.qcow2"
    qcow2.make(half, virtual_size=4 << 30, file_size=1 << 20)
    # what a copy that was cut off would have left under the name of the image
    uploads = Uploads(nodes.connection, nodes.addresses)
    uploads.send("pve1", "local", half, filename(image), ("sha256", digest(half)), budget=60)
    result = nodes.run({"name": "nixos", "src": str(image), "nodes": ["pve1"]})
    assert (result["results"][0]["action"], result["failed"]) == ("update", False), result
    assert nodes.stored("pve1") == {filename(image): image.stat().st_size}
    assert nodes.run({"name": "nixos", "src": str(image), "nodes": ["pve1"]})["changed"] is False


@pytest.mark.parametrize("after", [False, True])
def test_an_upload_whose_connection_breaks_is_repaired(loop: Loop, tmp_path: Path, image: Path, after: bool) -> None:
    (tmp_path / "cluster").mkdir()
    rule = Rule("cut", match="^POST /nodes/pve1/storage/local/upload$", after=after, limit=1)
    with cluster(loop, tmp_path / "cluster", rule) as nodes:
        result = nodes.run({"name": "nixos", "src": str(image), "nodes": ["pve1"]})
        assert not result["failed"], result
        assert nodes.stored("pve1") == {filename(image): image.stat().st_size}


@pytest.mark.parametrize("seed", range(3))
def test_images_while_a_fifth_of_the_requests_fails(loop: Loop, tmp_path: Path, image: Path, seed: int) -> None:
    (tmp_path / "cluster").mkdir()
    with cluster(loop, tmp_path / "cluster", *transient(0.2), seed=seed) as nodes:
        for _turn in range(10):
            result = nodes.run({"name": "nixos", "src": str(image)})
            if not result["failed"]:
                break
        assert not result["failed"], result
        whole = {filename(image): image.stat().st_size}
        nodes.faults.replace(())
        assert nodes.stored("pve1") == nodes.stored("pve2") == whole


@contextmanager
def web(directory: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(directory))

        def log_message(self, *_arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_download_by_the_server(nodes: Nodes, image: Path) -> None:
    with web(image.parent) as address:
        item = {"name": "nixos", "url": f"{address}/nixos.qcow2", "checksum": digest(image)}
        result = nodes.run(item)
        assert not result["failed"], result
        assert nodes.stored("pve1") == nodes.stored("pve2") == {filename(image): image.stat().st_size}
        assert nodes.run(item)["changed"] is False
        result = nodes.run({**item, "name": "other", "checksum": "0" * 64, "nodes": ["pve1"]})
        assert "checksum mismatch" in result["msg"]
        assert set(nodes.stored("pve1")) == {filename(image)}
        # the size that is given tells that the file is not whole
        half = image.read_bytes()[: 1 << 20]
        (image.parent / "nixos.qcow2").write_bytes(half)
        shorter = {**item, "name": "half", "checksum": hashlib.sha256(half).hexdigest(), "nodes": ["pve1"]}
        assert nodes.run(shorter)["changed"]
        assert nodes.run({**shorter, "size": len(half)})["changed"] is False
        assert nodes.run({**shorter, "size": len(half) + 1}, check=True)["changed"] is True


def module(nodes: Nodes, *options: str, **arguments: Any) -> dict[str, Any]:
    """Run the module as Ansible does."""
    given = {
        "api_host": f"127.0.0.1:{nodes.connection.port}",
        "api_user": nodes.connection.user,
        "api_token_id": nodes.connection.token_id,
        "api_token_secret": nodes.connection.token_secret,
        "ca_path": nodes.connection.ca_path,
        "node_addresses": nodes.addresses,
        **arguments,
    }
    path = Path(__file__).parents[3] / "plugins" / "modules" / "proxmox_images.py"
    ended = subprocess.run(
        [sys.executable, str(path)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**given, **dict.fromkeys(options, True)}}),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return dict(json.loads(ended.stdout))


def test_the_module_as_ansible_runs_it(nodes: Nodes, image: Path) -> None:
    item = {"name": "nixos", "storage": "local", "src": str(image)}
    predicted = module(nodes, "_ansible_check_mode", images=[item])
    assert (predicted["changed"], nodes.stored("pve2")) == (True, {})
    result = module(nodes, images=[item])
    assert (result["changed"], result["diff"]) == (True, predicted["diff"])
    assert nodes.stored("pve2") == {filename(image): image.stat().st_size}
    assert module(nodes, images=[item])["changed"] is False
    refused = module(nodes, images=[{**item, "src": "/nonexistent.qcow2"}])
    assert refused["failed"]
    assert "image nixos, src: /nonexistent.qcow2 is no file" in refused["msg"]


def test_a_bad_item_does_not_keep_the_others(nodes: Nodes, image: Path) -> None:
    good = {"name": "nixos", "src": str(image), "nodes": ["pve1"]}
    result = nodes.run(good, {"name": "lost", "src": "/nonexistent.qcow2"}, {**good, "name": "x", "storage": "nostore"})
    assert [(one["name"], one["action"], one["failed"]) for one in result["results"]] == [
        ("lost", "refused", True),
        ("nixos", "create", False),
        ("x", "refused", True),
    ]
