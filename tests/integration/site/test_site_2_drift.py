# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happens beside the runs, and several runs at once: a plain re-run brings everything back."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lab.story import operators, with_title

pytestmark = pytest.mark.lab

ALICE, DORA = "http://social.alice.fedi.test/", "http://gallery.dora.fedi.test/"


@pytest.fixture
def settled(converged: Any) -> Any:
    """The converged estate, brought back to its own operators.yml afterwards."""
    yield converged.estate
    converged.estate.import_operators()
    run = converged.estate.site()
    assert run.code == 0, run.output


def statuses(estate: Any) -> set[int]:
    return {page["status"] for page in estate.pages().values()}


def vms(estate: Any, *items: dict[str, Any]) -> list[dict[str, Any]]:
    """What somebody does in the Proxmox cluster beside all runs."""
    run = estate.execute(
        *("env", "ANSIBLE_CALLBACK_RESULT_FORMAT=json", "ansible", "localhost"),
        *("-m", "fediversity.hosting.proxmox_vms", "-a", json.dumps({"vms": items})),
    )
    assert run.code == 0, run.output
    return list(json.loads(run.output.partition("=>")[2])["results"])


def test_runs_at_the_same_time_wait_for_each_other(settled: Any) -> None:
    settled.import_operators(with_title(operators(), "alice", "social", "Several runs"))
    vms(settled, {"name": "vm-shared", "state": "absent"})
    arguments = ((), ("--limit", "vm-shared"), ("--check", "--limit", "existing1"))
    with ThreadPoolExecutor(len(arguments)) as pool:
        runs = list(pool.map(lambda words: settled.site(*words), arguments))
    assert [run.code for run in runs] == [0, 0, 0], "".join(run.output for run in runs)
    assert any("waiting for another run to end" in run.output for run in runs)
    assert settled.site().changed == 0
    assert statuses(settled) == {200}


def test_a_run_that_may_not_wait_says_for_whom(settled: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(settled.site)
        refused = settled.site("-e", "fleet_lock_timeout=0")
        # whichever of the two was first
        codes = sorted((first.result().code, refused.code))
    if codes == [0, 2]:
        assert "another run works with this operator database: process" in refused.output
        assert "Traceback" not in refused.output
    assert settled.site().changed == 0


def test_a_virtual_machine_that_was_deleted_is_made_and_switched_again(settled: Any) -> None:
    before = settled.pages()
    vms(settled, {"name": "vm-mastodon", "state": "absent"})
    again = settled.site()
    assert again.code == 0, again.output
    assert settled.pages() == before
    assert settled.site().changed == 0


def test_a_virtual_machine_made_anew_by_a_run_that_ended_then_is_switched_by_the_next(settled: Any) -> None:
    before = settled.pages()
    vms(settled, {"name": "vm-mastodon", "state": "absent"})
    settled.execute("env", "DNS_SERVER=10.99.0.1", "ansible-playbook", "site.yml")
    assert settled.states()["alice/social"][0] == "blocked"
    again = settled.site()
    assert again.code == 0, again.output
    assert settled.pages() == before


def test_a_stopped_machine_a_dropped_database_and_a_removed_record_come_back(settled: Any) -> None:
    before = settled.pages()
    vms(settled, {"name": "vm-shared", "power": "stopped"})
    # the list that a run reads shows the new power state up to 10 seconds later (docs/proxmox.md)
    time.sleep(11)
    assert settled.execute("psql", "-c", "DROP DATABASE dora_gallery_pixelfed WITH (FORCE)").code == 0
    record = {"record": "social.alice.fedi.test", "type": "A", "ttl": 300, "value": ["10.99.0.99"]}
    zones = {"zones": [{"name": "fedi.test", "record_sets": [record]}]}
    arguments = ("-m", "fediversity.hosting.dns_records", "-a", json.dumps(zones))
    assert settled.execute("ansible", "localhost", *arguments).code == 0
    again = settled.site()
    assert again.code == 0, again.output
    assert settled.pages() == before
    assert settled.site().changed == 0


def test_what_was_changed_on_a_machine_by_hand_comes_back_when_every_machine_is_asked(settled: Any) -> None:
    before = settled.pages()[DORA]["content"]["system"]
    settled.import_operators(with_title(operators(), "dora", "gallery", "The next one"))
    assert settled.site().code == 0
    wanted = settled.pages()[DORA]["content"]["system"]
    assert wanted != before
    by_hand = f"rm /var/lib/fediversity/secrets/*/app-key && {before}/bin/switch-to-configuration test"
    assert settled.command("run", "existing1", "--", "sh", "-c", by_hand).code == 0
    assert settled.pages()[DORA]["content"]["system"] == before

    asked = settled.site("-e", "fleet_visit=all")
    assert asked.code == 0, asked.output
    assert settled.pages()[DORA]["content"]["system"] == wanted
    assert settled.site("-e", "fleet_visit=all").changed == 0


def test_the_controllers_own_files_can_be_lost(settled: Any) -> None:
    lose = 'rm -r "$FEDIVERSITY_STATE_DIR/fleet.json" "$FEDIVERSITY_STATE_DIR/gcroots" && nix-collect-garbage'
    assert settled.execute("sh", "-c", lose).code == 0
    assert settled.site().changed == 0
    settled.import_operators(with_title(operators(), "alice", "social", "After the loss"))
    run = settled.site()
    assert run.code == 0, run.output
    assert settled.pages()[ALICE]["content"]["instance"]["settings"]["title"] == "After the loss"


def test_the_plan_reads_the_database_and_not_an_old_snapshot_of_the_inventory(settled: Any, tmp_path: Path) -> None:
    exported = settled.execute("ansible-inventory", "--list", "--export")
    document = json.loads(exported.output)
    hosts = document["_meta"]["hostvars"]
    groups = {name: group for name, group in document.items() if name not in ("_meta", "all")}
    children = {name: {"hosts": dict.fromkeys(group.get("hosts", []))} for name, group in groups.items()}
    snapshot = tmp_path / "snapshot.yml"
    snapshot.write_text(json.dumps({"all": {"hosts": hosts, "children": children}}), encoding="utf-8")

    settled.import_operators(with_title(operators(), "alice", "social", "Newer than the snapshot"))
    static = ("env", "ANSIBLE_INVENTORY_ENABLED=ansible.builtin.yaml", "ansible-playbook", "-i", str(snapshot))
    run = settled.execute(*static, "site.yml")
    assert run.code == 0, run.output
    assert settled.pages()[ALICE]["content"]["instance"]["settings"]["title"] == "Newer than the snapshot"
    assert settled.site().changed == 0
