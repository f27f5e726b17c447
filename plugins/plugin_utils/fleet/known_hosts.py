# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The SSH host keys that the controller knows, in the files that ssh itself would use for a machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, MissingCommand
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.copy import SshTarget


def known_in(target: SshTarget) -> list[tuple[Path, str]]:
    """The files that hold a host key of the target, with the name that it has there (ssh_config(5), ssh-keygen(1))."""
    settings = _settings(target)
    name = settings.get("hostkeyalias") or settings.get("hostname", target.host)
    port = settings.get("port", "22")
    entry = name if port == "22" or "hostkeyalias" in settings else f"[{name}]:{port}"
    files = [Path(os.path.expanduser(word)) for word in settings.get("userknownhostsfile", "").split()]
    return [
        (file, entry)
        for file in files
        if file.is_file() and _run(["ssh-keygen", "-F", entry, "-f", str(file)]).returncode == 0
    ]


def forget(file: Path, entry: str) -> None:
    """Remove the entry's keys from the file.

    :raises BackendError: the file cannot be written.
    """
    done = _run(["ssh-keygen", "-R", entry, "-f", str(file)])
    if done.returncode != 0:
        raise BackendError(
            f"the old host key of {entry} cannot be removed: {' '.join(done.stderr.split())}",
            where=str(file),
            hint="Remove its lines and run again",
        )


def _settings(target: SshTarget) -> dict[str, str]:
    """What ssh would use, by key in lower case, as ``ssh -G`` prints it."""
    done = _run([target.executable, *target.arguments, "-G", target.host])
    if done.returncode != 0:
        raise BackendError(f"ssh refuses its options: {' '.join(done.stderr.split())}", where=target.host)
    pairs = (line.partition(" ") for line in done.stdout.splitlines())
    return {key: value for key, _blank, value in pairs}


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MissingCommand(f"{command[0]} is not on PATH", hint="Install the OpenSSH client") from error
