# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP exchange as the transcripts describe it: encoding, percent-encoding, uploads, and what came back.

http.client, because the reason phrase and a connection that is closed without an answer belong to the contract.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import ssl
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from . import qcow2

BASE = "/api2/json"
TIMEOUT = 180  # seconds; longer than any lock wait of the server


@dataclass(frozen=True)
class Answer:
    """What a server said; `body` is parsed JSON or the text. Status 0 = it closed the connection instead."""

    status: int
    reason: str
    body: Any

    @property
    def data(self) -> Any:
        return self.body.get("data") if isinstance(self.body, dict) else None


@dataclass(frozen=True)
class EntryPoint:
    """A server to talk to; `tls` is None for plain HTTP."""

    host: str
    port: int
    tls: ssl.SSLContext | None


def entry_point(url: str, tls: Callable[[str], ssl.SSLContext]) -> EntryPoint:
    """`tls` makes the context for a host name; the port is 8006 where the URL names none."""
    parts = urlsplit(url if "://" in url else f"https://{url}")
    host = parts.hostname or ""
    return EntryPoint(host, parts.port or 8006, tls(host) if parts.scheme == "https" else None)


def fields(params: Mapping[str, Any]) -> str:
    """A form or query string; a list repeats its key, JSON booleans become 0 and 1."""
    plain = {
        key: [_text(item) for item in value] if isinstance(value, list) else _text(value)
        for key, value in params.items()
    }
    return urlencode(plain, doseq=True, quote_via=quote, safe="")


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def send(to: EntryPoint, request: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
    """Sends a request of a transcript whose values are already those of this server."""
    method, params, path = request["method"], request["params"], BASE + request["path"]
    sent = dict(headers)
    body: bytes | None = None
    if method in ("GET", "DELETE"):
        path += f"?{fields(params)}" if params else ""
    elif request.get("encoding") == "json":
        sent["Content-Type"], body = "application/json", json.dumps(params).encode()
    else:
        sent["Content-Type"] = "application/x-www-form-urlencoded"
        body = params.encode() if isinstance(params, str) else fields(params).encode()
    return _exchange(to, method, path, sent, body)


def upload(to: EntryPoint, path: str, headers: Mapping[str, str], texts: Mapping[str, str], part: Upload) -> Answer:
    """Sends a multipart form: the texts in their order, then the file, streamed."""
    boundary = uuid.uuid4().hex
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in texts.items()
    )
    head += f'--{boundary}\r\nContent-Disposition: form-data; name="{part.field}"; filename="{part.filename}"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    with tempfile.TemporaryFile() as body, part.file.open("rb") as content:
        body.write(head.encode())
        shutil.copyfileobj(content, body, 1 << 20)
        body.write(f"\r\n--{boundary}--\r\n".encode())
        length = body.tell()
        body.seek(0)
        sent = {
            **headers,
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(length),
        }
        return _exchange(to, "POST", BASE + path, sent, body)


@dataclass(frozen=True)
class Upload:
    """The file part of a multipart form."""

    field: str
    filename: str
    file: Path

    @property
    def sha256(self) -> str:
        with self.file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()


def make_upload(recipe: Mapping[str, Any], folder: Path) -> Upload:
    """The file that a recipe describes: literal text, or an empty qcow2 of the recorded sizes."""
    file = folder / uuid.uuid4().hex
    text = recipe.get("recipe", "")
    if text.startswith("as given: "):
        file.write_text(text.removeprefix("as given: "), encoding="utf-8", newline="")
    elif text.startswith("qemu-img create -f qcow2 "):
        qcow2.make(file, virtual_size=size_of(text.split()[-1]), file_size=recipe["size"])
    else:
        raise ValueError(f"no such recipe: {text!r}")
    return Upload(recipe.get("field", "filename"), recipe["filename"], file)


def size_of(text: str) -> int:
    """Bytes of `16M`, `1600 MiB`, `2G`."""
    number = text.strip().rstrip("KMGTiB ")
    unit = text.strip()[len(number) :].strip()[:1]
    return int(number) << {"": 0, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]


def _exchange(to: EntryPoint, method: str, path: str, headers: Mapping[str, str], body: Any) -> Answer:
    if to.tls:
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            to.host, to.port, timeout=TIMEOUT, context=to.tls
        )
    else:
        connection = http.client.HTTPConnection(to.host, to.port, timeout=TIMEOUT)
    try:
        connection.connect()
        try:
            connection.request(method, path, body=body, headers=dict(headers))
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before the whole upload was read: the answer may be there
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
        return Answer(response.status, response.reason, _parsed(text))
    except (http.client.RemoteDisconnected, ConnectionResetError, ssl.SSLEOFError, http.client.ResponseNotReady):
        return Answer(0, "connection closed without a response", "")
    finally:
        connection.close()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
