# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a build host receives on standard input: a tar archive of the shell text to run and of the files it needs."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput, MissingCommand

LIMIT = 1 << 30
"""Bytes of files that are sent at most: whoever gives a file of his home directory did not mean all of it."""


@dataclass(frozen=True)
class Tree:
    """A directory of the controller, sent under `name`; `files` limits it to these (paths below it)."""

    directory: Path
    name: str
    files: tuple[str, ...] | None = None


@contextmanager
def parcel(script: str, tree: Tree | None = None, paths: tuple[str, ...] = ()) -> Iterator[IO[bytes]]:
    """The archive, in an unnamed file of the controller, to be read from its start.

    Members: `run` (the shell text), `paths` (one line each), and the directory as `tree/<name>`.

    :raises InvalidInput: the directory cannot be read or is too large.
    """
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, content in (("run", script), ("paths", "".join(f"{path}\n" for path in paths))):
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(content.encode()), 0o600
                archive.addfile(member, io.BytesIO(content.encode()))
            if tree is not None:
                try:
                    _pack(archive, tree)
                except OSError as error:
                    raise InvalidInput(f"{tree.directory} cannot be read: {error}") from error
        file.seek(0)
        yield file


def _pack(archive: tarfile.TarFile, tree: Tree) -> None:
    top = f"tree/{tree.name}"
    root = tarfile.TarInfo(top)  # itself it may be a link to the directory
    root.type, root.mode = tarfile.DIRTYPE, 0o700
    archive.addfile(root)
    size = 0
    for name in _walk(tree.directory) if tree.files is None else tree.files:
        path = tree.directory / name
        if not os.path.lexists(path):  # git still lists a file that was removed
            continue
        member = archive.gettarinfo(str(path), f"{top}/{name}")
        if member is None or not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            continue
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        executable = member.isdir() or member.mode & stat.S_IXUSR
        member.mode = 0o700 if executable else 0o600  # Nix keeps no more, and the copy can be removed
        size += member.size
        if size > LIMIT:
            raise InvalidInput(
                f"{tree.directory} holds more than {LIMIT >> 20} MiB, all of which would be sent to the build host",
                hint="Put the configuration into a directory of its own, or give the URL of a flake",
            )
        if member.isreg():
            with path.open("rb") as content:
                archive.addfile(member, content)
        else:
            archive.addfile(member)


def _walk(directory: Path, prefix: str = "") -> Iterator[str]:
    """All below the directory, parents first, except git's own files and the result links of builds."""
    for entry in sorted(os.scandir(directory), key=lambda found: found.name):
        if entry.name == ".git" or _is_result(entry):
            continue
        yield f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")


def _is_result(entry: os.DirEntry[str]) -> bool:
    named = entry.name == "result" or entry.name.startswith("result-")
    return named and entry.is_symlink() and os.readlink(entry.path).startswith("/nix/store/")


def tracked_files(directory: Path) -> tuple[str, ...] | None:
    """In a git work tree, what git tracks: Nix too puts nothing else into a flake, secrets least of all.

    :returns: paths below the directory; None when it is in no work tree.
    :raises MissingCommand: git is needed and not on PATH.
    :raises InvalidInput: git refuses the directory.
    """
    if not any((above / ".git").exists() for above in (directory, *directory.parents)):
        return None
    command = ["git", "-C", str(directory), "ls-files", "-z", "--cached", "--", "."]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise MissingCommand(
            f"git is not on PATH, but {directory} is in a git repository", hint="Install git on the controller"
        ) from error
    if done.returncode != 0:
        said = " ".join(os.fsdecode(done.stderr).split())
        raise InvalidInput(f"git cannot list the files of {directory}: {said}", where="flake")
    files = tuple(os.fsdecode(name) for name in done.stdout.split(b"\0") if name)
    if "flake.nix" not in files:
        raise InvalidInput(f"git does not track {directory}/flake.nix", where="flake", hint="Run git add flake.nix")
    return files
