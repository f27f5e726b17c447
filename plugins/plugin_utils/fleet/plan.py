# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the rows of the operator database to what every backend should hold. Pure: no writes, no backend is asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils import names
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import (
    DATABASE_PASSWORD,
    S3_SECRET_KEY,
    Application,
    secret_specs,
    validate_settings,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import (
    Environment,
    Fleet,
    Instance,
    Machine,
)

# the kinds of resources, as the batches of a plan and the results of the batch modules name them
KINDS = ("vms", "object_storage", "databases", "records")


@dataclass(frozen=True)
class Problem:
    """A deployment that cannot be planned; its machine stays as it is, the others go on."""

    operator: str
    deployment: str
    machine: str
    msg: str


@dataclass(frozen=True)
class Need:
    """One item of a batch that a machine cannot do without; ``name`` is its name in the module's results."""

    kind: str
    name: str


@dataclass(frozen=True)
class FleetPlan:
    """What every backend should hold for the planned machines, and the document that Nix reads."""

    vms: tuple[Mapping[str, Any], ...]
    keys: tuple[Mapping[str, Any], ...]
    buckets: tuple[Mapping[str, Any], ...]
    databases: tuple[Mapping[str, Any], ...]
    zones: tuple[Mapping[str, Any], ...]
    secrets: tuple[Mapping[str, Any], ...]
    machines: Mapping[str, Mapping[str, Any]]
    needs: Mapping[str, tuple[Need, ...]]
    secret_files: Mapping[str, tuple[Mapping[str, Any], ...]]
    health: Mapping[str, Mapping[str, Any]]
    problems: tuple[Problem, ...]


def plan_fleet(
    fleet: Fleet,
    catalogue: Mapping[str, Application],
    machines: Collection[str],
    authorized_keys: Sequence[str],
) -> FleetPlan:
    """Plan the named machines with their enabled application instances.

    A machine without an enabled instance needs nothing; if its virtual machine exists, it is to be stopped.

    :param authorized_keys: public SSH keys that may log in as root on every machine.
    """
    problems: list[Problem] = []
    planned: dict[str, tuple[Instance, ...]] = {}
    idle: list[Machine] = []
    for name in sorted(set(machines) & set(fleet.machines)):
        enabled = tuple(instance for instance in fleet.instances_on(name) if instance.state == "enabled")
        refused = [problem for instance in enabled if (problem := _problem(instance, catalogue))]
        problems.extend(refused)
        if enabled and not refused:
            planned[name] = enabled
        elif not enabled:
            idle.append(fleet.machines[name])

    instances = [instance for name in planned for instance in planned[name]]
    running = [
        _vm(fleet.machines[name], _environment(fleet, name), authorized_keys) for name in planned if _is_vm(fleet, name)
    ]
    stopped = [
        {"name": machine.name, "power": "stopped"}
        for machine in idle
        if machine.runtime == "proxmox" and machine.record.vmid is not None
    ]
    specs = {instance.id: secret_specs(catalogue[instance.application], instance.id) for instance in instances}
    return FleetPlan(
        vms=(*running, *stopped),
        keys=tuple(_key(fleet, instance) for instance in instances if catalogue[instance.application].buckets),
        buckets=tuple(
            _bucket(instance, bucket.name)
            for instance in instances
            for bucket in catalogue[instance.application].buckets
        ),
        databases=tuple(
            _database(instance, catalogue[instance.application])
            for instance in instances
            if catalogue[instance.application].database
        ),
        zones=_zones(fleet, instances),
        secrets=tuple(asdict(spec) for instance in instances for spec in specs[instance.id]),
        machines={
            name: _machine(fleet, fleet.machines[name], planned[name], catalogue, authorized_keys) for name in planned
        },
        needs={name: _needs(fleet, fleet.machines[name], planned[name], catalogue) for name in planned},
        secret_files={
            name: tuple(
                {"path": names.secret_path(spec.ref), "content": {"secret": spec.ref}}
                for instance in planned[name]
                for spec in specs[instance.id]
            )
            for name in planned
        },
        health={name: _health(planned[name], catalogue) for name in planned},
        problems=tuple(problems),
    )


def zone_of(domain: str, zones: Sequence[str]) -> str | None:
    """The longest of *zones* that holds *domain*."""
    holding = [zone for zone in zones if domain == zone or domain.endswith(f".{zone}")]
    return max(holding, key=len, default=None)


def _problem(instance: Instance, catalogue: Mapping[str, Application]) -> Problem | None:
    where = f"operator {instance.operator}, deployment {instance.deployment}, application {instance.application}"
    application = catalogue.get(instance.application)
    if application is None:
        msg = f"{where}: unknown application. The catalogue has: {', '.join(sorted(catalogue))}"
        return Problem(instance.operator, instance.deployment, instance.machine, msg)
    try:
        validate_settings(application, instance.settings, where)
    except InvalidInput as error:
        return Problem(instance.operator, instance.deployment, instance.machine, str(error))
    return None


def _environment(fleet: Fleet, machine: str) -> Environment:
    return fleet.environments[fleet.machines[machine].environment]


def _is_vm(fleet: Fleet, machine: str) -> bool:
    return fleet.machines[machine].runtime == "proxmox"


def _vm(machine: Machine, environment: Environment, authorized_keys: Sequence[str]) -> dict[str, Any]:
    proxmox = environment.proxmox or {}
    network = environment.network
    return {
        "name": machine.name,
        **_where(proxmox),
        "power": "started",
        "cores": machine.cores,
        "memory": machine.memory,
        "disk": {"storage": proxmox["storage"], "size": machine.disk, "import_from": proxmox["image"]},
        "networks": [{"bridge": proxmox["bridge"], "model": "virtio"}],
        "cloud_init": {
            "user": "root",
            "ssh_keys": list(authorized_keys),
            "addresses": [f"{machine.address}/{network.prefix_length}"],
            "gateway": network.gateway,
            "nameservers": list(network.nameservers),
        },
        "agent": True,
        "onboot": True,
    }


def _where(proxmox: Mapping[str, Any]) -> dict[str, Any]:
    """On which node a new machine is made: the one that the environment names, or the best of those it allows."""
    if "node" in proxmox:
        return {"node": proxmox["node"]}
    return {"placement": {"nodes": proxmox["nodes"]} if "nodes" in proxmox else {}}


def _key(fleet: Fleet, instance: Instance) -> dict[str, Any]:
    return {
        "name": names.key_name(instance.id),
        "access_key_id": names.access_key_id(fleet.uuid, instance.id, instance.secrets_revision),
        "secret_access_key": {"secret": names.secret_ref(instance.id, S3_SECRET_KEY)},
    }


def _bucket(instance: Instance, bucket: str) -> dict[str, Any]:
    return {
        "name": names.bucket_name(instance.id, bucket),
        "permissions": [{"key": names.key_name(instance.id), "read": True, "write": True, "owner": False}],
    }


def _database(instance: Instance, application: Application) -> dict[str, Any]:
    return {
        "name": names.database_name(instance.id),
        "mark": instance.id,
        "password": {"secret": names.secret_ref(instance.id, DATABASE_PASSWORD)},
        "extensions": list(application.database.extensions) if application.database else [],
    }


def _zones(fleet: Fleet, instances: Sequence[Instance]) -> tuple[dict[str, Any], ...]:
    """One A record set per instance, grouped by the zone that holds its domain."""
    records: dict[str, list[dict[str, Any]]] = {}
    for instance in instances:
        zone = zone_of(instance.domain, fleet.environments[instance.environment].zones)
        if zone is None:  # refused at import; a zone removed since then makes no record
            continue
        address = fleet.machines[instance.machine].address
        records.setdefault(zone, []).append({"record": instance.domain, "type": "A", "ttl": 300, "value": [address]})
    return tuple({"name": zone, "record_sets": records[zone]} for zone in sorted(records))


def _machine(
    fleet: Fleet,
    machine: Machine,
    instances: Sequence[Instance],
    catalogue: Mapping[str, Application],
    authorized_keys: Sequence[str],
) -> dict[str, Any]:
    """What Nix reads of one machine (``fleet.json``)."""
    network = fleet.environments[machine.environment].network
    return {
        "hostName": machine.name,
        "system": "x86_64-linux",
        "address": machine.address,
        "prefixLength": network.prefix_length,
        "gateway": network.gateway,
        "nameservers": list(network.nameservers),
        "authorizedKeys": list(authorized_keys),
        "instances": [_instance(fleet, instance, catalogue[instance.application]) for instance in instances],
    }


def _instance(fleet: Fleet, instance: Instance, application: Application) -> dict[str, Any]:
    environment = fleet.environments[instance.environment]
    operator = fleet.operators[instance.operator]
    described: dict[str, Any] = {
        "id": instance.id,
        "operator": instance.operator,
        "operatorDisplayName": operator.display_name,
        "contact": operator.contact,
        "deployment": instance.deployment,
        "environment": instance.environment,
        "application": instance.application,
        "moduleVersion": instance.module_version,
        "domain": instance.domain,
        "settings": instance.settings,
        "nixosOptions": instance.nixos_options,
        "secretFiles": {
            secret.name: names.secret_path(names.secret_ref(instance.id, secret.name)) for secret in application.secrets
        },
        "secretsRevision": instance.secrets_revision,
    }
    if application.database:
        server = environment.postgresql or {}
        described["database"] = {
            "host": server["host"],
            "port": server["port"],
            "name": names.database_name(instance.id),
            "user": names.database_name(instance.id),
            "passwordFile": names.secret_path(names.secret_ref(instance.id, DATABASE_PASSWORD)),
        }
    if application.buckets:
        garage = environment.garage or {}
        described["objectStorage"] = {
            "endpoint": garage["s3_endpoint"],
            "region": garage["region"],
            "accessKeyId": names.access_key_id(fleet.uuid, instance.id, instance.secrets_revision),
            "secretAccessKeyFile": names.secret_path(names.secret_ref(instance.id, S3_SECRET_KEY)),
            "buckets": {bucket.name: names.bucket_name(instance.id, bucket.name) for bucket in application.buckets},
        }
    return described


def _needs(
    fleet: Fleet, machine: Machine, instances: Sequence[Instance], catalogue: Mapping[str, Application]
) -> tuple[Need, ...]:
    needs = [Need("vms", machine.name)] if machine.runtime == "proxmox" else []
    for instance in instances:
        application = catalogue[instance.application]
        if application.database:
            needs.append(Need("databases", names.database_name(instance.id)))
        if application.buckets:
            needs.append(Need("object_storage", f"key {names.key_name(instance.id)}"))
        needs.extend(
            Need("object_storage", f"bucket {names.bucket_name(instance.id, bucket.name)}")
            for bucket in application.buckets
        )
        if zone_of(instance.domain, fleet.environments[instance.environment].zones):
            needs.append(Need("records", f"{instance.domain} A"))
    return tuple(needs)


def _health(instances: Sequence[Instance], catalogue: Mapping[str, Application]) -> dict[str, Any]:
    units = {unit for instance in instances for unit in catalogue[instance.application].health.units}
    return {"units": sorted(units)}
