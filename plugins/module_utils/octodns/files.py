# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Provider of the files that octoDNS reads: one for each zone, and its configuration."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, HostingError, NotOwned
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import (
    Applied,
    Change,
    Plan,
    Refusal,
    one_by_one,
)

HEADER = "# Made by fediversity.hosting.octodns_export; changes are lost\n"
CONFIG = "config.yaml"
ZONES = "zones"
MODE = 0o644


@dataclass(frozen=True)
class File:
    """A file that is wanted; *name* is its path below the directory of the export."""

    name: str
    text: str


@dataclass(frozen=True)
class Refused:
    """A record set that is not exported."""

    name: str
    error: HostingError


@dataclass(frozen=True)
class ActualFile:
    """A file that is there."""

    name: str
    text: str

    @property
    def ours(self) -> bool:
        return self.text.startswith(HEADER)


Wanted: TypeAlias = "File | Refused"
FileChange: TypeAlias = "Change[Wanted, ActualFile]"


class OctodnsFiles:
    """The files below one directory."""

    kind: ClassVar[str] = "octodns_export"

    def __init__(self, directory: Path, keep: Callable[[str], bool]) -> None:
        """*keep*: says of the name of a file that is not wanted whether it stays nevertheless."""
        self._directory = directory
        self._keep = keep

    def read(self, desired: Sequence[Wanted]) -> Mapping[str, ActualFile]:
        paths = [self._directory / CONFIG, *sorted((self._directory / ZONES).glob("*.yaml"))]
        found = [read_file(self._directory, str(path.relative_to(self._directory))) for path in paths]
        return {file.name: file for file in found if file is not None}

    def plan(self, desired: Sequence[Wanted], actual: Mapping[str, ActualFile]) -> Plan[Wanted, ActualFile]:
        changes: list[FileChange] = []
        refusals: list[Refusal] = []
        wanted = {item.name for item in desired}
        for item in desired:
            found = actual.get(item.name)
            if isinstance(item, Refused):
                refusals.append(Refusal(item.name, item.error))
            elif found is None:
                changes.append(Change(item.name, "create", {}, shown(item.text), item))
            elif not found.ours:
                hint = f"Move it away, or make its first line: {HEADER.strip()}"
                refusals.append(Refusal(item.name, NotOwned("the file is there and was not made by us", hint=hint)))
            else:
                same = found.text == item.text
                changes.append(
                    Change(
                        item.name,
                        "unchanged" if same else "update",
                        shown(found.text),
                        shown(item.text),
                        item,
                        found,
                    )
                )
        for name, found in actual.items():
            if name not in wanted and found.ours and not self._keep(name):
                changes.append(Change(name, "delete", shown(found.text), {}, None, found))
        # the configuration last: it names the zone files
        changes.sort(key=lambda change: (change.name == CONFIG, change.name))
        return Plan(tuple(changes), tuple(refusals))

    def apply(self, changes: Sequence[FileChange]) -> Iterator[Applied[Wanted, ActualFile]]:
        with contextlib.suppress(OSError):
            # where this fails, the files fail with the reason
            (self._directory / ZONES).mkdir(parents=True, exist_ok=True)
        # zone files that go are still named by the configuration until it is replaced
        ordered = sorted(changes, key=lambda change: change.action == "delete")
        return one_by_one(ordered, self._apply_one)

    def outputs(self, actual: ActualFile) -> Mapping[str, Any]:
        return {"path": str(self._directory / actual.name)}

    def _apply_one(self, change: FileChange) -> None:
        path = self._directory / change.name
        try:
            if isinstance(change.desired, File):
                write_file(path, change.desired.text)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise BackendError(
                f"the file cannot be written: {error.strerror}", where=str(path), hint="Check the disk and the rights"
            ) from None


def shown(text: str) -> dict[str, Any]:
    """What diff mode shows of a file."""
    return {"lines": text.splitlines()}


def read_file(directory: Path, name: str) -> ActualFile | None:
    """A file of the export, ``None`` if it is not there.

    :raises BackendError: it cannot be read.
    """
    path = directory / name
    try:
        return ActualFile(name, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BackendError(f"the file cannot be read: {error}", where=str(path), hint="Check its rights") from None


def write_file(path: Path, text: str) -> None:
    """Replace a file as one step that outlives a crash.

    :raises OSError: it cannot be written; the file is as before.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(descriptor, MODE)
            os.fsync(descriptor)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
