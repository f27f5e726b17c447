# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of users: made, changed, disabled, deleted; rotation and restarts."""

from __future__ import annotations

import pytest
import redis
from valkey_place import Place, by_name, password


def actions(place: Place, result: dict[str, object]) -> dict[str, str]:
    return {name.removeprefix(f"{place.mark}-"): item["action"] for name, item in by_name(result).items()}


def test_users_come_and_go(place: Place) -> None:
    first = place.change(place.tenant("one", "p1"), place.tenant("two", "p2"), place.tenant("three", "p3"))
    assert actions(place, first) == {"one": "create", "two": "create", "three": "create"}
    assert first["persistence"]["saved"] == (first["persistence"]["method"] != "none")
    assert [place.opens("one", "p1"), place.opens("two", "p2"), place.opens("three", "p3")] == [True] * 3

    second = place.change(
        place.tenant("one", "p1", commands=["+scan"]), place.tenant("two", "p2", enabled=False), place.gone("three")
    )
    assert actions(place, second) == {"one": "update", "two": "update", "three": "delete"}
    assert {place.name("one"), place.name("two")} <= set(place.lines())
    assert [place.opens("one", "p1"), place.opens("two", "p2"), place.opens("three", "p3")] == [True, False, False]
    place.change(place.gone("one"), place.gone("two"))
    assert not [name for name in place.lines() if name.startswith(place.mark)]


def test_a_user_who_reads_everything_and_writes_one_list(place: Place) -> None:
    if not place.knows_selectors():
        pytest.skip("Redis 6 has no selectors")
    reader = {
        "name": place.name("reader"),
        "passwords": [password("reads")],
        "keys": [f"%R~{place.mark}*"],
        "commands": ["+@read", "-keys"],
        "selectors": [{"keys": [f"~{place.mark}:queue"], "commands": ["+lpush"]}],
    }
    place.change(reader, place.tenant("owner", "owns"))
    key = f"{place.name('owner')}:key"
    with place.client("owner", "owns") as owner, place.client("reader", "reads") as reading:
        assert owner.execute_command("SET", key, "value") == "OK"
        assert reading.execute_command("GET", key) == "value"
        assert reading.execute_command("LPUSH", f"{place.mark}:queue", "x") == 1
        with pytest.raises(redis.exceptions.NoPermissionError):
            reading.execute_command("SET", key, "other")
    place.change(place.gone("reader"), place.gone("owner"))


def test_a_password_is_rotated_without_a_gap(place: Place) -> None:
    passwords = ["old"], ["new", "old"], ["new"]
    opened = []
    for wanted in passwords:
        place.change(place.tenant("rotated", *wanted))
        opened.append([place.opens("rotated", "old"), place.opens("rotated", "new")])
    assert opened == [[True, False], [True, True], [False, True]]
    place.change(place.gone("rotated"))


def test_users_outlive_a_restart(private: Place) -> None:
    assert private.private is not None
    users = [private.tenant("kept", "p", commands=["+scan"]), {"name": private.name("bare"), "channels": ["&news"]}]
    assert private.change(*users)["persistence"] == {"method": "aclfile", "saved": True}
    private.private.restart()
    assert not private.run(*users)["changed"]
    assert private.opens("kept", "p")
    assert "probe" not in private.private.acl_file.read_text(encoding="utf-8")
    private.change(private.gone("kept"), private.gone("bare"))
    private.private.restart()
    assert not [name for name in private.lines() if name.startswith(private.mark)]


def test_each_bad_item_is_refused_with_its_field_and_the_good_one_is_made(place: Place) -> None:
    name = place.name
    bad = {
        "name": [{"name": f"{place.mark}{'n' * 120}"}, {"name": f"{place.mark} two"}, {"name": f"{place.mark}'ü'"}],
        "prefix": [{"name": name("prefix"), "prefix": "glob*"}],
        "keys": [{"name": name("keys"), "keys": ["no rule"]}],
        "commands": [{"name": name("commands"), "commands": ["+nosuchcommand"]}],
        "selectors": [{"name": name("selectors"), "selectors": [{"commands": ["-@nosuchcategory"]}]}],
        "password_hashes": [{"name": name("hashes"), "password_hashes": ["clear"]}],
        "passwords": [{"name": name("empty"), "passwords": [""]}],
    }
    if not place.knows_selectors():
        del bad["selectors"]
    good = place.tenant("good", "p")
    result = place.run(*(item for items in bad.values() for item in items), good)
    assert result["failed"]
    told = by_name(result)
    fields = {**{field: field for field in bad}, "selectors": "commands"}
    for field, items in bad.items():
        for item in items:
            assert told[item["name"]]["action"] == "refused"
            assert fields[field] in told[item["name"]]["msg"]
    assert (told[name("good")]["action"], told[name("good")]["failed"]) == ("create", False)
    assert [user for user in place.lines() if user.startswith(place.mark)] == [name("good")]
    place.change(place.gone("good"))
