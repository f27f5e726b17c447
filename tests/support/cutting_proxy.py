# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A TCP proxy on loopback that cuts connections where a test says so.

It knows no protocol: a request is what a client sends until the server says something, an answer what follows.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

PIECE_BYTES = 1 << 16
CONNECT_SECONDS = 30

Direction = Literal["request", "answer"]


@dataclass(frozen=True)
class Request:
    """What a client sent.

    :param connection: the connections of a proxy are counted from 1.
    :param number: the requests of all connections are counted from 1.
    :param data: at "request" the first piece, at "answer" everything.
    """

    connection: int
    number: int
    data: bytes = field(repr=False)


# Called before the first piece of a request goes to the server ("request") and before the first piece of the answer
# to it goes to the client ("answer"); true cuts the connection instead. Whatever else it does delays that piece.
Cut = Callable[[Direction, Request], bool]


def never(direction: Direction, request: Request) -> bool:
    """Lets everything pass."""
    return False


def answer_number(number: int) -> Cut:
    """Cuts when the server has answered the request of that number, before the client gets the answer."""
    return lambda direction, request: direction == "answer" and request.number == number


def first_answer_to(text: bytes) -> Cut:
    """Cuts when the server has answered a request that contains *text*, before the client gets the answer; once."""
    left = [True]

    def cut(direction: Direction, request: Request) -> bool:
        return direction == "answer" and text in request.data and bool(left) and left.pop()

    return cut


@dataclass
class Proxy:
    """A running proxy; ``cut`` may be replaced at any time and counts from the next piece on.

    :param cuts: the requests at which a connection was cut.
    """

    target: tuple[str, int]
    cut: Cut
    listener: socket.socket
    cuts: list[Request] = field(default_factory=list)
    connections: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    requests: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    open: set[socket.socket] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def host(self) -> str:
        return str(self.listener.getsockname()[0])

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """While the block runs, connections are refused and those that were open are gone."""
        address = self.listener.getsockname()
        self.close()
        try:
            yield
        finally:
            self.listener = _listen(address)
            self.accept()

    def accept(self) -> None:
        """Take connections until :meth:`close`."""
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def close(self) -> None:
        """Stop listening and cut what is open."""
        _end(self.listener)
        with self.lock:
            left = list(self.open)
        for connection in left:
            _end(connection)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client, next(self.connections)), daemon=True).start()

    def _serve(self, client: socket.socket, number: int) -> None:
        try:
            server = socket.create_connection(self.target, CONNECT_SECONDS)
        except OSError:
            _end(client)
            return
        server.settimeout(None)
        with self.lock:
            self.open |= {client, server}
        exchange = _Exchange(self, Request(number, 0, b""))
        answers = threading.Thread(target=self._pass, args=(server, client, exchange.answered), daemon=True)
        answers.start()
        self._pass(client, server, exchange.asked)
        answers.join()
        with self.lock:
            self.open -= {client, server}
        client.close()
        server.close()

    def _pass(self, source: socket.socket, sink: socket.socket, passes: Callable[[bytes], bool]) -> None:
        """Pass pieces on until the source ends, a side is gone, or *passes* says no."""
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                if not passes(piece):
                    break
                sink.sendall(piece)
            else:
                sink.shutdown(socket.SHUT_WR)
                return
        _end(source)
        _end(sink)


class _Exchange:
    """The turns of one connection: whose piece starts a request or an answer."""

    def __init__(self, proxy: Proxy, request: Request) -> None:
        self.proxy, self.request, self.is_answered = proxy, request, True

    def asked(self, piece: bytes) -> bool:
        if not self.is_answered:
            self.request = replace(self.request, data=self.request.data + piece)
            return True
        self.is_answered = False
        self.request = Request(self.request.connection, next(self.proxy.requests), piece)
        return self._passes("request")

    def answered(self, piece: bytes) -> bool:
        if self.is_answered:
            return True
        self.is_answered = True
        return self._passes("answer")

    def _passes(self, direction: Direction) -> bool:
        if not self.proxy.cut(direction, self.request):
            return True
        self.proxy.cuts.append(self.request)
        return False


@contextmanager
def cutting_proxy(target: tuple[str, int], cut: Cut = never) -> Iterator[Proxy]:
    """Runs a proxy to *target* (host, port) while the block runs; clients reach it at its ``host`` and ``port``."""
    proxy = Proxy(target, cut, _listen(("127.0.0.1", 0)))
    proxy.accept()
    try:
        yield proxy
    finally:
        proxy.close()


def _listen(address: tuple[str, int]) -> socket.socket:
    return socket.create_server(address)


def _end(connection: socket.socket) -> None:
    """Both directions at once; unlike closing, this also wakes the threads that wait for it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
