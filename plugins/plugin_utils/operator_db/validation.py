# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything about operators.yml that a JSON Schema cannot say. Pure: nothing is written, nothing is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import Application
from ansible_collections.fediversity.hosting.plugins.plugin_utils.documents import Path, Problem, schema_problems
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.addresses import parse_pool
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import Fleet
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.wanted import Item, Rows

# Ansible's own group and host names: a machine called "all" would set its variables on every host
RESERVED_MACHINES = ("all", "ungrouped", "localhost")
# instance ids are names of PostgreSQL roles, and "pg_" is PostgreSQL's own (CREATE ROLE)
RESERVED_OPERATORS = ("pg",)
# once a run has begun with a deployment, its immutable fields may be in use
UNTOUCHED = "new"

Line = Callable[[Path], int]


@dataclass(frozen=True)
class Context:
    """What the checks look things up in.

    :param items: all items of the file, also those with problems of their own.
    :param sound: the items whose own fields satisfy the schema.
    :param rows: rows of the file's sound items over those of the database: what there would be after the import.
    :param fleet: what the database holds.
    :param line: line of a path in the file.
    """

    items: Sequence[Item]
    sound: Sequence[Item]
    rows: Rows
    fleet: Fleet | None
    catalogue: Mapping[str, Application]
    line: Line

    def of(self, kind: str) -> list[Item]:
        return [item for item in self.sound if item.kind == kind]

    def knows(self, kind: str, key: str) -> bool:
        return key in self.rows[kind] or any(item.kind == kind and item.key == key for item in self.items)

    def unlisted(self, kind: str) -> dict[str, dict[str, Any]]:
        """Rows of the database that the file does not mention; they stay."""
        listed = {item.key for item in self.items if item.kind == kind}
        return {key: row for key, row in self.rows[kind].items() if key not in listed}


def semantic_problems(context: Context) -> list[Problem]:
    """Every problem of the file's sound items, in no particular order."""
    return [
        *_duplicates(context),
        *(problem for item in context.of("environments") for problem in _environment(item)),
        *(problem for item in context.of("machines") for problem in _machine(item, context)),
        *_shared_addresses(context),
        *(problem for item in context.of("operators") for problem in _operator(item)),
        *(problem for item in context.of("deployments") for problem in _environment_known(item, context)),
        *(problem for item in context.of("instances") for problem in _instance(item, context)),
        *_shared_domains(context),
        *_shared_machines(context),
    ]


def _duplicates(context: Context) -> Iterator[Problem]:
    seen: dict[tuple[str, str], Item] = {}
    for item in context.items:
        first = seen.setdefault((item.kind, item.key), item)
        if first is not item:
            field = "application" if item.kind == "instances" else "name"
            line = context.line(first.at(field))
            yield Problem(item.at(field), f"{item.name!r} is given twice (line {line}); remove or rename one of them")


def _environment(item: Item) -> Iterator[Problem]:
    if {"node", "nodes"} <= item.fields.get("proxmox", {}).keys():
        yield Problem(item.at("proxmox", "nodes"), "node and nodes exclude each other; give one of them")
    network = item.fields["network"]
    try:
        subnet = ip_network(network["subnet"])
    except ValueError as error:
        yield Problem(item.at("network", "subnet"), str(error))
        return
    places: list[tuple[tuple[str | int, ...], str]] = [(("network", "gateway"), network["gateway"])]
    places += [(("network", "nameservers", number), text) for number, text in enumerate(network["nameservers"])]
    for place, text in places:
        try:
            address = ip_address(text)
        except ValueError as error:
            yield Problem(item.at(*place), str(error))
            continue
        if place[1] == "gateway" and address not in subnet:
            yield Problem(item.at(*place), f"{text} is outside of the subnet {subnet}")
    if "pool" in network:
        try:
            pool = parse_pool(network["pool"])
        except ValueError as error:
            yield Problem(item.at("network", "pool"), str(error))
            return
        if pool.first not in subnet or pool.last not in subnet:
            yield Problem(item.at("network", "pool"), f"{network['pool']} is not inside of the subnet {subnet}")


def _environment_known(item: Item, context: Context) -> Iterator[Problem]:
    name = item.fields["environment"]
    if not context.knows("environments", name):
        yield Problem(item.at("environment"), f"unknown environment {name!r}; {_known(context.rows['environments'])}")


def _machine(item: Item, context: Context) -> Iterator[Problem]:
    if item.name in RESERVED_MACHINES:
        yield Problem(item.at("name"), f"{item.name!r} is a name of Ansible's own; choose another one")
    yield from _environment_known(item, context)
    environment = context.rows["environments"].get(item.fields["environment"])
    address = item.fields.get("address")
    if item.fields["runtime"] == "existing" and address is None:
        yield Problem(item.path, "an existing machine needs its address")
    if item.fields["runtime"] == "proxmox":
        missing = [field for field in ("cores", "memory", "disk") if field not in item.fields]
        if missing:
            yield Problem(item.path, f"a machine with the runtime proxmox needs {', '.join(missing)}")
        if environment is not None and environment["proxmox"] is None:
            yield Problem(
                item.at("runtime"), f"the environment {item.fields['environment']!r} has no proxmox; add it there"
            )
    if address is not None:
        yield from _address(item, address, environment)


def _operator(item: Item) -> Iterator[Problem]:
    if item.name in RESERVED_OPERATORS:
        yield Problem(item.at("name"), f"{item.name!r} begins names that PostgreSQL reserves; choose another one")


