# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The include file: which zones a server has and how it keeps them, in the language of Knot or BIND.

The file is read back from its comments, which say the same as the configuration, so that no parser of those is needed.
Every text in it has been checked (see :mod:`model`): no quote, blank or slash gets in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.model import (
    ActualZone,
    Holder,
    WantedZone,
    holder_from,
    name_text,
    settings_data,
    settings_from,
    zone_name,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput, NotOwned

Software: TypeAlias = Literal["knot", "bind"]
COMMENT = {"knot": "#", "bind": "//"}
MADE = "made by fediversity.hosting.dns_zones; changes are lost"
# what the other server's configuration has no word for
FOREIGN_SETTINGS: Mapping[Software, tuple[str, ...]] = {
    "knot": ("transfer_keys", "update_keys"),
    "bind": ("template", "acl", "catalog_zone"),
}


def render(software: Software, owner: str, zones: Iterable[WantedZone | ActualZone], directory: Path) -> str:
    """The include file of the estate *owner*, with zone files in *directory*."""
    sign = COMMENT[software]
    lines = [f"{sign} {Holder(owner).text()}", f"{sign} {MADE}"]
    ordered = sorted(zones, key=lambda zone: zone.name)
    if ordered and software == "knot":
        lines.append("zone:")
    write: Callable[[WantedZone | ActualZone, Path], list[str]] = _knot if software == "knot" else _bind
    for zone in ordered:
        lines.append(f"{sign} zone {json.dumps(_data(zone), sort_keys=True)}")
        lines += write(zone, directory / f"{zone.name}.zone")
    return "\n".join(lines) + "\n"


def parse(software: Software, owner: str, text: str, where: str) -> dict[str, ActualZone]:
    """The zones of an include file by name; none in an empty file.

    :raises NotOwned: the file was not made by us for *owner*.
    :raises InvalidInput: a comment of ours was changed.
    """
    lines = text.splitlines()
    if not text.strip():
        return {}
    sign = COMMENT[software]
    if lines[0] != f"{sign} {Holder(owner).text()}":
        raise NotOwned(
            "the file does not start with our mark",
            where=where,
            hint=f"Choose another include_file; the first line of ours is: {sign} {Holder(owner).text()}",
        )
    found = {}
    for line in lines:
        if not line.startswith(f"{sign} zone "):
            continue
        try:
            zone = _actual(json.loads(line.removeprefix(f"{sign} zone ")), owner)
        except (ValueError, KeyError, TypeError, InvalidInput):
            raise InvalidInput(
                f"the line {line!r} is not as we have written it", where=where, hint="Put back a copy of the file"
            ) from None
        found[zone.name] = zone
    return found


def check_settings(software: Software, item: WantedZone) -> None:
    """Refuse settings that mean nothing to this server.

    :raises InvalidInput: one is given.
    """
    given = [key for key in FOREIGN_SETTINGS[software] if getattr(item.settings, key)]
    if software == "bind" and item.group is not None:
        given.append("group")
    if given:
        raise InvalidInput(
            f"{', '.join(given)}: the configuration of {software} has no such setting for a zone",
            where=f"zone {item.name}",
            hint="Remove it, or use the setting of this server",
        )
    if software == "knot" and item.group is not None and item.settings.catalog_zone is None:
        raise InvalidInput("a group needs a catalog", where=f"zone {item.name}, group", hint="Set catalog_zone")


def _data(zone: WantedZone | ActualZone) -> dict[str, Any]:
    data = {"name": zone.name, "operator": zone.holder.operator, "group": zone.group}
    return {key: value for key, value in {**data, **settings_data(zone.settings)}.items() if value}


def _actual(data: Mapping[str, Any], owner: str) -> ActualZone:
    name = zone_name(data["name"], "name")
    holder = holder_from(Holder(owner, data.get("operator")).text())
    return ActualZone(name_text(name), name, holder, data.get("group"), settings_from(data))


def _knot(zone: WantedZone | ActualZone, path: Path) -> list[str]:
    settings = zone.settings
    lines = [f"  - domain: {zone.name}."]
    if settings.template:
        lines.append(f"    template: {settings.template}")
    lines.append(f'    file: "{path}"')
    for key in ("acl", "notify"):
        if values := getattr(settings, key):
            lines.append(f"    {key}: [{', '.join(values)}]")
    if settings.dnssec_policy:
        lines += ["    dnssec-signing: on", f"    dnssec-policy: {settings.dnssec_policy}"]
    if settings.catalog_zone:
        lines += ["    catalog-role: member", f"    catalog-zone: {settings.catalog_zone}."]
        if zone.group:
            lines.append(f"    catalog-group: {zone.group}")
    return lines


def _bind(zone: WantedZone | ActualZone, path: Path) -> list[str]:
    settings = zone.settings
    lines = [f'zone "{zone.name}" {{', "    type primary;", f'    file "{path}";']
    if settings.dnssec_policy:
        # updates go into the signed zone itself, so that conditions of updates see what is served
        inline = "no" if settings.update_keys else "yes"
        lines += [f'    dnssec-policy "{settings.dnssec_policy}";', f"    inline-signing {inline};"]
    if settings.notify:
        lines += ["    notify explicit;", f"    also-notify {{ {_bind_list(settings.notify)} }};"]
    if settings.transfer_keys:
        lines.append(f"    allow-transfer {{ {_bind_list(settings.transfer_keys, 'key ')} }};")
    if settings.update_keys:
        grants = " ".join(f'grant "{key}" zonesub ANY;' for key in settings.update_keys)
        lines.append(f"    update-policy {{ {grants} }};")
    return [*lines, "};"]


def _bind_list(names: Sequence[str], prefix: str = "") -> str:
    return " ".join(f'{prefix}"{name}";' for name in names)
