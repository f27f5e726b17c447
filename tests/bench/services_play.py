# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks as a user runs them, under the Ansible that holds both sides, and what they cost."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# of the callback plugin ansible.posix.profile_tasks
TASK_SECONDS = re.compile(r"^(?P<name>\S.*?) -{2,} (?P<seconds>[\d.]+)s$", re.MULTILINE)


@dataclass(frozen=True)
class Cost:
    """What a playbook costs.

    :param seconds: wall clock, with the start of ansible-playbook.
    :param cpu: seconds of CPU time of ansible-playbook and everything that it started, not of the servers.
    :param task: seconds of its slowest task as Ansible counts them.
    :param output: what Ansible printed.
    """

    seconds: float
    cpu: float
    task: float = 0.0
    output: str = field(default="", repr=False)

    @property
    def changed(self) -> bool:
        """Whether a task has reported a change."""
        return "changed=0" not in self.output

    def extrapolated(self, empty: Cost, done: int, wanted: int) -> Cost:
        """The same for *wanted* items instead of *done*; *empty* is a playbook without any."""
        factor = wanted / done
        return replace(
            self,
            seconds=empty.seconds + (self.seconds - empty.seconds) * factor,
            cpu=empty.cpu + (self.cpu - empty.cpu) * factor,
        )


@dataclass(frozen=True)
class Ansible:
    """The virtual environment with the package ansible, and a place for files."""

    venv: Path
    scratch: Path

    def play(
        self, tasks: Sequence[Mapping[str, Any]], variables: Mapping[str, Any], environment: Mapping[str, str]
    ) -> Cost:
        """Run a playbook with *tasks*; *variables* lie in a file, *environment* holds the server and the login.

        :raises SystemExit: it failed, with the end of its output.
        """
        (self.scratch / "vars.json").write_text(json.dumps(variables), encoding="utf-8")
        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "vars_files": ["vars.json"],
            "vars": {
                "ansible_connection": "local",
                "ansible_python_interpreter": str(self.venv / "bin" / "python"),
            },
            "tasks": list(tasks),
        }
        (self.scratch / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        done = subprocess.run(
            [self.venv / "bin" / "ansible-playbook", "-i", "localhost,", "play.yml"],
            env=self._environment(environment),
            cwd=self.scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise SystemExit(f"ansible-playbook ended with {done.returncode}:\n{(done.stdout + done.stderr)[-6000:]}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        tasks_took = [float(match["seconds"]) for match in TASK_SECONDS.finditer(done.stdout)]
        return Cost(seconds, cpu, max(tasks_took, default=0.0), done.stdout)

    def _environment(self, additional: Mapping[str, str]) -> dict[str, str]:
        taken = ("ANSIBLE_", "PYTHONPATH", "PG", "GARAGE_", "DNS_", "VALKEY_")
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(taken)},
            "ANSIBLE_CONFIG": str(self.scratch / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_HOME": str(self.scratch / "home"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
            **additional,
        }


def ansible(scratch: Path) -> Ansible:
    """In *scratch*, an empty directory; BENCH_VENV names another virtual environment."""
    (scratch / "ansible.cfg").touch()
    return Ansible(Path(os.environ.get("BENCH_VENV", ROOT / ".cache" / "bench")), scratch)
