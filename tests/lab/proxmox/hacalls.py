# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/cluster/ha (PVE/API2/HA/*.pm), and what becomes of calls on a virtual machine that the manager owns.

The handlers of those calls are wrapped: DIRECT keeps the ones that act, for the manager itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from . import ha, migrate, power, qemu
from .errors import ApiError, invalid
from .formats import split_list
from .routes import HANDLERS, Call, Handler, endpoint
from .schema import MISSING, UNKNOWN
from .store import VirtualMachine
from .tasks import Task

ACTING = (migrate, power, qemu)  # imported first: their handlers are the ones that are wrapped
MIGRATED = "ha groups have been migrated to rules"
OPTIONS = ("state", "group", "comment", "failback", "max_restart", "max_relocate")
RULE_OPTIONS = {
    "node-affinity": {"resources": True, "nodes": True, "strict": False, "disable": False, "comment": False},
    "resource-affinity": {"resources": True, "affinity": True, "disable": False, "comment": False},
}  # option -> needed
VM = "/nodes/{node}/qemu/{vmid}"
DIRECT: dict[tuple[str, str], Handler] = {}


# --- resources -------------------------------------------------------------------------------------------------------


def _resource(call: Call, sid: str) -> dict[str, Any]:
    resources = ha.part(call.cluster, "resources")
    if sid not in resources:
        raise ApiError(f"no such resource '{sid}'")
    return resources[sid] | {"sid": sid, "digest": ha.digest(resources)}


@endpoint("GET", "/cluster/ha/resources")
async def list_resources(call: Call) -> object:
    rows = [_resource(call, sid) for sid in ha.part(call.cluster, "resources")]
    return [row for row in rows if call.params.get("type", row["type"]) == row["type"]]


@endpoint("GET", "/cluster/ha/resources/{sid}")
async def get_resource(call: Call) -> object:
    return _resource(call, ha.sid_of(call.cluster, call.params["sid"])[0])


@endpoint("POST", "/cluster/ha/resources")
async def create_resource(call: Call) -> object:
    sid, kind, name = ha.sid_of(call.cluster, call.params["sid"])
    if call.params.get("type", kind) != kind:
        raise ApiError("types does not match")
    if "group" in call.params:
        raise ApiError(f"invalid parameter 'group': {MIGRATED}")
    if not name.isdigit() or name.startswith("0"):
        raise ApiError("invalid VMID")
    if int(name) not in call.cluster.vms or kind != "vm":
        raise ApiError(f"resource '{sid}' does not exist in cluster")
    resources = ha.part(call.cluster, "resources")
    if sid in resources:
        raise ApiError(f"create resource failed: resource ID '{sid}' already defined")
    resources[sid] = {"type": kind} | {key: call.params[key] for key in OPTIONS if key in call.params}
    call.cluster.save()
    return None


def _refuse_in_error(call: Call, sid: str, wanted: str = "") -> None:
    service = ha.part(call.cluster, "services").get(sid, {})
    if ha.is_managed(call.cluster, ha.vmid_of(sid)) and service.get("state") == "error" and wanted != "disabled":
        raise ApiError(f"service '{sid}' in error state, must be disabled and fixed first")


@endpoint("PUT", "/cluster/ha/resources/{sid}")
async def update_resource(call: Call) -> object:
    sid = ha.sid_of(call.cluster, call.params["sid"])[0]
    if "group" in call.params:
        raise ApiError(f"invalid parameter 'group': {MIGRATED}")
    _refuse_in_error(call, sid, call.params.get("state", ""))
    resources, label = ha.part(call.cluster, "resources"), "update resources config failed"
    ha.assert_unchanged(resources, call.params.get("digest"), label)
    if sid not in resources:
        raise ApiError(f"{label}: no such resource '{sid}'")
    gone = split_list(call.params.get("delete", ""))
    if unknown := [name for name in gone if name not in OPTIONS]:
        raise ApiError(f"{label}: no such option '{unknown[0]}'")
    new = resources[sid] | {key: call.params[key] for key in OPTIONS if key in call.params}
    resources[sid] = {key: value for key, value in new.items() if key not in gone}
    call.cluster.save()
    return None


