# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disk images that new virtual machines are copied from, as a provider.

An image is immutable: its file name holds the start of its checksum, so a changed image is another file and creations
that are under way keep theirs. Files of ours are called ``fediversity-<name>-<12 digits>.<format>``; no others are
touched.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote, urlsplit

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    InvalidInput,
    NotFound,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.names import SLUG
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, Transient
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import parse_words
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.uploads import Uploads
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import (
    Applied,
    Change,
    Plan,
    Refusal,
    one_by_one,
)

FORMATS = ("qcow2", "raw", "vmdk")
DIGESTS = {"sha256": 64, "sha384": 96, "sha512": 128}
SHOWN_DIGITS = 12
PREFIX = "fediversity-"
# seconds before an upload whose answer was lost is looked at, and tried again
REPEAT_DELAYS = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class ImageDesired:
    """One image on one storage.

    :param nodes: where it shall be; empty are all nodes that have the storage. A shared storage has it once.
    :param checksum: algorithm and hex digits.
    :param size: bytes of the file; None if nobody knows before the download.
    :param keep: how many versions of it stay, the wanted one included.
    :param problem: why this item cannot be used; everything else of it is then meaningless.
    """

    name: str
    storage: str = ""
    state: Literal["present", "absent"] = "present"
    nodes: tuple[str, ...] = ()
    source: Path | None = None
    url: str | None = None
    verify_url: bool = True
    checksum: tuple[str, str] = ("sha256", "")
    format: str = "qcow2"
    size: int | None = None
    keep: int = 2
    problem: HostingError | None = None

    @property
    def filename(self) -> str:
        return f"{PREFIX}{self.name}-{self.checksum[1][:SHOWN_DIGITS]}.{self.format}"

    @property
    def volid(self) -> str:
        """The volume as ``import_from`` of a disk takes it."""
        return f"{self.storage}:import/{self.filename}"

    def is_version(self, filename: str) -> bool:
        """Whether the file is this image, in any version."""
        pattern = rf"{PREFIX}{re.escape(self.name)}-[0-9a-f]{{{SHOWN_DIGITS}}}\.({'|'.join(FORMATS)})\Z"
        return re.match(pattern, filename) is not None


@dataclass(frozen=True)
class Stored:
    """One file of ours on one node; ``size`` in bytes, ``created`` in seconds of the epoch."""

    filename: str
    size: int
    created: int


@dataclass(frozen=True)
class ImageActual:
    """The versions of one image by node, newest first; ``volid`` is that of the wanted version."""

    name: str
    volid: str = ""
    places: Mapping[str, tuple[Stored, ...]] = field(default_factory=dict)
    problem: HostingError | None = None


def desired_images(items: Sequence[Mapping[str, Any]]) -> tuple[ImageDesired, ...]:
    """The items of the module; one that cannot be used keeps its problem.

    :raises InvalidInput: two items are the same image.
    """
    found: dict[str, ImageDesired] = {}
    for item in items:
        name = str(item["name"])
        if name in found:
            raise InvalidInput(f"the image {name} is listed twice", where="images", hint="List each image once")
        try:
            found[name] = _desired(item)
        except HostingError as error:
            found[name] = ImageDesired(name, problem=error)
    return tuple(found.values())


def _desired(item: Mapping[str, Any]) -> ImageDesired:
    where = f"image {item['name']}"
    if not SLUG.match(item["name"]) or len(item["name"]) > 63:
        raise InvalidInput(
            f"{item['name']!r} is no name", where=where, hint="Use lower-case letters, digits and single hyphens"
        )
    base = {"name": item["name"], "storage": item["storage"], "nodes": tuple(item.get("nodes") or ())}
    if item["state"] == "absent":
        return ImageDesired(**base, state="absent")
    if item["keep"] < 1:
        raise InvalidInput("at least the wanted version is kept", where=f"{where}, keep", hint="Use 1 or more")
    if (item.get("src") is None) == (item.get("url") is None):
        raise InvalidInput("exactly one of src and url is needed", where=where)
    source = Path(item["src"]) if item.get("src") else None
    if source is not None and not source.is_file():
        raise InvalidInput(f"{source} is no file", where=f"{where}, src", hint="Build or download the image first")
    kind = item.get("format") or _suffix(source.name if source else urlsplit(item["url"]).path)
    if kind not in FORMATS:
        raise InvalidInput(
            "the name does not tell the format", where=f"{where}, format", hint=f"Give one of {', '.join(FORMATS)}"
        )
    return ImageDesired(
        **base,
        source=source,
        url=item.get("url"),
        verify_url=item["validate_url_certs"],
        checksum=_checksum(item.get("checksum"), source, where),
        format=kind,
        size=source.stat().st_size if source else item.get("size"),
        keep=item["keep"],
    )


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _checksum(text: str | None, source: Path | None, where: str) -> tuple[str, str]:
    """Algorithm and digits as given, else those of the file, which must be read for it."""
    if text is None and source is None:
        raise InvalidInput(
            "a download needs a checksum", where=f"{where}, checksum", hint="Give sha256:<64 hex digits> of the image"
        )
    if text is None and source is not None:
        with source.open("rb") as file:
            return "sha256", hashlib.file_digest(file, "sha256").hexdigest()
    algorithm, _colon, digits = str(text).strip().lower().rpartition(":")
    algorithm = algorithm or "sha256"
    if algorithm not in DIGESTS or not re.fullmatch(f"[0-9a-f]{{{DIGESTS[algorithm]}}}", digits):
        raise InvalidInput(
            f"{text!r} is no checksum",
            where=f"{where}, checksum",
            hint=f"Give one of {', '.join(DIGESTS)} as sha256:<hex>",
        )
    return algorithm, digits


