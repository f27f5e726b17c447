# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to happen before a zone goes: its content is kept, and its file is set aside. Nothing is ever deleted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.content import records
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.files import (
    Files,
    keep_copy,
    now_stamp,
    set_aside,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.model import ActualZone
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput


@dataclass(frozen=True)
class Removal:
    """How zones go.

    :param server: where their content is read by zone transfer.
    :param keep: directory of the copies.
    :param without_copy: remove also what cannot be copied.
    :param zone_files: where zone files are, ``None`` if this host has none.
    :param kept: what was kept in this run, by zone name.
    """

    server: Server | None
    keep: Path | None
    without_copy: bool
    zone_files: Files | None
    stamp: str = field(default_factory=now_stamp)
    kept: dict[str, list[str]] = field(default_factory=dict)

    def check(self, name: str) -> None:
        """Refuse a removal whose copy has no place.

        :raises InvalidInput: neither a copy can be made nor is it waived.
        """
        if self.without_copy or (self.server is not None and self.keep is not None):
            return
        raise InvalidInput(
            "a zone that goes has to be copied first",
            where=f"zone {name}",
            hint="Set server and keep_directory, or remove_without_copy to true",
        )

    def copy(self, zone: ActualZone) -> None:
        """Write the zone's content into the directory of copies.

        :raises HostingError: it cannot be read or written, and the copy is not waived.
        """
        if self.server is None or self.keep is None:
            return
        try:
            written = keep_copy(self.keep, zone.name, records(self.server, zone.zone), self.stamp)
        except HostingError as error:
            if self.without_copy:
                return
            raise type(error)(
                error.what,
                where=error.where,
                hint="The zone stays until it can be copied; remove_without_copy waives that",
            ) from None
        self.kept.setdefault(zone.name, []).append(str(written))

    def set_aside(self, name: str) -> None:
        """Rename the zone's files, so that a zone of that name never comes back with old content."""
        if self.zone_files is None:
            return
        aside = set_aside(self.zone_files.zone_file(name), self.stamp)
        self.kept.setdefault(name, []).extend(map(str, aside))
