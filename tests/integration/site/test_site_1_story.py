# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's story as assertions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lab.story import ROOT, operators, with_title, with_wrong_address

pytestmark = pytest.mark.lab

ALICE = "http://social.alice.fedi.test/"


def titles(document: dict[str, Any]) -> dict[str, str]:
    """URL -> title of every enabled application."""
    return {
        f"http://{application['domain']}/": application["settings"].get("title", "")
        for operator in document["operators"]
        for deployment in operator["deployments"]
        if deployment.get("state", "enabled") == "enabled"
        for application in deployment["applications"]
    }


def hostile_operator(document: dict[str, Any]) -> dict[str, Any]:
    return next(operator for operator in document["operators"] if "lookup(" in operator["display_name"])


def test_the_input_is_what_it_claims_to_be() -> None:
    document = operators()
    deployments = [deployment for operator in document["operators"] for deployment in operator["deployments"]]
    name = hostile_operator(document)["display_name"]
    assert len(document["operators"]) >= 3
    assert len(deployments) >= 5
    assert "disabled" in {deployment.get("state", "enabled") for deployment in deployments}
    assert all(part in name for part in ("{{ lookup('pipe','id') }}", '"', "'' ${x} ''", "\n"))
    assert any(ord(letter) > 0xFFFF for letter in name)


def test_one_run_serves_every_deployment_with_its_own_content(converged: Any) -> None:
    pages = converged.estate.pages()
    assert {url: page["content"]["instance"]["settings"].get("title", "") for url, page in pages.items()} == titles(
        operators()
    )
    for page in pages.values():
        assert page["status"] == 200
        content = page["content"]
        assert content["standIn"]
        assert content["database"]["ok"]
        assert content["database"]["user"] == content["instance"]["id"]
        assert content["storage"]["accessKeyId"].startswith("GK")
        assert content["system"].startswith("/nix/store/")
    assert all(host["failed"] == 0 and host["unreachable"] == 0 for host in converged.first.recap.values())


def test_the_table_has_one_row_per_deployment(converged: Any) -> None:
    rows = converged.estate.states()
    wanted = {
        f"{operator['name']}/{deployment['name']}": "running"
        if deployment.get("state", "enabled") == "enabled"
        else "disabled"
        for operator in operators()["operators"]
        for deployment in operator["deployments"]
    }
    assert {name: state for name, (state, _message) in rows.items()} == wanted
    for url in titles(operators()):
        assert url in converged.first.output


def test_a_second_run_changes_nothing_and_visits_no_machine(converged: Any) -> None:
    assert converged.second.code == 0
    assert converged.second.changed == 0
    assert "Switch to the system" not in converged.second.output


def test_check_mode_on_the_empty_lab_predicted_the_run_and_made_nothing(converged: Any) -> None:
    assert converged.predicted.code == 0, converged.predicted.output
    assert converged.predicted.changed > 0
    for name in ("vm-mastodon", "alice_social_mastodon", "alice--social--mastodon--media", "social.alice.fedi.test"):
        assert name in converged.predicted.output


def test_the_hostile_name_is_plain_data_in_the_inventory(converged: Any) -> None:
    hostile = hostile_operator(operators())
    run = converged.estate.execute("ansible-inventory", "--list", "--export")
    assert run.code == 0
    document = json.loads(run.output)
    shown = json.dumps(document["_meta"]["hostvars"], ensure_ascii=False)
    assert "uid=0" not in run.output
    assert json.dumps(hostile["display_name"], ensure_ascii=False) in shown


def test_the_hostile_name_is_plain_data_on_the_machine(converged: Any) -> None:
    hostile = hostile_operator(operators())
    (page,) = [
        page for page in converged.estate.pages().values() if page["content"]["instance"]["operator"] == hostile["name"]
    ]
    assert page["content"]["instance"]["operatorDisplayName"] == hostile["display_name"]
    html = converged.estate.lab.execute("curl", "--silent", "--fail", page["url"])
    assert html.code == 0
    assert "<script" not in html.output
    assert "uid=0" not in html.output


def test_importing_again_changes_nothing(converged: Any) -> None:
    again = converged.estate.import_operators()
    assert again.code == 0
    assert again.changed == 0


def test_check_mode_of_one_changed_title_touches_nothing(converged: Any) -> None:
    before = converged.estate.pages()
    converged.estate.import_operators(with_title(operators(), "alice", "social", "Only predicted"))
    predicted = converged.estate.site("--check", "--diff")
    assert predicted.code == 0, predicted.output
    assert predicted.recap["vm-mastodon"]["changed"] == 1
    assert "vm-shared" not in predicted.recap
    assert converged.estate.pages() == before
    converged.estate.import_operators()
    assert converged.estate.site().changed == 0


def test_a_deployment_that_cuts_its_network_comes_back_and_the_others_stay(converged: Any) -> None:
    estate = converged.estate
    before = estate.pages()
    retitled = with_title(operators(), "alice", "social", "A new title")
    estate.import_operators(with_wrong_address(retitled, "alice", "social"))
    broken = estate.site()
    assert broken.code != 0
    assert "rolled back" in broken.output
    assert broken.recap["vm-mastodon"]["failed"] == 1
    assert [host for host, numbers in broken.recap.items() if numbers["failed"]] == ["vm-mastodon"]
    assert estate.pages() == before
    state, message = estate.states()["alice/social"]
    assert state == "rolled-back"
    assert "rolled back" in message

    estate.import_operators(retitled)
    fixed = estate.site()
    assert fixed.code == 0, fixed.output
    assert estate.pages()[ALICE]["content"]["instance"]["settings"]["title"] == "A new title"
    assert estate.states()["alice/social"] == ("running", "")

    estate.import_operators()
    assert estate.site().code == 0
    assert {url: page["content"]["instance"]["settings"] for url, page in estate.pages().items()} == {
        url: page["content"]["instance"]["settings"] for url, page in before.items()
    }


def test_the_installed_artifact_runs_by_its_full_names(converged: Any, tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests" / "tools"))
    import artifact

    collections = artifact.install(tmp_path)
    (tmp_path / "work").mkdir()
    for name in ("lab.operator_db.yml", "group_vars"):
        subprocess.run(["cp", "-r", str(ROOT / "inventories" / "lab" / name), str(tmp_path / "work")], check=True)
    run = converged.estate.execute(
        "env",
        "-C",
        str(tmp_path / "work"),
        "-u",
        "ANSIBLE_CONFIG",
        f"ANSIBLE_COLLECTIONS_PATH={collections}",
        "ANSIBLE_INVENTORY=lab.operator_db.yml",
        "ANSIBLE_INVENTORY_ENABLED=fediversity.hosting.operator_db",
        "ansible-playbook",
        "fediversity.hosting.site",
    )
    assert run.code == 0, run.output
    assert run.changed == 0
    for machine in ("vm-mastodon", "vm-shared", "existing1"):
        assert machine in run.output
