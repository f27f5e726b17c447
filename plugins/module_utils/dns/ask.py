# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be seen of single record sets where the server does not let us transfer the zone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeAlias

try:
    import dns.name
except ImportError:
    pass  # require_libraries() in module.py reports it before any use

from ansible_collections.fediversity.hosting.plugins.module_utils.dns import model, values
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.preflight import POINTING, targets
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.transfer import Content

# name, type and values of a record set
Place: TypeAlias = "tuple[dns.name.Name, str, frozenset[bytes]]"

# what mostly stands in the way of an alias
BESIDE_ALIAS = ("A", "AAAA", "MX", "TXT")


def ask(server: Server, zone: dns.name.Name, wanted: Collection[Place]) -> Content:
    """The *wanted* record sets, their registry records, aliases that they lead to, and the version of the zone."""
    ours = {model.version_owner(zone)}
    ours |= {model.registry_owner(zone, owner, rdtype) for owner, rdtype, _values in wanted}
    places = dict.fromkeys([*((owner, "TXT") for owner in ours), *_questions(zone, wanted)])
    content: Content = {}
    for (owner, _rdtype), answer in zip(places, server.queries(zone, places), strict=True):
        for rrset in answer:
            # an answer may be a CNAME of the name and what it leads to
            if rrset.name != owner:
                continue
            wires = [value.to_wire() or b"" for value in rrset]
            # a wildcard of the zone answers for names that do not exist
            if owner in ours and not all(values.txt_bytes(wire).startswith(model.MARKED) for wire in wires):
                continue
            content[owner.canonicalize().labels, int(rrset.rdtype)] = (rrset.ttl, wires)
    return content


def _questions(zone: dns.name.Name, wanted: Collection[Place]) -> Iterator[tuple[dns.name.Name, str]]:
    for owner, rdtype, wires in wanted:
        yield owner, rdtype
        if rdtype == "CNAME":
            yield from ((owner, other) for other in BESIDE_ALIAS)
        if rdtype in POINTING:
            for labels in targets(rdtype, wires):
                target = dns.name.Name(labels)
                if target.is_subdomain(zone):
                    yield target, "CNAME"