class Images:
    """Provider of images.

    :param uploads: makes the way for uploads, at the first one.
    :param report: gets a line about a long upload now and then.
    """

    kind: ClassVar[str] = "proxmox_images"

    def __init__(
        self, client: Client, uploads: Callable[[], Uploads], *, task_timeout: float, report: Callable[[str], None]
    ) -> None:
        self._client = client
        self._make_uploads = uploads
        self._uploads: Uploads | None = None
        self._budget = task_timeout
        self._report = report

    def read(self, desired: Sequence[ImageDesired]) -> Mapping[str, ImageActual]:
        """One list of the storages, and one of the images for each storage and node in question.

        :raises HostingError: the list of storages cannot be read; further errors stay with their image.
        """
        rows = self._client.get("/cluster/resources", type="storage")
        contents: dict[tuple[str, str], Sequence[Mapping[str, Any]]] = {}
        return {image.name: self._read_one(image, rows, contents) for image in desired if image.problem is None}

    def plan(
        self, desired: Sequence[ImageDesired], actual: Mapping[str, ImageActual]
    ) -> Plan[ImageDesired, ImageActual]:
        changes: list[Change[ImageDesired, ImageActual]] = []
        refusals: list[Refusal] = []
        for image in desired:
            present = actual.get(image.name)
            problem = image.problem or (present.problem if present else None)
            if problem is not None:
                refusals.append(Refusal(image.name, problem))
            elif present is not None:
                changes.append(change_of(image, present))
        return Plan(tuple(changes), tuple(refusals))

    def apply(
        self, changes: Sequence[Change[ImageDesired, ImageActual]]
    ) -> Iterator[Applied[ImageDesired, ImageActual]]:
        return one_by_one(changes, self._apply_one)

    def outputs(self, actual: ImageActual) -> Mapping[str, Any]:
        if actual.problem is not None:
            return {}
        return {"volid": actual.volid, "nodes": sorted(actual.places)}

    def _read_one(
        self,
        image: ImageDesired,
        rows: Sequence[Mapping[str, Any]],
        contents: dict[tuple[str, str], Sequence[Mapping[str, Any]]],
    ) -> ImageActual:
        places: dict[str, tuple[Stored, ...]] = {}
        try:
            for node in target_nodes(image, rows):
                if (node, image.storage) not in contents:
                    path = f"/nodes/{node}/storage/{image.storage}/content"
                    contents[node, image.storage] = self._client.get(path, content="import")
                places[node] = versions(image, contents[node, image.storage])
        except HostingError as error:
            return ImageActual(image.name, problem=error)
        return ImageActual(image.name, image.volid if image.state == "present" else "", places)

    def _apply_one(self, change: Change[ImageDesired, ImageActual]) -> None:
        image, actual = change.desired, change.actual
        if image is None or actual is None:
            raise BackendError("a change without its states", where=change.name)
        for node, stored in sorted(actual.places.items()):
            if image.state == "present" and not _complete(image, stored):
                self._bring(image, node, stored)
            for old in surplus(image, stored):
                self._remove(image, node, old)

    def _bring(self, image: ImageDesired, node: str, stored: Sequence[Stored]) -> None:
        """Upload or download; after a lost answer look whether the file is there before doing it again."""
        for delay in REPEAT_DELAYS:
            try:
                return self._bring_once(image, node, stored)
            except Transient:
                self._client.sleep(delay)
            path = f"/nodes/{node}/storage/{image.storage}/content"
            stored = versions(image, self._client.get(path, content="import"))
            if _complete(image, stored):
                return None
        return self._bring_once(image, node, stored)

    def _bring_once(self, image: ImageDesired, node: str, stored: Sequence[Stored]) -> None:
        if image.source is None:
            self._download(image, node, stored)
            return
        if self._uploads is None:
            self._uploads = self._make_uploads()
        self._uploads.send(
            node,
            image.storage,
            image.source,
            image.filename,
            image.checksum,
            budget=self._budget,
            progress=lambda sent, size: self._report(f"{image.name} to {node}: {sent} of {size} bytes"),
        )

    def _download(self, image: ImageDesired, node: str, stored: Sequence[Stored]) -> None:
        """The server writes to a temporary file and renames it, but refuses a name that is taken."""
        for old in stored:
            if old.filename == image.filename:
                self._remove(image, node, old)
        tasks.run(
            self._client,
            "POST",
            f"/nodes/{node}/storage/{image.storage}/download-url",
            {
                "content": "import",
                "filename": image.filename,
                "url": image.url,
                "checksum-algorithm": image.checksum[0],
                "checksum": image.checksum[1],
                "verify-certificates": image.verify_url,
            },
            budget=self._budget,
        )

    def _remove(self, image: ImageDesired, node: str, stored: Stored) -> None:
        volume = quote(f"{image.storage}:import/{stored.filename}", safe=":")
        path = f"/nodes/{node}/storage/{image.storage}/content/{volume}"
        upid = self._client.delete(path)
        if upid is not None:
            tasks.wait(self._client, upid, budget=self._budget)


