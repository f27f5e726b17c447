# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several entry points, pinned certificates, login, and answers that are none of the API."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    Denied,
    HostingError,
    InvalidInput,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import endpoints
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Connection, LostAnswer, connect
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.endpoints import Endpoint, parse_endpoints
from conftest import Simulator
from proxmox_tls import Asked, answer_bytes, asked_server, closed_port, connection, data_bytes

PROXY_TIMEOUT = answer_bytes("596 Connection timed out", b"")


@pytest.fixture
def where(tmp_path: Path) -> tuple[Path, Path]:
    """Directories of two nodes."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "two"


def both(first: int, second: int, *servers: Asked, **fields: Any) -> Connection:
    """A connection that trusts *servers* by their fingerprints."""
    prints = tuple(fingerprint(server.authority) for server in servers)
    return connection(8006, host=f"127.0.0.1:{first}, 127.0.0.1:{second}", fingerprints=prints, **fields)


def fingerprint(certificate: Path) -> str:
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text(encoding="ascii"))
    digits = hashlib.sha256(der).hexdigest().upper()
    return ":".join(digits[start : start + 2] for start in range(0, 64, 2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pve1", [Endpoint("pve1", 8006)]),
        ("pve1:443, pve2.example.org,", [Endpoint("pve1", 443), Endpoint("pve2.example.org", 8006)]),
        ("https://pve1:8006/api2/json", [Endpoint("pve1", 8006)]),
        ("https://pve1/", [Endpoint("pve1", 8006)]),
        ("2001:db8::1,[2001:db8::2]:443", [Endpoint("2001:db8::1", 8006), Endpoint("2001:db8::2", 443)]),
        ("pve1,pve1:8006", [Endpoint("pve1", 8006)]),
    ],
)
def test_entry_points(text: str, expected: list[Endpoint]) -> None:
    assert list(parse_endpoints(text, 8006)) == expected


@pytest.mark.parametrize("text", ["", " , ", "pve1/x", "user@pve1", "pve1:99999", "http://pve1", "pve 1", "pve1:x"])
def test_what_is_no_entry_point(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^api_host: "):
        parse_endpoints(text, 8006)


def test_ipv6_addresses_are_written_in_brackets() -> None:
    assert str(Endpoint("2001:db8::1", 8006)) == "[2001:db8::1]:8006"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_node_that_is_down_is_left_for_good(where: tuple[Path, Path], method: str) -> None:
    dead = closed_port()
    with asked_server(where[1], rest=data_bytes([1])) as alive:
        client = connect(both(dead, alive.port, alive))
        assert client.request(method, "/x", {}) == [1]
        assert client.request(method, "/y", {}) == [1]
        assert alive.requests == [f"{method} /x", f"{method} /y"]


@pytest.mark.parametrize("answer", [PROXY_TIMEOUT, answer_bytes("595 Connection refused", b""), b""])
def test_a_read_without_answer_goes_to_the_next_node_and_stays(where: tuple[Path, Path], answer: bytes) -> None:
    with asked_server(where[0], rest=answer) as bad, asked_server(where[1], rest=data_bytes("good")) as good:
        client = connect(both(bad.port, good.port, bad, good))
        assert client.get("/x") == "good"
        assert client.get("/y") == "good"
        assert (bad.requests, good.requests) == (["GET /x"], ["GET /x", "GET /y"])


@pytest.mark.parametrize("answer", [PROXY_TIMEOUT, b""])
def test_a_write_that_was_sent_goes_nowhere_else(where: tuple[Path, Path], answer: bytes) -> None:
    with asked_server(where[0], rest=answer) as bad, asked_server(where[1], rest=data_bytes("good")) as good:
        client = connect(both(bad.port, good.port, bad, good))
        with pytest.raises(LostAnswer):
            client.post("/x")
        assert (bad.requests, good.requests) == (["POST /x"], [])


def test_a_write_goes_on_where_tls_cannot_begin(where: tuple[Path, Path]) -> None:
    with asked_server(where[0], rest=data_bytes("wrong")) as bad, asked_server(where[1], rest=data_bytes(1)) as good:
        client = connect(both(bad.port, good.port, good))
        assert client.post("/x") == 1
        assert bad.requests == []


def test_all_nodes_down() -> None:
    ports = closed_port(), closed_port()
    with pytest.raises(Unreachable, match="cannot connect"):
        connect(both(*ports)).get("/x")


def test_a_fingerprint_takes_the_place_of_an_authority(tmp_path: Path) -> None:
    with asked_server(tmp_path, rest=data_bytes("ours")) as server:
        good = fingerprint(server.authority)
        for fields in ({}, {"validate_certs": False}, {"ca_path": str(server.authority)}):
            assert connect(connection(server.port, fingerprints=("0" * 64, good), **fields)).get("/x") == "ours"
        assert connect(connection(server.port, fingerprints=(good.replace(":", "").lower(),))).get("/x") == "ours"
        seen = len(server.requests)
        for fields in ({}, {"validate_certs": False}, {"ca_path": str(server.authority)}):
            with pytest.raises(Unreachable, match=r"certificate is not accepted .*its SHA-256 is"):
                connect(connection(server.port, fingerprints=("0" * 64,), **fields)).post("/x", secret="5ecre7")
        assert len(server.requests) == seen


def test_an_authority_beside_the_fingerprint_must_hold_too(where: tuple[Path, Path]) -> None:
    with asked_server(where[0], rest=data_bytes(1)) as server, asked_server(where[1]) as other:
        given = connection(server.port, fingerprints=(fingerprint(server.authority),), ca_path=str(other.authority))
        with pytest.raises(Unreachable, match="certificate is not accepted"):
            connect(given).get("/x")
        assert server.requests == []


@pytest.mark.parametrize("text", ["", "0" * 63, "g" * 64, "sha1:" + "0" * 40])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^fingerprint: "):
        connect(connection(8006, fingerprints=(text,)))


def test_the_environment_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n", encoding="ascii")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("CURL_CA_BUNDLE", "/nonexistent")
    with asked_server(tmp_path, rest=data_bytes(1)) as server:
        assert connect(connection(server.port, ca_path=str(server.authority))).get("/x") == 1
        assert "Authorization: PVEAPIToken=a@pve!t=5ecre7" in server.headers[0]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (answer_bytes("200 OK", b"<html>Welcome</html>", "text/html"), "no Proxmox VE API: the answer is 200 OK"),
        (answer_bytes("404 Not Found", b""), "no Proxmox VE API: the answer is 404"),
        (answer_bytes("200 OK", b"hello", "text/plain"), "no Proxmox VE API: the answer is no JSON"),
        (answer_bytes("200 OK", b"[1]"), "no Proxmox VE API: the answer is JSON of another kind"),
        (answer_bytes("400 The plain HTTP request was sent to HTTPS port", b"<html>", "text/html"), "no Proxmox VE"),
        (
            answer_bytes("301 Moved", b"", Location="https://elsewhere.example.org/"),
            "the answer is a redirection to https://elsewhere.example.org/",
        ),
    ],
)
def test_somebody_else_answers(tmp_path: Path, answer: bytes, text: str) -> None:
    with asked_server(tmp_path, rest=answer) as server:
        client = connect(connection(server.port, ca_path=str(server.authority)))
        with pytest.raises(Unreachable, match=text) as caught:
            client.get("/x")
        assert "the port of its API is 8006" in str(caught.value)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "status", ["500 Oops", "520 Unknown", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Time-out"]
)
def test_a_gateway_without_its_node_is_no_answer(tmp_path: Path, status: str) -> None:
    answer = answer_bytes(status, b"<html>", "text/html")
    with asked_server(tmp_path, rest=answer) as server, pytest.raises(LostAnswer):
        connect(connection(server.port, ca_path=str(server.authority))).post("/x")


@pytest.mark.parametrize(
    "answer",
    [
        answer_bytes("200 OK", b'{"data":[1,'),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{",
    ],
)
def test_a_cut_answer_is_lost(tmp_path: Path, answer: bytes) -> None:
    with asked_server(tmp_path, rest=answer) as server, pytest.raises(LostAnswer):
        connect(connection(server.port, ca_path=str(server.authority))).post("/x")


def test_plain_http_is_told(tmp_path: Path) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(Unreachable, match=r"cannot connect \(.*[Ss][Ss][Ll]"):
                connect(connection(server.server_address[1])).get("/x")
        finally:
            server.shutdown()
            thread.join()


def test_connection_is_kept_and_made_anew_after_a_refusal(simulator: Simulator, monkeypatch: Any) -> None:
    client = simulator.client()
    for _turn in range(3):
        assert client.get("/version")["version"]
        with pytest.raises(HostingError):
            # the server closes after every status from 400 on
            client.get("/nodes/pve1/qemu/999/config")
    monkeypatch.setattr(endpoints, "IDLE", -1.0)
    with pytest.raises(HostingError):
        client.post("/nodes/pve1/qemu/999/config", cores=1)


def test_a_server_that_ends_idle_connections_without_a_word(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(endpoints, "IDLE", -1.0)
    answer = answer_bytes("200 OK", b'{"data":1}', Connection="keep-alive")
    with asked_server(tmp_path, rest=answer) as server:
        client = connect(connection(server.port, ca_path=str(server.authority)))
        assert [client.request(method, "/x", {}) for method in ("GET", "POST", "GET", "PUT", "DELETE")] == [1] * 5
        writes = [line for line in server.requests if not line.startswith("GET")]
        assert writes == ["POST /x", "PUT /x", "DELETE /x"]


def test_password_login_and_renewal(simulator: Simulator, monkeypatch: Any) -> None:
    client = simulator.client(token_id=None, token_secret=None, password="pa55word")
    client.post("/pools", poolid="made-by-password")
    assert simulator.requests() == ["POST /access/ticket", "POST /pools"]
    monkeypatch.setattr(endpoints, "RENEW_TICKET", -1)
    client.delete("/pools/made-by-password")
    assert simulator.requests() == ["POST /access/ticket", "DELETE /pools/made-by-password"]
    with pytest.raises(Denied, match=r"refuses the login of fediversity@pve"):
        simulator.client(token_id=None, token_secret=None, password="wrong")


def test_login_goes_to_the_next_node(where: tuple[Path, Path]) -> None:
    ticket = data_bytes({"ticket": "PVE:a@pve:1::x", "CSRFPreventionToken": "1:x"})
    with asked_server(where[0], ticket, rest=data_bytes(7)) as good:
        fields = {"token_id": None, "token_secret": None, "password": "pa55word"}
        client = connect(both(closed_port(), good.port, good, **fields))
        assert client.post("/x") == 7
        assert good.requests == ["POST /access/ticket", "POST /x"]
        assert "CSRFPreventionToken: 1:x" in good.headers[1]
        assert "PVEAuthCookie=" in good.headers[1]


def test_a_second_factor_is_refused(tmp_path: Path) -> None:
    challenge = data_bytes({"ticket": "x", "CSRFPreventionToken": "x", "NeedTFA": 1})
    with asked_server(tmp_path, rest=challenge) as server:
        fields = {"token_id": None, "token_secret": None, "password": "pa55word", "ca_path": str(server.authority)}
        with pytest.raises(Denied, match="second factor"):
            connect(connection(server.port, **fields))


def test_clients_of_several_threads(simulator: Simulator) -> None:
    found: list[str] = []

    def work() -> None:
        client = simulator.client()
        for _turn in range(5):
            found.append(client.get("/version")["version"])

    threads = [threading.Thread(target=work) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
