# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bringing a built system to the machine; from a third host as one stream through the controller.

The stream needs no Nix on the controller and no credentials of one host for the other: the controller joins the two
SSH connections that Ansible would use, standard output of the one to standard input of the other.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import IO

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.build import (
    CONTROLLER,
    FIND_NIX,
    RECEIVE,
    BuildHost,
    Said,
    end,
    host_failure,
    run,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.parcel import parcel
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.request import STORE_PATH

# nix-store prints dependencies before what needs them, which is the order in which they can be imported.
REQUISITES = 'xargs nix-store --query --requisites <"$1/paths"\n'
INVALID = 'xargs nix-store --check-validity --print-invalid <"$1/paths"\n'
EXPORT = 'exec nix-store --export $(cat "$1/paths")\n'
IMPORT = f"{FIND_NIX}exec nix-store --import"

AFTERWARDS = "Nothing was changed; run again"


def copier(
    system: str, origin: BuildHost, target: BuildHost, from_here: Callable[[], None], progress: Callable[[str], None]
) -> Callable[[], None]:
    """How the closure of `system`, which `origin` holds, comes to `target`; nothing happens before it is called.

    :param from_here: the copy from the controller's own store.
    """

    def nothing() -> None:
        """The machine has built it itself."""

    if origin == target:
        return nothing
    if origin == CONTROLLER:
        return from_here
    return lambda: relay(system, origin, target, progress)


def relay(system: str, origin: BuildHost, target: BuildHost, progress: Callable[[str], None]) -> None:
    """Copy what `target` lacks of the closure, in one pass and constant memory.

    :raises Unreachable: one of the two cannot be reached.
    :raises BackendError: Nix failed on one of them; what had arrived whole stays, and is not sent again.
    """
    closure = _ask(REQUISITES, (system,), origin, "list the closure")
    lacking = frozenset(_ask(INVALID, closure, target, "tell which store paths it has"))
    missing = tuple(path for path in closure if path in lacking)
    if not missing:
        return
    progress(f"copying {len(missing)} of {len(closure)} store paths from {origin.name}")
    with parcel(EXPORT, paths=missing) as archive:
        failed = _stream(origin.words(RECEIVE), archive, target.words(IMPORT))
    if failed:
        sides = zip((origin, target), ("export", "import"), failed, strict=True)
        said = "; ".join(
            host_failure(end, place, f"{verb} store paths").what for place, verb, end in sides if end is not None
        )
        raise BackendError(
            f"the closure of {system} could not be copied from {origin.name} to {target.name}: {said}", hint=AFTERWARDS
        )


def _ask(script: str, paths: tuple[str, ...], place: BuildHost, task: str) -> tuple[str, ...]:
    with parcel(script, paths=paths) as archive:
        said = run(place, archive, lambda line: None)
    if said.code != 0:
        raise host_failure(said, place, task)
    return tuple(line for line in said.output.splitlines() if STORE_PATH.fullmatch(line))


def _stream(producer: list[str], archive: IO[bytes], consumer: list[str]) -> tuple[Said | None, Said | None] | None:
    """Join the two; the first that fails ends the other.

    :returns: None when both succeeded, else how each that failed by itself ended.
    """
    with tempfile.TemporaryFile() as producer_errors, tempfile.TemporaryFile() as consumer_errors:
        sender = subprocess.Popen(
            producer, stdin=archive, stdout=subprocess.PIPE, stderr=producer_errors, start_new_session=True
        )
        sides = [sender]
        try:
            receiver = subprocess.Popen(
                consumer,
                stdin=sender.stdout,
                stdout=subprocess.DEVNULL,
                stderr=consumer_errors,
                start_new_session=True,
            )
            sides.append(receiver)
            if sender.stdout is not None:
                sender.stdout.close()  # else the sender would never notice that the receiver is gone
            failed = _first_failures(sides)
        finally:
            for side in sides:
                end(side)
        if not failed:
            return None
        first, second = (
            Said(side.returncode, "", _text(errors)) if side in failed else None
            for side, errors in zip(sides, (producer_errors, consumer_errors), strict=True)
        )
        return first, second


def _first_failures(sides: list[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    """Wait until all have ended or one has failed."""
    while True:
        codes = [side.poll() for side in sides]
        failed = [side for side, code in zip(sides, codes, strict=True) if code]
        if failed or None not in codes:
            return failed
        time.sleep(0.05)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
