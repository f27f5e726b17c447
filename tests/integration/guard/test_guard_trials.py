# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A few of the random trials (`make chaos`, `make race`), each time with other draws; the seed is in the output."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from guard_lab import ROOT

pytestmark = pytest.mark.lab


def run_trials(module: str, number: int, hosts: int) -> str:
    """Run the program on a lab of its own; its output."""
    path = os.pathsep.join(str(ROOT / part) for part in ("collections", "tests", "tests/integration/guard"))
    command = [sys.executable, "-m", module, "--trials", str(number), "--hosts", str(hosts)]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_random_faults_at_random_moments() -> None:
    output = run_trials("chaos.trials", 12, hosts=3)
    assert "12 trials in" in output
    assert " 0 violations" in output


def test_confirmation_against_deadline() -> None:
    output = run_trials("chaos.race", 20, hosts=3)
    found = re.search(r"20 trials in \d+ s: (\d+) committed, (\d+) rolled back, 0 inconsistent", output)
    assert found, output
    assert min(map(int, found.groups())) >= 4, output  # both sides of the edge were tried
