# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a zone would be after a run, and what of it would contradict itself. Servers drop that and say nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.fediversity.hosting.plugins.module_utils.dns import model, values
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.doubts import Doubts
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import (
    ActualRecordSet,
    Desired,
    DesiredRecordSet,
    ManagedZone,
    Zones,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.names import shown_labels
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.transfer import Labels
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput

# RFC 2181 section 10.3, RFC 2782
POINTING = frozenset({"MX", "NS", "SRV"})
# RFC 4035 section 2.4, RFC 1034 section 4.2.1: what the parent says of a zone that it gives away
AT_CUT = frozenset({"DS", "NS"})
GLUE = frozenset({"A", "AAAA"})


@dataclass(frozen=True)
class Outcome:
    """What zones would be after a run.

    :param types: of each name that has records.
    :param pointers: the MX, NS and SRV record sets that lead to a name.
    """

    types: Mapping[Labels, set[str]]
    pointers: Mapping[Labels, set[str]]


def outcome(
    desired: Sequence[Desired],
    actual: Mapping[str, ActualRecordSet],
    zones: Zones,
    doubts: Doubts,
) -> Outcome:
    """What *actual* would become by *desired*."""
    wishes = model.wishes(desired)
    types: dict[Labels, set[str]] = {}
    pointers: dict[Labels, set[str]] = {}
    for name, other in actual.items():
        stays = not leaving(other, zones[other.zone]) or doubts.of_unlisted(other.zone) is not None
        if other.values and name not in wishes and stays:
            types.setdefault(other.labels, set()).add(other.type)
            _point(pointers, name, other.type, other.values)
    for name, wish in wishes.items():
        if wish.state == "present":
            types.setdefault(wish.owner.labels, set()).add(wish.type)
            _point(pointers, name, wish.type, wish.values)
        elif (found := actual.get(name)) is not None and found.values:
            doubtful = doubts.of_listed(found.zone, found.labels) is not None
            if doubtful or not model.may_change(wish, found):
                # it will be refused
                types.setdefault(found.labels, set()).add(found.type)
    return Outcome(types, pointers)


def leaving(found: ActualRecordSet, zone: ManagedZone) -> bool:
    """Whether a record set that nobody desires is deleted; the NS records of a zone itself never are."""
    return zone.purge and found.mine(zone.mark) and not (found.type == "NS" and found.labels == zone.name.labels)


def check_contradictions(item: DesiredRecordSet, after: Outcome) -> None:
    """Refuse an item that cannot stand beside the others.

    :raises InvalidInput: it does not go together with what the zone would have besides.
    """
    owner = item.owner.labels
    others = after.types[owner] - {item.type}
    if others and (item.type == "CNAME" or "CNAME" in others):
        raise InvalidInput(
            f"a CNAME cannot stand beside other records (RFC 1034, 3.6.2): {', '.join(sorted(others))}",
            where=f"{item.name}, type",
            hint="List what has to go with state absent, or purge the zone",
        )
    if item.type == "CNAME" and (pointing := after.pointers.get(owner, set()) - {item.name}):
        raise InvalidInput(
            f"{', '.join(sorted(pointing))} leads to this name, which must not be an alias (RFC 2181, 10.3)",
            where=f"{item.name}, type",
            hint="Write the addresses here, or let it lead to the alias' target",
        )
    _check_delegation(item, after)
    if item.type in POINTING:
        for target in targets(item.type, item.values):
            if "CNAME" in after.types.get(target, ()):
                raise InvalidInput(
                    f"the target {shown_labels(target)} is an alias, a CNAME (RFC 2181, 10.3)",
                    where=f"{item.name}, value",
                    hint="Use the name that it leads to",
                )


def _check_delegation(item: DesiredRecordSet, after: Outcome) -> None:
    """Refuse what nobody would see, because it is in a zone that this one gives away.

    :raises InvalidInput: the name is at or below NS records, and the item is neither theirs nor an address of them.
    """
    owner = item.owner.labels
    for start in range(len(owner) - len(item.zone.name.labels)):
        cut = owner[start:]
        if "NS" not in after.types.get(cut, ()) or (start == 0 and item.type in AT_CUT):
            continue
        if item.type in GLUE and any(pointing.endswith(" NS") for pointing in after.pointers.get(owner, ())):
            continue
        raise InvalidInput(
            f"NS records give {shown_labels(cut)} to another zone, so nobody would see it here (RFC 1034, 4.2.1)",
            where=f"{item.name}, record",
            hint=f"Manage it in the zone {shown_labels(cut)}, on the server of that one",
        )


def targets(rdtype: str, wires: Iterable[bytes]) -> set[Labels]:
    """The names that records lead to, in lower case."""
    return {target.canonicalize().labels for wire in wires for target in values.names_in(values.rdata(rdtype, wire))}


def _point(pointers: dict[Labels, set[str]], name: str, rdtype: str, wires: Iterable[bytes]) -> None:
    for target in targets(rdtype, wires) if rdtype in POINTING else ():
        pointers.setdefault(target, set()).add(name)