def target_nodes(image: ImageDesired, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Where the image is stored: one node for a shared storage, else all or the wanted ones.

    :raises NotFound: nobody has the storage, or a wanted node has not.
    :raises InvalidInput: the storage does not take images.
    """
    where = f"image {image.name}, storage"
    mine = {str(row["node"]): row for row in rows if row.get("storage") == image.storage}
    if not mine:
        raise NotFound(
            f"no node has the storage {image.storage}, or it may not be seen",
            where=where,
            hint="Correct its name, or give the user Datastore.Audit on it",
        )
    if not any("import" in parse_words(str(row.get("content") or "import")) for row in mine.values()):
        raise InvalidInput(
            f"the storage {image.storage} does not take images",
            where=where,
            hint=f"Add the content type: pvesm set {image.storage} --content ...,import",
        )
    usable = sorted(node for node, row in mine.items() if row.get("status", "available") == "available")
    missing = sorted(set(image.nodes) - set(usable))
    if missing or not usable:
        raise NotFound(
            f"the storage {image.storage} is not available on {', '.join(missing) or 'any node'}",
            where=f"image {image.name}, nodes",
            hint="Correct the nodes, or bring them up",
        )
    wanted = tuple(node for node in usable if not image.nodes or node in image.nodes)
    return wanted[:1] if any(str(row.get("shared", 0)) == "1" for row in mine.values()) else wanted


def versions(image: ImageDesired, content: Sequence[Mapping[str, Any]]) -> tuple[Stored, ...]:
    """The files of this image in a storage, newest first."""
    found = []
    for row in content:
        filename = str(row.get("volid", "")).partition(":import/")[2]
        if image.is_version(filename):
            found.append(Stored(filename, int(row.get("size") or 0), int(row.get("ctime") or 0)))
    return tuple(sorted(found, key=lambda stored: (-stored.created, stored.filename)))


def change_of(image: ImageDesired, actual: ImageActual) -> Change[ImageDesired, ImageActual]:
    """What is to be done, with the files and their sizes by node as difference."""
    before = {node: {old.filename: old.size for old in stored} for node, stored in actual.places.items()}
    after = {node: _after(image, stored) for node, stored in actual.places.items()}
    before, after = ({node: files for node, files in side.items() if files} for side in (before, after))
    if before == after:
        return Change(image.name, "unchanged", desired=image, actual=actual)
    action: Literal["create", "update", "delete"] = "update"
    if image.state == "absent":
        action = "delete"
    elif not before:
        action = "create"
    return Change(image.name, action, before, after, image, actual)


def _after(image: ImageDesired, stored: Sequence[Stored]) -> dict[str, int]:
    gone = {old.filename for old in surplus(image, stored)}
    files = {old.filename: old.size for old in stored if old.filename not in gone}
    if image.state == "present" and not _complete(image, stored):
        files[image.filename] = image.size or 0
    return files


def _complete(image: ImageDesired, stored: Sequence[Stored]) -> bool:
    """The wanted version is there in its full length; its checksum was compared when it was brought."""
    return any(old.filename == image.filename and image.size in (None, old.size) for old in stored)


def surplus(image: ImageDesired, stored: Sequence[Stored]) -> tuple[Stored, ...]:
    """The versions beyond ``keep``, oldest first; all of them for an image that shall be absent."""
    if image.state == "absent":
        return tuple(reversed(stored))
    others = [old for old in stored if old.filename != image.filename]
    return tuple(reversed(others[image.keep - 1 :]))
