# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs Ansible's real programs for the tests of the plugins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ansible_collections.fediversity.hosting.plugins.plugin_utils import catalogue

COLLECTIONS = Path(catalogue.__file__).parents[5]


def ansible(program: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run e.g. ``ansible-playbook`` with nothing of this machine's configuration."""
    own = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_INVENTORY_ENABLED": "fediversity.hosting.operator_db,ansible.builtin.host_list,ansible.builtin.ini",
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "ANSIBLE_NOCOLOR": "true",
        "LC_ALL": "C.UTF-8",
    }
    command = [sys.executable, "-m", "ansible", program, *arguments]
    whole = own | environment
    return subprocess.run(command, cwd=cwd, env=whole, capture_output=True, text=True, timeout=120, check=False)
