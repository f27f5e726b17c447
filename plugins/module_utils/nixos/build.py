# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The systems of all machines from one evaluation and one build; a machine that fails does not stop the others."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import BackendError, HostingError
from ansible_collections.fediversity.hosting.plugins.module_utils.nixos.nix import Nix, error_text, nix_value

_FAILED_BUILDER = re.compile(r"^error: (?P<what>builder for '(?P<derivation>[^']+)' failed[^;\n]*)", re.MULTILINE)
LOG_LINES = 10


@dataclass(frozen=True)
class Fleet:
    """What is evaluated: paths as the controller sees them.

    :param expression: the collection's ``nix/fleet.nix``.
    :param fleet: the fleet file that the plan wrote.
    """

    expression: str
    fleet: str
    nixpkgs: str
    extra_modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class System:
    """The system of one machine: its derivation and the store path that building it gives."""

    derivation: str
    path: str


@dataclass(frozen=True)
class Evaluation:
    """The systems that could be evaluated, and the errors of the other machines."""

    systems: Mapping[str, System]
    errors: Mapping[str, HostingError] = field(default_factory=dict)


def evaluate(nix: Nix, fleet: Fleet, machines: Sequence[str], *, write: bool) -> Evaluation:
    """Evaluate *machines* in one process; only if that fails one after another, to find those that are wrong.

    :param write: write the derivations into the store.
    """
    try:
        return Evaluation(_systems(nix, fleet, machines, write=write))
    except BackendError as error:
        if len(machines) == 1:
            return Evaluation({}, {machines[0]: BackendError(error.what, where=machines[0])})
    parts = [evaluate(nix, fleet, [machine], write=write) for machine in machines]
    return Evaluation(
        {name: system for part in parts for name, system in part.systems.items()},
        {name: error for part in parts for name, error in part.errors.items()},
    )


def build(nix: Nix, evaluation: Evaluation, known: Mapping[str, str], roots: str) -> tuple[set[str], Evaluation]:
    """Build, in one go, the systems that differ from *known* (machine name to store path).

    :param roots: directory of garbage collector roots, one link per machine.
    :returns: the machines whose system was not in the store before, and the evaluation with the failed builds moved
        to its errors.
    """
    different = {name: system for name, system in evaluation.systems.items() if known.get(name) != system.path}
    if not different:
        return set(), evaluation
    missing = nix.invalid(system.path for system in different.values())
    os.makedirs(roots, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=roots, prefix=".building-") as temporary:
        derivations = sorted({system.derivation for system in different.values()})
        log = nix.realise(derivations, os.path.join(temporary, "system"))
        absent = nix.invalid(system.path for system in different.values()) if log else frozenset()
        errors = {
            name: _build_error(nix, name, system, log) for name, system in different.items() if system.path in absent
        }
        for name, system in different.items():
            if name not in errors:
                nix.add_root(system.path, os.path.join(roots, name))
    built = {name for name, system in different.items() if system.path in missing and name not in errors}
    systems = {name: system for name, system in evaluation.systems.items() if name not in errors}
    return built, Evaluation(systems, {**evaluation.errors, **errors})


def predict(nix: Nix, evaluation: Evaluation, known: Mapping[str, str]) -> set[str]:
    """The machines whose system :func:`build` would have to build."""
    different = {name: system.path for name, system in evaluation.systems.items() if known.get(name) != system.path}
    missing = nix.invalid(different.values())
    return {name for name, path in different.items() if path in missing}


def result(
    machines: Iterable[str], evaluation: Evaluation, built: set[str], known: Mapping[str, str], *, check: bool
) -> dict[str, Any]:
    """The module's result: ``systems``, ``changed_machines``, and ``results`` per machine."""
    results = [_machine_result(name, evaluation, built, known) for name in sorted(machines)]
    failed = [item for item in results if item["failed"]]
    differing = [item["name"] for item in results if item["action"] == "build" and not item["failed"]]
    summary = f"{len(results)} machines: {len(differing)} changed, {len(built)} built, {len(failed)} failed"
    return {
        "changed": bool(built),
        "failed": bool(failed),
        "msg": "; ".join([f"{summary}{' (check mode)' if check else ''}", *(item["msg"] for item in failed[:5])]),
        "systems": {name: system.path for name, system in sorted(evaluation.systems.items())},
        "changed_machines": differing,
        "results": results,
    }


def _systems(nix: Nix, fleet: Fleet, machines: Sequence[str], *, write: bool) -> dict[str, System]:
    arguments = {
        "nixpkgs": nix_value(fleet.nixpkgs),
        "fleet": nix_value(fleet.fleet),
        "extraModules": nix_value(fleet.extra_modules),
        "machines": nix_value(list(machines)),
    }
    paths = nix.evaluate(fleet.expression, "paths", arguments, write=write)
    return {name: System(entry["drvPath"], entry["systemPath"]) for name, entry in paths.items()}


def _build_error(nix: Nix, name: str, system: System, errors: str) -> HostingError:
    """What failed of the derivations that the machine's system is built from, with the end of its log."""
    needed = nix.requisites(system.derivation)
    own = [match for match in _FAILED_BUILDER.finditer(errors) if match["derivation"] in needed]
    if not own:
        return BackendError(f"the system cannot be built: {error_text(errors)}", where=name)
    log = "\n".join(nix.log(own[0]["derivation"]).splitlines()[-LOG_LINES:])
    return BackendError(f"the system cannot be built: {own[0]['what']}\n{error_text(log)}".rstrip(), where=name)


def _machine_result(name: str, evaluation: Evaluation, built: set[str], known: Mapping[str, str]) -> dict[str, Any]:
    error = evaluation.errors.get(name)
    system = evaluation.systems.get(name)
    path = system.path if system else ""
    return {
        "name": name,
        "action": "unchanged" if system and known.get(name) == path else "build",
        "changed": name in built,
        "failed": error is not None,
        "msg": str(error) if error else "",
        "system": path,
    }
