# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role and its example for estates without an operator database, through ansible-playbook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import MissingCommand
from ansible_collections.fediversity.hosting.plugins.module_utils.postgresql import dump
from postgresql_estate import ROOT, SENTINEL, Place, password

ROLE = ROOT / "roles" / "postgresql"


def test_the_example_makes_and_drops_the_databases_of_an_inventory(place: Place, tmp_path: Path) -> None:
    app, reader = place.name("app"), place.name("reader")
    inventory = tmp_path / "hosts.yml"
    variables = {
        "postgresql_login_host": place.variables["PGHOST"],
        "postgresql_login_port": int(place.variables.get("PGPORT", "5432")),
        "postgresql_login_user": place.variables["PGUSER"],
        "postgresql_login_password": place.variables["PGPASSWORD"],
        "postgresql_login_db": place.maintenance,
        "postgresql_ssl_mode": place.variables.get("PGSSLMODE", "prefer"),
        "postgresql_max_delete_percent": 100,
        "postgresql_databases": [
            {
                "name": app,
                "password": password("app"),
                "extensions": ["citext"],
                "grants": [{"role": reader, "privileges": ["CONNECT"]}],
            }
        ],
        "postgresql_roles": [{"name": reader, "password": password("reader")}],
    }

    def play(*arguments: str) -> tuple[int, str]:
        hosts = {"postgresql": {"hosts": {"db1": {}}, "vars": variables}}
        inventory.write_text(json.dumps(hosts), encoding="utf-8")
        code, output = place.at(PGPASSWORD="").ansible("-i", str(inventory), "docs/examples/postgresql.yml", *arguments)
        assert SENTINEL not in output
        return code, output

    code, output = play("--check", "--diff")
    assert (code, "changed=1" in output) == (0, True), output
    assert place.sql("SELECT 1 FROM pg_database WHERE datname = %s", app) == []
    code, output = play("--diff")
    assert (code, "changed=1" in output) == (0, True), output
    place.connect(app, password("app"), app).close()
    place.connect(reader, password("reader"), app).close()
    code, output = play("--diff")
    assert (code, "changed=0" in output) == (0, True), output

    variables["postgresql_databases"] = [{"name": app, "state": "absent"}]
    variables["postgresql_roles"] = [{"name": reader, "state": "absent"}]
    code, output = play()
    assert (code != 0, "dump_dir" in output) == (True, True), output
    try:
        dump.choose(dump.installed(), place.version())
    except MissingCommand as error:
        pytest.skip(error.what)
    variables["postgresql_dump_dir"] = str(tmp_path / "dumps")
    code, output = play()
    assert (code, "changed=1" in output) == (0, True), output
    assert place.sql("SELECT 1 FROM pg_roles WHERE rolname IN (%s, %s)", app, reader) == []
    assert len(list((tmp_path / "dumps").glob("*/manifest.json"))) == 1


def test_every_option_reaches_the_module_and_has_its_default() -> None:
    options = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    options = options["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
    assert {name: option["default"] for name, option in options.items() if "default" in option} == defaults
    (task,) = yaml.safe_load((ROLE / "tasks" / "main.yml").read_text(encoding="utf-8"))
    passed = task["fediversity.hosting.postgresql_databases"]
    assert {f"postgresql_{name}" for name in passed} | {"postgresql_delegate_to"} == set(options)
    for name, value in passed.items():
        assert value.split()[1] == f"postgresql_{name}"
    module = (ROOT / "plugins" / "modules" / "postgresql_databases.py").read_text(encoding="utf-8")
    fragment = (ROOT / "plugins" / "doc_fragments" / "postgresql.py").read_text(encoding="utf-8")
    documented = yaml.safe_load(module.split('r"""')[1].split('"""')[0])["options"]
    connection = yaml.safe_load(fragment.split('r"""')[1].split('"""')[0])["options"]
    assert set(passed) == {*documented, *connection, "max_delete_percent"}
