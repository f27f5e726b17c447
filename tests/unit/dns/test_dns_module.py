# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module as Ansible starts it: arguments in, JSON out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.dns_server import SECRET, DnsServer

MODULE = Path(__file__).parents[3] / "plugins" / "modules" / "dns_records.py"
WITHOUT_LIBRARY = "import runpy, sys; sys.modules['dns'] = None; runpy.run_path(sys.argv.pop(), {}, '__main__')"


def start(arguments: dict[str, Any], *python: str, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *python, str(MODULE)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert SECRET not in done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_server_and_key_come_from_the_environment(server: DnsServer) -> None:
    arguments = {
        "port": server.port,
        "zones": [{"name": "fedi.test", "record_sets": [{"prefix": "www", "type": "A", "value": ["192.0.2.1"]}]}],
    }
    environment = {"DNS_SERVER": "localhost", "DNS_TSIG_NAME": server.key, "DNS_TSIG_SECRET": SECRET}
    predicted = start({**arguments, "_ansible_check_mode": True}, **environment)
    assert (predicted["changed"], predicted["results"][0]["action"]) == (True, "create")
    done = start(arguments, **environment)
    assert done["diff"] == predicted["diff"]
    assert (done["changed"], done["failed"]) == (True, False)
    again = start(arguments, **environment)
    assert (again["changed"], again["results"][0]["ttl"]) == (False, 3600)
    refused = start(arguments, **{**environment, "DNS_TSIG_NAME": "nobody."})["msg"]
    # PowerDNS does not tell more, nor does Knot from 3.4 on
    assert ("wrong key" if "not signed" in refused else "BADKEY") in refused
    assert "tsig_name" in refused


def test_a_failed_item_fails_the_module_and_stands_in_the_results(server: DnsServer) -> None:
    record_sets = [
        {"prefix": "foreign", "type": "A", "value": ["192.0.2.1"]},
        {"prefix": "www", "type": "A", "value": ["192.0.2.1"]},
    ]
    done = start(
        {
            "server": "localhost",
            "port": server.port,
            "tsig_name": server.key,
            "tsig_secret": SECRET,
            "zones": [{"name": "fedi.test", "record_sets": record_sets}],
        }
    )
    assert (done["changed"], done["failed"]) == (True, True)
    assert {item["name"]: item["failed"] for item in done["results"]} == {
        "foreign.fedi.test A": True,
        "www.fedi.test A": False,
    }


def test_a_missing_library_is_named() -> None:
    done = start({"server": "localhost", "zones": []}, "-c", WITHOUT_LIBRARY)
    assert done["failed"]
    assert "dns" in done["msg"]
    assert "Python library" in done["msg"]
