# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab of their own for the tests of the guarded switch, ended whatever happens."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from guard_lab import GuardedHost, start_lab, stop_lab


@pytest.fixture(scope="session")
def guarded_lab() -> Iterator[GuardedHost]:
    with tempfile.TemporaryDirectory(prefix="guard-lab-") as directory:
        try:
            (host,) = start_lab(Path(directory))
            yield host
        finally:
            stop_lab(Path(directory))


@pytest.fixture
def host(guarded_lab: GuardedHost) -> Iterator[GuardedHost]:
    """The host, running the system `base`, nothing armed; after the test an ordinary deployment must succeed."""
    guarded_lab.make_reachable()
    result = guarded_lab.deploy("base", activation_timeout=60, replace_unknown=True)
    assert not result["failed"], result
    yield guarded_lab
    guarded_lab.make_reachable()
    result = guarded_lab.deploy("base", activation_timeout=60, replace_unknown=True)
    assert not result["failed"], result
    guarded_lab.assert_clean("base")


@pytest.fixture
def machine(guarded_lab: GuardedHost, record_property: Callable[[str, object], None]) -> Iterator[GuardedHost]:
    """The host, running its system `old`, nothing armed; after the test the next ordinary deployment must succeed."""
    guarded_lab.make_reachable()
    old = guarded_lab.shell("cat /etc/guard-test 2>/dev/null || true").strip()
    if old not in ("base", "other"):  # another test has left it so
        old = "base"
        result = guarded_lab.deploy(old, activation_timeout=60, replace_unknown=True)
        assert not result["failed"], result
    guarded_lab.shell("systemctl reset-failed")  # a unit that had failed before is another case
    host = replace(guarded_lab, old=old, results=[])
    yield host
    failed = [result for result in host.results if result["failed"]]
    for result in (failed or host.results)[-1:]:
        record_property("outcome", _outcome(result))
    host.make_reachable()
    wanted = "other" if host.shell("cat /etc/guard-test") == "base\n" else "base"
    result = host.deploy(wanted, activation_timeout=60)
    assert (result["failed"], result["phase"]) == (False, "committed"), result
    host.assert_ended(wanted, "committed")


def _outcome(result: dict[str, Any]) -> str:
    method = (result.get("rollback") or {}).get("method", "")
    seconds = sum(result.get("timings", {}).values())
    return f"{result.get('phase', 'refused'):<13} {method:<11} {seconds:6.1f} s"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each file has a lab of its own when there are workers enough: the rows wait much and compute little."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Fault, result, seconds: the table of docs/guarded-switch.md."""
    rows = [
        (report.nodeid.rpartition("::")[2].partition("@")[0], value)
        for report in terminalreporter.getreports("")
        if report.when == "teardown"
        for key, value in report.user_properties
        if key == "outcome"
    ]
    for name, value in rows:
        terminalreporter.write_line(f"{name:<62} {value}")
