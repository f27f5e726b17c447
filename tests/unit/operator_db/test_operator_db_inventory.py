# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_cli import ansible
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import Application, secret_specs
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.hosts import Filter, hosts_of
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.importer import import_operators
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.model import Fleet
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import load_fleet
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.secrets import SecretStore
from cryptography.fernet import Fernet

PLUGIN = "plugin: fediversity.hosting.operator_db\n"


def said(text: str, output: str) -> bool:
    """Whether *output* says *text*; older cores break lines anywhere."""
    return "".join(text.split()) in "".join(output.split())


def plain(value: Any) -> Any:
    """JSON of ansible-inventory without its marks of untrusted text."""
    if isinstance(value, dict):
        return value["__ansible_unsafe"] if "__ansible_unsafe" in value else {k: plain(v) for k, v in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def fleet(sqlite_url: str, lab: Path, catalogue: dict[str, Application]) -> Fleet:
    engine = connect(sqlite_url)
    import_operators(engine, lab, catalogue)
    return load_fleet(engine)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "test.operator_db.yml"
    path.write_text(PLUGIN, encoding="utf-8")
    return path


def groups_of(hosts: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    return {name: host["groups"] for name, host in hosts.items()}


def test_groups(fleet: Fleet) -> None:
    everywhere = ["environment_lab", "fediversity_machines"]
    assert groups_of(hosts_of(fleet, Filter())) == {
        "existing1": ["application_pixelfed", *everywhere, "operator_dora", "runtime_existing", "state_enabled"],
        "vm-archive": ["application_mastodon", *everywhere, "operator_bob", "runtime_proxmox", "state_disabled"],
        "vm-mastodon": ["application_mastodon", *everywhere, "operator_alice", "runtime_proxmox", "state_enabled"],
        "vm-shared": [
            *("application_peertube", "application_pixelfed", *everywhere, "operator_bob", "operator_carol"),
            *("runtime_proxmox", "state_enabled"),
        ],
    }


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Filter(environments=frozenset({"moon"})), {}),
        (
            Filter(environments=frozenset({"lab"}), operators=frozenset({"bob"}), states=frozenset({"enabled"})),
            {"vm-shared": ["bob_videos_peertube"]},
        ),
        (
            Filter(applications=frozenset({"mastodon", "peertube"})),
            {
                "vm-archive": ["bob_archive_mastodon"],
                "vm-mastodon": ["alice_social_mastodon"],
                "vm-shared": ["bob_videos_peertube"],
            },
        ),
    ],
)
def test_filters(fleet: Fleet, chosen: Filter, expected: dict[str, list[str]]) -> None:
    shown = hosts_of(fleet, chosen)
    assert {
        name: [instance["id"] for instance in host["variables"]["fediversity"]["instances"]]
        for name, host in shown.items()
    } == expected


def test_the_real_list_shows_hostile_text_as_plain_data(
    fleet: Fleet, source: Path, sqlite_url: str, lab: Path, catalogue: dict[str, Application]
) -> None:
    store = SecretStore(connect(sqlite_url), [Fernet.generate_key()])
    specs = secret_specs(catalogue["pixelfed"], "carol_photos_pixelfed")
    store.ensure(specs)
    done = ansible("inventory", "-i", str(source), "--list", cwd=source.parent, FEDIVERSITY_DATABASE_URL=sqlite_url)
    assert (done.returncode, done.stderr) == (0, "")
    listed = plain(json.loads(done.stdout))
    expected = hosts_of(fleet, Filter())
    assert {name: set(group["hosts"]) for name, group in listed.items() if "hosts" in group} == {
        group: {name for name, host in expected.items() if group in host["groups"]}
        for group in {group for host in expected.values() for group in host["groups"]}
    }
    assert listed["_meta"]["hostvars"] == {name: host["variables"] for name, host in expected.items()}
    carol = yaml.safe_load(lab.read_text(encoding="utf-8"))["operators"][2]
    instance = listed["_meta"]["hostvars"]["vm-shared"]["fediversity"]["instances"][1]
    assert instance["operator_display_name"] == carol["display_name"]
    assert instance["settings"] == carol["deployments"][0]["applications"][0]["settings"]
    for value in store.get([spec.ref for spec in specs]).values():
        assert value not in done.stdout


