# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The exact requests of the provider, played against answers of the real server; one surplus or missing one fails."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import LostAnswer
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.desired import desired_machines
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.provider import VirtualMachines
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import reconcile
from proxmox_script import Exchange, Script, done, failed, task_path, upid

RIGHTS = {"/": {"VM.Audit": 1, "Pool.Audit": 1, "Sys.Audit": 1}}
TAGS = "fediversity;fediversity-machine-web"
ROW = {"id": "qemu/100", "type": "qemu", "vmid": 100, "node": "pve1", "tags": TAGS, "status": "running", "name": "web"}
NEW_ROW = {**ROW, "status": "unknown"}
FOREIGN = {"id": "qemu/9000", "type": "qemu", "vmid": 9000, "node": "pve1", "tags": "template", "status": "stopped"}
PLACES = [
    {"type": "node", "id": "node/pve1", "node": "pve1", "status": "online"},
    {"type": "node", "id": "node/pve2", "node": "pve2", "status": "online"},
    {
        "type": "storage",
        "id": "storage/pve1/local",
        "node": "pve1",
        "storage": "local",
        "status": "available",
        "content": "images,import",
    },
]
IMAGE_SIZE = 1600 * 1024**2
STORED = {
    "name": "web",
    "cores": 1,
    "memory": "512",
    "tags": TAGS,
    "scsi0": "local:100/vm-100-disk-0.qcow2,discard=on,size=1600M",
    "net0": "virtio=BC:24:11:B3:51:9A,bridge=vmbr0",
    "digest": "45e626060c775ca5aa517542a3da68c07e2d07d7",
}
DISK = {"storage": "local", "import_from": "local:import/base.qcow2"}
CUT = LostAnswer("the connection broke")


def resources(*rows: dict[str, Any]) -> Exchange:
    return Exchange("GET", "/cluster/resources", [*rows, FOREIGN, *PLACES], {})


def rights(granted: dict[str, Any] | None = None) -> Exchange:
    return Exchange("GET", "/access/permissions", RIGHTS if granted is None else granted, {})


def pending(stored: dict[str, Any], vmid: int = 100) -> Exchange:
    rows = [{"key": key, "value": value} for key, value in stored.items()]
    return Exchange("GET", f"/nodes/pve1/qemu/{vmid}/pending", rows, {})


def lookups() -> list[Exchange]:
    """The image is there and has a size, the bridge is there."""
    image = "/nodes/pve1/storage/local/content/local%3Aimport%2Fbase.qcow2"
    return [Exchange("GET", image, {"size": IMAGE_SIZE, "format": "qcow2"}, {}), bridges()]


def bridges() -> Exchange:
    there = [{"iface": "vmbr0", "type": "bridge"}, {"iface": "vmbr1", "type": "bridge"}]
    return Exchange("GET", "/nodes/pve1/network", there, {"type": "any_bridge"})


def configured(stored: dict[str, Any], vmid: int = 100) -> Exchange:
    return Exchange("GET", f"/nodes/pve1/qemu/{vmid}/config", stored, {})


def status(value: str, vmid: int = 100) -> Exchange:
    return Exchange("GET", f"/nodes/pve1/qemu/{vmid}/status/current", {"status": value}, {})


def nextid(vmid: int = 100) -> Exchange:
    # the server answers with text
    return Exchange("GET", "/cluster/nextid", str(vmid), {})


def post(answer: Any, **params: str) -> Exchange:
    return Exchange("POST", "/nodes/pve1/qemu", answer, params or None)


def starts(vmid: int = 100, *rows: dict[str, Any]) -> Exchange:
    params = {"vmid": str(vmid), "source": "all", "typefilter": "qmstart"}
    return Exchange(
        "GET", "/nodes/pve1/tasks", [{"upid": upid("qmstart", vmid), "starttime": 0x6B00CD14}, *rows], params
    )


def creations(vmid: int, *upids: str) -> Exchange:
    params = {"vmid": str(vmid), "source": "active", "typefilter": "qmcreate"}
    return Exchange("GET", "/nodes/pve1/tasks", [{"upid": one} for one in upids], params)


