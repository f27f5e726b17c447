# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Uploading a file into a storage, streamed, to the node that shall have it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    InvalidInput,
    NotFound,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox import tasks
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import (
    Connection,
    client_over,
    error_of_answer,
    open_transport,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.endpoints import Endpoint, parse_endpoints

BLOCK = 1 << 20
STEPS = 10

Progress = Callable[[int, int], None]
"""(bytes sent, bytes in all), about STEPS times."""


class Multipart:
    """A form with one file as the last part (RFC 7578), read block by block; its length is known beforehand.

    The server wants the text fields before the file and in this order: content, checksum-algorithm, checksum.
    """

    def __init__(
        self, fields: Mapping[str, str], filename: str, file: BinaryIO, size: int, progress: Progress | None = None
    ) -> None:
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="filename"; filename="{filename}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        self._head, self._tail = "".join(parts).encode(), f"\r\n--{boundary}--\r\n".encode()
        self._length = len(self._head) + size + len(self._tail)
        self._file, self._size, self._left = file, size, size
        self._progress = progress

    def __len__(self) -> int:
        """Bytes of the whole form."""
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(BLOCK), b"")

    def read(self, amount: int = -1) -> bytes:
        """:raises InvalidInput: the file became shorter meanwhile."""
        amount = amount if amount >= 0 else len(self)
        if self._head:
            block, self._head = self._head[:amount], self._head[amount:]
            return block
        if self._left:
            return self._read_file(amount)
        block, self._tail = self._tail[:amount], self._tail[amount:]
        return block

    def _read_file(self, amount: int) -> bytes:
        block = self._file.read(min(amount, self._left))
        if not block:
            raise InvalidInput("the file became shorter while it was sent", where="src", hint="Run again")
        before = self._size - self._left
        self._left -= len(block)
        sent = self._size - self._left
        if self._progress and before * STEPS // self._size != sent * STEPS // self._size:
            self._progress(sent, self._size)
        return block


class Uploads:
    """Sends files to nodes. A node takes an upload only itself, so each one is asked at its own address.

    :param addresses: ``host[:port]`` of the API of nodes whose address in the cluster cannot be used from here.
    """

    def __init__(self, connection: Connection, addresses: Mapping[str, str]) -> None:
        self._connection = connection
        self._addresses = addresses
        self._transport = open_transport(connection)
        self._client = client_over(self._transport, connection)
        self._rows: list[Mapping[str, object]] | None = None
        self._local = self._transport.current

    def send(
        self,
        node: str,
        storage: str,
        source: Path,
        filename: str,
        checksum: tuple[str, str],
        *,
        budget: float,
        progress: Progress | None = None,
    ) -> None:
        """Upload *source* as ``import`` content and wait until the server has checked and stored it.

        The server receives into a temporary file, so the name holds nothing before everything is there.

        :param checksum: algorithm and hex digits, compared by the server.
        :raises LostAnswer: the connection broke; the file is there or it is not.
        """
        endpoint = self._endpoint(node)
        path = f"/nodes/{node}/storage/{storage}/upload"
        fields = {"content": "import", "checksum-algorithm": checksum[0], "checksum": checksum[1]}
        with source.open("rb") as file:
            form = Multipart(fields, filename, file, source.stat().st_size, progress)
            answer = self._transport.upload(endpoint, path, form, form.content_type)
        if answer.status >= 400:
            raise error_of_answer(answer, f"{endpoint} POST {path}", self._connection.identity)
        tasks.wait(self._client, answer.data, budget=budget)

    def _endpoint(self, node: str) -> Endpoint:
        if node in self._addresses:
            return parse_endpoints(self._addresses[node], self._connection.port)[0]
        row = next((row for row in self._nodes() if row.get("name") == node), None)
        if row is None:
            raise NotFound(f"the cluster has no node {node}", where="nodes", hint="Name a node of this cluster")
        if str(row.get("local", 0)) == "1":
            return self._local
        if not row.get("ip"):
            raise BackendError(
                f"the cluster does not tell the address of {node}", where="node_addresses", hint="Give it there"
            )
        return Endpoint(str(row["ip"]), self._connection.port)

    def _nodes(self) -> list[Mapping[str, object]]:
        """The cluster's nodes, asked once; ``local`` is the one that answers."""
        if self._rows is None:
            try:
                rows = self._client.get("/cluster/status")
            except Denied as error:
                raise Denied(
                    f"the addresses of the nodes cannot be read ({error.what})",
                    where="node_addresses",
                    hint="Give the address of each node there, or give the user Sys.Audit on /",
                ) from error
            self._rows = [row for row in rows if row.get("type") == "node"]
            self._local = self._transport.current
        return self._rows
