# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab of their own for the tests of the guarded switch, ended whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from guard_lab import ADDRESS, ROOT, GuardedHost

ARGUMENTS = (
    f'--arg nixpkgs "$FEDIVERSITY_NIXPKGS" --argstr address {ADDRESS} '
    '--argstr key "$(cat "$FEDIVERSITY_AUTHORIZED_KEYS_FILE")"'
)
SYSTEMS = "tests/integration/guard/systems.nix"


@pytest.fixture(scope="session")
def guarded_lab() -> Iterator[GuardedHost]:
    with tempfile.TemporaryDirectory(prefix="guard-lab-") as directory:
        environment = {**os.environ, "LAB_STATE": str(Path(directory, "lab"))}
        environment.pop("LAB_KEEP", None)
        try:
            subprocess.run([ROOT / "lab", "up"], env=environment, check=True, timeout=600)
            yield GuardedHost(environment, Path(directory), _systems(environment))
        finally:
            subprocess.run([ROOT / "lab", "down"], env=environment, check=True, timeout=120)


def _systems(environment: dict[str, str]) -> dict[str, str]:
    """Build every system of systems.nix; name → store path."""
    script = (
        f"nix-build --no-out-link {SYSTEMS} {ARGUMENTS} >/dev/null && "
        f"nix-instantiate --eval --strict --json {SYSTEMS} {ARGUMENTS}"
    )
    command = [ROOT / "lab", "exec", "--", "sh", "-c", script]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return dict(json.loads(done.stdout))


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
