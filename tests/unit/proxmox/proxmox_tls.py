# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TLS servers on loopback that play an answer, byte by byte, and count what they were asked."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Connection
from support.certificate import make_certificate


@dataclass
class Asked:
    """One server: its port and certificate, and the first line of every request."""

    port: int
    authority: Path
    requests: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    connections: int = 0


@contextmanager
def asked_server(directory: Path, *answers: bytes, rest: bytes = b"") -> Iterator[Asked]:
    """A TLS server that reads one request per connection and sends *answers* in turn, then *rest*."""
    certificate, key = make_certificate(directory)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    left = list(answers)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = Asked(listener.getsockname()[1], certificate)

        def serve() -> None:
            while True:
                try:
                    raw, _address = listener.accept()
                except OSError:
                    return
                asked.connections += 1
                try:
                    with context.wrap_socket(raw, server_side=True) as connection:
                        line, head = read_request(connection)
                        asked.requests.append(line)
                        asked.headers.append(head)
                        connection.sendall(left.pop(0) if left else rest)
                except OSError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def tls_server(directory: Path, answer: bytes) -> Iterator[tuple[int, Path]]:
    """As asked_server, always with the same answer: its port and certificate."""
    with asked_server(directory, rest=answer) as asked:
        yield asked.port, asked.authority


def read_request(connection: ssl.SSLSocket) -> tuple[str, str]:
    """``METHOD path`` and head of one whole request: closing on an unread rest would lose the answer."""
    with connection.makefile("rb") as stream:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                raise ConnectionError("closed without a request")
            head += line
        length = re.search(rb"(?i)content-length: (\d+)", head)
        stream.read(int(length[1]) if length else 0)
    head = head.removesuffix(b"\r\n")
    method, path, _version = head.split(b"\r\n")[0].decode().split(" ")
    return f"{method} {path.removeprefix('/api2/json')}", head.decode("latin-1")


def answer_bytes(status: str, body: bytes, kind: str = "application/json", **headers: str) -> bytes:
    lines = {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def data_bytes(data: Any) -> bytes:
    return answer_bytes("200 OK", json.dumps({"data": data}).encode())


def closed_port() -> int:
    """A port of loopback where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def connection(port: int, **fields: Any) -> Connection:
    base: Mapping[str, Any] = {"host": "127.0.0.1", "user": "a@pve", "token_id": "t", "token_secret": "5ecre7"}
    return Connection(port=port, **{**base, **fields})