def act(kind: str, method: str, path: str, **params: str) -> list[Exchange]:
    """A request that starts a task, and the look at the task's end."""
    return [Exchange(method, f"/nodes/pve1/qemu/100{path}", upid(kind), params), done(kind)]


def play(exchanges: list[Exchange], *items: dict[str, Any], check: bool = False) -> dict[str, Any]:
    script = Script(list(exchanges))
    result = reconcile(VirtualMachines(script.client(), 600), desired_machines(items), check=check)
    script.finished()
    return result


def predicted(exchanges: list[Exchange], *items: dict[str, Any]) -> dict[str, Any]:
    """Play in check mode with the requests of the first reading; then for real. Both must say the same."""
    reading: list[Exchange] = []
    for exchange in exchanges:
        if exchange.method != "GET" or exchange.path == "/cluster/nextid":
            break
        reading.append(exchange)
    check, run = play(reading, *items, check=True), play(exchanges, *items)
    assert check["diff"] == run["diff"]
    assert check["changed"] == run["changed"]
    told = ("name", "action", "changed")
    assert [[item[key] for key in told] for item in check["results"]] == [
        [item[key] for key in told] for item in run["results"]
    ]
    return run


WEB = {"name": "web", "node": "pve1", "cores": 1, "memory": 512, "disk": DISK, "networks": [{"bridge": "vmbr0"}]}


def test_creation_is_one_request_that_says_everything() -> None:
    exchanges = [
        resources(),
        rights(),
        *lookups(),
        nextid(),
        post(
            upid("qmcreate"),
            vmid="100",
            name="web",
            cores="1",
            memory="512",
            tags=TAGS,
            ostype="l26",
            scsihw="virtio-scsi-single",
            scsi0="local:0,import-from=local:import/base.qcow2,discard=on",
            ide2="local:cloudinit",
            boot="order=scsi0",
            serial0="socket",
            ciupgrade="0",
            net0="virtio,bridge=vmbr0",
            ciuser="ops",
            sshkeys="ssh-ed25519%20AAAA%2B%20ops%40lab",
            ipconfig0="ip=10.98.0.90/24,gw=10.98.0.1",
            nameserver="10.98.0.1",
            searchdomain="lab.test",
            agent="enabled=1",
            onboot="1",
            pool="op1",
            description="managed",
            start="1",
        ),
        done("qmcreate"),
        starts(100, {"upid": upid("qmstart", 1), "starttime": 1}),
        done("qmstart"),
    ]
    cloud_init = {
        "user": "ops",
        "ssh_keys": ["ssh-ed25519 AAAA+ ops@lab"],
        "addresses": ["10.98.0.90/24"],
        "gateway": "10.98.0.1",
        "nameservers": ["10.98.0.1"],
        "search_domains": ["lab.test"],
    }
    item = {**WEB, "cloud_init": cloud_init, "agent": True, "onboot": True, "pool": "op1", "description": "managed"}
    result = predicted(exchanges, item)
    assert result["results"] == [
        {
            "name": "web",
            "action": "create",
            "changed": True,
            "failed": False,
            "msg": "",
            "vmid": 100,
            "node": "pve1",
            "incarnation": "",
            "address": "10.98.0.90",
            "status": "started",
            "template": False,
            "pending": [],
            "reboot_required": False,
            "snapshots": [],
        }
    ]


def test_a_disk_larger_than_the_image_grows_before_the_first_start() -> None:
    exchanges = [
        resources(),
        rights(),
        *lookups(),
        nextid(),
        post(upid("qmcreate")),
        done("qmcreate"),
        *act("resize", "PUT", "/resize", disk="scsi0", size="20G"),
        *act("qmstart", "POST", "/status/start"),
    ]
    assert predicted(exchanges, {**WEB, "disk": {**DISK, "size": 20}})["changed"]


def test_a_missing_machine_that_shall_be_stopped_is_created_and_not_started() -> None:
    exchanges = [
        resources(),
        rights(),
        *lookups(),
        nextid(),
        post(upid("qmcreate")),
        done("qmcreate"),
    ]
    assert predicted(exchanges, {**WEB, "power": "stopped"})["results"][0]["status"] == "stopped"


