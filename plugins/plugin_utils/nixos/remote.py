# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running shell text on a machine over the connection of an Ansible task; no Python is needed there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, Unreachable
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.scripts import COMMAND

# A connection must notice silence: an activation may cut it. OpenSSH takes the first value of an option, so these lead.
WATCHFUL = "-o ServerAliveInterval=3 -o ServerAliveCountMax=3"
NEW_CONNECTION = f"-o ControlPath=none -o ControlMaster=no -o ConnectTimeout=5 {WATCHFUL}"
NOTHING_DONE = "Check that it runs, its address, and the SSH key; nothing was changed. Then run again"
CHANGED_KEY = (
    "Nothing was changed. If the machine was made anew, forget its old key (fediversity.hosting.forget_host_key,"
    " ssh-keygen -R) and run again; if it was not, find out who answers at its address"
)
HOPELESS = ("Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED")


class Machine(Protocol):
    """A machine that runs shell text."""

    def run(self, script: bytes) -> str:
        """Run the text and return its standard output.

        :raises Unreachable: no connection, or it was lost.
        :raises BackendError: the text could not run.
        """

    def run_over_new_connection(self, script: bytes) -> str:
        """The same, over a connection that is made now and shared with nothing."""

    def forget_connection(self) -> None:
        """Close the shared connection, so that the next `run` makes a new one."""


@dataclass(frozen=True)
class Clock:
    """Seconds of a monotonic clock and waiting, replaceable in tests."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class AnsibleMachine:
    """A machine behind the connection of an action plugin (become included)."""

    def __init__(self, action: Any) -> None:
        self._action = action
        self._connection = action._connection

    def run(self, script: bytes) -> str:
        with self._ssh_arguments(WATCHFUL):
            return self._run(script)

    def run_over_new_connection(self, script: bytes) -> str:
        if not self._connection.has_option("ssh_args"):
            self.forget_connection()
        with self._ssh_arguments(NEW_CONNECTION):
            return self._run(script)

    def forget_connection(self) -> None:
        reset = getattr(self._connection, "reset", None)
        if reset is not None:
            reset()

    def _run(self, script: bytes) -> str:
        try:
            done = self._action._low_level_execute_command(COMMAND, in_data=script)
        except AnsibleConnectionFailure as error:
            if "privilege escalation" in str(error):
                raise _not_root(str(error)) from error
            raise Unreachable(_one_line(str(error))) from error
        except AnsibleError as error:  # a become plugin that lacks its password
            raise _not_root(str(error)) from error
        if done["rc"] != 0:
            text = _one_line(done["stderr"] or done["stdout"])
            if "password" in text or "not allowed" in text or "sudoers" in text:
                raise _not_root(text)
            raise BackendError(f"the machine could not run the shell payload (code {done['rc']}): {text}")
        return str(done["stdout"])

    @contextmanager
    def _ssh_arguments(self, first: str) -> Iterator[None]:
        """Put words before the connection's own; connection plugins other than ssh have none."""
        if not self._connection.has_option("ssh_args"):
            yield
            return
        before = self._connection.get_option("ssh_args") or ""
        self._connection.set_option("ssh_args", f"{first} {before}")
        try:
            yield
        finally:
            self._connection.set_option("ssh_args", before)


def _not_root(text: str) -> BackendError:
    return BackendError(
        f"the administrator's rights were refused: {_one_line(text)}",
        hint="Give become_password, or let the user become root without one; nothing was changed",
    )


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and "Permanently added" not in line]
    return " ".join(lines)[-500:].rstrip(".")


@dataclass(frozen=True)
class Waiting:
    """How to wait for a machine: for `timeout` seconds (0 tries once), telling `progress` why every ten seconds or so.

    When there is no answer, `error` is raised, and `hint` says what to do.
    """

    timeout: int
    progress: Callable[[str], None]
    clock: Clock = field(default_factory=Clock)
    hint: str = NOTHING_DONE
    error: type[Unreachable] = Unreachable


def first_contact(machine: Machine, script: bytes, waiting: Waiting) -> str:
    """Run `script` as soon as the machine answers: it may still be booting.

    :raises Unreachable: no answer in that time, or one that waiting does not heal (host key).
    :raises BackendError: the text could not run, for example without the administrator's rights.
    """
    clock, timeout = waiting.clock, waiting.timeout
    start = clock.now()
    pause, told = 0.5, 0.0
    while True:
        try:
            return machine.run(script)
        except Unreachable as error:
            if any(text in error.what for text in HOPELESS):
                raise Unreachable(f"its SSH host key is not the known one: {error.what}", hint=CHANGED_KEY) from error
            waited = clock.now() - start
            if waited >= timeout:
                raise waiting.error(
                    f"the machine did not answer within {timeout} s: {error.what}",
                    hint=waiting.hint,
                ) from error
            if waited - told >= 10 or told == 0.0:
                waiting.progress(f"waiting for SSH, {waited:.0f} of {timeout} s: {error.what}")
                told = max(waited, 0.1)
            machine.forget_connection()
            clock.sleep(min(pause, max(timeout - waited, 0.0)))
            pause = min(pause * 1.5, 5.0)
