# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server restarts and connections are cut in the middle of a run: a run after it converges."""

from __future__ import annotations

import threading

from support.cutting_proxy import Direction, Request, cutting_proxy, first_answer_to
from valkey_place import Place, by_name, finished

WAIT_SECONDS = 60


def test_a_server_that_restarts_mid_run(private: Place) -> None:
    server = private.private
    assert server is not None
    private.run(private.tenant("saved", "p"))
    wanted = [private.tenant("saved", "p", commands=["+scan"]), private.tenant("new", "p")]
    reached, resumed = threading.Event(), threading.Event()

    def hold(direction: Direction, request: Request) -> bool:
        if direction == "request" and private.saving("new") in request.data:
            reached.set()
            resumed.wait(WAIT_SECONDS)
        return False

    with cutting_proxy((private.server.host, private.server.port), hold) as proxy:
        running = private.through(proxy).start(*wanted)
        try:
            assert reached.wait(WAIT_SECONDS)
            server.restart()
        finally:
            resumed.set()
            result = finished(running)
    assert result["failed"]
    assert {item["name"] for item in result["results"] if item["failed"]} == {item["name"] for item in wanted}
    assert private.name("saved") in private.lines()
    assert private.name("new") not in private.lines()
    again = private.run(*wanted)
    assert not again["failed"], again["msg"]
    assert not private.run(*wanted)["changed"]


def test_a_connection_that_is_cut_after_the_server_has_done_it(place: Place) -> None:
    wanted = [place.tenant("cut", "p"), place.tenant("cut2", "p")]
    target = (place.server.host, place.server.port)
    with cutting_proxy(target, first_answer_to(place.saving("cut"))) as proxy:
        result = place.through(proxy).run(*wanted)
        assert len(proxy.cuts) == 1
    assert {name: item["failed"] for name, item in by_name(result).items()} == {
        place.name("cut"): True,
        place.name("cut2"): True,
    }
    assert place.opens("cut", "p")
    again = place.run(*wanted)
    assert (again["changed"], again["failed"]) == (False, False), again["msg"]


def test_a_connection_that_is_cut_while_the_server_is_asked_leaves_no_probe(place: Place) -> None:
    before = place.lines()
    target = (place.server.host, place.server.port)
    with cutting_proxy(target, first_answer_to(b"fediversity-probe-")) as proxy:
        result = place.through(proxy).run(place.tenant("never", "p"))
        assert len(proxy.cuts) == 1
    assert result["failed"]
    assert "login_host" in result["msg"]
    assert place.lines() == before
