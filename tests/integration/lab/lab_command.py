# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running ./lab in a test."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab import control
from lab.paths import CHECKOUT, State


@dataclass(frozen=True)
class Lab:
    """The commands of ./lab for one state directory."""

    state: State

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "LAB_STATE": str(self.state.root)}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ./lab."""
        return subprocess.Popen([CHECKOUT / "lab", *arguments], env=self.environment, text=True)

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ./lab, however it ends."""
        command = [CHECKOUT / "lab", *arguments]
        return subprocess.run(
            command, env=self.environment, text=True, capture_output=True, check=False, timeout=300,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def __call__(self, *arguments: str, fails: bool = False) -> str:
        """Run ./lab; its standard output. It must succeed, or with `fails` must not."""
        result = self.attempt(*arguments)
        assert (result.returncode != 0) == fails, f"lab {' '.join(arguments)}: {result.returncode}\n{result.stderr}"
        return result.stdout

    def sh(self, script: str, *, fails: bool = False) -> str:
        """Run a shell script on the controller; `$ssh` is there a command that logs in without asking."""
        start = 'ssh="ssh -o BatchMode=yes -o ConnectTimeout=2 -i $ANSIBLE_PRIVATE_KEY_FILE $ANSIBLE_SSH_COMMON_ARGS"; '
        return self("exec", "--", "bash", "-c", start + script, fails=fails)

    def host(self, name: str) -> dict[str, Any]:
        rows = json.loads(self("status", "--json"))["hosts"]
        return next(row for row in rows if row["name"] == name)

    def ask(self, verb: str, **arguments: Any) -> Any:
        return control.request(self.state, verb, **arguments)


def until(holds: Callable[[], bool], patience: float = 60) -> None:
    """Wait for something that the machine needs a moment for; a loaded one needs longer."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
