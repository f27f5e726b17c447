# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From any state to any other in one run; what others have stays as it is, and nothing is left to do."""

from __future__ import annotations

from typing import Any

import dns.update
from dns_place import Content, Place, actions, failed, told
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# as the module takes them, as a zone shows them
VALUES = {
    "A": {"192.0.2.1": "192.0.2.1", "192.0.2.2": "192.0.2.2"},
    "AAAA": {"2001:DB8::1": "2001:db8::1"},
    "TXT": {"one": '"one"', 'say "hi" \\': '"say \\"hi\\" \\\\"', "x" * 300: f'"{"x" * 255}" "{"x" * 45}"'},
    "MX": {"10 a.example.org": "10 a.example.org.", "20 b.example.org.": "20 b.example.org."},
    "CNAME": {"www.example.org": "www.example.org.", "Else.Example.Org": "else.example.org."},
    "SRV": {"1 2 5060 sip.example.org": "1 2 5060 sip.example.org."},
}
LIMITS = {"max_delete_percent": 100, "max_update_percent": 100}
Wanted = tuple[str, str, int, tuple[str, ...]]


@st.composite
def one_wanted(draw: st.DrawFn) -> Wanted:
    rdtype = draw(st.sampled_from(sorted(VALUES)))
    several = 1 if rdtype == "CNAME" else 2
    values = draw(st.lists(st.sampled_from(sorted(VALUES[rdtype])), min_size=1, max_size=several, unique=True))
    name = draw(st.sampled_from(["a", "B", "b.a", "*", "*.b", "c-d"]))
    return name, rdtype, draw(st.sampled_from([60, 300])), tuple(values)


def distinct(wanted: list[Wanted]) -> list[Wanted]:
    return list({(name.lower(), rdtype): (name, rdtype, ttl, values) for name, rdtype, ttl, values in wanted}.values())


def possible(wanted: list[Wanted]) -> list[Wanted]:
    """What a server takes: an alias stands alone."""
    aliases = {name.lower() for name, rdtype, _ttl, _values in wanted if rdtype == "CNAME"}
    return [item for item in wanted if item[1] == "CNAME" or item[0].lower() not in aliases]


states = st.lists(one_wanted(), max_size=8).map(distinct)


def looks(wanted: list[Wanted]) -> Content:
    return {
        (name.lower(), rdtype): (ttl, frozenset(VALUES[rdtype][value] for value in values))
        for name, rdtype, ttl, values in wanted
    }


def options(place: Place, wanted: list[Wanted]) -> list[dict[str, Any]]:
    return [place.record_set(name, rdtype, *values, ttl=ttl) for name, rdtype, ttl, values in wanted]


def folded(content: Content) -> Content:
    """Targets without their case, which means nothing and which not every server keeps."""
    return {
        key: (ttl, values if key[1] == "TXT" else frozenset(value.lower() for value in values))
        for key, (ttl, values) in content.items()
    }


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(theirs=states.map(possible), before=states.map(possible), after=states)
def test_one_run_reaches_any_state_from_any_other(
    place: Place, theirs: list[Wanted], before: list[Wanted], after: list[Wanted]
) -> None:
    place.clear()
    foreign = looks(theirs)

    def make_theirs(message: dns.update.UpdateMessage) -> None:
        for (name, rdtype), (ttl, values) in foreign.items():
            message.add(place.prefix(name), ttl, rdtype, *values)

    place.edit(make_theirs)
    place.run(*options(place, before), options=LIMITS)

    wanted = options(place, after)
    predicted = place.run(*wanted, purge=True, options=LIMITS, check=True)
    done = place.run(*wanted, purge=True, options=LIMITS)
    assert told(done) == told(predicted), done["msg"]
    assert done["diff"] == predicted["diff"]

    found = place.content()
    # a name may be shown in the case of an equal one elsewhere in the answer, to which the server points
    assert folded({key: found[key] for key in foreign}) == folded(foreign)
    refused = {key for key in looks(after) if place.item(*key) in failed(done)}
    assert refused == impossible(after, foreign), done["msg"]
    expected = {key: look for key, look in looks(after).items() if key not in refused}
    # what should have made room for a refused one stays, and is named
    for key, look in looks(before).items():
        if key in found and key not in looks(after) and key not in foreign:
            assert place.item(*key) in failed(done)
            assert any(name == key[0] and (rdtype == "CNAME") != (key[1] == "CNAME") for name, rdtype in refused)
            expected[key] = look
    ours = {key: look for key, look in found.items() if key not in foreign}
    # a refused one may have kept what it was before the run
    assert folded({key: look for key, look in ours.items() if key not in refused}) == folded(expected)

    serial = place.serial()
    again = place.run(*wanted, purge=True, options=LIMITS)
    assert (again["changed"], failed(again)) == (False, failed(done)), again["diff"]
    assert set(actions(again).values()) <= {"unchanged", "refused"}
    assert place.serial() == serial


def impossible(wanted: list[Wanted], foreign: Content) -> set[tuple[str, str]]:
    """What is somebody else's, and what would stand beside an alias."""
    types: dict[str, set[str]] = {}
    for name, rdtype in {*foreign, *looks(wanted)}:
        types.setdefault(name, set()).add(rdtype)
    return {
        (name, rdtype)
        for name, rdtype in looks(wanted)
        if (name, rdtype) in foreign or ("CNAME" in types[name] and len(types[name]) > 1)
    }
