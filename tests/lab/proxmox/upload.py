# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that come by upload or from a URL (PVE/API2/Storage/Status.pm `upload`, `download_url`).

Only what the server tells of an image is kept: its sizes and checksums, not its bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, ClientError, ClientSession, ClientTimeout, web

from . import volumes
from .errors import ApiError, invalid
from .qcow2 import BadImage, virtual_size
from .routes import Call, endpoint
from .store import Cluster, Volume
from .tasks import Task

PATH = re.compile(r"/api2/json/nodes/[^/]+/storage/[^/]+/upload/?")
FIELDS = ("content", "checksum-algorithm", "checksum")  # before the file, and in this order
ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
BLOCK = 1 << 20
BAD_REQUEST = ApiError("Bad Request", status=400)
NO_ANSWER = ApiError("the connection is closed without an answer", status=0)
# content type -> (file names, text for others)
NAMES: Mapping[str, tuple[str, str]] = {
    "iso": (r"(?i:[^/]+\.(?:iso|img))", "wrong file extension"),
    "vztmpl": (r"(?i:[^/]+\.tar(?:\.(?:gz|xz|zst|bz2))?)", "wrong file extension"),
    "import": (r"[a-zA-Z0-9\-.+=_]+\.(?:ova|qcow2|raw|vmdk)", "invalid filename or wrong extension"),
}


def _file_of(cluster: Cluster, name: str) -> Path:
    """Where the simulator keeps what the real server has as /var/tmp/pveupload-..."""
    return cluster.state / "uploads" / name.rpartition("/")[2]


async def receive(cluster: Cluster, request: web.Request) -> dict[str, object]:
    """The parameters of an upload; its file lies in a temporary file, until `discard`.

    400 when the parts are not FIELDS in their order and then `filename`; what is no multipart gets no answer.
    """
    if request.content_type != "multipart/form-data":
        await request.read()
        await asyncio.sleep(cluster.timing.upload)
        raise NO_ANSWER
    params: dict[str, object] = {}
    wanted = list(FIELDS)
    try:
        reader = await request.multipart()
        while isinstance(part := await reader.next(), BodyPartReader):
            if part.name == "filename" and part.filename:
                return params | {"filename": part.filename.strip(), "tmpfilename": await _save(cluster, part)}
            if part.name not in wanted:
                break
            wanted = wanted[wanted.index(part.name) + 1 :]
            params[part.name] = (await part.text()).strip()
    except ValueError as error:
        raise BAD_REQUEST from error
    raise BAD_REQUEST


async def _save(cluster: Cluster, part: BodyPartReader) -> str:
    name = f"/var/tmp/pveupload-{secrets.token_hex(16)}"
    file = _file_of(cluster, name)
    file.parent.mkdir(exist_ok=True)
    with open(file, "xb") as target:
        while block := await part.read_chunk(BLOCK):
            target.write(block)
    return name


def discard(cluster: Cluster, params: Mapping[str, object]) -> None:
    """Removes the temporary file of an upload that nobody took."""
    if name := params.get("tmpfilename"):
        _file_of(cluster, str(name)).unlink(missing_ok=True)


def _destination(call: Call, unsupported: str) -> str:
    """The volume id of the new file; the server looks at the name first, then at what the storage takes."""
    storage, content = call.params["storage"], call.params["content"]
    if "path" not in volumes.storage(call.cluster, storage):
        raise ApiError(f"can't upload to storage type '{call.cluster.storages[storage]['type']}'")
    name = re.sub(r"[^a-zA-Z0-9_.-]", "_", re.sub(r"^.*[/\\]", "", call.params["filename"]))
    pattern, text = NAMES[content]
    if not re.fullmatch(pattern, name):
        raise invalid({"filename": text})
    if content not in volumes.contents(call.cluster, storage):
        raise ApiError(unsupported)
    return f"{storage}:{content}/{name}"


def _digests(file: Path) -> dict[str, str]:
    sums = {name: hashlib.new(name, usedforsecurity=False) for name in ALGORITHMS}
    with open(file, "rb") as source:
        while block := source.read(BLOCK):
            for each in sums.values():
                each.update(block)
    return {name: each.hexdigest() for name, each in sums.items()}


def _inspect(file: Path, volid: str, shown: str, digests: Mapping[str, str]) -> Volume:
    content, _unused, name = volid.partition(":")[2].partition("/")
    extension = name.rsplit(".", 1)[-1]
    size = virtual_size(file, extension if content == "import" else "iso", shown)
    kind = {"import": extension, "vztmpl": f"t{extension}"}.get(content, content)
    return Volume(volid, content, kind, size, file.stat().st_size, int(time.time()), digests=dict(digests))


def _put(cluster: Cluster, node: str, volume: Volume) -> None:
    volumes.put(cluster, node, volume)


def _mismatch(got: str, wanted: str) -> str:
    return f"checksum mismatch: got '{got}' != expect '{wanted}'"


def _bad_format(task: Task, shown: str, kind: str, error: BadImage) -> ApiError:
    if str(error).startswith("qemu-img"):
        task.log.append(f"command '/usr/bin/qemu-img info '--output=json' {shown} -f {kind}' failed: exit code 1")
    return ApiError(str(error))


