# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays whose secrets are looked for afterwards: in output, logs, results, files that are left and command lines."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[4]
LOOK_SECONDS = 0.01
RUN_SECONDS = 600
Task = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """What a play has shown to the outside.

    :param results: what each task returned, in order; those that failed too.
    :param places: texts by the place where they were found.
    """

    results: list[dict[str, Any]]
    places: Mapping[str, str]

    def traces(self, secrets: Mapping[str, str], **more: str) -> list[str]:
        """Where secrets are to be seen, as "name in place"; *more* are further places, such as a server's log."""
        return [
            f"{name} in {place}"
            for place, text in {**self.places, **more}.items()
            for name, secret in secrets.items()
            if any(form in text for form in forms(secret))
        ]


def forms(secret: str) -> set[str]:
    """The secret as it is, as JSON writes it, in base64 and hashed without salt."""
    raw = secret.encode()
    encoded = base64.b64encode(raw).decode()
    return {secret, json.dumps(secret)[1:-1], encoded, hashlib.sha256(raw).hexdigest()}


def runs(module: str, arguments: Mapping[str, Any], *failing: Mapping[str, Any]) -> list[Task]:
    """Check mode, the first run, a second one, and one for each of *failing*, which stand over the arguments."""
    name = f"fediversity.hosting.{module}"
    usual = {name: dict(arguments)}
    return [{**usual, "check_mode": True}, usual, usual, *({name: {**arguments, **wrong}} for wrong in failing)]


def played(directory: Path, tasks: Sequence[Task], variables: Mapping[str, Any]) -> Seen:
    """Run *tasks* with -vvv and --diff; *variables* come from a file, so that no task's source holds a secret."""
    given, left = directory / "given", directory / "left"
    for folder in (given, left, left / "tmp"):
        folder.mkdir(exist_ok=True)
    results = left / "results.json"
    names = [f"result_{number}" for number in range(len(tasks))]
    steps = [{**task, "register": name, "ignore_errors": True} for name, task in zip(names, tasks, strict=True)]
    kept = "{{ [" + ", ".join(names) + "] | to_json }}"
    steps.append({"ansible.builtin.copy": {"content": kept, "dest": str(results), "mode": "0600"}})
    play = {"hosts": "localhost", "gather_facts": False, "vars_files": [str(given / "vars.json")], "tasks": steps}
    (given / "vars.json").write_text(json.dumps(variables), encoding="utf-8")
    (given / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
    process = subprocess.Popen(
        [
            *(Path(sys.executable).with_name("ansible-playbook"), "-vvv", "--diff", "-i", "localhost,"),
            *("-e", "ansible_connection=local", "-e", f"ansible_python_interpreter={sys.executable}"),
            given / "play.yml",
        ],
        env=_environment(left),
        cwd=given,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    with Watch(process.pid) as watch:
        try:
            output = process.communicate(timeout=RUN_SECONDS)[0]
        finally:
            process.kill()
    assert process.returncode == 0, output
    places = {"what was printed": output, "a command line": "\n".join(watch.commands)}
    places |= {
        str(path.relative_to(directory)): path.read_text(encoding="utf-8", errors="replace")
        for path in left.rglob("*")
        if path.is_file()
    }
    return Seen(json.loads(results.read_text(encoding="utf-8")), places)


# of the runs that do not fail
USUAL = [(True, False), (True, False), (False, False)]


def outcomes(seen: Seen) -> list[tuple[bool, bool]]:
    """``changed`` and ``failed`` of every task."""
    return [(result["changed"], result.get("failed", False)) for result in seen.results]


def _environment(left: Path) -> dict[str, str]:
    taken = ("ANSIBLE_", "PG", "GARAGE_", "DNS_", "VALKEY_", "FEDIVERSITY_")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(taken)},
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_HOME": str(left / "home"),
        "ANSIBLE_LOCAL_TEMP": str(left / "local"),
        "ANSIBLE_REMOTE_TEMP": str(left / "remote"),
        "ANSIBLE_LOG_PATH": str(left / "ansible.log"),
        "ANSIBLE_NOCOLOR": "1",
        "TMPDIR": str(left / "tmp"),
    }


class Watch:
    """Collects the command lines of a process and all its children while the block runs."""

    def __init__(self, process: int) -> None:
        self.commands: set[str] = set()
        self._process = process
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            self.commands.update(command_lines(self._process))


def command_lines(process: int) -> Iterator[str]:
    """The command line of *process* and those of its children, as far as they still run."""
    try:
        yield Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        threads = list(Path(f"/proc/{process}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text("ascii").split()]
    except OSError:
        return
    for child in children:
        yield from command_lines(child)
