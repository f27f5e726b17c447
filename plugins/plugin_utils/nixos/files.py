# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Root-only files with secret contents: what is there, what is missing, what to send. Pure functions."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.scripts import text

PATH = re.compile(r"(/[0-9A-Za-z_@+,=:.-]+)+")
NAME = re.compile(r"[0-9A-Za-z_.-]+\$?")
MODE = re.compile(r"0?[0-7]{3}")


@dataclass(frozen=True)
class SecretFile:
    """One wanted file; `mode` is octal text. The content is left out of every printed form."""

    path: str
    content: str = field(repr=False)
    owner: str = "root"
    group: str = "root"
    mode: str = "0400"

    def digest(self, nonce: str) -> str:
        """SHA-256 of nonce and content, hexadecimal, as files.sh makes it."""
        return hashlib.sha256((nonce + self.content).encode()).hexdigest()


@dataclass(frozen=True)
class FoundFile:
    """One file as the machine has it; user and group by name and by number."""

    path: str
    digest: str
    owner: str
    group: str
    uid: str
    gid: str
    mode: str


@dataclass(frozen=True)
class Difference:
    """One file and what is to be done about it; `differs` names attributes, never contents."""

    path: str
    action: str
    differs: tuple[str, ...] = ()


def check_files(files: Sequence[SecretFile], directory: str) -> None:
    """Refuse paths that could surprise.

    :raises InvalidInput: with the option in `where`; no content is ever part of the message.
    """
    for path in [file.path for file in files] + ([directory] if directory else []):
        if not PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
            raise InvalidInput(f"{path!r} is not a plain absolute path", where="files.path")
        if directory and path != directory and not path.startswith(f"{directory}/"):
            raise InvalidInput(f"{path} is not below {directory}", where="files.path")
    if len({file.path for file in files}) != len(files):
        raise InvalidInput("a path is given twice", where="files.path")
    for file in files:
        if not NAME.fullmatch(file.owner) or not NAME.fullmatch(file.group) or not MODE.fullmatch(file.mode):
            raise InvalidInput(f"owner, group or mode of {file.path} cannot be right", where="files")


def swept_directory(directory: str, purge: bool) -> str:
    """The directory in which surplus files are removed, empty when none is.

    :raises InvalidInput: purge without a directory, or in one that other things live in.
    """
    if purge and directory.count("/") < 2:
        raise InvalidInput("purge needs a directory below a top-level one", where="directory")
    return directory if purge else ""


def look_script(files: Sequence[SecretFile], swept: str, nonce: str) -> bytes:
    """Standard input of the first call: reads, changes nothing; lists the directory `swept` unless it is empty."""
    calls = [shlex.join(["look", nonce, file.path]) for file in files]
    if swept:
        calls.append(shlex.join(["present", swept]))
    return "\n".join([text("files.sh"), *calls, "echo @end=yes", ""]).encode()


def write_script(files: Sequence[SecretFile], surplus: Sequence[str], swept: str) -> bytes:
    """Standard input of the second call: the contents travel here and nowhere else."""
    calls = [
        shlex.join(
            ["put", file.path, file.owner, file.group, file.mode, base64.b64encode(file.content.encode()).decode()]
        )
        for file in files
    ]
    calls += [shlex.join(["discard", swept, path]) for path in surplus]
    return "\n".join([text("files.sh"), *calls, "echo @end=yes", ""]).encode()


def check_answer(answer: str) -> None:
    """:raises BackendError: the machine reported a failure, or did not come to the end."""
    lines = answer.split("\n")
    for line in lines:
        if line.startswith("@error="):
            raise BackendError(line.removeprefix("@error="))
    if "@end=yes" not in lines:
        raise BackendError("the machine's answer is incomplete", hint="Run again")


def found_files(answer: str) -> dict[str, FoundFile]:
    """Files by path, from the lines of `look`."""
    found = {}
    for line in answer.split("\n"):
        if line.startswith("@file="):
            digest, owner, group, uid, gid, mode, path = line.removeprefix("@file=").split(" ", 6)
            found[path] = FoundFile(path, digest, owner, group, uid, gid, mode)
    return found


def differences(files: Sequence[SecretFile], answer: str, nonce: str) -> tuple[list[Difference], list[str]]:
    """Compare: one Difference per wanted or surplus file, and the surplus paths (those that `present` named)."""
    found = found_files(answer)
    compared = [_compare(file, found.get(file.path), nonce) for file in files]
    wanted = {file.path for file in files}
    lines = answer.split("\n")
    present = [line.removeprefix("@present=") for line in lines if line.startswith("@present=")]
    surplus = sorted(set(present) - wanted)
    return compared + [Difference(path, "removed") for path in surplus], surplus


def _compare(file: SecretFile, found: FoundFile | None, nonce: str) -> Difference:
    if found is None:
        return Difference(file.path, "created")
    differs = [
        name
        for name, same in (
            ("content", found.digest == file.digest(nonce)),
            ("owner", file.owner in {found.owner, found.uid}),
            ("group", file.group in {found.group, found.gid}),
            ("mode", int(found.mode, 8) == int(file.mode, 8)),
        )
        if not same
    ]
    return Difference(file.path, "updated" if differs else "unchanged", tuple(differs))


def describe(differences_found: Sequence[Difference]) -> str:
    """Text for --diff: paths and names of attributes only."""
    signs = {"created": "+", "updated": "~", "removed": "-"}
    lines = [
        f"{signs[item.action]} {item.path}" + (f" ({', '.join(item.differs)} differs)" if item.differs else "")
        for item in differences_found
        if item.action in signs
    ]
    return "".join(f"{line}\n" for line in lines)
