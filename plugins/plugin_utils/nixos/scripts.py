# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shell payloads: read once, sent on standard input, so that nothing of them appears in a process list."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path

COMMAND = "/bin/sh -c 'eval \"$(cat)\"'"
"""What is run on the machine; the program comes on standard input."""

GUARD = ("base.sh", "record.sh", "boot.sh", "units.sh", "health.sh", "switch.sh", "generations.sh", "main.sh")
"""The parts of the guard, in their order."""


@cache
def text(name: str) -> str:
    """The file `name` of the folder payload."""
    return (Path(__file__).parent / "payload" / name).read_text(encoding="utf-8")


@cache
def guard_text() -> str:
    """The guard, whole."""
    return "".join(map(text, GUARD))


def guard_script(words: Sequence[str]) -> bytes:
    """Standard input for one verb of the guard; `begin` installs GUARD_TEXT under GUARD_HASH for the units."""
    payload = guard_text()
    digest = hashlib.sha256(payload.encode()).hexdigest()[:16]
    return (
        f'set -- {shlex.join(words)}\nGUARD_HASH={digest}\nGUARD_TEXT={shlex.quote(payload)}\neval "$GUARD_TEXT"\n'
    ).encode()
