# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors by the server's recorded texts, the retry list, task waiting, and the connection itself."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    Exists,
    HostingError,
    InvalidInput,
    Locked,
    NotFound,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import (
    RETRY_DELAYS,
    Connection,
    Invalid,
    LostAnswer,
    Outdated,
    Transient,
    connect,
    encode,
    error_of_text,
)
from proxmox_script import Exchange, Script, done, failed, task_path, upid
from proxmox_tls import answer_bytes, connection, tls_server

CUT = LostAnswer("the connection broke", where="pve1")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist", NotFound),
        ("unable to find configuration file for VM 999 on node 'pve1'", NotFound),
        ("hostname lookup 'nonode' failed - failed to get address info for: nonode: x", NotFound),
        ("no such cluster node 'pve9'", NotFound),
        ("storage 'nostore' does not exist", NotFound),
        ("unable to create VM 100 - VM 100 already exists on node 'pve1'", Exists),
        ("unable to create VM 100: config file already exists", Exists),
        ("close (rename) atomic file '/etc/pve/nodes/pve1/qemu-server/200.conf' failed: File exists", Exists),
        ("unable to create VM 341 - can't lock file '/var/lock/qemu-server/lock-341.conf' - got timeout", Exists),
        ("can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout", Transient),
        ("cfs-lock 'storage-local' error: got lock request timeout", Transient),
        ("got no worker upid - start worker failed", Transient),
        ("checksum mismatch (file change by other user?)", Outdated),
        ("VM is locked (backup)", Locked),
        ("can't remove VM 335 - protection mode enabled", Denied),
        ("Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 651.", Denied),
        ("cluster not ready - no quorum?", BackendError),
        ("shrinking disks is not supported", BackendError),
        ("VM quit/powerdown failed - got timeout", BackendError),
        ("", BackendError),
    ],
)
def test_text_gives_the_class(text: str, error: type[HostingError]) -> None:
    assert error_of_text(text).__class__ is error


def test_refused_parameters_are_named() -> None:
    errors = {"cores": "value must have a minimum value of 1", "net0": "invalid format - format error\nnet0.tag: x\n"}
    script = Script([Exchange("POST", "/nodes/pve1/qemu", failed("Parameter verification failed.", 400, errors))])
    with pytest.raises(
        Invalid, match=r"cores: value must .*; net0: invalid format - format error net0.tag: x"
    ) as caught:
        script.client().post("/nodes/pve1/qemu", cores=0)
    assert caught.value.parameters == errors


def test_unknown_task_is_not_found() -> None:
    answer = failed("Parameter verification failed.", 400, {"upid": "no such task"})
    with pytest.raises(NotFound):
        Script([Exchange("GET", "/x", answer)]).client().get("/x")


def test_refused_credentials_name_the_token_and_what_to_do() -> None:
    with pytest.raises(Denied) as caught:
        Script([Exchange("GET", "/x", failed("Authentication failed!", 401))]).client().get("/x")
    assert str(caught.value) == (
        "pve1:8006 GET /x: the server refuses fediversity@pve!lab (Authentication failed!). Check api_user, "
        "api_token_id, api_token_secret or api_password, and that the token has not expired"
    )


def test_missing_privilege_is_denied() -> None:
    reason = "Permission check failed (/vms/100, VM.Audit)"
    with pytest.raises(Denied, match=r"fediversity@pve!lab: Permission check failed \(/vms/100, VM.Audit\)"):
        Script([Exchange("GET", "/x", failed(reason, 403))]).client().get("/x")


@pytest.mark.parametrize(
    "fault",
    [failed("got no worker upid - start worker failed"), failed("can't lock file 'x' - got timeout")],
)
def test_a_refusal_of_the_moment_is_tried_again(fault: Any) -> None:
    script = Script([Exchange("PUT", "/x", fault), Exchange("PUT", "/x", fault), Exchange("PUT", "/x", "data")])
    assert script.client().put("/x") == "data"
    assert script.slept == list(RETRY_DELAYS[:2])
    script.finished()


@pytest.mark.parametrize("fault", [failed("Connection timed out", 596), failed("Connection refused", 595), CUT])
def test_a_get_without_answer_is_tried_again_and_nothing_else(fault: Any) -> None:
    script = Script([Exchange("GET", "/x", fault), Exchange("GET", "/x", "data")])
    assert script.client().get("/x") == "data"
    for method in ("POST", "PUT", "DELETE"):
        with pytest.raises(LostAnswer):
            Script([Exchange(method, "/x", fault)]).client().request(method, "/x", {})


def test_tries_are_bounded() -> None:
    script = Script([Exchange("GET", "/x", failed("Connection timed out", 596))] * (len(RETRY_DELAYS) + 1))
    with pytest.raises(LostAnswer, match=r"no answer from the node .*\(596 Connection timed out\)"):
        script.client().get("/x")
    script.finished()


@pytest.mark.parametrize(
    "answer",
    [
        failed("VM is locked (backup)"),
        failed("checksum mismatch"),
        failed("storage 'x' does not exist"),
        failed("", 401),
    ],
)
def test_other_errors_are_not_tried_again(answer: Any) -> None:
    script = Script([Exchange("PUT", "/x", answer)])
    with pytest.raises(HostingError):
        script.client().put("/x")
    assert script.slept == []


def test_booleans_are_digits_and_none_is_left_out() -> None:
    assert encode({"a": True, "b": False, "c": None, "d": 7, "e": "x"}) == {"a": "1", "b": "0", "d": "7", "e": "x"}


