# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that the cluster does not have are refused before anything is written.

Nodes, guests and most storages are known from the rows of ``/cluster/resources``. Only what the rows leave open is
asked, once in a run: bridges of a node, the image, a storage that the rows do not show.

A list that a token may not see must not be taken for an empty one, so nothing is concluded from a missing row alone:

- a node always has a row;
- a storage has rows for those with Datastore.Audit only; without a row its status is asked, which those may who have
  Datastore.AllocateSpace too. Refused there (403) means that no disk can be made there either;
- the bridges of a node are shown to those with SDN.Audit or SDN.Use on them, and a network device needs SDN.Use;
- an image is asked for with the rights that importing it takes;
- a pool has a row for those with Pool.Audit. For a new machine the server decides (403, before anything is made); only
  where an existing one changes its pool it is asked;
- a clone's source needs VM.Audit to be seen, and to be read for the sizes of its disks.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    HostingError,
    InvalidInput,
    NotFound,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, Invalid, Value
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import (
    format_size,
    parse_network,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import Clone, VmActual, VmDesired
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.placement import Cluster, Storage
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.snapshots import parse

# option of each volume of the firmware
FIRMWARE = {"efidisk0": "efi_disk", "tpmstate0": "tpm"}
# names that an error lists
SHOWN = 10
# errors that tell something about the name that was asked for; all others are about the connection or the cluster
TELLING = (NotFound, Denied, Invalid, BackendError)


class Asked:
    """Answers of a client, each asked once; may be used by several threads.

    Two threads that ask the same at once may both ask: the answer is the same.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answers: dict[tuple[str, tuple[tuple[str, Value], ...]], Any] = {}
        self._lock = threading.Lock()

    def get(self, path: str, /, **params: Value) -> Any:
        """The answer. :raises HostingError: the same as at the first time."""
        key = (path, tuple(sorted(params.items())))
        with self._lock:
            known = key in self._answers
        if not known:
            try:
                answer = self._client.get(path, **params)
            except HostingError as error:
                answer = error
            with self._lock:
                self._answers[key] = answer
        answer = self._answers[key]
        if isinstance(answer, HostingError):
            raise answer
        return answer


@dataclass(frozen=True)
class Volume:
    """A volume that is to be made.

    :param field: option of the item, such as ``disk``.
    :param image: volume that is copied into it.
    :param size: bytes that it is to have at the end; None is that of the image.
    """

    field: str
    storage: str
    image: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Need:
    """What a change of one machine uses for the first time.

    :param node: where the machine is, or is to be.
    :param nodes: field and node of everything else that names one.
    :param bridges: field and bridge.
    :param pool: to which an existing machine is moved.
    """

    machine: str
    node: str
    nodes: tuple[tuple[str, str], ...] = ()
    volumes: tuple[Volume, ...] = ()
    bridges: tuple[tuple[str, str], ...] = ()
    clone: Clone | None = None
    pool: str | None = None


def named_nodes(desired: VmDesired) -> tuple[tuple[str, str], ...]:
    """Field and name of all nodes that the item names."""
    ha = desired.parts.get("ha")
    return (
        *([("node", desired.node)] if desired.node else []),
        *(("placement.nodes", node) for node in sorted((desired.placement and desired.placement.nodes) or ())),
        *(("ha.nodes", node) for node in sorted((ha and ha.nodes) or ())),
    )


def need_of(
    desired: VmDesired, actual: VmActual | None, node: str, copied: Mapping[str, str] = MappingProxyType({})
) -> Need:
    """What the item uses that the machine does not have yet.

    :param actual: None for a new one.
    :param node: where it is, or is to be.
    :param copied: the configuration of the source of a clone.
    """
    config = actual.config if actual else copied
    there = {key for key, value in config.items() if value not in ("", "none")}
    volumes = [
        Volume(
            "disk" if number == 0 and disk.slot == "scsi0" else f"disks[{disk.slot}]",
            disk.storage,
            disk.import_from,
            disk.size,
        )
        for number, disk in enumerate(desired.disks)
        if disk.state == "present"
        and disk.storage
        and (disk.slot not in there or _moves(disk.storage, disk.move, config[disk.slot]))
    ]
    volumes += [
        Volume(FIRMWARE[firmware.key], firmware.storage) for firmware in desired.firmware if firmware.key not in there
    ]
    if desired.clone is not None and actual is None and desired.clone.storage:
        volumes.append(Volume("clone", desired.clone.storage))
    bridges = [
        (f"networks[{number}].bridge", network.bridge)
        for number, network in enumerate(desired.networks or ())
        if f"net{number}" not in config or parse_network(config[f"net{number}"]).bridge != network.bridge
    ]
    return Need(
        machine=desired.name,
        node=node,
        nodes=named_nodes(desired),
        volumes=tuple(volumes),
        bridges=tuple(bridges),
        clone=desired.clone if actual is None else None,
        pool=desired.pool if actual is not None and actual.pool != desired.pool else None,
    )


def _moves(storage: str, move: bool, value: str) -> bool:
    return move and value.partition(":")[0] != storage


def check(asked: Asked, needs: Iterable[Need], cluster: Cluster) -> dict[str, HostingError]:
    """The first problem of each machine that has one, by machine."""
    found: dict[str, HostingError] = {}
    for need in needs:
        try:
            check_one(asked, need, cluster)
        except HostingError as error:
            found[need.machine] = error
    return found


def check_one(asked: Asked, need: Need, cluster: Cluster) -> None:
    """:raises HostingError: names the machine, the field, and what there is instead."""
    for field_name, node in (*need.nodes, ("node", need.node)):
        check_node(cluster, node, _where(need, field_name))
    if not cluster.nodes[need.node].online:
        raise InvalidInput(
            f"the node {need.node} is {cluster.nodes[need.node].status}",
            where=_where(need, "node"),
            hint="Bring it back, or choose another node",
        )
    if need.clone is not None:
        _check_source(asked, need, need.clone, cluster)
    for volume in need.volumes:
        where = _where(need, volume.field)
        _check_storage(asked, cluster, need.node, volume.storage, content="images", where=f"{where}.storage")
        if volume.image is not None:
            _check_image(asked, cluster, need.node, volume, where)
    for field_name, bridge in need.bridges:
        _check_bridge(asked, need.node, bridge, _where(need, field_name))
    if need.pool is not None and need.pool not in cluster.pools:
        _check_pool(asked, need.pool, cluster, _where(need, "pool"))


def check_node(cluster: Cluster, node: str, where: str) -> None:
    """:raises InvalidInput: the cluster has no such node."""
    if node not in cluster.nodes:
        raise _unknown("node", node, cluster.nodes, where)


def check_snapshot(asked: Asked, machine: VmActual, name: str) -> None:
    """:raises InvalidInput: the machine has no such snapshot to return to."""
    known = {snapshot.name for snapshot in parse(asked.get(f"{machine.path}/snapshot"))}
    if name not in known:
        raise _unknown("snapshot", name, known, f"VM {machine.machine}, rollback")


def holders(asked: Asked, volume: str, cluster: Cluster) -> frozenset[str]:
    """The nodes on which the image *volume* can be read; all, where the rows do not tell."""
    storage = volume.partition(":")[0]
    rows = [row for row in cluster.storages if row.name == storage]
    online = {name for name, node in cluster.nodes.items() if node.online}
    if not rows:
        return frozenset(online)
    nodes = [row.node for row in rows if row.node in online]
    if all(row.shared for row in rows) or len(nodes) < 2:
        return frozenset(nodes)
    return frozenset(node for node in nodes if _has_volume(asked, node, volume))


def _has_volume(asked: Asked, node: str, volume: str) -> bool:
    try:
        asked.get(_volume_path(node, volume))
    except TELLING:
        return False
    return True


def _where(need: Need, field_name: str) -> str:
    return f"VM {need.machine}, {field_name}"


def _unknown(kind: str, name: str, known: Collection[str], where: str, of: str = "") -> InvalidInput:
    """There is no such thing; names what is nearest, or what there is."""
    near = difflib.get_close_matches(name, list(known), n=3)
    if near:
        hint = f"Did you mean {' or '.join(near)}?"
    else:
        names = sorted(known)
        shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        hint = f"There is: {shown}" if names else f"No {kind} can be seen there"
    return InvalidInput(f"there is no {kind} {name}{of}", where=where, hint=hint)


def _check_storage(asked: Asked, cluster: Cluster, node: str, name: str, *, content: str, where: str) -> None:
    rows = [row for row in cluster.storages if row.name == name]
    here = [row for row in rows if row.node == node]
    if rows and not here:
        others = ", ".join(sorted({row.node for row in rows}))
        raise InvalidInput(f"the node {node} does not have the storage {name}", where=where, hint=f"It is on {others}")
    storage = here[0] if here and here[0].status == "available" else _asked_storage(asked, cluster, node, name, where)
    if storage.status != "available":
        raise InvalidInput(
            f"the storage {name} is not active on the node {node}",
            where=where,
            hint="Bring it back, or choose another storage",
        )
    if content not in storage.content:
        fitting = sorted({row.name for row in cluster.storages if row.node == node and content in row.content})
        raise InvalidInput(
            f"the storage {name} does not take the content type {content}",
            where=where,
            hint=f"Use {' or '.join(fitting)}" if fitting else f"Allow {content} in the settings of the storage",
        )


def _asked_storage(asked: Asked, cluster: Cluster, node: str, name: str, where: str) -> Storage:
    """The storage as its node tells: the rows do not show it, or do not know whether it works."""
    known = {row.name for row in cluster.storages if row.node == node}
    try:
        status = asked.get(f"/nodes/{node}/storage/{quote(name, safe='')}/status")
    except Denied as error:
        near = _unknown("storage", name, known, where).hint
        raise Denied(
            f"the storage {name} does not exist, or no disk may be made there ({error.what})", where=where, hint=near
        ) from error
    except NotFound:
        raise _unknown("storage", name, known, where) from None
    except BackendError as error:
        raise InvalidInput(error.what, where=where, hint="Choose another storage") from error
    usable = int(status.get("enabled", 1)) and int(status.get("active", 1))
    content = frozenset(str(status.get("content") or "").split(","))
    return Storage(name, node, "available" if usable else "inactive", content, bool(int(status.get("shared") or 0)))


def _check_image(asked: Asked, cluster: Cluster, node: str, volume: Volume, where: str) -> None:
    """The image is there, and not larger than the disk is to be; the content type list tells sizes of files only."""
    image, field_name = str(volume.image), f"{where}.import_from"
    storage, _colon, path = image.partition(":")
    if ".ova/" in path:
        # a disk inside an archive: only the server can look
        return
    content = "import" if path.startswith("import/") else "images"
    _check_storage(asked, cluster, node, storage, content=content, where=field_name)
    try:
        size = int(asked.get(_volume_path(node, image)).get("size") or 0)
    except Denied as error:
        raise Denied(error.what, where=field_name, hint=error.hint) from error
    except TELLING as error:
        volumes = [str(row["volid"]) for row in _listed(asked, node, storage, content)]
        if image in volumes:
            raise BackendError(f"the image {image} cannot be read ({error.what})", where=field_name) from error
        raise _unknown("image", image, volumes, field_name, f" on the node {node}") from None
    if volume.size is not None and size > volume.size:
        raise InvalidInput(
            f"the image {image} has {format_size(size)}, and the disk cannot shrink to {format_size(volume.size)}",
            where=f"{where}.size",
            hint="Ask for at least the size of the image",
        )


def _listed(asked: Asked, node: str, storage: str, content: str) -> Sequence[Mapping[str, Any]]:
    try:
        rows: Sequence[Mapping[str, Any]] = asked.get(
            f"/nodes/{node}/storage/{quote(storage, safe='')}/content", content=content
        )
    except TELLING:
        return ()
    return rows


def _volume_path(node: str, volume: str) -> str:
    storage = volume.partition(":")[0]
    return f"/nodes/{node}/storage/{quote(storage, safe='')}/content/{quote(volume, safe='')}"


def _check_bridge(asked: Asked, node: str, bridge: str, where: str) -> None:
    rows = asked.get(f"/nodes/{node}/network", type="any_bridge")
    known = {str(row["iface"]) for row in rows}
    if bridge not in known:
        raise _unknown("bridge or virtual network", bridge, known, where, f" on the node {node} that may be used")


def _check_pool(asked: Asked, pool: str, cluster: Cluster, where: str) -> None:
    try:
        asked.get("/pools", poolid=pool)
    except NotFound:
        raise _unknown("pool", pool, cluster.pools, where) from None
    except TELLING:
        # not to be seen: the server decides
        return


def _check_source(asked: Asked, need: Need, clone: Clone, cluster: Cluster) -> None:
    where = _where(need, "clone")
    source = next((guest for guest in cluster.guests if guest.vmid == clone.vmid), None)
    if source is None:
        templates = [f"{guest.vmid} ({guest.name})" for guest in cluster.guests if guest.template]
        shown = ", ".join(sorted(templates)[:SHOWN])
        raise NotFound(
            f"no virtual machine {clone.vmid} can be seen",
            where=where,
            hint=f"Templates are: {shown}" if shown else "Check that the user has VM.Audit and VM.Clone on it",
        )
    if source.kind != "qemu":
        raise InvalidInput(f"{clone.vmid} is a container", where=where, hint="Name a virtual machine or a template")
    node = cluster.nodes.get(source.node)
    if node is not None and not node.online:
        raise InvalidInput(
            f"the source {clone.vmid} is on the node {source.node}, which is {node.status}",
            where=where,
            hint="Bring the node back, or name another source",
        )
