# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images from a URL or by upload: what no recorded conversation covers."""

from __future__ import annotations

import hashlib
import http.server
import struct
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests
from proxmox_harness import SECRET, Simulator

LOCAL = "/nodes/pve1/storage/local"
SIZE = 3 << 30


def _qcow2(size: int = SIZE, *, backing: bytes = b"", version: int = 3, incompatible: int = 0) -> bytes:
    """An image of no clusters: a header and, if given, the name of a backing file."""
    head = struct.pack(">4sIQIIQ", b"QFI\xfb", version, 104 if backing else 0, len(backing), 16, size)
    return head.ljust(72, b"\0") + struct.pack(">QQQII", incompatible, 0, 0, 4, 104) + backing


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(address, folder) of an HTTP server on loopback."""
    folder = tmp_path / "www"
    folder.mkdir()
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_unused: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", folder
        finally:
            server.shutdown()
            thread.join()


def _download(simulator: Simulator, url: str, **params: str) -> str:
    params = {"content": "import", "filename": "os.qcow2"} | params
    return simulator.run("POST", f"{LOCAL}/download-url", url=url, **params)


def _images(simulator: Simulator) -> dict[str, int]:
    rows = simulator.data("GET", f"{LOCAL}/content", content="import")
    return {row["volid"]: row["size"] for row in rows if row["volid"] != "local:import/nixos.qcow2"}


def test_download_with_a_checksum(simulator: Simulator, web: tuple[str, Path]) -> None:
    url, folder = web
    (folder / "image").write_bytes(content := _qcow2())
    good = {"checksum-algorithm": "sha256", "checksum": hashlib.sha256(content).hexdigest()}
    assert _download(simulator, f"{url}/image", **good) == "OK"
    assert _images(simulator) == {"local:import/os.qcow2": len(content)}
    assert simulator.data("GET", f"{LOCAL}/content/local:import%2Fos.qcow2")["size"] == SIZE
    (folder / "image").unlink()
    assert _download(simulator, f"{url}/image", **good) == "OK"  # the file is there already: nothing is fetched
    assert _download(simulator, f"{url}/image").startswith("refusing to override existing file '")
    other = good | {"checksum": "0" * 64}
    assert _download(simulator, f"{url}/image", **other) == (
        f"checksum mismatch: got '{good['checksum']}' != expect '{'0' * 64}', aborting"
    )


def test_what_a_download_refuses(simulator: Simulator, web: tuple[str, Path]) -> None:
    url, folder = web
    (folder / "image").write_bytes(content := _qcow2())
    (folder / "text").write_text("no image", encoding="utf-8")
    assert _download(simulator, f"{url}/nothing") == "download failed: exit code 8"
    assert _download(simulator, "http://127.0.0.1:9/nobody") == "download failed: exit code 4"
    assert _download(simulator, f"{url}/text").startswith("failed to verify file: qemu-img: Could not open")
    wrong = {"checksum-algorithm": "sha512", "checksum": "0" * 128}
    assert _download(simulator, f"{url}/image", **wrong) == (
        f"checksum mismatch: got '{hashlib.sha512(content).hexdigest()}' != expect '{'0' * 128}'"
    )
    answer = simulator.send("POST", f"{LOCAL}/download-url", url=f"{url}/image", content="import", filename="os.img")
    assert answer.json()["errors"] == {"filename": "invalid filename or wrong extension"}
    assert _images(simulator) == {}
    assert list((simulator.state / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (_qcow2(backing=b"/etc/passwd"), "backing file not allowed for untrusted image '"),
        (_qcow2(incompatible=4), "'data-file' references are not allowed!"),
        (_qcow2(version=7), "Unsupported qcow2 version 7"),
        (_qcow2()[:20], "Image is not in qcow2 format"),
    ],
)
def test_images_that_are_no_images(simulator: Simulator, content: bytes, text: str) -> None:
    assert text in _upload(simulator, content)
    assert _images(simulator) == {}


def _upload(simulator: Simulator, content: bytes, token: str = "root@pam!lab") -> str:
    answer = requests.post(
        f"{simulator.url}/api2/json{LOCAL}/upload",
        data={"content": "import"},
        files={"filename": ("os.qcow2", content)},
        headers={"Authorization": f"PVEAPIToken={token}={SECRET}"},
        timeout=30,
    )
    return simulator.wait(answer.json()["data"]) if answer.status_code == 200 else f"{answer.status_code}"


def test_an_upload_leaves_no_temporary_file(simulator: Simulator) -> None:
    assert _upload(simulator, _qcow2()) == "OK"
    assert _upload(simulator, _qcow2(), token="root@pam!nosuch") == "401"
    assert list((simulator.state / "uploads").iterdir()) == []


def test_an_uploaded_image_becomes_a_disk(simulator: Simulator) -> None:
    assert _upload(simulator, _qcow2()) == "OK"
    disk = "local:0,import-from=local:import/os.qcow2"
    assert simulator.run("POST", "/nodes/pve1/qemu", vmid=100, scsi0=disk) == "OK"
    assert simulator.data("GET", "/nodes/pve1/qemu/100/config")["scsi0"].endswith("size=3G")


def test_what_a_url_holds(simulator: Simulator, web: tuple[str, Path]) -> None:
    url, folder = web
    (folder / "image.qcow2").write_bytes(content := _qcow2())
    row = simulator.data("GET", "/nodes/pve1/query-url-metadata", url=f"{url}/image.qcow2")
    assert (row["filename"], row["size"]) == ("image.qcow2", len(content))
    answer = simulator.send("GET", "/nodes/pve1/query-url-metadata", url=f"{url}/nothing")
    assert answer.reason == "invalid server response: '404 File not found'"


def test_a_storage_is_changed_and_removed(simulator: Simulator) -> None:
    simulator.data("POST", "/storage", storage="other", type="dir", path="/srv", content="images")
    simulator.data("PUT", "/storage/other", content="images,import")
    row = simulator.data("GET", "/storage/other")
    assert set(row["content"].split(",")) == {"images", "import"}
    refused = simulator.send("PUT", "/storage/other", content="iso", digest="0" * 40)
    assert refused.reason.startswith("update storage failed: detected modified configuration")
    simulator.data("DELETE", "/storage/other")
    assert simulator.send("GET", "/storage/other").reason == "storage 'other' does not exist"


def test_every_kind_of_file_that_can_be_uploaded(simulator: Simulator) -> None:
    for content, name, kind in (("iso", "a.iso", "iso"), ("vztmpl", "b.tar.gz", "tgz"), ("import", "c.raw", "raw")):
        answer = requests.post(
            f"{simulator.url}/api2/json{LOCAL}/upload",
            data={"content": content},
            files={"filename": (name, b"x" * 5000)},
            headers={"Authorization": f"PVEAPIToken=root@pam!lab={SECRET}"},
            timeout=30,
        )
        assert simulator.wait(answer.json()["data"]) == "OK"
        [row] = [
            row for row in simulator.data("GET", f"{LOCAL}/content", content=content) if row["volid"].endswith(name)
        ]
        assert (row["volid"], row["format"], row["size"]) == (f"local:{content}/{name}", kind, 5000)
        assert simulator.data("GET", f"{LOCAL}/content/local:{content}%2F{name}")["format"] == "raw"


def test_a_removal_that_waits(simulator: Simulator) -> None:
    volume = simulator.data("POST", f"{LOCAL}/content", vmid=100, filename="vm-100-disk-0.raw", size="1M")
    assert simulator.data("DELETE", f"{LOCAL}/content/{volume.replace('/', '%2F')}", delay=20) is None
    assert simulator.data("GET", f"{LOCAL}/content", content="images") == []
    wrong = simulator.send("POST", f"{LOCAL}/content", vmid=100, filename="a.raw", size="1M", format="qcow2")
    assert wrong.json()["errors"] == {"format": "different storage formats (qcow2 != raw)"}


def test_disks_are_shown_to_those_who_may_use_them(simulator: Simulator) -> None:
    simulator.data("POST", "/access/users", userid="eve@pve")
    token = simulator.data("POST", "/access/users/eve@pve/token/t1", privsep=0)["value"]
    simulator.data("PUT", "/access/acl", path="/storage/local", users="eve@pve", roles="PVEDatastoreUser")
    simulator.data("POST", f"{LOCAL}/content", vmid=100, filename="vm-100-disk-0.raw", size="1M")

    def seen() -> set[str]:
        headers = {"Authorization": f"PVEAPIToken=eve@pve!t1={token}"}
        answer = requests.get(f"{simulator.url}/api2/json{LOCAL}/content", headers=headers, timeout=30)
        return {row["content"] for row in answer.json()["data"]}

    assert seen() == {"import"}
    simulator.data("PUT", "/access/acl", path="/vms/100", users="eve@pve", roles="PVEVMAdmin")
    assert seen() == {"import", "images"}
