# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options, address sets and aliases of a virtual machine's firewall (PVE/API2/Firewall/{VM,IPSet,Aliases}.pm)."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from .errors import ApiError, invalid
from .firewall import (
    aliases_of,
    assert_unchanged,
    cluster_config,
    config_of,
    digest_of,
    named,
    rename,
    resolve,
    with_digest,
)
from .formats import split_list
from .fwformats import NAME, version_of
from .routes import Call, Page, endpoint
from .schema import schema

VM = "/nodes/{node}/qemu/{vmid}/firewall"


@endpoint("GET", VM)
async def index(call: Call) -> object:
    return [{"name": name} for name in ("rules", "aliases", "ipset", "refs", "options")]


@endpoint("GET", f"{VM}/options")
async def get_options(call: Call) -> object:
    options: dict[str, Any] = config_of(call.cluster, call.params["vmid"])["options"]
    return options | {"digest": digest_of([options])}


@endpoint("PUT", f"{VM}/options")
async def set_options(call: Call) -> object:
    options: dict[str, Any] = config_of(call.cluster, call.params["vmid"])["options"]
    known = schema().endpoints["PUT", f"{VM}/options"].parameters.keys() - {"node", "vmid", "delete", "digest"}
    assert_unchanged(call, [options])
    for name in split_list(call.params.get("delete", "")):
        if name not in known:
            raise invalid({"delete": f"no such option '{name}'"})
        options.pop(name, None)
    options |= {key: value for key, value in call.params.items() if key in known}
    call.cluster.save()
    return None


@endpoint("GET", f"{VM}/log")
async def log(call: Call) -> object:
    """Nothing is ever filtered here, so nothing is logged."""
    return Page([{"n": 1, "t": "no content"}], 1)


@endpoint("GET", f"{VM}/refs")
async def references(call: Call) -> object:
    """What `source` and `dest` may name."""
    rows: list[dict[str, Any]] = []
    scopes = {"dc": cluster_config(call.cluster), "guest": config_of(call.cluster, call.params["vmid"])}
    for scope, config in scopes.items():
        for row in named(config, "ipset", "name"):
            rows.append(row | {"type": "ipset", "ref": f"+{scope}/{row['name']}", "scope": scope})
        for alias in aliases_of(config):
            kept = {key: alias[key] for key in ("name", "comment") if key in alias}
            rows.append(kept | {"type": "alias", "ref": f"{scope}/{alias['name']}", "scope": scope})
    return [row for row in rows if call.params.get("type", row["type"]) == row["type"]]


@endpoint("GET", f"{VM}/ipset")
async def list_sets(call: Call) -> object:
    return with_digest(named(config_of(call.cluster, call.params["vmid"]), "ipset", "name"))


@endpoint("POST", f"{VM}/ipset")
async def create_set(call: Call) -> object:
    config, name, old = config_of(call.cluster, call.params["vmid"]), call.params["name"], call.params.get("rename")
    if old:
        assert_unchanged(call, named(config, "ipset", "name"))
        rename(config["ipset"], config["ipset_comments"], old, name, ("name", "IPSet"))
    elif name in config["ipset"]:
        raise invalid({"name": f"IPSet '{name}' already exists"})
    config["ipset"].setdefault(name, [])
    if "comment" in call.params:
        config["ipset_comments"][name] = call.params["comment"]
    call.cluster.save()
    return None


def _set(call: Call) -> list[dict[str, Any]]:
    """The entries of the set of the path."""
    found: list[dict[str, Any]] | None
    found = config_of(call.cluster, call.params["vmid"])["ipset"].get(call.params["name"])
    if found is None:
        raise ApiError(f"no such IPSet '{call.params['name']}'")
    return found


def _entry(call: Call) -> dict[str, Any]:
    found = next((entry for entry in _set(call) if entry["cidr"] == call.params["cidr"]), None)
    if found is None:
        raise invalid({"cidr": "no such IP/Network"})
    return found


def _cidr(text: str) -> str:
    """Without host bits, and without a prefix that means one address."""
    network = ipaddress.ip_interface(text).network
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


@endpoint("GET", f"{VM}/ipset/{{name}}")
async def get_set(call: Call) -> object:
    return with_digest(sorted(_set(call), key=lambda entry: str(entry["cidr"])))


