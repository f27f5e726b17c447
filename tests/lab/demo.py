# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo: from an operator database to running machines, then a broken deployment that comes back, and its fix."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.story import OPERATORS, ROOT, Lab, Run, operators, with_title, with_wrong_address

OPERATOR, DEPLOYMENT = "alice", "social"
NEXT = """
Where to go next
  LAB_KEEP=1 make demo                              keep the lab running at the end
  ./lab exec -- ansible-playbook site.yml           run it again: nothing changes
  ./lab exec -- ansible-playbook playbooks/status.yml
  ./lab exec -- ansible-inventory --list            the operator database as Ansible sees it
  ./lab status, ./lab doctor, ./lab down
  README.md                                         how to point it at a real Proxmox, Garage, PostgreSQL and DNS
  make test                                         everything that is tested"""


class StepFailed(Exception):
    """A step did not do what the demo promises."""


def heading(text: str) -> None:
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def expect(holds: bool, what: str) -> None:
    """Stop the demo if it does not do what it says."""
    if not holds:
        raise StepFailed(what)


def succeed(run: Run, what: str) -> Run:
    expect(run.code == 0, f"{what} ended with exit code {run.code}")
    return run


def story(lab: Lab) -> None:
    """Tell the story; the lab is up."""
    heading(f"Import {OPERATORS.relative_to(ROOT)} into the operator database")
    succeed(lab.import_operators(), "the import")

    heading("ansible-playbook site.yml: make the world equal to it")
    first = succeed(lab.site(), "site.yml")

    heading("Every deployment, fetched by its name")
    succeed(lab.execute("python", "tests/lab/pages.py"), "fetching the pages")

    heading("ansible-playbook site.yml again: nothing changes")
    second = succeed(lab.site(), "the second site.yml")
    expect(second.changed == 0, "the second run changed something")
    print(f"\nfirst run {first.seconds:.0f} s, second run {second.seconds:.0f} s, changed=0 everywhere")

    before = {page["url"]: page["content"] for page in lab.pages()}
    retitled = with_title(operators(), OPERATOR, DEPLOYMENT, "A new title")
    heading(f"Change {OPERATOR}/{DEPLOYMENT}: a new title, and by mistake a network address that nobody can reach")
    succeed(lab.import_operators(with_wrong_address(retitled, OPERATOR, DEPLOYMENT)), "the import")
    broken = lab.site()
    expect(broken.code != 0, "a broken deployment ended with exit code 0")
    expect("rolled back" in broken.output, "the broken deployment was not rolled back")
    after = {page["url"]: page["content"] for page in lab.pages()}
    expect(after == before, "a page differs from before the broken deployment")
    print(f"\nexit code {broken.code}; rolled back; every URL answers with the content it had before:")
    succeed(lab.execute("python", "tests/lab/pages.py"), "fetching the pages")

    heading("Fix the address, keep the new title")
    succeed(lab.import_operators(retitled), "the import")
    succeed(lab.site(), "site.yml after the fix")
    succeed(lab.execute("python", "tests/lab/pages.py"), "fetching the pages")
    titles = [page["content"]["instance"]["settings"]["title"] for page in lab.pages()]
    expect("A new title" in titles, "the new title is not served")


def main() -> int:
    """Start the lab, tell the story, stop the lab (unless LAB_KEEP is set)."""
    lab = Lab(Path(os.environ.get("LAB_STATE", ROOT / ".lab")), show=True)
    start = time.monotonic()
    heading("Start the lab")
    try:
        succeed(lab.command("up"), "./lab up")
        story(lab)
    except StepFailed as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    finally:
        leave(lab)
    print(f"\nThe demo took {time.monotonic() - start:.0f} s.{NEXT}")
    return 0


def leave(lab: Lab) -> None:
    """Stop the lab, or say how to."""
    if os.environ.get("LAB_KEEP"):
        print("\nThe lab is kept; ./lab down stops it.")
    else:
        heading("Stop the lab")
        lab.command("down")


if __name__ == "__main__":
    sys.exit(main())
