# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the suite works: names of its own in a zone of one server, and dns_records as a user starts it.

DNS_SERVER, DNS_PORT (53)
DNS_TSIG_NAME, DNS_TSIG_SECRET, DNS_TSIG_ALGORITHM (hmac-sha256)   a key that may transfer and update the zone
DNS_ZONE         a zone that the tests may write to, and nobody else does meanwhile; they use names of their own in it

Without DNS_SERVER the same tests run on a private Knot, BIND and PowerDNS.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.update
from ansible.module_utils.testing import patch_module_args
from ansible_collections.fediversity.hosting.plugins.modules import dns_records
from support.cutting_proxy import Proxy
from support.dns_server import TIMEOUT_SECONDS, DnsServer, bind_server, knot_server, powerdns_server

ROOT = Path(__file__).resolve().parents[4]
MODULE = ROOT / "plugins" / "modules" / "dns_records.py"
PRIVATE = {"knot": knot_server, "bind": bind_server, "powerdns": powerdns_server}
# names of one message, so that it stays below 65,535 bytes
DELETED_AT_ONCE = 500
# what a signing server makes by itself
SIGNING = frozenset({"CDNSKEY", "CDS", "DNSKEY", "NSEC", "NSEC3", "NSEC3PARAM", "RRSIG", "TYPE65534"})
# what every run writes beside the record sets
VERSION = "_registry"
TOLD = ("name", "action", "changed", "failed")

Result = dict[str, Any]
Content = dict[tuple[str, str], tuple[int, frozenset[str]]]
Edit = Callable[[dns.update.UpdateMessage], object]


@dataclass(frozen=True)
class Place:
    """The names below ``mark`` in a zone; nobody else has them."""

    server: DnsServer
    zone: str
    mark: str = field(default_factory=lambda: f"it{secrets.token_hex(4)}")

    def prefix(self, what: str) -> str:
        """*what* as a prefix of the zone."""
        return f"{what}.{self.mark}" if what else self.mark

    def name(self, what: str) -> str:
        """*what* as a complete name."""
        return f"{self.prefix(what)}.{self.zone}"

    def item(self, what: str, rdtype: str) -> str:
        """The name of the result of a record set."""
        return f"{self.name(what)} {rdtype}"

    def record_set(self, what: str, rdtype: str, *values: str, **fields: Any) -> dict[str, Any]:
        """A record set of the module's option."""
        return {"prefix": self.prefix(what), "type": rdtype, "ttl": 300, "value": list(values), **fields}

    def gone(self, what: str, rdtype: str) -> dict[str, Any]:
        return {"prefix": self.prefix(what), "type": rdtype, "state": "absent"}

    def arguments(
        self, *record_sets: Mapping[str, Any], options: Mapping[str, Any] | None = None, **zone: Any
    ) -> Result:
        """Arguments of dns_records; *zone* are fields of the zone, *options* are options of the module."""
        zones = [{"name": self.zone, "owner": self.mark, **zone, "record_sets": list(record_sets)}]
        return {**self.reach(), "zones": zones, **(options or {})}

    def reach(self) -> Result:
        """The options that lead to the server."""
        server = self.server
        return {
            "server": server.address,
            "port": server.port,
            "tsig_name": server.key,
            "tsig_secret": server.secret,
            "tsig_algorithm": server.algorithm,
        }

    def through(self, proxy: Proxy) -> Place:
        """The same place, reached through a proxy."""
        return replace(self, server=replace(self.server, address=proxy.host, port=proxy.port))

    def run(self, *record_sets: Mapping[str, Any], check: bool = False, **fields: Any) -> Result:
        """One run of the module in this process."""
        return call({**self.arguments(*record_sets, **fields), "_ansible_check_mode": check})

    def change(self, *record_sets: Mapping[str, Any], **fields: Any) -> Result:
        """Check mode, the real thing, and once more: the prediction must be right, the last run find nothing to do."""
        serial = self.serial()
        predicted = self.run(*record_sets, check=True, **fields)
        assert self.serial() == serial
        result = self.run(*record_sets, **fields)
        assert told(predicted) == told(result), result["msg"]
        assert predicted["diff"] == result["diff"]
        assert not result["failed"], result["msg"]
        self.unchanged(*record_sets, **fields)
        return result

    def unchanged(self, *record_sets: Mapping[str, Any], **fields: Any) -> None:
        """A run that must find nothing to do."""
        serial = self.serial()
        again = self.run(*record_sets, **fields)
        assert (again["changed"], again["failed"]) == (False, False), (again["msg"], again.get("diff"))
        assert self.serial() == serial

    def serial(self) -> int:
        return self.server.serial(self.zone)

    def content(self) -> Content:
        """What is in the zone below the mark, without the registry; names are without the mark and the zone."""
        end = f".{self.mark}.{self.zone}."
        return {
            (name.removesuffix(end), rdtype): found
            for (name, rdtype), found in self.server.content(self.zone).items()
            if name.endswith(end) and not name.startswith("_owner.") and rdtype not in SIGNING
        }

    def others(self) -> Content:
        """What is in the zone and has nothing to do with the mark, except what every run writes."""
        return {
            (name, rdtype): found
            for (name, rdtype), found in self.server.content(self.zone).items()
            if not name.endswith(f"{self.mark}.{self.zone}.")
            and name != f"{VERSION}.{self.zone}."
            and rdtype not in SIGNING
        }

    def edit(self, edit: Edit) -> None:
        """Change the zone as somebody else would."""
        message = dns.update.UpdateMessage(f"{self.zone}.", keyring=self.server.tsig())
        edit(message)
        response = dns.query.tcp(message, self.server.address, timeout=TIMEOUT_SECONDS, port=self.server.port)
        assert response.rcode() == dns.rcode.NOERROR, dns.rcode.to_text(response.rcode())

    def foreign(self, what: str, rdtype: str, *values: str, ttl: int = 777) -> None:
        """A record set that somebody else has made."""
        self.edit(lambda message: message.replace(self.prefix(what), ttl, rdtype, *values))

    def clear(self) -> None:
        """Remove everything below the mark."""
        end = f"{self.mark}.{self.zone}."
        names = sorted({name for name, _type in self.server.content(self.zone) if name.endswith(end)})
        for start in range(0, len(names), DELETED_AT_ONCE):
            part = names[start : start + DELETED_AT_ONCE]
            self.edit(lambda message, part=part: [message.delete(name) for name in part])


