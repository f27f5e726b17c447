# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module in a playbook: the same results, and the secret of the key in none of what can be read."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import dns.opcode
from dns_ansible import playbook
from dns_place import Place, call, failed, opcodes, told
from support.cutting_proxy import Direction, Request, cutting_proxy


def traces(secret: str) -> list[str]:
    """How the secret may be written."""
    raw = base64.b64decode(secret)
    return [secret, raw.hex(), raw.decode("latin-1")]


def command_lines() -> str:
    """Of all processes."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().decode("utf-8", "replace"))
        except OSError:
            continue
    return "\n".join(found)


def without_secret(place: Place, **options: Any) -> dict[str, Any]:
    arguments = place.arguments(place.record_set("www", "A", "192.0.2.1"), place.record_set("x", "A", "no address"))
    return {**arguments, **options}


def test_a_playbook_run_and_its_secret(place: Place, tmp_path: Path) -> None:
    server = place.server
    processes: list[str] = []

    def look(direction: Direction, request: Request) -> bool:
        if direction == "request" and opcodes([request.data]) == [dns.opcode.UPDATE]:
            processes.append(command_lines())
        return False

    with cutting_proxy((server.address, server.port), look) as proxy:
        arguments = without_secret(place.through(proxy), tsig_secret="{{ the_secret }}")
        wrong = without_secret(place, tsig_secret="{{ the_secret }}", tsig_name="nobody.")
        malformed = without_secret(place, tsig_secret="{{ the_secret }}!")
        by_environment = {key: value for key, value in without_secret(place).items() if not key.startswith("tsig_")}
        results, printed = playbook(
            tmp_path,
            {"dns_records": arguments, "check_mode": True},
            {"dns_records": arguments},
            {"dns_records": arguments},
            {"dns_records": wrong},
            {"dns_records": malformed},
            {"dns_records": by_environment},
            variables={"the_secret": server.secret},
            environment={
                "DNS_TSIG_NAME": server.key,
                "DNS_TSIG_SECRET": server.secret,
                "DNS_TSIG_ALGORITHM": server.algorithm,
            },
        )
    predicted, done, again, unknown, not_base64, environment = results
    assert told(predicted) == told(done)
    assert failed(done) == {place.item("x", "A")}
    assert [result["changed"] for result in results] == [True, True, False, False, False, False]
    assert failed(again) == failed(environment) == failed(done)
    assert all(result["failed"] for result in (unknown, not_base64))

    assert len(processes) == 1
    read = {"results": json.dumps(results), "output": printed, "processes": processes[0]}
    if server.process is not None:
        read["server's log"] = server.process.log
    for trace in traces(server.secret):
        assert [where for where, text in read.items() if trace in text] == []


def test_no_secret_in_results_of_runs_that_fail(place: Place) -> None:
    server = place.server
    wanted = place.record_set("www", "A", "192.0.2.1")
    with cutting_proxy((server.address, server.port), lambda direction, _request: direction == "answer") as proxy:
        results = [
            place.through(proxy).run(wanted),
            call({**place.arguments(wanted), "tsig_algorithm": "hmac-sha512"}),
            call({**place.arguments(wanted), "tsig_name": "a..b"}),
            call({**place.arguments(wanted), "tsig_secret": f"{server.secret}é"}),
        ]
    assert all(result["failed"] for result in results)
    for trace in traces(server.secret):
        assert trace not in json.dumps(results)