@endpoint("DELETE", "/cluster/ha/resources/{sid}")
async def delete_resource(call: Call) -> object:
    """The machine stays as it is; the manager lets it go at its next round."""
    sid = ha.sid_of(call.cluster, call.params["sid"])[0]
    if sid not in ha.part(call.cluster, "resources"):
        raise ApiError(f"cannot delete service '{sid}', not HA managed!")
    ha.remove(call.cluster, sid, purge=bool(call.params.get("purge", 1)))
    return None


def _move(verb: str) -> None:
    @endpoint("POST", f"/cluster/ha/resources/{{sid}}/{verb}")
    async def move(call: Call) -> object:
        sid, node = ha.sid_of(call.cluster, call.params["sid"])[0], call.params["node"]
        if not ha.is_sid(sid) or not ha.is_managed(call.cluster, ha.vmid_of(sid)):
            raise ApiError(f"resource '{sid}' is not HA managed")
        _refuse_in_error(call, sid)
        ha.queue(call.cluster, verb, sid, node)
        return {"sid": sid, "requested-node": node}


_move("migrate")
_move("relocate")


# --- rules -----------------------------------------------------------------------------------------------------------


def _rule(call: Call, name: str) -> dict[str, Any]:
    rules = ha.part(call.cluster, "rules")
    if name not in rules:
        raise ApiError(f"no such ha rule '{name}'")
    row = rules[name] | {"rule": name, "digest": ha.digest(rules), "order": list(rules).index(name) + 1}
    row["resources"] = ",".join(sorted(row["resources"]))
    row |= {"nodes": ha.nodes_text(row["nodes"])} if "nodes" in row else {}
    problem = ha.infeasible(call.cluster, rules, name)
    return row | ({"errors": {"resources": [problem]}} if problem else {})


@endpoint("GET", "/cluster/ha/rules")
async def list_rules(call: Call) -> object:
    rows = [_rule(call, name) for name in ha.part(call.cluster, "rules")]
    rows = [row for row in rows if call.params.get("type", row["type"]) == row["type"]]
    wanted = call.params.get("resource")
    return [row for row in rows if wanted is None or wanted in row["resources"].split(",")]


@endpoint("GET", "/cluster/ha/rules/{rule}")
async def get_rule(call: Call) -> object:
    return _rule(call, call.params["rule"])


def _rule_options(call: Call) -> dict[str, Any]:
    """The given options, parsed; 400 for those of another type of rule."""
    known = RULE_OPTIONS[call.params["type"]]
    given = {key: value for key, value in call.params.items() if key not in ("rule", "type", "digest", "delete")}
    if wrong := [key for key in given if key not in known]:
        raise invalid(dict.fromkeys(wrong, UNKNOWN))
    if not given.get("disable"):
        given.pop("disable", None)
    given |= {"resources": sorted(set(split_list(given["resources"])))} if "resources" in given else {}
    return given | ({"nodes": ha.parse_nodes(given["nodes"])} if "nodes" in given else {})


def _check_rule(call: Call, options: Mapping[str, Any], label: str) -> None:
    if "resources" in options:
        if not options["resources"]:
            raise ApiError(f"{label}: no resources were specified")
        unknown = [sid for sid in options["resources"] if sid not in ha.part(call.cluster, "resources")]
        if unknown:
            raise ApiError(f"{label}: cannot use unmanaged resource(s) {', '.join(unknown)}.")
    if "nodes" in options:
        if not options["nodes"]:
            raise ApiError(f"{label}: no nodes were specified")
        if unknown := sorted(set(options["nodes"]) - set(call.cluster.nodes)):
            raise ApiError(f"{label}: cannot use non-existent node(s) {', '.join(unknown)}.")


def _keep_rule(call: Call, rule: dict[str, Any], label: str) -> None:
    name, rules = call.params["rule"], ha.part(call.cluster, "rules")
    if problem := ha.infeasible(call.cluster, rules | {name: rule}, name):
        raise ApiError(f"{label}: 400 Rule '{name}' is invalid.\nresources: {problem}")
    rules[name] = rule
    call.cluster.save()