def test_nothing_to_do_takes_two_requests() -> None:
    result = play([resources(ROW), pending(STORED)], WEB)
    assert (result["changed"], result["results"][0]["action"]) == (False, "unchanged")


def test_an_update_sends_what_differs_and_the_digest() -> None:
    exchanges = [
        resources(ROW),
        pending({**STORED, "nameserver": "10.0.0.1"}),
        status("running"),
        Exchange(
            "PUT",
            "/nodes/pve1/qemu/100/config",
            None,
            {"memory": "1024", "delete": "nameserver", "digest": STORED["digest"]},
        ),
        Exchange(
            "GET",
            "/nodes/pve1/qemu/100/pending",
            [
                *({"key": key, "value": value} for key, value in STORED.items() if key != "memory"),
                {"key": "memory", "value": "512", "pending": "1024"},
            ],
        ),
    ]
    result = predicted(exchanges, {**WEB, "memory": 1024, "cloud_init": {"nameservers": []}})
    assert result["diff"] == {
        "before": {"web": {"memory": 512, "nameservers": ["10.0.0.1"]}},
        "after": {"web": {"memory": 1024, "nameservers": []}},
    }
    outputs = result["results"][0]
    assert (outputs["pending"], outputs["reboot_required"], outputs["status"]) == (["memory"], True, "started")


def test_a_network_changes_by_a_task_and_keeps_its_address() -> None:
    exchanges = [
        resources(ROW),
        pending(STORED),
        status("running"),
        bridges(),
        *act(
            "qmconfig",
            "POST",
            "/config",
            net0="virtio=BC:24:11:B3:51:9A,bridge=vmbr1,tag=7",
            digest=STORED["digest"],
        ),
        pending({**STORED, "net0": "virtio=BC:24:11:B3:51:9A,bridge=vmbr1,tag=7"}),
    ]
    assert predicted(exchanges, {**WEB, "networks": [{"bridge": "vmbr1", "tag": 7}]})["changed"]


@pytest.mark.parametrize(
    "end",
    [
        [
            done(
                "qmconfig",
                exit_status="Parameter verification failed.  (400) net0: hotplug problem - still busy in guest?",
            ),
            Exchange("GET", f"{task_path('qmconfig')}/log", [{"n": 1, "t": "TASK ERROR: x"}]),
        ],
        [],
    ],
)
def test_a_failed_hot_plug_is_no_failure_but_pending(end: list[Exchange]) -> None:
    text = {"memory": "hotplug problem - 400 parameter verification failed"}
    items: dict[str, Any] = {**WEB, "networks": [{"bridge": "vmbr1"}]} if end else {**WEB, "memory": 1024}
    change = (
        [Exchange("POST", "/nodes/pve1/qemu/100/config", upid("qmconfig")), *end]
        if end
        else [Exchange("PUT", "/nodes/pve1/qemu/100/config", failed("Parameter verification failed.", 400, text))]
    )
    key, value = ("net0", "virtio=BC:24:11:B3:51:9A,bridge=vmbr1") if end else ("memory", "1024")
    waiting = [
        {"key": name, "value": stored, **({"pending": value} if name == key else {})} for name, stored in STORED.items()
    ]
    after = Exchange("GET", "/nodes/pve1/qemu/100/pending", waiting)
    looked = [status("running"), *([bridges()] if end else [])]
    result = play([resources(ROW), pending(STORED), *looked, *change, after], items)
    assert (result["failed"], result["results"][0]["pending"]) == (False, [key])


def test_a_shutdown_becomes_a_stop_by_itself() -> None:
    exchanges = [
        resources(ROW),
        status("running"),
        pending(STORED),
        *act("qmshutdown", "POST", "/status/shutdown", timeout="60", forceStop="1"),
        pending(STORED),
    ]
    assert play(exchanges[:3], {**WEB, "power": "stopped"}, check=True)["changed"]
    assert play(exchanges, {**WEB, "power": "stopped"})["results"][0]["status"] == "stopped"


def test_a_late_status_is_no_change() -> None:
    result = play([resources({**ROW, "status": "stopped"}), status("running"), pending(STORED)], WEB)
    assert result["changed"] is False


