# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Provider of DNS record sets: read by zone transfer, changed by one signed UPDATE per zone, read back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from ansible_collections.fediversity.hosting.plugins.module_utils.dns import model
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.ask import Place, ask
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import (
    ActualRecordSet,
    Desired,
    DesiredRecordSet,
    ManagedZone,
    RecordChange,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.names import ascii_name
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.plan import make_plan, shares
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.transfer import Labels
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.write import write
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    HostingError,
    Unreachable,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Applied, Plan, Share

# a server that restarts is asked again after so many seconds
PATIENCE_SECONDS = (0.2, 1, 3)


class DnsRecords:
    """The record sets of some zones, each on one primary server, or with the reason why it has none."""

    kind: ClassVar[str] = "dns_records"

    def __init__(self, zones: Sequence[tuple[ManagedZone, Server | HostingError]]) -> None:
        self._zones = {zone.name: zone for zone, _server in zones}
        self._servers = {zone.name: server for zone, server in zones}
        # what the plan is made from
        self._seen: dict[str, ActualRecordSet] = {}

    def read(self, desired: Sequence[Desired]) -> Mapping[str, ActualRecordSet]:
        """What is at the desired names, everything that is ours, and what may contradict it.

        A zone that cannot be read is a problem of its items; it is an error when no zone can be read.
        """
        self._seen = {}
        problems: list[HostingError] = []
        wishes: dict[Labels, list[DesiredRecordSet]] = {zone.labels: [] for zone in self._zones}
        for item in desired:
            if isinstance(item, DesiredRecordSet):
                wishes[item.zone.name.labels].append(item)
        for zone in self._zones.values():
            wanted = wishes[zone.name.labels]
            try:
                self._seen |= self._read_zone(zone, [(item.owner, item.type, item.values) for item in wanted])
            except HostingError as error:
                problems.append(error)
                places = [(item.owner.labels, item.type) for item in wanted] or [(zone.name.labels, "SOA")]
                self._seen |= {
                    model.item_name(labels, rdtype): ActualRecordSet(zone.name, labels, rdtype, problem=error)
                    for labels, rdtype in places
                }
        if problems and len(problems) == len(self._zones):
            raise problems[0]
        return self._seen

    def plan(self, desired: Sequence[Desired], actual: Mapping[str, ActualRecordSet]) -> Plan[Desired, ActualRecordSet]:
        return make_plan(desired, actual, self._zones)

    def shares(self, plan: Plan[Desired, ActualRecordSet], actual: Mapping[str, ActualRecordSet]) -> Iterable[Share]:
        """Of what the thresholds are percentages: our record sets in each zone."""
        return shares(plan, actual, self._zones)

    def apply(self, changes: Sequence[RecordChange]) -> Iterator[Applied[Desired, ActualRecordSet]]:
        seen = self._seen
        for zone in self._zones.values():
            of_zone = [change for change in changes if model.zone_of(change) == zone.name]
            server = self._servers[zone.name]
            if of_zone and isinstance(server, Server):
                yield from write(server, zone.name, of_zone, seen, partial(self._read_again, zone))

    def outputs(self, actual: ActualRecordSet) -> Mapping[str, Any]:
        return {
            "zone": ascii_name(actual.zone),
            "record": ascii_name(actual.owner),
            "type": actual.type,
            **model.shown(actual.type, actual.ttl, actual.values),
        }

    def _read_again(self, zone: ManagedZone, changes: Sequence[RecordChange]) -> dict[str, ActualRecordSet]:
        places = [(*model.place(change), _values(change)) for change in changes]
        for seconds in PATIENCE_SECONDS:
            try:
                return self._read_zone(zone, places)
            except Unreachable:
                time.sleep(seconds)
        return self._read_zone(zone, places)

    def _read_zone(self, zone: ManagedZone, wanted: Sequence[Place]) -> dict[str, ActualRecordSet]:
        server = self._servers[zone.name]
        if isinstance(server, HostingError):
            raise server
        if not wanted and not zone.purge:
            return {}
        try:
            content = server.content(zone.name)
        except Denied as denied:
            # without a transfer nobody can know what else is ours
            if zone.purge:
                raise
            try:
                content = ask(server, zone.name, wanted)
            except BackendError as error:
                raise type(error)(f"{denied.what}; {error.what}", where=error.where, hint=error.hint) from None
        return model.actual_record_sets(zone, content, {owner.labels for owner, _type, _values in wanted})


def _values(change: RecordChange) -> frozenset[bytes]:
    return change.desired.values if isinstance(change.desired, DesiredRecordSet) else frozenset()
