# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parameter tables: complete against the upstream schema where it is at hand, and strict."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from lab.proxmox.errors import ApiError
from lab.proxmox.routes import HANDLERS, find_endpoint
from lab.proxmox.schema import Endpoint, Spec, check_parameters, parse_property_string, schema
from lab.proxmox.server import CALLS

UPSTREAM = Path(__file__).parents[4] / "shared" / "reference" / "proxmox-api-schema.json"
GONE = {"/cluster/ha/groups"}  # answered by the server, but documented no more
TYPES = {"boolean", "integer", "number", "string", "array"}


def test_every_call_of_the_tables_has_a_handler_and_the_other_way_round() -> None:
    assert CALLS
    assert set(schema().endpoints) == set(HANDLERS)


def _upstream() -> dict[str, Any]:
    if not UPSTREAM.exists():
        pytest.skip(f"no upstream schema at {UPSTREAM.name} beside this repository: nothing to compare with")
    document: dict[str, Any] = json.loads(UPSTREAM.read_text(encoding="utf-8"))
    return document


def _documented() -> list[tuple[tuple[str, str], Endpoint]]:
    return [(call, entry) for call, entry in schema().endpoints.items() if call[1] not in GONE]


def _expanded(parameters: dict[str, Any], ours: Endpoint) -> dict[str, Any]:
    """Families (net[n]) by the numbers that our table gives them."""
    result = {}
    for name, spec in parameters.items():
        if not name.endswith("[n]"):
            result[name] = spec
            continue
        family = name.removesuffix("[n]")
        result |= {key: spec for key in ours.parameters if re.fullmatch(rf"{family}\d+", key)} or {name: spec}
    return result


def _facts(spec: Spec) -> dict[str, Any]:
    return {
        "type": spec.type,
        "optional": spec.optional,
        "minimum": spec.minimum,
        "maximum": spec.maximum,
        "minLength": spec.min_length,
        "maxLength": spec.max_length,
        "enum": spec.enum,
        "requires": spec.needs,
        "pattern": spec.pattern,
    }


def _upstream_facts(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": spec["type"],
        "optional": bool(spec.get("optional")),
        "minimum": spec.get("minimum"),
        "maximum": spec.get("maximum"),
        "minLength": spec.get("minLength"),
        "maxLength": spec.get("maxLength"),
        "enum": tuple(spec.get("enum") or ()),
        "requires": spec.get("requires", ""),
        "pattern": re.sub(r"\(\?\^u?:", "(?:", spec.get("pattern", "")),
    }


def test_the_tables_say_what_the_upstream_schema_says() -> None:
    document = _upstream()
    compared = 0
    for (method, path), ours in _documented():
        parameters = _expanded(document["paths"][path][method]["parameters"], ours)
        assert set(ours.parameters) == set(parameters), (method, path)
        for name, spec in parameters.items():
            facts, theirs = _facts(ours.parameters[name]), _upstream_facts(spec)
            if f"{{{name}}}" in path:
                facts["optional"] = theirs["optional"] = False  # what is in the path is always there
            assert facts == theirs, (method, path, name)
            compared += 1
    assert compared > 1000


def test_the_permissions_are_those_of_the_upstream_schema() -> None:
    document = _upstream()
    for (method, path), ours in _documented():
        theirs = (document["paths"][path][method].get("permissions") or {}).get("check")
        theirs = theirs[1] if theirs and theirs[0] == "and" else theirs  # what else must hold is checked by the call
        if ours.check:
            assert theirs[:2] == ["perm", ours.check[0]], (method, path)
            assert tuple(theirs[2]) == ours.check[1], (method, path)