def test_somebody_else_started_it_first() -> None:
    text = "VM 100 already running"
    exchanges = [
        resources({**ROW, "status": "stopped"}),
        status("stopped"),
        pending(STORED),
        Exchange("POST", "/nodes/pve1/qemu/100/status/start", upid("qmstart")),
        done("qmstart", exit_status=text),
        Exchange("GET", f"{task_path('qmstart')}/log", [{"n": 1, "t": f"TASK ERROR: {text}"}]),
        pending(STORED),
    ]
    assert play(exchanges, WEB)["failed"] is False


def test_deletion_takes_disks_and_jobs_along() -> None:
    exchanges = [
        resources(ROW),
        pending(STORED),
        configured(STORED),
        *act("qmstop", "POST", "/status/stop"),
        *act("qmdestroy", "DELETE", "", **{"purge": "1", "destroy-unreferenced-disks": "1"}),
    ]
    assert play(exchanges[:2], {"name": "web", "state": "absent"}, check=True)["changed"]
    result = play(exchanges, {"name": "web", "state": "absent"})
    assert result["results"] == [{"name": "web", "action": "delete", "changed": True, "failed": False, "msg": ""}]
    assert play([resources(), rights()], {"name": "web", "state": "absent"})["changed"] is False


def test_the_pool_is_changed_only_when_it_can_be_seen() -> None:
    item = {**WEB, "pool": "op1"}
    move = Exchange("PUT", "/pools", None, {"poolid": "op1", "vms": "100", "allow-move": "1"})
    pool = Exchange("GET", "/pools", [{"poolid": "op1"}], {"poolid": "op1"})
    moved = [resources(ROW), rights(), pending(STORED), status("running"), pool]
    assert play(moved, item, check=True)["changed"]
    assert play([*moved, move, pending(STORED)], item)["changed"]
    blind = {"/pool/op1": {"VM.Audit": 1}}
    assert play([resources(ROW), rights(blind), pending(STORED)], item)["changed"] is False


# refusals: nothing is written


def refusal(exchanges: list[Exchange], item: dict[str, Any]) -> str:
    result = play(exchanges, item)
    assert (result["failed"], result["changed"], result["results"][0]["action"]) == (True, False, "refused")
    return str(result["results"][0]["msg"])


@pytest.mark.parametrize(
    "row", [{**FOREIGN, "vmid": 200}, {**ROW, "vmid": 200, "tags": ""}, {"type": "lxc", "vmid": 200}]
)
def test_a_vmid_of_somebody_else_is_refused(row: dict[str, Any]) -> None:
    message = refusal([resources(row)], {**WEB, "vmid": 200})
    assert message.startswith("VM web, vmid: VMID 200 belongs to a guest")
    assert "not ours" in message


def test_a_vmid_cannot_change() -> None:
    assert "VM web, vmid: the machine is VM 100" in refusal([resources(ROW)], {**WEB, "vmid": 200})


def test_the_same_name_without_our_tag_is_not_ours() -> None:
    namesake = {**ROW, "tags": "fediversity"}
    result = play([resources(namesake), rights(), *lookups()], WEB, check=True)
    assert result["results"][0]["action"] == "create"


def test_two_vms_with_the_tag_are_refused() -> None:
    # one of them could be a clone of the other that was not finished
    exchanges = [resources(ROW, {**ROW, "vmid": 105}), configured(STORED), configured(STORED, 105)]
    message = refusal(exchanges, WEB)
    assert message == (
        "VM web: the VMs 100, 105 all carry the tag fediversity-machine-web. "
        "Remove the tag from those that are not this machine"
    )


def test_a_template_is_never_taken_for_a_machine() -> None:
    stored = {**STORED, "template": 1}
    message = refusal([resources({**ROW, "template": 1, "status": "stopped"}), status("stopped"), pending(stored)], WEB)
    assert "guest 100, which is a template" in message
    by_row = refusal([resources({**ROW, "template": 1})], {"name": "web"})
    assert "guest 100 is a template. Say template: true" in by_row


