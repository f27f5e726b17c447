# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random catalogs and wishes: one run makes them equal, what is foreign stays, and the second run does nothing."""

from __future__ import annotations

from typing import Any

import dns.name
import dns.update
from ansible_collections.fediversity.hosting.plugins.module_utils.dns.client import make_server
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.catalog import CatalogZones
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.model import Holder, from_options
from ansible_collections.fediversity.hosting.plugins.module_utils.dns_zones.removal import Removal
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Limits, reconcile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zones_servers import CATALOG, KEY, SECRET, ZONE_OPTIONS, Estate

OWNER = "fediversity"
NAMES = ("a.test", "b.test", "in.a.test", "deep.in.a.test")
operators = st.sampled_from([None, "alice", "bob"])
groups = st.sampled_from([None, "signed", "default"])
# whose a member is: ours, another estate's, or nobody's
holders = st.one_of(
    st.none(),
    st.builds(Holder, st.just("other"), operators),
    st.builds(Holder, st.just(OWNER), operators),
)
actual_members = st.dictionaries(st.sampled_from(NAMES), st.tuples(holders, groups))
wishes = st.dictionaries(
    st.sampled_from(NAMES),
    st.fixed_dictionaries({"operator": operators, "group": groups, "state": st.sampled_from(["present", "absent"])}),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actual=actual_members, wanted=wishes, purge=st.booleans())
def test_a_catalog_becomes_what_is_wanted(
    knot: Estate, actual: dict[str, tuple[Holder | None, str | None]], wanted: dict[str, dict[str, Any]], purge: bool
) -> None:
    fill(knot, actual)
    before = knot.content(CATALOG)
    server = make_server("127.0.0.1", knot.port, KEY, SECRET, "hmac-sha256")
    items = from_options([{**ZONE_OPTIONS, "name": name, **wish} for name, wish in wanted.items()], OWNER)

    def run(check: bool) -> dict[str, Any]:
        removal = Removal(server, None, True, None)
        provider = CatalogZones(server, dns.name.from_text(CATALOG), OWNER, removal, purge=purge, allowed=[])
        return reconcile(provider, items, check=check, limits=Limits(100))

    predicted = run(True)
    assert knot.content(CATALOG) == before
    done = run(False)
    assert [(entry["name"], entry["action"], entry["msg"]) for entry in done["results"]] == [
        (entry["name"], entry["action"], entry["msg"]) for entry in predicted["results"]
    ]
    after = knot.content(CATALOG)
    foreign = [name for name, (holder, _group) in actual.items() if holder is None or holder.owner != OWNER]
    for name in foreign:
        assert {key: value for key, value in after.items() if label(name) in key} == {
            key: value for key, value in before.items() if label(name) in key
        }
    for entry in done["results"]:
        name = entry["name"]
        wish = wanted.get(name)
        if entry["failed"]:
            assert {key: value for key, value in after.items() if label(name) in key} == {
                key: value for key, value in before.items() if label(name) in key
            }
        elif wish is not None and wish["state"] == "present":
            assert (entry["mark"], entry.get("group")) == (Holder(OWNER, wish["operator"]).text(), wish["group"])
        else:
            assert [f"{name}."] not in after.values()
    again = run(False)
    assert not again["changed"]
    assert [entry["name"] for entry in again["results"] if entry["failed"]] == [
        entry["name"] for entry in done["results"] if entry["failed"]
    ]


def label(name: str) -> str:
    return f"id-{name.replace('.', '-')}.zones"


def fill(knot: Estate, actual: dict[str, tuple[Holder | None, str | None]]) -> None:
    """Make the members of the catalog these."""
    old = knot.content(CATALOG)

    def change(message: dns.update.UpdateMessage) -> None:
        for place in old:
            name = place.split(" ")[0]
            if name.endswith(".zones"):
                message.delete(name)
        for name, (holder, group) in actual.items():
            message.add(label(name), 0, "PTR", f"{name}.")
            if holder is not None:
                message.add(f"fediversity.ext.{label(name)}", 0, "TXT", f'"{holder.text()}"')
            if group is not None:
                message.add(f"group.{label(name)}", 0, "TXT", group)

    knot.update(CATALOG, change)
