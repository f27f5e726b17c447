# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role, run by ansible-playbook with an inventory and without an operator database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from zones_servers import KEY, SECRET, Estate

ROOT = Path(__file__).parents[3]
PLAYBOOK = ROOT / "docs" / "examples" / "dns.yml"


def play(directory: Path, variables: dict[str, Any], *options: str, fails: bool = False) -> str:
    inventory = directory / "hosts.yml"
    known = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **variables}
    inventory.write_text(json.dumps({"dns": {"hosts": {"ns1": {}}, "vars": known}}), encoding="utf-8")
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", inventory, "-v", "--diff", *options, PLAYBOOK],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.yaml", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout + done.stderr
    assert SECRET not in text
    assert (done.returncode != 0) is fails, text
    return text


def connection(estate: Estate) -> dict[str, Any]:
    return {
        "dns_server": "127.0.0.1",
        "dns_port": estate.port,
        "dns_tsig_name": KEY,
        "dns_tsig_secret": SECRET,
        "dns_tsig_algorithm": "hmac-sha256",
    }


def in_file(estate: Estate) -> dict[str, Any]:
    return {
        "dns_zones_method": "file",
        "dns_zones_become": False,
        "dns_zones_software": estate.software,
        "dns_zones_server_config": str(estate.config),
        "dns_zones_include_file": str(estate.include),
        "dns_zones_directory": str(estate.directory),
        "dns_zones_keep_directory": str(estate.kept),
        "dns_zones_reload_command": list(estate.reload),
        "dns_zone_defaults": {"nameservers": ["ns1.other.net"], "acl": ["full"]},
    }


def test_the_role_makes_zones_and_records(tmp_path: Path, knot: Estate) -> None:
    variables = {
        **connection(knot),
        **in_file(knot),
        "dns_zones": [{"name": "alice.test", "operator": "alice"}, {"name": "bob.test", "operator": "bob"}],
        "dns_records": [
            {"name": "alice.test", "record_sets": [{"prefix": "www", "type": "A", "value": ["192.0.2.1"]}]},
        ],
        "dns_record_sets": [{"record": "www.bob.test", "type": "A", "value": ["192.0.2.2"]}],
    }
    # the zone that dns_record_sets is about is not there yet
    checked = play(tmp_path, {**variables, "dns_record_sets": []}, "--check")
    assert "2 create (check mode)" in checked
    assert knot.rcode("alice.test") == "REFUSED"
    assert "changed=2" in play(tmp_path, variables)
    assert (knot.ask("www.alice.test", "A"), knot.ask("www.bob.test", "A")) == (["192.0.2.1"], ["192.0.2.2"])
    assert "changed=0" in play(tmp_path, variables)
    # one zone is refused: the records are made all the same
    variables["dns_zones"] = [*variables["dns_zones"], {"name": "evil.alice.test", "operator": "bob"}]
    variables["dns_record_sets"] = [{"record": "mail.bob.test", "type": "A", "value": ["192.0.2.3"]}]
    text = play(tmp_path, variables, fails=True)
    assert "operator 'alice'" in text
    assert knot.ask("mail.bob.test", "A") == ["192.0.2.3"]
    gone = {**connection(knot), **in_file(knot), "dns_zones_purge": True}
    play(tmp_path, gone)
    assert knot.rcode("alice.test") == "REFUSED"


def test_the_role_makes_members_of_a_catalog(tmp_path: Path, knot: Estate) -> None:
    variables = {
        **connection(knot),
        "dns_zones_method": "catalog",
        "dns_zones_catalog": "catalog.test",
        "dns_zones_directory": str(knot.directory),
        "dns_zones_keep_directory": str(knot.kept),
        "dns_zones": [{"name": "alice.test", "nameservers": ["ns1.other.net"]}],
    }
    assert "changed=1" in play(tmp_path, variables)
    assert knot.rcode("alice.test") == "NOERROR"
    assert "changed=0" in play(tmp_path, variables)
    assert "changed=1" in play(tmp_path, {**variables, "dns_zones": [{"name": "alice.test", "state": "absent"}]})


def test_the_role_exports_records(tmp_path: Path) -> None:
    variables = {
        "dns_octodns_dest": str(tmp_path / "octodns"),
        "dns_octodns_provider": {"class": "octodns_bind.Rfc2136Provider", "settings": {"key_secret": "env/KEY"}},
        "dns_records": [{"name": "a.test", "record_sets": [{"prefix": "www", "type": "A", "value": ["192.0.2.1"]}]}],
        "dns_record_sets": [{"record": "mail.a.test", "type": "A", "value": ["192.0.2.1"]}],
    }
    assert "changed=1" in play(tmp_path, variables, "--check")
    assert not (tmp_path / "octodns").exists()
    assert "changed=1" in play(tmp_path, variables)
    written = yaml.safe_load((tmp_path / "octodns" / "zones" / "a.test.yaml").read_text(encoding="utf-8"))
    assert sorted(written) == ["mail", "www"]
    assert "changed=0" in play(tmp_path, variables)
