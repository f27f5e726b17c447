# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's tables: plain JSON values, kept in one file that is replaced atomically.

::

    buckets: {id: {created, aliases: [name], keys: {key id: [read, write, owner]}, quotas: {maxSize, maxObjects},
                   website: {indexDocument, errorDocument, routingRules} | null, corsRules, lifecycleRules,
                   objects, bytes}}
    aliases: {name: bucket id}
    keys:    {id: {name, secret, created, expiration, createBucket, localAliases: {name: bucket id | null}} | null}
    tokens:  {id: {name, hash, created, expiration, scope} | null}

Times are milliseconds since 1970. ``null`` rows are tombstones: an id that existed stays taken. Global aliases are
kept twice, as in Garage, where the two tables are not written in one step. There is no data plane: ``objects`` and
``bytes`` of a bucket are 0 unless somebody writes them here.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Tables = dict[str, dict[str, Any]]

EMPTY: Tables = {"buckets": {}, "aliases": {}, "keys": {}, "tokens": {}}


class Store:
    """The tables of one node, in memory and, with a path, on disk."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.tables: Tables = copy.deepcopy(EMPTY)
        if path is not None and path.exists():
            self.tables.update(json.loads(path.read_text(encoding="utf-8")))

    @contextmanager
    def change(self) -> Iterator[Tables]:
        """A copy of the tables to change; it takes their place (and is on disk) only if the block ends well."""
        tables = copy.deepcopy(self.tables)
        yield tables
        if self._path is not None:
            write_atomically(self._path, json.dumps(tables, indent=2, sort_keys=True))
        self.tables = tables


def write_atomically(path: Path, text: str) -> None:
    """Replace *path* (mode 0600) by *text* so that a crash leaves the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
