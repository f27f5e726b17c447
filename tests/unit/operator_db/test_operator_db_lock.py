# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run at a time: runs are processes that live until the test ends them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, Locked
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db import database
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.lock import hold
from sqlalchemy import Engine

Begin = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begin a run."""
    running: list[subprocess.Popen[bytes]] = []

    def one() -> subprocess.Popen[bytes]:
        running.append(subprocess.Popen(["sleep", "infinity"], stdin=subprocess.DEVNULL))
        return running[-1]

    yield one
    for process in running:
        process.kill()
        process.wait()


def silent(text: str) -> None:
    raise AssertionError(text)


def test_the_second_run_is_refused_and_told_by_whom_the_lock_is_held(engine: Engine, begin: Begin) -> None:
    first, second, told = begin(), begin(), []
    hold(engine, first.pid, 0, silent)
    with pytest.raises(Locked, match=f"another run works with this operator database: process {first.pid}\\."):
        hold(engine, second.pid, 1, told.append)
    assert f"waiting for another run to end: process {first.pid}." in told[0]


def test_the_lock_of_a_killed_run_is_free(engine: Engine, begin: Begin) -> None:
    first, second = begin(), begin()
    hold(engine, first.pid, 0, silent)
    first.kill()
    first.wait()
    hold(engine, second.pid, 30, lambda _text: None)


def test_a_run_that_waits_goes_on_when_the_other_ends(engine: Engine, begin: Begin) -> None:
    first, second = begin(), begin()
    hold(engine, first.pid, 0, silent)
    told = []

    def end_first(text: str) -> None:
        told.append(text)
        first.kill()
        first.wait()

    hold(engine, second.pid, 30, end_first)
    assert len(told) == 1


def test_a_run_has_its_lock_already(engine: Engine, begin: Begin) -> None:
    run = begin()
    hold(engine, run.pid, 0, silent)
    hold(engine, run.pid, 0, silent)


def test_connections_of_the_run_are_not_touched_by_the_keeper(engine: Engine, begin: Begin) -> None:
    database.check(engine)  # leaves a connection in the pool
    first, second = begin(), begin()
    hold(engine, first.pid, 0, silent)
    with pytest.raises(Locked):
        hold(engine, second.pid, 0, lambda _text: None)
    database.check(engine)


def test_nobody_waits_for_the_keeper_to_end_its_output(sqlite_url: str, begin: Begin) -> None:
    engine = database.connect(sqlite_url)
    database.upgrade(engine)
    heard, said = os.pipe()
    os.set_inheritable(said, True)
    hold(engine, begin().pid, 0, silent)
    os.close(said)
    assert os.read(heard, 1) == b""  # end of file: the keeper has let go of it
    os.close(heard)
    engine.dispose()


def test_a_place_where_no_lock_can_be_made_is_named(tmp_path: Path, begin: Begin) -> None:
    engine = database.connect(f"sqlite:///{tmp_path}/gone/operator.db")
    with pytest.raises(BackendError, match=r"the lock against other runs cannot be taken: .*gone/operator\.db\.lock"):
        hold(engine, begin().pid, 0, silent)