@endpoint("POST", "/cluster/ha/rules")
async def create_rule(call: Call) -> object:
    kind, label = call.params["type"], "create ha rule failed"
    options = _rule_options(call)
    if missing := [key for key, needed in RULE_OPTIONS[kind].items() if needed and key not in options]:
        raise invalid(dict.fromkeys(missing, MISSING))
    if call.params["rule"] in ha.part(call.cluster, "rules"):
        raise ApiError(f"{label}: HA rule '{call.params['rule']}' already defined")
    _check_rule(call, options, label)
    _keep_rule(call, {"type": kind} | options, label)
    return None


@endpoint("PUT", "/cluster/ha/rules/{rule}")
async def update_rule(call: Call) -> object:
    name, rules, label = call.params["rule"], ha.part(call.cluster, "rules"), "update HA rules failed"
    ha.assert_unchanged(rules, call.params.get("digest"), label)
    if name not in rules:
        raise ApiError(f"{label}: HA rule '{name}' does not exist")
    kind = rules[name]["type"]
    if call.params["type"] != kind:
        raise ApiError(f"{label}: unexpected property 'type'")
    options, gone = _rule_options(call), split_list(call.params.get("delete", ""))
    _check_rule(call, options, label)
    for key in gone:
        if key not in RULE_OPTIONS[kind]:
            raise ApiError(f"{label}: no such option '{key}'")
        if RULE_OPTIONS[kind][key]:
            raise ApiError(f"{label}: unable to delete required option '{key}'")
    _keep_rule(call, {key: value for key, value in (rules[name] | options).items() if key not in gone}, label)
    return None


@endpoint("DELETE", "/cluster/ha/rules/{rule}")
async def delete_rule(call: Call) -> object:
    """One that does not exist is fine too."""
    ha.part(call.cluster, "rules").pop(call.params["rule"], None)
    call.cluster.save()
    return None


@endpoint("GET", "/cluster/ha/groups")
async def list_ha_groups(call: Call) -> object:
    raise ApiError(f"cannot index groups: {MIGRATED}")


@endpoint("POST", "/cluster/ha/groups")
async def create_ha_group(call: Call) -> object:
    raise ApiError(f"cannot create group: {MIGRATED}")


# --- status ----------------------------------------------------------------------------------------------------------


@endpoint("GET", "/cluster/ha/status/current")
async def status(call: Call) -> object:
    cluster, now = call.cluster, int(time.time())
    services, resources = ha.part(cluster, "services"), ha.part(cluster, "resources")
    quorate, active = cluster.faults.quorate, bool(services)
    up = [node for node in cluster.nodes if node not in cluster.faults.offline]
    text = "OK" if quorate else f"No quorum on node '{call.entry}'!"
    rows: list[dict[str, Any]] = [
        {"id": "quorum", "type": "quorum", "node": call.entry, "status": text, "quorate": int(quorate)}
    ]
    shown = time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(now))
    if up and (resources or services):
        how = "active" if active else "idle"
        rows.append({"id": "master", "type": "master", "node": up[0], "status": f"{up[0]} ({how}, {shown})"})
        rows[-1]["timestamp"] = now
    armed = ("armed", "CRM watchdog active") if active else ("standby", "CRM watchdog standby")
    rows.append({"id": "fencing", "type": "fencing", "node": up[0] if up else call.entry})
    rows[-1] |= {"status": f"{armed[0]} ({armed[1]})", "armed-state": armed[0]}
    for node in up if resources or services else []:
        busy = any(service["node"] == node and service["state"] == "started" for service in services.values())
        mode = "active, watchdog active" if busy else "idle, watchdog standby"
        rows.append({"id": f"lrm:{node}", "type": "lrm", "node": node, "status": f"{node} ({mode}, {shown})"})
        rows[-1]["timestamp"] = now
    return rows + [_service_row(call, sid) for sid in sorted({**services, **resources})]


