# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_cli import ansible
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import Application
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect, upgrade
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.importer import preview_import
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import load_fleet
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.secrets import SecretSpec, SecretStore
from cryptography.fernet import Fernet

KEY = Fernet.generate_key()
REF = "alice_social_mastodon/database-password"


@pytest.fixture
def run(tmp_path: Path, sqlite_url: str) -> Any:
    """Run one task on localhost; return (exit code, the task's result, all output)."""

    def play(task: dict[str, Any], *arguments: str, **environment: str) -> tuple[int, dict[str, Any], str]:
        block = {"block": [task | {"register": "it"}], "always": [{"ansible.builtin.debug": {"var": "it"}}]}
        plays = [{"hosts": "localhost", "gather_facts": False, "tasks": [block]}]
        (tmp_path / "play.yml").write_text(json.dumps(plays), encoding="utf-8")
        (tmp_path / "key").write_bytes(KEY)
        done = ansible(
            *("playbook", "-i", "localhost,", "-c", "local", "play.yml", *arguments),
            cwd=tmp_path,
            **{"FEDIVERSITY_DATABASE_URL": sqlite_url, "FEDIVERSITY_SECRET_KEY_FILE": str(tmp_path / "key")},
            **{
                "ANSIBLE_CALLBACKS_ENABLED": "ansible.builtin.tree",
                "ANSIBLE_CALLBACK_TREE_DIR": str(tmp_path / "tree"),
            },
            **environment,
        )
        told = json.loads((tmp_path / "tree" / "localhost").read_text(encoding="utf-8"))
        return done.returncode, told["it"], done.stdout

    return play


def test_import(run: Any, lab: Path, sqlite_url: str, catalogue: dict[str, Application]) -> None:
    engine = connect(sqlite_url)
    expected = preview_import(engine, lab, catalogue)
    task = {"fediversity.hosting.operator_db_import": {"src": str(lab)}}
    code, result, _output = run(task, "--check", "--diff")
    assert (code, result["changed"], result["counts"]["created"]) == (0, True, 19)
    assert result["diff"] == {"before": expected.before, "after": expected.after}
    assert not Path(str(engine.url.database)).exists()
    code, result, _output = run(task)
    assert (code, result["changed"], result["counts"]["created"]) == (0, True, 19)
    assert len(load_fleet(engine).instances) == 5
    for arguments in ((), ("--check",)):
        code, result, _output = run(task, *arguments)
        assert (code, result["changed"], result["counts"]["unchanged"], result["unlisted"]) == (0, False, 19, {})


def test_a_refused_file_fails_with_its_problems(run: Any, lab: Path, tmp_path: Path) -> None:
    text = lab.read_text(encoding="utf-8").replace("application: peertube", "application: friendica")
    (tmp_path / "operators.yml").write_text(text, encoding="utf-8")
    code, result, _output = run({"fediversity.hosting.operator_db_import": {"src": "operators.yml"}})
    assert code == 2
    line = text[: text.index("friendica")].count("\n") + 1
    assert result["msg"] == (
        "operators.yml was not imported, it has 1 problem:\n"
        f"  operators.yml:{line}: operators[1].deployments[0].applications[0].application: "
        "unknown application 'friendica'; known are: mastodon, peertube, pixelfed"
    )


def test_secrets_are_created_once_and_never_shown(run: Any, sqlite_url: str) -> None:
    engine = connect(sqlite_url)
    upgrade(engine)
    store = SecretStore(engine, [KEY])
    spec = {"ref": REF, "kind": "alphanumeric", "bytes": 40}
    task = {"fediversity.hosting.operator_secrets": {"secrets": [spec]}}
    code, result, _output = run(task, "--check")
    assert (code, result["changed"], result["created"]) == (0, True, [REF])
    assert store.find([REF]) == {}
    code, result, output = run(task, "-vvv", "--diff")
    assert (code, result["changed"], result["created"]) == (0, True, [REF])
    value = store.get([REF])[REF]
    assert value not in output + json.dumps(result)
    code, result, _output = run(task)
    assert (code, result["changed"], result["created"]) == (0, False, [])
    other = {"FEDIVERSITY_SECRET_KEY": f"{Fernet.generate_key().decode()} {KEY.decode()}"}
    rewrap = {"fediversity.hosting.operator_secrets": {"rewrap": True}}
    for arguments, expected in ((["--check"], 1), ([], 1), ([], 0)):
        code, result, output = run(rewrap, *arguments, "-vvv", **other)
        assert (code, result["changed"], result["rewrapped"]) == (0, bool(expected), expected)
        assert KEY.decode() not in output + json.dumps(result)


def lookup(structure: object) -> dict[str, Any]:
    return {
        "ansible.builtin.debug": {"msg": "{{ lookup('fediversity.hosting.secret', structure) }}"},
        "vars": {"structure": structure},
    }


def test_the_lookup_resolves_references_at_any_depth(run: Any, sqlite_url: str) -> None:
    engine = connect(sqlite_url)
    upgrade(engine)
    store = SecretStore(engine, [KEY])
    store.ensure([SecretSpec(REF, "hex", 32)])
    value = store.get([REF])[REF]
    structure = {"databases": [{"name": "x", "password": {"secret": REF}}], "port": 5432, "on": True, "none": None}
    assert run(lookup(structure))[1]["msg"] == {
        "databases": [{"name": "x", "password": value}],
        "port": 5432,
        "on": True,
        "none": None,
    }
    assert run(lookup(REF))[1]["msg"] == value
    assert run(lookup([{"secret": REF}, "other"]))[1]["msg"] == [value, "other"]
    assert run(lookup({"nothing": "secret"}))[1]["msg"] == {"nothing": "secret"}


def test_only_check_mode_invents_a_missing_secret(run: Any, sqlite_url: str) -> None:
    upgrade(connect(sqlite_url))
    code, result, _output = run(lookup({"secret": REF}), "--check")
    assert code == 0
    assert len(bytes.fromhex(result["msg"])) == 32
    code, result, _output = run(lookup({"secret": REF}))
    assert code == 2
    assert f"the operator database has no secret {REF}" in result["msg"]


def test_without_a_key_the_lookup_says_so(run: Any, sqlite_url: str) -> None:
    upgrade(connect(sqlite_url))
    code, result, _output = run(lookup(REF), FEDIVERSITY_SECRET_KEY="swordfish")
    assert code == 2
    assert "FEDIVERSITY_SECRET_KEY: key 1 is no Fernet key" in result["msg"]
    assert "swordfish" not in result["msg"]
