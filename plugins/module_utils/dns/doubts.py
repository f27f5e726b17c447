# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nobody knows because items were not understood: what they may be about stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

try:
    import dns.name
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import (
    Desired,
    Malformed,
    RecordChange,
    place,
    zone_of,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.transfer import Labels
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput


@dataclass(frozen=True)
class Doubts:
    """The items that were not understood, by what they may be about; those of any zone under ``None``.

    :param names: lines about a name; they may be a part of any of its record sets.
    :param zones: lines that may be about any name of a zone.
    :param vague: all items, by zone: where one field is wrong, the others may be as well.
    """

    names: Mapping[Labels, Malformed]
    zones: Mapping[dns.name.Name | None, Malformed]
    vague: Mapping[dns.name.Name | None, Malformed]

    def of_listed(self, zone: dns.name.Name, labels: Labels) -> Malformed | None:
        """The line that may have more of a name that other items list."""
        return self.names.get(labels) or self.zones.get(zone) or self.zones.get(None)

    def of_unlisted(self, zone: dns.name.Name) -> Malformed | None:
        """The item that may mean what no other item of the zone lists."""
        return self.vague.get(zone) or self.vague.get(None)

    def check(self, change: RecordChange) -> None:
        """Refuse a change that an item may be against.

        :raises InvalidInput: the item may be a part of the record set, or what has to stay.
        """
        owner, _rdtype = place(change)
        zone = zone_of(change)
        if zone is None:
            return
        item = self.of_unlisted(zone) if change.desired is None else self.of_listed(zone, owner.labels)
        # what is new takes nothing away, unless half of it is missing
        if item is None or (change.action == "create" and owner.labels not in self.names):
            return
        raise InvalidInput(
            "it stays as it is, because it may be what another item means that is refused",
            where=change.name,
            hint=f"Mend that one: {item.error}",
        )


def doubts_of(desired: Sequence[Desired]) -> Doubts:
    """What the malformed ones of *desired* leave open."""
    names: dict[Labels, Malformed] = {}
    zones: dict[dns.name.Name | None, Malformed] = {}
    vague: dict[dns.name.Name | None, Malformed] = {}
    for item in desired:
        if not isinstance(item, Malformed) or item.unclear is None:
            continue
        vague.setdefault(item.unclear.zone, item)
        if not item.unclear.part:
            continue
        if item.unclear.owner is not None:
            names.setdefault(item.unclear.owner.labels, item)
        else:
            zones.setdefault(item.unclear.zone, item)
    return Doubts(names, zones, vague)
