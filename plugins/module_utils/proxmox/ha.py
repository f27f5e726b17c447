# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""High availability of a virtual machine: its resource ``vm:ID`` and its node-affinity rule (Proxmox VE 9).

The resource comes first: a rule may only name resources that are managed; and removing the resource takes it out of all
rules, which ends a rule of its own (pve-ha-manager, API2/HA/Resources.pm and Rules.pm). The HA manager acts in rounds
of 10 s. Reading needs Sys.Audit on ``/``, writing Sys.Console.

Who has the power: in the states started, stopped and disabled the HA manager starts and stops the machine, and requests
below ``status/`` only change the HA state (qemu-server, API2/Qemu.pm: tasks hastart and hastop); in the state ignored,
and without a resource, they act at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

from ansible_collections.fediversity.hosting.plugins.module_utils.errors import (
    BackendError,
    Denied,
    HostingError,
    InvalidInput,
    Locked,
    NotFound,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.names import OWNER_TAG
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.check import NODE, Check
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import Client, Value
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.config import parse_words
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.parts import Place, Shown

State = Literal["started", "stopped", "disabled", "ignored", "absent"]
STATES: tuple[State, ...] = ("started", "stopped", "disabled", "ignored", "absent")
# in these states the HA manager decides whether the machine runs
RUNS: Mapping[State, bool] = {"started": True, "stopped": False, "disabled": False}
MAX_COMMENT = 4096
COUNTS = range(0, 1001)
# pve-ha-node-list: NODE or NODE:PRIORITY
PRIORITIES = range(0, 1001)
# seconds between two looks at what the HA manager has done
FIRST_LOOK = 1.0
LAST_LOOK = 5.0
LOOK_GROWTH = 1.5
# keys of the resource beside its state
VALUES = ("max_restart", "max_relocate", "comment")
ERROR_HINT = "Look at the HA log and at the machine; then set ha.state to disabled, and back"


@dataclass(frozen=True)
class HaDesired:
    """The desired high availability; None is not managed.

    :param nodes: priority by node; empty for no rule of ours.
    """

    state: State
    max_restart: int | None = None
    max_relocate: int | None = None
    comment: str | None = None
    nodes: Mapping[str, int] | None = None
    strict: bool = False


@dataclass(frozen=True)
class HaActual:
    """The resource and our rule as they are.

    :param state: ``absent`` without a resource.
    :param nodes: priority by node of our rule; None without a rule.
    :param whole: whether our rule holds this machine, nothing else, and is switched on.
    :param foreign_rules: further node-affinity rules that hold this machine.
    """

    machine: str
    state: State = "absent"
    max_restart: int = 1
    max_relocate: int = 1
    comment: str = ""
    nodes: Mapping[str, int] | None = None
    strict: bool = False
    whole: bool = True
    foreign_rules: tuple[str, ...] = ()


def rules_power(state: State) -> bool:
    """Whether the HA manager, and nobody else, starts and stops a machine whose resource is in *state*."""
    return state in RUNS


def await_power(client: Client, place: Place, running: bool, budget: float) -> None:
    """Wait until the HA manager has started or stopped the machine.

    :param budget: seconds.
    :raises BackendError: it has given up.
    :raises Locked: the machine is not there yet after the budget.
    """
    end = client.clock() + budget
    pause = FIRST_LOOK
    while True:
        status = client.get(f"{place.path}/status/current")
        if (status.get("status") == "running") == running:
            return
        if (status.get("ha") or {}).get("state") == "error":
            raise BackendError(
                "the HA manager has given up on the machine (state error)",
                where=f"VM {place.machine}, ha",
                hint=ERROR_HINT,
            )
        if client.clock() >= end:
            raise Locked(
                f"the HA manager has not {'started' if running else 'stopped'} the machine within {budget:g} s",
                where=f"VM {place.machine}, ha",
                hint="Look at the HA status; raise task_timeout if it only needs longer",
            )
        client.sleep(pause)
        pause = min(pause * LOOK_GROWTH, LAST_LOOK)


def release(client: Client, place: Place) -> None:
    """Take the machine out of high availability; without the right to do so its manager keeps the power over it."""
    try:
        _delete(client, f"/cluster/ha/resources/{_sid(place)}")
    except Denied:
        return


class HighAvailability:
    """The part ``ha`` of a virtual machine."""

    key: ClassVar[str] = "ha"
    argument: ClassVar[dict[str, Any]] = {
        "type": "dict",
        "options": {
            "state": {"type": "str", "choices": list(STATES)},
            "max_restart": {"type": "int"},
            "max_relocate": {"type": "int"},
            "comment": {"type": "str"},
            "nodes": {"type": "dict"},
            "strict": {"type": "bool", "default": False},
        },
    }

    def desired(self, check: Check, value: Any) -> HaDesired:
        """The option, typed; without a state it follows the power.

        :raises InvalidInput: a value is refused, or state and power contradict each other.
        """
        inner = check.inside(self.key, value)
        power = check.values.get("power") or "started"
        state = inner.one_of("state", STATES) or ("stopped" if power == "stopped" else "started")
        runs = RUNS.get(cast(State, state))
        if (runs is True and power == "stopped") or (runs is False and power == "paused"):
            raise inner.refused("state", state, f"a state that fits power {power}: the HA manager has the power")
        comment = value.get("comment")
        if comment is not None and (len(comment) > MAX_COMMENT or len(comment.splitlines()) > 1):
            raise inner.refused("comment", f"{comment[:40]}...", f"one line of at most {MAX_COMMENT} characters")
        return HaDesired(
            state=cast(State, state),
            max_restart=inner.number("max_restart", COUNTS),
            max_relocate=inner.number("max_relocate", COUNTS),
            comment=None if comment is None else comment.strip(),
            nodes=_priorities(inner),
            strict=bool(value.get("strict")),
        )

    def read(self, client: Client, place: Place, desired: HaDesired) -> HaActual:
        """The resource and, where nodes are given, the node-affinity rules: one or two requests."""
        try:
            resource = client.get(f"/cluster/ha/resources/{_sid(place)}")
        except NotFound:
            resource = None
        rules = () if desired.nodes is None else client.get("/cluster/ha/rules", type="node-affinity")
        return parse(place, resource, rules)

    def compare(self, desired: HaDesired, actual: HaActual | None) -> tuple[Shown, Shown]:
        """Plain values before and after.

        :raises InvalidInput: somebody else's node-affinity rule holds the machine; the server allows one only.
        """
        present = actual or HaActual("")
        if desired.nodes and present.foreign_rules and desired.state != "absent":
            raise InvalidInput(
                f"the node-affinity rule {', '.join(present.foreign_rules)} already holds this machine",
                where=f"VM {present.machine}, ha.nodes",
                hint="Take the machine out of that rule, or leave nodes out",
            )
        if desired.state == "absent":
            return {"state": present.state}, {"state": "absent"}
        given = {key: getattr(desired, key) for key in VALUES if getattr(desired, key) is not None}
        before: dict[str, Any] = {key: getattr(present, key) for key in given} if present.state != "absent" else {}
        before["state"], given["state"] = present.state, desired.state
        if desired.nodes is not None:
            before["nodes"], given["nodes"] = dict(present.nodes or {}), dict(desired.nodes)
            if desired.nodes and present.nodes:
                before["strict"], given["strict"] = present.strict, desired.strict
            if present.nodes is not None and not present.whole and desired.nodes:
                before["rule"], given["rule"] = "switched off or with others", "of this machine"
        return before, given

    def apply(self, client: Client, place: Place, desired: HaDesired, actual: HaActual, budget: float) -> None:
        """Set resource, then rule; wait until the HA manager has started or stopped the machine.

        No digest is sent: it is that of all resources or rules, which runs beside this one change too, and only keys of
        our own are set.
        """
        path = f"/cluster/ha/resources/{_sid(place)}"
        if desired.state == "absent":
            if actual.state != "absent":
                _delete(client, path)
            return
        if actual.state == "absent":
            client.post("/cluster/ha/resources", sid=_sid(place), **_values(desired, HaActual(place.machine)))
        else:
            values = _values(desired, actual)
            if desired.comment == "" and actual.comment:
                values["delete"] = "comment"
            if values:
                client.put(path, **values)
        _apply_rule(client, place, desired, actual)
        if desired.state in RUNS and desired.state != actual.state:
            await_power(client, place, RUNS[desired.state], budget)


HA = HighAvailability()


def _sid(place: Place) -> str:
    return f"vm:{place.vmid}"


def _rule_id(place: Place) -> str:
    return f"{OWNER_TAG}-{place.machine}"


def _priorities(check: Check) -> dict[str, int] | None:
    values = check.values.get("nodes")
    if values is None:
        return None
    found: dict[str, int] = {}
    for node, priority in values.items():
        if not NODE.match(str(node)):
            raise check.refused("nodes", node, "names of nodes")
        text = "0" if priority is None else str(priority)
        if not text.isdecimal() or int(text) not in PRIORITIES:
            raise check.refused("nodes", priority, f"a priority from 0 to {PRIORITIES[-1]} for each node")
        found[str(node)] = int(text)
    return found


def parse(place: Place, resource: Mapping[str, Any] | None, rules: Iterable[Mapping[str, Any]]) -> HaActual:
    """The answers of the server, typed; what a resource does not name has the server's default."""
    own: Mapping[str, Any] | None = None
    foreign: list[str] = []
    for rule in rules:
        if rule.get("rule") == _rule_id(place):
            own = rule
        elif _sid(place) in parse_words(str(rule.get("resources", ""))) and not int(rule.get("disable") or 0):
            foreign.append(str(rule.get("rule")))
    actual = HaActual(place.machine, foreign_rules=tuple(foreign))
    if own is not None:
        members = parse_words(str(own.get("resources", "")))
        actual = replace(
            actual,
            nodes=_parse_nodes(str(own.get("nodes", ""))),
            strict=bool(int(own.get("strict") or 0)),
            whole=members == (_sid(place),) and not int(own.get("disable") or 0),
        )
    if resource is None:
        return actual
    state = str(resource.get("state") or "started")
    return replace(
        actual,
        # enabled is the former name of started
        state=cast(State, "started" if state == "enabled" else state),
        max_restart=int(resource.get("max_restart", 1)),
        max_relocate=int(resource.get("max_relocate", 1)),
        comment=str(resource.get("comment") or "").strip(),
    )


def _parse_nodes(text: str) -> dict[str, int]:
    pairs = (word.partition(":") for word in parse_words(text))
    return {node: int(priority or 0) for node, _colon, priority in pairs}


def _values(desired: HaDesired, actual: HaActual) -> dict[str, Value]:
    """The parameters that differ; an empty comment is left out."""
    wanted = {key: getattr(desired, key) for key in ("state", *VALUES)}
    return {
        key: value
        for key, value in wanted.items()
        if value is not None and value != "" and value != getattr(actual, key)
    }


def _apply_rule(client: Client, place: Place, desired: HaDesired, actual: HaActual) -> None:
    if desired.nodes is None:
        return
    path = f"/cluster/ha/rules/{_rule_id(place)}"
    if not desired.nodes:
        if actual.nodes is not None:
            client.delete(path)
        return
    wanted: dict[str, Value] = {
        "type": "node-affinity",
        "resources": _sid(place),
        "nodes": ",".join(f"{node}:{priority}" for node, priority in sorted(desired.nodes.items())),
        "strict": desired.strict,
    }
    if actual.nodes is None:
        client.post("/cluster/ha/rules", rule=_rule_id(place), **wanted)
    elif (dict(actual.nodes), actual.strict, actual.whole) != (dict(desired.nodes), desired.strict, True):
        client.put(path, **wanted, delete=None if actual.whole else "disable")


def _delete(client: Client, path: str) -> None:
    try:
        client.delete(path)
    except HostingError as error:
        # somebody else was faster
        if "not HA managed" not in error.what:
            raise
