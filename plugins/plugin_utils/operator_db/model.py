# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the operator database says, as typed values; queries.py makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_network
from typing import Any


@dataclass(frozen=True)
class Network:
    """Addresses of one environment; ``pool`` is ``<first>-<last>``, where machines without an address get theirs."""

    subnet: str
    gateway: str
    nameservers: tuple[str, ...]
    pool: str | None

    @property
    def prefix_length(self) -> int:
        return ip_network(self.subnet).prefixlen


@dataclass(frozen=True)
class Environment:
    """Where deployments run; a backend that the environment does not have is None.

    ``proxmox``: node, storage, image, bridge; ``postgresql``: host, port; ``garage``: s3_endpoint, region.
    """

    name: str
    stage: str
    zones: tuple[str, ...]
    network: Network
    proxmox: Mapping[str, Any] | None
    postgresql: Mapping[str, Any] | None
    garage: Mapping[str, Any] | None


@dataclass(frozen=True)
class MachineRecord:
    """What runs left behind.

    :param system: the store path that the machine committed; None while nobody knows (a switch is under way).
    :param incarnation: changes when the virtual machine is made anew or its disk goes back to an older state.
    :param updated_at: UTC in ISO 8601.
    """

    state: str
    message: str
    system: str | None
    generation: int | None
    vmid: int | None
    node: str | None
    incarnation: str | None
    updated_at: str | None


@dataclass(frozen=True)
class Machine:
    """A NixOS host; ``memory`` in MiB and ``disk`` in GiB are None where the machine exists already."""

    name: str
    environment: str
    runtime: str
    address: str
    ssh_port: int
    cores: int | None
    memory: int | None
    disk: int | None
    record: MachineRecord


@dataclass(frozen=True)
class Rejection:
    """Who rolled a system back by hand, when (UTC in ISO 8601) and why."""

    by: str
    at: str
    why: str


@dataclass(frozen=True)
class KnownSystem:
    """A system of one machine; ``committed_at`` (UTC in ISO 8601) is its newest commit, None if there is none."""

    system: str
    generation: int | None
    committed_at: str | None
    rejection: Rejection | None


@dataclass(frozen=True)
class Operator:
    """A customer; ``display_name`` and ``contact`` are the customer's own text."""

    name: str
    display_name: str
    contact: str


@dataclass(frozen=True)
class DeploymentRecord:
    """How the last run of the deployment ended."""

    state: str
    message: str
    updated_at: str | None


@dataclass(frozen=True)
class Deployment:
    """``state`` is what is wanted (enabled, disabled); ``record`` is what happened."""

    operator: str
    name: str
    environment: str
    state: str
    module_version: str
    record: DeploymentRecord

    @property
    def id(self) -> str:
        return deployment_id(self.operator, self.name)


@dataclass(frozen=True)
class Instance:
    """One application of a deployment on one machine; ``settings`` are the customer's own values."""

    id: str
    operator: str
    deployment: str
    application: str
    environment: str
    machine: str
    domain: str
    state: str
    module_version: str
    settings: Mapping[str, Any]
    nixos_options: Mapping[str, Any]
    secrets_revision: int


@dataclass(frozen=True)
class Resource:
    """Something external that a run made; ``outputs`` holds no secret."""

    environment: str
    kind: str
    name: str
    outputs: Mapping[str, Any]
    instance: str | None = None
    machine: str | None = None


@dataclass(frozen=True)
class Fleet:
    """The whole operator database, or one environment of it, by name (deployments and instances by id)."""

    uuid: str
    environments: Mapping[str, Environment]
    machines: Mapping[str, Machine]
    operators: Mapping[str, Operator]
    deployments: Mapping[str, Deployment]
    instances: Mapping[str, Instance]
    resources: tuple[Resource, ...]

    def instances_on(self, machine: str) -> tuple[Instance, ...]:
        """The instances of one machine in any state, by id."""
        return tuple(self._instances_by_machine.get(machine, ()))

    @cached_property
    def _instances_by_machine(self) -> Mapping[str, list[Instance]]:
        found: dict[str, list[Instance]] = {}
        for instance in self.instances.values():
            found.setdefault(instance.machine, []).append(instance)
        return found


def deployment_id(operator: str, deployment: str) -> str:
    """Identity of a deployment over all operators; slugs hold no underscore, so it is unambiguous."""
    return f"{operator}_{deployment}"
