# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several who change one server at once: no update is lost, and who had to wait or lost says so."""

from __future__ import annotations

import threading

import psycopg
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.session import LOCK_KEY
from postgresql_estate import Place, by_name, finish, password
from support.cutting_proxy import Direction, Request, cutting_proxy


def limit_and_password(place: Place, name: str) -> tuple[int, str]:
    """The connection limit of a database, and which of the passwords logs in."""
    ((limit,),) = place.sql("SELECT datconnlimit FROM pg_database WHERE datname = %s", name)
    for number in (1, 2):
        try:
            place.connect(name, password(f"number-{number}"), name).close()
        except psycopg.OperationalError:
            continue
        return limit, f"number-{number}"
    return limit, "none"


def test_two_runs_with_different_wishes_at_once(place: Place) -> None:
    both = place.name("both")
    with place.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
        runs = [
            place.start(
                {"name": both, "password": password(f"number-{number}"), "conn_limit": number},
                {"name": place.name(f"own_{number}")},
            )
            for number in (1, 2)
        ]
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = %s"
        while holder.execute(waiting, [LOCK_KEY]).fetchone() != (2,):
            assert all(run.poll() is None for run in runs)
        holder.execute("SELECT pg_advisory_unlock(%s)", [LOCK_KEY])
    results = [finish(run) for run in runs]
    assert not any(result["failed"] for result in results), [result["msg"] for result in results]
    # whoever came second changed what the first had made, as a whole
    actions = sorted(by_name(result)[both]["action"] for result in results)
    assert actions == ["create", "update"]
    second = next(n for n, result in enumerate(results, 1) if by_name(result)[both]["action"] == "update")
    assert limit_and_password(place, both) == (second, f"number-{second}")
    for number in (1, 2):
        assert place.sql("SELECT 1 FROM pg_database WHERE datname = %s", place.name(f"own_{number}")) == [(1,)]
    for result in results:
        assert "another run" in f"{result['msg']} {result.get('warnings')}"


def test_who_waits_too_long_says_so_and_changed_nothing(place: Place) -> None:
    name = place.name("never")
    with place.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
        # as a run of an hour would
        result = finish(place.start({"name": name}))
    assert result["failed"]
    assert "another run" in result["msg"]
    assert place.sql("SELECT 1 FROM pg_database WHERE datname = %s", name) == []


def test_somebody_changes_the_database_while_the_run_changes_it(place: Place) -> None:
    """The change by hand that comes between reading and reading back is either undone or reported, never taken over."""
    name = place.name("contested")
    place.make({"name": name, "password": password("number-1"), "conn_limit": 5})
    edited = threading.Event()

    def by_hand(direction: Direction, request: Request) -> bool:
        if direction == "request" and b"CONNECTION LIMIT" in request.data and not edited.is_set():
            edited.set()
            place.sql("GRANT CONNECT ON DATABASE {} TO PUBLIC", names=[name])
            place.sql("ALTER DATABASE {} CONNECTION LIMIT 3", names=[name])
        return False

    wish = {"name": name, "password": password("number-2"), "conn_limit": 7}
    target = (place.admin["PGHOST"], int(place.admin.get("PGPORT", "5432")))
    with cutting_proxy(target, by_hand) as proxy:
        result = place.at(PGHOST=proxy.host, PGPORT=str(proxy.port), PGSSLMODE="disable").run(wish)
    assert edited.is_set()
    assert result["failed"]
    assert "differs" in by_name(result)[name]["msg"]
    place.make(wish)
    assert limit_and_password(place, name) == (7, "number-2")
    assert not place.make(wish)["changed"]
