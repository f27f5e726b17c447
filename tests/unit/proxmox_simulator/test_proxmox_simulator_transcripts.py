# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The replayer itself: what it takes for equal, what for different (lab.transcripts)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from lab.transcripts import qcow2
from lab.transcripts.accounts import NOBODY, Accounts
from lab.transcripts.compare import Comparison, Pairs, volatile_keys
from lab.transcripts.conversation import Conversation, Servers
from lab.transcripts.history import late_setup, without_strangers
from lab.transcripts.wire import EntryPoint, fields
from proxmox_harness import PASSWORD, SECRET, Simulator

UPID = "UPID:pve1:0000{:04X}:0000{:04X}:6B00C9CA:{}:{}:root@pam!lab:"
VOLATILE = volatile_keys({"volatile": ["starttime", "maxmem of nodes"]})
MEANINGS = {
    "none": "no credentials",
    "token": "root@pam!lab, privsep=0",
    "bad-token": "root@pam!lab with a wrong UUID",
    "malformed-token": "Authorization: PVEAPIToken=nonsense",
    "a-token, b-token": "token created inside the scenario (a@pve!t1, b@pve!t)",
}


def exchange(
    method: str, path: str, data: Any, *, status: int = 200, reason: str = "OK", **more: Any
) -> dict[str, Any]:
    request = {"method": method, "path": path, "auth": "token", "params": more.pop("params", {})}
    body = data if status == 200 and isinstance(data, str) and data == "" else {"data": data}
    return {"request": request, "response": {"status": status, "reason": reason, "body": body}, **more}


def found(recorded: Any, own: Any, path: str = "/x", note: str = "", pairs: Pairs | None = None) -> list[str]:
    comparison = Comparison(pairs or Pairs(), VOLATILE)
    one = exchange("GET", path, recorded, note=note)
    return comparison.differences(one, 200, "OK", {"data": own}, lambda upid: "qmold" in upid)


@pytest.mark.parametrize(
    ("recorded", "own", "path", "equal"),
    [
        ("512", "512", "/x", True),
        ("512", 512, "/x", False),
        ({"a": 1}, {"a": 1, "b": 2}, "/x", False),
        ({"starttime": 1}, {"starttime": 2}, "/x", True),
        ({"starttime": 1}, {}, "/x", False),
        ([{"id": "b"}, {"id": "a"}], [{"id": "a"}, {"id": "b"}], "/x", True),
        ([{"pos": 0}, {"pos": 1}], [{"pos": 1}, {"pos": 0}], "/x", False),
        (UPID.format(1, 1, "qmstart", 100), UPID.format(2, 2, "qmstart", 100), "/x", True),
        (UPID.format(1, 1, "qmstart", 100), UPID.format(2, 2, "qmstop", 100), "/x", False),
        ("virtio=BC:24:11:00:00:01,tag=2", "virtio=BC:24:11:AB:CD:EF,tag=2", "/x", True),
        ("virtio=BC:24:11:00:00:01,tag=2", "virtio=BC:24:11:AB:CD:EF,tag=3", "/x", False),
        ("<secret-of-x>", "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed", "/x", True),
        ("use <storage ID>:0", "use local:0", "/x", False),
        ("password: $5$abc$defg", "password: $5$xyz$hijk", "/x", True),
        ([{"n": 1, "t": "a"}, {"n": 2, "t": "TASK OK"}], [{"n": 1, "t": "TASK OK"}], "/nodes/a/tasks/u/log", True),
        ([{"n": 1, "t": "TASK OK"}], [{"n": 1, "t": "TASK ERROR: x"}], "/nodes/a/tasks/u/log", False),
        ({"status": "running"}, {"status": "stopped", "exitstatus": "x"}, "/nodes/a/tasks/u/status", True),
        ({"memory": {"free": 1}}, {"memory": {"free": 2}}, "/nodes/a/status", True),
        ({"memory": {"free": 1}}, {"memory": {}}, "/nodes/a/status", False),
    ],
)
def test_what_is_equal(recorded: Any, own: Any, path: str, equal: bool) -> None:
    assert bool(found(recorded, own, path)) != equal


def test_a_row_may_be_old_right_after_a_change_but_not_later() -> None:
    recorded = [{"id": "qemu/1", "type": "qemu", "vmid": 1, "name": "new", "tags": "a"}]
    own = [{"id": "qemu/1", "type": "qemu", "vmid": 1, "name": "old", "tags": "a"}]
    path = "/cluster/resources"
    assert not found(recorded, own, path, "immediately after rename")
    assert found(recorded, own, path, "15 s later")
    assert found(recorded, [{**own[0], "tags": "b"}], path, "immediately after rename")


def test_rows_of_earlier_tasks_do_not_count() -> None:
    upid, old = UPID.format(1, 1, "qmstart", 100), UPID.format(2, 2, "qmold", 100)
    path = "/nodes/pve1/tasks"
    assert not found([{"upid": upid}], [{"upid": UPID.format(7, 7, "qmstart", 100)}, {"upid": old}], path)
    assert found([{"upid": upid}], [{"upid": old}], path)


def test_what_a_server_makes_up_stays_the_same() -> None:
    pairs = Pairs()
    recorded = ["a" * 40, "b" * 40]
    assert not found(recorded[0], "c" * 40, pairs=pairs)
    assert not found(recorded[0], "c" * 40, pairs=pairs)
    assert found(recorded[0], "d" * 40, pairs=pairs)
    assert pairs.own({"digest": recorded[0], "x": recorded[1]}) == {"digest": "c" * 40, "x": recorded[1]}
    upid = UPID.format(1, 1, "qmstart", 100)
    pairs.add(upid, UPID.format(9, 9, "qmstart", 100))
    assert pairs.own("/tasks/" + upid.replace(":", "%3A").replace("@", "%40").replace("!", "%21")) == (
        "/tasks/UPID%3Apve1%3A00000009%3A00000009%3A6B00C9CA%3Aqmstart%3A100%3Aroot%40pam%21lab%3A"
    )


