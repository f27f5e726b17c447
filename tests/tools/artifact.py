# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the collection, install the artifact into an empty folder and read every module's documentation from there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ARTIFACT = "fediversity-hosting-0.1.0.tar.gz"


def install(target: Path) -> Path:
    """Build the artifact and install it below *target*; return the collections path."""
    collections = target / "collections"
    # neither the checkout's configuration nor its link to itself, which galaxy takes for an installed collection
    environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"}
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(collections)
    galaxy = (sys.executable, "-m", "ansible", "galaxy", "collection")
    for arguments in (
        ("build", "--output-path", str(target), str(ROOT)),
        ("install", "--offline", "-p", str(collections), str(target / ARTIFACT)),
    ):
        subprocess.run([*galaxy, *arguments], check=True, cwd=target, env=environment, stdout=subprocess.DEVNULL)
    return collections


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        collections = install(Path(folder))
        installed = collections / "ansible_collections" / "fediversity" / "hosting"
        names = [f"fediversity.hosting.{path.stem}" for path in sorted((installed / "plugins/modules").glob("*.py"))]
        environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"}
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(collections)
        command = [sys.executable, "-m", "ansible", "doc", "--json", *names]
        shown = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
        missing = [name for name in names if f'"{name}"' not in shown.stdout]
        needed = [
            path for path in ("nix/fleet.nix", "playbooks/site.yml", "COPYING") if not (installed / path).is_file()
        ]
        for name in missing + needed:
            print(f"not in the installed artifact: {name}", file=sys.stderr)
        print(f"{len(names) - len(missing)} modules documented in the installed artifact")
        return 1 if missing or needed else 0


if __name__ == "__main__":
    sys.exit(main())
