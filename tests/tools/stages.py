# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the named test stages and print one closing line ``N passed, N failed``.

Every linter counts as one check, every pytest case as one; all stages run even when an earlier one failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "ansible_collections.fediversity.hosting.plugins"
# where there is no operator database, a syntax check must do without an inventory
WITHOUT_INVENTORY = ("env", "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=false")
PYTEST = (sys.executable, "-m", "pytest", "-q")


@dataclass(frozen=True)
class Check:
    """One command of a stage; pytest commands report their own numbers."""

    name: str
    command: tuple[str, ...]

    @property
    def is_pytest(self) -> bool:
        return self.command[: len(PYTEST)] == PYTEST


@dataclass(frozen=True)
class Outcome:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)


STAGES: dict[str, tuple[Check, ...]] = {
    "lint": (
        Check("ruff check", ("ruff", "check", ".")),
        Check("ruff format", ("ruff", "format", "--check", ".")),
        Check("mypy module_utils", ("mypy", "-p", f"{PACKAGE}.module_utils")),
        Check("mypy plugin_utils", ("mypy", "-p", f"{PACKAGE}.plugin_utils")),
        Check("shellcheck", ("sh", "tests/tools/shellcheck.sh")),
        Check("ansible-lint", (*WITHOUT_INVENTORY, "ansible-lint", "--profile", "production", "--offline")),
        Check("antsibull-docs", ("antsibull-docs", "lint-collection-docs", "--plugin-docs", ".")),
        Check("antsibull-changelog", ("antsibull-changelog", "lint")),
        Check("galaxy build and install", (sys.executable, "tests/tools/artifact.py")),
        Check("ansible-test sanity", (sys.executable, "tests/tools/sanity.py")),
    ),
    "unit": (Check("unit tests", (*PYTEST, "-n", "4", "tests/unit")),),
    "integration": (Check("integration tests on the lab", (*PYTEST, "-n", "4", "tests/integration")),),
    "molecule": (Check("molecule", ("molecule", "test")),),
}


def run(check: Check) -> Outcome:
    """Run one check with its output on ours."""
    print(f"\n=== {check.name}", flush=True)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "MYPYPATH": str(ROOT / "collections"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        # linters look there for installed collections, and an older copy of this one would win
        "ANSIBLE_HOME": str(ROOT / ".cache" / "ansible"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
    }
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        extra = ("--junitxml", str(report)) if check.is_pytest else ()
        code = subprocess.run(
            [*check.command, *extra], check=False, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL
        ).returncode
        outcome = _counted(report, code) if check.is_pytest else Outcome(passed=int(code == 0), failed=int(code != 0))
    print(f"=== {check.name}: {'ok' if code == 0 else 'FAILED'} ({time.monotonic() - start:.0f} s)", flush=True)
    return outcome


def _counted(report: Path, code: int) -> Outcome:
    """Numbers of a pytest run; a run that ended badly without a failed case counts as one failure."""
    if not report.exists():
        return Outcome(failed=1)
    suite = ElementTree.parse(report).getroot().find("testsuite")
    if suite is None:
        return Outcome(failed=1)
    total, skipped = int(suite.get("tests", "0")), int(suite.get("skipped", "0"))
    failed = int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
    if code != 0 and failed == 0:
        return Outcome(passed=total - skipped, failed=1, skipped=skipped)
    return Outcome(passed=max(total - failed - skipped, 0), failed=failed, skipped=skipped)


def main() -> int:
    """Run the stages named on the command line, all of them by default."""
    names = sys.argv[1:] or list(STAGES)
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        print(f"unknown stage {unknown[0]}; there are: {', '.join(STAGES)}", file=sys.stderr)
        return 2
    start = time.monotonic()
    outcomes = {check.name: run(check) for name in names for check in STAGES[name]}
    total = sum(outcomes.values(), Outcome())
    bad = [name for name, outcome in outcomes.items() if outcome.failed]
    print(f"\nfailed: {', '.join(bad)}" if bad else f"\nall stages passed in {time.monotonic() - start:.0f} s")
    print(f"{total.passed} passed, {total.failed} failed" + (f", {total.skipped} skipped" if total.skipped else ""))
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
