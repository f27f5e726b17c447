# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Evaluating and building a system on the controller, on the machine itself or on another host.

A build host gets one constant command line and, on standard input, an archive (parcel.py) with the shell text and the
configuration: nothing that anybody wrote is ever a word of a command line on the way. The directory into which it is
unpacked is private and removed in every case, also when the connection is lost.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    HostingError,
    InvalidInput,
    MissingCommand,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos import source
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.copy import SshTarget
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.parcel import Tree, parcel, tracked_files
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.remote import Clock
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.source import Wanted

FIND_NIX = "PATH=$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin; export PATH; "
"""A login over SSH that is not interactive may lack the directories in which Nix is."""

RECEIVE = (
    f"{FIND_NIX}umask 077; place=$(mktemp -u /var/tmp/fediversity-build.XXXXXXXXXX) || exit; "
    "trap 'rm -rf \"$place\"' EXIT; trap 'exit 1' HUP INT TERM PIPE; "
    'mkdir "$place" || { place=; exit 1; }; '
    'tar -xof - -C "$place" && /bin/sh "$place/run" "$place"'
)
"""Unpacks standard input and runs what it says. The traps stand before the directory does; -o: the files belong to
whoever unpacks them."""

CLOCK = Clock()
PAUSE = 5
"""Seconds between two lines of progress."""


@dataclass(frozen=True)
class BuildHost:
    """A host with Nix; `ssh` are the words that reach it, none for the controller itself."""

    name: str
    ssh: tuple[str, ...] = ()

    def words(self, command: str) -> list[str]:
        """The command line that runs a shell text of ours there, whatever the login shell is."""
        shell = ["/bin/sh", "-c", command]
        return [*self.ssh, shlex.join(shell)] if self.ssh else shell


CONTROLLER = BuildHost("the controller")


def over_ssh(name: str, target: SshTarget) -> BuildHost:
    """A host behind Ansible's SSH connection. The words use a shared connection that exists and never open one:
    its process would keep our pipes open."""
    return BuildHost(name, (target.executable, "-o", "ControlMaster=no", *target.arguments, target.host))


@dataclass(frozen=True)
class Said:
    """How a shell text ended; `errors` holds the last lines of standard error."""

    code: int
    output: str
    errors: str


def realise(wanted: Wanted, place: BuildHost, progress: Callable[[str], None], clock: Clock = CLOCK) -> str:
    """Evaluate and build on `place`, and keep the system from its garbage collector.

    :returns: its store path.
    :raises MissingCommand: there is no Nix.
    :raises Unreachable: no connection, or it was lost.
    :raises BackendError: with Nix' own error.
    """
    progress(f"building {source.shown(wanted)} on {place.name}")
    return _perform(source.realise_script, wanted, place, progress, clock)


def foresee(wanted: Wanted, place: BuildHost, progress: Callable[[str], None], clock: Clock = CLOCK) -> str:
    """The store path that `realise` would give: evaluates on `place` and builds nothing; raises the same."""
    return _perform(source.foresee_script, wanted, place, progress, clock)


def _perform(
    script: Callable[[Wanted, str], str],
    wanted: Wanted,
    place: BuildHost,
    progress: Callable[[str], None],
    clock: Clock,
) -> str:
    tree = _tree(wanted) if place.ssh else None
    text = script(wanted, source.reference_there(wanted, None if tree is None else tree.directory))
    with parcel(text, tree) as archive:
        said = run(place, archive, _spaced(progress, clock))
    if said.code != 0:
        raise _failure(said, wanted, place, tree)
    return source.system_path(said.output)


def _tree(wanted: Wanted) -> Tree | None:
    """What has to be sent to a host that is not the controller; nothing for a flake that it can fetch."""
    if wanted.directory is None:
        return None
    path = Path(wanted.directory)
    if not path.exists():
        raise InvalidInput(f"{path} does not exist", where=wanted.kind)
    directory = path if path.is_dir() else path.parent
    files = tracked_files(directory) if wanted.kind == "flake" else None
    return Tree(directory, source.sent_name(wanted, directory), files)


def run(place: BuildHost, archive: IO[bytes], hear: Callable[[str], None]) -> Said:
    """Run a parcel on `place`; every line of standard error goes to `hear` as it comes."""
    last: deque[str] = deque(maxlen=300)
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            place.words(RECEIVE), stdin=archive, stdout=output, stderr=subprocess.PIPE, start_new_session=True
        ) as process,
    ):
        try:
            for raw in process.stderr or ():
                line = raw.decode(errors="replace")
                last.append(line)
                hear(line)
        except BaseException:
            end(process)
            raise
        process.wait()
        output.seek(0)
        return Said(process.returncode, output.read().decode(errors="replace"), "".join(last))


def end(process: subprocess.Popen[bytes]) -> None:
    """End a command that leads a process group of its own, Nix included, so that its shell can clean up."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _spaced(progress: Callable[[str], None], clock: Clock) -> Callable[[str], None]:
    """Hears Nix' lines and passes one on every few seconds."""
    due = clock.now()

    def hear(line: str) -> None:
        nonlocal due
        text = source.news(line)
        if text and clock.now() >= due:
            due = clock.now() + PAUSE
            progress(text)

    return hear


def _failure(said: Said, wanted: Wanted, place: BuildHost, tree: Tree | None) -> HostingError:
    what = source.shown(wanted)
    if said.code not in (source.NO_EVALUATION, source.NO_BUILD):
        return host_failure(said, place, f"build {what}")
    text = source.nix_error(said.errors, "" if tree is None else str(tree.directory.parent))
    verb = "evaluated" if said.code == source.NO_EVALUATION else "built"
    return BackendError(f"nothing was changed, {what} cannot be {verb} on {place.name}: {text}")


def host_failure(said: Said, place: BuildHost, task: str) -> HostingError:
    """The error of a host that could not even start with what it was asked."""
    text = re.sub(r"\s+", " ", said.errors).strip()[-500:].rstrip(".")
    if said.code == source.NO_NIX:
        return MissingCommand(
            f"Nix is not installed on {place.name}", hint="Install it there, or choose another host with build_on"
        )
    if place.ssh and said.code == 255:
        return Unreachable(f"{place.name} could not be reached to {task}: {text}", hint="Nothing was changed")
    return BackendError(f"{place.name} could not {task} (code {said.code}): {text}", hint="Nothing was changed")
