# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module options as the files of an export."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

try:
    import dns.name
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import (
    Desired,
    Malformed,
    ManagedZone,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.names import (
    ascii_name,
    parse_name,
    shown_name,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.options import (
    Rules,
    from_options,
    from_record_sets,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.octodns.files import (
    CONFIG,
    HEADER,
    ZONES,
    File,
    Refused,
    Wanted,
    read_file,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.octodns.records import in_zone, zone_document

MakeConfig: TypeAlias = Callable[[Sequence[ManagedZone]], str]
RULES = Rules(apex_ns=True)
# file systems take 255 bytes; the rest is for what a file is called while it is written
NAME_MAX = 240
# options of dns_records that are about the server, so that both modules take the same list
NOT_HERE = {"adopt": False, "purge": False, "records": ""}


@dataclass(frozen=True)
class ZoneExport:
    """One entry of the module option ``zones``; *zone* is ``None`` where that was not understood."""

    zone: ManagedZone | None
    items: tuple[Desired, ...]


def read_zones(
    options: Sequence[Mapping[str, Any]], record_sets: Sequence[Mapping[str, Any]]
) -> tuple[list[ZoneExport], list[Refused]]:
    """The module options ``zones`` and ``record_sets``: each in its zone, and those of the latter that are in none.

    :raises InvalidInput: one zone is listed twice.
    """
    exports: list[ZoneExport] = []
    for option in options:
        zones, items = from_options([{**NOT_HERE, **option}], RULES)
        exports.append(ZoneExport(zones[0] if zones else None, tuple(items)))
    known = {export.zone.name: export.zone for export in exports if export.zone is not None}
    if len(known) < sum(export.zone is not None for export in exports):
        raise InvalidInput("a zone is listed twice", where="zones", hint="Join its record_sets in one entry")
    found: dict[ManagedZone, list[Desired]] = {}
    refused: list[Refused] = []

    def find(owner: dns.name.Name) -> ManagedZone:
        name = owner
        while name not in known:
            if name == dns.name.root:
                raise InvalidInput("the name is in none of the zones", where=shown_name(owner), hint="List its zone")
            name = name.parent()
        return known[name]

    for item in from_record_sets(record_sets, find, RULES):
        if isinstance(item, Malformed):
            refused.append(Refused(item.name, item.error))
        else:
            found.setdefault(item.zone, []).append(item)
    complete = [
        ZoneExport(export.zone, (*export.items, *found.get(export.zone, ()))) if export.zone else export
        for export in exports
    ]
    return complete, refused


def wanted_files(
    exports: Sequence[ZoneExport], refused: Sequence[Refused], directory: Path, config: MakeConfig
) -> list[Wanted]:
    """The files of the export below *directory*, and the record sets that are not exported.

    :param refused: record sets of no zone; a file of a zone that may have had one keeps it.
    :param config: makes octoDNS' configuration of the zones that have files.
    """
    names = [export.zone.name for export in exports if export.zone is not None]
    wanted: list[Wanted] = [*refused]
    zones = []
    for export in exports:
        if export.zone is None:
            wanted += [Refused(item.name, item.error) for item in export.items if isinstance(item, Malformed)]
            continue
        name = file_name(export.zone.name)
        try:
            _check_file_name(name)
        except InvalidInput as error:
            wanted.append(Refused(name, error))
            continue
        found = read_file(directory, name)
        try:
            before = found.text if found is not None and found.ours else ""
            strays = [Malformed(item.name, item.error) for item in refused if in_zone(export.zone.name, item.name)]
            document = zone_document(export.zone, [*export.items, *strays], names, before)
        except HostingError as error:
            wanted.append(Refused(name, error))
            if found is not None:
                zones.append(export.zone)
            continue
        zones.append(export.zone)
        wanted.append(File(name, HEADER + document.text))
        known = {item.name for item in refused}
        wanted += [Refused(item, error) for item, error in sorted(document.errors.items()) if item not in known]
    wanted.append(File(CONFIG, HEADER + config(zones)))
    return wanted


def file_name(zone: dns.name.Name) -> str:
    """Where the records of a zone are, below the directory of the export."""
    return f"{ZONES}/{ascii_name(zone)}.yaml"


def listed_files(options: Sequence[Mapping[str, Any]]) -> set[str]:
    """The files of all zones that are listed, also of those with an error elsewhere: such files stay."""
    found = set()
    for option in options:
        with contextlib.suppress(HostingError):
            found.add(file_name(parse_name(option["name"], "zone")))
    return found


def _check_file_name(name: str) -> None:
    if name.count("/") > 1 or "\\" in name or "\0" in name or len(name) > NAME_MAX:
        raise InvalidInput("octoDNS has no file for a zone of that name", where=name, hint="Keep it out of the export")