def test_the_property_strings_have_the_upstream_keys() -> None:
    document = _upstream()
    known = document["formats"] | document["registered_formats"]
    theirs = {
        "net": "netN",
        "scsi": "scsiN",
        "ide": "ideN",
        "sata": "sataN",
        "virtio": "virtioN",
        "efidisk": "efidisk0",
        "tpmstate": "tpmstate0",
        "agent": "agent",
        "memory": "memory",
        "ipconfig": "pve-qm-ipconfig",
        "vga": "vga",
        "boot": "pve-qm-boot",
        "cicustom": "pve-qm-cicustom",
        "audio": "audio0",
        "cpu": "pve-vm-cpu-conf",
        "hostpci": "pve-qm-hostpci",
        "ivshmem": "ivshmem",
        "machine": "machine+runningmachine",
        "numa": "numaN",
        "qemu-sev-fmt": "pve-qemu-sev-fmt",
        "qemu-tdx-fmt": "pve-qemu-tdx-fmt",
        "rng": "pve-qm-rng",
        "smbios1": "pve-qm-smbios1",
        "spice_enhancements": "spice_enhancements",
        "unused": "unusedN",
        "usb": "usbN",
        "virtiofs": "virtiofsN",
        "watchdog": "pve-qm-watchdog",
    }
    for ours, name in theirs.items():
        table = schema().formats[ours]
        assert set(table) == set(known[name]), ours
        for key, spec in known[name].items():
            if "alias" in spec:
                assert (table[key].alias, table[key].sets) == (spec["alias"], spec.get("keyAlias", ""))
            else:
                assert _facts(table[key]) == _upstream_facts(spec), (ours, key)


def _create(**params: object) -> dict[str, Any]:
    found = find_endpoint("POST", "/nodes/pve1/qemu")
    assert found
    return check_parameters(found[0], {"node": "pve1", "vmid": "100"} | params)


@pytest.mark.parametrize(
    ("params", "errors"),
    [
        ({"onboot": "True"}, {"onboot": "type check ('boolean') failed - got 'True'"}),
        ({"cores": "0"}, {"cores": "value must have a minimum value of 1"}),
        ({"vmid": ["1", "2"]}, {"vmid": "type check ('integer') failed - got ARRAY"}),
        ({"name": "bad_name!"}, {"name": "invalid format - value does not look like a valid DNS name\n"}),
        ({"force": "1"}, {"archive": "missing property required by 'force'"}),
        (
            {"net0": "virtio,brdge=vmbr0"},
            {
                "net0": "invalid format - format error\nnet0.brdge: property is not defined in schema"
                " and the schema does not allow additional properties\n"
            },
        ),
        ({"net32": "virtio"}, {"net32": "property is not defined in schema and the schema does not allow additional "
                                        "properties"}),
        (
            {"ipconfig0": "gw=10.0.0.1"},
            {"ipconfig0": "invalid format - format error\nipconfig0.ip: missing property required by 'ipconfig0.gw'\n"},
        ),
    ],
)  # fmt: skip
def test_what_the_schema_refuses(params: dict[str, object], errors: dict[str, str]) -> None:
    with pytest.raises(ApiError) as caught:
        _create(**params)
    assert (caught.value.status, caught.value.errors) == (400, errors)


def test_json_booleans_and_numbers_are_taken_by_type() -> None:
    params = _create(onboot=True, cores=2, memory=512)
    assert (params["onboot"], params["cores"], params["memory"]) == (1, 2, "512")


def test_a_nic_names_its_model_by_key() -> None:
    values, problem = parse_property_string("net", "bridge=vmbr0,virtio=BC:24:11:00:00:01,firewall=yes")
    assert not problem
    assert values == {"bridge": "vmbr0", "model": "virtio", "macaddr": "BC:24:11:00:00:01", "firewall": 1}


def test_literal_path_segments_win_over_parameters() -> None:
    found = find_endpoint("GET", "/nodes/pve1/qemu/100/status/current")
    assert found
    assert found[0].path.endswith("/status/current")
    assert found[1] == {"node": "pve1", "vmid": "100"}
    assert find_endpoint("GET", "/nosuch") is None


def test_the_table_of_types_is_complete() -> None:
    assert {spec.type for entry in schema().endpoints.values() for spec in entry.parameters.values()} <= TYPES