def call(arguments: Mapping[str, Any]) -> Result:
    """dns_records in this process, from its arguments to the JSON that it prints."""
    output = io.StringIO()
    with patch_module_args(dict(arguments)), contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        dns_records.main()
    result: Result = {"failed": False, **json.loads(output.getvalue())}
    # Ansible itself hides what is secret among them
    result.pop("invocation", None)
    return result


def start(arguments: Mapping[str, Any]) -> subprocess.Popen[str]:
    """dns_records as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(MODULE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        encoding="utf-8",
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": dict(arguments)}))
    process.stdin.close()
    process.stdin = None
    return process


def finish(process: subprocess.Popen[str]) -> Result:
    """The result of a process of :func:`start`."""
    output, errors = process.communicate(timeout=300)
    assert output, errors
    return {"failed": False, **json.loads(output)}


def told(result: Result) -> list[list[Any]]:
    """What check mode and the run must agree about."""
    return [[item[key] for key in TOLD] for item in result["results"]]


def actions(result: Result) -> dict[str, str]:
    return {item["name"]: item["action"] for item in result["results"]}


def messages(result: Result) -> dict[str, str]:
    """What the failed items say."""
    return {item["name"]: item["msg"] for item in result["results"] if item["failed"]}


def failed(result: Result) -> set[str]:
    return {item["name"] for item in result["results"] if item["failed"]}


def opcodes(seen: Iterable[bytes]) -> list[int]:
    """The operation of each message over TCP (RFC 1035 sections 4.1.1 and 4.2.2), from its first bytes."""
    return [piece[4] >> 3 & 15 for piece in seen]


def chosen() -> bool:
    """Whether the environment names a server."""
    return bool(os.environ.get("DNS_SERVER"))


def from_environment(variables: Mapping[str, str]) -> tuple[DnsServer, str]:
    """The server that the variables name, and the zone."""
    server = DnsServer(
        "environment",
        variables["DNS_SERVER"],
        int(variables.get("DNS_PORT", "53")),
        variables["DNS_TSIG_NAME"],
        variables["DNS_TSIG_SECRET"],
        variables.get("DNS_TSIG_ALGORITHM", "hmac-sha256"),
    )
    return server, variables["DNS_ZONE"].rstrip(".").lower()
