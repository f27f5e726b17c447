# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to change so that the zones are the wanted ones, whatever keeps them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

try:
    import dns.name
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.model import (
    ActualZone,
    MalformedZone,
    Wanted,
    WantedZone,
    ZoneChange,
    refusals,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.removal import Removal
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, InvalidInput
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Change, Plan, Refusal


def plan_zones(
    desired: Sequence[Wanted],
    actual: Mapping[str, ActualZone],
    owner: str,
    removal: Removal,
    *,
    purge: bool,
    allowed: Collection[dns.name.Name],
    same: Callable[[WantedZone, ActualZone], bool],
) -> Plan[Wanted, ActualZone]:
    """The changes; *same* (wanted, actual) says whether nothing is to be done."""
    listed = {item.name for item in desired}
    ours = {name: found for name, found in sorted(actual.items()) if found.holder.owner == owner and not found.problem}
    surplus = [found for name, found in ours.items() if purge and name not in listed]
    absent = {item.name for item in desired if isinstance(item, WantedZone) and item.state == "absent"}
    stuck = _without_copy(removal, [*(found.name for found in surplus), *absent.intersection(ours)])
    stuck |= _doubtful(desired, surplus)
    going = {found.name for found in surplus} | absent.intersection(ours)
    errors = {**stuck, **refusals(desired, actual, going - set(stuck), allowed)}
    changes: list[ZoneChange] = []
    for item in desired:
        if item.name in errors or not isinstance(item, WantedZone):
            continue
        found = actual.get(item.name)
        before = found.shown() if found is not None else {}
        if item.state == "absent":
            changes.append(Change(item.name, "unchanged" if found is None else "delete", before, {}, item, found))
        elif found is None:
            changes.append(Change(item.name, "create", {}, item.shown(), item, None))
        else:
            changes.append(
                Change(item.name, "unchanged" if same(item, found) else "update", before, item.shown(), item, found)
            )
    changes += [
        Change(found.name, "delete", found.shown(), {}, None, found) for found in surplus if found.name not in stuck
    ]
    return Plan(tuple(changes), tuple(Refusal(name, error) for name, error in errors.items()))


def _doubtful(desired: Sequence[Wanted], surplus: Sequence[ActualZone]) -> dict[str, HostingError]:
    """The surplus zones that may be meant by an item that was not understood."""
    for item in desired:
        if isinstance(item, MalformedZone) and item.unclear:
            what = "it stays, because it may be what another item means that is refused"
            hint = f"Mend that one: {item.error}"
            return {found.name: InvalidInput(what, where=f"zone {found.name}", hint=hint) for found in surplus}
    return {}


def without(plan: Plan[Wanted, ActualZone], errors: Mapping[str, HostingError]) -> Plan[Wanted, ActualZone]:
    """The plan with the items of *errors* refused."""
    return Plan(
        tuple(change for change in plan.changes if change.name not in errors),
        (*plan.refusals, *(Refusal(name, error) for name, error in errors.items())),
    )


def _without_copy(removal: Removal, names: Iterable[str]) -> dict[str, HostingError]:
    """The zones that cannot go, because there is no place for their copies."""
    errors: dict[str, HostingError] = {}
    for name in names:
        try:
            removal.check(name)
        except HostingError as error:
            errors[name] = error
    return errors
