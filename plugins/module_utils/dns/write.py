# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One zone's changes: sent message by message, and what is done when somebody else writes to the zone meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

try:
    import dns.name
    import dns.rcode
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns import update
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import Server, refused
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.model import (
    ActualRecordSet,
    Desired,
    RecordChange,
    version_name,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.plan import settle
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.update import Unit
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import HostingError, Locked, Unreachable
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Applied

State: TypeAlias = Mapping[str, ActualRecordSet]
Done: TypeAlias = Applied[Desired, ActualRecordSet]

# RFC 2136 section 2.4: the zone is not as the prerequisites say
CHANGED_MEANWHILE = frozenset({"NXDOMAIN", "YXDOMAIN", "NXRRSET", "YXRRSET"})
# answers that may be about a part of the message only
PARTIAL = frozenset({"REFUSED", "FORMERR", "NOTZONE", "SERVFAIL"})
# PowerDNS says SERVFAIL while its database is busy
BUSY_SECONDS = 0.2
# so many messages of a zone are searched for the part at fault; then parts fail as a whole
MAX_HALVED = 64


def write(
    server: Server,
    zone: dns.name.Name,
    changes: Sequence[RecordChange],
    seen: State,
    read: Callable[[Sequence[RecordChange]], State],
) -> Iterator[Done]:
    """Make *changes*, planned from *seen*; *read* reads the zone again.

    When the zone has changed or the connection was lost, the zone is read again and what is left is sent once more.
    """
    left = {change.name: change for change in changes}
    for last in (False, True):
        trouble: HostingError | None = None
        for done in _send_all(server, zone, list(left.values()), _version(zone, seen)):
            if isinstance(done, HostingError):
                trouble = done
                break
            del left[done.change.name]
            yield done
        if trouble is None:
            return
        try:
            now = read(list(left.values()))
        except HostingError:
            break
        settled = settle(list(left.values()), seen, now)
        yield from (Applied(change) for change in settled.done)
        yield from (Applied(change, error) for change, error in settled.lost)
        left = {change.name: change for change in settled.again}
        seen = now
        if last or not left:
            break
    yield from (Applied(change, trouble) for change in left.values())


def _send_all(
    server: Server, zone: dns.name.Name, changes: Sequence[RecordChange], expected: frozenset[bytes]
) -> Iterator[Done | HostingError]:
    """Send one message after the other; a refused one is halved until only the units at fault are left out.

    A bare error ends it: the zone is not as it was read, or nobody knows whether a message has arrived.
    """
    waiting: list[list[Unit]] = list(update.batches(zone, update.units(changes)))[::-1]
    halved = 0
    while waiting:
        part = waiting.pop()
        version = update.next_version(expected)
        try:
            rcode = server.update(zone, update.message(zone, part, version))
            if rcode == dns.rcode.SERVFAIL:
                # the conditions keep it from being made twice
                time.sleep(BUSY_SECONDS)
                rcode = server.update(zone, update.message(zone, part, version))
        except Unreachable as error:
            yield error
            return
        except HostingError as error:
            yield from [Applied(change, error) for unit in part for change in unit]
            continue
        if dns.rcode.to_text(rcode) in CHANGED_MEANWHILE:
            yield Locked(
                f"somebody else keeps writing to the zone ({dns.rcode.to_text(rcode)})",
                hint="Nothing of this record set was written; run again",
            )
            return
        if len(part) > 1 and dns.rcode.to_text(rcode) in PARTIAL and halved < MAX_HALVED:
            halved += 1
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]
            continue
        if rcode == dns.rcode.NOERROR:
            expected = frozenset([version.next])
            yield from (Applied(change) for unit in part for change in unit)
        else:
            yield from (Applied(change, refused(rcode)) for unit in part for change in unit)


def _version(zone: dns.name.Name, seen: State) -> frozenset[bytes]:
    found = seen.get(version_name(zone))
    return found.values if found is not None else frozenset()
