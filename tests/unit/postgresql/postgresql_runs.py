# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the tests run the provider."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.client import Server
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.model import (
    Desired,
    DesiredDatabase,
    DesiredRole,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.plan import Policy, shares
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.provider import Look, PostgresqlDatabases
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql.session import session
from ansible_collections.fediversity.hosting.plugins.module_utils.reconcile import Limits, reconcile

Sql = Callable[..., list[tuple[object, ...]]]
Login = Callable[[str, str, str], psycopg.Connection]

DROPPING = Policy(drop_without_dump=True)


def wish(name: str, **fields: Any) -> DesiredDatabase:
    return DesiredDatabase(**{"name": name, "owner": name, "mark": name, **fields})


def role(name: str, **fields: Any) -> DesiredRole:
    return DesiredRole(**{"name": name, "mark": name, **fields})


def run(
    server: Server,
    *desired: Desired,
    check: bool = False,
    policy: Policy = DROPPING,
    look: Look | None = None,
    max_delete_percent: int = 100,
) -> dict[str, Any]:
    with session(server) as opened:
        provider = PostgresqlDatabases(opened, policy, look)
        limits = Limits(max_delete_percent=max_delete_percent)
        result = reconcile(provider, desired, check=check, limits=limits, shares=partial(shares, policy))
        return result | {"dumps": provider.dump_outputs(), "lost": provider.lost, "open_to_all": provider.open_to_all()}


def made(server: Server, *desired: Desired, **options: Any) -> dict[str, Any]:
    """Run, which must predict itself, succeed and leave nothing to do."""
    predicted = run(server, *desired, check=True, **options)
    done = run(server, *desired, **options)
    assert not done["failed"], done["msg"]
    assert done["diff"] == predicted["diff"]
    assert actions(done) == actions(predicted)
    again = run(server, *desired, **options)
    assert (again["changed"], again["diff"]) == (False, {"before": {}, "after": {}}), again
    return done


def by_name(result: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item for item in result["results"]}


def actions(result: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["action"] for item in result["results"]}
