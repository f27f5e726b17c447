# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way to a real Garage: a program of that name on PATH is configured, started, given a layout, and ended."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.client import Client, http_sender
from ansible_collections.fediversity.hosting.plugins.module_utils.garage.s3 import s3_client
from lab.garage import real
from support.garage_server import GarageServer, garage_server
from support.garage_stand_in import checked

TESTS = Path(__file__).parents[2]


def put_on_path(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    directory.mkdir()
    (directory / "garage").write_text(script, encoding="utf-8")
    (directory / "garage").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An executable named garage, alone in a directory at the head of PATH."""
    script = f'#!/bin/sh\nPYTHONPATH={TESTS} exec {sys.executable} -m support.garage_stand_in "$@"\n'
    put_on_path(tmp_path / "bin", monkeypatch, script)
    # would replace what is in the configuration file
    monkeypatch.setenv("GARAGE_ADMIN_TOKEN", "other")
    return tmp_path / "bin" / "garage"


def use(server: GarageServer) -> list[str]:
    """Make something through both APIs; the names of the keys that are there then."""
    admin = Client(http_sender(server.admin_url, server.admin_token))
    key = admin.post("CreateKey", {"name": "one"})
    s3 = s3_client(server.s3_endpoint, server.plan.region, key["accessKeyId"], key["secretAccessKey"])
    assert s3.list_buckets()["Buckets"] == []
    return [row["name"] for row in admin.get("ListKeys")]


def test_the_program_is_used_and_ended(program: Path) -> None:
    with garage_server(region="somewhere") as server:
        assert server.program == str(program)
        assert use(server) == ["one"]
        layout = Client(http_sender(server.admin_url, server.admin_token)).get("GetClusterLayout")
        assert (layout["version"], len(layout["roles"])) == (1, 1)
        assert server.plan.region == "somewhere"
        first, process = server.plan.config.read_text(encoding="utf-8"), server._process
        server.stop()
        assert process is not None
        assert process.returncode == 0
        assert (server.plan.directory / "meta" / "ended").exists()
        server.start()
        assert use(server) == ["one", "one"]
        assert server.plan.config.read_text(encoding="utf-8") == first
        process = server._process
    assert process is not None
    assert process.poll() == 0
    assert not server.plan.directory.exists()


def test_without_a_program_the_simulator_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with garage_server() as server:
        assert server.program is None
        assert use(server) == ["one"]
        server.stop()
        server.start()
        assert use(server) == ["one", "one"]
    assert not server.plan.directory.exists()


def test_a_program_that_fails_is_told_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(tmp_path / "bin", monkeypatch, "#!/bin/sh\necho 'no such engine' >&2\nexit 1\n")
    with pytest.raises(RuntimeError, match="no such engine"), garage_server():
        pass


@pytest.mark.parametrize(
    ("told", "engine"),
    [
        ("garage v2.3.0 [features: k2v, lmdb, sqlite]", "lmdb"),
        ("garage v2.3.0 [features: bundled-libs, sqlite]", "sqlite"),
        ("garage", "lmdb"),
    ],
)
def test_the_database_is_one_that_the_build_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, engine: str
) -> None:
    put_on_path(tmp_path / "bin", monkeypatch, f"#!/bin/sh\necho '{told}'\n")
    assert real.engine(str(real.program())) == engine


def test_the_configuration_is_private_and_complete(tmp_path: Path) -> None:
    plan = real.Plan(
        tmp_path, "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4", 'quo"ted', admin_token="t\\n"
    )
    text = real.configuration(plan, "ab" * 32, "sqlite")
    config = tomllib.loads(text)
    assert config["s3_api"] == {"s3_region": 'quo"ted', "api_bind_addr": "127.0.0.1:2"}
    assert config["admin"] == {"api_bind_addr": "127.0.0.1:1", "admin_token": "t\\n"}
    assert config["replication_factor"] == 1
    plan.config.write_text(text, encoding="utf-8")
    plan.config.chmod(0o644)
    with pytest.raises(ValueError, match="others can read"):
        checked(plan.config)
    plan.config.chmod(stat.S_IRUSR)
    assert checked(plan.config) == config
    assert repr(plan).count("t\\n") == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [("indx = 1\n", "unknown"), ("replication_factor = 'none'\n", "invalid"), ("", "missing"), ("x", "Expected")],
)
def test_the_stand_in_is_strict(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "garage.toml").write_text(line, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "support.garage_stand_in", "-c", str(tmp_path / "garage.toml"), "server"],
        env={"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert told in done.stderr
