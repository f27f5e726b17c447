# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Nix store of the tests' own: real Nix, no daemon, nothing outside the temporary directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
NIXPKGS = ROOT / "tests/lab/nixpkgs"


@pytest.fixture(scope="session")
def nix_environment() -> Iterator[dict[str, str]]:
    """Environment in which Nix uses a private store; it is removed afterwards."""
    base = Path(tempfile.mkdtemp(prefix="fediversity-nix-"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIX_")}
    environment |= {
        "NIX_STORE_DIR": str(base / "store"),
        "NIX_STATE_DIR": str(base / "state"),
        "NIX_LOG_DIR": str(base / "log"),
        "NIX_CONF_DIR": str(base / "etc"),
        "NIX_CONFIG": "substituters =\nsandbox = false\nbuild-users-group =\n",
        "XDG_CACHE_HOME": str(base / "cache"),
    }
    try:
        yield environment
    finally:
        # the store is read-only for those who are not root
        for directory, _names, _files in os.walk(base):
            os.chmod(directory, 0o700)
        shutil.rmtree(base)


@pytest.fixture
def write_fleet(tmp_path: Path) -> Callable[[Any], str]:
    """Writes a fleet file and returns its path."""

    def write(content: Any) -> str:
        path = tmp_path / "fleet.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(scope="session")
def nix(nix_environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in the private store's environment."""

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=nix_environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def lib_eval(nix: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[[str], Any]:
    """Value of a Nix expression in which the stand-in's `lib` is in scope; an error raises with Nix' text."""

    def evaluate(expression: str) -> Any:
        text = f"with import {NIXPKGS}/lib; {expression}"
        done = nix("nix-instantiate", "--eval", "--strict", "--json", "-E", text)
        if done.returncode != 0:
            raise ValueError(done.stderr)
        return json.loads(done.stdout)

    return evaluate