def _address(item: Item, text: str, environment: Mapping[str, Any] | None) -> Iterator[Problem]:
    try:
        address = ip_address(text)
    except ValueError as error:
        yield Problem(item.at("address"), str(error))
        return
    try:
        network = (environment or {})["network"]
        subnet, gateway = ip_network(network["subnet"]), ip_address(network["gateway"])
    except (KeyError, ValueError):
        return  # a problem of the environment
    if address not in subnet:
        yield Problem(item.at("address"), f"{text} is outside of the subnet {subnet} of {item.fields['environment']!r}")
    elif address == gateway:
        yield Problem(item.at("address"), f"{text} is the gateway of {item.fields['environment']!r}")


def _shared_addresses(context: Context) -> Iterator[Problem]:
    given = {item.name for item in context.items if item.kind == "machines" and "address" in item.fields}
    stored = context.fleet.machines.values() if context.fleet else ()
    seen = {
        (machine.environment, ip_address(machine.address)): f"machine {machine.name!r} in the database"
        for machine in stored
        if machine.name not in given
    }
    for item in context.of("machines"):
        try:
            place = (item.fields["environment"], ip_address(item.fields.get("address", "")))
        except ValueError:
            continue
        if place in seen:
            yield Problem(item.at("address"), f"{place[1]} is already the address of {seen[place]}; choose another one")
        else:
            seen[place] = f"machine {item.name!r} (line {context.line(item.at('address'))})"


def _instance(item: Item, context: Context) -> Iterator[Problem]:
    machine = context.rows["machines"].get(item.fields["machine"])
    if not context.knows("machines", item.fields["machine"]):
        yield Problem(item.at("machine"), f"unknown machine {item.fields['machine']!r}; declare it under machines")
    place = context.rows["deployments"].get(item.deployment_key, {}).get("environment", "")
    environment = context.rows["environments"].get(place)
    if environment is not None:
        yield from _domain(item, environment["zones"], place)
        if machine and machine["environment"] != place:
            yield Problem(
                item.at("machine"),
                f"machine {item.fields['machine']!r} is in the environment {machine['environment']!r}, "
                f"the deployment in {place!r}; choose a machine of that environment",
            )
    application = context.catalogue.get(item.name)
    if application is None:
        yield Problem(item.at("application"), f"unknown application {item.name!r}; {_known(context.catalogue)}")
        return
    yield from schema_problems(application.settings, item.fields.get("settings", {}), item.at("settings"))
    if environment is not None:
        yield from _needs(item, application, environment)
    yield from _immutable(item, application, context.fleet)


def _domain(item: Item, zones: Sequence[str], environment: str) -> Iterator[Problem]:
    domain = item.fields["domain"]
    if not any(domain == zone or domain.endswith(f".{zone}") for zone in zones):
        yield Problem(
            item.at("domain"), f"{domain!r} is in no zone of the environment {environment!r} ({', '.join(zones)})"
        )


def _needs(item: Item, application: Application, environment: Mapping[str, Any]) -> Iterator[Problem]:
    needs = {"postgresql": application.database is not None, "garage": bool(application.buckets)}
    for backend, needed in needs.items():
        if needed and environment[backend] is None:
            yield Problem(
                item.at("application"), f"{item.name} needs {backend}, which its environment has not; add it there"
            )


def _immutable(item: Item, application: Application, fleet: Fleet | None) -> Iterator[Problem]:
    instance = fleet.instances.get(item.key) if fleet else None
    if fleet is None or instance is None:
        return
    untouched = fleet.deployments[item.deployment_key].record.state == UNTOUCHED
    for field in application.immutable:
        before, wanted = getattr(instance, field), item.fields[field]
        if before != wanted and not untouched:
            yield Problem(
                item.at(field),
                f"{application.title} cannot change its {field} from {before!r} to {wanted!r}; "
                "put the old value back, or make a new deployment",
            )


def _shared_domains(context: Context) -> Iterator[Problem]:
    seen = {row["domain"]: f"operator {_owner(key)!r} (unlisted)" for key, row in context.unlisted("instances").items()}
    # an unknown application is often a misspelt one, whose own row would seem to claim the domain
    for item in (item for item in context.of("instances") if item.name in context.catalogue):
        domain = item.fields["domain"]
        if domain in seen:
            yield Problem(
                item.at("domain"), f"{domain!r} is already claimed by {seen[domain]}; choose another domain for one"
            )
        else:
            seen[domain] = f"operator {item.owners[0]!r} (line {context.line(item.at('domain'))})"


def _shared_machines(context: Context) -> Iterator[Problem]:
    seen = {
        (row["machine"], row["application"]): f"operator {_owner(key)!r} (unlisted)"
        for key, row in context.unlisted("instances").items()
    }
    for item in context.of("instances"):
        place = (item.fields["machine"], item.name)
        if place in seen:
            yield Problem(
                item.at("machine"),
                f"{place[0]!r} already runs the {place[1]} of {seen[place]}; one machine runs an application only once",
            )
        else:
            seen[place] = f"operator {item.owners[0]!r} (line {context.line(item.at('machine'))})"


def _owner(instance: str) -> str:
    return instance.split("_", maxsplit=1)[0]


def _known(names: Mapping[str, Any]) -> str:
    return f"known are: {', '.join(sorted(names))}" if names else "there are none yet"