@pytest.mark.parametrize("granted", [{}, {"/pool/other": {"VM.Audit": 1}}, {"/": {"VM.Allocate": 1}}])
@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_token_that_sees_nothing_neither_creates_nor_reports_absence(granted: dict[str, Any], state: str) -> None:
    message = refusal(
        [Exchange("GET", "/cluster/resources", []), rights(granted)], {**WEB, "state": state, "pool": "op1"}
    )
    assert "fediversity@pve!lab lacks VM.Audit" in message


@pytest.mark.parametrize("path", ["/vms", "/pool", "/pool/op1", "/pool/op1/sub", "/"])
def test_a_right_on_the_way_to_the_pool_is_enough(path: str) -> None:
    result = play([resources(), rights({path: {"VM.Audit": 1}}), *lookups()], {**WEB, "pool": "op1/sub"}, check=True)
    assert result["failed"] is False


def test_one_bad_machine_does_not_stop_the_others() -> None:
    offline = {**ROW, "vmid": 105, "node": "pve2", "tags": "fediversity;fediversity-machine-gone"}
    away = Exchange("GET", "/nodes/pve2/qemu/105/pending", failed("No route to host", 595))
    exchanges = [resources(ROW, offline), pending(STORED), *[away] * 5]
    result = play(exchanges, WEB, {"name": "gone", "cores": 2}, {"name": "Bad name"})
    assert [(item["name"], item["action"]) for item in result["results"]] == [
        ("Bad name", "refused"),
        ("gone", "refused"),
        ("web", "unchanged"),
    ]
    assert "595 No route to host" in result["results"][1]["msg"]


# faults


def test_the_loser_of_a_vmid_takes_the_next() -> None:
    taken = failed("unable to create VM 100 - VM 100 already exists on node 'pve1'")
    exchanges = [
        resources(),
        rights(),
        *lookups(),
        nextid(100),
        post(taken),
        resources({**NEW_ROW, "tags": "other", "name": "other"}),
        nextid(101),
        post(upid("qmcreate", 101)),
        done("qmcreate", 101),
        starts(101),
        done("qmstart", 101),
    ]
    assert play(exchanges, WEB)["results"][0]["vmid"] == 101


def test_the_loser_of_a_vmid_to_another_run_takes_its_machine() -> None:
    taken = failed("unable to create VM 100 - VM 100 already exists on node 'pve1'")
    exchanges = [
        resources(),
        rights(),
        *lookups(),
        nextid(100),
        post(taken),
        # the other run's creation is under way: no tags yet
        resources(NEW),
        creations(100, upid("qmcreate")),
        done("qmcreate"),
        resources(NEW_ROW),
        resources(NEW_ROW),
        status("running"),
        pending(STORED),
    ]
    result = play(exchanges, WEB)["results"][0]
    assert (result["vmid"], result["failed"]) == (100, False)


def test_a_machine_that_another_run_made_since_the_reading_is_not_made_twice() -> None:
    exchanges = [
        resources(),
        rights(),
        *lookups(),
        # not the lowest id that is free by the list: somebody was here since
        nextid(101),
        resources(NEW_ROW),
        resources(NEW_ROW),
        status("running"),
        pending(STORED),
    ]
    result = play(exchanges, WEB)["results"][0]
    assert (result["vmid"], result["failed"]) == (100, False)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"vmgenid": "6499ede6", "smbios1": "uuid=e75539a5"}, "6499ede6"),
        ({"vmgenid": "0", "smbios1": "base64=1,uuid=e75539a5"}, "e75539a5"),
        ({}, ""),
    ],
)
def test_the_incarnation_tells_one_life_of_a_vm_from_the_next(stored: dict[str, Any], expected: str) -> None:
    result = play([resources(ROW), pending({**STORED, **stored})], WEB)
    assert result["results"][0]["incarnation"] == expected


def test_a_wanted_vmid_that_is_taken_invisibly_is_an_error() -> None:
    text = "unable to create VM 200 - VM 200 already exists on node 'pve2'"
    result = play([resources(), rights(), *lookups(), post(failed(text)), resources()], {**WEB, "vmid": 200})
    assert text in result["results"][0]["msg"]


