# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input and faults: one clear message each, nothing lost, the other deployments go on, a plain re-run converges."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab.story import ROOT, application, operators, with_title

pytestmark = pytest.mark.lab

ALICE, DORA = "http://social.alice.fedi.test/", "http://gallery.dora.fedi.test/"
Document = dict[str, Any]


def title_of(estate: Any, url: str) -> str:
    return str(estate.pages()[url]["content"]["instance"]["settings"]["title"])


@pytest.fixture
def settled(converged: Any) -> Any:
    """The converged estate, brought back to its own operators.yml afterwards."""
    yield converged.estate
    converged.estate.import_operators()
    run = converged.estate.site()
    assert run.code == 0, run.output


def both_retitled(title: str) -> Document:
    """A change on a virtual machine and one on the existing host."""
    return with_title(with_title(operators(), "alice", "social", title), "dora", "gallery", title)


def unknown_application(document: Document) -> None:
    application(document, "alice", "social")["application"] = "fotografen"


def claimed_domain(document: Document) -> None:
    application(document, "dora", "gallery")["domain"] = application(document, "alice", "social")["domain"]


def refused_setting(document: Document) -> None:
    application(document, "alice", "social")["settings"]["title"] = 5


@pytest.mark.parametrize(
    ("spoil", "fragments"),
    [
        (unknown_application, ("application", "'fotografen'", "mastodon, peertube, pixelfed")),
        (claimed_domain, ("domain", "social.alice.fedi.test", "alice")),
        (refused_setting, ("settings.title", "5")),
    ],
)
def test_an_import_that_is_wrong_names_file_line_and_field_and_writes_nothing(
    converged: Any, spoil: Callable[[Document], None], fragments: tuple[str, ...]
) -> None:
    document = operators()
    spoil(document)
    run = converged.estate.import_operators(document)
    assert run.code != 0
    assert "operators.yml:" in run.output
    for fragment in fragments:
        assert fragment in run.output
    assert converged.estate.import_operators().changed == 0


@pytest.mark.parametrize(
    ("spoiled", "fragment"),
    [
        ("PROXMOX_PORT=1", "10.99.0.1"),
        ("PROXMOX_TOKEN_SECRET=00000000-0000-0000-0000-000000000000", "token"),
    ],
)
def test_without_proxmox_the_existing_host_still_converges(settled: Any, spoiled: str, fragment: str) -> None:
    settled.import_operators(both_retitled("Without Proxmox"))
    before = title_of(settled, ALICE)
    run = settled.execute("env", spoiled, "ansible-playbook", "site.yml")
    assert run.code != 0
    assert fragment in run.output
    assert "Traceback" not in run.output
    assert title_of(settled, DORA) == "Without Proxmox"
    assert title_of(settled, ALICE) == before
    assert settled.states()["alice/social"][0] == "blocked"
    assert settled.states()["dora/gallery"] == ("running", "")

    assert settled.site().code == 0
    assert title_of(settled, ALICE) == "Without Proxmox"


def test_an_expression_that_fails_to_evaluate_holds_back_its_own_machine_only(settled: Any) -> None:
    document = both_retitled("One evaluates")
    application(document, "alice", "social")["nixos_options"] = {"services": {"nosuchservice": {"enable": True}}}
    settled.import_operators(document)
    run = settled.site()
    assert run.code != 0
    assert "nosuchservice" in settled.states()["alice/social"][1]
    assert settled.states()["alice/social"][0] == "blocked"
    assert title_of(settled, DORA) == "One evaluates"


def test_a_machine_that_never_answers_fails_alone(settled: Any) -> None:
    settled.import_operators(both_retitled("One is silent"))
    settled.command("cut", "existing1")
    try:
        run = settled.site("-e", "nixos_machine_connect_timeout=5")
    finally:
        settled.command("uncut", "existing1")
    assert run.code != 0
    assert "existing1" in run.output
    state, message = settled.states()["dora/gallery"]
    assert state == "failed"
    assert "10.99.0.20" in message or "existing1" in message
    assert title_of(settled, ALICE) == "One is silent"
    assert settled.site().code == 0
    assert title_of(settled, DORA) == "One is silent"


def test_a_controller_without_nix_says_so(settled: Any) -> None:
    settled.import_operators(both_retitled("Without Nix"))
    run = settled.execute("unshare", "--mount", "sh", "-c", HIDE_NIX)
    assert run.code != 0
    assert "nix" in run.output
    assert "Traceback" not in run.output
    assert settled.states()["alice/social"][0] == "blocked"


# the programs of Nix hidden behind an empty file, for one command only
HIDE_NIX = """
for program in nix nix-build nix-instantiate nix-store nix-copy-closure nix-env; do
    [ ! -e /usr/bin/$program ] || mount --bind /dev/null /usr/bin/$program
done
exec ansible-playbook site.yml
"""


def test_a_missing_python_library_is_named(converged: Any, tmp_path: Path) -> None:
    for library in ("sqlalchemy", "dns", "proxmoxer"):
        (tmp_path / f"{library}.py").write_text(f"raise ModuleNotFoundError(name={library!r})\n", encoding="utf-8")
    run = converged.estate.execute("env", f"PYTHONPATH={tmp_path}", "ansible-playbook", "site.yml")
    assert run.code != 0
    assert "sqlalchemy" in run.output.lower()
    assert "pip install" in run.output
    assert "Traceback" not in run.output


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_controller_killed_at_any_moment_and_run_again_converges(settled: Any, seed: int) -> None:
    title = f"Killed {seed}"
    settled.import_operators(both_retitled(title))
    process = subprocess.Popen(
        [str(ROOT / "lab"), "exec", "--", "ansible-playbook", "site.yml"],
        cwd=ROOT,
        env={**os.environ, "LAB_STATE": str(settled.lab.state)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    delay = random.Random(seed).uniform(2, 14)
    print(f"seed {seed}: killed after {delay:.1f} s")
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    run = settled.site()
    assert run.code == 0, run.output
    assert title_of(settled, ALICE) == title
    assert title_of(settled, DORA) == title
    assert settled.site().changed == 0