@pytest.fixture
def attacked(sqlite_url: str, lab: Path, catalogue: dict[str, Application], tmp_path: Path) -> Path:
    """Import customers' texts that create files where they are evaluated; return the folder of these files."""
    trap = tmp_path / "trap"
    trap.mkdir()
    document = yaml.safe_load(lab.read_text(encoding="utf-8"))
    for number, operator in enumerate(document["operators"]):
        code = f"lookup('ansible.builtin.pipe', 'touch {trap}/{number}')"
        operator["display_name"] = f"{{{{ {code} }}}}" if number % 2 else code
        for deployment in operator["deployments"]:
            deployment["applications"][0]["settings"] = {"title": f"{{{{ {code} }}}}", "description": code}
    path = tmp_path / "operators.yml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    import_operators(connect(sqlite_url), path, catalogue)
    return trap


PLAYBOOK = """
- hosts: fediversity_machines
  gather_facts: false
  vars:
    indirect: "{{ fediversity.instances[0].operator_display_name }}"
  tasks:
    - ansible.builtin.debug:
        msg: "{{ fediversity }} {{ indirect }} {{ name_of_customer }}"
    - ansible.builtin.set_fact:
        copied: "{{ fediversity.instances | map(attribute='settings') }}"
    - ansible.builtin.debug:
        var: copied
"""
COMPOSED = """
compose:
  name_of_customer: fediversity.instances[0].operator_display_name
keyed_groups:
  - key: fediversity.instances[0].application
    prefix: first
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: cache
"""


def test_customers_text_is_never_evaluated(attacked: Path, source: Path, sqlite_url: str, tmp_path: Path) -> None:
    source.write_text(PLUGIN + COMPOSED, encoding="utf-8")
    (tmp_path / "play.yml").write_text(PLAYBOOK, encoding="utf-8")
    for _cold_and_cached in range(2):
        done = ansible(
            "playbook", "-i", str(source), "play.yml", "-vvv", cwd=tmp_path, FEDIVERSITY_DATABASE_URL=sqlite_url
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{{{{ lookup('ansible.builtin.pipe', 'touch {attacked}/1') }}}}" in done.stdout
        assert list(attacked.iterdir()) == []
        assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_cache_belongs_to_one_selection(fleet: Fleet, source: Path, sqlite_url: str, tmp_path: Path) -> None:
    source.write_text(PLUGIN + COMPOSED, encoding="utf-8")
    graphs = [
        ansible(
            *("inventory", "-i", str(source), "--graph", "first_mastodon"),
            cwd=tmp_path,
            FEDIVERSITY_DATABASE_URL=sqlite_url,
            **selection,
        ).stdout
        for selection in ({}, {"FEDIVERSITY_OPERATORS": "alice,dora"}, {"FEDIVERSITY_STATES": "disabled"}, {})
    ]
    assert [[name for name in fleet.machines if name in graph] for graph in graphs] == [
        ["vm-archive", "vm-mastodon"],
        ["vm-mastodon"],
        ["vm-archive"],
        ["vm-archive", "vm-mastodon"],
    ]


def test_a_machine_with_the_name_of_a_group_is_refused(
    fleet: Fleet, source: Path, sqlite_url: str, tmp_path: Path
) -> None:
    (tmp_path / "hosts").write_text("[vm-shared]\nother\n", encoding="utf-8")
    done = ansible(
        *("inventory", "-i", "hosts", "-i", str(source), "--list"), cwd=tmp_path, FEDIVERSITY_DATABASE_URL=sqlite_url
    )
    assert done.returncode != 0
    assert said(
        "the machine 'vm-shared' has the name of a group. Rename it in operators.yml and import that", done.stderr
    )


def test_a_database_that_is_not_there_is_named(source: Path, sqlite_url: str) -> None:
    done = ansible("inventory", "-i", str(source), "--list", cwd=source.parent, FEDIVERSITY_DATABASE_URL=sqlite_url)
    assert done.returncode != 0
    assert said(
        f"{sqlite_url}: the operator database does not exist. "
        "Import operators.yml first (module fediversity.hosting.operator_db_import)",
        done.stderr,
    )


def test_a_missing_library_is_named(source: Path, sqlite_url: str, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    text = "raise ModuleNotFoundError('hidden', name='sqlalchemy')\n"
    (hidden / "sqlalchemy.py").write_text(text, encoding="utf-8")
    done = ansible(
        *("inventory", "-i", str(source), "--list"),
        cwd=tmp_path,
        FEDIVERSITY_DATABASE_URL=sqlite_url,
        PYTHONPATH=str(hidden),
    )
    assert done.returncode != 0
    assert said("the Python library SQLAlchemy is missing. Install it: pip install SQLAlchemy", done.stderr)


def test_other_files_are_left_to_other_plugins(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "machines.yml").write_text(PLUGIN, encoding="utf-8")
    done = ansible("inventory", "-i", "machines.yml", "--list", cwd=tmp_path, FEDIVERSITY_DATABASE_URL=sqlite_url)
    assert done.returncode != 0
    assert not said("the operator database does not exist", done.stderr)
