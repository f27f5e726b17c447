# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""operators.yml into the operator database: checked as a whole, then written in one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import Application
from ansible_collections.fediversity.hosting.plugins.plugin_utils.documents import (
    Document,
    MalformedDocument,
    Problem,
    load_yaml,
    schema_problems,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db import database, schema
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.addresses import parse_pool, reserved
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.document import SCHEMA
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import Fleet
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import read_fleet
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.validation import (
    Context,
    semantic_problems,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.wanted import (
    KINDS,
    Item,
    Rows,
    environment_of,
    items_of,
    rows_of_fleet,
    rows_of_items,
    sound,
)

try:
    from sqlalchemy import Connection, Engine, Table, insert, select, update
except ImportError:
    pass  # libraries.require() reports it before any use

# unique columns that may change hands between rows of one import
EXCHANGED = {"machines": {"address": "address"}, "instances": {"domain": "domain", "machine": "machine_id"}}
COUNTS = ("created", "updated", "unchanged", "unlisted")


@dataclass(frozen=True)
class Imported:
    """What an import changed: kind -> key -> fields of the rows that differ, and what the file does not mention."""

    changed: bool
    before: Rows
    after: Rows
    counts: Mapping[str, int]
    unlisted: Mapping[str, tuple[str, ...]]


def import_operators(engine: Engine, path: Path, catalogue: Mapping[str, Application]) -> Imported:
    """Make the database hold what the file says; rows that the file does not mention stay as they are.

    Creates or migrates the schema first, in the same transaction.

    :raises InvalidInput: the message names file, line and field of everything that is wrong; nothing was written.
    """
    document = _load(path)
    if not database.exists(engine):
        _wanted(path, document, catalogue, None)  # a refused file leaves no empty database behind
    with database.migrating(engine) as connection:
        current = read_fleet(connection)
        wanted = _wanted(path, document, catalogue, current)
        before = rows_of_fleet(current)
        _write(connection, before, wanted)
    return _imported(before, wanted)


def preview_import(engine: Engine, path: Path, catalogue: Mapping[str, Application]) -> Imported:
    """What import_operators would do, without writing; a database that does not exist yet counts as empty.

    :raises InvalidInput: as import_operators.
    """
    document = _load(path)
    current = None
    if database.exists(engine):
        with database.reading(engine) as connection:
            current = read_fleet(connection)
    wanted = _wanted(path, document, catalogue, current)
    return _imported(_before(current), wanted)


def _before(fleet: Fleet | None) -> Rows:
    return {kind: {} for kind in KINDS} if fleet is None else rows_of_fleet(fleet)


def _load(path: Path) -> Document:
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise InvalidInput("is not UTF-8 text", where=str(path)) from error
    except MalformedDocument as error:
        raise _refusal(path, [(line, f"{path}:{line}: {message}") for line, message in error.problems]) from error


def _wanted(path: Path, document: Document, catalogue: Mapping[str, Application], fleet: Fleet | None) -> Rows:
    """The rows that the file asks for, with an address for every machine."""
    problems = schema_problems(SCHEMA, document.data)
    items = items_of(document.data)
    good = sound(items, problems)
    before = _before(fleet)
    wanted = rows_of_items(good)
    rows = {kind: before[kind] | wanted[kind] for kind in KINDS}
    problems += semantic_problems(Context(items, good, rows, fleet, catalogue, document.line))
    if not problems:
        problems = _allocate(items, wanted, before)
    if problems:
        lines = [(document.line(problem.path), problem) for problem in problems]
        raise _refusal(path, [(line, f"{path}:{line}: {problem.where}: {problem.message}") for line, problem in lines])
    return wanted


def _refusal(path: Path, problems: list[tuple[int, str]]) -> InvalidInput:
    messages = [message for _line, message in sorted(problems)]
    count = "1 problem" if len(messages) == 1 else f"{len(messages)} problems"
    return InvalidInput("\n  ".join([f"{path} was not imported, it has {count}:", *messages]))


def _allocate(items: list[Item], wanted: Rows, before: Rows) -> list[Problem]:
    """Give every machine of *wanted* without an address the one that it has, else the lowest free one of the pool."""
    for row in wanted["machines"].values():
        row["address"] = row["address"] and str(ip_address(row["address"]))
    machines = {**before["machines"], **wanted["machines"]}
    environments = {**before["environments"], **wanted["environments"]}
    unresolved = []
    for item in (item for item in items if item.kind == "machines" and machines[item.name]["address"] is None):
        row, stored = machines[item.name], before["machines"].get(item.name)
        subnet = ip_network(environments[row["environment"]]["network"]["subnet"])
        if stored and stored["environment"] == row["environment"] and ip_address(stored["address"]) in subnet:
            row["address"] = stored["address"]
        else:
            unresolved.append(item)
    names = {machines[item.name]["environment"] for item in unresolved}
    places = {name: environment_of(name, environments[name]) for name in names}
    taken = {name: set(reserved(environment)) for name, environment in places.items()}
    for row in machines.values():
        if row["address"] and row["environment"] in taken:
            taken[row["environment"]].add(ip_address(row["address"]))
    problems = []
    for item in unresolved:
        row = machines[item.name]
        name, pool = row["environment"], places[row["environment"]].network.pool
        address = parse_pool(pool).lowest_free(taken[name]) if pool else None
        if address is None:
            lack = f"the pool {pool} of {name!r} has no free address" if pool else f"{name!r} has no pool"
            problems.append(Problem(item.path, f"{lack}; give the machine an address or enlarge the pool"))
        else:
            row["address"] = str(address)
            taken[name].add(address)
    return problems


def _imported(before: Rows, wanted: Rows) -> Imported:
    differing = {
        kind: sorted(key for key, row in wanted[kind].items() if _differ(before[kind].get(key), row)) for kind in KINDS
    }
    unlisted = {kind: tuple(sorted(before[kind].keys() - wanted[kind].keys())) for kind in KINDS}
    created = sum(key not in before[kind] for kind in KINDS for key in differing[kind])
    changed = sum(map(len, differing.values()))
    total = sum(map(len, wanted.values()))
    return Imported(
        changed=changed > 0,
        before={
            kind: {key: before[kind][key] for key in keys if key in before[kind]} for kind, keys in differing.items()
        },
        after={kind: {key: wanted[kind][key] for key in keys} for kind, keys in differing.items()},
        counts=dict(
            zip(COUNTS, (created, changed - created, total - changed, sum(map(len, unlisted.values()))), strict=True)
        ),
        unlisted={kind: keys for kind, keys in unlisted.items() if keys},
    )


def _differ(before: object, after: object) -> bool:
    # as JSON: for Python, 1, 1.0 and true are equal
    return json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True)


def _write(connection: Connection, before: Rows, wanted: Rows) -> None:
    """Insert and update; every kind comes after those it refers to."""
    ids: dict[str, dict[str, int]] = {}
    for kind in KINDS:
        table = _table(kind)
        ids[kind] = _ids(connection, kind, ids)
        stored = before[kind]
        changed = {key: row for key, row in wanted[kind].items() if key in stored and _differ(stored[key], row)}
        for key, row in changed.items():
            handed_over = {
                column: None for field, column in EXCHANGED.get(kind, {}).items() if stored[key][field] != row[field]
            }
            if handed_over:
                connection.execute(update(table).where(table.c.id == ids[kind][key]).values(**handed_over))
        for key, row in changed.items():
            values = _columns(kind, key, row, ids)
            connection.execute(update(table).where(table.c.id == ids[kind][key]).values(**values))
        created = [_columns(kind, key, row, ids) for key, row in wanted[kind].items() if key not in stored]
        if created:
            connection.execute(insert(table), created)
            ids[kind] = _ids(connection, kind, ids)


def _ids(connection: Connection, kind: str, ids: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Database ids of the rows of a kind by key."""
    table = _table(kind)
    if kind == "deployments":
        names = {identity: name for name, identity in ids["operators"].items()}
        rows = connection.execute(select(table.c.operator_id, table.c.name, table.c.id))
    elif kind == "instances":
        names = {identity: name for name, identity in ids["deployments"].items()}
        rows = connection.execute(select(table.c.deployment_id, table.c.application, table.c.id))
    else:
        return {row.name: row.id for row in connection.execute(select(table.c.name, table.c.id))}
    return {f"{names[owner]}_{name}": identity for owner, name, identity in rows}


def _columns(kind: str, key: str, row: Mapping[str, Any], ids: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The row as columns of its table."""
    columns = dict(row)
    if kind in ("environments", "machines", "operators"):
        columns["name"] = key
    for field, referred in (
        ("environment", "environments"),
        ("operator", "operators"),
        ("deployment", "deployments"),
        ("machine", "machines"),
    ):
        if field in columns:
            columns[f"{field}_id"] = ids[referred][columns.pop(field)]
    if kind == "deployments":
        columns["wanted"] = columns.pop("state")
    return columns


def _table(kind: str) -> Table:
    """The table that holds the rows of one section of operators.yml."""
    return schema.metadata.tables["application_instances" if kind == "instances" else kind]
