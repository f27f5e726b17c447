# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading the fleet and writing back what runs did; importer.py writes everything that operators.yml says."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import NotFound
from ansible_collections.fediversity.hosting.plugins.module_utils.names import instance_id
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db import schema
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import reading, writing
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import (
    Deployment,
    DeploymentRecord,
    Environment,
    Fleet,
    Instance,
    Machine,
    MachineRecord,
    Network,
    Operator,
    Resource,
    deployment_id,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.times import now, timestamp

try:
    from sqlalchemy import Connection, Engine, Table, func, select, update
    from sqlalchemy.dialects import postgresql, sqlite
except ImportError:
    pass  # libraries.require() reports it before any use

Value = TypeVar("Value")
SWITCHING = "a run began to switch it and did not report back. Run again"


def load_fleet(engine: Engine, environment: str | None = None) -> Fleet:
    """Read everything, or everything of one environment (and all operators), in eight queries of one transaction.

    :raises NotFound: there is no such environment.
    :raises DatabaseNotReady: see database.check.
    """
    with reading(engine) as connection:
        return read_fleet(connection, environment)


def read_fleet(connection: Connection, environment: str | None = None) -> Fleet:
    """As load_fleet, within a transaction of the caller."""
    environments = {row.id: _environment(row) for row in _rows(connection, schema.environments)}
    if environment is not None:
        known = ", ".join(sorted(found.name for found in environments.values()))
        environments = {key: found for key, found in environments.items() if found.name == environment}
        if not environments:
            raise NotFound(f"environment {environment!r} is not in the operator database", hint=f"Known are: {known}")
    operators = {
        row.id: Operator(row.name, row.display_name, row.contact) for row in _rows(connection, schema.operators)
    }
    machines = {
        row.id: _machine(row, environments[row.environment_id])
        for row in _rows(connection, schema.machines)
        if row.environment_id in environments
    }
    deployments = {
        row.id: _deployment(row, operators[row.operator_id], environments[row.environment_id])
        for row in _rows(connection, schema.deployments)
        if row.environment_id in environments
    }
    revisions = secret_revisions(connection)
    instances = {
        row.id: _instance(row, deployments[row.deployment_id], machines[row.machine_id], revisions)
        for row in _rows(connection, schema.application_instances)
        if row.deployment_id in deployments
    }
    resources = tuple(
        Resource(
            environments[row.environment_id].name,
            row.kind,
            row.name,
            row.outputs,
            None if row.instance_id is None else instances[row.instance_id].id,
            None if row.machine_id is None else machines[row.machine_id].name,
        )
        for row in _rows(connection, schema.resources)
        if row.environment_id in environments
    )
    return Fleet(
        uuid=connection.execute(select(schema.database_info.c.uuid)).scalar_one(),
        environments=_by_key((found.name, found) for found in environments.values()),
        machines=_by_key((found.name, found) for found in machines.values()),
        operators=_by_key((found.name, found) for found in operators.values()),
        deployments=_by_key((found.id, found) for found in deployments.values()),
        instances=_by_key((found.id, found) for found in instances.values()),
        resources=tuple(sorted(resources, key=lambda found: (found.environment, found.kind, found.name))),
    )


def secret_revisions(connection: Connection) -> dict[str, int]:
    """The secrets revision of every instance that has secrets: that of its newest secret."""
    table = schema.secrets
    rows = connection.execute(select(table.c.owner, func.max(table.c.revision)).group_by(table.c.owner))
    return {row[0]: row[1] for row in rows}


def record_machine(
    engine: Engine,
    name: str,
    *,
    state: str,
    message: str = "",
    system: str | None = None,
    generation: int | None = None,
) -> None:
    """Write back what a run did with the machine; ``system`` (the committed one) and ``generation`` stay if None.

    :raises NotFound: there is no such machine.
    """
    committed = {"system": system, "generation": generation}
    values = {"state": state, "message": message, "updated_at": now()}
    _record(engine, name, values | {key: value for key, value in committed.items() if value is not None})


def record_vm(engine: Engine, machine: str, *, vmid: int | None, node: str | None, incarnation: str | None) -> None:
    """Write back which virtual machine is the machine; None after it was removed.

    :raises NotFound: there is no such machine.
    """
    _record(engine, machine, {"vmid": vmid, "node": node, "incarnation": incarnation})


def forget_systems(engine: Engine, machines: Collection[str]) -> None:
    """Write down that the machines have committed nothing: they were made anew."""
    _record_all(engine, machines, {"system": None, "generation": None})


def record_switching(engine: Engine, machines: Collection[str]) -> None:
    """Write down that the machines are about to be switched: until they answer, nobody knows which system they have."""
    _record_all(engine, machines, {"state": "switching", "message": SWITCHING, "system": None, "updated_at": now()})


def record_deployment(engine: Engine, operator: str, deployment: str, *, state: str, message: str = "") -> None:
    """Write back how a run of the deployment ended.

    :raises NotFound: there is no such deployment.
    """
    table, owners = schema.deployments, schema.operators
    owner = select(owners.c.id).where(owners.c.name == operator).scalar_subquery()
    statement = (
        update(table)
        .where(table.c.operator_id == owner, table.c.name == deployment)
        .values(state=state, message=message, updated_at=now())
    )
    with writing(engine) as connection:
        if connection.execute(statement).rowcount != 1:
            raise NotFound(f"deployment {deployment_id(operator, deployment)} is not in the operator database")


def record_resources(engine: Engine, resources: Sequence[Resource]) -> None:
    """Insert or update what was made, by (environment, kind, name), in one transaction.

    :raises NotFound: the environment, instance or machine of one of them is not in the database; nothing is written.
    """
    if not resources:
        return
    table = schema.resources
    with writing(engine) as connection:
        environments = _ids(connection, schema.environments)
        machines = _ids(connection, schema.machines)
        instances = _instance_ids(connection)
        rows = [
            {
                "environment_id": _known(environments, resource.environment, "environment"),
                "kind": resource.kind,
                "name": resource.name,
                "outputs": dict(resource.outputs),
                "instance_id": resource.instance and _known(instances, resource.instance, "instance"),
                "machine_id": resource.machine and _known(machines, resource.machine, "machine"),
                "updated_at": now(),
            }
            for resource in resources
        ]
        insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
        identity = ("environment_id", "kind", "name")
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=identity,
                set_={column: insert.excluded[column] for column in rows[0] if column not in identity},
            ),
            rows,
        )


