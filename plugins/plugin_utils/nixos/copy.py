# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copying a closure with nix-copy-closure, over exactly the SSH connection that Ansible uses for the machine."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    InvalidInput,
    MissingCommand,
)

PLACEHOLDER = "fediversity-target"
"""Nix gets this name; the wrapper puts the real one in: Nix misreads ports, IPv6 addresses and the name localhost."""


@dataclass(frozen=True)
class SshTarget:
    """Where and how Ansible's ssh connection goes; `arguments` are words for ssh, without the host."""

    executable: str
    host: str
    arguments: tuple[str, ...]


def ssh_target(option: Mapping[str, Any], control_path: str, compress: bool) -> SshTarget:
    """Take the options of ansible.builtin.ssh, in the order in which that plugin gives them to ssh.

    :param control_path: socket of the shared connection, empty when there is none.
    :param compress: keep a `-C` of ssh_args; it makes copies several times slower on a fast network.
    :raises InvalidInput: the host would be an option of ssh.
    """
    host = str(option["host"])
    if not re.fullmatch(r"[0-9A-Za-z_:.%][0-9A-Za-z_:.%-]*", host):
        raise InvalidInput(f"{host!r} is not a host name or address", where="ansible_host")
    words = [word for word in shlex.split(option.get("ssh_args") or "") if compress or word != "-C"]
    if option.get("host_key_checking") is False:
        words += ["-o", "StrictHostKeyChecking=no"]
    for name, key in (("Port", "port"), ("User", "remote_user"), ("ConnectTimeout", "timeout")):
        if option.get(key):
            words += ["-o", f"{name}={option[key]}"]
    if option.get("private_key_file"):
        words += ["-o", f'IdentityFile="{os.path.expanduser(str(option["private_key_file"]))}"']
    for key in ("ssh_common_args", "ssh_extra_args"):
        words += shlex.split(option.get(key) or "")
    if control_path:
        words += ["-o", f'ControlPath="{control_path}"']
    words += ["-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]
    executable = shutil.which(str(option.get("ssh_executable") or "ssh"))
    if executable is None:
        raise MissingCommand("ssh is not on PATH", hint="Install the OpenSSH client on the controller")
    return SshTarget(executable, host, tuple(words))


def wrapper_text(target: SshTarget) -> str:
    """A program named ssh for Nix (its NIX_SSHOPTS cannot hold blanks): our words first, the real host put in."""
    return (
        "#!/bin/sh\n"
        "for word; do\n"
        "  shift\n"
        f'  [ "$word" != {PLACEHOLDER} ] || word={shlex.quote(target.host)}\n'
        '  set -- "$@" "$word"\n'
        "done\n"
        f'exec {shlex.join([target.executable, *target.arguments])} "$@"\n'
    )


def copy_command(system: str, options: Sequence[str]) -> list[str]:
    """The legacy protocol is the fastest one for closures of many small paths."""
    return ["nix-copy-closure", "--to", *options, PLACEHOLDER, system]


def copy_options(*, substitute: bool, compress: bool) -> list[str]:
    """Options of nix-copy-closure."""
    return [*(["--use-substitutes"] if substitute else []), *(["--gzip"] if compress else [])]


@contextmanager
def _wrapper(target: SshTarget) -> Iterator[str]:
    """Directory with the wrapper, private and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="fediversity-ssh-") as directory:
        program = Path(directory, "ssh")
        program.write_text(wrapper_text(target), encoding="utf-8")
        program.chmod(0o700)
        yield directory


def copy_closure(system: str, target: SshTarget, options: Sequence[str]) -> None:
    """Copy `system` and everything it needs; paths that are there already are not sent again.

    :raises MissingCommand: there is no Nix on the controller.
    :raises BackendError: with the last lines of what Nix said.
    """
    with _wrapper(target) as directory:
        done = run_nix(copy_command(system, options), path=f"{directory}{os.pathsep}{os.environ.get('PATH', '')}")
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-500:]
        raise BackendError(
            f"the closure of {system} could not be copied: {said}", hint="Nothing was changed; run again"
        )


def run_nix(command: Sequence[str], *, path: str = "") -> subprocess.CompletedProcess[str]:
    """The one place where Nix is called on the controller.

    :raises MissingCommand: it is not on PATH.
    """
    environment = {**os.environ, "PATH": path} if path else None
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingCommand(
            f"{command[0]} is not on PATH", hint="Install Nix on the controller (Debian: nix-bin)"
        ) from error


def valid_here(path: str) -> bool:
    """True when the controller's store holds the path."""
    return run_nix(["nix-store", "--check-validity", path]).returncode == 0


def requisites(path: str) -> tuple[str, ...]:
    """Closure of a path of the controller's store."""
    return tuple(run_nix(["nix-store", "--query", "--requisites", path]).stdout.split())


def diff_closures(old: str, new: str) -> str:
    """Package-level difference of two closures that the controller holds; empty when Nix cannot tell."""
    command = ["nix", "--extra-experimental-features", "nix-command", "store", "diff-closures", old, new]
    return re.sub(r"\x1b\[[0-9;]*m", "", run_nix(command).stdout)