def test_task_is_polled_less_and_less_often() -> None:
    running = Exchange("GET", f"{task_path('qmcreate')}/status", {"status": "running"}, {})
    script = Script([running] * 8 + [done("qmcreate", exit_status="WARNINGS: 1")])
    tasks.wait(script.client(), upid("qmcreate"), budget=600)
    assert script.slept[0] == 0.2
    assert script.slept[-1] == 2.0
    assert script.slept == sorted(script.slept)


def test_failed_task_tells_exit_status_and_last_lines() -> None:
    # recorded: import of an image that does not exist
    status = "unable to create VM 101 - failed to stat '/var/lib/vz/import/none.qcow2'"
    log = [
        {"n": 1, "t": "create full clone of drive (local:import/none.qcow2)"},
        {"n": 2, "t": f"TASK ERROR: {status}"},
    ]
    script = Script(
        [
            done("qmcreate", exit_status=status),
            Exchange("GET", f"{task_path('qmcreate')}/log", log, {"limit": "0"}),
        ]
    )
    with pytest.raises(BackendError) as caught:
        tasks.wait(script.client(), upid("qmcreate"), budget=600)
    assert str(caught.value) == (
        f"pve1:8006: the task qmcreate failed: {status} (log: create full clone of drive (local:import/none.qcow2))"
    )
    script.finished()


def test_task_beyond_its_budget() -> None:
    script = Script([Exchange("GET", f"{task_path('qmcreate')}/status", {"status": "running"})] * 50)
    with pytest.raises(Locked, match="still runs after 5 s"):
        tasks.wait(script.client(), upid("qmcreate"), budget=5)
    assert sum(script.slept) < 8


@pytest.mark.parametrize("answer", [None, "", "nonsense", "UPID:../x:00000F5D:000958E5:6B00CD13:a:1:u:", 7])
def test_an_answer_that_is_no_upid(answer: Any) -> None:
    with pytest.raises(BackendError, match="where the id of a task was expected"):
        tasks.wait(Script([]).client(), answer, budget=5)


@pytest.mark.parametrize(
    ("fields", "option"),
    [
        ({"user": "fediversity"}, "api_user"),
        ({"user": "fediversity@pve!lab"}, "api_user"),
        ({"token_id": "fediversity@pve!lab"}, "api_token_id"),
        ({"token_secret": "swordfish\n"}, "api_token_secret"),
        ({"token_secret": ""}, "api_token_secret"),
        ({"token_id": None, "token_secret": None, "password": ""}, "api_password"),
        ({"timeout": 5}, "api_timeout"),
        ({"ca_path": "/nonexistent/ca.pem"}, "ca_path"),
    ],
)
def test_options_that_cannot_work(fields: dict[str, Any], option: str) -> None:
    base: dict[str, Any] = {"host": "pve1", "user": "a@pve", "token_id": "t", "token_secret": "s"}
    with pytest.raises(InvalidInput, match=f"^{option}: ") as caught:
        connect(Connection(**{**base, **fields}))
    assert "swordfish" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(Connection("pve1", "a@pve", token_secret="hidden", password="hidden"))


def test_data_over_tls_with_our_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    with tls_server(tmp_path, answer_bytes("200 OK", b'{"data":[1]}')) as (port, authority):
        assert connect(connection(port, ca_path=str(authority))).get("/nodes") == [1]
        assert connect(connection(port, validate_certs=False)).get("/nodes") == [1]


def test_the_environment_cannot_make_a_certificate_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tls_server(tmp_path, answer_bytes("200 OK", b'{"data":[1]}')) as (port, authority):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
        with pytest.raises(Unreachable, match=r"certificate is not accepted .*ca_path"):
            connect(connection(port)).get("/nodes")


def test_reason_phrase_and_errors_arrive(tmp_path: Path) -> None:
    body = b'{"data":null,"message":"Parameter verification failed.\\n","errors":{"cores":"too few"}}'
    with (
        tls_server(tmp_path, answer_bytes("400 Parameter verification failed.", body)) as (port, authority),
        pytest.raises(Invalid, match="cores: too few"),
    ):
        connect(connection(port, ca_path=str(authority))).post("/nodes/pve1/qemu", cores=0)


def test_an_empty_answer_of_the_proxy_is_lost(tmp_path: Path) -> None:
    with (
        tls_server(tmp_path, answer_bytes("596 Connection timed out", b"")) as (port, authority),
        pytest.raises(LostAnswer),
    ):
        connect(connection(port, ca_path=str(authority))).post("/nodes/pve1/qemu")


def test_a_broken_connection_is_lost(tmp_path: Path) -> None:
    with tls_server(tmp_path, b"") as (port, authority), pytest.raises(LostAnswer, match="the connection broke"):
        connect(connection(port, ca_path=str(authority))).post("/nodes/pve1/qemu")


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable) as caught:
        connect(connection(port)).get("/nodes")
    text = str(caught.value)
    assert text.startswith(f"127.0.0.1:{port} GET /nodes: cannot connect (")
    assert "Check api_host and api_port" in text
    assert "0x" not in text
    assert "5ecre7" not in text


def test_refused_password(tmp_path: Path) -> None:
    with (
        tls_server(tmp_path, answer_bytes("401 authentication failure", b'{"data":null}')) as (port, authority),
        pytest.raises(Denied, match="refuses the login of a@pve"),
    ):
        connect(connection(port, ca_path=str(authority), token_id=None, token_secret=None, password="wrong"))
