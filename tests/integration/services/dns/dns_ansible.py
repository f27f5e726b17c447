# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dns_records in a playbook, as a user has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dns_place import ROOT, Result


def playbook(
    directory: Path, *tasks: Mapping[str, Any], variables: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[list[Result], str]:
    """Run tasks, each dns_records with its arguments and keywords, with -vvv; their results and what was printed."""
    output = directory / "results.json"
    names = [f"result_{number}" for number in range(len(tasks))]
    steps: list[dict[str, Any]] = [
        {
            **{key if "_mode" in key else f"fediversity.hosting.{key}": value for key, value in task.items()},
            "register": name,
            "ignore_errors": True,
        }
        for name, task in zip(names, tasks, strict=True)
    ]
    kept = "{{ [" + ", ".join(names) + "] | to_json }}"
    steps.append({"ansible.builtin.copy": {"content": kept, "dest": str(output), "mode": "0600"}})
    play = directory / "play.yml"
    play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": steps}]), encoding="utf-8")
    secrets = directory / "variables.json"
    secrets.write_text(json.dumps(dict(variables)), encoding="utf-8")
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-vvv", "--diff", "-i", "localhost,", "-e", f"@{secrets}"),
            *("-e", f"ansible_python_interpreter={sys.executable}", "-e", "ansible_connection=local", str(play)),
        ],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "DNS_"))},
            **environment,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_HOME": str(directory / "home"),
            "ANSIBLE_LOG_PATH": str(directory / "ansible.log"),
            "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.host_list,ansible.builtin.yaml",
            "ANSIBLE_NOCOLOR": "1",
        },
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout + done.stderr + (directory / "ansible.log").read_text(encoding="utf-8")
    results: list[Result] = json.loads(output.read_text(encoding="utf-8"))
    return [{"failed": False, **result} for result in results], printed
