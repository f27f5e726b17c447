# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's tables: plain JSON values, kept in one file that is replaced atomically.

::

    buckets: {id: {created, aliases: [name], keys: {key id: [read, write, owner]}, quotas: {maxSize, maxObjects},
                   website: {indexDocument, errorDocument, routingRules} | null, corsRules, lifecycleRules}}
    aliases: {name: bucket id}
    keys:    {id: {name, secret, created, expiration, createBucket, localAliases: {name: bucket id | null}} | null}
    tokens:  {id: {name, hash, created, expiration, scope} | null}
    layout:  {version, role: {zone, tags, capacity} | null, staged: role | null}

Times are milliseconds since 1970. ``null`` rows are tombstones: an id that existed stays taken. Global aliases are
kept twice, as in Garage, where the two tables are not written in one step. Objects are in a database of their own
beside that file (:mod:`lab.garage.objects`).
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lab.garage.objects import Objects

NEWEST, OLDEST = "v2.3.0", "v2.0.0"
ROLE = {"zone": "lab", "tags": [], "capacity": 100 * 10**9}
READY: Mapping[str, Any] = MappingProxyType({"version": 1, "role": ROLE, "staged": None})
NO_LAYOUT: Mapping[str, Any] = MappingProxyType({"version": 0, "role": None, "staged": None})


class Tables(dict[str, dict[str, Any]]):
    """The tables by name, and the ``objects``, which are not copied for a change."""

    def __init__(self, objects: Objects, layout: Mapping[str, Any]) -> None:
        super().__init__(buckets={}, aliases={}, keys={}, tokens={}, layout=copy.deepcopy(dict(layout)))
        self.objects = objects


class Store:
    """The tables of one node, in memory and, with a path, on disk.

    :param version: of Garage: ``NEWEST`` or ``OLDEST``, which does not know some fields (:mod:`lab.garage.versions`).
    :param layout: what the cluster's layout is at the first start; ``NO_LAYOUT`` is what a fresh Garage has.
    """

    def __init__(self, path: Path | None = None, *, version: str = NEWEST, layout: Mapping[str, Any] = READY) -> None:
        self._path = path
        self.version = version
        self.tables = Tables(Objects(None if path is None else path.with_suffix(".sqlite")), layout)
        if path is not None and path.exists():
            self.tables.update(json.loads(path.read_text(encoding="utf-8")))

    def close(self) -> None:
        self.tables.objects.close()

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
