# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults in the middle of a run: what was done is told truly, and the next run finishes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import MissingCommand
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import dump
from postgresql_estate import MODULE, Place, Result, by_name, finish, password
from support.cutting_proxy import Direction, Proxy, Request, cutting_proxy, first_answer_to


def wishes(place: Place, *states: str) -> list[dict[str, Any]]:
    return [
        {
            "name": place.name(f"db{number}"),
            "password": password(f"db{number}"),
            "extensions": ["citext"],
            "state": state,
        }
        for number, state in enumerate(states)
    ]


def through(place: Place, proxy: Proxy) -> Place:
    return place.at(PGHOST=proxy.host, PGPORT=str(proxy.port), PGSSLMODE="disable")


def target(place: Place) -> tuple[str, int]:
    return place.admin["PGHOST"], int(place.admin.get("PGPORT", "5432"))


def is_as_told(place: Place, result: Result, wanted: list[dict[str, Any]]) -> None:
    """No item that is said to be done is not, and no database is open to others."""
    there = {name for (name,) in place.sql("SELECT datname FROM pg_database WHERE datallowconn")}
    for item in wanted:
        told = by_name(result).get(item["name"])
        if told is not None and not told["failed"]:
            assert (item["name"] in there) == (item["state"] == "present"), told
            if item["state"] == "present":
                place.connect(item["name"], item["password"], item["name"]).close()
        if item["name"] in there:
            closed = "SELECT has_database_privilege('public', %s, 'CONNECT')"
            assert place.sql(closed, item["name"]) == [(False,)]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("present", b"pg_try_advisory_lock"),
        ("present", b"CREATE ROLE"),
        ("present", b"COMMIT"),
        ("present", b"CREATE DATABASE"),
        ("present", b"REVOKE"),
        ("present", b"CREATE EXTENSION"),
        ("absent", b"pg_terminate_backend"),
        ("absent", b"DROP DATABASE"),
        ("absent", b"DROP ROLE"),
    ],
)
def test_the_connection_is_cut_after_the_server_has_done_it(place: Place, state: str, text: bytes) -> None:
    """The run does not hear that it was done."""
    wanted = wishes(place, "present", state)
    options = {"drop_without_dump": True, "max_delete_percent": 100}
    if state == "absent":
        place.make(*wishes(place, "present", "present"))
    with cutting_proxy(target(place), first_answer_to(text)) as proxy:
        result = through(place, proxy).run(*wanted, **options)
        assert [text in cut.data for cut in proxy.cuts] == [True]
    is_as_told(place, result, wanted)
    is_as_told(place, place.make(*wanted, **options), wanted)
    assert not place.make(*wanted, **options)["changed"]


@pytest.mark.parametrize(
    ("text", "how"),
    [
        (b"CREATE ROLE", signal.SIGINT),
        (b"CREATE DATABASE", signal.SIGQUIT),
        (b"REVOKE", signal.SIGINT),
        (b"CREATE EXTENSION", signal.SIGQUIT),
    ],
)
def test_the_server_restarts_in_the_middle(private: Place, text: bytes, how: signal.Signals) -> None:
    place, server = private, private.private
    wanted = wishes(place, "present", "present", "present")
    middle, restarted = threading.Event(), threading.Event()

    def wait_for_restart(direction: Direction, request: Request) -> bool:
        if direction == "request" and text in request.data and not middle.is_set():
            middle.set()
            restarted.wait()
            return True
        return False

    with cutting_proxy(target(place), wait_for_restart) as proxy:
        run = through(place, proxy).start(*wanted)
        try:
            while not middle.wait(1):
                assert run.poll() is None, finish(run)
            assert server is not None
            # by this thread, because the server ends with the thread that started it
            server.stop(how)
            server.start()
        finally:
            restarted.set()
        result = finish(run)
    is_as_told(place, result, wanted)
    place.make(*wanted)
    again = place.make(*wanted)
    assert not again["changed"]
    is_as_told(place, again, wanted)


def test_the_server_stays_away(private: Place) -> None:
    with cutting_proxy(target(private)) as proxy, proxy.refusing():
        result = through(private, proxy).run({"name": private.name("nowhere")})
    assert result["failed"]
    assert "login_host" in result["msg"]


def test_a_permission_is_missing_for_one_of_many(place: Place) -> None:
    if place.is_superuser(place.variables["PGUSER"]):
        pytest.skip("a superuser lacks no permission")
    names = [place.name(f"many{number}") for number in range(4)]
    wanted: list[dict[str, Any]] = [{"name": name, "password": password(name)} for name in names]
    wanted[2] = {**wanted[2], "extensions": ["file_fdw"]}
    result = place.run(*wanted)
    items = by_name(result)
    assert result["failed"]
    assert [items[name]["failed"] for name in names] == [False, False, True, False]
    assert "file_fdw" in items[names[2]]["msg"]
    assert names[2] in result["msg"]
    for name in (names[0], names[1], names[3]):
        place.connect(name, password(name), name).close()
    wanted[2].pop("extensions")
    place.make(*wanted)
    assert not place.make(*wanted)["changed"]


def test_the_disk_is_full_when_the_dump_is_written(place: Place, tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        pytest.skip("a small file system in a mount namespace of its own needs root and unshare")
    try:
        dump.choose(dump.installed(), place.version())
    except MissingCommand as error:
        pytest.skip(error.what)
    name, dumps, left = place.name("big"), tmp_path / "dumps", tmp_path / "left"
    dumps.mkdir()
    place.make({"name": name, "password": password("big")})
    filler = "CREATE TABLE big AS SELECT md5(g::text) FROM generate_series(1, 60000) g"
    place.sql(filler, database=name, login=(name, password("big")))
    wish = {"name": name, "state": "absent"}
    options = {"dump_dir": str(dumps), "max_delete_percent": 100}

    script = 'mount -t tmpfs -o size=256k none "$1" && "$2" "$3"; ls -A "$1" > "$4"'
    done = subprocess.run(
        [unshare, "--mount", "sh", "-c", script, "sh", str(dumps), sys.executable, str(MODULE), str(left)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": place.arguments([wish], **options)}),
        env={**place.environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    result = json.loads(done.stdout)
    assert result["failed"]
    assert "No space left" in by_name(result)[name]["msg"]
    assert left.read_text(encoding="utf-8") == ""
    assert place.sql("SELECT count(*) FROM big", database=name) == [(60000,)]
    place.change(wish, **options)
    (directory,) = dumps.iterdir()
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    assert [(table["name"], table["rows"]) for table in manifest["tables"]] == [("big", 60000)]