NEW = {"id": "qemu/100", "type": "qemu", "vmid": 100, "node": "pve1", "status": "unknown", "lock": "create"}


@pytest.mark.parametrize("fault", [CUT, failed("Connection timed out", 596)])
def test_a_creation_whose_answer_is_lost_is_found_again(fault: Any) -> None:
    exchanges = [
        resources(),
        rights(),
        *lookups(),
        nextid(),
        post(fault),
        # while the task runs, the VM has a lock and no tags
        resources(NEW),
        creations(100, upid("qmcreate")),
        done("qmcreate"),
        resources(NEW_ROW),
        status("stopped"),
        pending(STORED),
        *act("qmstart", "POST", "/status/start"),
        pending(STORED),
    ]
    result = play(exchanges, WEB)
    assert (result["failed"], result["results"][0]["action"]) == (False, "create")


def test_a_lost_creation_that_never_arrived_is_sent_again_with_its_id() -> None:
    exchanges = [
        resources(),
        rights(),
        *lookups(),
        nextid(100),
        post(CUT),
        resources(),
        *lookups(),
        # no new id: if the first request is only late, one of the two loses
        post(upid("qmcreate")),
        done("qmcreate"),
        starts(),
        done("qmstart"),
    ]
    assert play(exchanges, WEB)["failed"] is False


def test_a_lost_creation_that_arrives_late_is_found() -> None:
    exchanges = [
        resources(),
        rights(),
        *lookups(),
        nextid(100),
        post(CUT),
        resources(),
        *lookups(),
        post(failed("unable to create VM 100 - VM 100 already exists on node 'pve1'")),
        resources(NEW),
        creations(100, upid("qmcreate")),
        done("qmcreate"),
        resources(NEW_ROW),
        status("running"),
        pending(STORED),
    ]
    assert play(exchanges, WEB)["results"][0]["vmid"] == 100


def test_a_creation_left_by_a_killed_run_is_waited_for() -> None:
    exchanges = [
        resources(NEW),
        creations(100, upid("qmcreate")),
        done("qmcreate"),
        resources(NEW_ROW),
        status("running"),
        pending(STORED),
    ]
    assert play(exchanges, WEB)["results"][0]["action"] == "unchanged"


def test_a_lock_whose_task_is_gone_stops_nobody() -> None:
    exchanges = [*[resources(NEW), creations(100)] * 4, rights(), *lookups()]
    result = play(exchanges, WEB, check=True)
    assert result["results"][0]["action"] == "create"


def test_a_configuration_changed_by_somebody_else_is_read_again() -> None:
    path = "/nodes/pve1/qemu/100/config"
    exchanges = [
        resources(ROW),
        pending(STORED),
        status("running"),
        Exchange("PUT", path, failed("checksum mismatch (file change by other user?)")),
        resources(ROW),
        pending({**STORED, "digest": "b" * 40}),
        status("running"),
        Exchange("PUT", path, None, {"memory": "1024", "digest": "b" * 40}),
        pending({**STORED, "memory": "1024"}),
    ]
    assert play(exchanges, {**WEB, "memory": 1024})["failed"] is False


def test_unchanged_machines_are_not_read_back() -> None:
    other = {**ROW, "vmid": 101, "tags": "fediversity;fediversity-machine-other"}
    stored_other = {**STORED, "name": "other", "tags": other["tags"]}
    exchanges = [
        resources(ROW, other),
        pending(STORED),
        status("running"),
        pending(stored_other, 101),
        Exchange("PUT", "/nodes/pve1/qemu/100/config", None),
        pending({**STORED, "memory": "1024"}),
    ]
    result = play(exchanges, {**WEB, "memory": 1024}, {"name": "other", "memory": 512})
    assert [item["action"] for item in result["results"]] == ["unchanged", "update"]


# clones

