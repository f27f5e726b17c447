# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the high-availability manager is told: resources, rules, orders; and where a resource may run.

Sources: PVE/HA/Config.pm, PVE/HA/Rules/*.pm. Everything lies in `Cluster.ha`:
resources: sid -> {type, state, max_restart, ...} as given; rules: id -> {type, resources (list), nodes (name ->
priority), ...}; services: sid -> {state, node, failed, and while it moves: target, how}; commands: what waits for the
manager's next round, as [verb, sid, argument].
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from .errors import ApiError
from .formats import split_list
from .store import Cluster
from .tasks import Task

MODIFIED = "detected modified configuration - file changed by other user? Try again."


def part(cluster: Cluster, name: str) -> dict[str, dict[str, Any]]:
    """resources, rules or services"""
    found: dict[str, dict[str, Any]] = cluster.ha.setdefault(name, {})
    return found


def commands(cluster: Cluster) -> list[list[str]]:
    found: list[list[str]] = cluster.ha.setdefault("commands", [])
    return found


def sid_of(cluster: Cluster, text: str) -> tuple[str, str, str]:
    """(id, type, name) of a resource that is named by id or by VMID."""
    if text.isdigit():
        if int(text) not in cluster.vms:
            raise ApiError(f"unable to detect SID from VMID - VM/CT {text} does not exist")
        text = f"vm:{text}"
    kind, _unused, name = text.partition(":")
    if kind not in ("vm", "ct"):
        raise ApiError(f"unknown section type '{kind}'")
    return text, kind, name


def vmid_of(sid: str) -> int:
    return int(sid.partition(":")[2])


def digest(content: object) -> str:
    return hashlib.sha1(json.dumps(content, sort_keys=True).encode(), usedforsecurity=False).hexdigest()


def assert_unchanged(content: object, given: str | None, label: str) -> None:
    if given and given != digest(content):
        raise ApiError(f"{label}: {MODIFIED}")


def requested(resource: Mapping[str, Any]) -> str:
    """started, stopped, disabled or ignored"""
    state = str(resource.get("state", "started"))
    return "started" if state == "enabled" else state


def is_managed(cluster: Cluster, vmid: int) -> bool:
    """Whether power and place belong to the manager: an ignored resource does as if it were none."""
    resource = part(cluster, "resources").get(f"vm:{vmid}")
    return resource is not None and requested(resource) != "ignored"


def service_status(cluster: Cluster, vmid: int) -> dict[str, Any]:
    """`ha` in status/current"""
    if not is_managed(cluster, vmid):
        return {"managed": 0}
    service = part(cluster, "services").get(f"vm:{vmid}", {})
    return {"managed": 1, "state": service.get("state")}


def row(cluster: Cluster, vmid: int) -> dict[str, str]:
    """`hastate` in /cluster/resources: the manager's own, else the requested one; nothing without a resource."""
    sid = f"vm:{vmid}"
    if state := part(cluster, "services").get(sid, {}).get("state"):
        return {"hastate": str(state)}
    resource = part(cluster, "resources").get(sid, {})
    return {"hastate": resource["state"]} if "state" in resource else {}


def set_state(cluster: Cluster, sid: str, state: str) -> None:
    """ha-manager set; a resource that is new to it is added."""
    part(cluster, "resources").setdefault(sid, {"type": sid.partition(":")[0]})["state"] = state
    cluster.save()


def queue(cluster: Cluster, verb: str, sid: str, argument: str) -> None:
    """An order for the manager's next round: migrate or relocate (node), stop (seconds of grace)."""
    commands(cluster).append([verb, sid, argument])
    cluster.save()


def remove(cluster: Cluster, sid: str, *, purge: bool) -> None:
    """The resource goes; `purge` takes it out of the rules too, and a rule without resources with it."""
    part(cluster, "resources").pop(sid, None)
    if purge:
        rules = part(cluster, "rules")
        for name, rule in list(rules.items()):
            rule["resources"] = [other for other in rule["resources"] if other != sid]
            if not rule["resources"]:
                rules.pop(name)
    cluster.save()


def forget(cluster: Cluster, vmid: int, task: Task) -> None:
    """A virtual machine is destroyed with purge."""
    if f"vm:{vmid}" in part(cluster, "resources"):
        remove(cluster, f"vm:{vmid}", purge=True)
        task.log.append(f"NOTE: removed VM {vmid} from HA resource configuration.")


def verbose_state(cluster: Cluster, sid: str) -> str:
    """The state of a service as people read it (PVE/HA/Tools.pm `get_verbose_service_state`)."""
    resource, service = part(cluster, "resources").get(sid), part(cluster, "services").get(sid)
    if resource is None:
        return "deleting"
    wanted = requested(resource)
    if wanted == "ignored":
        return "ignored"
    if vmid_of(sid) not in cluster.vms:
        return "not found"
    if service is None:
        return "queued"
    state = str(service["state"])
    changes = {
        ("stopped", "started"): "starting",
        ("stopped", "disabled"): "disabled",
        ("started", "stopped"): "stopping",
        ("started", "disabled"): "stopping",
        ("error", "disabled"): "clearing error flag",
    }
    return changes.get((state, wanted), state)


# --- rules -----------------------------------------------------------------------------------------------------------


def parse_nodes(text: str) -> dict[str, int]:
    """Priorities by node of `node[:priority],...`"""
    found = {}
    for item in split_list(text):
        name, _unused, priority = item.partition(":")
        found[name] = int(priority or 0)
    return found


def nodes_text(nodes: Mapping[str, int]) -> str:
    return ",".join(f"{name}:{priority}" if priority else name for name, priority in sorted(nodes.items()))


def _active(cluster: Cluster, kind: str, sid: str) -> list[dict[str, Any]]:
    rules = part(cluster, "rules").values()
    return [rule for rule in rules if rule["type"] == kind and not rule.get("disable") and sid in rule["resources"]]


def infeasible(cluster: Cluster, rules: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """What is wrong with the resources of one rule among the others; "" when nothing is."""
    rule = rules[name]
    if rule.get("disable"):
        return ""
    others = [other for key, other in rules.items() if key != name and not other.get("disable")]
    own = set(rule["resources"])
    if rule["type"] == "node-affinity":
        taken = {sid for other in others if other["type"] == "node-affinity" for sid in other["resources"]}
        return ", ".join(
            f"resource '{sid}' is already used in another node affinity rule" for sid in sorted(own & taken)
        )
    if len(own) < 2:
        return "rule is ineffective as there are less than two resources"
    if rule["affinity"] == "negative" and len(own) > len(cluster.nodes):
        return "rule defines more resources than available nodes"
    contrary = [other for other in others if other["type"] == "resource-affinity"]
    contrary = [other for other in contrary if other["affinity"] != rule["affinity"]]
    if any(len(own & set(other["resources"])) > 1 for other in contrary):
        other_kind = "negative" if rule["affinity"] == "positive" else "positive"
        return f"rule shares two or more resources with a {other_kind} resource affinity rule"
    return ""


def place(cluster: Cluster, sid: str) -> str:
    """The node on which a resource should run: its own, unless rules want another; "" when none is allowed."""
    here = cluster.vms[vmid_of(sid)].node
    online = [node for node in cluster.nodes if node not in cluster.faults.offline]
    priorities = dict.fromkeys(online, 0)
    for rule in _active(cluster, "node-affinity", sid):
        rest = {} if rule.get("strict") else dict.fromkeys(online, -1)
        priorities = {node: value for node, value in (rest | rule["nodes"]).items() if node in online}
    for rule in _active(cluster, "resource-affinity", sid):
        others = {node for other in rule["resources"] if other != sid and (node := _home(cluster, other))}
        if rule["affinity"] == "negative":
            priorities = {node: value for node, value in priorities.items() if node not in others}
        elif others:
            priorities = {node: value for node, value in priorities.items() if node in others}
    if not priorities:
        return ""
    best = [node for node, value in priorities.items() if value == max(priorities.values())]
    stays = here in best or (here in priorities and not part(cluster, "resources")[sid].get("failback", 1))
    return here if stays else min(best, key=lambda node: _load(cluster, node))


def _home(cluster: Cluster, sid: str) -> str:
    """The node that a resource occupies or moves to; "" while it is off."""
    service, vm = part(cluster, "services").get(sid, {}), cluster.vms.get(vmid_of(sid))
    if vm is None or service.get("state") in (None, "stopped", "error", "ignored"):
        return ""
    return str(service.get("target") or vm.node)


def _load(cluster: Cluster, node: str) -> tuple[int, str]:
    return sum(vm.node == node for vm in cluster.vms.values()), node


def is_sid(text: str) -> bool:
    return re.fullmatch(r"(?:vm|ct):\d+", text) is not None