@endpoint("DELETE", f"{VM}/ipset/{{name}}")
async def delete_set(call: Call) -> object:
    name = call.params["name"]
    if _set(call) and not call.params.get("force"):
        raise ApiError(f"IPSet '{name}' is not empty")
    config = config_of(call.cluster, call.params["vmid"])
    config["ipset"].pop(name)
    config["ipset_comments"].pop(name, None)
    call.cluster.save()
    return None


@endpoint("POST", f"{VM}/ipset/{{name}}")
async def add_address(call: Call) -> object:
    entries, cidr = _set(call), call.params["cidr"]
    if match := re.fullmatch(rf"(?:dc/|guest/)?({NAME})", cidr):
        if resolve(cidr, (config_of(call.cluster, call.params["vmid"]), cluster_config(call.cluster)))[1]:
            raise ApiError(f"no such alias '{match[1]}'")
    else:
        cidr = _cidr(cidr)
    if any(entry["cidr"] == cidr for entry in entries):
        raise invalid({"cidr": f"address '{cidr}' already exists"})
    if re.search(r"/0+$", cidr):
        raise invalid({"cidr": "a zero prefix is not allowed in ipset entries"})
    kept = {"nomatch": 1} if call.params.get("nomatch") else {}
    entries.insert(0, {"cidr": cidr} | kept | _comment(call))
    call.cluster.save()
    return None


def _comment(call: Call) -> dict[str, str]:
    return {"comment": call.params["comment"]} if call.params.get("comment") else {}


@endpoint("GET", f"{VM}/ipset/{{name}}/{{cidr}}")
async def get_address(call: Call) -> object:
    return _entry(call) | {"digest": digest_of(_set(call))}


@endpoint("PUT", f"{VM}/ipset/{{name}}/{{cidr}}")
async def update_address(call: Call) -> object:
    assert_unchanged(call, _set(call))
    entry = _entry(call)
    cidr = entry["cidr"]
    entry.clear()
    entry |= {"cidr": cidr} | ({"nomatch": 1} if call.params.get("nomatch") else {}) | _comment(call)
    call.cluster.save()
    return None


@endpoint("DELETE", f"{VM}/ipset/{{name}}/{{cidr}}")
async def remove_address(call: Call) -> object:
    """One that is not there is fine too."""
    entries = _set(call)
    assert_unchanged(call, entries)
    entries[:] = [entry for entry in entries if entry["cidr"] != call.params["cidr"]]
    call.cluster.save()
    return None


@endpoint("GET", f"{VM}/aliases")
async def listaliases_of(call: Call) -> object:
    return with_digest(aliases_of(config_of(call.cluster, call.params["vmid"])))


def _alias(call: Call) -> dict[str, Any]:
    cidr = re.sub(r"/(?:32|128)$", "", call.params["cidr"])
    return {"name": call.params["name"], "cidr": cidr, "ipversion": version_of(cidr)} | _comment(call)


@endpoint("POST", f"{VM}/aliases")
async def create_alias(call: Call) -> object:
    aliases, name = config_of(call.cluster, call.params["vmid"])["aliases"], call.params["name"]
    if name.lower() in aliases:
        raise invalid({"name": f"alias '{name}' already exists"})
    aliases[name.lower()] = _alias(call)
    call.cluster.save()
    return None


@endpoint("GET", f"{VM}/aliases/{{name}}")
async def get_alias(call: Call) -> object:
    aliases = config_of(call.cluster, call.params["vmid"])["aliases"]
    if call.params["name"].lower() not in aliases:
        raise invalid({"name": "no such alias"})
    return aliases[call.params["name"].lower()]


@endpoint("PUT", f"{VM}/aliases/{{name}}")
async def update_alias(call: Call) -> object:
    config, name, new = config_of(call.cluster, call.params["vmid"]), call.params["name"], call.params.get("rename")
    aliases = config["aliases"]
    assert_unchanged(call, aliases_of(config))
    if name.lower() not in aliases:
        raise invalid({"name": "no such alias"})
    if new and new.lower() != name.lower() and new.lower() in aliases:
        raise invalid({"name": f"alias '{new}' already exists"})
    aliases.pop(name.lower())
    aliases[(new or name).lower()] = _alias(call) | {"name": new or name}
    call.cluster.save()
    return None


@endpoint("DELETE", f"{VM}/aliases/{{name}}")
async def delete_alias(call: Call) -> object:
    config = config_of(call.cluster, call.params["vmid"])
    assert_unchanged(call, aliases_of(config))
    config["aliases"].pop(call.params["name"].lower(), None)
    call.cluster.save()
    return None