TEMPLATE = {"type": "qemu", "vmid": 9001, "node": "pve1", "tags": "", "status": "stopped", "template": 1}
SOURCE = {
    "name": "base",
    "template": 1,
    "memory": "512",
    "description": "a base",
    "scsi0": "local:9001/base-9001-disk-0.qcow2,size=1600M",
    "ide2": "local:9001/vm-9001-cloudinit.qcow2,media=cdrom",
    "net0": "virtio=BC:24:11:B3:51:9A,bridge=vmbr0",
    "boot": "order=scsi0",
    "digest": "c" * 40,
}
MARKED = "fediversity: unfinished clone for machine web\na base"
COPY = {"name": "web", "vmid": 100, "clone": {"vmid": 9001}, "disk": {"size": 20}, "memory": 1024}
CLONE = Exchange(
    "POST",
    "/nodes/pve1/qemu/9001/clone",
    upid("qmclone", 9001),
    {"newid": "100", "name": "web", "description": MARKED},
)
FINISHED = {"name": "web", "memory": "1024", "tags": TAGS, "digest": "d" * 40, "scsi0": "local:100/disk.qcow2,size=20G"}
HALF_MADE = {**TEMPLATE, "vmid": 100, "template": 0, "status": "unknown"}


def finishing(**values: str) -> list[Exchange]:
    sent = {"memory": "1024", "tags": TAGS, "description": "a base", **values}
    return [
        Exchange("PUT", "/nodes/pve1/qemu/100/config", None, sent),
        *act("resize", "PUT", "/resize", disk="scsi0", size="20G"),
        *act("qmstart", "POST", "/status/start"),
    ]


def test_a_clone_is_six_requests_and_one_for_the_rights() -> None:
    exchanges = [resources(TEMPLATE), rights(), pending(SOURCE, 9001), CLONE, done("qmclone", 9001), *finishing()]
    result = predicted(exchanges, COPY)
    assert (result["results"][0]["action"], result["results"][0]["status"]) == ("create", "started")


def test_a_clone_of_a_killed_run_is_known_by_its_description() -> None:
    half_made = {**SOURCE, "name": "web", "template": 0, "description": MARKED}
    exchanges = [
        resources(TEMPLATE, HALF_MADE),
        configured(half_made),
        status("stopped"),
        pending(half_made),
        *finishing(digest="c" * 40),
        pending(FINISHED),
    ]
    assert predicted(exchanges, COPY)["results"][0]["action"] == "update"


def test_a_clone_of_a_killed_run_without_vmid_is_looked_for_by_name() -> None:
    half_made = {**SOURCE, "name": "web", "template": 0, "description": MARKED}
    names = [{"vmid": 100, "name": "web"}, {"vmid": 101, "name": "other"}, {"vmid": 9001, "name": "base"}]
    exchanges = [
        resources(TEMPLATE, HALF_MADE, {**HALF_MADE, "vmid": 101}),
        Exchange("GET", "/nodes/pve1/qemu", names, {}),
        configured(half_made),
        status("stopped"),
        pending(half_made),
        *finishing(digest="c" * 40),
        pending(FINISHED),
    ]
    assert play(exchanges, {**COPY, "vmid": None})["results"][0]["vmid"] == 100


def test_a_foreign_machine_like_the_clone_is_not_touched() -> None:
    foreign = {**SOURCE, "name": "web", "template": 0}
    message = refusal([resources(TEMPLATE, HALF_MADE), configured(foreign)], COPY)
    assert "VMID 100 belongs to a guest on node pve1 that is not ours" in message


def test_the_loser_of_a_clone_takes_the_next_id() -> None:
    text = "unable to create VM 100: config file already exists"
    exchanges = [
        resources(TEMPLATE),
        rights(),
        pending(SOURCE, 9001),
        nextid(100),
        CLONE,
        done("qmclone", 9001, exit_status=text),
        Exchange("GET", f"{task_path('qmclone', 9001)}/log", [{"n": 1, "t": f"TASK ERROR: {text}"}]),
        resources(TEMPLATE, {**ROW, "tags": "x"}),
        pending(SOURCE, 9001),
        nextid(101),
        Exchange("POST", "/nodes/pve1/qemu/9001/clone", upid("qmclone", 9001)),
        done("qmclone", 9001),
        Exchange("PUT", "/nodes/pve1/qemu/101/config", None),
    ]
    item = {"name": "web", "clone": {"vmid": 9001}, "power": "stopped"}
    assert play(exchanges, item)["results"][0]["vmid"] == 101
