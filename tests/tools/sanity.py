# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ``ansible-test sanity`` from a plain checkout: no container engine, no download of its own.

ansible-test insists on a real path ``ansible_collections/<namespace>/<name>`` and on a bootstrap script for pip that it
would download; the files of the checkout are copied to such a path, and the script is a stand-in around ensurepip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# keeps the virtual environments of the single tests
HOME = ROOT / ".cache" / "sanity"
# the self-referencing link below collections/ is what lets a plain checkout find its own plugins
NOT_COPIED = ("collections/", ".ci/")
BOOTSTRAP = """\
import subprocess, sys
subprocess.check_call([sys.executable, "-m", "ensurepip", "--upgrade", "--default-pip"], stdout=subprocess.DEVNULL)
arguments = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *arguments]) if arguments else 0)
"""


def copy_checkout(collection: Path) -> None:
    """Copy the files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in sorted(filter(None, listed.split("\0"))):
        source = ROOT / name
        if name.startswith(NOT_COPIED) or not source.is_file():
            continue
        target = collection / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def main() -> int:
    """Run all sanity tests, or those named on the command line."""
    cache = HOME / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in ("24_2", "25_2"):
        (cache / f"get_pip_{version}.py").write_text(BOOTSTRAP, encoding="utf-8")
    tests = [argument for name in sys.argv[1:] for argument in ("--test", name)]
    # a real interpreter before any shim of a version manager
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["ansible-test", "sanity", "--python", f"{sys.version_info[0]}.{sys.version_info[1]}", "--color", "no"]
    # outside of the checkout, where ansible-test would ask git and be told that all is ignored
    with tempfile.TemporaryDirectory(prefix="sanity-") as folder:
        collection = Path(folder) / "ansible_collections" / "fediversity" / "hosting"
        copy_checkout(collection)
        return subprocess.run(
            [*command, *tests], check=False, cwd=collection, env={**os.environ, "HOME": str(HOME), "PATH": path}
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