def _rows(connection: Connection, table: Table) -> Sequence[Any]:
    return connection.execute(select(table)).all()


def _by_key(pairs: Iterable[tuple[str, Value]]) -> dict[str, Value]:
    return dict(sorted(pairs, key=lambda pair: pair[0]))


def _environment(row: Any) -> Environment:
    network = row.network
    return Environment(
        row.name,
        row.stage,
        tuple(row.zones),
        Network(network["subnet"], network["gateway"], tuple(network["nameservers"]), network.get("pool")),
        row.proxmox,
        row.postgresql,
        row.garage,
    )


def _machine(row: Any, environment: Environment) -> Machine:
    record = MachineRecord(
        row.state,
        row.message,
        row.system,
        row.generation,
        row.vmid,
        row.node,
        row.incarnation,
        _moment(row.updated_at),
    )
    return Machine(
        row.name, environment.name, row.runtime, row.address, row.ssh_port, row.cores, row.memory, row.disk, record
    )


def _deployment(row: Any, operator: Operator, environment: Environment) -> Deployment:
    record = DeploymentRecord(row.state, row.message, _moment(row.updated_at))
    return Deployment(operator.name, row.name, environment.name, row.wanted, row.module_version, record)


def _instance(row: Any, deployment: Deployment, machine: Machine, revisions: dict[str, int]) -> Instance:
    identity = instance_id(deployment.operator, deployment.name, row.application)
    return Instance(
        id=identity,
        operator=deployment.operator,
        deployment=deployment.name,
        application=row.application,
        environment=deployment.environment,
        machine=machine.name,
        domain=row.domain,
        state=deployment.state,
        module_version=deployment.module_version,
        settings=row.settings,
        nixos_options=row.nixos_options,
        secrets_revision=revisions.get(identity, 1),
    )


def _moment(value: datetime | None) -> str | None:
    return None if value is None else timestamp(value)


def _record(engine: Engine, machine: str, values: Mapping[str, Any]) -> None:
    table = schema.machines
    with writing(engine) as connection:
        if connection.execute(update(table).where(table.c.name == machine).values(**values)).rowcount != 1:
            raise NotFound(f"machine {machine!r} is not in the operator database")


def _record_all(engine: Engine, machines: Collection[str], values: Mapping[str, Any]) -> None:
    if machines:
        table = schema.machines
        with writing(engine) as connection:
            connection.execute(update(table).where(table.c.name.in_(machines)).values(**values))


def _ids(connection: Connection, table: Table) -> dict[str, int]:
    return {row.name: row.id for row in connection.execute(select(table.c.name, table.c.id))}


def _instance_ids(connection: Connection) -> dict[str, int]:
    instances, deployments, operators = schema.application_instances, schema.deployments, schema.operators
    rows = connection.execute(
        select(operators.c.name, deployments.c.name, instances.c.application, instances.c.id)
        .join_from(instances, deployments)
        .join(operators)
    )
    return {
        instance_id(operator, deployment, application): identity for operator, deployment, application, identity in rows
    }


def _known(ids: dict[str, int], name: str, kind: str) -> int:
    if name not in ids:
        raise NotFound(f"{kind} {name!r} is not in the operator database")
    return ids[name]