@endpoint("POST", "/nodes/{node}/storage/{storage}/upload")
async def upload(call: Call) -> object:
    """An existing file is overwritten."""
    storage, content = call.params["storage"], call.params["content"]
    volid = _destination(call, f"storage '{storage}' does not support '{content}' content")
    shown = call.params.get("tmpfilename", "")
    if not shown:
        raise ApiError("missing temporary file name")
    file = _file_of(call.cluster, shown).rename(_file_of(call.cluster, f"{shown}.taken"))
    algorithm, wanted = call.params.get("checksum-algorithm"), call.params.get("checksum", "")

    async def take(task: Task) -> None:
        task.log.append(f"starting file import from: {shown}")
        try:
            digests = await asyncio.to_thread(_digests, file)
            if algorithm:
                good = digests[algorithm] == wanted.lower()
                task.log.append("calculating checksum..." + ("OK, checksum verified" if good else ""))
                if not good:
                    raise ApiError(_mismatch(digests[algorithm], wanted))
            try:
                volume = _inspect(file, volid, shown, digests)
            except BadImage as error:
                raise _bad_format(task, shown, volid.rsplit(".", 1)[-1], error) from None
        finally:
            file.unlink(missing_ok=True)
        target = volumes.path_of(call.cluster, volid)
        task.log += [f"target node: {call.node}", f"target file: {target}", f"file size is: {volume.used}"]
        task.log.append(f"command: cp -- {shown} {target}")
        _put(call.cluster, call.node, volume)
        task.log.append("finished file import successfully")

    return call.start("imgcopy", take, "")


@endpoint("POST", "/nodes/{node}/storage/{storage}/download-url")
async def download(call: Call) -> object:
    """An existing file stays: with its checksum that is fine, otherwise the task fails."""
    storage, content = call.params["storage"], call.params["content"]
    call.require(f"/storage/{storage}", "Datastore.AllocateTemplate")
    _require_network(call)
    volid = _destination(call, f"storage '{storage}' is not configured for content-type '{content}'")
    algorithm, wanted = call.params.get("checksum-algorithm", ""), call.params.get("checksum", "").lower()

    async def fetch(task: Task) -> None:
        target, url = volumes.path_of(call.cluster, volid), call.params["url"]
        if "compression" in call.params and content != "iso":
            raise ApiError(f"decompression not supported for {content}")
        task.log.append(f"downloading {url} to {target}")
        if old := volumes.find(call.cluster, call.node, volid):
            _keep(task, old, target, algorithm, wanted)
            return
        shown = f"{target}.tmp_dwnl.{task.pid}"
        file = _file_of(call.cluster, f"download-{secrets.token_hex(16)}")
        file.parent.mkdir(exist_ok=True)
        try:
            await _fetch(task, url, file, verified=call.params.get("verify-certificates", 1) == 1)
            digests = await asyncio.to_thread(_digests, file)
            if algorithm:
                good = digests[algorithm] == wanted
                task.log.append("calculating checksum..." + ("OK, checksum verified" if good else ""))
                if not good:
                    raise ApiError(_mismatch(digests[algorithm], call.params["checksum"]))
            try:
                volume = _inspect(file, volid, shown, digests)
            except BadImage as error:
                failed = _bad_format(task, shown, volid.rsplit(".", 1)[-1], error)
                raise ApiError(f"failed to verify file: {failed.message}") from None
        finally:
            file.unlink(missing_ok=True)
        _put(call.cluster, call.node, volume)
        task.log.append(f"download of '{url}' to '{target}' finished")

    return call.start("download", fetch, volid.rpartition("/")[2])


def _keep(task: Task, old: Volume, target: str, algorithm: str, wanted: str) -> None:
    """What becomes of a download whose file exists."""
    if not algorithm:
        raise ApiError(f"refusing to override existing file '{target}'")
    # an image of the base world has no bytes: its name stands for them
    got = old.digests.get(algorithm) or hashlib.new(algorithm, old.volid.encode(), usedforsecurity=False).hexdigest()
    if got != wanted:
        task.log.append("calculating checksum of existing file...")
        raise ApiError(f"{_mismatch(got, wanted)}, aborting")
    task.log.append("calculating checksum of existing file...OK, got correct file already, no need to download")


async def _fetch(task: Task, url: str, file: Path, *, verified: bool) -> None:
    """wget, with its messages for the usual failures."""
    task.log.append(f"--{time.strftime('%Y-%m-%d %H:%M:%S')}--  {url}")
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=None, sock_connect=30, sock_read=60)) as session,
            session.get(url, ssl=verified) as answer,
        ):
            task.log.append(f"HTTP request sent, awaiting response... {answer.status} {answer.reason}")
            if answer.status != 200:
                raise ApiError("download failed: exit code 8")
            with open(file, "xb") as target:
                async for block in answer.content.iter_chunked(BLOCK):
                    target.write(block)
    except (ClientError, OSError) as error:
        task.log.append(f"failed: {error}.")
        raise ApiError("download failed: exit code 4") from None


def _require_network(call: Call) -> None:
    """Who may make a node ask other hosts."""
    if not (call.may("/", "Sys.Audit") and call.may("/", "Sys.Modify")):
        call.require(f"/nodes/{call.node}", "Sys.AccessNetwork")


@endpoint("GET", "/nodes/{node}/query-url-metadata")
async def url_metadata(call: Call) -> object:
    """Size, type and name behind a URL, by HEAD."""
    _require_network(call)
    url: str = call.params["url"]
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=30)) as session,
            session.head(url, ssl=call.params.get("verify-certificates", 1) == 1) as answer,
        ):
            if answer.status != 200:
                raise ApiError(f"invalid server response: '{answer.status} {answer.reason}'")
            row: dict[str, Any] = {"filename": url.partition("?")[0].rpartition("/")[2]}
            row |= {"size": answer.content_length} if answer.content_length is not None else {}
            return row | ({"mimetype": answer.content_type} if "Content-Type" in answer.headers else {})
    except (ClientError, OSError) as error:
        raise ApiError(f"invalid server response: '500 {error}'") from None
