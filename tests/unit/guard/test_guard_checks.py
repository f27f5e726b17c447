# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's own health checks against real servers on the loopback."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.checks import (
    first_problem,
    http_problem,
    tcp_problem,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.remote import Clock
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import (
    PATIENCE,
    ControllerChecks,
    HttpCheck,
    TcpCheck,
)


class Handler(BaseHTTPRequestHandler):
    """/redirect leads to /; /later becomes good at the third look; everything else but / is missing."""

    looks = 0

    def do_GET(self) -> None:
        type(self).looks += self.path == "/later"
        good = self.path == "/" or (self.path == "/later" and self.looks > 2)
        self.send_response(302 if self.path == "/redirect" else 200 if good else 404)
        if self.path == "/redirect":
            self.send_header("Location", "/")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


def serve(server: HTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def plain() -> Iterator[str]:
    Handler.looks = 0
    yield from serve(HTTPServer(("127.0.0.1", 0), Handler))


@pytest.fixture
def self_signed(tmp_path: Path) -> Iterator[str]:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-days", "1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject], check=True, capture_output=True
    )
    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    yield from serve(server)


@pytest.mark.parametrize(
    ("path", "status", "problem"),
    [
        ("/", 200, ""),
        ("/none", 404, ""),
        ("/none", 200, "answered 404, not 200"),
        ("/redirect", 302, ""),
        ("/redirect", 200, "answered 302, not 200"),
    ],
)
def test_http(plain: str, path: str, status: int, problem: str) -> None:
    assert http_problem(HttpCheck(f"http://{plain}{path}", status)).endswith(problem)
    assert bool(http_problem(HttpCheck(f"http://{plain}{path}", status))) == bool(problem)


def test_a_wrong_certificate_is_a_problem_unless_it_is_allowed(self_signed: str) -> None:
    url = f"https://{self_signed}/"
    assert url in http_problem(HttpCheck(url))
    assert http_problem(HttpCheck(url, validate_certs=False)) == ""


def test_tcp(plain: str) -> None:
    port = int(plain.split(":")[1])
    assert tcp_problem(TcpCheck(port), "127.0.0.1") == ""
    assert tcp_problem(TcpCheck(port, "127.0.0.1"), "192.0.2.1") == ""
    with socket.socket() as unused:  # bound, but nobody listens
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
        assert f"no connection to 127.0.0.1 port {closed}" in tcp_problem(TcpCheck(closed), "127.0.0.1")


def test_checks_are_tried_until_they_are_good_and_no_longer_than_allowed(plain: str) -> None:
    time = [0.0]

    def sleep(seconds: float) -> None:
        time[0] += seconds

    clock = Clock(lambda: time[0], sleep)
    checks = ControllerChecks(http=(HttpCheck(f"http://{plain}/later"), HttpCheck(f"http://{plain}/none")))
    problem = first_problem(checks, "127.0.0.1", clock)
    assert problem == f"seen from the controller: http://{plain}/none answered 404, not 200"
    assert time[0] >= PATIENCE
    assert first_problem(ControllerChecks(), "127.0.0.1", clock) == ""
