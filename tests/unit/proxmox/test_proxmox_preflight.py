# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that do not exist are refused with the nearest ones; what a token may not see is not taken for absent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    Denied,
    HostingError,
    InvalidInput,
    NotFound,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import LostAnswer
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.ha import HaDesired
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.model import (
    GIB,
    Clone,
    Disk,
    Firmware,
    Network,
    Placement,
    VmActual,
    VmDesired,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.placement import (
    Cluster,
    Guest,
    Node,
    Storage,
    parse_cluster,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.preflight import (
    Asked,
    Need,
    Volume,
    check,
    holders,
    need_of,
)
from proxmox_script import Exchange, Script, failed

IMAGE = "local:import/nixos.qcow2"
DIRECTORY = frozenset({"images", "import"})
WORLD = Cluster(
    nodes={name: Node(name, "online") for name in ("pve1", "pve2")} | {"pve3": Node("pve3", "offline")},
    storages=(
        Storage("local", "pve1", "available", DIRECTORY, shared=False),
        Storage("local", "pve2", "available", DIRECTORY, shared=False),
        Storage("fast", "pve1", "available", frozenset({"images"}), shared=False),
        Storage("dead", "pve1", "unknown", DIRECTORY, shared=False),
        Storage("isos", "pve1", "available", frozenset({"iso"}), shared=True),
    ),
    guests=(
        Guest(9000, "qemu", "pve1", "base", template=True),
        Guest(200, "qemu", "pve1", "app"),
        Guest(201, "lxc", "pve1", "ct"),
        Guest(202, "qemu", "pve3", "far", template=True),
    ),
    pools=frozenset({"alice", "bob"}),
)
REFUSED = "Permission check failed (/storage/secret, Datastore.Audit|Datastore.AllocateSpace)"


def content(volume: str = IMAGE, answer: Any = None, node: str = "pve1") -> Exchange:
    path = volume.replace(":", "%3A").replace("/", "%2F")
    storage = volume.partition(":")[0]
    answer = {"format": "qcow2", "size": 2 * GIB, "used": 1, "path": "/x"} if answer is None else answer
    return Exchange("GET", f"/nodes/{node}/storage/{storage}/content/{path}", answer, {})


def listed(*volumes: str) -> Exchange:
    rows = [{"volid": volume, "size": 1, "format": "qcow2", "content": "import"} for volume in volumes]
    return Exchange("GET", "/nodes/pve1/storage/local/content", rows, {"content": "import"})


def bridges(*names: str, node: str = "pve1") -> Exchange:
    rows = [{"iface": name, "type": "bridge"} for name in names]
    return Exchange("GET", f"/nodes/{node}/network", rows, {"type": "any_bridge"})


def storage(name: str, answer: Any) -> Exchange:
    return Exchange("GET", f"/nodes/pve1/storage/{name}/status", answer, {})


def problem(need: Need, *exchanges: Exchange, world: Cluster = WORLD) -> HostingError | None:
    script = Script(list(exchanges))
    found = check(Asked(script.client()), [need], world)
    script.finished()
    return found.get(need.machine)


NEED = Need("web", "pve1")
DISK = Volume("disk", "local", IMAGE, 4 * GIB)


def test_a_creation_asks_for_the_image_and_the_bridges_only() -> None:
    need = replace(NEED, volumes=(DISK,), bridges=(("networks[0].bridge", "vmbr0"), ("networks[1].bridge", "vmbr1")))
    assert problem(need, content(), bridges("vmbr0", "vmbr1")) is None


def test_every_list_is_asked_once_in_a_run() -> None:
    script = Script([content(), bridges("vmbr0"), content("local:import/x.qcow2", failed("gone")), listed(IMAGE)])
    asked = Asked(script.client())
    need = replace(NEED, volumes=(DISK,), bridges=(("networks[0].bridge", "vmbr0"),))
    wrong = replace(NEED, volumes=(replace(DISK, image="local:import/x.qcow2"),))
    for _round in range(2):
        assert check(asked, [need, replace(need, machine="db")], WORLD) == {}
        assert set(check(asked, [wrong], WORLD)) == {"web"}
    script.finished()


@pytest.mark.parametrize(
    ("need", "exchanges", "field_name", "what", "hint"),
    [
        (replace(NEED, node="pve9"), [], "node", "there is no node pve9", "Did you mean pve"),
        (replace(NEED, node="other"), [], "node", "there is no node other", "There is: pve1, pve2, pve3"),
        (replace(NEED, node="pve3"), [], "node", "the node pve3 is offline", "another node"),
        (replace(NEED, nodes=(("ha.nodes", "pve4"),)), [], "ha.nodes", "there is no node pve4", "Did you mean"),
        (
            replace(NEED, volumes=(Volume("disk", "fastt"),)),
            [storage("fastt", failed("storage 'fastt' does not exist"))],
            "disk.storage",
            "there is no storage fastt",
            "Did you mean fast?",
        ),
        (
            replace(NEED, node="pve2", volumes=(Volume("disks[scsi1]", "fast"),)),
            [],
            "disks[scsi1].storage",
            "the node pve2 does not have the storage fast",
            "It is on pve1",
        ),
        (
            replace(NEED, volumes=(Volume("disk", "isos"),)),
            [],
            "disk.storage",
            "does not take the content type images",
            "Use dead or fast or local",
        ),
        (
            replace(NEED, volumes=(Volume("disk", "local", "fast:import/x.qcow2"),)),
            [],
            "disk.import_from",
            "the storage fast does not take the content type import",
            "Use dead or local",
        ),
        (
            replace(NEED, volumes=(Volume("disk", "dead"),)),
            [storage("dead", {"active": 0, "enabled": 1, "content": "images"})],
            "disk.storage",
            "the storage dead is not active on the node pve1",
            "Bring it back",
        ),
        (
            replace(NEED, volumes=(replace(DISK, image="local:import/nixs.qcow2"),)),
            [
                content("local:import/nixs.qcow2", failed("volume_size_info failed")),
                listed(IMAGE, "local:import/z.img"),
            ],
            "disk.import_from",
            "there is no image local:import/nixs.qcow2 on the node pve1",
            f"Did you mean {IMAGE}",
        ),
        (
            replace(NEED, volumes=(replace(DISK, size=GIB),)),
            [content()],
            "disk.size",
            f"the image {IMAGE} has 2G, and the disk cannot shrink to 1G",
            "at least",
        ),
        (
            replace(NEED, bridges=(("networks[0].bridge", "vmbr9"),)),
            [bridges("vmbr0", "lan")],
            "networks[0].bridge",
            "there is no bridge or virtual network vmbr9 on the node pve1",
            "Did you mean vmbr0?",
        ),
        (
            replace(NEED, bridges=(("networks[0].bridge", "vmbr9"),)),
            [bridges()],
            "networks[0].bridge",
            "there is no bridge",
            "No bridge or virtual network can be seen there",
        ),
        (
            replace(NEED, pool="alcie"),
            [Exchange("GET", "/pools", failed("pool 'alcie' does not exist"), {"poolid": "alcie"})],
            "pool",
            "there is no pool alcie",
            "Did you mean alice?",
        ),
        (replace(NEED, clone=Clone(999)), [], "clone", "no virtual machine 999 can be seen", "9000 (base)"),
        (replace(NEED, clone=Clone(201)), [], "clone", "201 is a container", "template"),
        (replace(NEED, clone=Clone(202)), [], "clone", "on the node pve3, which is offline", "another source"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(
    need: Need, exchanges: list[Exchange], field_name: str, what: str, hint: str
) -> None:
    error = problem(need, *exchanges)
    assert error is not None
    assert error.where == f"VM web, {field_name}"
    assert what in error.what
    assert hint in error.hint


@pytest.mark.parametrize(
    ("need", "exchanges"),
    [
        (replace(NEED, volumes=(Volume("disk", "dead"),)), [storage("dead", {"active": 1, "content": "images"})]),
        (
            replace(NEED, volumes=(Volume("disk", "hidden"),)),
            [storage("hidden", {"active": 1, "content": "images,iso"})],
        ),
        (replace(NEED, volumes=(replace(DISK, size=None),)), [content()]),
        (replace(NEED, volumes=(replace(DISK, size=2 * GIB),)), [content()]),
        (replace(NEED, volumes=(replace(DISK, image="local:import/a.ova/d.vmdk"),)), []),
        (
            replace(NEED, volumes=(replace(DISK, image="local:9000/base-9000-disk-0.qcow2"),)),
            [content("local:9000/base-9000-disk-0.qcow2")],
        ),
        (replace(NEED, pool="bob"), []),
        (replace(NEED, pool="hidden"), [Exchange("GET", "/pools", failed("no", 403), {"poolid": "hidden"})]),
        (replace(NEED, clone=Clone(9000, full=False)), []),
        (replace(NEED, clone=Clone(200)), []),
    ],
)
def test_what_is_there_or_may_be_there_is_not_refused(need: Need, exchanges: list[Exchange]) -> None:
    assert problem(need, *exchanges) is None


def test_a_storage_where_nothing_may_be_made_is_denied() -> None:
    """Its status is shown to those with Datastore.AllocateSpace, without which no disk can be made."""
    error = problem(replace(NEED, volumes=(Volume("disk", "secret"),)), storage("secret", failed(REFUSED, 403)))
    assert isinstance(error, Denied)
    assert error.where == "VM web, disk.storage"
    assert "Datastore.AllocateSpace" in error.what


def test_a_blind_token_gets_no_false_refusal() -> None:
    blind = Cluster(nodes=WORLD.nodes)
    need = replace(NEED, volumes=(DISK,), bridges=(("networks[0].bridge", "vmbr0"),))
    status = {"active": 1, "enabled": 1, "content": "images,import"}
    assert problem(need, storage("local", status), content(), bridges("vmbr0"), world=blind) is None


def test_an_image_that_may_not_be_read_is_denied() -> None:
    error = problem(replace(NEED, volumes=(DISK,)), content(answer=failed("Permission check failed", 403)))
    assert isinstance(error, Denied)
    assert error.where == "VM web, disk.import_from"


def test_an_image_that_is_listed_but_broken_is_told_so() -> None:
    error = problem(replace(NEED, volumes=(DISK,)), content(answer=failed("volume_size_info failed")), listed(IMAGE))
    assert error is not None
    assert "cannot be read" in error.what


def test_a_missing_answer_is_not_taken_for_a_missing_name() -> None:
    error = problem(
        replace(NEED, bridges=(("networks[0].bridge", "vmbr0"),)),
        *[Exchange("GET", "/nodes/pve1/network", failed("Connection refused", 595), {"type": "any_bridge"})] * 5,
    )
    assert isinstance(error, LostAnswer)


def test_the_nodes_that_hold_an_image() -> None:
    script = Script([content(), content(node="pve2", answer=failed("gone"))])
    assert holders(Asked(script.client()), IMAGE, WORLD) == {"pve1"}
    script.finished()
    nothing = Asked(Script([]).client())
    assert holders(nothing, "fast:import/x.qcow2", WORLD) == {"pve1"}
    assert holders(nothing, "hidden:import/x.qcow2", WORLD) == {"pve1", "pve2"}
    shared = replace(WORLD, storages=tuple(replace(one, shared=True) for one in WORLD.storages))
    assert holders(nothing, IMAGE, shared) == {"pve1", "pve2"}


# what an item needs

WEB = VmDesired(
    "web",
    node="pve1",
    disks=(Disk("scsi0", storage="local", import_from=IMAGE, size=4 * GIB), Disk("scsi1", storage="fast")),
    firmware=(Firmware("efidisk0", "fast"),),
    networks=(Network("vmbr0"), Network("vmbr1")),
    pool="alice",
    placement=Placement(nodes=frozenset({"pve2"})),
    parts={"ha": HaDesired("started", nodes={"pve1": 1})},
)


def test_a_new_machine_needs_everything_that_it_names() -> None:
    assert need_of(WEB, None, "pve1") == Need(
        "web",
        "pve1",
        nodes=(("node", "pve1"), ("placement.nodes", "pve2"), ("ha.nodes", "pve1")),
        volumes=(Volume("disk", "local", IMAGE, 4 * GIB), Volume("disks[scsi1]", "fast"), Volume("efi_disk", "fast")),
        bridges=(("networks[0].bridge", "vmbr0"), ("networks[1].bridge", "vmbr1")),
    )


def test_an_existing_machine_needs_only_what_is_new() -> None:
    there = VmActual(
        "web",
        100,
        "pve2",
        pool="alice",
        config={
            "scsi0": "old:100/vm-100-disk-0.qcow2,size=4G",
            "efidisk0": "fast:vm-100-disk-1,efitype=4m",
            "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0",
            "net1": "virtio=BC:24:11:00:00:02,bridge=vmbr7",
        },
    )
    need = need_of(replace(WEB, placement=None, parts={}), there, "pve2")
    assert need == Need(
        "web",
        "pve2",
        nodes=(("node", "pve1"),),
        volumes=(Volume("disks[scsi1]", "fast"),),
        bridges=(("networks[1].bridge", "vmbr1"),),
    )
    moved = replace(WEB, disks=(Disk("scsi0", storage="fast", move=True),), pool="bob")
    need = need_of(moved, there, "pve2")
    assert need.volumes == (Volume("disk", "fast"),)
    assert need.pool == "bob"


def test_a_clone_needs_its_source_only_when_it_is_made() -> None:
    item = VmDesired("web", node="pve1", clone=Clone(9000, storage="fast"))
    need = need_of(item, None, "pve1")
    assert need.clone == item.clone
    assert need.volumes == (Volume("clone", "fast"),)
    copied = {"scsi0": "fast:base-9000-disk-0,size=2G", "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0"}
    item = replace(item, disks=(Disk("scsi0", storage="fast"),), networks=(Network("vmbr0"), Network("vmbr1")))
    need = need_of(item, None, "pve1", copied)
    assert need.volumes == (Volume("clone", "fast"),)
    assert need.bridges == (("networks[1].bridge", "vmbr1"),)
    item = VmDesired("web", node="pve1", clone=Clone(9000))
    assert need_of(item, VmActual("web", 100, "pve1"), "pve1") == Need("web", "pve1", nodes=(("node", "pve1"),))


def test_problems_are_told_by_machine() -> None:
    found = check(Asked(Script([]).client()), [replace(NEED, node="pve9"), replace(NEED, machine="db")], WORLD)
    assert set(found) == {"web"}
    assert isinstance(found["web"], InvalidInput)
    assert not isinstance(found["web"], NotFound)


def test_on_the_simulator(simulator: Any) -> None:
    client = simulator.client()
    cluster = parse_cluster(client.get("/cluster/resources"))
    asked = Asked(client)
    good = replace(WEB, networks=(Network("vmbr0"),), disks=WEB.disks[:1], firmware=(), placement=None)
    assert check(asked, [need_of(good, None, "pve1")], cluster) == {}
    assert simulator.requests()[1:] == [
        "GET /nodes/pve1/storage/local/content/local%3Aimport%2Fnixos.qcow2",
        "GET /nodes/pve1/network",
    ]
    image = replace(WEB.disks[0], import_from="local:import/nixs.qcow2")
    wrong: dict[str, tuple[VmDesired, str]] = {
        "node": (replace(good, node="pve7"), "there is no node pve7"),
        "storage": (
            replace(good, disks=(replace(image, storage="locl", import_from=None),)),
            "there is no storage locl",
        ),
        "image": (replace(good, disks=(image,)), "there is no image local:import/nixs.qcow2"),
        "bridge": (replace(good, networks=(Network("vmbr5"),)), "there is no bridge or virtual network vmbr5"),
        "size": (replace(good, disks=(replace(WEB.disks[0], size=1024**2),)), "cannot shrink to 1M"),
    }
    found = check(
        asked, [need_of(replace(vm, name=name), None, "pve1") for name, (vm, _text) in wrong.items()], cluster
    )
    for name, (_vm, text) in wrong.items():
        assert text in found[name].what
        assert found[name].where.startswith(f"VM {name}, ")
    assert not [request for request in simulator.requests() if not request.startswith("GET")]


def test_on_the_simulator_a_token_without_rights_is_denied_and_not_misled(simulator: Any) -> None:
    client = simulator.client("fediversity@pve!blind")
    cluster = parse_cluster(client.get("/cluster/resources"))
    assert set(cluster.nodes) == {"pve1", "pve2"}
    found = check(Asked(client), [replace(NEED, volumes=(DISK,))], cluster)
    assert isinstance(found["web"], Denied)
    assert "Datastore.AllocateSpace" in found["web"].what
