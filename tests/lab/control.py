# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talking to the supervisor: a unix socket in the state directory, one JSON request and one JSON answer per line.

Request: {"verb": …, arguments}. Answer: {"ok": value} or {"error": {"what", "where", "hint"}}.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.paths import State


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """A short name of a socket path: the kernel takes 107 bytes, a state directory can be deeper."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def request(state: State, verb: str, **arguments: Any) -> Any:
    """Ask the supervisor and return its answer; LabError when it refuses or is not there."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            with address(state.control) as name:
                connection.connect(name)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise LabError("the lab is not running", str(state.root), "./lab up") from error
        with connection.makefile("rw", encoding="utf-8") as stream:
            stream.write(json.dumps({"verb": verb, **arguments}) + "\n")
            stream.flush()
            line = stream.readline()
    if not line:
        raise LabError("the lab ended while it was asked", str(state.root), f"see {state.log}")
    answer = json.loads(line)
    if "error" in answer:
        raise LabError(**answer["error"])
    return answer["ok"]


def answer(target: object, line: bytes) -> dict[str, Any]:
    """Call the method verb_<verb> of `target` with the arguments of a request; the answer to send."""
    try:
        arguments = json.loads(line)
        verb = arguments.pop("verb")
        method = getattr(target, f"verb_{verb}", None)
        if method is None:
            raise LabError(f"the lab has no verb {verb}")
        return {"ok": method(**arguments)}
    except LabError as error:
        return {"error": {"what": error.what, "where": error.where, "hint": error.hint}}
    except Exception as error:  # noqa: BLE001  one bad request must not end the lab
        return {
            "error": {
                "what": f"{type(error).__name__}: {error}",
                "where": "the lab's supervisor",
                "hint": "see supervisor.log",
            }
        }


def encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
