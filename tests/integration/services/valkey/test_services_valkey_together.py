# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several runs at once, and people who change users meanwhile: no change is lost without a word."""

from __future__ import annotations

from collections.abc import Callable

from support.cutting_proxy import Direction, Request, cutting_proxy
from valkey_place import Place, Result, by_name, finished, password


def meanwhile(text: bytes, what: Callable[[], object]) -> Callable[[Direction, Request], bool]:
    """Does something once, before a request with this text reaches the server."""
    left = [what]

    def cut(direction: Direction, request: Request) -> bool:
        if direction == "request" and text in request.data and left:
            left.pop()()
        return False

    return cut


def raced(place: Place, text: bytes, theirs: Callable[[], object]) -> Result:
    """A run over three users, during which somebody else does something."""
    port = place.server.port
    with cutting_proxy((place.server.host, port), meanwhile(text, theirs)) as proxy:
        users = [place.tenant(name, "ours", commands=["+scan"]) for name in ("a", "b", "c")]
        return place.through(proxy).run(*users)


def begin(place: Place) -> None:
    place.run(*(place.tenant(name, "before") for name in ("a", "b", "c")))


def test_what_another_run_changed_after_the_plan_is_left(place: Place) -> None:
    begin(place)
    result = raced(place, b"GETUSER", lambda: place.run(place.tenant("b", "theirs"), place.gone("c")))
    told = by_name(result)
    assert {name: item["failed"] for name, item in told.items()} == {
        place.name("a"): False,
        place.name("b"): True,
        place.name("c"): True,
    }
    assert "after this one had planned" in told[place.name("b")]["msg"]
    assert [place.opens("a", "ours"), place.opens("b", "ours"), place.opens("b", "theirs")] == [True, False, True]
    assert place.name("c") not in place.lines()


def test_what_another_run_changed_in_the_same_moment_is_overwritten_and_said(place: Place) -> None:
    begin(place)
    result = raced(place, place.saving("a"), lambda: place.run(place.tenant("b", "theirs"), place.gone("c")))
    told = by_name(result)
    assert {name: item["failed"] for name, item in told.items()} == {
        place.name("a"): False,
        place.name("b"): True,
        place.name("c"): True,
    }
    assert all("overwritten" in told[place.name(name)]["msg"] for name in ("b", "c"))
    assert [place.opens("b", "ours"), place.opens("b", "theirs")] == [True, False]


def test_what_a_person_does_to_other_users_stays(place: Place) -> None:
    begin(place)
    person = place.name("person")

    def edit() -> None:
        with place.client() as admin:
            admin.execute_command("ACL", "SETUSER", person, "on", f">{password('person')}", "~x", "+get")

    result = raced(place, place.saving("a"), edit)
    assert not result["failed"], result["msg"]
    assert place.opens("person", "person")
    assert "+get" in place.lines()[person]
    assert place.run({"name": person, "passwords": [password("mine")]})["failed"]
    assert "+get" in place.lines()[person]


def test_runs_that_start_together_leave_every_user_as_one_of_them_wants(place: Place) -> None:
    begin(place)
    passwords = ("one", "two")
    names = [f"u{number}" for number in range(20)]
    wanted = {password: [place.tenant(name, password) for name in names] for password in passwords}
    running = [place.start(*users) for users in wanted.values()]
    results = dict(zip(passwords, [finished(process) for process in running], strict=True))
    winners = {
        name: [password for password in passwords if place.opens(name, password)] for name in (names[0], names[-1])
    }
    assert all(len(found) == 1 for found in winners.values()), winners
    assert any(not result["failed"] for result in results.values())
    again = place.run(*wanted["one"])
    assert not again["failed"], again["msg"]
    assert not place.run(*wanted["one"])["changed"]
    assert all(place.opens(name, "one") for name in (names[0], names[-1]))


def test_runs_for_different_users_do_not_disturb_each_other(place: Place) -> None:
    running = [place.start(place.tenant(f"own{number}", "p")) for number in range(3)]
    results = [finished(process) for process in running]
    assert [result["failed"] for result in results] == [False] * 3
    assert all(place.opens(f"own{number}", "p") for number in range(3))
