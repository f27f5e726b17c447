# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a virtual machine has beside its configuration: firewall rules, high availability, snapshots."""

from __future__ import annotations

from typing import Any

import pytest
from proxmox_api import ApiError, path
from proxmox_estate import Estate


def test_firewall_rules(estate: Estate) -> None:
    api = estate.server.api
    ssh = {"name": "ssh", "type": "in", "action": "ACCEPT", "protocol": "tcp", "dport": "22"}
    web = {"name": "web", "type": "in", "action": "ACCEPT", "protocol": "tcp", "dport": "80,443"}
    machine = estate.machine("walled", power="stopped", networks=[{"bridge": estate.server.bridge, "firewall": True}])
    (made,) = estate.machines({**machine, "firewall": {"enabled": True, "policy_in": "DROP", "rules": [ssh, web]}})
    rules = f"{path(made)}/firewall/rules"
    assert [(rule["dport"], rule["comment"]) for rule in api("GET", rules)] == [
        ("22", "fediversity: ssh"),
        ("80,443", "fediversity: web"),
    ]
    options = api("GET", f"{path(made)}/firewall/options")
    assert (int(options["enable"]), options.get("policy_in", "DROP")) == (1, "DROP")

    api("POST", rules, type="in", action="ACCEPT", comment="by hand", enable=1)
    firewall = {"enabled": True, "policy_in": "REJECT", "rules": [web, {**ssh, "source": "192.0.2.0/24"}]}
    estate.machines({**machine, "firewall": firewall})
    found = api("GET", rules)
    assert sorted(rule["comment"] for rule in found) == ["by hand", "fediversity: ssh", "fediversity: web"]
    assert [rule["comment"] for rule in found if rule["comment"] != "by hand"] == [
        "fediversity: web",
        "fediversity: ssh",
    ]


def highly_available(estate: Estate) -> str:
    """Why the cluster has no high availability, or nothing."""
    try:
        rows = estate.server.api("GET", "/cluster/ha/status/current")
        estate.server.api("GET", "/cluster/ha/rules")
    except ApiError as error:
        return str(error)
    quorum: list[dict[str, Any]] = [row for row in rows if row.get("type") == "quorum"]
    return "" if quorum and int(quorum[0].get("quorate", 0)) else "the cluster has no quorum"


def test_high_availability(estate: Estate) -> None:
    missing = highly_available(estate)
    if missing:
        pytest.skip(f"no high availability here: {missing}")
    api, server = estate.server.api, estate.server
    machine = estate.machine("vital", power="stopped")
    (made,) = estate.machines(machine)
    resource = f"/cluster/ha/resources/vm:{made['vmid']}"
    ha = {"state": "stopped", "max_restart": 2, "comment": "integration test", "nodes": {server.node: 2}}
    estate.machines({**machine, "ha": ha})
    found = api("GET", resource)
    assert (found["state"], int(found["max_restart"])) == ("stopped", 2)
    rules = [rule for rule in api("GET", "/cluster/ha/rules") if rule["rule"] == f"fediversity-{machine['name']}"]
    assert [rule["type"] for rule in rules] == ["node-affinity"]
    estate.machines({**machine, "ha": {"state": "absent"}})
    with pytest.raises(ApiError):
        api("GET", resource)
    estate.machines({"name": machine["name"], "state": "absent", "pool": server.pool})


def test_snapshots_and_the_way_back(estate: Estate) -> None:
    api = estate.server.api
    machine = estate.machine("history", power="stopped")
    (made,) = estate.machines(machine)
    try:
        feature = api("GET", f"{path(made)}/feature", feature="snapshot")
    except ApiError:
        feature = {"hasFeature": 1}
    if not int(feature["hasFeature"]):
        pytest.skip("disks on this storage have no snapshots")
    snapshot = {"name": "clean", "description": "integration test"}
    estate.machines({**machine, "snapshots": [snapshot]})
    assert "clean" in [row["name"] for row in api("GET", f"{path(made)}/snapshot")]
    (later,) = estate.machines({**machine, "memory": 512})
    # going back is an order: it is carried out at every run
    rolled = estate.run("proxmox_vms", estate.vms({"name": machine["name"], "power": "stopped", "rollback": "clean"}))
    assert (rolled["failed"], rolled["changed"]) == (False, True), rolled["msg"]
    assert int(api.config(made)["memory"]) == machine["memory"]
    assert rolled["results"][0]["incarnation"] != later["incarnation"]
    estate.machines({**machine, "snapshots": [{"name": "clean", "state": "absent"}]})
    assert [row["name"] for row in api("GET", f"{path(made)}/snapshot")] == ["current"]
