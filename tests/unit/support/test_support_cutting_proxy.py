# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest
from support.cutting_proxy import Direction, Proxy, Request, answer_number, cutting_proxy, first_answer_to


class Ledger(socketserver.ThreadingTCPServer):
    """Answers every line with its number and remembers it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Clerk)
        self.lines: list[bytes] = []


class Clerk(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.server.lines.append(line.strip())  # type: ignore[attr-defined]
            self.wfile.write(b"%d\n" % len(self.server.lines))  # type: ignore[attr-defined]


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(proxy: Proxy, *lines: bytes) -> list[bytes]:
    """The answer to each line over one connection; empty where the connection ended instead."""
    answers = []
    with socket.create_connection((proxy.host, proxy.port), 30) as connection, connection.makefile("rwb") as stream:
        for line in lines:
            try:
                stream.write(line + b"\n")
                stream.flush()
                answers.append(stream.readline().strip())
            except OSError:
                answers.append(b"")
    return answers


def test_everything_passes_and_the_end_too(ledger: Ledger) -> None:
    with cutting_proxy(ledger.server_address) as proxy:
        assert ask(proxy, b"one", b"two") == [b"1", b"2"]
        assert ask(proxy, b"x" * 300_000) == [b"3"]
        with socket.create_connection((proxy.host, proxy.port), 30) as connection:
            connection.sendall(b"last")
            connection.shutdown(socket.SHUT_WR)
            assert connection.makefile("rb").read() == b"4\n"
    assert proxy.cuts == []
    assert ledger.lines == [b"one", b"two", b"x" * 300_000, b"last"]


def test_a_connection_is_cut_after_the_server_has_done_its_work(ledger: Ledger) -> None:
    with cutting_proxy(ledger.server_address, answer_number(2)) as proxy:
        assert ask(proxy, b"one", b"two", b"three") == [b"1", b"", b""]
        assert ask(proxy, b"four") == [b"3"]
    assert ledger.lines == [b"one", b"two", b"four"]
    assert [(cut.connection, cut.number, cut.data) for cut in proxy.cuts] == [(1, 2, b"two\n")]


def test_the_first_answer_to_a_text_is_cut(ledger: Ledger) -> None:
    with cutting_proxy(ledger.server_address, first_answer_to(b"COMMIT")) as proxy:
        assert ask(proxy, b"BEGIN", b"COMMIT") == [b"1", b""]
        assert ask(proxy, b"COMMIT") == [b"3"]
    assert len(proxy.cuts) == 1


def test_a_request_can_be_lost_or_delayed(ledger: Ledger) -> None:
    seen: list[tuple[Direction, int]] = []

    def cut(direction: Direction, request: Request) -> bool:
        seen.append((direction, request.number))
        if direction == "request" and request.data == b"slow\n":
            ledger.lines.append(b"somebody else's")
        return direction == "request" and request.data == b"lost\n"

    with cutting_proxy(ledger.server_address, cut) as proxy:
        assert ask(proxy, b"slow", b"lost") == [b"2", b""]
    assert ledger.lines == [b"somebody else's", b"slow"]
    assert seen == [("request", 1), ("answer", 1), ("request", 2)]


def test_connections_are_refused_for_a_while(ledger: Ledger) -> None:
    with cutting_proxy(ledger.server_address) as proxy:
        with socket.create_connection((proxy.host, proxy.port), 30) as before:
            before.sendall(b"one\n")
            assert before.recv(10) == b"1\n"
            with proxy.refusing():
                assert before.recv(10) == b""
                with pytest.raises(ConnectionRefusedError):
                    ask(proxy, b"two")
        assert ask(proxy, b"three") == [b"2"]
    with pytest.raises(ConnectionRefusedError):
        ask(proxy, b"four")


def test_a_target_that_is_not_there_ends_the_connection(ledger: Ledger) -> None:
    with cutting_proxy(ledger.server_address) as proxy:
        ledger.socket.close()
        assert ask(proxy, b"one") == [b""]
