# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each machine has committed so far, and the systems that somebody rolled back by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import NotFound
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db import schema
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import reading, writing
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import KnownSystem, Rejection
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.times import now, timestamp

try:
    from sqlalchemy import Connection, Engine, delete, select, update
    from sqlalchemy.dialects import postgresql, sqlite
except ImportError:
    pass  # libraries.require() reports it before any use

NOT_REJECTED = {"rejected_at": None, "rejected_by": "", "rejected_why": ""}


def load_systems(engine: Engine) -> dict[str, tuple[KnownSystem, ...]]:
    """Machine -> its systems, the newest commit first; those that were never committed come last."""
    systems, machines = schema.machine_systems, schema.machines
    statement = (
        select(systems, machines.c.name.label("machine"))
        .join_from(systems, machines)
        .order_by(machines.c.name, systems.c.committed_at.desc().nulls_last(), systems.c.id.desc())
    )
    found: dict[str, list[KnownSystem]] = {}
    with reading(engine) as connection:
        for row in connection.execute(statement):
            found.setdefault(row.machine, []).append(_known(row))
    return {machine: tuple(systems) for machine, systems in found.items()}


def record_commit(engine: Engine, machine: str, system: str, generation: int | None) -> None:
    """Write down that the machine has just committed the system, which is not a rejected one any more.

    :raises NotFound: there is no such machine.
    """
    _write(engine, machine, system, {"generation": generation, "committed_at": now(), **NOT_REJECTED})


def record_rejection(engine: Engine, machine: str, system: str, by: str, why: str) -> Rejection:
    """Write down that somebody rolled the system back by hand.

    :raises NotFound: there is no such machine.
    """
    moment = now()
    _write(engine, machine, system, {"rejected_at": moment, "rejected_by": by, "rejected_why": why})
    return Rejection(by, timestamp(moment), why)


def release_systems(engine: Engine, systems: Mapping[str, str]) -> None:
    """Take back the rejections.

    :param systems: machine -> system.
    """
    table = schema.machine_systems
    if not systems:
        return
    with writing(engine) as connection:
        for machine, system in systems.items():
            of_machine = table.c.machine_id == _machine_id(connection, machine)
            connection.execute(update(table).where(of_machine, table.c.system == system).values(**NOT_REJECTED))


def forget_commits(engine: Engine, machines: Collection[str]) -> None:
    """Forget what the machines committed, because they were made anew; what was rejected stays rejected."""
    table = schema.machine_systems
    if not machines:
        return
    with writing(engine) as connection:
        ids = select(schema.machines.c.id).where(schema.machines.c.name.in_(machines)).scalar_subquery()
        theirs = table.c.machine_id.in_(ids)
        connection.execute(delete(table).where(theirs, table.c.rejected_at.is_(None)))
        connection.execute(update(table).where(theirs).values(committed_at=None, generation=None))


def _write(engine: Engine, machine: str, system: str, values: Mapping[str, Any]) -> None:
    with writing(engine) as connection:
        insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(schema.machine_systems)
        identity = {"machine_id": _machine_id(connection, machine), "system": system}
        connection.execute(
            insert.values(**identity, **values).on_conflict_do_update(index_elements=list(identity), set_=values)
        )


def _machine_id(connection: Connection, machine: str) -> int:
    table = schema.machines
    found: int | None = connection.execute(select(table.c.id).where(table.c.name == machine)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"machine {machine!r} is not in the operator database")
    return found


def _known(row: Any) -> KnownSystem:
    rejection = None
    if row.rejected_at is not None:
        rejection = Rejection(row.rejected_by, timestamp(row.rejected_at), row.rejected_why)
    committed = None if row.committed_at is None else timestamp(row.committed_at)
    return KnownSystem(row.system, row.generation, committed, rejection)