def _service_row(call: Call, sid: str) -> dict[str, Any]:
    cluster = call.cluster
    service, resource = ha.part(cluster, "services").get(sid), ha.part(cluster, "resources").get(sid)
    vm = cluster.vms.get(ha.vmid_of(sid))
    row: dict[str, Any] = {"id": f"service:{sid}", "type": "service", "sid": sid}
    if service:
        row |= {"node": service["node"], "crm_state": service["state"]}
    elif vm:
        row |= {"node": vm.node}
    row["state"] = ha.verbose_state(cluster, sid)
    row["status"] = f"{sid} ({row.get('node', '---')}, {row['state']})"
    if resource is not None:
        row |= {"request_state": ha.requested(resource), "failback": 1, "max_restart": 1, "max_relocate": 1}
        row |= {key: resource[key] for key in ("failback", "max_restart", "max_relocate", "comment") if key in resource}
    return row


# --- calls on a managed virtual machine ------------------------------------------------------------------------------


def _wrap(method: str, path: str) -> Callable[[Callable[[Call, Handler], Any]], None]:
    """Puts a handler before the one that acts; it gets that one to pass on what is not the manager's."""

    def register(outer: Callable[[Call, Handler], Any]) -> None:
        direct = DIRECT[method, path] = HANDLERS[method, path]

        async def handler(call: Call) -> object:
            return await outer(call, direct)

        HANDLERS[method, path] = handler

    return register


def _managed(call: Call) -> bool:
    return ha.is_managed(call.cluster, call.params["vmid"])


def _request(call: Call, kind: str, text: str, act: Callable[[str], None]) -> str:
    """A task that only tells the manager."""
    sid = f"vm:{call.params['vmid']}"

    async def tell(task: Task) -> None:
        task.log.append(text)
        _refuse_in_error(call, sid)
        act(sid)

    return call.start(kind, tell)


@_wrap("POST", f"{VM}/status/start")
async def _start(call: Call, direct: Handler) -> object:
    if not _managed(call):
        return await direct(call)
    text = f"Requesting HA start for VM {call.params['vmid']}"
    return _request(call, "hastart", text, lambda sid: ha.set_state(call.cluster, sid, "started"))


def _stop(call: Call, grace: float) -> str:
    text = f"Requesting HA stop for VM {call.params['vmid']}"
    return _request(call, "hastop", text, lambda sid: ha.queue(call.cluster, "stop", sid, str(grace)))


@_wrap("POST", f"{VM}/status/stop")
async def _power_off(call: Call, direct: Handler) -> object:
    if not _managed(call):
        return await direct(call)
    if call.params.get("overrule-shutdown"):
        raise invalid({"overrule-shutdown": "Not applicable for HA resources."})
    return _stop(call, 0)


@_wrap("POST", f"{VM}/status/shutdown")
async def _shut_down(call: Call, direct: Handler) -> object:
    if not _managed(call):
        return await direct(call)
    vm = call.vm()
    if call.cluster.power(vm) == "paused" and not call.params.get("forceStop"):
        raise ApiError("VM is paused - cannot shutdown")
    return _stop(call, call.params.get("timeout", call.cluster.timing.shutdown))


@_wrap("POST", f"{VM}/migrate")
async def _migrate(call: Call, direct: Handler) -> object:
    vmid, target = call.params["vmid"], call.params["target"]
    if not _managed(call) or target == call.node or target not in call.cluster.nodes or _locked(call.vm()):
        return await direct(call)
    if call.cluster.power(call.vm()) != "stopped" and not call.params.get("online"):
        return await direct(call)
    text = f"Requesting HA migration for VM {vmid} to node {target}"
    return _request(call, "hamigrate", text, lambda sid: ha.queue(call.cluster, "migrate", sid, target))


def _locked(vm: VirtualMachine) -> bool:
    return bool(vm.config.get("lock"))


@_wrap("DELETE", VM)
async def _destroy(call: Call, direct: Handler) -> object:
    vm = call.vm()
    configured = f"vm:{vm.vmid}" in ha.part(call.cluster, "resources")
    if configured and not vm.config.get("protection") and not call.params.get("purge"):
        raise ApiError(f"unable to remove VM {vm.vmid} - used in HA resources and purge parameter not set.")
    return await direct(call)


@_wrap("GET", f"{VM}/status/current")
async def _current(call: Call, direct: Handler) -> object:
    row = await direct(call)
    return row | {"ha": ha.service_status(call.cluster, call.params["vmid"])} if isinstance(row, dict) else row
