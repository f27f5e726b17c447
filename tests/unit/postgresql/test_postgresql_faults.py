# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs that are cut, restarted under, or disturbed by others."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import Locked
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import client
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import session as sessions
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.apply import Run
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.session import session
from postgresql_runs import Login, actions, by_name, role, run, wish
from support.cutting_proxy import Proxy, cutting_proxy, first_answer_to
from support.postgresql import Server as RunningServer
from support.postgresql import postgresql_server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with cutting_proxy((server.host, server.port)) as running:
        yield running


# What the server has committed when the connection is cut: the roles, one of the databases, its privileges and
# comment, what is inside; and reading.
@pytest.mark.parametrize(
    "request_text",
    [
        "CREATE ROLE",
        "COMMIT",
        'CREATE DATABASE "cut_1"',
        "REVOKE CONNECT",
        "CREATE EXTENSION",
        "COMMENT ON DATABASE",
        "pg_shdepend",
        "jsonb_agg",
    ],
)
def test_a_connection_cut_after_the_server_has_done_it(server: Server, proxy: Proxy, request_text: str) -> None:
    desired = [wish(f"cut_{n}", password="p", extensions=("hstore",)) for n in range(2)] + [role("cut_role")]
    run(server, *(replace(item, state="absent") for item in desired))
    proxy.cut = first_answer_to(request_text.encode())
    through = replace(server, host=proxy.host, port=proxy.port)
    predicted = run(server, *desired, check=True)
    done = run(through, *desired)
    assert len(proxy.cuts) == 1
    assert not done["failed"], done["msg"]
    assert actions(done) == actions(predicted)
    assert all(item["changed"] for item in done["results"])
    assert not run(server, *desired)["changed"]


def test_a_connection_that_is_cut_again_and_again_is_told(server: Server, proxy: Proxy) -> None:
    desired = [wish(f"cut_often_{n}") for n in range(3)]
    proxy.cut = lambda direction, request: direction == "answer" and b"REVOKE" in request.data
    done = run(replace(server, host=proxy.host, port=proxy.port), *desired)
    assert done["failed"]
    proxy.cut = lambda direction, request: False
    again = run(server, *desired)
    assert not again["failed"], again["msg"]
    # whoever was told to be done was done
    told = {name for name, item in by_name(done).items() if item["changed"]}
    assert all(actions(again)[name] == "unchanged" for name in told)
    assert not run(server, *desired)["changed"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "crash"])
def test_a_server_that_restarts_in_the_middle(tmp_path: Path, how: signal.Signals, monkeypatch: Any) -> None:
    desired = [wish(f"restart_{n}", password="p", extensions=("hstore",)) for n in range(6)]
    made_inside = Run._mend_inside
    reached, stopped = threading.Event(), threading.Event()
    results: list[dict[str, Any]] = []

    def disturbed(self: Run, *arguments: Any) -> None:
        if arguments[1].name == "restart_2":
            reached.set()
            stopped.wait(60)
        made_inside(self, *arguments)

    monkeypatch.setattr(Run, "_mend_inside", disturbed)
    with postgresql_server(tmp_path) as running:
        server = Server(running.host, running.port, running.superuser, running.password)
        thread = threading.Thread(target=lambda: results.append(run(server, *desired)))
        thread.start()
        # the server would end with the thread that starts it
        reached.wait(60)
        running.stop(how)
        stopped.set()
        running.start()
        thread.join()
        (done,) = results
        assert not done["failed"], done["msg"]
        assert done["lost"] == 1
        assert set(actions(done).values()) == {"create"}
        assert not run(server, *desired)["changed"]


def test_a_server_that_does_not_come_back_fails_every_item_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "RESTART_SECONDS", 1)
    desired = [wish(f"gone_{n}") for n in range(3)]
    made_inside = Run._save_database
    with postgresql_server(tmp_path) as running:
        server = Server(running.host, running.port, running.superuser, running.password)

        def disturbed(self: Run, *arguments: Any) -> None:
            running.stop()
            made_inside(self, *arguments)

        monkeypatch.setattr(Run, "_save_database", disturbed)
        done = run(server, *desired)
        assert {name for name, item in by_name(done).items() if item["failed"]} == {item.name for item in desired}
        monkeypatch.setattr(Run, "_save_database", made_inside)
        running.start()
        assert not run(server, *desired)["failed"]
        assert not run(server, *desired)["changed"]


def test_two_runs_with_different_wishes_come_one_after_the_other(server: Server, running: RunningServer) -> None:
    def wishes(limit: int) -> list[Any]:
        return [wish(f"contended_{n}", conn_limit=limit, password=str(limit)) for n in range(4)]

    run(server, *wishes(1))
    results: dict[int, dict[str, Any]] = {}
    threads = [
        threading.Thread(target=lambda limit=limit: results.update({limit: run(server, *wishes(limit))}))
        for limit in (2, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # each saw what the one before it had left as a whole, and one is in force as a whole
    seen = {
        limit: {one["conn_limit"] for one in result["diff"]["before"].values()} for limit, result in results.items()
    }
    last = 2 if seen[2] == {3} else 3
    assert seen == {last: {5 - last}, 5 - last: {1}}
    assert not run(server, *wishes(last))["changed"]


def test_who_waits_says_so_and_who_waits_too_long_fails(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with session(server):
        monkeypatch.setitem(client.SETTINGS, "lock_timeout", "1s")
        with pytest.raises(Locked, match="another run is changing this server"):
            run(server, wish("never_made"))
    monkeypatch.undo()
    first = sessions.Session(server)
    threading.Timer(0.5, first.close).start()
    with session(server) as second:
        assert second.waited > 0


def test_what_somebody_changes_meanwhile_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Run._save_database

    def disturbed(self: Run, connection: Any, item: Any, actual: Any) -> None:
        saved(self, connection, item, actual)
        if item.name == "meddled":
            # before our own connection commits nobody else can change the same database
            connection.execute("ALTER DATABASE meddled CONNECTION LIMIT 77")

    run(server, wish("meddled"), wish("unmeddled"))
    monkeypatch.setattr(Run, "_save_database", disturbed)
    done = run(server, wish("meddled", conn_limit=5), wish("unmeddled", conn_limit=5))
    assert {name for name, item in by_name(done).items() if item["failed"]} == {"meddled"}
    assert "conn_limit still differs" in done["msg"]


def test_a_lock_that_somebody_holds_stops_nobody_else(
    server: Server, login: Login, running: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [wish("blocked"), wish("unblocked")]
    after = [replace(item, conn_limit=3) for item in before]
    run(server, *before)
    monkeypatch.setitem(client.SETTINGS, "lock_timeout", "1s")
    with login(running.superuser, running.password, "postgres") as holder, holder.transaction():
        holder.execute("ALTER DATABASE blocked CONNECTION LIMIT 9")
        done = run(server, *after)
    assert {name for name, item in by_name(done).items() if item["failed"]} == {"blocked"}
    assert not run(server, *after)["failed"]