def test_what_the_client_made_up_must_come_back() -> None:
    pairs = Pairs()
    pairs.given({"params": {"net0": "virtio=BC:24:11:00:00:01"}})
    assert found("virtio=BC:24:11:00:00:01", "virtio=BC:24:11:AB:CD:EF", pairs=pairs)


def test_form_fields_are_encoded_once() -> None:
    assert fields({"a": "x y+;&=%", "b": ["1", "2"], "c": True}) == "a=x%20y%2B%3B%26%3D%25&b=1&b=2&c=1"


def test_who_is_who() -> None:
    accounts = Accounts(
        EntryPoint("nowhere", 1, None), MEANINGS, "root@pam", "x", {"root@pam!lab": "s", "b@pve!t": "u"}
    )
    assert accounts.headers("none") == {}
    assert accounts.headers("token") == {"Authorization": "PVEAPIToken=root@pam!lab=s"}
    assert accounts.headers("bad-token") == {"Authorization": f"PVEAPIToken=root@pam!lab={NOBODY}"}
    assert accounts.headers("malformed-token") == {"Authorization": "PVEAPIToken=nonsense"}
    assert accounts.headers("b-token") == {"Authorization": "PVEAPIToken=b@pve!t=u"}
    accounts.remember({"full-tokenid": "a@pve!t1", "value": "v", "info": {}})
    assert accounts.headers("a-token") == {"Authorization": "PVEAPIToken=a@pve!t1=v"}


@pytest.mark.parametrize("size", [196616, 197001216, 1 << 20, 100 << 20 | 12345])
def test_images_have_the_wanted_sizes_and_tables(size: int, tmp_path: Path) -> None:
    qcow2.make(tmp_path / "x", virtual_size=1600 << 20, file_size=size)
    content = (tmp_path / "x").open("rb")
    with content:
        header = content.read(104)
        magic, version, virtual = struct.unpack(">4sI16xQ", header[:32])
        entries, table = struct.unpack(">IQ", header[36:48])
        assert (magic, version, virtual, entries) == (b"QFI\xfb", 3, 1600 << 20, 4)
        content.seek(table)
        tables = [entry & ~(1 << 63) for entry in struct.unpack(">4Q", content.read(32))]
        assert all(entry < size for entry in tables)
    assert max(size, table + 32) == (tmp_path / "x").stat().st_size


def test_order_that_only_the_upids_tell() -> None:
    """A stop in the setup whose task is younger than the first exchange's; a row of an older task."""
    shutdown, stop = UPID.format(1, 50, "qmshutdown", 100), UPID.format(2, 60, "qmstop", 100)
    stranger = UPID.format(3, 40, "imgdel", "local")
    scenario = {
        "setup": [{"method": "POST", "path": "/nodes/pve1/qemu/100/status/stop", "params": {}}],
        "exchanges": [
            exchange("POST", "/nodes/pve1/qemu/100/status/shutdown", shutdown),
            exchange("GET", "/nodes/pve1/tasks", [{"upid": stop}, {"upid": shutdown}, {"upid": stranger}]),
        ],
    }
    assert late_setup(scenario) == {0: 1}
    rows = without_strangers(scenario)["exchanges"][1]["response"]["body"]["data"]
    assert [row["upid"] for row in rows] == [stop, shutdown]


def test_a_conversation_with_a_race(simulator: Simulator) -> None:
    """By hand: other names than the recording's, a group that is sent at once, an `until`, a value that is bound."""
    made, taken = UPID.format(1, 9, "qmcreate", 777), "unable to create VM 777 - VM 777 already exists on node 'pve2'"
    lost = exchange("POST", "/nodes/pve2/qemu", None, status=500, reason=taken, params={"vmid": "777", "name": "two"})
    lost["response"]["body"]["message"] = f"{taken}\n"
    won = exchange("POST", "/nodes/pve2/qemu", made.replace("pve1", "pve2"), params={"vmid": "777", "name": "one"})
    upid = made.replace("pve1", "pve2").replace(":", "%3A").replace("@", "%40").replace("!", "%21")
    ended = {
        **{"status": "stopped", "exitstatus": "OK", "type": "qmcreate", "id": "777", "node": "pve2"},
        **{"user": "root@pam", "tokenid": "lab", "upid": made.replace("pve1", "pve2")},
        **{"pid": 1, "pstart": 9, "starttime": 1},
    }
    scenario = {
        "name": "race",
        "setup": [{"method": "POST", "path": "/pools", "auth": "token", "params": {"poolid": "x"}}],
        "exchanges": [
            {**won, "parallel_group": 1},
            {**lost, "parallel_group": 1},
            exchange("GET", f"/nodes/pve2/tasks/{upid}/status", ended, repeat={"until": {"/data/status": "stopped"}}),
            exchange("GET", "/cluster/nextid", "100"),
            exchange("GET", "/cluster/nextid", "wrong"),
        ],
    }
    here = EntryPoint("127.0.0.1", simulator.port, None)
    accounts = Accounts(here, MEANINGS, "root@pam", PASSWORD, {"root@pam!lab": SECRET})
    compared = list(Conversation(Servers(here, {}), accounts, {"volatile": ["digest"]}).scenario(scenario))
    assert sorted(one.number for one in compared) == [0, 1, 2, 3, 4]
    assert {one.number for one in compared if one.differences} == {4}
