# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lab.story import Lab, Run


@dataclass
class Estate:
    """A lab with everything that was ever printed in it, for the search for secrets at the end."""

    lab: Lab
    transcript: list[str] = field(default_factory=list)

    def import_operators(self, document: dict[str, Any] | None = None) -> Run:
        return self._kept(self.lab.import_operators(document))

    def site(self, *arguments: str) -> Run:
        return self._kept(self.lab.site(*arguments))

    def execute(self, *command: str) -> Run:
        return self._kept(self.lab.execute(*command))

    def command(self, *arguments: str) -> Run:
        return self._kept(self.lab.command(*arguments))

    def pages(self) -> dict[str, dict[str, Any]]:
        """URL -> {status, content, error} of every enabled deployment."""
        return {page["url"]: page for page in self.lab.pages()}

    def states(self) -> dict[str, tuple[str, str]]:
        """Deployment -> (state, message) as the operator database records it."""
        run = self.execute(
            *("env", "ANSIBLE_CALLBACK_RESULT_FORMAT=json", "ansible", "localhost", "-i", "localhost,"),
            *("-m", "fediversity.hosting.fleet_report"),
        )
        found = json.loads(run.output.partition("=>")[2])["deployments"]
        return {f"{row['operator']}/{row['deployment']}": (row["state"], row["message"]) for row in found}

    def _kept(self, run: Run) -> Run:
        self.transcript.append(run.output)
        return run


@pytest.fixture(scope="session")
def estate() -> Iterator[Estate]:
    """A lab of its own, stopped at the end whatever happens."""
    with tempfile.TemporaryDirectory(prefix="fediversity-") as folder:
        lab = Lab(Path(folder) / "lab")
        try:
            run = lab.command("up")
            assert run.code == 0, run.output
            yield Estate(lab)
        finally:
            lab.command("down")


@dataclass(frozen=True)
class Converged:
    """The first runs on an empty lab."""

    estate: Estate
    imported: Run
    predicted: Run
    first: Run
    second: Run


@pytest.fixture(scope="session")
def converged(estate: Estate) -> Converged:
    """Import, check mode, site.yml, site.yml again; every test starts from here and leaves it converged."""
    imported = estate.import_operators()
    assert imported.code == 0, imported.output
    predicted = estate.site("--check", "--diff")
    first = estate.site("-vvv", "--diff")
    assert first.code == 0, first.output[-20000:]
    return Converged(estate, imported, predicted, first, estate.site())
